"""Inputs that contradict each other, or what an earlier run has settled: never decided by who writes first.

Only inputs that share a SOP Instance UID are read whole. Equal bytes are one instance, and the lowest URI of them
stands for it; what an earlier run has written stands before what comes later.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import apache_beam as beam

from dicomveil.errors import Unsuitable
from dicomveil.request import Request
from dicomveil.scan import InstanceScan
from dicomveil.study import StudyFacts
from dicomveil.uids import distinct_uid
from transforms import facts, stores
from transforms.bundles import SeldomTwiceFn
from transforms.facts import NOW, Facts, Known, KnownInstance, KnownStudy, Retired, without_retired
from transforms.locations import locate
from transforms.records import Planned
from transforms.secrets import KeyReference
from transforms.sieve import Sieved

_PLANNED, _SUPERSEDED = "planned", "superseded"
_RunStudy = tuple[str, str]


class SettleConflicts(beam.PTransform):
    """Let one instance pass for each SOP Instance UID, and one study for each Series Instance UID that is
    de-identified.

    Args:
      request: says what becomes of different bytes under one UID: "quarantine" all, or "distinct" new UIDs.
      output: root of what earlier runs may have written.
      sieve: of the tokens of this run's instances, where anything is known before it.
    """

    def __init__(
        self, key: KeyReference, request: Request, output: str, known: Facts, sieve: beam.PCollection[bytes] | None
    ) -> None:
        super().__init__()
        self._key, self._request, self._output, self._known, self._sieve = key, request, output, known, sieve

    def expand(self, planned: beam.PCollection[Planned]) -> beam.PCollection[Planned]:
        settle = _SettleFn(self._key, self._request, self._output)
        keyed = planned | "Key by SOP Instance" >> beam.WithKeys(_sop_token).with_output_types(tuple[str, Planned])
        settled = (
            {_PLANNED: keyed}
            | self._earlier(facts.INSTANCES)
            | self._earlier(facts.CONFLICTS)
            | self._retired()
            | "Group" >> beam.CoGroupByKey()
            | "Settle" >> beam.ParDo(settle).with_output_types(Planned)
        )
        if self._request.alters:
            return settled  # a series in several studies may be what is to be mended
        owners = self._owners(settled)
        return settled | "Settle series" >> beam.ParDo(_SeriesFn(), beam.pvalue.AsDict(owners)).with_output_types(
            Planned
        )

    def _owners(self, settled: beam.PCollection[Planned]) -> beam.PCollection[tuple[str, str]]:
        """Of each series that several studies hold, the study that it belongs to: "" for none of them."""
        return (
            {_PLANNED: settled | "Series" >> beam.ParDo(_StudyOfSeriesFn()).with_output_types(tuple[str, str])}
            | self._earlier(facts.STUDIES, keyed=_series_of)
            | "Group series" >> beam.CoGroupByKey()
            | "Torn ones" >> beam.ParDo(_OwnerFn(self._known.told)).with_output_types(tuple[str, str])
        )

    def _earlier(self, kind: str, **keyed: Any) -> dict[str, beam.PCollection[tuple[str, Any]]]:
        """The facts of a kind that concern this run; nothing of one that there are none of."""
        if self._sieve is None or kind not in self._known.kinds:
            return {}
        return {kind: self._known.read(f"Earlier {kind}", kind, self._sieve, **keyed)}

    def _retired(self) -> dict[str, beam.PCollection[tuple[str, Retired]]]:
        """What stands for nothing any more, by what earlier runs and this one have found."""
        told = self._earlier(facts.GONE)
        if self._sieve is not None and self._known.superseded is not None:
            now = self._known.superseded | "Superseded" >> beam.WithKeys(_retired_sop).with_output_types(
                tuple[str, Retired]
            )
            told |= {_SUPERSEDED: now | "Superseded of these" >> Sieved(self._sieve)}
        return told


def _retired_sop(retired: Retired) -> str:
    return retired.sop_token


def _sop_token(planned: Planned) -> str:
    """One group a SOP Instance UID; what has none is a group of its own."""
    return planned.sop_token or planned.token


class _StudyOfSeriesFn(SeldomTwiceFn):
    """(series token, study token)."""

    def process(self, planned: Planned) -> Iterator[tuple[str, str]]:
        pair = planned.series_token, planned.study_token
        if planned.series_token and self.is_new(pair):
            yield pair


def _series_of(token: str, known: KnownStudy) -> Iterator[tuple[str, _RunStudy]]:
    for series in StudyFacts.decode(known.facts).series:
        yield series.hex(), (known.run, token)


class _OwnerFn(beam.DoFn):
    def __init__(self, known: Known) -> None:
        self._known = known

    def process(self, torn: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[tuple[str, str]]:
        series, studies = torn
        now, earlier = set(studies[_PLANNED]), list(studies.get(facts.STUDIES, ()))
        owners = _first(earlier)
        if len(owners) > 1 and (since := self._known.forgets_before(run for run, _ in earlier)):
            owners = _first([known for known in earlier if known[0] >= since])
        if len(now | owners) > 1:
            yield series, next(iter(owners)) if len(owners) == 1 else ""


def _first(known: list[_RunStudy]) -> set[str]:
    """The studies that held the series at first sight: what came to it later was set aside, and doesn't contest it."""
    first = min((run for run, _ in known), default="")
    return {study for run, study in known if run == first}


class _SeriesFn(beam.DoFn):
    def process(self, planned: Planned, owners: dict[str, str]) -> Iterator[Planned]:
        torn = not planned.reason and owners.get(planned.series_token, planned.study_token) != planned.study_token
        yield replace(planned, reason="series-conflict") if torn else planned


class _SettleFn(beam.DoFn):
    def __init__(self, key: KeyReference, request: Request, output: str) -> None:
        self._key, self._policy, self._lossy, self._output = key, request.conflicts, request.lossy, output

    def setup(self) -> None:
        self._keys = self._key.keys()

    def process(self, group: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[Planned]:
        planned, instances, conflicts = (
            list(group[1].get(kind, ())) for kind in (_PLANNED, facts.INSTANCES, facts.CONFLICTS)
        )
        retired = [*group[1].get(facts.GONE, ()), *group[1].get(_SUPERSEDED, ())]
        standing = without_retired(instances, retired, {it.uri for it in planned})
        over = {it.name for it in retired if it.run == NOW} - {it.name for it in standing}
        for it in self._told(planned, _standing(standing), bool(conflicts)):
            # The output that is over is this one's to replace.
            yield it if it.reason or it.former or len(over) != 1 else replace(it, former=min(over))

    def _told(self, planned: list[Planned], newest: dict[str, KnownInstance], conflict: bool) -> Iterator[Planned]:
        if len(planned) == 1 and newest.keys() <= {planned[0].uri} and not conflict:
            yield self._known(planned[0], newest[planned[0].uri]) if newest else planned[0]
            return
        by_content: dict[str, list[Planned]] = {}
        for it in sorted(planned, key=lambda it: it.uri):
            try:
                by_content.setdefault(_digest(it), []).append(it)
            except Unsuitable as unsuitable:
                yield replace(it, reason=unsuitable.reason)
            except Exception as unforeseen:
                yield replace(it, reason="internal", path=type(unforeseen).__name__)
        yield from self._settled(by_content, newest, conflict)

    def _settled(
        self, by_content: dict[str, list[Planned]], newest: dict[str, KnownInstance], conflict: bool
    ) -> Iterator[Planned]:
        """What comes of inputs that share a SOP Instance UID, by their content.

        Args:
          newest: what earlier runs have written under it, by source; into this run's output, if there too. What is in
            another output alone still contests other content, but stands for nothing here.
          conflict: whether inputs were set aside for it then.
        """
        here = {it.uri for equal in by_content.values() for it in equal}
        absent = {known.source_sha256: known for uri, known in newest.items() if uri not in here}
        contested = (conflict and not newest) or len(by_content) > 1 or bool(newest)
        for content, equal in by_content.items():
            first, *others = sorted(equal, key=lambda it: it.uri in newest and 1 + newest[it.uri].here, reverse=True)
            known = absent.get(content)
            if known and self._stands(known):
                others = equal
            elif first.uri in newest:
                yield self._known(first, newest[first.uri])
            elif known:
                yield self._known(first, known)
            elif contested:
                yield self._told_apart(first, content)
            else:
                yield first
            for other in others:
                yield replace(other, reason="duplicate")

    def _stands(self, known: KnownInstance) -> bool:
        """Whether what was written is there, and can be written again whenever its study changes."""
        return (
            known.here and stores.holds(locate(self._output), known.name) and stores.unchanged(known.uri, known.version)
        )

    def _known(self, planned: Planned, known: KnownInstance) -> Planned:
        """The same, with what an earlier run has written of it."""
        given = known.sop_instance_uid if self._policy == "distinct" else ""
        return replace(planned, former=known.name if known.here else "", sop_instance_uid=given)

    def _told_apart(self, planned: Planned, content: str) -> Planned:
        if self._policy == "quarantine":
            return replace(planned, reason="sop-uid-conflict")
        uid = InstanceScan.decode(planned.scan).sop_instance_uid
        return replace(planned, sop_instance_uid=distinct_uid(self._keys, uid, bytes.fromhex(content), self._lossy))


def _standing(instances: Iterable[KnownInstance]) -> dict[str, KnownInstance]:
    """Of each output the last input that it was made of, by its URI; of this run's output, if in another one too."""
    last = {(known.here, known.sop_instance_uid): known for known in sorted(instances, key=lambda known: known.run)}
    return {known.uri: known for known in sorted(last.values(), key=lambda known: known.here)}


def _digest(planned: Planned) -> str:
    with stores.open_version(planned.uri, planned.version, planned.size) as source:
        return stores.sha256_of(source)
