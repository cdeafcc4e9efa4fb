"""From planned instances to the maps of their studies: what this run says of them, what earlier ones have settled, what
crosswalks give, and who else bears the UIDs that they refer to.
"""

from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Any, Final

import apache_beam as beam

from dicomveil.identities import Given, Identities
from dicomveil.request import Request
from dicomveil.scan import InstanceScan
from dicomveil.study import Lists, StudyFacts, gather, part_token, settle
from dicomveil.study_map import StudyMap
from transforms import facts
from transforms.facts import Known, KnownStudy, ReadFacts
from transforms.records import Planned, PlannedStudy
from transforms.secrets import KeyReference
from transforms.sieve import Sieve, Sieved

_PAIR: Final = tuple[str, Any]
_ASKED, _HERE, _EARLIER = "asked", "here", "earlier"


class BuildStudyMaps(beam.PTransform):
    """Group by study, and settle what its instances share.

    What a quarantined instance says still counts: its study knows of it. A study whose map can't be built for a reason
    that nobody foresaw is set aside whole. A study of which no instance is among the inputs is settled again where this
    run bears what its references need.

    Args:
      sieve: of the tokens of this run's instances, where anything is known before it.
    """

    def __init__(
        self, key: KeyReference, request: Request, known: Known, sieve: beam.PCollection[bytes] | None
    ) -> None:
        super().__init__()
        self._key, self._request, self._known, self._sieve = key, request, known, sieve

    def expand(self, planned: beam.PCollection[Planned]) -> beam.PCollection[PlannedStudy]:
        said = (
            planned
            | "Scanned ones" >> beam.Filter(_has_study)
            | "Key by study" >> beam.WithKeys(_study_token).with_output_types(tuple[str, Planned])
            | "Group by study" >> beam.GroupByKey()
            | "Gather" >> beam.ParDo(_GatherFn(self._key, self._request)).with_output_types(tuple[str, bytes])
        )
        merged = (
            {_HERE: said}
            | self._concerned(said)
            | "With what is known" >> beam.CoGroupByKey()
            | "Merge" >> beam.MapTuple(_merged).with_output_types(_PAIR)
        )
        return (
            (merged, self._answers(said, merged))
            | "With answers" >> beam.CoGroupByKey()
            | "Settle"
            >> beam.ParDo(_SettleFn(self._key, self._request, self._known.lists)).with_output_types(PlannedStudy)
        )

    def _earlier(self, pipeline: beam.Pipeline, kind: str, name: str) -> beam.PCollection[_PAIR]:
        return pipeline | f"Earlier {name}" >> ReadFacts(self._known, kind, self._key, self._request)

    def _concerned(self, said: beam.PCollection[_PAIR]) -> dict[str, beam.PCollection[_PAIR]]:
        """The earlier runs' facts of studies that this run has to do with."""
        if facts.STUDIES not in self._known.kinds:
            return {}
        same = self._earlier(said.pipeline, facts.STUDIES, "studies") | "Same study" >> Sieved(self._sieve)
        if self._request.external_references != "remove":
            return {_EARLIER: same}
        bears = said | "Borne" >> beam.FlatMapTuple(_borne) | "UIDs borne" >> beam.Keys() | "Sieve UIDs" >> Sieve()
        missing = (
            self._earlier(said.pipeline, facts.STUDIES, "references")
            | "Missing" >> beam.FlatMapTuple(_referred).with_output_types(_PAIR)
            | "Borne by now" >> Sieved(bears)
            | "Its study" >> beam.Values()
            | "As key" >> beam.Map(_keyed).with_output_types(tuple[str, str])
        )
        earlier = self._earlier(said.pipeline, facts.STUDIES, "ones that refer")
        found = earlier | "Refers to it" >> Sieved(missing | "Their studies" >> beam.Keys() | "Sieve them" >> Sieve())
        return {_EARLIER: (same, found) | "Concerned" >> beam.Flatten()}

    def _answers(self, said: beam.PCollection[_PAIR], merged: beam.PCollection[_PAIR]) -> beam.PCollection[_PAIR]:
        """(study token, (what was asked for, who bears it or what is given)) of what the studies mention."""
        asker = _AskFn(self._key, self._request, self._known.lists)
        asked = merged | "Ask" >> beam.ParDo(asker).with_output_types(_PAIR)
        told = {_ASKED: asked, _HERE: said | "Borne here" >> beam.FlatMapTuple(_borne).with_output_types(_PAIR)}
        kinds = self._known.kinds & {facts.STUDIES, facts.GIVEN}
        sieve = asked | "Asked for" >> beam.Keys() | "Sieve" >> Sieve() if kinds else None
        if facts.STUDIES in kinds:
            told[_EARLIER] = (
                self._earlier(said.pipeline, facts.STUDIES, "bearers")
                | "Borne earlier" >> beam.FlatMapTuple(_borne_earlier).with_output_types(_PAIR)
                | "Asked earlier" >> Sieved(sieve)
            )
        if facts.GIVEN in kinds:
            told[facts.GIVEN] = self._earlier(
                said.pipeline, facts.GIVEN, "crosswalks"
            ) | "Asked of crosswalks" >> Sieved(sieve)
        return told | "Join" >> beam.CoGroupByKey() | "Answer" >> beam.FlatMapTuple(_answered).with_output_types(_PAIR)


def _has_study(planned: Planned) -> bool:
    return bool(planned.scan)


def _study_token(planned: Planned) -> str:
    return planned.study_token


def _keyed(token: str) -> tuple[str, str]:
    return token, ""


class _GatherFn(beam.DoFn):
    def __init__(self, key: KeyReference, request: Request) -> None:
        self._key, self._request = key, request

    def setup(self) -> None:
        self._identities = Identities(self._key.keys(), self._request)

    def process(self, study: tuple[str, Iterable[Planned]]) -> Iterator[tuple[str, bytes]]:
        token, instances = study
        try:
            yield token, gather((InstanceScan.decode(it.scan) for it in instances), self._identities).encode()
        except Exception:
            yield token, b""


def _merged(token: str, told: dict[str, Iterable[Any]]) -> tuple[str, tuple[bytes, KnownStudy | None]]:
    """(what is known of a study by now, what was when its instances were last written here); b"" for now where it can't
    be gathered, None for then where none was."""
    now = next(iter(told[_HERE]), None)
    earlier = sorted(told.get(_EARLIER, ()), key=lambda known: known.run)
    if not earlier:
        return token, (now or b"", None)
    then = next((known for known in reversed(earlier) if known.here), None)
    if now == b"":
        return token, (b"", then)
    # All of them: a run may have gone on beside another, or behind it, without what that one saw.
    told_in_turn = [StudyFacts.decode(it) for it in (*(known.facts for known in earlier), *([now] if now else []))]
    return token, (reduce(lambda before, facts: facts.after(before), told_in_turn).encode(), then)


def _borne(token: str, encoded: bytes) -> Iterator[tuple[str, str]]:
    if encoded:
        for uid in StudyFacts.decode(encoded).borne:
            yield uid.hex(), token


def _borne_earlier(token: str, known: KnownStudy) -> Iterator[tuple[str, str]]:
    yield from _borne(token, known.facts)


def _referred(token: str, known: KnownStudy) -> Iterator[tuple[str, str]]:
    for uid in StudyFacts.decode(known.facts).referred:
        yield uid.hex(), token


class _AskFn(beam.DoFn):
    """(UID token or pseudonym, study token) of what a study must know: of the UIDs that it only refers to who bears
    them, and of whatever there is a crosswalk of what that gives."""

    def __init__(self, key: KeyReference, request: Request, lists: Lists) -> None:
        self._key, self._request, self._lists = key, request, lists

    def setup(self) -> None:
        self._identities = Identities(self._key.keys(), self._request)

    def process(self, study: tuple[str, tuple[bytes, KnownStudy | None]]) -> Iterator[tuple[str, str]]:
        token, (encoded, _) = study
        if not encoded:
            return
        known = StudyFacts.decode(encoded)
        for uid in known.referred:
            yield uid.hex(), token
        if self._lists.uids:
            for uid in known.borne:
                yield uid.hex(), token
        if self._lists.patients:
            for patient in (*known.patients, *known.mentioned):
                yield self._identities.pseudonym(patient), token


def _answered(name: str, told: dict[str, Iterable[Any]]) -> Iterator[tuple[str, Any]]:
    """What each study that asked for a UID or a patient hears of it."""
    asked, bears, bore = (set(told.get(kind, ())) for kind in (_ASKED, _HERE, _EARLIER))
    said = list(told.get(facts.GIVEN, ())) if asked else []
    for study in asked:
        if said:
            yield study, (name, said[0])
        if bears - {study}:
            yield study, (name, _HERE)
        elif bore - {study}:
            yield study, (name, _EARLIER)


class _SettleFn(beam.DoFn):
    def __init__(self, key: KeyReference, request: Request, lists: Lists) -> None:
        self._key, self._request, self._lists = key, request, lists

    def setup(self) -> None:
        self._identities = Identities(self._key.keys(), self._request)

    def process(
        self, study: tuple[str, tuple[Iterable[tuple[bytes, KnownStudy | None]], Iterable[tuple[str, Any]]]]
    ) -> Iterator[PlannedStudy]:
        token, (merged, answers) = study
        encoded, then = next(iter(merged))
        try:
            yield self._settled(token, encoded, then, list(answers))
        except Exception:
            yield PlannedStudy(token, StudyMap(token, conflict="internal").encode())

    def _settled(
        self, token: str, encoded: bytes, then: KnownStudy | None, answers: list[tuple[str, Any]]
    ) -> PlannedStudy:
        known = StudyFacts.decode(encoded)
        given = {name: it for name, it in answers if isinstance(it, Given)}
        borne = {name: it for name, it in answers if not isinstance(it, Given)}
        study_map = settle(known, self._identities, given, {bytes.fromhex(name) for name in borne}, self._lists)
        referred = {uid.hex() for uid in known.referred}
        elsewhere = sum(it == _HERE for name, it in borne.items() if name in referred)
        found = len(referred & (borne.keys() | given.keys()))
        return PlannedStudy(
            token,
            study_map.encode(),
            encoded,
            part_token(study_map, known, self._identities),
            bool(known.study_instance_uid and then and self._changed(study_map, then)),
            elsewhere,
            found - elsewhere,
            len(referred) - found,
        )

    def _changed(self, study_map: StudyMap, then: KnownStudy) -> bool:
        return part_token(study_map, StudyFacts.decode(then.facts), self._identities) != then.map_token
