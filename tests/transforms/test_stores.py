"""The seam to storage: whole objects or none, and the very version that was listed."""

import errno
import os
import stat
from pathlib import Path

import pytest

from dicomveil.errors import InvalidInstance
from transforms import stores
from transforms.files import create_new
from transforms.listing import list_objects
from transforms.locations import StoreError, local_path, locate
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


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    """A new object is its owner's alone, and gives way to whatever has its name, also to a link that leads nowhere."""
    target, temporary = tmp_path / "a", tmp_path / "a.part"
    assert create_new(target, temporary, [b"one", b"two"]) and target.read_bytes() == b"onetwo"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert not create_new(target, temporary, [b"three"]) and target.read_bytes() == b"onetwo"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert not create_new(tmp_path / "link", temporary, [b"three"])
    meanwhile = tmp_path / "b"
    assert not create_new(meanwhile, temporary, (meanwhile.write_bytes(b"four") and b"three" for _ in "1"))
    assert meanwhile.read_bytes() == b"four" and not temporary.exists()


@pytest.mark.parametrize("uri", ["/a\0b", "gs://b/a\0b"])
def test_a_name_that_is_none_is_told(uri: str) -> None:
    """A job may hold what no command line can."""
    with pytest.raises(StoreError, match="holds a NUL"):
        locate(uri)
