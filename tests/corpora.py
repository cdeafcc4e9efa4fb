"""Where real instances to test with are: pydicom's own, and a larger corpus where DICOMVEIL_CORPUS names one."""

import hashlib
import os
from pathlib import Path

import pydicom

from dicomveil import bitstreams

BUNDLED = Path(pydicom.__file__).parent / "data"
CORPUS = Path(os.environ["DICOMVEIL_CORPUS"]) if "DICOMVEIL_CORPUS" in os.environ else None
NO_CORPUS = "DICOMVEIL_CORPUS names no folder of real studies"
KEY = hashlib.sha256(b"a key to test with").digest()


def instances() -> list[Path]:
    """Every file at hand that may be an instance."""
    roots = [BUNDLED / "test_files", BUNDLED / "charset_files", BUNDLED / "palettes"]
    if CORPUS:
        roots.append(CORPUS / "open")
    return sorted(path for root in roots for path in root.rglob("*") if path.is_file() and path.suffix != ".py")


def without_comments(encapsulated: bytes, transfer_syntax_uid: str) -> bytes:
    """Encapsulated Pixel Data with the comments of its bitstreams blanked, as `bitstreams` finds them."""
    if transfer_syntax_uid not in bitstreams.EXAMINED:
        return encapsulated
    fragments, at = [], 0
    while at + 8 <= len(encapsulated) and encapsulated[at : at + 4] == b"\xfe\xff\x00\xe0":
        stop = at + 8 + int.from_bytes(encapsulated[at + 4 : at + 8], "little")
        fragments.append((at + 8, stop))
        at = stop
    blank = bytearray(encapsulated)
    for start, stop in bitstreams.comments(
        lambda at, size: encapsulated[at : at + size], fragments[1:], transfer_syntax_uid
    ):
        blank[start:stop] = bitstreams.FILL * (stop - start)
    return bytes(blank)


def label(path: Path) -> str:
    """A file's name below its corpus, for lists of exceptions."""
    root = CORPUS / "open" if CORPUS and path.is_relative_to(CORPUS) else BUNDLED
    return str(path.relative_to(root))
