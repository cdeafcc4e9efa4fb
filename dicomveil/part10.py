"""A stored instance before its data set: preamble, File Meta Information and transfer syntax (PS3.10 chapter 7).

What stands there is read to find the data set, and never copied: the output gets a preamble and a meta group of its
own (PS3.15 2026d E.1.1 item 7).
"""

from dataclasses import dataclass
from typing import Final

from dicomveil import standard
from dicomveil.errors import Filtered, InvalidInstance
from dicomveil.stream import (
    CHUNK,
    ENCODINGS,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    PIXEL_DATA,
    Encoding,
    InflatedSource,
    Source,
    Window,
    skip,
    tag_text,
)

IMPLICIT_UID: Final = "1.2.840.10008.1.2"
EXPLICIT_UID: Final = "1.2.840.10008.1.2.1"
BIG_ENDIAN_UID: Final = "1.2.840.10008.1.2.2"
GE_PRIVATE_UID: Final = "1.2.840.113619.5.2"  # implicit little endian, but for its pixels: common in old GE archives
DICOMDIR_CLASS: Final = "1.2.840.10008.1.3.10"
DEFLATED_UIDS: Final = frozenset(
    ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")  # deflated; JPIP, deflated
)
UNCOMPRESSED_UIDS: Final = frozenset((IMPLICIT_UID, EXPLICIT_UID, BIG_ENDIAN_UID, GE_PRIVATE_UID))
_UNCOMPRESSED: Final = {EXPLICIT_LITTLE: EXPLICIT_UID, IMPLICIT_LITTLE: IMPLICIT_UID, EXPLICIT_BIG: BIG_ENDIAN_UID}

ZIP_MAGIC: Final = (b"PK\3\4", b"PK\5\6", b"PK\7\x08")  # a member, no member, one part of several

_MEDIA_STORAGE_SOP_CLASS: Final = 0x00020002
_TRANSFER_SYNTAX: Final = 0x00020010


@dataclass(frozen=True)
class Instance:
    """Where an instance's data set is, and how it is encoded.

    Attributes:
      source: what holds the data set: the stored bytes, or what they inflate to.
      begin: where it starts in there.
      encoding: how its elements are encoded.
      transfer_syntax_uid: the one it is in; where the file said something else, the one it was recovered as.
    """

    source: Source
    begin: int
    encoding: Encoding
    transfer_syntax_uid: str


def open_instance(source: Source) -> Instance:
    """Find the data set of a stored instance: with or without preamble, "DICM", meta group and its length.

    A transfer syntax that is missing or wrong is replaced only where exactly one encoding reads the data set to its
    end.

    Raises:
      Filtered: "empty-file", "not-dicom", "zip-not-opened", "dicomdir".
      InvalidInstance: "transfer-syntax", or what is wrong with the encoding.
    """
    if source.size == 0:
        raise Filtered("empty-file")
    window = Window(source)
    head = window.slice(0, min(CHUNK, source.size))
    marked = head[128:132] == b"DICM"
    begin = 132 if marked else 4 if head[:4] == b"DICM" else 0
    meta, begin = _file_meta(window, begin)
    if not marked and not meta and not _looks_like_data_set(window, begin):
        raise Filtered("zip-not-opened" if head[:4] in ZIP_MAGIC else "not-dicom")
    if meta.get(_MEDIA_STORAGE_SOP_CLASS) == DICOMDIR_CLASS:
        raise Filtered("dicomdir")
    if begin >= source.size:
        raise InvalidInstance("truncated", "", begin)
    uid = meta.get(_TRANSFER_SYNTAX, "")
    if uid in DEFLATED_UIDS:
        return _deflated(source, begin, uid)
    encoding = _encoding(uid)
    if uid and not encoding:
        raise InvalidInstance("transfer-syntax", "", begin)
    if encoding and _starts(encoding, window, begin):
        return Instance(source, begin, encoding, uid)
    return _recovered(source, begin, encoding, uid)


def _file_meta(window: Window, begin: int) -> tuple[dict[int, str], int]:
    """The values of the meta group that say how to read on, and where the data set starts.

    The group's own length isn't believed: the group ends where its elements do.
    """
    meta: dict[int, str] = {}
    start = window.slice(begin, min(begin + 6, window.size))
    if start[:2] != b"\x02\x00":
        return meta, begin
    encoding = EXPLICIT_LITTLE if start[4:6].isalpha() else IMPLICIT_LITTLE
    try:
        for tag, _, position, value, stop in encoding.elements(window, begin, window.size, False):
            if tag >> 16 != 0x0002:
                return meta, position
            begin = stop
            if stop < 0:
                break
            if tag in (_MEDIA_STORAGE_SOP_CLASS, _TRANSFER_SYNTAX):
                meta[tag] = window.slice(value, stop).decode("latin-1").strip(" \0")
    except InvalidInstance:
        # What follows the group may be in another encoding: it ends where it can't be read on.
        if begin < window.size and window.slice(begin, min(begin + 2, window.size)) == b"\x02\x00":
            raise
        return meta, begin
    if begin < 0:
        raise InvalidInstance("undefined-length", tag_text(tag), position)
    return meta, begin


def _encoding(uid: str) -> Encoding | None:
    """The encoding that a transfer syntax UID stands for; None where it is absent or nobody registered it."""
    if uid in (IMPLICIT_UID, GE_PRIVATE_UID):
        return IMPLICIT_LITTLE
    if uid == BIG_ENDIAN_UID:
        return EXPLICIT_BIG
    return EXPLICIT_LITTLE if uid in standard.transfer_syntaxes() else None


def _deflated(source: Source, begin: int, uid: str) -> Instance:
    try:
        inflated = InflatedSource(source, begin)
    except InvalidInstance as broken:
        if broken.reason == "deflate" and _fits(EXPLICIT_LITTLE, source, begin):
            return Instance(source, begin, EXPLICIT_LITTLE, EXPLICIT_UID)
        raise
    if not inflated.size or not _starts(EXPLICIT_LITTLE, Window(inflated), 0):
        raise InvalidInstance("transfer-syntax", "", begin)
    return Instance(inflated, 0, EXPLICIT_LITTLE, uid)


def _recovered(source: Source, begin: int, declared: Encoding | None, uid: str) -> Instance:
    """The instance as the one encoding that reads it to its end.

    Where the declared encoding reads it too, that is what it is, odd as it looks. Compressed Pixel Data under an
    unknown syntax stays unknown: the syntax is its only description.
    """
    fitting = [encoding for encoding in ENCODINGS if _fits(encoding, source, begin)]
    if declared in fitting and declared:
        return Instance(source, begin, declared, uid)
    if len(fitting) != 1 or _encapsulated(fitting[0], source, begin):
        raise InvalidInstance("transfer-syntax", "", begin)
    return Instance(source, begin, fitting[0], _UNCOMPRESSED[fitting[0]])


def _starts(encoding: Encoding, window: Window, begin: int) -> bool:
    """Whether the first element is one that this encoding would write: a known tag, with a VR that has letters."""
    try:
        tag, vr, _, _, stop = next(encoding.elements(window, begin, window.size, False))
    except (InvalidInstance, StopIteration):
        return False
    if encoding.implicit:
        return _plausible(tag) and not _explicit_header(window.slice(begin + 4, begin + 6), stop)
    return _plausible(tag) and bool(vr)


def _explicit_header(vr: bytes, stop: int) -> bool:
    """Whether what should be an implicit length looks like a VR: such a length would be past 16 MiB or undefined."""
    return vr.isalpha() and vr.isupper() and stop != -1


def _plausible(tag: int) -> bool:
    return tag in standard.dictionary() or bool(tag & 0x10000) or not tag & 0xFFFF


def _looks_like_data_set(window: Window, begin: int) -> bool:
    """Whether bytes without any mark start as a bare data set does: with a known element of the lowest groups."""
    for encoding in ENCODINGS:
        try:
            elements = encoding.elements(window, begin, window.size, False)
            first, _, _, _, stop = next(elements)
            second = next(elements)[0] if 0 <= stop < window.size else first + 1
        except (InvalidInstance, StopIteration):
            continue
        if 0x0008 <= first >> 16 <= 0x0020 and first < second and _plausible(first) and _plausible(second):
            return True
    return False


def _fits(encoding: Encoding, source: Source, begin: int) -> bool:
    """Whether the whole data set reads to its end in this encoding, tags ascending and mostly known."""
    window, last, unknown, count = Window(source), -1, 0, 0
    try:
        for tag, vr, start, value, stop in encoding.elements(window, begin, window.size, False):
            if not tag and window.zeros(start):
                break
            if tag <= last:
                return False
            if stop < 0:
                window.after = skip(window, value, window.size, encoding, vr, tag)
            last, count, unknown = tag, count + 1, unknown + (not _plausible(tag))
    except InvalidInstance:
        return False
    return count > 0 and unknown * 10 <= count


def _encapsulated(encoding: Encoding, source: Source, begin: int) -> bool:
    window = Window(source)
    for tag, vr, _, value, stop in encoding.elements(window, begin, window.size, False):
        if stop < 0:
            if tag == PIXEL_DATA:
                return True
            window.after = skip(window, value, window.size, encoding, vr, tag)
        elif not tag:
            break
    return False
