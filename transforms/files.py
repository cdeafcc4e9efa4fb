"""Files of this machine: written beside and then renamed, so that each is there whole or not at all."""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from dicomveil.stream import LARGEST_CHUNK
from transforms.store_failures import writing

OPEN_TO_ALL, OWNER_ONLY = 0o666, 0o600
_WRITTEN: Final = 0o222


def version_of(status: os.stat_result) -> str:
    """What stands for one state of a file: it changes when the file is written, or another takes its name."""
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"


def write_aside(temporary: Path, chunks: Iterable[bytes]) -> None:
    """Write what no reader may see yet, under a name of this process alone.

    Raises:
      StoreFailed: it can't be written, StoreFull for want of space.
    """
    fill(temporary, chunks, OWNER_ONLY)


def read_aside(temporary: Path) -> Iterator[bytes]:
    """What was written so, in pieces of at most 1 MiB."""
    with open(temporary, "rb") as file:
        while piece := file.read(LARGEST_CHUNK):
            yield piece


def create_new(target: Path, temporary: Path, chunks: Iterable[bytes], mode: int) -> bool:
    """Create a file whole, and only where nothing has its name yet.

    Returns:
      Whether it was created.

    Raises:
      StoreFailed: as `write_aside` does.
    """
    if os.path.lexists(target):
        return False
    try:
        fill(temporary, chunks, mode)
        return _claim(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _claim(temporary: Path, target: Path) -> bool:
    """Move to a name that nobody has: it is taken first, since a rename would overwrite and not every store links."""
    with writing():
        try:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY))
        except FileExistsError:
            return False
        os.replace(temporary, target)
    return True


def fill(temporary: Path, chunks: Iterable[bytes], mode: int, durable: bool = False) -> None:
    """Write a file of this process alone, and have it outlast the machine's death if it must be `durable`."""
    with _create_temporary(temporary, mode) as descriptor:
        for chunk in chunks:
            _write(descriptor, chunk)
        if durable:
            with writing():
                sync_descriptor(descriptor)


@contextmanager
def _create_temporary(temporary: Path, mode: int) -> Iterator[int]:
    with writing():
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        if mode == OWNER_ONLY:
            os.fchmod(descriptor, mode)
        yield descriptor
    finally:
        with writing():
            os.close(descriptor)


def _write(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    with writing():
        while view:
            view = view[os.write(descriptor, view) :]


def move(temporary: Path, target: Path) -> None:
    with writing():
        try:
            os.replace(temporary, target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, target)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of a file or folder of ours; what fails with it is a failure of the storage."""
    with writing():
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def protect(name: str, folder: int, on: bool = True) -> bool:
    """Mark an output as the only copy that there is, or unmark it: as a file that nobody may write.

    Args:
      folder: a descriptor of the folder where it has its name.

    Returns:
      Whether it was otherwise before.

    Raises:
      OSError: it can't be marked.
    """
    mode = stat.S_IMODE(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    os.chmod(name, mode & ~_WRITTEN if on else mode | stat.S_IWUSR, dir_fd=folder)
    return on == bool(mode & _WRITTEN)


def is_protected(path: Path) -> bool:
    """Whether it is there, and marked so."""
    try:
        return not os.stat(path).st_mode & _WRITTEN
    except FileNotFoundError:
        return False


def sync(path: Path) -> None:
    """Have a file, or a folder's names, outlast the machine's death.

    Raises:
      StoreFailed: the storage can't say that they do.
    """
    with opened(path) as descriptor:
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
