"""New UIDs, derived from old ones by value.

One key, one scope: the same original gives the same new UID in every attribute, study and run. Which attributes hold
UIDs that are mapped is decided elsewhere.
"""

import uuid
from typing import Final

from dicomveil import standard
from dicomveil.keys import Keys

_VERSION_8: Final = 8 << 76
_VARIANT: Final = 2 << 62
_FREE_BITS: Final = ~((15 << 76) | (3 << 62)) & ((1 << 128) - 1)


def _uuid(digest: bytes) -> int:
    """The first 16 bytes of a digest as an RFC 9562 version 8 UUID: 122 keyed bits."""
    return int.from_bytes(digest[:16], "big") & _FREE_BITS | _VERSION_8 | _VARIANT


def _uuid_uid(digest: bytes) -> str:
    """The UID below 2.25 of that."""
    return "2.25." + str(_uuid(digest))


def new_uid(keys: Keys, uid: str, lossy: str = "") -> str:
    """The UID that stands for `uid` in the output.

    Args:
      uid: one original value, without padding; malformed ones stay distinct, and map like any other.
      lossy: transfer syntax and quality of a release that is compressed with loss: all its UIDs are others than those
        of one that isn't, since its data sets are, and refer to each other. "" for none.

    Returns:
      "2.25." and the decimal of a version 8 UUID: valid, at most 44 characters. A UID that the Standard registers
      (exactly, never by its root) is no one's identifier, and stays.

    Source: PS3.5 B.2 (UUID-derived UIDs), PS3.15 2026d E.3.9 note 6 (no time in replacements), RFC 9562 5.8.
    """
    if uid in standard.registered_uids():
        return uid
    old = uid.encode("utf-8")
    return _uuid_uid(keys.derive("uid-lossy", lossy.encode(), old) if lossy else keys.derive("uid", old))


def distinct_uid(keys: Keys, uid: str, content: bytes, lossy: str = "") -> str:
    """A new UID for one of several instances that wrongly share `uid`, told apart by the digest of their content."""
    old = uid.encode("utf-8"), content
    return _uuid_uid(
        keys.derive("uid-distinct-lossy", lossy.encode(), *old) if lossy else keys.derive("uid-distinct", *old)
    )


def uid_of_patient(keys: Keys, uid: str, pseudonym: str, lossy: str = "") -> str:
    """The new UID of a study, or of a series in it, for one of several patients whose instances wrongly share it."""
    old = uid.encode("utf-8"), pseudonym.encode("utf-8")
    return _uuid_uid(
        keys.derive("uid-of-patient-lossy", lossy.encode(), *old) if lossy else keys.derive("uid-of-patient", *old)
    )


def successor_uid(keys: Keys, command: str, scope: str, uid: str) -> str:
    """The UID of what modify, split or merge makes of something that bears `uid`.

    Args:
      command: modify, split or merge. The label is one of their own, so that an identified study and its de-identified
        release never share a UID.
      scope: stands for the whole request and the study that is merged into: two requests never give one UID to
        different data sets.
    """
    return _uuid_uid(keys.derive("successor", command.encode(), scope.encode("utf-8"), uid.encode("utf-8")))


def uid_token(keys: Keys, uid: str) -> bytes:
    """Eight keyed bytes that stand for a UID where only sameness matters."""
    return uid_digest(keys, uid)[:8]


def uid_digest(keys: Keys, uid: str) -> bytes:
    """The keyed bits that those are of."""
    return keys.derive("uid-token", uid.encode("utf-8"))


LEVELS: Final = ("patient", "study", "series", "instance")
"""What an identifier can be made for."""


def made_for(level: str, number: uuid.UUID) -> str:
    """A UUID as the identifier of a level: a Patient ID as it is, 36 characters; else a UID below 2.25.

    Args:
      level: one of `LEVELS`.
    """
    return str(number) if level == "patient" else f"2.25.{number.int}"


def generated(keys: Keys, level: str, text: str, number: int = 1) -> str:
    """An identifier of a user's own making: the same for the same key, level, text and number, for ever.

    Nothing else is derived under its label, so that it is never what an instance of this UID or Patient ID gets.

    Args:
      level: one of `LEVELS`.
      text: whatever it is to stand for, byte by byte: nothing is trimmed or normalized.
      number: tells several apart that stand for one text, from 1.
    """
    parts = [part.encode("utf-8") for part in (level, text, str(number))]
    return made_for(level, uuid.UUID(int=_uuid(keys.derive("generate-uid", *parts))))
