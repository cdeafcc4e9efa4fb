"""New UIDs, derived from old ones by value.

One key, one scope: the same original gives the same new UID in every attribute, study and run. Which attributes hold
UIDs that are mapped is decided elsewhere.
"""

from typing import Final

from dicomveil import standard
from dicomveil.keys import Keys

_VERSION_8: Final = 8 << 76
_VARIANT: Final = 2 << 62
_FREE_BITS: Final = ~((15 << 76) | (3 << 62)) & ((1 << 128) - 1)


def _uuid_uid(digest: bytes) -> str:
    """A UID below 2.25 from the first 16 bytes of a digest, as an RFC 9562 version 8 UUID: 122 keyed bits."""
    number = int.from_bytes(digest[:16], "big") & _FREE_BITS | _VERSION_8 | _VARIANT
    return "2.25." + str(number)


def new_uid(keys: Keys, uid: str) -> str:
    """The UID that stands for `uid` in the output.

    Args:
      uid: one original value, without padding; malformed ones stay distinct, and map like any other.

    Returns:
      "2.25." and the decimal of a version 8 UUID: valid, at most 44 characters. A UID that the Standard registers
      (exactly, never by its root) is no one's identifier, and stays.

    Source: PS3.5 B.2 (UUID-derived UIDs), PS3.15 2026d E.3.9 note 6 (no time in replacements), RFC 9562 5.8.
    """
    if uid in standard.registered_uids():
        return uid
    return _uuid_uid(keys.derive("uid", uid.encode("utf-8")))


def distinct_uid(keys: Keys, uid: str, content: bytes) -> str:
    """A new UID for one of several instances that wrongly share `uid`, told apart by the digest of their content."""
    return _uuid_uid(keys.derive("uid-distinct", uid.encode("utf-8"), content))


def uid_of_patient(keys: Keys, uid: str, pseudonym: str) -> str:
    """The new UID of a study, or of a series in it, for one of several patients whose instances wrongly share it."""
    return _uuid_uid(keys.derive("uid-of-patient", uid.encode("utf-8"), pseudonym.encode("utf-8")))


def uid_token(keys: Keys, uid: str) -> bytes:
    """Eight keyed bytes that stand for a UID where only sameness matters."""
    return uid_digest(keys, uid)[:8]


def uid_digest(keys: Keys, uid: str) -> bytes:
    """The keyed bits that those are of."""
    return keys.derive("uid-token", uid.encode("utf-8"))
