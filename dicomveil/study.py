"""What a study settles for all of its instances: from their scans to the StudyMap that each is rewritten with.

New UIDs are derived from old ones by value, so the map needn't list them: it holds what can't be derived from one
instance alone. The full table of old and new goes to the crosswalk.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

from dicomveil import standard
from dicomveil.dates import shift_days
from dicomveil.keys import Keys
from dicomveil.pseudonyms import known_patient_id, patient_pseudonym, study_pseudonym
from dicomveil.request import Request
from dicomveil.scan import InstanceScan
from dicomveil.uids import new_uid, uid_token
from dicomveil.vocabulary import identifying_words

_NON_PATIENT: Final = b"non-patient"


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


_LETTERS: Final = {"study": b"t", "series": b"e", "instance": b"i", "frame-of-reference": b"f"}
_ROLES: Final = {letter: role for role, letter in _LETTERS.items()}
_TOKEN: Final = 8
_REMEMBERED: Final = 4096


@dataclass(frozen=True)
class StudyMap:
    """What a study's instances share.

    Attributes:
      study_token: stands for the original Study Instance UID.
      patient: the new Patient ID; "" for objects that are no patient's.
      name: the pseudonym of its patient, likewise; what Patient ID is too, unless the request says otherwise.
      study_instance_uid: the new one; "" for objects that are no patient's.
      inside: tokens of the UIDs that its instances bear (study, series, instances, frames of reference), each behind a
        letter for its role, sorted.
      conflict: the reason for which the study is quarantined whole; "" for none.
      days: by which its dates are moved; 0 for not at all.
      words: sorted tokens of the words by which its people could be known, where text is cleaned.
    """

    study_token: str
    patient: str = ""
    name: str = ""
    study_instance_uid: str = ""
    inside: bytes = b""
    conflict: str = ""
    days: int = 0
    words: bytes = b""

    def encode(self) -> bytes:
        """As bytes that `decode` reads back; without any original value but those that the request keeps."""
        told = [self.study_token, self.patient, self.name, self.study_instance_uid, self.conflict, self.days]
        return json.dumps([*told, len(self.inside)]).encode() + b"\n" + self.inside + self.words

    @classmethod
    def decode(cls, data: bytes) -> "StudyMap":
        head, _, tokens = data.partition(b"\n")
        study_token, patient, name, study_instance_uid, conflict, days, inside = json.loads(head)
        return cls(study_token, patient, name, study_instance_uid, tokens[:inside], conflict, days, tokens[inside:])

    @cached_property
    def roles(self) -> dict[bytes, str]:
        """The role of each UID that an instance of the study bears, by its token."""
        width = _TOKEN + 1
        return {
            self.inside[at + 1 : at + width]: _ROLES[self.inside[at : at + 1]]
            for at in range(0, len(self.inside), width)
        }

    @cached_property
    def identifying(self) -> frozenset[bytes]:
        """The tokens of words that identify."""
        return frozenset(self.words[at : at + _TOKEN] for at in range(0, len(self.words), _TOKEN))


class Identities:
    """The new identifiers under one key and one request: derived, kept as they are, or given by the request."""

    def __init__(self, keys: Keys, request: Request) -> None:
        self.keys = keys
        self._kept, self._given = request.kept_roles, request.given
        self._dates = "RetainLongitudinalModifiedDates" in request.options
        self.by_role = bool(self._kept - {"patient"} or self._given.keys() - {"patient"})

    def uid(self, study_map: StudyMap, role: str, uid: str) -> str:
        """The new value of a UID in an attribute that gives it a role; what the study itself bears has its own."""
        if not self.by_role:
            return new_uid(self.keys, uid)
        borne = study_map.roles.get(uid_token(self.keys, uid), "")
        if borne in self._given:
            return self._given[borne]
        return uid if (borne or role) in self._kept else new_uid(self.keys, uid)

    def patient(self, study_map: StudyMap, patient_id: str) -> str:
        """The new value of a Patient ID that stands anywhere in a study; "" for one that names nobody."""
        if not known_patient_id(patient_id):
            return ""
        pseudonym = patient_pseudonym(self.keys, patient_id)
        return study_map.patient if pseudonym == study_map.name else pseudonym

    def identifies(self, study_map: StudyMap) -> Callable[[str], bool]:
        """Whether a word is one by which the study's people could be known; what is asked again is remembered."""
        return lru_cache(_REMEMBERED)(lambda word: self.token("word", word) in study_map.identifying)

    def study(
        self,
        scan: InstanceScan,
        patient: str,
        token: str = "",
        inside: bytes = b"",
        words: bytes = b"",
        conflict: str = "",
    ) -> StudyMap:
        """A study's map: what follows from its patient and its Study Instance UID, beside what its instances say.

        Args:
          scan: one of its instances.
          patient: the Patient ID that it is known by; "" where it has none.
        """
        if not scan.composite:
            return StudyMap(token, inside=inside)
        uid = scan.study_instance_uid
        name = patient_pseudonym(self.keys, patient) if patient else study_pseudonym(self.keys, uid)
        told = patient if "patient" in self._kept else self._given.get("patient", name)
        days = shift_days(self.keys, patient or f"study {uid}") if self._dates else 0
        new = self._study(uid) if self.by_role else new_uid(self.keys, uid)
        return StudyMap(token, told, name, new, inside, conflict, days, words)

    def _study(self, uid: str) -> str:
        """The new Study Instance UID where roles are treated unlike."""
        return self._given.get("study") or (uid if "study" in self._kept else new_uid(self.keys, uid))

    def token(self, label: str, text: str) -> bytes:
        """Eight keyed bytes that stand for a text where only sameness matters."""
        return self.keys.derive(label, text.encode("utf-8"))[:_TOKEN]


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


def build_study_map(scans: Iterable[InstanceScan], identities: Identities) -> StudyMap:
    """Settle what the instances of one study share.

    A study without a known Patient ID gets a pseudonym of its own; one with several is in conflict.

    Args:
      scans: of one study (`study_key`), in any order; at least one.
    """
    first: InstanceScan | None = None
    inside: set[tuple[str, str]] = set()
    said: set[tuple[str, str]] = set()
    patients: set[str] = set()
    for scan in scans:
        first = first or scan
        inside.update(borne(scan))
        said.update(scan.said)
        patients.add(known_patient_id(scan.patient_id))
    assert first is not None
    patients.discard("")
    return identities.study(
        first,
        min(patients, default=""),
        study_token(first, identities.keys),
        _inside(inside, identities),
        _words(said, identities),
        "patient-conflict" if len(patients) > 1 else "",
    )


def lone_study_map(scan: InstanceScan, identities: Identities) -> StudyMap:
    """The map of an instance that is all there is of its study; nothing in it that the request has no use for."""
    inside = _inside(borne(scan), identities) if identities.by_role else b""
    words = _words(scan.said, identities) if scan.said else b""
    return identities.study(scan, known_patient_id(scan.patient_id), inside=inside, words=words)


def _inside(uids: Iterable[tuple[str, str]], identities: Identities) -> bytes:
    return b"".join(sorted(_LETTERS[role] + uid_token(identities.keys, uid) for role, uid in set(uids)))


def _words(said: Iterable[tuple[str, str]], identities: Identities) -> bytes:
    words = {word for vr, text in said for word in identifying_words(vr, text)}
    return b"".join(sorted(identities.token("word", word) for word in words))


def uid_links(scans: Iterable[InstanceScan], study_map: StudyMap, identities: Identities) -> Iterator[UIDLink]:
    """Every UID that a study mentions, with its new one: the study's part of the crosswalk, sorted."""
    mentioned: dict[str, str] = {}
    inside: set[str] = set()
    for scan in scans:
        inside.update(uid for _, uid in borne(scan))
        for role, uid in scan.uids:
            mentioned[uid] = min(mentioned.get(uid, role), role, key=_rank)
    for uid, role in sorted(mentioned.items()):
        yield UIDLink(role, uid, identities.uid(study_map, role, uid), uid in inside)


def _rank(role: str) -> int:
    """The most telling of several roles comes first: an instance's own UID before a mere reference to it."""
    order = ("study", "series", "frame-of-reference", "instance", "other")
    return order.index(role) if role in order else len(order)


def patient_links(scans: Iterable[InstanceScan], study_map: StudyMap) -> Iterator[PatientLink]:
    """The study's part of the crosswalk of patients."""
    known = {(known_patient_id(scan.patient_id), scan.issuer) for scan in scans if scan.composite}
    with_id = sorted(link for link in known if link[0]) or [("", "")] * bool(known)
    for patient_id, issuer in with_id:
        yield PatientLink(patient_id, issuer, study_map.patient)
