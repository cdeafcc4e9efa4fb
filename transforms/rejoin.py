"""Instances of earlier runs whose studies have changed by what this run knows: they are written again."""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam

from dicomveil.request import Request
from dicomveil.study_map import StudyMap
from transforms import facts
from transforms.facts import Facts, KnownInstance, Retired, without_retired
from transforms.match import source_token
from transforms.records import Planned, PlannedStudy, SourceObject
from transforms.secrets import KeyReference
from transforms.sieve import Sieve, Sieved


class RejoinInstances(beam.PTransform):
    """The sources of what earlier runs have written into this output, of studies that changed, and which isn't among
    the inputs.
    """

    def __init__(self, key: KeyReference, request: Request, known: Facts) -> None:
        super().__init__()
        self._key, self._request, self._known = key, request, known

    def expand(
        self, told: tuple[beam.PCollection[PlannedStudy], beam.PCollection[Planned]]
    ) -> beam.PCollection[SourceObject]:
        studies, planned = told
        changed = studies | "Changed" >> beam.FlatMap(_changed).with_output_types(tuple[str, str])
        sieve = changed | "Studies" >> beam.Keys() | "Sieve" >> Sieve()
        known = self._known.read("Earlier", facts.INSTANCES, sieve, _here)
        present = (
            planned
            | "Present" >> beam.FlatMap(_present).with_output_types(tuple[str, str])
            | "Present there" >> Sieved(sieve)
        )
        retired = self._retired(sieve)
        return (
            (changed, known, present, *retired)
            | "Join" >> beam.CoGroupByKey()
            | "Absent ones" >> beam.ParDo(_AbsentFn(self._key, self._request.conflicts)).with_output_types(SourceObject)
        )

    def _retired(self, sieve: beam.PCollection[bytes]) -> Iterator[beam.PCollection[tuple[str, Retired]]]:
        """What stands for nothing any more, by study."""
        if facts.GONE in self._known.kinds:
            yield self._known.read("Gone", facts.GONE, sieve, _by_study)
        if self._known.superseded is not None:
            now = self._known.superseded | "Superseded" >> beam.WithKeys(_study_of).with_output_types(
                tuple[str, Retired]
            )
            yield now | "Superseded there" >> Sieved(sieve)


def _by_study(sop_token: str, retired: Retired) -> Iterator[tuple[str, Retired]]:
    yield retired.study_token, retired


def _study_of(retired: Retired) -> str:
    return retired.study_token


def _changed(study: PlannedStudy) -> Iterator[tuple[str, str]]:
    if study.changed and not StudyMap.decode(study.study_map).conflict:
        yield study.study_token, ""


def _here(sop_token: str, known: KnownInstance) -> Iterator[tuple[str, KnownInstance]]:
    if known.here:
        yield known.study_token, known


def _present(planned: Planned) -> Iterator[tuple[str, str]]:
    """What stands for what was written: the same source, or where that is gone, another of the same content."""
    if planned.study_token:
        yield planned.study_token, planned.uri
        if planned.former:
            yield planned.study_token, planned.former


class _AbsentFn(beam.DoFn):
    def __init__(self, key: KeyReference, policy: str) -> None:
        self._key, self._policy = key, policy

    def setup(self) -> None:
        self._keys = self._key.keys()

    def process(self, study: tuple[str, tuple[Iterable[Any], ...]]) -> Iterator[SourceObject]:
        changed, instances, present, *retired = study[1]
        if not list(changed):
            return
        known = without_retired(instances, (it for some in retired for it in some))
        newest = {it.sop_instance_uid: it for it in sorted(known, key=lambda it: it.run)}
        there = set(present)
        for it in newest.values():
            if there.isdisjoint((it.uri, it.name)):
                token = source_token(self._keys, it.uri, it.version)
                given = it.sop_instance_uid if self._policy == "distinct" else ""
                yield SourceObject(token, it.uri, it.size, it.version, former=it.name, sop_instance_uid=given)


class SieveTokens(beam.PTransform):
    """The tokens by which earlier runs may know what this run has scanned: of instances, series and studies."""

    def expand(self, planned: beam.PCollection[Planned]) -> beam.PCollection[bytes]:
        return planned | "Of each" >> beam.FlatMap(_tokens).with_output_types(str) | "Sieve" >> Sieve()


def _tokens(planned: Planned) -> Iterator[str]:
    yield from filter(None, (planned.sop_token, planned.series_token, planned.study_token))
