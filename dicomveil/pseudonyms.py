"""Patients' pseudonyms: what takes the place of Patient ID and Patient's Name.

A Patient ID is the identity; where a study has none, the study itself is, under a label of its own, so that two
studies without one are never taken for one patient.
"""

import base64
from typing import Final

from dicomveil.keys import Keys

PREFIX: Final = "DV"

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


def _pseudonym(digest: bytes) -> str:
    return PREFIX + base64.b32encode(digest[:10]).decode()


def patient_pseudonym(keys: Keys, patient_id: str) -> str:
    """The new Patient ID of a known one: "DV" and 16 letters or digits (80 keyed bits), legal as LO, PN and path.

    Raises:
      ValueError: the Patient ID is blank or a placeholder, and so never a key.
    """
    known = known_patient_id(patient_id)
    if not known:
        raise ValueError("a blank Patient ID is no identity")
    return _pseudonym(keys.derive("patient-id", known.encode("utf-8")))


def study_pseudonym(keys: Keys, study_instance_uid: str) -> str:
    """The new Patient ID of a study that has none, from its original Study Instance UID."""
    return _pseudonym(keys.derive("patient-of-study", study_instance_uid.encode("utf-8")))
