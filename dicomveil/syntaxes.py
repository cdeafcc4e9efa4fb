"""The transfer syntaxes that an instance can be written in, by UID, keyword or name (PS3.5 annex A, PS3.6 annex A).

What they do to pixels is in `compression`.
"""

import difflib
import importlib.util
import re
from functools import cache
from typing import Final, NamedTuple

from dicomveil import standard
from dicomveil.errors import DicomveilError
from dicomveil.part10 import BIG_ENDIAN_UID, EXPLICIT_UID, IMPLICIT_UID

RLE: Final = "1.2.840.10008.1.2.5"
JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED: Final = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS: Final = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1: Final = "1.2.840.10008.1.2.4.70"
JPEG_LS: Final = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR: Final = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS: Final = "1.2.840.10008.1.2.4.90"
JPEG_2000: Final = "1.2.840.10008.1.2.4.91"
HTJ2K_LOSSLESS: Final = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL: Final = "1.2.840.10008.1.2.4.202"
HTJ2K: Final = "1.2.840.10008.1.2.4.203"
DEFLATED_UID: Final = "1.2.840.10008.1.2.1.99"

EXTRA: Final = "dicomveil[codecs]"
PACKAGES: Final = ("imagecodecs", "jpeg_ls", "openjpeg", "pebble", "rle")
"""The modules that the extra brings."""


class TransferSyntax(NamedTuple):
    """A transfer syntax that can be written.

    Attributes:
      keyword: of PS3.6.
      name: of PS3.6.
      encapsulated: whether Pixel Data is compressed in it.
      method: the Defined Term of Lossy Image Compression Method (PS3.3 C.7.6.1.1.5.1); "" where it is lossless.
    """

    uid: str
    keyword: str
    name: str
    encapsulated: bool
    method: str

    @property
    def lossy(self) -> bool:
        """Whether pixels may change."""
        return bool(self.method)


class NotProduced(DicomveilError):
    """A transfer syntax that nobody knows, or that can't be written.

    Attributes:
      what: what is wrong.
      remedy: what to write instead.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what} ({remedy})")
        self.what, self.remedy = what, remedy


_LISTED: Final = (
    (IMPLICIT_UID, "ImplicitVRLittleEndian", False, ""),
    (EXPLICIT_UID, "ExplicitVRLittleEndian", False, ""),
    (DEFLATED_UID, "DeflatedExplicitVRLittleEndian", False, ""),
    (BIG_ENDIAN_UID, "ExplicitVRBigEndian", False, ""),
    (RLE, "RLELossless", True, ""),
    (JPEG_BASELINE, "JPEGBaseline8Bit", True, "ISO_10918_1"),
    (JPEG_EXTENDED, "JPEGExtended12Bit", True, "ISO_10918_1"),
    (JPEG_LOSSLESS, "JPEGLossless", True, ""),
    (JPEG_LOSSLESS_SV1, "JPEGLosslessSV1", True, ""),
    (JPEG_LS, "JPEGLSLossless", True, ""),
    (JPEG_LS_NEAR, "JPEGLSNearLossless", True, "ISO_14495_1"),
    (JPEG_2000_LOSSLESS, "JPEG2000Lossless", True, ""),
    (JPEG_2000, "JPEG2000", True, "ISO_15444_1"),
    (HTJ2K_LOSSLESS, "HTJ2KLossless", True, ""),
    (HTJ2K_LOSSLESS_RPCL, "HTJ2KLosslessRPCL", True, ""),
    (HTJ2K, "HTJ2K", True, "ISO_15444_15"),
)


@cache
def produced() -> dict[str, TransferSyntax]:
    """Every transfer syntax that can be written, by UID."""
    names = {uid: name for uid, kind, name in standard.lines("uids.csv") if kind == "Transfer Syntax"}
    return {
        uid: TransferSyntax(uid, keyword, names[uid], encapsulated, method)
        for uid, keyword, encapsulated, method in _LISTED
    }


def find(text: str) -> TransferSyntax:
    """A transfer syntax by its UID, keyword or name; letter case, blanks and punctuation of names don't matter.

    Raises:
      NotProduced: nobody knows it, or it can't be written.
    """
    wanted = text.strip()
    if wanted in produced():
        return produced()[wanted]
    every = "write one of " + ", ".join(syntax.keyword for syntax in produced().values())
    if wanted in standard.transfer_syntaxes():
        raise NotProduced("is a transfer syntax that can't be written", every)
    known = {_plain(name): syntax for syntax in produced().values() for name in (syntax.keyword, syntax.name)}
    if _plain(wanted) in known:
        return known[_plain(wanted)]
    close = difflib.get_close_matches(_plain(wanted), known, 1, 0.6)
    close_uid = difflib.get_close_matches(wanted, produced(), 1, 0.9) if wanted.startswith("1.") else []
    hint = produced()[close_uid[0]].uid if close_uid else known[close[0]].keyword if close else ""
    raise NotProduced("is no transfer syntax", f"did you mean {hint}?" if hint else every)


def missing() -> tuple[str, ...]:
    """The modules of the extra that aren't installed: without any of them nothing is transcoded."""
    return tuple(name for name in PACKAGES if importlib.util.find_spec(name) is None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
