"""Files of this machine that are to go, and outputs among them.

Folders are entered one by one and through no link, so that a link put in the way since then leads nowhere.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from dicomveil.stream import FileSource
from transforms import files, store_failures, stores, zips
from transforms.candidates import Kept, Removal, Seen
from transforms.locations import StoreError, local_path

_ENTER: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class LocalSource:
    """A file that is to go."""

    def __init__(self, removal: Removal) -> None:
        self._removal = removal

    def look(self) -> Seen:
        """See that it is the version that was read."""
        with _source_folder(self._removal) as (folder, name):
            found = _look(name, folder)
            _check(found, self._removal)
        return found

    def is_gone(self) -> bool:
        """Whether nothing has its name."""
        return not os.path.lexists(local_path(self._removal.uri))

    def delete(self) -> None:
        """Remove it, after a last look."""
        with _source_folder(self._removal) as (folder, name):
            _check(_look(name, folder), self._removal)
            try:
                os.unlink(name, dir_fd=folder)
            except FileNotFoundError:
                raise
            except OSError:
                raise Kept("not-permitted") from None


class LocalOutput:
    """Outputs in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read_back(self, removal: Removal, source: Seen) -> Seen:
        """Read one from the disk, where that can be had."""
        with _output(self._root, removal.name) as (folder, name):
            descriptor = os.open(name, _READ, dir_fd=folder)
            try:
                found = _seen(os.fstat(descriptor))
                if found.place == source.place:
                    raise Kept("is-output")
                if not _holds(descriptor, removal):
                    raise Kept("output-differs")
                if _seen(os.fstat(descriptor)) != found:
                    raise Kept("output-differs")
            finally:
                os.close(descriptor)
        return found

    @contextmanager
    def guarded(self, removal: Removal, seen: Seen) -> Iterator[None]:
        """Mark it as the only copy, after a last look; and unmark it where its source stays."""
        with _output(self._root, removal.name) as (folder, name):
            if _look(name, folder) != seen:
                raise Kept("output-differs")
            marked = files.protect(name, folder)  # from here on no run writes anything else under its name
            try:
                yield
            except Kept:
                if marked:
                    files.protect(name, folder, False)
                raise

    def settle(self, names: set[str]) -> None:
        """Have the folders that lead to them outlast the machine's death."""
        root = Path(os.path.realpath(self._root))
        for folder in {folder for name in names for folder in Path(name).parents}:
            files.sync(root / folder)


def settle_removals(uris: Iterable[str]) -> None:
    """Have removals outlast the machine's death, as far as that can be asked: else a source may come back."""
    for folder in {local_path(uri).parent for uri in uris}:
        with suppress(store_failures.StoreFailed):
            files.sync(folder)


def _check(found: Seen, removal: Removal) -> None:
    if found.version != removal.version:
        raise Kept("changed")


def _holds(descriptor: int, removal: Removal) -> bool:
    """Whether an open output is on the disk, and is there what was recorded."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size != removal.bytes:
        return False
    files.sync_descriptor(descriptor)
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return stores.sha256_of(FileSource(descriptor, status.st_size)) == removal.sha256


def _look(name: str, folder: int) -> Seen:
    """Look at a plain file.

    Raises:
      OSError: there is none.
    """
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.ELOOP, "no plain file")
    return _seen(status)


def _seen(status: os.stat_result) -> Seen:
    return Seen(f"{status.st_dev}-{status.st_ino}", files.version_of(status))


@contextmanager
def _source_folder(removal: Removal) -> Iterator[tuple[int, str]]:
    """A source's folder, and its name there.

    Raises:
      Kept: it isn't there, or can't be looked at, also where the caller meets that.
    """
    reasons = {errno.ENOENT: "gone", errno.ENOTDIR: "no-plain-file", errno.ELOOP: "no-plain-file"}
    if zips.is_member(removal.version):
        raise Kept("no-plain-file")
    try:
        path = local_path(removal.uri)
    except StoreError:
        raise Kept("no-plain-file") from None
    if not path.is_absolute() or ".." in path.parts:
        raise Kept("no-plain-file")
    with _kept_for(reasons, "unreadable"), entered(path.parent) as folder:
        yield folder, path.name


@contextmanager
def _output(root: Path, output: str) -> Iterator[tuple[int, str]]:
    """The same of an output, below its root, which may itself be reached through links."""
    reasons = {errno.ENOENT: "output-missing", errno.ENOTDIR: "output-differs", errno.ELOOP: "output-differs"}
    path = Path(os.path.realpath(root)) / output
    if not output or Path(output).is_absolute() or ".." in path.parts:
        raise Kept("output-missing")
    with _kept_for(reasons, "output-unreadable"), entered(path.parent) as folder:
        yield folder, path.name


@contextmanager
def _kept_for(reasons: dict[int, str], otherwise: str) -> Iterator[None]:
    """Have a source stay for what the system says of a file, by its number, also where the caller meets that."""
    try:
        yield
    except (OSError, ValueError) as failure:
        raise Kept(reasons.get(getattr(failure, "errno", 0) or 0, otherwise)) from None


@contextmanager
def entered(path: Path) -> Iterator[int]:
    """A descriptor of a folder by its absolute path, no part of which is a link.

    Raises:
      OSError: there is none, or a part of it is a link or no folder.
    """
    descriptor = os.open("/", _ENTER)
    try:
        for name in path.parts[1:]:
            inner = os.open(name, _ENTER | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)
