"""Pseudonyms: what takes the place of Patient ID and Patient's Name, and of numbers that orders and studies go by.

A Patient ID is the identity; where a study has none, the study itself is, under a label of its own, so that two
studies without one are never taken for one patient.
"""

import base64
from typing import Final, NamedTuple

from dicomveil.keys import Keys

PREFIX: Final = "DV"
LONGEST_PATIENT_ID: Final = 18
"""Characters of a Patient ID that is derived."""
FIELD: Final = "{PatientID}"
"""What stands for the new Patient ID in a template of names."""
_LONGEST_GROUP: Final = 64  # characters of a component group, PS3.5 6.2
NUMBERS: Final = {"AccessionNumber": (0x00080050, "accession"), "StudyID": (0x00200010, "study-id")}
"""The attributes that can become keyed pseudonyms, with their tag and the label of the key."""

# What people type where a Patient ID is demanded and none is known.
PLACEHOLDERS: Final = frozenset(
    [
        "0",
        "00",
        "000",
        "0000",
        "00000",
        "000000",
        "0000000",
        "00000000",
        ".",
        "-",
        "--",
        "---",
        "?",
        "??",
        "???",
        "X",
        "XX",
        "XXX",
        "XXXX",
        "NA",
        "N/A",
        "N.A.",
        "NIL",
        "NONE",
        "NULL",
        "NOID",
        "NO_ID",
        "NO-ID",
        "NOPATIENTID",
        "UNKNOWN",
        "UNK",
        "UNDEFINED",
        "UNSPECIFIED",
        "UNASSIGNED",
        "MISSING",
        "EMPTY",
        "BLANK",
        "ANON",
        "ANONYM",
        "ANONYMOUS",
        "ANONYMIZED",
        "ANONYMISED",
        "DEIDENTIFIED",
        "DE-IDENTIFIED",
        "PATIENTID",
        "PATIENT_ID",
    ]
)


def known_patient_id(patient_id: str) -> str:
    """The Patient ID as an identity: blanks around it dropped, and "" where it names nobody."""
    trimmed = patient_id.strip(" \0")
    return "" if trimmed.upper().replace(" ", "") in PLACEHOLDERS else trimmed


class Patient(NamedTuple):
    """By what a patient is known: the Patient ID, blanks around it dropped, and its issuer where that counts.

    Both are originals, which its repr doesn't show. An `id` of "" names nobody.
    """

    id: str
    issuer: str = ""

    def __repr__(self) -> str:
        return "Patient()"

    @property
    def identity(self) -> str:
        """One text for one patient; the ID itself where no issuer counts."""
        return f"{len(self.issuer)}:{self.issuer}{self.id}" if self.issuer else self.id


NOBODY: Final = Patient("")


def pseudonym_of(digest: bytes) -> str:
    """What 80 keyed bits are as a Patient ID."""
    return PREFIX + base64.b32encode(digest[:10]).decode()


def patient_pseudonym(keys: Keys, patient_id: str, issuer: str = "") -> str:
    """The new Patient ID of a known one: "DV" and 16 letters or digits (80 keyed bits), legal as LO, PN and path.

    Args:
      issuer: of the Patient ID, where the request has it count; else "".

    Raises:
      ValueError: the Patient ID is blank or a placeholder, and so never a key.
    """
    known = known_patient_id(patient_id)
    if not known:
        raise ValueError("a blank Patient ID is no identity")
    return pseudonym_of(patient_digest(keys, known, issuer))


def patient_digest(keys: Keys, known: str, issuer: str) -> bytes:
    """The keyed bits of a known Patient ID."""
    return keys.derive("patient-id", *[part.encode("utf-8") for part in (known, issuer) if part])


def study_pseudonym(keys: Keys, study_instance_uid: str) -> str:
    """The new Patient ID of a study that has none, from its original Study Instance UID."""
    return pseudonym_of(keys.derive("patient-of-study", study_instance_uid.encode("utf-8")))


def patient_name(template: str, patient_id: str) -> str:
    """The new Patient's Name by a template; "" for what has no new Patient ID, being no patient's.

    A Patient ID that a crosswalk gives may be too long for the template: then it is the name.
    """
    name = template.replace(FIELD, patient_id) if patient_id else ""
    return name if all(len(group) <= _LONGEST_GROUP for group in name.split("=")) else patient_id


def number_pseudonym(keys: Keys, label: str, value: str) -> str:
    """What takes the place of a number: 16 letters or digits (80 keyed bits), legal as SH.

    Args:
      label: of `NUMBERS`, so that equal values of two attributes don't show.
      value: blanks and NULs around it don't count; "" of nothing else.
    """
    trimmed = value.strip(" \0")
    return base64.b32encode(keys.derive(label, trimmed.encode("utf-8"))[:10]).decode() if trimmed else ""
