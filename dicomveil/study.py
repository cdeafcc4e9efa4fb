"""What a study settles for all of its instances: from their scans to the StudyMap that each is rewritten with.

New UIDs are derived from old ones by value, so the map needn't list them: it holds what can't be derived from one
instance alone. The full table of old and new goes to the crosswalk.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from dicomveil.keys import Keys
from dicomveil.pseudonyms import known_patient_id, patient_pseudonym, study_pseudonym
from dicomveil.scan import InstanceScan
from dicomveil.uids import new_uid, uid_token

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


@dataclass(frozen=True)
class StudyMap:
    """What a study's instances share.

    Attributes:
      study_token: stands for the original Study Instance UID.
      patient: the pseudonym of its patient; "" for objects that are no patient's.
      study_instance_uid: the new one; "" for objects that are no patient's.
      inside: sorted 8-byte tokens of the UIDs that its instances bear (study, series, instances, frames of reference).
      conflict: the reason for which the study is quarantined whole; "" for none.
    """

    study_token: str
    patient: str
    study_instance_uid: str
    inside: tuple[bytes, ...]
    conflict: str = ""

    def encode(self) -> bytes:
        """As bytes that `decode` reads back; without any original value."""
        head = json.dumps([self.study_token, self.patient, self.study_instance_uid, self.conflict]).encode()
        return head + b"\n" + b"".join(self.inside)

    @classmethod
    def decode(cls, data: bytes) -> "StudyMap":
        head, _, tokens = data.partition(b"\n")
        study_token, patient, study_instance_uid, conflict = json.loads(head)
        inside = tuple(tokens[at : at + 8] for at in range(0, len(tokens), 8))
        return cls(study_token, patient, study_instance_uid, inside, conflict)


def study_key(scan: InstanceScan) -> bytes:
    """What instances are grouped by: their original Study Instance UID, or one label for all that are no patient's."""
    return b"study " + scan.study_instance_uid.encode() if scan.composite else _NON_PATIENT


def study_token(scan: InstanceScan, keys: Keys) -> str:
    """The same as a keyed token, which may cross a shuffle."""
    return keys.token("study", study_key(scan))


def borne(scan: InstanceScan) -> Iterator[str]:
    """The UIDs by which others can refer to an instance or what it is part of."""
    for uid in (scan.study_instance_uid, scan.series_instance_uid, scan.sop_instance_uid, scan.frame_of_reference_uid):
        if uid:
            yield uid


def build_study_map(scans: Iterable[InstanceScan], keys: Keys) -> StudyMap:
    """Settle what the instances of one study share.

    A study without a known Patient ID gets a pseudonym of its own; one with several is in conflict.

    Args:
      scans: of one study (`study_key`), in any order; at least one.
    """
    first: InstanceScan | None = None
    inside: set[bytes] = set()
    patient_ids: set[str] = set()
    for scan in scans:
        first = first or scan
        inside.update(uid_token(keys, uid) for uid in borne(scan))
        patient_ids.add(known_patient_id(scan.patient_id))
    assert first is not None
    token = study_token(first, keys)
    if not first.composite:
        return StudyMap(token, "", "", tuple(sorted(inside)))
    patient_ids.discard("")
    return StudyMap(
        token,
        _patient(patient_ids, first.study_instance_uid, keys),
        new_uid(keys, first.study_instance_uid),
        tuple(sorted(inside)),
        "patient-conflict" if len(patient_ids) > 1 else "",
    )


def lone_study_map(scan: InstanceScan, keys: Keys) -> StudyMap:
    """The map of an instance that is all there is of its study; it names no UIDs as inside."""
    if not scan.composite:
        return StudyMap("", "", "", ())
    patient_ids = {known_patient_id(scan.patient_id)} - {""}
    uid = scan.study_instance_uid
    return StudyMap("", _patient(patient_ids, uid, keys), new_uid(keys, uid), ())


def _patient(patient_ids: set[str], study_instance_uid: str, keys: Keys) -> str:
    if patient_ids:
        return patient_pseudonym(keys, min(patient_ids))
    return study_pseudonym(keys, study_instance_uid)


def uid_links(scans: Iterable[InstanceScan], keys: Keys) -> Iterator[UIDLink]:
    """Every UID that a study mentions, with its new one: the study's part of the crosswalk, sorted."""
    mentioned: dict[str, str] = {}
    inside: set[str] = set()
    for scan in scans:
        inside.update(borne(scan))
        for role, uid in scan.uids:
            mentioned[uid] = min(mentioned.get(uid, role), role, key=_rank)
    for uid, role in sorted(mentioned.items()):
        yield UIDLink(role, uid, new_uid(keys, uid), uid in inside)


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
