"""What was known of objects that are gone, or are another version by now: what their outputs were, and who else stands
for these.

That an object is gone is told only by a listing that would have shown it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final, NamedTuple

import apache_beam as beam

from transforms import plans, zips
from transforms.facts import NOW, Retired
from transforms.ledger import (
    DUPLICATE,
    RETIRED,
    Covered,
    LedgerFn,
    LedgerPart,
    Lost,
    Unchanged,
    name_digest,
    parts_asked,
)
from transforms.locations import Location, locate
from transforms.manifests import read_rows
from transforms.plan import KeepInParts
from transforms.purges import removed_tokens
from transforms.records import WRITTEN, SourceObject
from transforms.sieve import ReadSieved, Sieve, Sieved, as_side_input, passes
from transforms.tables import PLAN_FORMER, read_part, write_part

HERE, ELSEWHERE = "here", "elsewhere"
REVIVED: Final = "revived"
_LOST, _TOLD, _SHARING, _OUTSIDE = "lost", "told", "sharing", "outside"
_ROWS: Final = 1 << 14
_SHARDS: Final = 16
_READ: Final = {
    "source_token": "token", "uri_token": "uri_token", "source_uri": "uri", "source_version": "version", "name": "name",
    "study_token": "study_token", "sop_token": "sop_token",
}  # fmt: skip
_NOBODY: Final = bytes(16)


@dataclass(frozen=True, repr=False)
class Former:
    """A version of an object that isn't there any more.

    Attributes:
      token: of the version; uri_token of its URI.
      name: of its output, "" where it had none.
      by: token of the version that is there instead; "" where none is.
      purged: whether it was deleted on purpose, once de-identified.
      standing: HERE where another object that is there, and stays as it is, stands for the same output; ELSEWHERE where
        one does that this run hasn't listed, or one that is looked at again may; "" where none does.
    """

    token: str
    uri_token: str
    uri: str
    version: str
    name: str
    study_token: str
    sop_token: str
    by: str
    purged: bool = False
    standing: str = ""


class TellFormers(beam.PTransform):
    """(`Former`s; under REVIVED the `Unchanged` duplicates of such, which must be looked at again).

    Args:
      question: file of a `Question`.
      purges: folders of the records of what was deleted on purpose.
    """

    def __init__(self, question: str, purges: tuple[str, ...]) -> None:
        super().__init__()
        self._question, self._purges = question, purges

    def expand(
        self,
        told: tuple[beam.PCollection[tuple[str, Lost]], beam.PCollection[Unchanged], beam.PCollection[SourceObject]],
    ) -> Any:
        lost, unchanged, sources = told
        formers = self._named(lost, sources)
        if self._purges:
            formers = self._with_purges(formers)
        by_sop = formers | "By SOP Instance" >> beam.WithKeys(_sop_token).with_output_types(tuple[str, Former])
        sieve = by_sop | "SOP Instances" >> beam.Keys() | "Sieve SOP Instances" >> Sieve()
        sharing = (
            unchanged
            | "That stand for something" >> beam.FlatMap(_sharing).with_output_types(tuple[str, Unchanged])
            | "For the same" >> Sieved(sieve)
        )
        listed = partial(parts_asked, self._question)
        outside = lost.pipeline | "Others" >> ReadSieved(listed, _OutsideFn(self._question), sieve)
        return (
            {_LOST: by_sop, _SHARING: sharing, _OUTSIDE: outside}
            | "Join by SOP Instance" >> beam.CoGroupByKey()
            | "Who stands for it" >> beam.ParDo(_StandingFn()).with_outputs(REVIVED, main="formers")
        )

    def _named(
        self, lost: beam.PCollection[tuple[str, Lost]], sources: beam.PCollection[SourceObject]
    ) -> beam.PCollection[Former]:
        sieve = lost | "URIs" >> beam.Keys() | "Sieve URIs" >> Sieve()
        listed = partial(parts_asked, self._question)
        told = lost.pipeline | "Their rows" >> ReadSieved(listed, _DetailFn(self._question), sieve)
        unread = sources | "Unread folders" >> beam.FlatMap(_unread).with_output_types(str)
        seen = (
            sources
            | "Roots that hold something" >> beam.ParDo(_SeenFn(self._question)).with_output_types(str)
            | "Each once" >> beam.Distinct()
        )
        namer = _NameFn(self._question)
        return (
            {_LOST: lost, _TOLD: told}
            | "Join by URI" >> beam.CoGroupByKey()
            | "Name"
            >> beam.ParDo(namer, beam.pvalue.AsList(seen), beam.pvalue.AsList(unread)).with_output_types(Former)
        )

    def _with_purges(self, formers: beam.PCollection[Former]) -> beam.PCollection[Former]:
        keyed = formers | "By token" >> beam.WithKeys(_token).with_output_types(tuple[str, Former])
        sieve = keyed | "Tokens" >> beam.Keys() | "Sieve tokens" >> Sieve()
        purged = (
            formers.pipeline
            | "Purges" >> beam.Create(self._purges)
            | "Spread purges" >> beam.Reshuffle()
            | "Deleted" >> beam.ParDo(_PurgedFn(), as_side_input(sieve)).with_output_types(tuple[str, bool])
        )
        return (
            (keyed, purged)
            | "Join with purges" >> beam.CoGroupByKey()
            | "Mark" >> beam.FlatMapTuple(_marked).with_output_types(Former)
        )


def _rows(path: str, parts: Iterable[LedgerPart]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(run, row)."""
    wanted = [(part.begin, part.end, part.run) for part in parts]
    for run, batch in read_rows(locate(path), wanted, [*_READ, "outcome", "reason"], _ROWS):
        yield from ((run, row) for row in batch.to_pylist())


class _DetailFn(LedgerFn):
    """(token of the URI, `Former` without what is there by now)."""

    def process(self, listed: tuple[str, Iterable[LedgerPart]], sieve: bytes) -> Iterator[tuple[str, Former]]:
        if sieve:
            for _, row in _rows(*listed):
                if passes(row["uri_token"], sieve) and row["outcome"] != RETIRED:
                    yield row["uri_token"], Former(**{to: row[name] for name, to in _READ.items()}, by="")


class _Outside(NamedTuple):
    """What the ledger says of an object that this run hasn't listed, nor could.

    Attributes:
      order: later rows compare greater.
      over: whether it says that this version is over.
      name: of its output; "" where another's stands for it.
    """

    order: int
    over: bool
    token: str
    name: str


class _OutsideFn(LedgerFn):
    """(token of the SOP Instance UID, `_Outside`)."""

    def process(self, listed: tuple[str, Iterable[LedgerPart]], sieve: bytes) -> Iterator[tuple[str, _Outside]]:
        if not sieve:
            return
        for run, row in _rows(*listed):
            sop_token, over = row["sop_token"], row["outcome"] == RETIRED
            concerns = over or row["outcome"] in WRITTEN or row["reason"] == DUPLICATE
            if concerns and sop_token and passes(sop_token, sieve) and not self._covers(row["source_uri"]):
                order = 2 * self._orders[run] + (not over)
                yield sop_token, _Outside(order, over, row["source_token"], row["name"])


def _unread(source: SourceObject) -> Iterator[str]:
    """Where a listing failed: nobody knows what is below, or in it."""
    if (source.reason == "unreadable" and not source.version) or (source.reason and zips.is_named_so(source.uri)):
        yield source.uri


class _SeenFn(LedgerFn):
    def setup(self) -> None:
        super().setup()
        asked = self._question
        self._each = [(root, Covered([root])) for root in asked.roots]
        self._each += [(pattern, Covered([], [pattern])) for pattern in asked.patterns]

    def start_bundle(self) -> None:
        self._said: set[str] = set()

    def process(self, source: SourceObject) -> Iterator[str]:
        for root, covers in self._each:
            if root not in self._said and source.version and covers(source.uri):
                self._said.add(root)
                yield root


class _NameFn(LedgerFn):
    """What the ledger tells of lost versions; of objects that are gone only where their absence was seen."""

    def process(
        self, group: tuple[str, dict[str, Iterable[Any]]], seen: list[str], unread: list[str]
    ) -> Iterator[Former]:
        told, asked = group[1], self._question
        shown = Covered(set(seen).intersection(asked.roots), set(seen).intersection(asked.patterns))
        unknown = Covered(unread)
        rows = {it.token: it for it in told[_TOLD]}
        for lost in told[_LOST]:
            for token in lost.tokens:
                it = rows[token]
                if lost.by or (shown(it.uri) and not unknown(it.uri)):
                    yield replace(it, by=lost.by)


def _token(former: Former) -> str:
    return former.token


def _sop_token(former: Former) -> str:
    """One group a SOP Instance UID; what has none is a group of its own."""
    return former.sop_token or former.token


class _PurgedFn(beam.DoFn):
    def process(self, folder: str, sieve: bytes) -> Iterator[tuple[str, bool]]:
        if sieve:
            yield from ((token, True) for token in removed_tokens(locate(folder)) if passes(token, sieve))


def _marked(token: str, told: tuple[Iterable[Former], Iterable[bool]]) -> Iterator[Former]:
    purged = any(told[1])
    yield from (replace(it, purged=purged) for it in told[0])


def _sharing(it: Unchanged) -> Iterator[tuple[str, Unchanged]]:
    if it.sop_token != _NOBODY and (it.written or it.source):
        yield it.sop_token.hex(), it


class _StandingFn(beam.DoFn):
    def process(self, group: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[Any]:
        told = group[1]
        formers, sharing = list(told[_LOST]), list(told[_SHARING])
        if not formers:
            return
        revived = [it for it in sharing if it.source]
        yield from (beam.pvalue.TaggedOutput(REVIVED, it) for it in revived)
        here = {it.name for it in sharing if it.written}
        elsewhere = _standing(told[_OUTSIDE])
        for it in formers:
            if it.name and name_digest(it.name) in here:
                yield replace(it, standing=HERE)
            elif it.name and (revived or elsewhere & {it.name, ""}):
                yield replace(it, standing=ELSEWHERE)
            else:
                yield it


def _standing(outside: Iterable[_Outside]) -> set[str]:
    """The outputs for which something stands that wasn't listed; "" where something stands for any of them."""
    rows = list(outside)
    over = {it.token: it.order for it in rows if it.over}
    return {it.name for it in rows if not it.over and it.order > over.get(it.token, -1)}


class ReadSuperseded(beam.PTransform):
    """What stands for nothing any more, as this run has found.

    Args:
      retire: whether that holds of objects that are gone, too.
    """

    def __init__(self, folder: str, retire: bool) -> None:
        super().__init__()
        self._parts, self._retire = list(map(str, former_parts(folder))), retire

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[Retired]:
        return (
            pipeline
            | "Parts" >> beam.Create(self._parts)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.FlatMap(_superseded, self._retire).with_output_types(Retired)
        )


def _superseded(part: str, retire: bool) -> Iterator[Retired]:
    for former in read_formers(locate(part)):
        yield from superseded(former, retire)


def superseded(former: Former, retire: bool) -> Iterator[Retired]:
    """What doesn't contest anything any more: former versions, and where they are retired, objects that are gone."""
    if former.name and (former.by or (retire and not former.purged)):
        yield Retired(former.sop_token, former.study_token, former.uri, former.name, NOW)


# ----------------------------------------------------------------------------------------------- kept with the plan


class WriteFormers(KeepInParts):
    """Keep them with the plan, for the run's end.

    Args:
      folder: of the run, in the restricted zone.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(_shard, partial(_write, folder))


def _shard(former: Former) -> int:
    return int(former.uri_token[:8], 16) % _SHARDS


def _write(folder: str, shard: int, formers: list[Former]) -> None:
    rows = [asdict(it) for it in sorted(formers, key=lambda it: (it.uri_token, it.token))]
    write_part(folder, "plan", PLAN_FORMER, f"{shard:03}", rows)


def former_parts(folder: str) -> list[Location]:
    """Where they are kept."""
    return plans.parts(folder, PLAN_FORMER)


def read_formers(part: Location) -> list[Former]:
    """Those of one part."""
    return [Former(**row) for row in read_part(part)]
