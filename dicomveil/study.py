"""What a study settles for all of its instances: from their scans to the StudyMap that each is rewritten with.

`StudyFacts` is what they say, run after run; it holds originals, and stays in the restricted zone.
"""

import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Final, NamedTuple

from dicomveil import standard
from dicomveil.errors import InvalidInstance
from dicomveil.identities import DERIVED, Given, Identities
from dicomveil.keys import Keys
from dicomveil.pseudonyms import NOBODY, PREFIX, Patient, study_pseudonym
from dicomveil.scan import InstanceScan
from dicomveil.study_map import LETTERS, TOKEN, StudyMap
from dicomveil.uids import uid_token
from dicomveil.vocabulary import identifying_words

_NON_PATIENT: Final = b"non-patient"
_WIDTH: Final = TOKEN + 1


@dataclass(frozen=True, repr=False)
class UIDLink:
    """One line of the crosswalk of UIDs.

    Attributes:
      role: study, series, instance, frame-of-reference or other.
      inside: whether an instance of the study bears it; else the study only refers to it.
    """

    role: str
    original: str
    new: str
    inside: bool


@dataclass(frozen=True, repr=False)
class PatientLink:
    """One line of the crosswalk of patients; `original` is "" where the study has no Patient ID."""

    original: str
    issuer: str
    new: str
    study_instance_uid: str
    days: int


class Lists(NamedTuple):
    """What there is a crosswalk of."""

    patients: bool = False
    uids: bool = False


NO_LISTS: Final = Lists()
_TOKENS: Final = ("inside", "outside", "words")


@dataclass(frozen=True, repr=False)
class StudyFacts:
    """What a study's instances say, in whichever runs they came.

    Attributes:
      study_instance_uid: the original; "" for objects that are no patient's.
      patients: whom they name; whom the study was first seen with come first, sorted.
      first: how many those are.
      mentioned: other patients, whose IDs stand in Items.
      inside: as in `StudyMap`.
      outside: sorted tokens of the UIDs that they only refer to.
      words: as in `StudyMap`.
    """

    study_token: str
    study_instance_uid: str = ""
    patients: tuple[Patient, ...] = ()
    first: int = 0
    mentioned: tuple[Patient, ...] = ()
    inside: bytes = b""
    outside: bytes = b""
    words: bytes = b""

    def encode(self) -> bytes:
        """As bytes that `decode` reads back."""
        told = {it.name: getattr(self, it.name) for it in fields(self)}
        return json.dumps(told | {name: told[name].hex() for name in _TOKENS}).encode()

    @classmethod
    def decode(cls, data: bytes) -> "StudyFacts":
        told = json.loads(data)
        told |= {name: bytes.fromhex(told[name]) for name in _TOKENS}
        return cls(**told | {name: tuple(Patient(*it) for it in told[name]) for name in ("patients", "mentioned")})

    def after(self, earlier: "StudyFacts") -> "StudyFacts":
        """These facts added to those that earlier runs have seen."""
        inside = _joined(earlier.inside, self.inside, _WIDTH)
        borne = {it[1:] for it in _split(inside, _WIDTH)}
        outside = _split(_joined(earlier.outside, self.outside, TOKEN), TOKEN)
        return StudyFacts(
            self.study_token,
            self.study_instance_uid,
            patients=tuple(dict.fromkeys((*earlier.patients, *self.patients))),
            first=earlier.first or self.first,
            mentioned=tuple(sorted({*earlier.mentioned, *self.mentioned})),
            inside=inside,
            outside=b"".join(it for it in outside if it not in borne),
            words=_joined(earlier.words, self.words, TOKEN),
        )

    @property
    def borne(self) -> list[bytes]:
        """The tokens of the UIDs that its instances bear, whatever their role."""
        return [it[1:] for it in _split(self.inside, _WIDTH)]

    @property
    def series(self) -> list[bytes]:
        """The tokens of the series that they are in."""
        return [it[1:] for it in _split(self.inside, _WIDTH) if it[:1] == LETTERS["series"]]

    @property
    def referred(self) -> list[bytes]:
        """The tokens of the UIDs that they only refer to."""
        return _split(self.outside, TOKEN)


def _split(tokens: bytes, width: int) -> list[bytes]:
    return [tokens[at : at + width] for at in range(0, len(tokens), width)]


def _joined(one: bytes, other: bytes, width: int) -> bytes:
    """Both sets of tokens as one."""
    return one if one == other else b"".join(sorted({*_split(one, width), *_split(other, width)}))


def study_key(scan: InstanceScan) -> bytes:
    """What instances are grouped by: their original Study Instance UID, or one label for all that are no patient's."""
    return b"study " + scan.study_instance_uid.encode() if scan.composite else _NON_PATIENT


def study_token(scan: InstanceScan, keys: Keys) -> str:
    """The same as a keyed token, which may cross a shuffle."""
    return keys.token("study", study_key(scan))


def borne(scan: InstanceScan) -> Iterator[tuple[str, str]]:
    """(role, UID) of those by which others can refer to an instance or what it is part of."""
    for role, uid in (
        ("frame-of-reference", scan.frame_of_reference_uid),
        ("instance", scan.sop_instance_uid),
        ("series", scan.series_instance_uid),
        ("study", scan.study_instance_uid),
    ):
        if uid and uid not in standard.registered_uids():
            yield role, uid


def gather(scans: Iterable[InstanceScan], identities: Identities) -> StudyFacts:
    """What the instances of one study say.

    Args:
      scans: of one study (`study_key`), in any order; at least one.
    """
    first: InstanceScan | None = None
    inside: set[tuple[str, str]] = set()
    uids: set[str] = set()
    said: set[tuple[str, str]] = set()
    patients: set[Patient] = set()
    mentioned: set[Patient] = set()
    for scan in scans:
        first = first or scan
        inside.update(borne(scan))
        uids.update(uid for _, uid in scan.uids)
        said.update(scan.said)
        patients.add(identities.patient_of(scan))
        mentioned.update(identities.known(*named) for named in scan.patients)
    assert first is not None
    named = sorted(patients - {NOBODY}) if first.composite else []
    uids.difference_update(uid for _, uid in inside)
    return StudyFacts(
        study_token(first, identities.keys),
        first.study_instance_uid if first.composite else "",
        tuple(named),
        len(named),
        tuple(sorted(mentioned.difference(named) - {NOBODY})),
        _inside(inside, identities),
        b"".join(sorted(uid_token(identities.keys, uid) for uid in uids)),
        _words(said, identities),
    )


def settle(
    facts: StudyFacts,
    identities: Identities,
    given: Mapping[str, Given] = MappingProxyType({}),
    known: Container[bytes] = (),
    lists: Lists = NO_LISTS,
) -> StudyMap:
    """Settle what the instances of one study share.

    A study without a known Patient ID gets a pseudonym of its own; one that was first seen with several is in conflict,
    or split by patients; one that others come to later stays its first patient's.

    Args:
      given: what crosswalks say, by the pseudonym of a patient or the hexadecimal token of a UID.
      known: tokens of UIDs outside the study that somebody bears.
      lists: what there is a crosswalk of.
    """
    request = identities.request
    base = StudyMap(
        facts.study_token,
        inside=facts.inside,
        words=facts.words,
        external=_external(facts, given, known) if request.external_references == "remove" else b"",
        given=tuple((token, it.new) for token, it in sorted(given.items()) if _is_token(token)),
        given_patients=tuple((name, it.new) for name, it in sorted(given.items()) if not _is_token(name)),
        listed=lists.uids and request.unlisted == "quarantine",
    )
    uid, patients = facts.study_instance_uid, facts.patients or (NOBODY,)
    if not uid:
        return base
    if len(patients) > 1 and request.patient_conflicts == "split":
        return replace(base, parts=tuple(_parts(base, facts, identities, given, lists)))
    settled = _study(base, uid, patients[0], identities, given, lists)
    if facts.first > 1:
        return replace(settled, conflict="patient-conflict")
    return replace(settled, strict=len(patients) > 1)


def _external(facts: StudyFacts, given: Mapping[str, Given], known: Container[bytes]) -> bytes:
    """The tokens of UIDs that nobody bears or gives."""
    return b"".join(it for it in facts.referred if it not in known and it.hex() not in given)


def _is_token(name: str) -> bool:
    """Whether what a crosswalk gives is a UID; a patient goes by a pseudonym."""
    return not name.startswith(PREFIX)


def _study(
    base: StudyMap, uid: str, patient: Patient, identities: Identities, given: Mapping[str, Given], lists: Lists
) -> StudyMap:
    """What a study is to one patient."""
    says = given.get(identities.pseudonym(patient), DERIVED)
    try:
        study_map = identities.study(base, uid, patient, says)
    except InvalidInstance as refused:
        return replace(base, conflict=refused.reason)
    if not says.new and lists.patients and identities.request.unlisted == "quarantine":
        return replace(study_map, conflict="unlisted")
    return study_map


def _parts(
    base: StudyMap, facts: StudyFacts, identities: Identities, given: Mapping[str, Given], lists: Lists
) -> Iterator[StudyMap]:
    """What a study is to each of its patients, without what they share.

    Whom alone the study was first seen with keeps it; each other gets a Study Instance UID of its own and such Series
    Instance UIDs, also where instances refer to them.
    """
    for number, patient in enumerate(facts.patients):
        apart = replace(base, apart=bool(number) or facts.first > 1)
        it = _study(apart, facts.study_instance_uid, patient, identities, given, lists)
        own = it.patient, it.name, it.pseudonym, it.study_instance_uid
        yield StudyMap(it.study_token, *own, conflict=it.conflict, days=it.days, apart=it.apart)


def part_token(study_map: StudyMap, facts: StudyFacts, identities: Identities) -> str:
    """Stands for all of a map that decides on what becomes of the instances that said some facts.

    Of a later map, which more instances share, it is equal as long as those come out as they did.
    """
    mentioned = {*facts.borne, *facts.referred}
    names = {identities.pseudonym(patient) for patient in (*facts.patients, *facts.mentioned)}
    maps = [study_map.of(identities.pseudonym(it)) for it in facts.patients] if study_map.parts else [study_map]
    told = [
        [it.patient, it.name, it.study_instance_uid, it.days, it.conflict, it.listed, it.words.hex()]
        + [[token, new] for token, new in it.given if bytes.fromhex(token) in mentioned]
        + [[name, new] for name, new in it.given_patients if name in names]
        + sorted(token.hex() for token in it.unknown & mentioned)
        + (sorted([token.hex(), role] for token, role in it.roles.items() if token in mentioned) * identities.by_role)
        for it in maps
        if it is not None
    ]
    return identities.keys.token("study-map", json.dumps(told).encode())


def build_study_map(scans: Iterable[InstanceScan], identities: Identities) -> StudyMap:
    """Settle what the instances of one study share, where there is nothing else to know of it."""
    return settle(gather(scans, identities), identities)


def lone_study_map(scan: InstanceScan, identities: Identities) -> StudyMap:
    """The map of an instance that is all there is of its study; nothing in it that the request has no use for."""
    inside = _inside(borne(scan), identities) if identities.by_role else b""
    words = _words(scan.said, identities) if scan.said else b""
    base = StudyMap("", inside=inside, words=words)
    return identities.study(base, scan.study_instance_uid, identities.patient_of(scan)) if scan.composite else base


def _inside(uids: Iterable[tuple[str, str]], identities: Identities) -> bytes:
    return b"".join(sorted(LETTERS[role] + uid_token(identities.keys, uid) for role, uid in set(uids)))


def _words(said: Iterable[tuple[str, str]], identities: Identities) -> bytes:
    words = {word for vr, text in said for word in identifying_words(vr, text)}
    return b"".join(sorted(identities.token("word", word) for word in words))


def by_patient(
    scans: Iterable[InstanceScan], study_map: StudyMap, identities: Identities
) -> Iterator[tuple[StudyMap, list[InstanceScan]]]:
    """The instances of a study with the map that holds for them; those of several patients that share it apart."""
    if not study_map.parts:
        yield study_map, list(scans)
        return
    of_patients: dict[str, list[InstanceScan]] = {}
    for scan in scans:
        of_patients.setdefault(identities.pseudonym(identities.patient_of(scan)), []).append(scan)
    for pseudonym, own in sorted(of_patients.items()):
        part = study_map.of(pseudonym)
        if part is not None:
            yield part, own


def uid_links(scans: Iterable[InstanceScan], study_map: StudyMap, identities: Identities) -> Iterator[UIDLink]:
    """Every UID that a study mentions, with its new one: the study's part of the crosswalk, sorted.

    Those for which a crosswalk gives nothing, though it must, have none.
    """
    mentioned: dict[str, str] = {}
    inside: set[str] = set()
    for scan in scans:
        inside.update(uid for _, uid in borne(scan))
        for role, uid in scan.uids:
            mentioned[uid] = min(mentioned.get(uid, role), role, key=_rank)
    for uid, role in sorted(mentioned.items()):
        with suppress(InvalidInstance):
            yield UIDLink(role, uid, identities.uid(study_map, role, uid), uid in inside)


def _rank(role: str) -> int:
    """The most telling of several roles comes first: an instance's own UID before a mere reference to it."""
    order = ("study", "series", "frame-of-reference", "instance", "other")
    return order.index(role) if role in order else len(order)


def patient_links(scans: Sequence[InstanceScan], study_map: StudyMap, identities: Identities) -> Iterator[PatientLink]:
    """The study's part of the crosswalk of patients: of those whose instances come out."""
    if study_map.conflict:
        return
    named = {(identities.patient_of(scan), scan.issuer) for scan in scans if scan.composite}
    for patient, issuer in sorted(link for link in named if link[0].id) or [(NOBODY, "")] * bool(named):
        pseudonym = identities.pseudonym(patient) or study_pseudonym(identities.keys, scans[0].study_instance_uid)
        if pseudonym == study_map.pseudonym:
            new = study_map.patient, study_map.study_instance_uid, study_map.days
            yield PatientLink(patient.id, issuer or patient.issuer, *new)
