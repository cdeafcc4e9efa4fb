"""Where text can stand inside encapsulated Pixel Data (PS3.5 A.4, 8.2), so that it can be blanked where it stands.

Comments, application segments, metadata boxes and bytes behind an image are found by the marker syntax alone: nothing
is decoded. Here they are only found; what is blanked keeps its length, and no decoder needs it for a pixel.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from dicomveil.errors import InvalidInstance

Read = Callable[[int, int], bytes]

FILL: Final = b" "
"""The byte that blanks: legal text in every comment, and part of no marker and no start code."""

_HEAD: Final = 1 << 12  # what is read of headers at a time, in bytes
_CHUNK: Final = 1 << 20  # what is read of a scan at a time
_PADDING: Final = b"\0\xff" + FILL  # what may stand behind an image and says nothing
_LOOK_BEHIND: Final = 5  # what a pattern may look at before the last byte of the piece before, that byte included
_NEVER: Final = 1 << 63  # a position that none reaches

_JPEG: Final = "50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 70"
_JPEG_LS: Final = "80 81"
_JPEG_2000: Final = "90 91 92 93 201 202 203"
_JPEG_XL: Final = "110 111 112"
_RLE: Final = "1.2.840.10008.1.2.5"

EXAMINED: Final = frozenset(
    [_RLE, *(f"1.2.840.10008.1.2.4.{end}" for end in f"{_JPEG} {_JPEG_LS} {_JPEG_2000} {_JPEG_XL}".split())]
)
"""The transfer syntaxes that are understood. Video is not: its text may stand in any layer of its containers."""


class Span(NamedTuple):
    """Bytes that may be blanked.

    Attributes:
      start, stop: positions in the source; stop is the first byte behind.
    """

    start: int
    stop: int


def comments(read: Read, fragments: Sequence[tuple[int, int]], transfer_syntax_uid: str) -> list[Span]:
    """Find what can hold text and is no part of an image.

    A frame's codestream may span several fragments, and a fragment holds one frame at the most. Which of the image
    codecs it is, is read from the codestream and not believed from the transfer syntax.

    Not found is what only a decoder can tell from an image: bytes within a scan behind its last block, the names of
    frames within a JPEG XL codestream and what follows it, and the text of an ICC profile, which is kept whole since
    viewers need it.

    Args:
      read: `read(offset, length)` gives that many bytes of the source; at most about 1 MiB is asked for at a time.
      fragments: (start, stop) of each fragment's content, in order, without the Basic Offset Table.

    Returns:
      What isn't blank yet, in the order of the codestreams; nothing where all of it is. A comment that straddles
      fragments gives several spans.

    Raises:
      InvalidInstance: "bitstream" where a codestream can't be read so far that one may be sure, or the transfer
        syntax isn't in `EXAMINED`; "truncated" where the source is shorter than its fragments.

    Source: ITU-T T.81 B, T.87 C, T.800 A and I, T.814 A; ISO/IEC 18181-2 9.
    """
    if transfer_syntax_uid not in EXAMINED:
        raise InvalidInstance("bitstream")
    found: list[Span] = []
    following = 0
    while following < len(fragments) and transfer_syntax_uid != _RLE:
        frame = _Frame(read, fragments, following, found)
        if frame.size:
            frame.kind.examine(frame)
        following = frame.following
    return found


# --------------------------------------------------------------------------------------------------------- one frame


class _Kind(NamedTuple):
    """A family of codestreams: the bytes that one begins with, and what finds the comments in it."""

    signature: bytes
    examine: Callable[["_Frame"], None]


class _Frame:
    """One frame's codestream: its fragments joined, each taken up when it is needed, so that little is read twice.

    Positions are counted from the start of the codestream.

    Attributes:
      following: index of the first fragment that isn't part of it, as far as is known.
      size: bytes that it has, as far as is known.
    """

    def __init__(self, read: Read, fragments: Sequence[tuple[int, int]], first: int, found: list[Span]) -> None:
        self._read, self._fragments, self._found = read, fragments, found
        self._starts: list[int] = []  # where each fragment begins in the codestream
        self._first = self.following = first
        self.size = 0
        self._head, self._head_at = b"", 0
        self._kind: _Kind | None = None
        while not self.size and self.following < len(fragments):
            self._take_up()

    @property
    def kind(self) -> _Kind:
        if self._kind is None:
            begin = self.upto(0, _LONGEST_SIGNATURE)
            self._kind = next((kind for kind in _KINDS if begin.startswith(kind.signature)), None)
            if self._kind is None:
                raise self.bad(0)
        return self._kind

    def bad(self, at: int) -> InvalidInstance:
        return InvalidInstance("bitstream", "", next(self._pieces(at, at + 1), (-1, -1))[0])

    def _take_up(self) -> None:
        start, stop = self._fragments[self.following]
        self._starts.append(self.size)
        self.size += stop - start
        self.following += 1

    def extend(self) -> bool:
        """Take up the next fragment, unless it begins another frame."""
        if self.following == len(self._fragments):
            return False
        if self._kind and self._kind.signature == self._peek(len(self._kind.signature)):
            return False
        self._take_up()
        return True

    def _peek(self, length: int) -> bytes:
        """What the fragments that follow begin with."""
        begin = b""
        for start, stop in islice(self._fragments, self.following, None):
            begin += self._source(start, min(stop - start, length - len(begin)))
            if len(begin) == length:
                break
        return begin

    def reaches(self, at: int) -> bool:
        """Whether there is a byte at this position."""
        while at >= self.size and self.extend():
            pass
        return at < self.size

    def fragment_end(self, at: int) -> int:
        """Where the fragment that holds the byte before this position ends."""
        index = bisect_right(self._starts, at - 1)
        return self._starts[index] if index < len(self._starts) else self.size

    def _pieces(self, start: int, stop: int) -> Iterator[Span]:
        """Where the bytes from start to stop stand in the source; all of them must be reached."""
        index = bisect_right(self._starts, start) - 1
        while start < min(stop, self.size):
            begin, end = self._fragments[self._first + index]
            offset = start - self._starts[index]
            length = min(stop - start, end - begin - offset)
            if length > 0:
                yield Span(begin + offset, begin + offset + length)
            start, index = start + length, index + 1

    def _source(self, start: int, length: int) -> bytes:
        data = self._read(start, length)
        if len(data) != length:
            raise InvalidInstance("truncated", "", start)
        return data

    def upto(self, at: int, length: int) -> bytes:
        """So many bytes, or fewer where the frame ends."""
        if length < _HEAD:
            if not 0 <= at - self._head_at <= len(self._head) - length:
                self._head, self._head_at = self._bytes(at, max(length, min(_HEAD, self.size - at))), at
            return self._head[at - self._head_at :][:length]
        return self._bytes(at, length)

    def _bytes(self, at: int, length: int) -> bytes:
        self.reaches(at + length - 1)
        return b"".join(self._source(start, stop - start) for start, stop in self._pieces(at, at + length))

    def need(self, at: int, length: int) -> bytes:
        """So many bytes.

        Raises:
          InvalidInstance: "bitstream", the frame ends before.
        """
        data = self.upto(at, length)
        if len(data) < length:
            raise self.bad(max(at + len(data) - 1, 0))
        return data

    def number(self, at: int, length: int) -> int:
        return int.from_bytes(self.need(at, length), "big")

    def chunks(self, at: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """The bytes up to a position or to the frame's end, in order, each piece with its own position."""
        while at < stop and (chunk := self._bytes(at, min(_CHUNK, stop - at))):
            yield at, chunk
            at += len(chunk)

    def find(self, marker: re.Pattern[bytes], at: int) -> int:
        """Where the next marker of two bytes stands; -1 where none does."""
        before = b""
        for position, chunk in self.chunks(at, _NEVER):
            if match := marker.search(before + chunk, max(len(before) - 1, 0)):
                return position - len(before) + match.start()
            before = (before + chunk)[-_LOOK_BEHIND:]
        return -1

    def blank(self, start: int, stop: int) -> None:
        """Report bytes that may be blanked, if they aren't."""
        if any(chunk.strip(FILL) for _, chunk in self.chunks(start, stop)):
            self._found += self._pieces(start, stop)

    def trim(self, start: int, stop: int) -> tuple[int, int]:
        """The same bytes without the padding around them; nothing where all are padding."""
        first, last = stop, stop
        for at, chunk in self.chunks(start, stop):
            if kept := chunk.rstrip(_PADDING):
                first = min(first, at + len(chunk) - len(chunk.lstrip(_PADDING)))
                last = at + len(kept)
        return first, last

    def end(self, at: int) -> None:
        """Report what follows the image: it may fill its last fragment, and nothing but padding may follow that.

        Raises:
          InvalidInstance: "bitstream" where more than a tail follows, or another image, which a reader that counts
            frames otherwise might show.
        """
        start, stop = self.trim(at, self.fragment_end(at))
        begin = self.upto(start, min(_LONGEST_SIGNATURE, stop - start))
        if any(begin.startswith(kind.signature.lstrip(_PADDING)) for kind in _KINDS if len(kind.signature) > 2):
            raise self.bad(start)
        self.blank(start, stop)
        behind = self.fragment_end(at)
        while behind < self.size or self.extend():
            start, stop = self.trim(behind, self.size)
            if start < stop:
                raise self.bad(start)
            behind = self.size


# ------------------------------------------------------------------------------------------------- JPEG and JPEG-LS

_EOI, _SOS, _COM = 0xD9, 0xDA, 0xFE
_ALONE: Final = frozenset((0x01, *range(0xD0, 0xD8)))  # TEM and the restarts: markers without a segment
_APPLICATIONS: Final = range(0xE0, 0xF0)
_APP8: Final = 0xE8
_SOF_JPEG_LS: Final = 0xF7
_FRAME_HEADERS: Final = frozenset((*range(0xC0, 0xD0), _SOF_JPEG_LS)) - {0xC4, 0xC8, 0xCC}

_IN_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # a marker that ends a scan; FF 00 is a byte FF
_IN_JPEG_LS_SCAN: Final = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")  # FF and 7 bits are data (T.87 A.1)

_WHOLE: Final = 1 << 16
_KEPT: Final = (
    (0xE0, b"JFIF\0", 14),  # up to its thumbnail
    (0xE0, b"JFXX\0", 6),  # likewise
    (0xE2, b"ICC_PROFILE\0", _WHOLE),
    (_APP8, b"SPIFF\0", 30),
    (_APP8, b"mrfx", 5),  # a colour transform of JPEG-LS
    (0xEE, b"Adobe", 12),  # whether the colours are transformed
)
"""Of application segments, what decoders need: marker, what the segment begins with, how many bytes stay."""


def _counted(fixed: int, each: int, count_at: int) -> Callable[[bytes], bool]:
    """Whether a header is as long as the number of components that it gives demands."""
    return lambda header: len(header) > count_at and len(header) == fixed + each * header[count_at]


def _quantization(tables: bytes) -> bool:
    while tables and tables[0] >> 4 < 2:
        length = 65 + 64 * (tables[0] >> 4)
        if len(tables) < length:
            return False
        tables = tables[length:]
    return not tables


def _huffman(tables: bytes) -> bool:
    while len(tables) >= 17 and len(tables) >= 17 + sum(tables[1:17]):
        tables = tables[17 + sum(tables[1:17]) :]
    return not tables


_SEGMENTS: Final[dict[int, Callable[[bytes], bool]]] = {
    **dict.fromkeys(_FRAME_HEADERS, _counted(6, 3, 5)),
    _SOS: _counted(4, 2, 0),
    0xC4: _huffman,
    0xCC: lambda conditioning: not len(conditioning) % 2,
    0xDB: _quantization,
    0xDC: lambda lines: len(lines) in (2, 3, 4),
    0xDD: lambda interval: len(interval) in (2, 3, 4),
    0xDE: _counted(6, 3, 5),
    0xDF: lambda expansion: len(expansion) == 1,
    0xF8: lambda parameters: bool(parameters),
}
"""The segments that are part of an image, by marker, with what shows that no more stands in them than it needs."""


def _examine_jpeg(frame: _Frame) -> None:
    spiff = False
    for marker, start, stop in _segments(frame):
        payload = frame.need(start, stop - start)
        if marker == _COM:
            frame.blank(start, stop)
        elif marker in _APPLICATIONS:
            frame.blank(min(start + _kept(marker, payload, spiff), stop), stop)
            spiff = spiff or (marker == _APP8 and payload.startswith(b"SPIFF\0"))
        elif marker not in _SEGMENTS or not _SEGMENTS[marker](payload):
            raise frame.bad(start)


def _segments(frame: _Frame) -> Iterator[tuple[int, int, int]]:
    """The segments of an image: marker, and where the payload starts and stops."""
    at, in_scan, scanned = 2, _IN_SCAN, False
    while not scanned or frame.reaches(at):
        marker, at = _marker(frame, at)
        if marker == _EOI:
            break
        if marker in _ALONE:
            continue
        start, stop = at + 2, at + frame.number(at, 2)
        if stop < start:
            raise frame.bad(at)
        yield marker, start, stop
        at = stop
        if marker == _SOF_JPEG_LS:
            in_scan = _IN_JPEG_LS_SCAN
        elif marker == _SOS:
            scanned, at = True, frame.find(in_scan, stop)
            if at < 0:  # cut off within the scan, as some archives hold it: nothing can follow
                return
    frame.end(at)


def _marker(frame: _Frame, at: int) -> tuple[int, int]:
    """The marker that stands here, behind any number of fill bytes, and the position behind it (T.81 B.1.1.2)."""
    begin, marker = frame.need(at, 2)
    if begin != 0xFF:
        raise frame.bad(at)
    if marker != 0xFF:
        return marker, at + 2
    for position, chunk in frame.chunks(at, _NEVER):
        if rest := chunk.lstrip(b"\xff"):
            return rest[0], position + len(chunk) - len(rest) + 1
    raise frame.bad(at)


def _kept(marker: int, payload: bytes, spiff: bool) -> int:
    """How many bytes of an application segment stay."""
    for kept_marker, begin, length in _KEPT:
        if marker == kept_marker and payload.startswith(begin):
            return length
    if marker == _APP8 and spiff:  # an entry of the SPIFF directory: its tag, and the SOI within the last one
        return 6 if payload.startswith(b"\0\0\0\1") else 4
    return 0


# --------------------------------------------------------------------------------------------------------- JPEG 2000

_SOT, _SOD, _EOC, _COMMENT = 0xFF90, 0xFF93, 0xFFD9, 0xFF64
_NO_SEGMENT: Final = range(0xFF30, 0xFF40)
_PARAMETERS: Final = frozenset(
    (*range(0xFF50, 0xFF54), *range(0xFF55, 0xFF5A), *range(0xFF5C, 0xFF62), 0xFF63, *range(0xFF72, 0xFF7C))
)
"""The marker segments that decoding may need: of T.800, its second part (T.801) and High-Throughput (T.814)."""

_END_OF_CODESTREAM: Final = re.compile(rb"(?<!\xff\x91\x00\x04)\xff\xd9")  # but not a packet's number, behind SOP


def _examine_jpeg_2000(frame: _Frame) -> None:
    frame.end(_codestream(frame, 0, _NEVER))


def _codestream(frame: _Frame, at: int, end: int) -> int:
    """Report the comments of a codestream that stops at `end` at the latest; where it did is returned."""
    at, part_end, any_part = at + 2, 0, False
    while not any_part or part_end or (at < end and frame.reaches(at)):
        marker = frame.number(at, 2)
        if marker == _EOC:
            return at + 2
        if marker in _NO_SEGMENT:
            at += 2
        elif marker == _SOD and part_end:
            any_part, at, part_end = True, _behind_part(frame, at, part_end, end), 0
        else:
            stop = at + 2 + frame.number(at + 2, 2)
            if stop < at + 4 or stop > end:
                raise frame.bad(at)
            frame.need(stop - 1, 1)
            if marker == _SOT and not part_end:
                length = frame.number(at + 6, 4)
                part_end = at + length if length else _NEVER
            elif marker == _COMMENT:
                frame.blank(min(at + 6, stop), stop)  # behind Rcom, which tells text from binary data
            elif marker not in _PARAMETERS:
                raise frame.bad(at)
            at = stop
    return at


def _behind_part(frame: _Frame, start: int, part_end: int, end: int) -> int:
    """Where the data of a tile-part stops; its length may be left out of the last one (T.800 A.4.2)."""
    if part_end == _NEVER:
        found = frame.find(_END_OF_CODESTREAM, start)
        part_end = found if found >= 0 else _NEVER
    elif part_end < start:
        raise frame.bad(start)
    part_end = min(part_end, end)
    return part_end if frame.reaches(part_end - 1) else frame.size  # cut off within the data: nothing can follow


# ------------------------------------------------------------------------------------------------------------- boxes

_CODESTREAM: Final = b"jp2c"
_SUPERBOXES: Final = frozenset((b"jp2h", b"res "))
_KEPT_BOXES: Final = frozenset(
    b"jP  |ftyp|rreq|ihdr|bpcc|colr|pclr|cmap|cdef|resc|resd|JXL |jxll|jxlc|jxlp|jxli".split(b"|")
)
"""The boxes that decoding may need, of JP2 and JPH (T.800 I) and of JPEG XL (18181-2); all others are metadata.

Metadata too is jbrd, from which the JPEG file that a JPEG XL one was made of can be had again, its comments included.
"""


def _examine_boxes(frame: _Frame) -> None:
    frame.end(_boxes(frame, 0, _NEVER))


def _boxes(frame: _Frame, at: int, end: int, depth: int = 0) -> int:
    """Report the metadata among the boxes up to `end`, their types too: no reader tries to read blanks as XML."""
    while at < end and frame.reaches(at):
        head = frame.upto(at, 8)
        if depth == 0 and (len(head) < 8 or not any(head)):
            break
        start, stop = _box(frame, at, end)
        kind = head[4:]
        if kind == _CODESTREAM:
            frame.blank(*frame.trim(_codestream(frame, start, stop), stop))
        elif not frame.reaches(stop - 1):
            raise frame.bad(at)
        elif kind in _SUPERBOXES and depth < 2:
            _boxes(frame, start, stop, depth + 1)
        elif kind not in _KEPT_BOXES:
            frame.blank(at + 4, at + 8)
            frame.blank(start, stop)
        at = stop
    return min(at, frame.size)


def _box(frame: _Frame, at: int, end: int) -> tuple[int, int]:
    """Where the content of a box starts and stops: at `end` for a last box without a length (T.800 I.4)."""
    length, start = frame.number(at, 4), at + 8
    if length == 1:
        length, start = frame.number(at + 8, 8), at + 16
    if length == 0:
        while end == _NEVER and frame.extend():
            pass
        length = min(end, frame.size) - at
    if not start <= at + length <= end:
        raise frame.bad(at)
    return start, at + length


def _examine_nothing(frame: _Frame) -> None:
    """A bare JPEG XL codestream: all of it is for a decoder to read."""
    while frame.extend():
        pass


_KINDS: Final = (
    _Kind(b"\xff\xd8\xff", _examine_jpeg),
    _Kind(b"\xff\x4f\xff\x51", _examine_jpeg_2000),
    _Kind(b"\0\0\0\x0cjP  \r\n\x87\n", _examine_boxes),
    _Kind(b"\0\0\0\x0cJXL \r\n\x87\n", _examine_boxes),
    _Kind(b"\xff\x0a", _examine_nothing),
)
_LONGEST_SIGNATURE: Final = max(len(kind.signature) for kind in _KINDS)
