"""The names by which Orthanc knows patients, studies, series and instances, so that its scripts find ours.

They are plain hashes: whoever guesses a Patient ID can compute the patient's. So those of originals stay where
originals may be. How an encoded value becomes text isn't known here.
"""

import hashlib
import re
from typing import Final

ROUTES: Final = {"Patient": "patients", "Study": "studies", "Series": "series", "Instance": "instances"}
"""Each level as Orthanc calls it, from the top, with the first part of its paths."""
_RESOURCE_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")


def resource_digest(patient_id: str, *uids: str) -> bytes:
    """The SHA-1 that an identifier is of, 20 bytes: digests are in the order of their identifiers.

    Args:
      patient_id: as text, as it stands in the data set; "" where there is none. Blanks behind it don't count, nor
        what follows a NUL; blanks before it do.
      uids: of the study, the series and the instance, as far down as the level asked for. What follows a NUL doesn't
        count, nor do blanks around the rest.

    Source: seen on Orthanc 1.10.1, and held to it by tests/oracles/test_orthanc_answers.py.
    """
    read = [patient_id.rstrip(" ").partition("\0")[0], *(uid.partition("\0")[0].strip(" ") for uid in uids)]
    return hashlib.sha1("|".join(read).encode("utf-8"), usedforsecurity=False).digest()


def written(digest: bytes) -> str:
    """A digest as Orthanc writes it: 40 hexadecimal digits in five groups."""
    return digest.hex("-", 4)


def resource_id(patient_id: str, *uids: str) -> str:
    """Orthanc's identifier of what these identify, of the level that the last of them has."""
    return written(resource_digest(patient_id, *uids))


def patient_id(patient_id: str) -> str:
    """Orthanc's identifier of a patient; of all without Patient ID together where that is ""."""
    return resource_id(patient_id)


def study_id(patient_id: str, study_instance_uid: str) -> str:
    """Orthanc's identifier of a study: one study under two Patient IDs is two."""
    return resource_id(patient_id, study_instance_uid)


def series_id(patient_id: str, study_instance_uid: str, series_instance_uid: str) -> str:
    """Orthanc's identifier of a series."""
    return resource_id(patient_id, study_instance_uid, series_instance_uid)


def instance_id(patient_id: str, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> str:
    """Orthanc's identifier of an instance."""
    return resource_id(patient_id, study_instance_uid, series_instance_uid, sop_instance_uid)


def is_resource_id(text: str) -> bool:
    """Whether a text has the form of an identifier; not of which level, nor whether there is such a resource."""
    return bool(_RESOURCE_ID.fullmatch(text))


def path(level: str, identifier: str) -> str:
    """Where Orthanc's REST API has a resource: "/studies/<identifier>".

    Args:
      level: a key of `ROUTES`.
    """
    return f"/{ROUTES[level]}/{identifier}"
