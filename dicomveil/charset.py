"""Text as a data set encodes it (PS3.5 6.1, PS3.3 C.12.1.1.2), where it must be read and not only replaced."""

import warnings

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.valuerep import TEXT_VR_DELIMS


def decode(raw: bytes, specific_character_set: str) -> str:
    """The text of one value, or of several with their backslashes.

    Args:
      specific_character_set: (0008,0005) as decoded text, "" for the default repertoire.

    Returns:
      The text; bytes that the character set doesn't know are read as ISO 8859-1, so that different bytes stay
      different text.
    """
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            encodings = convert_encodings([term.strip() for term in specific_character_set.split("\\")])
            return str(decode_bytes(raw, encodings, TEXT_VR_DELIMS))
    except (UserWarning, ValueError, LookupError):
        return raw.decode("latin-1")
