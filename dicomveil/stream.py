"""An encoded data set as a stream of elements: the only place that knows how bytes are laid out (PS3.5 chapter 7).

Nothing here decides what an element means or what becomes of it. Positions are absolute, in bytes from the start of
the data set's source; a length that isn't known is -1, never the encoded FFFFFFFFH.
"""

import os
import struct
import zlib
from collections.abc import Container, Generator, Iterator
from typing import Final, NamedTuple, Protocol

from dicomveil.errors import InvalidInstance

CHUNK: Final = 1 << 16
LARGEST_CHUNK: Final = 1 << 20
_FEW: Final = 256
MAX_DEPTH: Final = 512
LONGEST_UIDS: Final = 1 << 20  # of one UI element, in bytes: more are no UIDs
INFLATE_LIMIT: Final = 1 << 31

UNDEFINED: Final = 0xFFFFFFFF
NEVER: Final = 1 << 32  # a tag that none reaches
_LONGEST_SHORT: Final = 0xFFFE
PIXEL_DATA: Final = 0x7FE00010
ITEM: Final = 0xFFFEE000

SHORT_VRS: Final = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG_VRS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_MAY_BE_UNDEFINED: Final = frozenset((b"SQ", b"UN", b"OB", b"OW", b""))


def tag_text(tag: int) -> str:
    """A tag as the Standard writes it: "(0008,0018)"."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


class Path(NamedTuple):
    """Where an Item stands: the path of the data set that holds its sequence, the sequence's tag, the Item's index."""

    parent: "Path | None"
    tag: int
    item: int

    def text(self) -> str:
        steps = []
        at: Path | None = self
        while at is not None:
            steps.append(f"{tag_text(at.tag)}[{at.item}]")
            at = at.parent
        return ".".join(reversed(steps))


def path_text(parent: Path | None, tag: int) -> str:
    """An element's path: "(0008,1140)[0].(0008,1155)", in the order of the sequences around it."""
    return f"{parent.text()}.{tag_text(tag)}" if parent else tag_text(tag)


# ------------------------------------------------------------------------------------------------------- where from


class Source(Protocol):
    """Random access to the bytes of one stored instance.

    Attributes:
      size: number of bytes.
    """

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, or fewer where the source ends."""
        ...


class BytesSource:
    """An instance in memory.

    Attributes:
      data: all of it.
    """

    __slots__ = ("data", "size")

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


class FileSource:
    """An open file, read where it is asked for.

    Args:
      size: of it, in bytes.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self.size = descriptor, size

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)


class InflatedSource:
    """The data set inside a deflated one, inflated as it is read, in bounded memory.

    Reading forward is cheap, reading backward starts again. Nothing is kept, so a large one is inflated once to learn
    its size and once for each pass over it.

    Args:
      size: of what it inflates to, where that is known: then nothing is read before it is asked for, nor checked but
        what is read.

    Raises:
      InvalidInstance: "deflate" where the stream is broken or expands past `limit` bytes, "truncated" where it isn't
        finished, "trailing-data" where anything but zeros or gzip's own trailer follows it.

    Source: PS3.5 A.5.
    """

    def __init__(self, source: Source, offset: int, limit: int = INFLATE_LIMIT, size: int = -1) -> None:
        self._source, self._offset = source, offset
        self._restart()
        self.size, checksum = max(0, size), 0
        if size >= 0:
            return
        while piece := self._next():
            self.size += len(piece)
            checksum = zlib.crc32(piece, checksum)
            if self.size > limit:
                raise InvalidInstance("deflate", "", self._at)
        if not self._inflater.eof:
            raise InvalidInstance("truncated", "", self._at)
        self._check_rest(struct.pack("<II", checksum, self.size & UNDEFINED))
        self._restart()

    def _check_rest(self, trailer: bytes) -> None:
        """Behind the stream only zeros may stand, or gzip's trailer (RFC 1952), if it fits: some writers leave it."""
        end = self._at - len(self._inflater.unused_data)
        rest = self._source.read(end, LARGEST_CHUNK)
        if rest[:8] == trailer:
            rest = rest[8:]
        if rest.strip(b"\0") or self._source.size - end > LARGEST_CHUNK:
            raise InvalidInstance("trailing-data", "", end)

    def _restart(self) -> None:
        self._inflater, self._at = zlib.decompressobj(-zlib.MAX_WBITS), self._offset
        self._piece, self._piece_at = b"", 0

    def _next(self) -> bytes:
        """The next inflated piece, of at most 1 MiB; empty at the end."""
        while not self._inflater.eof:
            data = self._inflater.unconsumed_tail
            if not data:
                data = self._source.read(self._at, CHUNK)
                self._at += len(data)
            try:
                piece = self._inflater.decompress(data, LARGEST_CHUNK)
            except zlib.error:
                raise InvalidInstance("deflate", "", self._at) from None
            if piece or not data:
                return piece
        return b""

    def read(self, offset: int, length: int) -> bytes:
        if offset < self._piece_at:
            self._restart()
        parts: list[bytes] = []
        while length > 0:
            start = offset - self._piece_at
            if start >= len(self._piece):
                self._piece_at += len(self._piece)
                self._piece = self._next()
                if not self._piece:
                    break
                continue
            part = self._piece[start : start + length]
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)


class Window:
    """A sliding view of a source, so that a header is parsed in memory and what lies behind it isn't loaded.

    Attributes:
      buffer: the bytes loaded now.
      base: the position of its first byte.
      size: the end of the source.
      after: where the reader of an element of undefined length says that it ended.
      due: a tag from which on every element is yielded again, quiet or not.
      descends: whether any data set or Item read so far has tags that don't ascend.
    """

    __slots__ = ("_chunk", "_not_zero", "_source", "after", "base", "buffer", "descends", "due", "size")

    def __init__(self, source: Source) -> None:
        self._source, self._chunk = source, CHUNK
        self.buffer: bytes = getattr(source, "data", b"")
        self.base, self.size, self.after, self.due = 0, source.size, -1, NEVER
        self.descends = False
        self._not_zero = -1  # the last position known to hold another byte than zero

    def load(self, position: int, length: int) -> None:
        """Slide so that `length` bytes from `position` are in the buffer.

        Raises:
          InvalidInstance: "truncated", the source ends before.
        """
        if position + length > self.size:
            raise InvalidInstance("truncated", "", position)
        ahead = self._chunk - position % CHUNK  # up to where a source that is fetched by CHUNKs has it already
        self.buffer = self._source.read(position, min(max(length, ahead), self.size - position))
        self.base = position
        self._chunk = min(2 * self._chunk, LARGEST_CHUNK)
        if len(self.buffer) < length:
            raise InvalidInstance("truncated", "", position)

    def slice(self, start: int, stop: int) -> bytes:
        """The bytes from start to stop; both inside the source."""
        at = start - self.base
        if at < 0 or stop - self.base > len(self.buffer):
            self.load(start, stop - start)
            at = 0
        return self.buffer[at : at + stop - start]

    def zeros(self, position: int) -> bool:
        """Whether nothing but zero bytes follows up to the end. What is learned is remembered."""
        if position <= self._not_zero:
            return False
        length = _FEW  # mostly the first byte tells
        while position < self.size:
            piece, length = self._source.read(position, length), LARGEST_CHUNK
            if not piece or piece.strip(b"\0"):
                self._not_zero = position + len(piece) - len(piece.lstrip(b"\0"))
                return False
            position += len(piece)
        return True


# ------------------------------------------------------------------------------------------------ how it is encoded


class Encoding:
    """One of the three ways to encode a data set (PS3.5 7.1.2, 7.1.3, 7.3), and how to write an element in it.

    Attributes:
      name: for messages and caches.
      implicit: whether the VR is left out.
      big: whether numbers are big endian.
      index: its place in `ENCODINGS`.
    """

    __slots__ = ("_long", "_short", "big", "implicit", "index", "item", "name", "u16", "u32")

    def __init__(self, index: int, name: str, implicit: bool, big: bool) -> None:
        order = ">" if big else "<"
        self.index, self.name, self.implicit, self.big = index, name, implicit, big
        self._short, self._long = struct.Struct(order + "HH2sH"), struct.Struct(order + "HH2sHI")
        self.item, self.u32, self.u16 = (
            struct.Struct(order + "HHI"),
            struct.Struct(order + "I"),
            struct.Struct(order + "H"),
        )

    def __reduce__(self) -> str:
        return self.name

    def header(self, tag: int, vr: str, length: int) -> bytes:
        """The bytes before a value: tag, VR where it is written, and length (-1 for undefined)."""
        if length < 0:
            length = UNDEFINED
        if self.implicit:
            return self.item.pack(tag >> 16, tag & 0xFFFF, length)
        code = vr.encode()
        if length > _LONGEST_SHORT and code in SHORT_VRS:
            code = b"UN"  # the way to write a value that is too long for its VR (PS3.5 6.2.2)
        if code in SHORT_VRS:
            return self._short.pack(tag >> 16, tag & 0xFFFF, code, length)
        return self._long.pack(tag >> 16, tag & 0xFFFF, code, 0, length)

    def element(self, tag: int, vr: str, value: bytes) -> bytes:
        """A whole element; the value is encoded already, and padded here to an even length."""
        if len(value) & 1:
            value += b"\0" if vr in ("UI", "OB", "UN") else b" "
        return self.header(tag, vr, len(value)) + value

    def elements(
        self,
        window: Window,
        position: int,
        end: int,
        delimited: bool,
        quiet: Container[int] = (),
        quiet_private: bool = False,
    ) -> "Elements":
        """The elements from `position` up to `end`, or up to their Item Delimitation Item.

        Each is (tag, vr, start, value, stop): where the element, its value and the next one start. `stop` is -1 for
        an undefined length, and then the consumer says in `window.after` where it ended, before it asks for more.
        `vr` is b"" where the encoding leaves it out. Zero bytes up to the end of the file end the data set. Where it
        ended, a delimiter included, stands in `window.after`.

        Args:
          quiet: tags of plain elements that the consumer doesn't want to see, which makes it much faster.
          quiet_private: whether it wants no private ones either.

        Raises:
          InvalidInstance: "truncated", "length", "vr", "item", "undefined-length".

        """
        private = 0x10000 if quiet_private else 0
        if self.implicit:
            return _implicit_elements(window, position, end, delimited, quiet, private)
        unpack, unpack_long = self._short.unpack_from, self.u32.unpack_from
        return _explicit_elements(window, position, end, delimited, quiet, private, unpack, unpack_long)


Elements = Generator[tuple[int, bytes, int, int, int], None, None]

EXPLICIT_LITTLE: Final = Encoding(0, "EXPLICIT_LITTLE", False, False)
IMPLICIT_LITTLE: Final = Encoding(1, "IMPLICIT_LITTLE", True, False)
EXPLICIT_BIG: Final = Encoding(2, "EXPLICIT_BIG", False, True)
ENCODINGS: Final = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG)

_unpack_implicit = IMPLICIT_LITTLE.item.unpack_from


def _explicit_elements(  # type: ignore[no-untyped-def]  # bound struct methods have no useful type
    window: Window, position: int, end: int, delimited: bool, quiet: Container[int], private: int, unpack, unpack_long
) -> Elements:
    short, long, buffer, base, last = SHORT_VRS, LONG_VRS, window.buffer, window.base, -1
    while position < end:
        at = position - base
        try:
            group, element, vr, length = unpack(buffer, at)
            tag = group << 16 | element
            if vr in short:
                value = position + 8
            elif vr in long:
                (length,) = unpack_long(buffer, at + 8)
                value = position + 12
            elif group == 0xFFFE:
                if element != 0xE00D or not delimited:
                    raise InvalidInstance("item", "", position)
                window.after = position + 8
                return
            elif not tag and not delimited and _padding(window, position, end):
                break
            else:
                raise InvalidInstance("vr", tag_text(tag), position)
        except struct.error:
            if not delimited and _padding(window, position, end):
                break
            _load_header(window, position, end, 12)
            buffer, base = window.buffer, window.base
            continue
        if tag <= last:
            window.descends = True
        last = tag
        stop = value + length
        if stop > end or length == UNDEFINED:
            stop = _undefined(window, tag, vr, position, length, stop, end)
        elif ((tag in quiet and vr != b"SQ") or tag & private) and tag < window.due:
            position = stop
            continue
        yield tag, vr, position, value, stop
        position = stop if stop >= 0 else window.after
        buffer, base = window.buffer, window.base
    else:
        if delimited:
            raise InvalidInstance("truncated" if end == window.size else "item", "", position)
    window.after = position


def _implicit_elements(
    window: Window, position: int, end: int, delimited: bool, quiet: Container[int], private: int
) -> Elements:
    unpack, buffer, base, last = _unpack_implicit, window.buffer, window.base, -1
    while position < end:
        try:
            group, element, length = unpack(buffer, position - base)
        except struct.error:
            if not delimited and _padding(window, position, end):
                break
            _load_header(window, position, end, 8)
            buffer, base = window.buffer, window.base
            continue
        if group == 0xFFFE:
            if element != 0xE00D or not delimited:
                raise InvalidInstance("item", "", position)
            window.after = position + 8
            return
        tag, value = group << 16 | element, position + 8
        if not tag and not delimited and _padding(window, position, end):
            break
        if tag <= last:
            window.descends = True
        last = tag
        stop = value + length
        if stop > end or length == UNDEFINED:
            stop = _undefined(window, tag, b"", position, length, stop, end)
        elif (tag in quiet or tag & private) and tag < window.due:
            position = stop
            continue
        yield tag, b"", position, value, stop
        position = stop if stop >= 0 else window.after
        buffer, base = window.buffer, window.base
    else:
        if delimited:
            raise InvalidInstance("truncated" if end == window.size else "item", "", position)
    window.after = position


def _undefined(window: Window, tag: int, vr: bytes, position: int, length: int, stop: int, end: int) -> int:
    """-1 for an undefined length, where it may be; any other that reaches past the end is a lie, or was cut off."""
    if length != UNDEFINED:
        reason = "truncated" if stop > window.size == end else "length"
        raise InvalidInstance(reason, tag_text(tag), position)
    if vr not in _MAY_BE_UNDEFINED:
        raise InvalidInstance("undefined-length", tag_text(tag), position)
    return -1


def _padding(window: Window, position: int, end: int) -> bool:
    """Whether only zero bytes are left in the file, as after a copy in whole blocks: no part of the data set."""
    return end == window.size and window.zeros(position)


def _load_header(window: Window, position: int, end: int, length: int) -> None:
    """Bring an element's header into the window; 8 bytes are enough where the data set ends behind them."""
    available = min(length, end - position)
    loaded = position >= window.base and position - window.base + available <= len(window.buffer)
    if available < 8 or loaded:
        raise InvalidInstance("truncated", "", position)
    window.load(position, available)


def items(
    window: Window, position: int, stop: int, end: int, encoding: Encoding, tag: int
) -> Iterator[tuple[int, int, int]]:
    """The Items of a sequence, or the fragments of encapsulated Pixel Data.

    Args:
      position: where the value starts.
      stop: where it stops, or -1 where a Sequence Delimitation Item says so.
      end: what may hold it at the most.
      tag: of the sequence, for errors.

    Yields:
      (start, content, stop) of each; `stop` is -1 for an undefined length, and then the consumer says in
      `window.after` where the content ended. Where the sequence has an undefined length itself, its end stands in
      `window.after` when there are no more.

    Raises:
      InvalidInstance: "item" where something else stands, "length", "truncated".
    """
    delimited = stop < 0
    bound = end if delimited else stop
    unpack = encoding.item.unpack_from
    while position < bound:
        try:
            group, element, length = unpack(window.buffer, position - window.base)
        except struct.error:
            _load_header(window, position, bound, 8)
            continue
        if group != 0xFFFE or element != 0xE000:
            if group == 0xFFFE and element == 0xE0DD:
                if delimited:
                    window.after = position + 8
                    return
                if position + 8 == bound and length == 0:  # a delimiter although the length is given: harmless, kept
                    return
            raise InvalidInstance("item", tag_text(tag), position)
        content = position + 8
        behind = content + length if length != UNDEFINED else -1
        if behind > bound:
            raise InvalidInstance("truncated" if bound == window.size else "length", tag_text(tag), position)
        yield position, content, behind
        position = behind if behind >= 0 else window.after
    if delimited:
        raise InvalidInstance("truncated" if bound == window.size else "item", tag_text(tag), position)


def skip(window: Window, position: int, end: int, encoding: Encoding, vr: bytes, tag: int, depth: int = 0) -> int:
    """Where a sequence or encapsulated Pixel Data of undefined length ends, the delimiter included.

    Args:
      encoding: of the element; that of its Items follows from it and from the VR.
      vr: of the element. Under OB and OW its Items are fragments, which have a length and no elements (PS3.5 A.4).
      tag: of the element, for errors.

    Raises:
      InvalidInstance: as `items` and `elements` do, and "nesting" past 512.
    """
    if depth >= MAX_DEPTH:
        raise InvalidInstance("nesting", tag_text(tag), position)
    inside, number = inner(encoding, vr), 0
    for item, content, stop in items(window, position, -1, end, inside, tag):
        if stop < 0:
            if vr in (b"OB", b"OW"):
                raise InvalidInstance("item", tag_text(tag), item)
            try:
                for nested, nested_vr, _, value, behind in inside.elements(window, content, end, True):
                    if behind < 0:
                        window.after = skip(window, value, end, inside, nested_vr, nested, depth + 1)
            except InvalidInstance as bad:
                raise bad.inside(tag_text(tag), number) from None
        number += 1
    return window.after


def inner(encoding: Encoding, vr: bytes) -> Encoding:
    """How a sequence's Items are encoded: implicit little endian inside UN, else as what is around (PS3.5 6.2.2)."""
    return IMPLICIT_LITTLE if vr == b"UN" else encoding


def item_end(window: Window, content: int, limit: int, behind: int, encoding: Encoding) -> int:
    """Where an Item ends, its delimiter included; read through only where its length isn't known (`behind` -1)."""
    if behind >= 0:
        return behind
    for tag, vr, _, value, stop in encoding.elements(window, content, limit, True):
        if stop < 0:
            window.after = skip(window, value, limit, encoding, vr, tag)
    return window.after


def holds_items(window: Window, position: int, stop: int, end: int, encoding: Encoding) -> bool | None:
    """Whether a value of unknown VR is a sequence: True where its Items read, False where they don't, None where it
    doesn't begin like one. A value of undefined length begins like one (PS3.5 6.2.2)."""
    bound = stop if stop >= 0 else end
    if stop >= 0 and (
        bound - position < 8 or window.slice(position, position + 4) != encoding.item.pack(0xFFFE, 0xE000, 0)[:4]
    ):
        return None
    try:
        for _, content, behind in items(window, position, stop, end, encoding, 0):
            limit = behind if behind >= 0 else bound
            for tag, vr, _, value, after in encoding.elements(window, content, limit, behind < 0):
                if after < 0:
                    window.after = skip(window, value, limit, encoding, vr, tag)
    except InvalidInstance:
        return False
    return True
