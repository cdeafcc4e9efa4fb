"""The seam to storage: list, open the very version that was listed, read ranges, create atomically.

A URI is a path, file:// and a path, or gs://, s3:// or az:// with a bucket and a name; any other is refused by name.
"""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote_from_bytes

from dicomveil.errors import DicomveilError, InvalidInstance
from dicomveil.stream import LARGEST_CHUNK, BytesSource, FileSource, Source
from transforms import zips
from transforms.globs import Pattern
from transforms.locations import FILE_SCHEME, Location, ObjectLocation, local_path
from transforms.object_stores import (
    NotAllowed,
    NotThere,
    OtherVersion,
    Stored,
    Unavailable,
    Unnameable,
    scheme_of,
    store_of,
)
from transforms.ranged import LARGEST_WINDOW, WINDOW, RangedSource

IN_MEMORY = 1 << 20
_OPEN_TO_ALL, _OWNER_ONLY = 0o666, 0o600
_WRITTEN: Final = 0o222


STORE_FULL: Final = "no space left where the output or the records go"
STORE_FAILED: Final = "a failure of the storage where the output or the records go"
STORE_REFUSED: Final = "a refusal of the storage"
STORE_UNREACHED: Final = "a store that fails, or can't be reached"
STORE_UNNAMEABLE: Final = 'an object with "//", a level "." or "..", or a control character in its name'


class StoreFailed(DicomveilError):
    """What should be written can't be, which is no input's fault: the run stops, and goes on from its plan later."""

    def __init__(self, message: str = STORE_FAILED) -> None:
        super().__init__(message)


class StoreUnavailable(StoreFailed):
    """A store went on failing after all retries: it may have been this object alone."""


class StoreFull(StoreFailed):
    """No space is left where the output or the records go."""

    def __init__(self) -> None:
        super().__init__(STORE_FULL)


class Listed(NamedTuple):
    """One object found; `reason` says why it can't be opened.

    Attributes:
      storage_class: the store's name of it; "" where it has none.
    """

    uri: str
    size: int
    version: str
    reason: str
    storage_class: str = ""


def list_objects(root: str, meant: Pattern | None = None) -> Iterator[Listed]:
    """Every object below a folder, or the one file, in the order of names; nothing is opened.

    Of a store's URI: the object of that name, and those whose names go on behind a "/"; they come as pages are fetched.
    Where a pattern is given, those alone that it means; folders in which nothing can match aren't entered.
    Links to files are followed, links to folders are not: they could lead out of the input, or round in a circle.

    Raises:
      StoreFailed: a store can't be listed.
    """
    if scheme_of(root):
        yield from (it for it in _list_stored(root) if meant is None or meant.matches(it.uri))
        return
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
            if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path)):
                continue
            if meant is None or meant.matches(entry.path):
                yield _listed(Path(entry.path))
        folders = (entry.path for entry in reversed(found) if entry.is_dir(follow_symlinks=False))
        pending.extend(Path(it) for it in folders if meant is None or meant.may_hold(it + "/"))


def _list_stored(root: str) -> Iterator[Listed]:
    location = ObjectLocation(root.rstrip("/"))
    with serving("listed"):
        if not root.endswith("/") and location.is_object():
            yield from _itself(location)
        yield from map(as_listed, location.below())


def _itself(location: ObjectLocation) -> Iterator[Listed]:
    """The object of just that name, if there is one."""
    try:
        yield as_listed(location.store.head(location.uri)[0])
    except NotThere:
        return


def as_listed(stored: Stored) -> Listed:
    """What a store tells of an object, as it is listed."""
    reason = "not-restored" if stored.restorable else ""
    return Listed(stored.uri, stored.size, stored.version, reason, stored.storage_class)


def spread(root: str) -> Iterator[Listed | str]:
    """The roots that a root falls into, for several workers to list at once: in a store each prefix of the next level,
    and the objects of it as they are listed; a folder stays whole.

    Raises:
      StoreFailed: a store can't be listed.
    """
    if not scheme_of(root):
        yield root
        return
    location = ObjectLocation(root.rstrip("/"))
    with serving("listed"):
        if not root.endswith("/") and location.is_object():
            yield from _itself(location)
        for found in location.store.level(f"{location.uri}/"):
            yield as_listed(found) if isinstance(found, Stored) else found


def look_up(uri: str) -> Listed:
    """One object as it is now; "unreadable" where there is none.

    Raises:
      StoreFailed: a store can't be asked.
    """
    if not scheme_of(uri):
        return _listed(local_path(uri))
    with serving("read"):
        return next(_itself(ObjectLocation(uri)), Listed(uri, 0, "", "unreadable"))


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
        return FILE_SCHEME + quote_from_bytes(raw)


def version_of(status: os.stat_result) -> str:
    """What stands for one state of a file: it changes when the file is written, or another takes its name."""
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"


@contextmanager
def open_version(uri: str, version: str, size: int, whole: bool = False) -> Iterator[Source]:
    """The object as it was when it was listed; a small file is read at once, and of a store's object what is asked for.

    Args:
      size: that it had when it was listed.
      whole: whether all of it will be asked for.

    Raises:
      InvalidInstance: "unreadable", or "changed-during-run" where it is another version by now, also when it is left.
    """
    if zips.is_member(version):
        archive = zips.archive_of(uri, version)
        with open_version(archive.uri, archive.version, archive.size, archive.streamed) as held:
            with zips.opened(held, uri, version) as member:
                yield member
        return
    if scheme_of(uri):
        yield RangedSource(store_of(scheme_of(uri)), uri, version, size, LARGEST_WINDOW if whole else WINDOW)
        return
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
    if isinstance(source, RangedSource):
        return source.sha256()
    digest = hashlib.sha256()
    for offset in range(0, source.size, LARGEST_CHUNK):
        digest.update(source.read(offset, LARGEST_CHUNK))
    return digest.hexdigest()


def sha256_of_file(path: Location) -> str:
    """The same of a file of ours.

    Raises:
      StoreFailed: it can't be read.
    """
    if isinstance(path, ObjectLocation):
        with serving("read"):
            stored, _ = path.store.head(path.uri)
            return RangedSource(path.store, path.uri, stored.version, stored.size).sha256()
    with _opened(path) as descriptor:
        return sha256_of(FileSource(descriptor, os.fstat(descriptor).st_size))


def create(
    target: Location, temporary: Path, chunks: Iterable[bytes], mode: int = _OPEN_TO_ALL, durable: bool = False
) -> None:
    """Create an object whole or not at all: a file is written beside, then renamed; a store does so by itself.

    Args:
      temporary: a name of this process alone, on the same file system; its folder exists. Of no use to a store.
      durable: whether it must outlast the machine's death from here on.

    Raises:
      StoreFailed: it can't be written, StoreFull for want of space; nothing is left behind. What `chunks` raises
        while it reads passes through.
    """
    if isinstance(target, ObjectLocation):
        with serving("written"):
            target.store.create(target.uri, chunks)
        return
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
    with writing():
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
            with writing():
                sync_descriptor(descriptor)


@contextmanager
def _create_temporary(temporary: Path, mode: int) -> Iterator[int]:
    with writing():
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        if mode == _OWNER_ONLY:
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


def _move(temporary: Path, target: Path) -> None:
    with writing():
        try:
            os.replace(temporary, target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, target)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor of a file or folder of ours; what fails with it is a failure of the storage."""
    with writing():
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def writing() -> Iterator[None]:
    """Tell failures to write from failures to read: only the latter are an input's."""
    try:
        yield
    except OSError as failure:
        raise (StoreFull if failure.errno in (errno.ENOSPC, errno.EDQUOT) else StoreFailed)() from None


@contextmanager
def serving(what: str) -> Iterator[None]:
    """Tell of a store's failure, once the retries are over, as of any other storage's.

    Args:
      what: what can't be done: "listed", "read", "written", "removed".
    """
    try:
        yield
    except Unnameable:
        raise StoreFailed(f"{STORE_UNNAMEABLE}, which can't be {what} in this store") from None
    except NotAllowed as refused:
        raise StoreFailed(f"{STORE_REFUSED}: nothing can be {what} there, since {refused}") from None
    except NotThere:
        raise StoreFailed(f"{STORE_REFUSED}: there is no such bucket") from None
    except OtherVersion:
        raise StoreFailed from None
    except Unavailable:
        raise StoreUnavailable(STORE_UNREACHED) from None


def holds(root: Location, name: str) -> bool:
    """Whether there is an object below a root."""
    with serving("read"):
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


def is_only_copy(root: Location, name: str) -> bool:
    """Whether an object below a root is marked so; none in a store is, since no source of it is ever deleted."""
    if isinstance(root, ObjectLocation):
        return False
    try:
        return not os.stat(root / name).st_mode & _WRITTEN
    except FileNotFoundError:
        return False


def unchanged(uri: str, version: str) -> bool:
    """Whether an object is there as it was when it was listed."""
    if zips.is_member(version):
        archive = zips.archive_of(uri, version)
        return unchanged(archive.uri, archive.version)
    if scheme_of(uri):
        with serving("read"):
            try:
                return store_of(scheme_of(uri)).head(uri)[0].version == version
            except NotThere:
                return False
    try:
        return version_of(os.stat(local_path(uri))) == version
    except OSError:
        return False


def remove(root: Location, name: str) -> None:
    """Remove an object below a root, and the folders that it leaves empty."""
    if isinstance(root, ObjectLocation):
        with serving("removed"):
            root.store.delete(f"{root.uri}/{name}")
        return
    with writing(), suppress(FileNotFoundError):
        (root / name).unlink()
    for folder in list(Path(name).parents)[:-1]:
        with suppress(OSError):
            (root / folder).rmdir()


def create_small(target: Location, data: bytes, mode: int = _OPEN_TO_ALL, durable: bool = False) -> None:
    """The same for a small object, written beside its target under a name of this process alone."""
    if isinstance(target, ObjectLocation):
        create(target, Path(), [data])
        return
    with writing():
        target.parent.mkdir(parents=True, exist_ok=True)
    create(target, target.with_name(f".{target.name}.{os.getpid()}.part"), [data], mode, durable)


def create_restricted(target: Location, data: bytes, durable: bool = False) -> None:
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


def restricted_folder(folder: Location) -> None:
    """A folder that only its owner may enter, whatever the umask; in a store there are none, and its bucket decides."""
    if isinstance(folder, ObjectLocation):
        return
    if not folder.is_dir():
        restricted_folder(folder.parent)
        with writing():
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)


def left_behind(folder: Location) -> Iterator[Path]:
    """What a process that died was writing in a folder; a store shows nothing of that."""
    return iter(()) if isinstance(folder, ObjectLocation) else folder.glob(".*.part")


def size_of(path: Location) -> int:
    """How many bytes a file of ours has.

    Raises:
      StoreFailed: it isn't there, or can't be looked at.
    """
    if isinstance(path, ObjectLocation):
        with serving("read"):
            return path.store.head(path.uri)[0].size
    with writing():
        return path.stat().st_size


def remove_empty(folder: Location) -> None:
    """Remove a folder in which nothing is left; a store has none."""
    if not isinstance(folder, ObjectLocation):
        with suppress(OSError):
            folder.rmdir()


def clear(folder: Location) -> None:
    """Remove all that is below a folder, and itself; what can't be removed stays."""
    if isinstance(folder, ObjectLocation):
        with suppress(NotThere, NotAllowed, OtherVersion, Unavailable):
            for found in folder.below():
                folder.store.delete(found.uri)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def any_below(root: str) -> bool:
    """Whether a store has an object of that name, or any below it.

    Raises:
      StoreFailed: the store can't be asked, or there is no such bucket.
    """
    return next(_list_stored(root), None) is not None  # by a page, where a level may be held whole
