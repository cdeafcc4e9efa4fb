"""What becomes of the outputs of objects that are gone, or another version by now: settled when all else is written.

It is recorded before anything is removed, so that whoever finds the record can go on.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import apache_beam as beam
import pyarrow.parquet as pq

from transforms import stores, tables
from transforms.formers import HERE, Former, read_formers
from transforms.ledger import RETIRED
from transforms.locations import Location, locate, table_file
from transforms.only_copies import is_only_copy
from transforms.outcomes import Part
from transforms.sieve import Sieve, as_side_input, passes

KEPT: Final = "kept"
"""The outcome of what is gone, and of which there still is an output."""
GONE, REPLACED, MOVED = "gone", "replaced", "moved"
ONLY_COPY, OTHERS, UNFINISHED = "only-copy", "others", "unfinished"
REMOVED: Final = (GONE, REPLACED)
MEANINGS: Final = {
    (KEPT, GONE): "What outputs they have stay; --retire removes those.",
    (KEPT, ONLY_COPY): "Their outputs stay: there is nothing else left of what they were made of.",
    (KEPT, OTHERS): "Their outputs stay: they stand for objects outside --input, too, or for duplicates to come.",
    (KEPT, UNFINISHED): "Their outputs stay until all that is new is processed, since some of it may be the same.",
    (RETIRED, GONE): "Their outputs were removed.",
    (RETIRED, REPLACED): "Another version has come out under another name; the former output was removed.",
    (RETIRED, MOVED): "The same bytes are elsewhere by now, and their output stays.",
}
"""What the outcome and reason of an object that isn't there any more say."""
_SHARDS: Final = 4
_THREADS: Final = 16  # they wait for the storage
_ROWS: Final = 1 << 14
_FORMERS, _WRITTEN = "formers", "written"


@dataclass(frozen=True, repr=False)
class Settled:
    """What became of a former version and its output: RETIRED or KEPT, and why."""

    former: Former
    outcome: str
    reason: str


class Asked(NamedTuple):
    """What a run may remove.

    Attributes:
      retire: whether outputs of objects that are gone are to go.
      unfinished: whether something that is new was left for the next run.
    """

    retire: bool
    unfinished: bool


class RetireFormers(beam.PTransform):
    """From the parts of the plan that tell formers to the parts of tables that tell what became of them.

    Args:
      written: the parts of the crosswalk of instances that this run has written.
    """

    def __init__(
        self, written: list[str], output: str, audit: str, restricted: str, run: str, request: str, asked: Asked
    ) -> None:
        super().__init__()
        self._written = written
        self._decide = _DecideFn(output, restricted, asked)
        self._write = _WriteFn(audit, restricted, run, request)

    def expand(self, parts: beam.PCollection[str]) -> beam.PCollection[Part]:
        formers = parts | "Formers" >> beam.FlatMap(_formers).with_output_types(Former)
        keys = formers | "Sought" >> beam.FlatMap(_sought).with_output_types(str)
        written = (
            parts.pipeline
            | "Written" >> beam.Create(self._written)
            | "Spread" >> beam.Reshuffle()
            | "Outputs" >> beam.ParDo(_WrittenFn(), as_side_input(keys | Sieve())).with_output_types(tuple[str, bool])
        )
        by_token = formers | "By what came instead" >> beam.WithKeys(_instead).with_output_types(tuple[str, Former])
        by_name = (
            {_FORMERS: by_token, _WRITTEN: written}
            | "Join by token" >> beam.CoGroupByKey()
            | "Came instead" >> beam.FlatMapTuple(_came).with_output_types(tuple[str, tuple[Former, bool]])
        )
        return (
            {_FORMERS: by_name, _WRITTEN: written}
            | "Join by name" >> beam.CoGroupByKey()
            | "Decide" >> beam.ParDo(self._decide).with_output_types(Settled)
            | "By shard" >> beam.WithKeys(_shard).with_output_types(tuple[int, Settled])
            | "Group" >> beam.GroupByKey()
            | "Write" >> beam.ParDo(self._write).with_output_types(Part)
        )


def _formers(part: str) -> list[Former]:
    return read_formers(locate(part))


def _sought(former: Former) -> Iterator[str]:
    yield _instead(former)
    yield _of_name(former.name)


def _instead(former: Former) -> str:
    return f"token {former.by or former.token}"


def _of_name(name: str) -> str:
    return f"name {name}"


class _WrittenFn(beam.DoFn):
    """(what a former version may be sought by, True) of the outputs that this run has written."""

    def process(self, part: str, sieve: bytes) -> Iterator[tuple[str, bool]]:
        if not sieve:
            return
        with pq.ParquetFile(table_file(locate(part))) as file:
            for batch in file.iter_batches(_ROWS, columns=["source_token", "name"]):
                for token, name in zip(*(batch.column(at).to_pylist() for at in (0, 1)), strict=True):
                    yield from ((key, True) for key in (f"token {token}", _of_name(name)) if passes(key, sieve))


def _came(token: str, told: dict[str, Iterable[Any]]) -> Iterator[tuple[str, tuple[Former, bool]]]:
    instead = any(told[_WRITTEN])
    for former in told[_FORMERS]:
        yield _of_name(former.name), (former, bool(former.by and instead))


class _DecideFn(beam.DoFn):
    def __init__(self, output: str, restricted: str, asked: Asked) -> None:
        self._output, self._restricted, self._asked = output, restricted, asked

    def process(self, group: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[Settled]:
        told = group[1]
        again = any(told[_WRITTEN])
        for former, instead in told[_FORMERS]:
            outcome, reason = self._settled(former, instead, bool(former.name) and (again or former.standing == HERE))
            if outcome:
                yield Settled(former, outcome, reason)

    def _settled(self, former: Former, instead: bool, stands: bool) -> tuple[str, str]:
        """The outcome and its reason; "" where there is nothing to tell.

        Args:
          instead: whether its new version has come out.
          stands: whether its output stands for an object that is there.
        """
        if former.by and (stands or not instead):
            return "", ""  # it was written again in its place, or nothing has come in its stead
        if stands:
            return RETIRED, MOVED
        if former.purged or (not former.by and not self._asked.retire):
            return ("", "") if former.purged else (KEPT, GONE)
        if former.standing:
            return KEPT, OTHERS
        if self._asked.unfinished and not former.by:
            return KEPT, UNFINISHED
        if former.name and is_only_copy(locate(self._output), former.name, locate(self._restricted)):
            return KEPT, ONLY_COPY
        return RETIRED, REPLACED if former.by else GONE


def _shard(settled: Settled) -> int:
    return int(settled.former.uri_token[:8], 16) % _SHARDS


class _WriteFn(beam.DoFn):
    def __init__(self, audit: str, restricted: str, run: str, request: str) -> None:
        self._audit, self._restricted, self._run, self._request = audit, restricted, run, request

    def process(self, shard: tuple[int, Iterable[Settled]]) -> Iterator[Part]:
        settled = sorted(shard[1], key=lambda it: (it.former.uri_token, it.former.token))
        removed = [it for it in settled if it.outcome == RETIRED and it.reason in REMOVED and it.former.name]
        part = f"retired-{shard[0]:02}"
        for zone, root, schema, rows in (
            ("restricted", self._restricted, tables.GONE, [_row(it) for it in settled]),
            ("audit", self._audit, tables.INSTANCES, [self._audited(it) for it in removed]),
        ):
            name, count = tables.write_part(root, self._run, schema, part, rows)
            if count:
                yield zone, name, count
        for (outcome, reason), count in sorted(Counter((it.outcome, it.reason) for it in settled).items()):
            yield "gone", f"{outcome} {reason}", count

    def _audited(self, settled: Settled) -> dict[str, Any]:
        return {
            "source_token": settled.former.token,
            "outcome": settled.outcome,
            "reason": settled.reason,
            "stage": "retire",
            "name": settled.former.name,
            "request_fingerprint": self._request,
            "changes": [],
            "frozen": [],
        }


def _row(settled: Settled) -> dict[str, Any]:
    it = settled.former
    return {
        "source_token": it.token,
        "uri_token": it.uri_token,
        "source_uri": it.uri,
        "source_version": it.version,
        "outcome": settled.outcome,
        "reason": settled.reason,
        "name": it.name,
        "study_token": it.study_token,
        "sop_token": it.sop_token,
    }


def remove_retired(parts: Iterable[Location], output: Location, restricted: Location) -> None:
    """Remove the outputs that parts of the table tell were retired, as far as they are there.

    Raises:
      StoreFailed: one can't be removed.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        for part in parts:
            rows = pq.read_table(table_file(part), columns=["outcome", "reason", "name"], partitioning=None).to_pylist()
            names = [it["name"] for it in rows if it["outcome"] == RETIRED and it["reason"] in REMOVED and it["name"]]
            for _ in pool.map(lambda name: _remove(output, name, restricted), names):
                pass


def _remove(output: Location, name: str, restricted: Location) -> None:
    if not is_only_copy(output, name, restricted):
        stores.remove(output, name)
