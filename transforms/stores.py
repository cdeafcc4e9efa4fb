"""The seam to storage: list, open the very version that was listed, read ranges, create atomically.

Only folders of this machine for now. A URI is a path, or file:// and a path; any other scheme is refused by name.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from dicomveil.errors import DicomveilError, InvalidInstance
from dicomveil.stream import LARGEST_CHUNK, BytesSource, FileSource, Source

IN_MEMORY = 1 << 20
_FILE_SCHEME = "file://"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_OPEN_TO_ALL, _OWNER_ONLY = 0o666, 0o600
_WRITTEN: Final = 0o222


class StoreError(DicomveilError):
    """Storage that can't be used as the user asked; the message names what the user wrote."""


STORE_FULL: Final = "no space left where the output or the records go"
STORE_FAILED: Final = "a failure of the storage where the output or the records go"


class StoreFailed(DicomveilError):
    """What should be written can't be, which is no input's fault: the run stops, and goes on from its plan later."""

    def __init__(self, message: str = STORE_FAILED) -> None:
        super().__init__(message)


class StoreFull(StoreFailed):
    """No space is left where the output or the records go."""

    def __init__(self) -> None:
        super().__init__(STORE_FULL)


class Listed(NamedTuple):
    """One object found; `reason` says why it can't be opened."""

    uri: str
    size: int
    version: str
    reason: str


def local_path(uri: str) -> Path:
    """The path that a URI stands for.

    Raises:
      StoreError: another scheme than file://, or nothing at all.
    """
    if not uri:
        raise StoreError("is empty: name a file or folder")
    if uri.startswith(_FILE_SCHEME):
        return Path(os.fsdecode(unquote_to_bytes(uri[len(_FILE_SCHEME) :])))
    if _SCHEME.match(uri):
        raise StoreError(f"{uri}: only folders of this machine can be read and written so far (path or file://path)")
    return Path(uri)


def list_objects(root: str) -> Iterator[Listed]:
    """Every object below a folder, or the one file, in the order of names; nothing is opened.

    Links to files are followed, links to folders are not: they could lead out of the input, or round in a circle.
    """
    path = local_path(root)
    if not path.is_dir():
        yield _listed(path)
        return
    pending = [path]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            yield Listed(uri_of(str(folder)), 0, "", "unreadable")
            continue
        for entry in found:
            if not entry.is_dir(follow_symlinks=False) and not (entry.is_symlink() and os.path.isdir(entry.path)):
                yield _listed(Path(entry.path))
        pending.extend(Path(entry.path) for entry in reversed(found) if entry.is_dir(follow_symlinks=False))


def _listed(path: Path) -> Listed:
    real = os.path.realpath(path)
    uri = uri_of(real)
    try:
        status = os.stat(real)
    except OSError:
        return Listed(uri, 0, "", "unreadable")
    if not stat.S_ISREG(status.st_mode):
        return Listed(uri, 0, "", "not-a-file")
    return Listed(uri, status.st_size, version_of(status), "")


def is_text(path: str) -> bool:
    """Whether a path's bytes are UTF-8."""
    try:
        return bool(path.encode())
    except UnicodeEncodeError:
        return False


def uri_of(path: str) -> str:
    """A path as text: itself, or file:// and percent signs where its bytes are no UTF-8."""
    raw = os.fsencode(path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return _FILE_SCHEME + quote_from_bytes(raw)


def version_of(status: os.stat_result) -> str:
    """What stands for one state of a file: it changes when the file is written, or another takes its name."""
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"


@contextmanager
def open_version(uri: str, version: str) -> Iterator[Source]:
    """The object as it was when it was listed; a small one is read at once.

    Raises:
      InvalidInstance: "unreadable", or "changed-during-run" where it is another version by now, also when it is left.
    """
    try:
        descriptor = os.open(local_path(uri), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise InvalidInstance("unreadable") from None
    try:
        status = os.fstat(descriptor)
        if version_of(status) != version:
            raise InvalidInstance("changed-during-run")
        source: Source = FileSource(descriptor, status.st_size)
        try:
            yield BytesSource(source.read(0, status.st_size)) if status.st_size <= IN_MEMORY else source
        except OSError:
            raise InvalidInstance("unreadable") from None
        if version_of(os.fstat(descriptor)) != version:
            raise InvalidInstance("changed-during-run")
    finally:
        os.close(descriptor)


def sha256_of(source: Source) -> str:
    """Of all its bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    for offset in range(0, source.size, LARGEST_CHUNK):
        digest.update(source.read(offset, LARGEST_CHUNK))
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """The same of a file of ours.

    Raises:
      StoreFailed: it can't be read.
    """
    with _opened(path) as descriptor:
        return sha256_of(FileSource(descriptor, os.fstat(descriptor).st_size))


def create(
    target: Path, temporary: Path, chunks: Iterable[bytes], mode: int = _OPEN_TO_ALL, durable: bool = False
) -> None:
    """Create an object whole or not at all: it is written beside, then renamed.

    Args:
      temporary: a name of this process alone, on the same file system; its folder exists.
      durable: whether it must outlast the machine's death from here on.

    Raises:
      StoreFailed: it can't be written, StoreFull for want of space; nothing is left behind. What `chunks` raises
        while it reads passes through.
    """
    try:
        _fill(temporary, chunks, mode, durable)
        _move(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync(target.parent)


def write_aside(temporary: Path, chunks: Iterable[bytes]) -> None:
    """Write what no reader may see yet, under a name of this process alone.

    Raises:
      StoreFailed: as `create` does.
    """
    _fill(temporary, chunks, _OWNER_ONLY)


def read_aside(temporary: Path) -> Iterator[bytes]:
    """What was written so, in pieces of at most 1 MiB."""
    with open(temporary, "rb") as file:
        while piece := file.read(LARGEST_CHUNK):
            yield piece


def create_new(target: Path, temporary: Path, chunks: Iterable[bytes]) -> bool:
    """The same for one that only its owner may read, and only where nothing has its name yet.

    Returns:
      Whether it was created.

    Raises:
      StoreFailed: as `create` does.
    """
    if os.path.lexists(target):
        return False
    try:
        _fill(temporary, chunks, _OWNER_ONLY)
        return _claim(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _claim(temporary: Path, target: Path) -> bool:
    """Move to a name that nobody has: it is taken first, since a rename would overwrite and not every store links."""
    with _writing():
        try:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY))
        except FileExistsError:
            return False
        os.replace(temporary, target)
    return True


def _fill(temporary: Path, chunks: Iterable[bytes], mode: int, durable: bool = False) -> None:
    """Write a file of this process alone, and have it outlast the machine's death if it must be `durable`."""
    with _create_temporary(temporary, mode) as descriptor:
        for chunk in chunks:
            _write(descriptor, chunk)
        if durable:
            with _writing():
                sync_descriptor(descriptor)


@contextmanager
def _create_temporary(temporary: Path, mode: int) -> Iterator[int]:
    with _writing():
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        if mode == _OWNER_ONLY:
            os.fchmod(descriptor, mode)
        yield descriptor
    finally:
        with _writing():
            os.close(descriptor)


def _write(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    with _writing():
        while view:
            view = view[os.write(descriptor, view) :]


def _move(temporary: Path, target: Path) -> None:
    with _writing():
        try:
            os.replace(temporary, target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, target)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor of a file or folder of ours; what fails with it is a failure of the storage."""
    with _writing():
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def _writing() -> Iterator[None]:
    """Tell failures to write from failures to read: only the latter are an input's."""
    try:
        yield
    except OSError as failure:
        raise (StoreFull if failure.errno in (errno.ENOSPC, errno.EDQUOT) else StoreFailed)() from None


def holds(root: Path, name: str) -> bool:
    """Whether there is an object below a root."""
    return (root / name).exists()


def protect(name: str, folder: int, on: bool = True) -> None:
    """Mark an output as the only copy that there is, or unmark it: as a file that nobody may write.

    Args:
      folder: a descriptor of the folder where it has its name.

    Raises:
      OSError: it can't be marked.
    """
    mode = stat.S_IMODE(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    os.chmod(name, mode & ~_WRITTEN if on else mode | stat.S_IWUSR, dir_fd=folder)


def is_only_copy(root: Path, name: str) -> bool:
    """Whether an object below a root is marked so."""
    try:
        return not os.stat(root / name).st_mode & _WRITTEN
    except FileNotFoundError:
        return False


def unchanged(uri: str, version: str) -> bool:
    """Whether an object is there as it was when it was listed."""
    try:
        return version_of(os.stat(local_path(uri))) == version
    except OSError:
        return False


def remove(root: Path, name: str) -> None:
    """Remove an object below a root, and the folders that it leaves empty."""
    with _writing(), suppress(FileNotFoundError):
        (root / name).unlink()
    for folder in list(Path(name).parents)[:-1]:
        with suppress(OSError):
            (root / folder).rmdir()


def create_small(target: Path, data: bytes, mode: int = _OPEN_TO_ALL, durable: bool = False) -> None:
    """The same for a small object, written beside its target under a name of this process alone."""
    with _writing():
        target.parent.mkdir(parents=True, exist_ok=True)
    create(target, target.with_name(f".{target.name}.{os.getpid()}.part"), [data], mode, durable)


def create_restricted(target: Path, data: bytes, durable: bool = False) -> None:
    """The same for one that only its owner may read, whatever the umask."""
    restricted_folder(target.parent)
    create_small(target, data, _OWNER_ONLY, durable)


def sync(path: Path) -> None:
    """Have a file, or a folder's names, outlast the machine's death.

    Raises:
      StoreFailed: the storage can't say that they do.
    """
    with _opened(path) as descriptor:
        sync_descriptor(descriptor)


def sync_descriptor(descriptor: int) -> None:
    """The same for what is open; where storage knows of no such thing there is nothing to wait for.

    Raises:
      OSError: it failed.
    """
    try:
        os.fsync(descriptor)
    except OSError as failure:
        if failure.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise


def restricted_folder(folder: Path) -> None:
    """A folder that only its owner may enter, whatever the umask."""
    if not folder.is_dir():
        restricted_folder(folder.parent)
        with _writing():
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)


def left_behind(folder: Path) -> Iterator[Path]:
    """What a process that died was writing in a folder."""
    return folder.glob(".*.part")
