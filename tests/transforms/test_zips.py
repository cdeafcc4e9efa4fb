"""Zip files as inputs: the same members and bytes as the standard library's, and nothing of what hostile ones hope for."""

import io
import random
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomveil.errors import InvalidInstance
from dicomveil.stream import BytesSource, Source
from transforms import zips
from transforms.zips import Member

METHODS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}


class Counting:
    """A source that counts its reads and their bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self.size, self.reads, self.bytes = data, len(data), 0, 0

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        found = self._data[offset : offset + length]
        self.bytes += len(found)
        return found


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, **more: object) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method, **more) as archive:  # type: ignore[arg-type]
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def listed(data: bytes) -> list[Member]:
    return list(zips.members(BytesSource(data)))


def content(data: bytes, member: Member) -> bytes:
    with zips.opened(BytesSource(data), member.uri("a.zip"), member.version("1", len(data))) as source:
        return source.read(0, source.size)


def refusal(data: bytes) -> str:
    """Why a zip file, or one of its members, can't be read."""
    try:
        for member in listed(data):
            if member.reason:
                return member.reason
            content(data, member)
    except InvalidInstance as refused:
        return refused.reason
    return ""


# --------------------------------------------------------------------------------------------------- what is well


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40).filter(lambda it: not it.endswith("/")),
                    st.binary(max_size=200)),
    st.sampled_from(sorted(METHODS)),
    st.binary(max_size=40),
    st.booleans(),
)  # fmt: skip
def test_members_are_those_of_the_standard_library(
    files: dict[str, bytes], method: str, comment: bytes, streamed: bool
) -> None:
    """Whatever the names and contents, with a comment, and written to a pipe with sizes behind the members."""
    out = io.BytesIO()
    pipe = _Pipe(out)
    with zipfile.ZipFile(pipe if streamed else out, "w", METHODS[method]) as archive:  # type: ignore[arg-type]
        archive.comment = comment
        for name, data in files.items():
            archive.writestr(name, data)
    data = out.getvalue()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        expected = [archive.read(info) for info in archive.infolist()]
    found = listed(data)
    assert [content(data, member) for member in found] == expected
    assert len({member.name for member in found}) == len(files) and all("!" not in member.name for member in found)


class _Pipe:
    """What can be written and nothing else."""

    def __init__(self, out: io.BytesIO) -> None:
        self._write, self.flush = out.write, lambda: None

    def write(self, data: bytes) -> int:
        return self._write(data)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wide", [False, True], ids=["plain", "zip64"])
def test_large_members_are_streamed(method: str, wide: bool) -> None:
    """A large member reads as the same bytes in any order of reading, in memory that its size has no part in."""
    draw = random.Random(7)
    whole = draw.randbytes(1 << 20) + bytes(5 << 20) + draw.randbytes(1 << 19)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", METHODS[method]) as archive, archive.open("a", "w", force_zip64=wide) as file:
        file.write(whole)
    data = out.getvalue()
    (member,) = listed(data)
    with zips.opened(BytesSource(data), member.uri("a.zip"), member.version("1", len(data))) as source:
        assert source.size == len(whole)
        for _ in range(40):
            offset, length = draw.randrange(len(whole) + 9), draw.randrange(1 << 18)
            assert source.read(offset, length) == whole[offset : offset + length]
    tracemalloc.start()
    with zips.opened(BytesSource(data), member.uri("a.zip"), member.version("1", len(data))) as source:
        for offset in range(0, source.size, 1 << 16):
            source.read(offset, 1 << 16)
    assert tracemalloc.get_traced_memory()[1] < 5 << 20
    tracemalloc.stop()


def test_a_zip_file_costs_few_requests() -> None:
    """Three to list a hundred members, whatever they hold, and one for each that is small."""
    data = zipped({f"IM{number}": random.Random(number).randbytes(9000) for number in range(100)})
    source = Counting(data)
    assert zips.is_zip(source)
    found = list(zips.members(source))
    assert len(found) == 100 and source.reads <= 4 and source.bytes < 1 << 17
    source = Counting(data)
    with zips.opened(source, found[50].uri("a.zip"), found[50].version("1", len(data))):
        pass
    assert source.reads == 1 and source.bytes < 11000


def test_a_directory_of_many_members_isnt_held() -> None:
    """Twenty thousand members are listed in a few bytes each."""
    data = zipped({f"study/series/image{number:09}.dcm": b"" for number in range(20_000)}, zipfile.ZIP_STORED)
    tracemalloc.start()
    assert sum(1 for _ in zips.members(BytesSource(data))) == 20_000
    assert tracemalloc.get_traced_memory()[1] < 20_000 * 150
    tracemalloc.stop()


def test_folders_are_no_members() -> None:
    assert [member.name for member in listed(zipped({"a/": b"", "a/b": b"1"}))] == ["a/b"]


def test_harmless_names_stay_what_they_are() -> None:
    """Absolute names, and those that climb, are text in a URI and lead nowhere; what says where a member begins isn't in them."""
    names = ["/etc/passwd", "../../x", "C:\\a", "a!/b", "100%", "line\nfeed", "Ärzte/Bild 1"]
    found = listed(zipped(dict.fromkeys(names, b"1")))
    expected = ["/etc/passwd", "../../x", "C:\\a", "a%21/b", "100%25", "line%0Afeed", "Ärzte/Bild 1"]
    assert [member.name for member in found] == expected
    for member in found:
        assert zips.archive_of(member.uri("/in/a!/b.zip"), member.version("7-8-9", 5))[:3] == (
            "/in/a!/b.zip",
            "7-8-9",
            5,
        )


def test_one_name_may_be_given_twice() -> None:
    """Two members of one name are two objects: their versions tell them apart."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("a", b"one")
            archive.writestr("a", b"two")
    data = out.getvalue()
    one, two = listed(data)
    assert one.uri("z") == two.uri("z") and one.version("1", 2) != two.version("1", 2)
    assert [content(data, one), content(data, two)] == [b"one", b"two"]


def test_a_name_in_no_known_encoding_is_kept_by_its_bytes() -> None:
    data = zipped({"Xrzte.dcm": b"1"}).replace(b"Xrzte", b"\xc4rzte")
    (member,) = listed(data)
    assert (member.name, content(data, member)) == ("%C4rzte.dcm", b"1")


def test_a_member_is_looked_for_no_further_than_it_was_read() -> None:
    """Where reading ended early in peace, the rest is read for its checksum; where it failed, that failure stays."""
    data = zipped({"a": bytes(3 << 20)}, zipfile.ZIP_STORED)
    (member,) = listed(data)
    where = member.uri("a.zip"), member.version("1", len(data))
    with zips.opened(BytesSource(data), *where) as source:
        source.read(0, 10)
    damaged = data[: 1 << 20] + b"x" + data[(1 << 20) + 1 :]
    with pytest.raises(InvalidInstance, match="zip-damaged"), zips.opened(BytesSource(damaged), *where) as source:
        source.read(0, 10)
    with pytest.raises(KeyError), zips.opened(BytesSource(damaged), *where):
        raise KeyError


# ------------------------------------------------------------------------------------------------- what is hostile

BASE = zipped({"a": b"abc" * 50, "b": b"def" * 50})
ENTRY = BASE.index(b"PK\1\2")
END = BASE.index(b"PK\5\6")


def patched(at: int, value: bytes, data: bytes = BASE) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def end(disk: int = 0, here: int = 2, count: int = 2, size: int = END - ENTRY, begin: int = ENTRY) -> bytes:
    return patched(END, struct.pack("<4sHHHHIIH", b"PK\5\6", disk, disk, here, count, size, begin, 0))


def with_end_in_comment() -> bytes:
    with_comment = io.BytesIO(BASE)
    with zipfile.ZipFile(with_comment, "a") as archive:
        archive.comment = b"PK\5\6" + bytes(30) + b"PK\5\6"
    return with_comment.getvalue()


def overlapping() -> bytes:
    """The classic: every entry of the directory leads to the one kernel."""
    kernel = zlib.compress(bytes(1000), wbits=-15)
    crc = zlib.crc32(bytes(1000))
    local = struct.pack("<4s5HIIIHH", b"PK\3\4", 20, 0, 8, 0, 0, crc, len(kernel), 1000, 1, 0) + b"a" + kernel
    entry = struct.pack("<4s6HIIIHHHHHII", b"PK\1\2", 20, 20, 0, 8, 0, 0, crc, len(kernel), 1000, 1, 0, 0, 0, 0, 0, 0)
    entries = (entry + b"a") * 9
    return local + entries + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 9, 9, len(entries), len(local), 0)


def nested_overlap() -> bytes:
    """The newer one: a stored member whose bytes hold the next member, header and all."""
    inner = zipped({"b": b"x" * 100}, zipfile.ZIP_STORED)
    inner_local = inner[: inner.index(b"PK\1\2")]
    outer = zipped({"a": inner_local}, zipfile.ZIP_STORED)
    at = outer.index(b"PK\1\2")
    inside = 31
    inner_entry = bytearray(inner[inner.index(b"PK\1\2") : inner.index(b"PK\5\6")])
    inner_entry[42:46] = struct.pack("<I", inside)
    entries = outer[at : outer.index(b"PK\5\6")] + bytes(inner_entry)
    return outer[:at] + entries + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 2, 2, len(entries), at, 0)


def lying(size: int) -> bytes:
    """A member that says another size than it has."""
    return patched(ENTRY + 24, struct.pack("<I", size))


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "well": (lambda: BASE, ""),
    "a comment that looks like an end": (with_end_in_comment, ""),
    "encrypted": (lambda: patched(ENTRY + 8, b"\x01"), "zip-encrypted"),
    "strongly encrypted": (lambda: patched(ENTRY + 8, b"\x41"), "zip-encrypted"),
    "with an encrypted directory": (lambda: patched(ENTRY + 8, b"\0\x20"), "zip-encrypted"),
    "encrypted in secret": (lambda: patched(6, b"\x01"), "zip-damaged"),
    "bzip2": (lambda: zipped({"a": b"1" * 99}, zipfile.ZIP_BZIP2), "zip-method"),
    "lzma": (lambda: zipped({"a": b"1" * 99}, zipfile.ZIP_LZMA), "zip-method"),
    "a wrong checksum": (lambda: patched(ENTRY + 16, b"\0\0\0\0"), "zip-damaged"),
    "another name in the member": (lambda: patched(30, b"x"), "zip-damaged"),
    "another method in the member": (lambda: patched(8, b"\0"), "zip-damaged"),
    "no member where one must be": (lambda: patched(0, b"XXXX"), "zip-damaged"),
    "too small a size": (lambda: lying(149), "zip-damaged"),
    "too large a size": (lambda: lying(151), "zip-damaged"),
    "a huge size": (lambda: lying(0xFFFFFFF0), "zip-bomb"),
    "too small a stored size": (lambda: patched(ENTRY + 20, struct.pack("<I", 3)), "zip-damaged"),
    "a stored size into the next": (lambda: patched(ENTRY + 20, struct.pack("<I", 60)), "zip-bomb"),
    "an offset past the end": (lambda: patched(ENTRY + 42, struct.pack("<I", 1 << 30)), "zip-damaged"),
    "an offset into the directory": (lambda: patched(ENTRY + 42, struct.pack("<I", ENTRY)), "zip-damaged"),
    "one of several disks": (lambda: end(disk=1), "zip-damaged"),
    "members elsewhere": (lambda: end(here=1), "zip-damaged"),
    "more members than there are": (lambda: end(here=3, count=3), "zip-damaged"),
    "a directory elsewhere": (lambda: end(begin=0), "zip-damaged"),
    "no directory": (lambda: BASE[:END], "zip-damaged"),
    "cut off": (lambda: BASE[:-1], "zip-damaged"),
    "only a begin": (lambda: b"PK\3\4", "zip-damaged"),
    "only an end": (lambda: b"PK\5\6", "zip-damaged"),
    "something behind": (lambda: BASE + b"x", "zip-damaged"),
    "all members in one": (overlapping, "zip-bomb"),
    "members in members": (nested_overlap, "zip-bomb"),
    "a broken stream": (lambda: patched(31, b"\xff" * 4), "zip-damaged"),
    "zip64 cut off": (lambda: patched(END, b"PK\6\7" + bytes(16)) + BASE[END:], "zip-damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_zip_files_are_set_aside_with_a_reason(name: str) -> None:
    """What a zip file says wrongly, by mistake or on purpose, sets it or its member aside, and never ends the run."""
    make, reason = HOSTILE[name]
    assert refusal(make()) == reason


@given(st.data())
def test_no_damage_ends_a_run(data: st.DataObject) -> None:
    """Whichever bytes of a zip file are damaged, what comes out is a member as it was, or a reason."""
    damaged = bytearray(BASE)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(BASE) - 1))] = data.draw(st.integers(0, 255))
    known = {b"abc" * 50, b"def" * 50}
    try:
        found = listed(bytes(damaged))
    except InvalidInstance:
        return
    for member in found:
        if not member.reason:
            try:
                assert content(bytes(damaged), member) in known | {b""}
            except InvalidInstance as refused:
                assert refused.reason == "zip-damaged"


def test_a_bomb_is_told_by_what_it_would_become(monkeypatch: pytest.MonkeyPatch) -> None:
    """One member past the ratio is set aside by itself, and all together past all measure the whole."""
    data = zipped({"blank": bytes(2 << 20), "noise": random.Random(1).randbytes(1 << 10)})
    assert [member.reason for member in listed(data)] == ["", ""]
    monkeypatch.setattr(zips, "UNASKED", 1 << 20)
    assert [member.reason for member in listed(data)] == ["zip-bomb", ""]
    monkeypatch.setattr(zips, "UNASKED_IN_ALL", 1 << 20)
    assert refusal(data) == "zip-bomb"
    monkeypatch.setattr(zips, "MOST_MEMBERS", 1)
    assert refusal(BASE) == "zip-bomb"


def test_a_stream_that_goes_on_is_read_no_further() -> None:
    """A member that inflates to more than it says costs no more than it says."""
    data = zipped({"a": bytes(64 << 20)})
    at = data.index(b"PK\1\2")
    lie = patched(at + 24, struct.pack("<I", 3 << 20), data)
    (member,) = listed(lie)
    tracemalloc.start()
    assert refusal(lie) == "zip-damaged" and not member.reason
    assert tracemalloc.get_traced_memory()[1] < 9 << 20
    tracemalloc.stop()


def test_sources_keep_the_engines_promise() -> None:
    """A member is a source as the engine knows them: past its end there is nothing."""
    data = zipped({"a": b"x" * 10})
    (member,) = listed(data)
    with zips.opened(BytesSource(data), member.uri("a.zip"), member.version("1", len(data))) as source:
        it: Source = source
        assert (it.size, it.read(8, 9), it.read(10, 1)) == (10, b"xx", b"")
