"""Instances read by ranges: how many requests and bytes that takes, and that nothing but the very version is read."""

import base64
import hashlib
import random
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomveil.compile import compile_request
from dicomveil.errors import Filtered, InvalidInstance
from dicomveil.identities import Identities
from dicomveil.keys import Keys
from dicomveil.request import Request
from dicomveil.rewrite import Rewriter
from dicomveil.scan import scan_instance
from dicomveil.stream import BytesSource
from dicomveil.study import lone_study_map
from dicomveil.testing import DEFLATED, Syntax, minimal, part10
from tests.emulators import Emulator
from transforms.object_stores import NotAllowed, NotRestored, NotThere, ObjectStore, OtherVersion, Stored, Unavailable
from transforms.ranged import LARGEST_WINDOW, WINDOW, RangedSource

MIB = 1 << 20
KEYS = Keys(bytes(range(32)))
TAIL = Syntax().element(0xFFFCFFFC, "OB", bytes(300))


class Memory(ObjectStore):
    """One object in this process, which can be replaced; what is asked of it is counted."""

    def __init__(self, data: bytes) -> None:
        self.data, self.version = data, "1"
        self.asked: list[tuple[int, int]] = []
        self.failure: Exception | None = None
        self.told = ""

    def read(self, uri: str, version: str, offset: int, length: int) -> bytes:
        if self.failure:
            raise self.failure
        if version != self.version:
            raise OtherVersion
        self.asked.append((offset, length))
        return self.data[offset : offset + length]

    def head(self, uri: str) -> tuple[Stored, Mapping[str, str]]:
        return Stored(uri, len(self.data), self.version), MappingProxyType({})

    def checksum(self, uri: str, version: str) -> str:
        return self.told

    def source(self) -> RangedSource:
        return RangedSource(self, "gs://b/o", "1", len(self.data))


def ct(pixels: int, *more: tuple[int, bytes]) -> bytes:
    syntax = Syntax()
    return part10(
        minimal(syntax, (0x7FE00010, syntax.element(0x7FE00010, "OW", random.Random(1).randbytes(pixels))), *more)
    )


def rewritten(source: RangedSource | BytesSource) -> bytes:
    """As execute does: the scan is known, the instance is opened anew."""
    scan = scan_instance(BytesSource(source.data) if isinstance(source, BytesSource) else source)
    study_map = lone_study_map(scan, Identities(KEYS, Request()))
    return b"".join(Rewriter(compile_request(Request()), KEYS).rewrite(source, scan, study_map).chunks())


@pytest.mark.parametrize("data", [ct(40 * MIB), ct(40 * MIB, (0xFFFCFFFC, TAIL))], ids=["plain", "tail"])
def test_a_scan_takes_two_requests(data: bytes) -> None:
    """Header and tail of a 40 MiB instance are read by one request each, and nothing between them."""
    source = Memory(data).source()
    assert scan_instance(source) == scan_instance(BytesSource(data))
    assert source.requests <= 2 and source.bytes <= 2 * WINDOW


@pytest.mark.parametrize("data", [ct(40 * MIB), ct(40 * MIB, (0xFFFCFFFC, TAIL))], ids=["plain", "tail"])
def test_a_rewrite_reads_an_instance_once(data: bytes) -> None:
    """Rewriting 40 MiB reads its size and no more than a twentieth above, its digest included."""
    memory = Memory(data)
    scan = scan_instance(BytesSource(data))
    study_map = lone_study_map(scan, Identities(KEYS, Request()))
    source = memory.source()
    written = b"".join(Rewriter(compile_request(Request()), KEYS).rewrite(source, scan, study_map).chunks())
    assert written == rewritten(BytesSource(data))
    assert source.sha256() == hashlib.sha256(data).hexdigest()
    assert source.bytes <= len(data) * 1.05
    assert source.requests <= 16
    assert max(length for _, length in memory.asked) <= LARGEST_WINDOW


def test_a_long_header_is_read_in_growing_windows() -> None:
    """Half a megabyte in front of the pixels takes a few requests, not one each 64 KiB."""
    private = Syntax().element(0x00091001, "OB", bytes(500_000))
    many = b"".join(Syntax().element(0x00091002 + n, "LO", "x" * 900) for n in range(250))
    data = ct(8 * MIB, (0x00090010, Syntax().element(0x00090010, "LO", "MINE")), (0x00091001, private + many))
    source = Memory(data).source()
    assert scan_instance(source) == scan_instance(BytesSource(data))
    assert source.requests <= 6 and source.bytes < 3 * MIB


def test_deflated_instances_are_streamed() -> None:
    """What must be inflated is read in order."""
    data = part10(minimal(Syntax(), (0x7FE00010, Syntax().element(0x7FE00010, "OW", bytes(4 * MIB)))), DEFLATED)
    source = Memory(data).source()
    assert scan_instance(source) == scan_instance(BytesSource(data))


@given(
    size=st.integers(0, 400_000),
    reads=st.lists(st.tuples(st.integers(0, 420_000), st.integers(0, 200_000)), max_size=12),
)
def test_any_read_is_what_is_there(size: int, reads: list[tuple[int, int]]) -> None:
    """Whatever is read in whatever order are the object's bytes, and the digest is that of the object."""
    data = random.Random(size).randbytes(size)
    memory = Memory(data)
    source = memory.source()
    for offset, length in reads:
        assert source.read(offset, length) == data[offset : offset + length]
    assert source.sha256() == hashlib.sha256(data).hexdigest() == source.sha256()
    assert source.requests == len(memory.asked)
    assert source.bytes == sum(min(length, size - offset) for offset, length in memory.asked)


def test_a_digest_costs_no_second_download() -> None:
    """An object that was read in order isn't fetched again for its digest; else what is missing is."""
    memory = Memory(random.Random(3).randbytes(20 * MIB))
    source = memory.source()
    for offset in range(0, source.size, MIB):
        source.read(offset, MIB)
    assert source.bytes == source.size
    source.sha256()
    assert source.bytes == source.size
    late = memory.source()
    late.read(10 * MIB, MIB)
    assert late.sha256() == source.sha256()
    assert late.bytes <= source.size + LARGEST_WINDOW


def test_what_was_damaged_is_never_handed_on_whole() -> None:
    """Where the store tells a checksum, the last of an object that came in parts is held back if it doesn't fit."""
    memory = Memory(random.Random(4).randbytes(3 * WINDOW))
    memory.told = base64.b64encode(google_crc32c.Checksum(memory.data).digest()).decode()
    source = memory.source()
    assert b"".join(source.read(at, WINDOW) for at in range(0, source.size, WINDOW)) == memory.data
    source = memory.source()
    source.read(0, WINDOW)
    memory.data = memory.data[:-1] + bytes([memory.data[-1] ^ 1])
    with pytest.raises(InvalidInstance, match="unreadable"):
        source.read(WINDOW, 2 * WINDOW)


FAILURES = [
    (NotThere(), InvalidInstance, "changed-during-run"),
    (OtherVersion(), InvalidInstance, "changed-during-run"),
    (NotAllowed(), InvalidInstance, "unreadable"),
    (Unavailable(), InvalidInstance, "unreadable"),
    (NotRestored(), Filtered, "not-restored"),
]


@pytest.mark.parametrize(("failure", "kind", "reason"), FAILURES, ids=lambda value: type(value).__name__)
def test_a_failure_sets_the_instance_aside(failure: Exception, kind: type, reason: str) -> None:
    """What the store can't give is the instance's trouble, and has a reason."""
    memory = Memory(bytes(10))
    memory.failure = failure
    with pytest.raises(kind) as told:
        memory.source().read(0, 1)
    assert told.value.reason == reason
    memory = Memory(bytes(10))
    source = memory.source()
    memory.data = bytes(9)
    with pytest.raises(InvalidInstance, match="changed-during-run"):
        source.read(0, 1)


@pytest.fixture(params=["fake_gcs", "moto", "azurite"])
def server(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    yield request.getfixturevalue(request.param)


def test_a_store_of_another_is_read_likewise(server: Emulator) -> None:
    """A real server's object comes out as one in memory does, and its replacement isn't read."""
    data = ct(10 * MIB, (0xFFFCFFFC, TAIL))
    with server.store() as store:
        uri = f"{server.bucket()}/o"
        version = store.create(uri, [data])
        source = RangedSource(store, uri, version, len(data))
        assert rewritten(source) == rewritten(BytesSource(data))
        assert source.sha256() == hashlib.sha256(data).hexdigest()
        assert source.bytes <= len(data) * 1.05
        late = RangedSource(store, uri, version, len(data))
        store.create(uri, [data[:-2]])
        with pytest.raises(InvalidInstance, match="changed-during-run"):
            late.read(0, 10)
