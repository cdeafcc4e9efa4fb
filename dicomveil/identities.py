"""The new identifiers under one key and one request: derived, kept as they are, or given by request or crosswalk.

Which facts a study's instances share is settled in `study`; here is what follows from them.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Final, NamedTuple

from dicomveil.dates import NoAnchor, days_of
from dicomveil.errors import InvalidInstance
from dicomveil.keys import Keys
from dicomveil.pseudonyms import NOBODY, Patient, known_patient_id, patient_pseudonym, study_pseudonym
from dicomveil.request import Request
from dicomveil.scan import InstanceScan
from dicomveil.study_map import TOKEN, StudyMap
from dicomveil.uids import new_uid, uid_of_patient, uid_token

_REMEMBERED: Final = 4096
_NO_NAME: Final = frozenset("=^")
"""What has a meaning in a Patient's Name that it hasn't in a Patient ID."""


class Given(NamedTuple):
    """What a crosswalk says of one patient or UID.

    Attributes:
      new: the new Patient ID or UID; "" for nothing.
      days: by which the patient's dates are moved; None where it doesn't say so.
      anchor: the patient's anchor date, YYYYMMDD; "" for none.
    """

    new: str
    days: int | None = None
    anchor: str = ""


DERIVED: Final = Given("")


class Identities:
    """New identifiers, value by value."""

    def __init__(self, keys: Keys, request: Request) -> None:
        self.keys, self.request = keys, request
        self._kept, self._given = request.kept_roles, request.given
        self._dates = request.date_shift if "RetainLongitudinalModifiedDates" in request.options else None
        self._lossy = request.lossy
        self.issuers = request.patient_identity == "id+issuer"
        self.by_role = bool(self._kept - {"patient"} or self._given.keys() - {"patient"})

    def derived(self, uid: str) -> str:
        """The new UID that follows from the old one alone."""
        return new_uid(self.keys, uid, self._lossy)

    def known(self, patient_id: str, issuer: str) -> Patient:
        """By what a Patient ID is known; one that names nobody is nobody."""
        known = known_patient_id(patient_id)
        if not known:
            return NOBODY
        return Patient(known, issuer.strip(" \0") or self.request.default_issuer) if self.issuers else Patient(known)

    def patient_of(self, scan: InstanceScan) -> Patient:
        """The patient that an instance names itself."""
        return self.known(scan.patient_id, scan.issuer)

    def pseudonym(self, patient: Patient) -> str:
        """What is derived from a patient; "" for nobody."""
        return patient_pseudonym(self.keys, *patient) if patient.id else ""

    def by_value(self, study_map: StudyMap) -> bool:
        """Whether the new UIDs of a study follow from the old ones alone."""
        return not (self.by_role or study_map.given or study_map.listed or study_map.apart)

    def uid(self, study_map: StudyMap, role: str, uid: str) -> str:
        """The new value of a UID in an attribute that gives it a role; what the study itself bears has its own.

        Raises:
          InvalidInstance: "unlisted", where only what a crosswalk gives will do.
        """
        token = uid_token(self.keys, uid)
        if self.by_role:
            borne = study_map.roles.get(token, "")
            if borne in self._given:
                return self._given[borne]
            if (borne or role) in self._kept:
                return uid
        if study_map.apart and study_map.roles.get(token) in ("study", "series"):
            return uid_of_patient(self.keys, uid, study_map.pseudonym, self._lossy)
        given = study_map.uids.get(token)
        if given is not None:
            return given
        new = self.derived(uid)
        if study_map.listed and new != uid:
            raise InvalidInstance("unlisted")
        return new

    def patient(self, study_map: StudyMap, patient_id: str, issuer: str = "") -> str:
        """The new value of a Patient ID that stands anywhere in a study; "" for one that names nobody."""
        pseudonym = self.pseudonym(self.known(patient_id, issuer))
        if not pseudonym:
            return ""
        return study_map.patient if pseudonym == study_map.pseudonym else study_map.patients.get(pseudonym, pseudonym)

    def identifies(self, study_map: StudyMap) -> Callable[[str], bool]:
        """Whether a word is one by which the study's people could be known; what is asked again is remembered."""
        return lru_cache(_REMEMBERED)(lambda word: self.token("word", word) in study_map.identifying)

    def external(self, study_map: StudyMap) -> Callable[[str], bool]:
        """Whether a UID is one that nobody knows; what is asked again is remembered."""
        return lru_cache(_REMEMBERED)(lambda uid: uid_token(self.keys, uid) in study_map.unknown)

    def study(self, base: StudyMap, uid: str, patient: Patient, given: Given = DERIVED) -> StudyMap:
        """A study's map with what follows from its patient and its Study Instance UID.

        Args:
          uid: the original Study Instance UID.
          patient: nobody where it has none.
          given: what a crosswalk says of the patient.

        Raises:
          InvalidInstance: "unlisted", as `uid` does.
        """
        pseudonym = self.pseudonym(patient) or study_pseudonym(self.keys, uid)
        name = pseudonym if not given.new or _NO_NAME.intersection(given.new) else given.new
        told = patient.id if "patient" in self._kept else self._given.get("patient", given.new or pseudonym)
        days, conflict = 0, ""
        try:
            if self._dates:
                days = days_of(self.keys, patient.identity or f"study {uid}", self._dates, given.days, given.anchor)
        except NoAnchor:
            conflict = "no-anchor"
        study_map = replace(base, patient=told, name=name, pseudonym=pseudonym, days=days, conflict=conflict)
        new = self.derived(uid) if self.by_value(base) else self.uid(study_map, "study", uid)
        return replace(study_map, study_instance_uid=new)

    def token(self, label: str, text: str) -> bytes:
        """Eight keyed bytes that stand for a text where only sameness matters."""
        return self.keys.derive(label, text.encode("utf-8"))[:TOKEN]
