"""Inputs that contradict each other, or what an earlier run has settled: never decided by who writes first.

Only inputs that share a SOP Instance UID are read whole. Equal bytes are one instance, and the lowest URI of them
stands for it; what an earlier run has written stands before what comes later.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

import apache_beam as beam

from dicomveil.errors import InvalidInstance, Unsuitable
from dicomveil.request import Request
from dicomveil.scan import InstanceScan
from dicomveil.stream import LARGEST_CHUNK
from dicomveil.study import StudyFacts
from dicomveil.uids import distinct_uid
from transforms import facts, stores
from transforms.facts import Known, KnownInstance, KnownStudy, ReadFacts
from transforms.records import Planned
from transforms.secrets import KeyReference
from transforms.sieve import Sieved

_PLANNED: Final = "planned"
_RunStudy = tuple[str, str]


class SettleConflicts(beam.PTransform):
    """Let one instance pass for each SOP Instance UID, and one study for each Series Instance UID.

    Args:
      request: says what becomes of different bytes under one UID: "quarantine" all, or "distinct" new UIDs.
      sieve: of the tokens of this run's instances, where anything is known before it.
    """

    def __init__(
        self, key: KeyReference, request: Request, known: Known, sieve: beam.PCollection[bytes] | None
    ) -> None:
        super().__init__()
        self._key, self._request, self._known, self._sieve = key, request, known, sieve

    def expand(self, planned: beam.PCollection[Planned]) -> beam.PCollection[Planned]:
        keyed = planned | "Key by SOP Instance" >> beam.WithKeys(_sop_token).with_output_types(tuple[str, Planned])
        settled = (
            {_PLANNED: keyed}
            | self._earlier(planned, facts.INSTANCES, facts.CONFLICTS)
            | "Group" >> beam.CoGroupByKey()
            | "Settle" >> beam.ParDo(_SettleFn(self._key, self._request.conflicts)).with_output_types(Planned)
        )
        owners = self._owners(settled)
        return settled | "Settle series" >> beam.ParDo(_SeriesFn(), beam.pvalue.AsDict(owners)).with_output_types(
            Planned
        )

    def _owners(self, settled: beam.PCollection[Planned]) -> beam.PCollection[tuple[str, str]]:
        """Of each series that several studies hold, the study that it belongs to: "" for none of them."""
        pairs = (
            settled
            | "Series" >> beam.FlatMap(_series).with_output_types(tuple[str, str])
            | "Each once" >> beam.Distinct()
        )
        return (
            {_PLANNED: pairs}
            | self._earlier(settled, facts.STUDIES)
            | "Group series" >> beam.CoGroupByKey()
            | "Torn ones" >> beam.ParDo(_OwnerFn(self._known.anew)).with_output_types(tuple[str, str])
        )

    def _earlier(self, planned: beam.PCollection[Planned], *kinds: str) -> dict[str, beam.PCollection[tuple[str, Any]]]:
        """The facts of some kinds that concern this run; nothing of kinds that there are none of."""
        found = {}
        for kind in kinds:
            if kind in self._known.kinds:
                read = planned.pipeline | f"Earlier {kind}" >> ReadFacts(self._known, kind, self._key, self._request)
                if kind == facts.STUDIES:
                    read |= "Series of studies" >> beam.FlatMap(_series_of).with_output_types(tuple[str, _RunStudy])
                found[kind] = read | f"Of this run's {kind}" >> Sieved(self._sieve)
        return found


def _sop_token(planned: Planned) -> str:
    """One group a SOP Instance UID; what has none is a group of its own."""
    return planned.sop_token or planned.token


def _series(planned: Planned) -> Iterator[tuple[str, str]]:
    if planned.series_token:
        yield planned.series_token, planned.study_token


def _series_of(study: tuple[str, KnownStudy]) -> Iterator[tuple[str, _RunStudy]]:
    token, known = study
    for series in StudyFacts.decode(known.facts).series:
        yield series.hex(), (known.run, token)


class _OwnerFn(beam.DoFn):
    def __init__(self, anew: bool) -> None:
        self._anew = anew

    def process(self, torn: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[tuple[str, str]]:
        series, studies = torn
        now, earlier = set(studies[_PLANNED]), list(studies.get(facts.STUDIES, ()))
        # What came to it later was set aside, and doesn't contest it.
        first = min((run for run, _ in earlier), default="")
        owners = {study for run, study in earlier if run == first}
        if self._anew and len(owners) > 1:
            owners = set()
        if len(now | owners) > 1:
            yield series, next(iter(owners)) if len(owners) == 1 else ""


class _SeriesFn(beam.DoFn):
    def process(self, planned: Planned, owners: dict[str, str]) -> Iterator[Planned]:
        torn = not planned.reason and owners.get(planned.series_token, planned.study_token) != planned.study_token
        yield replace(planned, reason="series-conflict") if torn else planned


class _SettleFn(beam.DoFn):
    def __init__(self, key: KeyReference, policy: str) -> None:
        self._key, self._policy = key, policy

    def setup(self) -> None:
        self._keys = self._key.keys()

    def process(self, group: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[Planned]:
        planned, instances, conflicts = (
            list(group[1].get(kind, ())) for kind in (_PLANNED, facts.INSTANCES, facts.CONFLICTS)
        )
        newest = {known.uri: known for known in sorted(instances, key=lambda known: (known.here, known.run))}
        if len(planned) == 1 and newest.keys() <= {planned[0].uri} and not conflicts:
            yield self._known(planned[0], newest)
            return
        by_content: dict[bytes, list[Planned]] = {}
        for it in sorted(planned, key=lambda it: it.uri):
            try:
                by_content.setdefault(_digest(it.uri, it.version), []).append(it)
            except Unsuitable as unsuitable:
                yield replace(it, reason=unsuitable.reason)
            except Exception as unforeseen:
                yield replace(it, reason="internal", path=type(unforeseen).__name__)
        yield from self._settled(by_content, newest, bool(conflicts))

    def _settled(
        self, by_content: dict[bytes, list[Planned]], newest: dict[str, KnownInstance], conflict: bool
    ) -> Iterator[Planned]:
        """What comes of inputs that share a SOP Instance UID, by their content.

        Args:
          newest: what earlier runs have written under it, by source; into this run's output, if there too. What is in
            another output alone still contests other content, but stands for nothing here.
          conflict: whether inputs were set aside for it then.
        """
        here = {it.uri for equal in by_content.values() for it in equal}
        absent = {known.uri: _there(known) for known in newest.values() if known.uri not in here}
        gone = [newest[uri].sha256 for uri, content in absent.items() if newest[uri].here and not content]
        written = {content for uri, content in absent.items() if newest[uri].here}
        elsewhere = {content: newest[uri] for uri, content in absent.items() if content and not newest[uri].here}
        contested = (
            (conflict and not newest) or len(by_content) > 1 or any(absent.values()) or bool(newest.keys() & here)
        )
        for content, equal in by_content.items():
            first, *others = sorted(equal, key=lambda it: it.uri in newest and 1 + newest[it.uri].here, reverse=True)
            if content in written:
                others = equal
            elif first.uri in newest:
                yield self._known(first, newest)
            elif content in elsewhere:
                yield self._known(first, {first.uri: elsewhere[content]})
            elif contested:
                yield self._told_apart(first, content)
            else:
                yield replace(first, known_sha256=gone[-1]) if gone else first
            for other in others:
                yield replace(other, reason="duplicate")

    def _known(self, planned: Planned, newest: dict[str, KnownInstance]) -> Planned:
        """The same, with what an earlier run has written of it."""
        known = newest.get(planned.uri)
        if known is None:
            return planned
        given = known.sop_instance_uid if self._policy == "distinct" else ""
        return replace(planned, former=known.name if known.here else "", sop_instance_uid=given)

    def _told_apart(self, planned: Planned, content: bytes) -> Planned:
        if self._policy == "quarantine":
            return replace(planned, reason="sop-uid-conflict")
        uid = InstanceScan.decode(planned.scan).sop_instance_uid
        return replace(planned, sop_instance_uid=distinct_uid(self._keys, uid, content))


def _there(known: KnownInstance) -> bytes:
    """The digest of what an earlier run has read; b"" where it is gone."""
    try:
        return _digest(known.uri, known.version)
    except InvalidInstance:
        return b""


def _digest(uri: str, version: str) -> bytes:
    digest = hashlib.sha256()
    with stores.open_version(uri, version) as source:
        for offset in range(0, source.size, LARGEST_CHUNK):
            digest.update(source.read(offset, LARGEST_CHUNK))
    return digest.digest()
