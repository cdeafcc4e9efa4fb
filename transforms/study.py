"""From planned instances to the maps of their studies: what this run says of them, what earlier ones have settled, what
crosswalks give, and who else bears the UIDs that they refer to.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import reduce
from typing import Any, Final

import apache_beam as beam

from dicomveil.identities import Given, Identities
from dicomveil.request import Request
from dicomveil.scan import InstanceScan
from dicomveil.study import Lists, StudyFacts, borne, gather, part_token, settle
from dicomveil.study_map import StudyMap
from dicomveil.uids import uid_token
from transforms import facts
from transforms.bundles import SeldomTwiceFn
from transforms.facts import Facts, Known, KnownStudy
from transforms.records import Planned, PlannedStudy
from transforms.secrets import KeyReference
from transforms.sieve import Sieve
from transforms.study_groups import GroupByStudy

_PAIR: Final = tuple[str, Any]
_ASKED, _HERE, _EARLIER, _TAKEN = "asked", "here", "earlier", "taken"
_AS_NEW: Final = "new "
"""Before a new value, where what is asked for goes by it."""


class BuildStudyMaps(beam.PTransform):
    """Group by study, and settle what its instances share.

    What a quarantined instance says still counts: its study knows of it. A study whose map can't be built for a reason
    that nobody foresaw is set aside whole. A study of which no instance is among the inputs is settled again where this
    run bears what its references need.

    Args:
      sieve: of the tokens of this run's instances, where anything is known before it.
    """

    def __init__(
        self, key: KeyReference, request: Request, known: Facts, sieve: beam.PCollection[bytes] | None
    ) -> None:
        super().__init__()
        self._key, self._request, self._known, self._sieve = key, request, known, sieve

    def expand(self, planned: beam.PCollection[Planned]) -> beam.PCollection[PlannedStudy]:
        said = (
            planned
            | "Of each study" >> GroupByStudy()
            | "Gather" >> beam.ParDo(_GatherFn(self._key, self._request)).with_output_types(tuple[str, bytes])
        )
        quarantines = self._request.patient_conflicts == "quarantine"
        merged = (
            {_HERE: said}
            | self._concerned(said)
            | "With what is known" >> beam.CoGroupByKey()
            | "Merge" >> beam.Map(_merged, self._known.told, quarantines).with_output_types(_PAIR)
        )
        return (
            (merged, self._answers(planned, said, merged))
            | "With answers" >> beam.CoGroupByKey()
            | "Settle"
            >> beam.ParDo(_SettleFn(self._key, self._request, self._known.lists)).with_output_types(PlannedStudy)
        )

    def _concerned(self, said: beam.PCollection[_PAIR]) -> dict[str, beam.PCollection[_PAIR]]:
        """The earlier runs' facts of studies that this run has to do with."""
        known = self._known
        if self._sieve is None or facts.STUDIES not in known.kinds:
            return {}
        same = known.read("Earlier studies", facts.STUDIES, self._sieve)
        if self._request.external_references != "remove":
            return {_EARLIER: same}
        bears = said | "Borne" >> beam.FlatMapTuple(_borne) | "UIDs borne" >> beam.Keys() | "Sieve UIDs" >> Sieve()
        missing = (
            known.read("Missing and borne by now", facts.STUDIES, bears, _referred)
            | "Their studies" >> beam.Values()
            | "Sieve them" >> Sieve()
        )
        found = known.read("Earlier studies that refer", facts.STUDIES, missing)
        return {_EARLIER: (same, found) | "Concerned" >> beam.Flatten()}

    def _answers(
        self, planned: beam.PCollection[Planned], said: beam.PCollection[_PAIR], merged: beam.PCollection[_PAIR]
    ) -> beam.PCollection[_PAIR]:
        """(study token, (what was asked for, who bears it or what is given)) of what the studies mention."""
        asker = _AskFn(self._key, self._request, self._known.lists)
        asked = merged | "Ask" >> beam.ParDo(asker).with_output_types(_PAIR)
        kinds = self._known.kinds & {facts.STUDIES, facts.GIVEN}
        if facts.GIVEN in kinds:
            deriver = _DeriveFn(self._key, self._request)
            derived = planned | "Derive" >> beam.ParDo(deriver).with_output_types(_PAIR)
            asked = (asked, derived) | "All asked for" >> beam.Flatten()
        told = {_ASKED: asked, _HERE: said | "Borne here" >> beam.FlatMapTuple(_borne).with_output_types(_PAIR)}
        if kinds:
            sieve = asked | "Asked for" >> beam.Keys() | "Sieve" >> Sieve()
            keyed: dict[str, tuple[str, Any]]
            keyed = {facts.STUDIES: (_EARLIER, _borne_earlier), facts.GIVEN: (facts.GIVEN, _given)}
            for kind in sorted(kinds):
                name, by = keyed[kind]
                told[name] = self._known.read(f"Earlier {kind} asked for", kind, sieve, by)
        return told | "Join" >> beam.CoGroupByKey() | "Answer" >> beam.FlatMapTuple(_answered).with_output_types(_PAIR)


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


def _merged(
    study: tuple[str, dict[str, Iterable[Any]]], known: Known, quarantines: bool
) -> tuple[str, tuple[bytes, KnownStudy | None]]:
    """(what is known of a study by now, what was when its instances were last written here); b"" for now where it can't
    be gathered, None for then where none was."""
    token, told = study
    now = next(iter(told[_HERE]), None)
    earlier = sorted(told.get(_EARLIER, ()), key=lambda it: it.run)
    if not earlier:
        return token, (now or b"", None)
    then = next((it for it in reversed(earlier) if it.here), None)
    if now == b"":
        return token, (b"", then)
    # All of them: a run may have gone on beside another, or behind it, without what that one saw.
    facts_now = [StudyFacts.decode(now)] if now else []
    told_in_turn = _settled_anew(earlier, facts_now, known) if quarantines else map(_facts, earlier)
    return token, (reduce(lambda before, facts: facts.after(before), [*told_in_turn, *facts_now]).encode(), then)


def _facts(known: KnownStudy) -> StudyFacts:
    return StudyFacts.decode(known.facts)


def _settled_anew(earlier: list[KnownStudy], now: list[StudyFacts], known: Known) -> Iterator[StudyFacts]:
    """What earlier runs know, without the patients of before conflicts were settled anew.

    In the run that does so those stay who neither contradict each other nor all that its instances say.
    """
    since = known.forgets_before(it.run for it in earlier)
    said = {patient for facts in now for patient in facts.patients}
    for it in earlier:
        facts = _facts(it)
        contradicted = facts.first > 1 or (bool(said) and not said.issuperset(facts.patients[:1]))
        forgotten = it.run < since and (contradicted or not known.anew)
        yield replace(facts, patients=(), first=0) if forgotten else facts


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


class _DeriveFn(SeldomTwiceFn):
    """(new value, (study token, its original's name)) of what is derived for an instance, by which crosswalks may give
    it to somebody else."""

    def __init__(self, key: KeyReference, request: Request) -> None:
        self._key, self._request = key, request

    def setup(self) -> None:
        self._identities = Identities(self._key.keys(), self._request)

    def process(self, planned: Planned) -> Iterator[tuple[str, tuple[str, str]]]:
        if not planned.scan:
            return
        scan, keys = InstanceScan.decode(planned.scan), self._identities.keys
        for _, uid in borne(scan):
            if self.is_new((uid, planned.study_token)):
                yield _AS_NEW + self._identities.derived(uid), (planned.study_token, uid_token(keys, uid).hex())
        if pseudonym := self._identities.pseudonym(self._identities.patient_of(scan)):
            yield _AS_NEW + pseudonym, (planned.study_token, pseudonym)


def _given(name: str, given: Given) -> Iterator[tuple[str, Any]]:
    yield name, given
    yield _AS_NEW + given.new, name


def _taken(told: dict[str, Iterable[Any]]) -> Iterator[tuple[str, Any]]:
    """Which studies hear that a value derived for them is given to another original."""
    givers = set(told.get(facts.GIVEN, ()))
    for study, name in set(told[_ASKED]):
        if givers - {name}:
            yield study, (name, _TAKEN)


def _answered(name: str, told: dict[str, Iterable[Any]]) -> Iterator[tuple[str, Any]]:
    """What each study that asked for a UID or a patient hears of it."""
    if name.startswith(_AS_NEW):
        yield from _taken(told)
        return
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
        taken = {name for name, it in answers if it == _TAKEN} - given.keys()
        borne = {name: it for name, it in answers if it in (_HERE, _EARLIER)}
        study_map = settle(known, self._identities, given, {bytes.fromhex(name) for name in borne}, self._lists)
        if taken:
            study_map = StudyMap(token, conflict="value-taken")
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
