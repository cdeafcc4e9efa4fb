"""The seam to storage: whole objects or none, and the very version that was listed."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dicomveil.errors import InvalidInstance
from tests.emulators import environment
from transforms import stores
from transforms.files import OWNER_ONLY
from transforms.listing import list_objects
from transforms.locations import Location, ObjectLocation, StoreError, local_path, locate
from transforms.store_failures import StoreFailed, StoreFull
from transforms.stores import create, create_restricted, open_version


def test_an_object_is_created_whole_or_not_at_all(tmp_path: Path) -> None:
    """A writer that fails leaves neither a part of the object nor its temporary file."""

    def chunks():
        yield b"one"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        create(tmp_path / "out" / "a", tmp_path / "a.part", chunks())
    assert list(tmp_path.iterdir()) == []
    create(tmp_path / "out" / "a", tmp_path / "a.part", [b"one", b"", b"two"])
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "a"]
    assert (tmp_path / "out" / "a").read_bytes() == b"onetwo"


@pytest.mark.parametrize("size", [10, stores.IN_MEMORY + 10], ids=["small", "large"])
def test_another_version_is_refused(tmp_path: Path, size: int) -> None:
    """A file that changed since it was listed, or changes while it is read, is set aside."""
    path = tmp_path / "a"
    path.write_bytes(bytes(size))
    (listed,) = list_objects(str(tmp_path))
    with open_version(listed.uri, listed.version, listed.size) as source:
        assert source.size == size and source.read(5, 3) == bytes(3) and source.read(size - 1, 9) == b"\0"
    with (
        pytest.raises(InvalidInstance, match="changed-during-run"),
        open_version(listed.uri, listed.version, listed.size),
    ):
        path.write_bytes(b"other")
    with (
        pytest.raises(InvalidInstance, match="changed-during-run"),
        open_version(listed.uri, listed.version, listed.size),
    ):
        pass
    path.unlink()
    with pytest.raises(InvalidInstance, match="unreadable"), open_version(listed.uri, listed.version, listed.size):
        pass


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    """A link to a folder can lead out of the input or round in a circle; one to a file leads to that file."""
    (tmp_path / "in").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a").write_bytes(b"a")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "outside")
    (tmp_path / "in" / "file").symlink_to(tmp_path / "outside" / "a")
    assert [listed.uri for listed in list_objects(str(tmp_path / "in"))] == [str(tmp_path / "outside" / "a")]


def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    """A file name of any bytes is listed, and found again."""
    path = tmp_path / os.fsdecode(b"\xff\xfe name %41")
    path.write_bytes(b"a")
    (listed,) = list_objects(str(tmp_path))
    assert local_path(listed.uri) == path
    listed.uri.encode()


def test_a_failure_to_write_is_no_inputs_fault(tmp_path: Path) -> None:
    """Where the output can't be written the run stops; where the input can't be read, that input is set aside."""
    path = tmp_path / "a"
    path.write_bytes(b"a")
    (listed,) = list_objects(str(path))
    with pytest.raises(StoreFailed), open_version(listed.uri, listed.version, listed.size):
        create(path / "below a file", tmp_path / "a.part", [b"one"])
    with pytest.raises(StoreFailed), open_version(listed.uri, listed.version, listed.size):
        create(tmp_path / "out", tmp_path / "nowhere" / "a.part", [b"one"])

    def unreadable():
        yield b"one"
        raise OSError(errno.EIO, "input")

    with pytest.raises(InvalidInstance, match="unreadable"), open_version(listed.uri, listed.version, listed.size):
        create(tmp_path / "out", tmp_path / "a.part", unreadable())
    assert [found.name for found in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_is_told_from_other_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without space nothing is left half written, and the failure says what it is."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch, pytest.raises(StoreFull):
        patch.setattr(stores.os, "write", full)
        create(tmp_path / "out", tmp_path / "a.part", [b"one"])
    assert list(tmp_path.iterdir()) == []


def test_restricted_means_restricted(tmp_path: Path) -> None:
    """Only the owner may enter or read what is restricted, whether the umask gives all or takes all."""
    for umask in (0, 0o777):
        before = os.umask(umask)
        try:
            create_restricted(tmp_path / str(umask) / "b" / "c", b"one")
        finally:
            os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("c")} == {0o600}


def test_a_scheme_stands_in_front(tmp_path: Path) -> None:
    """gs:// is another store, and a folder whose name ends in a colon is a folder."""
    assert local_path("/a:/b") == Path("/a:/b") and local_path("/a://b") == Path("/a:/b")
    with pytest.raises(StoreError, match="must be a file or folder of this machine"):
        local_path("gs://bucket/a")


@pytest.fixture(params=["folder", "fake_gcs", "moto", "azurite"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Location]:
    """A folder, and a prefix in each store."""
    if request.param == "folder":
        yield tmp_path / "root"
        return
    server = request.getfixturevalue(request.param)
    with environment(server.env):
        yield ObjectLocation(f"{server.bucket()}/root")


def below(root: Location) -> set[str]:
    if isinstance(root, ObjectLocation):
        return {found.uri.removeprefix(f"{root}/") for found in root.below()}
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_what_is_there_is_never_overwritten(root: Location) -> None:
    """A new object gives way to whatever has its name, also to what comes while it is written."""
    target, meanwhile = root / "a", root / "sub" / "b"
    assert stores.create_new(target, [b"one", b"two"]) and target.read_bytes() == b"onetwo"
    assert not stores.create_new(target, [b"three"]) and target.read_bytes() == b"onetwo"

    def chunks() -> Iterator[bytes]:
        if isinstance(meanwhile, Path):
            meanwhile.write_bytes(b"four")
        else:
            stores.create_small(meanwhile, b"four")
        yield b"three"

    assert not stores.create_new(meanwhile, chunks()) and meanwhile.read_bytes() == b"four"
    assert below(root) == {"a", "sub/b"}


def test_a_new_file_may_be_its_owners_alone(tmp_path: Path) -> None:
    """Or as open as the umask has it; and a link that leads nowhere is something, too."""
    assert stores.create_new(tmp_path / "a", [b"one"], OWNER_ONLY) and stores.create_new(tmp_path / "b", [b"one"])
    os.umask(mask := os.umask(0))
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"]
    assert modes == [0o600, 0o666 & ~mask]
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert not stores.create_new(tmp_path / "link", [b"three"])
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "link"}


@pytest.mark.parametrize("size", [10, stores.IN_MEMORY + 10, 9 << 20], ids=["small", "large", "in parts"])
def test_of_a_source_that_changes_nothing_is_made(root: Location, tmp_path: Path, size: int) -> None:
    """What a source says as it is left comes before what is made of it is there: it is whole, or not at all."""
    source = tmp_path / "source"
    source.write_bytes(bytes(size))
    (listed,) = list_objects(str(source))

    def copied(spoil: bool) -> bool:
        with ExitStack() as opened:
            held = opened.enter_context(stores.open_version(listed.uri, listed.version, listed.size))

            def chunks() -> Iterator[bytes]:
                yield held.read(0, size)
                if spoil:
                    source.write_bytes(b"other")

            return stores.create_new(root / "made", stores.made_of(opened, chunks()))

    assert copied(False)
    (root / "made").unlink()
    with pytest.raises(InvalidInstance, match="changed-during-run"):
        copied(True)
    assert not below(root)


@pytest.mark.parametrize("uri", ["/a\0b", "gs://b/a\0b"])
def test_a_name_that_is_none_is_told(uri: str) -> None:
    """A job may hold what no command line can."""
    with pytest.raises(StoreError, match="holds a NUL"):
        locate(uri)
