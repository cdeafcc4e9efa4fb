"""Zip files of instances: which members there are, and each of them as a source of its own.

A listing reads the central directory and nothing else; a member is opened by what its version says, without the
directory. Members' names are only ever text in URIs: nothing is written under them.

Source: PKWARE APPNOTE.TXT 6.3.10.
"""

import re
import struct
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Final, NamedTuple
from urllib.parse import quote_from_bytes

from dicomveil.errors import InvalidInstance
from dicomveil.part10 import ZIP_MAGIC
from dicomveil.stream import LARGEST_CHUNK, BytesSource, InflatedSource, Source

MOST_MEMBERS: Final = 1 << 20
LARGEST_MEMBER: Final = 1 << 36
"""Bytes; no instance comes near."""
UNASKED: Final = 1 << 30
"""Bytes up to which a member may expand from however little: blank frames do."""
UNASKED_IN_ALL: Final = 1 << 34
MOST_RATIO: Final = 200
"""By which more than that may be larger than what is stored."""
IN_MEMORY: Final = 1 << 20

STORED: Final = 0
DEFLATED: Final = 8
_ENCRYPTED: Final = 0x0001 | 0x0040 | 0x2000  # by password, strongly, or the directory too

BETWEEN: Final = "!/"
_ESCAPED: Final = re.compile(r"[%!\x00-\x1f\x7f]")
_LOCAL: Final = struct.Struct("<4s2xHH4xI8xHH")  # signature, flags, method, CRC, lengths of name and extra field
_ENTRY: Final = struct.Struct("<4s4xHH4xIIIHHHH6xI")
_END: Final = struct.Struct("<4sHHHHIIH")
_LOCATOR: Final = struct.Struct("<4sIQI")
_END64: Final = struct.Struct("<4s12xIIQQQQ")
_FULL16: Final = 0xFFFF
_FULL32: Final = 0xFFFFFFFF
_ZIP64: Final = 0x0001
_SLACK: Final = 1 << 10  # for a member's name and extra field, in one read with its bytes


class Place(NamedTuple):
    """Where a member is in its zip file, and how it is stored.

    Attributes:
      offset: of its local header.
      stored: bytes in the zip file; size: of the member itself.
      crc: CRC-32 of the member.
    """

    offset: int
    stored: int
    size: int
    method: int
    crc: int

    def text(self) -> str:
        return f"{self.offset}-{self.stored}-{self.size}-{self.method}-{self.crc:08x}"

    @classmethod
    def of(cls, text: str) -> "Place":
        offset, stored, size, method, crc = text.split("-")
        return cls(int(offset), int(stored), int(size), int(method), int(crc, 16))


class Member(NamedTuple):
    """One member of a zip file; `reason` says why it can't be opened, "" where it can."""

    name: str
    place: Place
    reason: str

    def uri(self, archive: str) -> str:
        """Where it is: in a zip file of that URI."""
        return archive + BETWEEN + self.name

    def version(self, archive: str, size: int) -> str:
        """What pins its bytes, in that version of a zip file of that size: all that it takes to open it."""
        return f"{archive}!{size}!{self.place.text()}"


def is_member(version: str) -> bool:
    """Whether a version is that of a zip file's member."""
    return "!" in version


class Archive(NamedTuple):
    """The zip file that holds a member; `streamed` is whether that member is read through."""

    uri: str
    version: str
    size: int
    streamed: bool


def archive_of(uri: str, version: str) -> Archive:
    """The zip file that holds a member of these."""
    archive, size, place = version.rsplit("!", 2)
    return Archive(uri.rpartition(BETWEEN)[0], archive, int(size), Place.of(place).stored > IN_MEMORY)


def is_named_so(uri: str) -> bool:
    """Whether a name says that it is a zip file."""
    return uri[-4:].lower() == ".zip"


def is_zip(source: Source) -> bool:
    """Whether something begins as a zip file does."""
    return source.read(0, 4) in ZIP_MAGIC


# --------------------------------------------------------------------------------------------------------- listing


class _Directory(NamedTuple):
    """The central directory: where it is, how long, and of how many members."""

    begin: int
    size: int
    entries: int


def members(archive: Source) -> Iterator[Member]:
    """Every member but folders, in the directory's order; none where anything is wrong with the whole.

    Raises:
      InvalidInstance: "zip-damaged"; "zip-bomb" for too many members, for some that share bytes, or where all of them
        would expand too far.
    """
    directory = _directory(archive)
    _check(archive, directory)
    for name, flags, place in _entries(archive, directory):
        if not name.endswith(b"/"):
            yield Member(_text(name), place, _reason(flags, place))


def _reason(flags: int, place: Place) -> str:
    if flags & _ENCRYPTED:
        return "zip-encrypted"
    if place.method not in (STORED, DEFLATED):
        return "zip-method"
    if place.method == STORED and place.stored != place.size:
        return "zip-damaged"
    expands = place.size > UNASKED and place.size > MOST_RATIO * place.stored
    return "zip-bomb" if expands or place.size > LARGEST_MEMBER else ""


def _directory(archive: Source) -> _Directory:
    tail_at = max(0, archive.size - _END.size - _FULL16 - _LOCATOR.size)
    tail = archive.read(tail_at, archive.size - tail_at)
    at = tail.rfind(b"PK\5\6")
    while at >= 0:
        if at + _END.size <= len(tail):
            _, disk, first, here, count, size, begin, comment = _END.unpack_from(tail, at)
            if at + _END.size + comment == len(tail):
                break
        at = tail.rfind(b"PK\5\6", 0, at)
    else:
        raise InvalidInstance("zip-damaged")
    end = tail_at + at
    if at >= _LOCATOR.size and tail[at - _LOCATOR.size :].startswith(b"PK\6\7"):
        *_, end, disks = _LOCATOR.unpack_from(tail, at - _LOCATOR.size)
        record = archive.read(end, _END64.size)
        if disks > 1 or len(record) < _END64.size or not record.startswith(b"PK\6\6"):
            raise InvalidInstance("zip-damaged")
        _, disk, first, here, count, size, begin = _END64.unpack(record)
    if disk or first or here != count or begin + size != end:
        raise InvalidInstance("zip-damaged")
    return _Directory(begin, size, count)


def _check(archive: Source, directory: _Directory) -> None:
    """See that no two members share bytes, and that all of them stay within bounds; two numbers a member are held."""
    if directory.entries > MOST_MEMBERS:
        raise InvalidInstance("zip-bomb")
    begins, ends, total = array("Q"), array("Q"), 0
    for name, _, place in _entries(archive, directory):
        begins.append(place.offset)
        ends.append(place.offset + _LOCAL.size + len(name) + place.stored)
        total += place.size
    order = sorted(range(len(begins)), key=begins.__getitem__)
    if any(ends[one] > begins[next_one] for one, next_one in pairwise(order)):
        raise InvalidInstance("zip-bomb")
    if order and ends[order[-1]] > directory.begin:
        raise InvalidInstance("zip-damaged")
    if total > UNASKED_IN_ALL and total > MOST_RATIO * archive.size:
        raise InvalidInstance("zip-bomb")


def _entries(archive: Source, directory: _Directory) -> Iterator[tuple[bytes, int, Place]]:
    """Name, flags and place of each entry, a piece of the directory in memory at a time."""
    buffer, at, read = b"", 0, 0
    for _ in range(directory.entries):
        needed = _ENTRY.size
        for _ in range(2):  # the fixed part tells how long the whole is
            if len(buffer) - at < needed:
                piece = archive.read(directory.begin + read, min(LARGEST_CHUNK, directory.size - read))
                buffer, at, read = buffer[at:] + piece, 0, read + len(piece)
            if len(buffer) - at < needed:
                raise InvalidInstance("zip-damaged")
            signature, flags, method, crc, stored, size, named, extra, comment, disk, offset = _ENTRY.unpack_from(
                buffer, at
            )
            needed = _ENTRY.size + named + extra + comment
        behind = at + _ENTRY.size + named
        name, more = buffer[at + _ENTRY.size : behind], buffer[behind : behind + extra]
        size, stored, offset = _widened(more, size, stored, offset)
        if signature != b"PK\1\2" or disk not in (0, _FULL16) or offset + stored > archive.size:
            raise InvalidInstance("zip-damaged")
        yield name, flags, Place(offset, stored, size, method, crc)
        at += needed


def _widened(extra: bytes, *values: int) -> Iterator[int]:
    """The values of an entry, those that need 64 bits from its extra field."""
    wide, at = b"", 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == _ZIP64:
            wide = extra[at + 4 : at + 4 + length]
        at += 4 + length
    for value in values:
        if value == _FULL32 and wide:
            if len(wide) < 8:
                raise InvalidInstance("zip-damaged")
            value, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        yield value


def _text(name: bytes) -> str:
    """A member's name as it stands in URIs: UTF-8 where it is that, else with percent signs; "!" is never in it."""
    try:
        return _ESCAPED.sub(lambda found: f"%{ord(found[0]):02X}", name.decode("utf-8"))
    except UnicodeDecodeError:
        return quote_from_bytes(name, safe="/ ")


# --------------------------------------------------------------------------------------------------------- opening


@contextmanager
def opened(archive: Source, uri: str, version: str) -> Iterator[Source]:
    """A member as a source: a small one is read at once, a large one streamed, forward in bounded memory.

    Where it is left in peace, the rest is read too, for its checksum.

    Args:
      archive: the zip file in the version that was listed.
      uri, version: of the member.

    Raises:
      InvalidInstance: "zip-damaged" where it isn't what the directory says, also when it is left.
    """
    place = Place.of(version.rpartition("!")[2])
    whole = place.stored <= IN_MEMORY
    head = archive.read(place.offset, _LOCAL.size + _SLACK + (place.stored if whole else 0))
    begin = _data_begin(head, uri.rpartition(BETWEEN)[2], place)
    raw: Source
    if whole and begin + place.stored <= len(head):
        raw = BytesSource(head[begin : begin + place.stored])
    else:
        raw = _Part(archive, place.offset + begin, place.stored)
    if raw.size != place.stored:
        raise InvalidInstance("zip-damaged")
    source = _Checked(raw, place)
    if place.size <= IN_MEMORY:
        content = BytesSource(source.read(0, place.size))
        source.finish()
        yield content
        return
    yield source
    source.finish()


def _data_begin(head: bytes, name: str, place: Place) -> int:
    """Where a member's bytes begin, behind its local header; that must agree with the directory."""
    if len(head) >= _LOCAL.size:
        signature, flags, method, _, named, extra = _LOCAL.unpack_from(head)
        there = _text(head[_LOCAL.size : _LOCAL.size + named]) == name or named > _SLACK
        if signature == b"PK\3\4" and not flags & _ENCRYPTED and method == place.method and there:
            return int(_LOCAL.size + named + extra)
    raise InvalidInstance("zip-damaged")


class _Part:
    """Some bytes of a source as a source of their own."""

    def __init__(self, source: Source, begin: int, size: int) -> None:
        self._source, self._begin = source, begin
        self.size = max(0, min(size, source.size - begin))

    def read(self, offset: int, length: int) -> bytes:
        return self._source.read(self._begin + offset, min(length, self.size - offset))


class _Ahead:
    """A source that is read forward, a large piece at a time."""

    def __init__(self, source: Source) -> None:
        self._source, self.size = source, source.size
        self._piece, self._at = b"", 0

    def read(self, offset: int, length: int) -> bytes:
        start = offset - self._at
        if not 0 <= start < len(self._piece):
            self._piece, self._at, start = self._source.read(offset, LARGEST_CHUNK), offset, 0
        return self._piece[start : start + length]


class _Checked:
    """A member, whose checksum is taken as it is read.

    Attributes:
      size: as the directory says; never more than that is given.
    """

    def __init__(self, raw: Source, place: Place) -> None:
        self._deflated = place.method == DEFLATED
        self._source = InflatedSource(_Ahead(raw), 0, size=place.size) if self._deflated else raw
        self.size, self._expected = place.size, place.crc
        self._crc, self._at = 0, 0

    def read(self, offset: int, length: int) -> bytes:
        while self._deflated and self._at < min(offset, self.size):  # what is skipped is inflated all the same
            if not self._read(self._at, min(LARGEST_CHUNK, offset - self._at)):
                break
        return self._read(offset, length)

    def _read(self, offset: int, length: int) -> bytes:
        data = self._inner(offset, max(0, min(length, self.size - offset)))
        if offset <= self._at < offset + len(data):
            self._crc = zlib.crc32(memoryview(data)[self._at - offset :], self._crc)
            self._at = offset + len(data)
        return data

    def _inner(self, offset: int, length: int) -> bytes:
        try:
            return self._source.read(offset, length)
        except InvalidInstance as broken:
            raise InvalidInstance("zip-damaged" if broken.reason == "deflate" else broken.reason) from None

    def finish(self) -> None:
        """See that it is what the directory says.

        Raises:
          InvalidInstance: "zip-damaged".
        """
        while self._at < self.size and self._read(self._at, LARGEST_CHUNK):
            pass
        if self._at != self.size or self._crc != self._expected or self._inner(self.size, 1):
            raise InvalidInstance("zip-damaged")
