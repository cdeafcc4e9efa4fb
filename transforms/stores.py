"""The seam to storage: list, open the very version that was listed, read ranges, create atomically.

A URI is a path, file:// and a path, or gs://, s3:// or az:// with a bucket and a name; any other is refused by name.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dicomveil.errors import InvalidInstance
from dicomveil.stream import LARGEST_CHUNK, BytesSource, FileSource, Source
from transforms import files, zips
from transforms.locations import Location, ObjectLocation, local_path
from transforms.object_stores import (
    ABSENT,
    NotAllowed,
    NotThere,
    OtherVersion,
    Unavailable,
    scheme_of,
    store_of,
)
from transforms.ranged import LARGEST_WINDOW, WINDOW, RangedSource
from transforms.store_failures import serving, writing

IN_MEMORY = 1 << 20


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
        if files.version_of(status) != version:
            raise InvalidInstance("changed-during-run")
        source: Source = FileSource(descriptor, status.st_size)
        try:
            yield BytesSource(source.read(0, status.st_size)) if status.st_size <= IN_MEMORY else source
        except OSError:
            raise InvalidInstance("unreadable") from None
        if files.version_of(os.fstat(descriptor)) != version:
            raise InvalidInstance("changed-during-run")
    finally:
        os.close(descriptor)


def made_of(opened: ExitStack, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """What is made of a source that a stack holds open; at its end, before it counts, the source is left.

    What a source says as it is left, that it has changed or was damaged, so comes while nothing is there yet.

    Raises:
      InvalidInstance: as `open_version` does.
    """
    yield from chunks
    opened.close()


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
    with files.opened(path) as descriptor:
        return sha256_of(FileSource(descriptor, os.fstat(descriptor).st_size))


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
        return files.version_of(os.stat(local_path(uri))) == version
    except OSError:
        return False


def holds(root: Location, name: str) -> bool:
    """Whether there is an object below a root."""
    with serving("read"):
        return (root / name).exists()


def outlast(path: Location) -> None:
    """Have a file of ours, or a folder's names, outlast the machine's death; what is in a store does.

    Raises:
      StoreFailed: the storage can't say that it does.
    """
    if not isinstance(path, ObjectLocation):
        files.sync(path)


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


def create(
    target: Location, temporary: Path, chunks: Iterable[bytes], mode: int = files.OPEN_TO_ALL, durable: bool = False
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
        files.fill(temporary, chunks, mode, durable)
        files.move(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        files.sync(target.parent)


def create_small(target: Location, data: bytes, mode: int = files.OPEN_TO_ALL, durable: bool = False) -> None:
    """The same for a small object, written beside its target under a name of this process alone."""
    if isinstance(target, ObjectLocation):
        create(target, Path(), [data])
        return
    with writing():
        target.parent.mkdir(parents=True, exist_ok=True)
    create(target, _beside(target), [data], mode, durable)


def create_new(
    target: Location, chunks: Iterable[bytes], mode: int = files.OPEN_TO_ALL, encryption_key: str = ""
) -> bool:
    """Create an object whole or not at all, and only where nothing has its name yet.

    A store is asked before as well: what is there already needn't be sent, and above 8 MiB not every store judges.

    Args:
      mode: of a file; who may read what is in a store, its bucket decides.
      encryption_key: name of the store's key that encrypts it; "" where its bucket decides.

    Returns:
      Whether it was created.

    Raises:
      StoreFailed: as `create` does.
    """
    if not isinstance(target, ObjectLocation):
        with writing():
            target.parent.mkdir(parents=True, exist_ok=True)
        return files.create_new(target, _beside(target), chunks, mode)
    with serving("written"):
        if target.exists():
            return False
        try:
            target.store.create(target.uri, chunks, version=ABSENT, encryption_key=encryption_key)
        except OtherVersion:
            return False
        return True


def _beside(target: Path) -> Path:
    """A name of this process alone in the same folder."""
    return target.with_name(f".{target.name}.{os.getpid()}.part")


def create_restricted(target: Location, data: bytes, durable: bool = False) -> None:
    """The same for one that only its owner may read, whatever the umask."""
    restricted_folder(target.parent)
    create_small(target, data, files.OWNER_ONLY, durable)


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
