"""The seam to storage: list, open the very version that was listed, read ranges, create atomically.

Only folders of this machine for now. A URI is a path, or file:// and a path; any other scheme is refused by name.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from dicomveil.errors import DicomveilError, InvalidInstance
from dicomveil.stream import BytesSource, Source

IN_MEMORY = 1 << 20
_FILE_SCHEME = "file://"


class StoreError(DicomveilError):
    """Storage that can't be used as the user asked; the message names what the user wrote."""


class StoreFull(DicomveilError):
    """No space is left where the output goes. The run stops, and goes on from its plan when there is."""

    def __init__(self) -> None:
        super().__init__(STORE_FULL)


STORE_FULL = "no space left where the output or the records go"


class Listed(NamedTuple):
    """One object found; `reason` says why it can't be opened."""

    uri: str
    size: int
    version: str
    reason: str


def local_path(uri: str) -> Path:
    """The path that a URI stands for.

    Raises:
      StoreError: another scheme than file://.
    """
    if uri.startswith(_FILE_SCHEME):
        return Path(os.fsdecode(unquote_to_bytes(uri[len(_FILE_SCHEME) :])))
    if "://" in uri:
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
            yield Listed(_uri(str(folder)), 0, "", "unreadable")
            continue
        for entry in found:
            if not entry.is_dir(follow_symlinks=False) and not (entry.is_symlink() and os.path.isdir(entry.path)):
                yield _listed(Path(entry.path))
        pending.extend(Path(entry.path) for entry in reversed(found) if entry.is_dir(follow_symlinks=False))


def _listed(path: Path) -> Listed:
    real = os.path.realpath(path)
    uri = _uri(real)
    try:
        status = os.stat(real)
    except OSError:
        return Listed(uri, 0, "", "unreadable")
    if not stat.S_ISREG(status.st_mode):
        return Listed(uri, 0, "", "not-a-file")
    return Listed(uri, status.st_size, _version(status), "")


def _uri(path: str) -> str:
    """A path as text: itself, or file:// and percent signs where its bytes are no UTF-8."""
    raw = os.fsencode(path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return _FILE_SCHEME + quote_from_bytes(raw)


def _version(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"


class FileSource:
    """Random access to an open file."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self.size = descriptor, size

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)


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
        if _version(status) != version:
            raise InvalidInstance("changed-during-run")
        source: Source = FileSource(descriptor, status.st_size)
        try:
            yield BytesSource(source.read(0, status.st_size)) if status.st_size <= IN_MEMORY else source
        except OSError as failure:
            if failure.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFull from None
            raise InvalidInstance("unreadable") from None
        if _version(os.fstat(descriptor)) != version:
            raise InvalidInstance("changed-during-run")
    finally:
        os.close(descriptor)


def create(target: Path, temporary: Path, chunks: Iterable[bytes], mode: int = 0o666) -> None:
    """Create an object whole or not at all: it is written beside, then renamed.

    Args:
      temporary: a name of this process alone, on the same file system; its folder exists.

    Raises:
      StoreFull: there is no space; nothing is left behind.
    """
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb", buffering=0) as out:
            for chunk in chunks:
                view = memoryview(chunk)
                while view:
                    view = view[out.write(view) :]
        try:
            os.replace(temporary, target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, target)
    except OSError as failure:
        temporary.unlink(missing_ok=True)
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull from None
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def create_restricted(target: Path, data: bytes) -> None:
    """The same for a small object that only its owner may read, whatever the umask."""
    restricted_folder(target.parent)
    create(target, target.with_name(f".{target.name}.{os.getpid()}.part"), [data], 0o600)


def restricted_folder(folder: Path) -> None:
    """A folder that only its owner may enter, whatever the umask."""
    if not folder.is_dir():
        restricted_folder(folder.parent) if not folder.parent.is_dir() else None
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
