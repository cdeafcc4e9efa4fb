"""Removing one source for good: only the very version that was read, only once its output has been read back.

Folders are entered one by one and through no link, so that a link put in the way since then leads nowhere. Which
sources are removed, and in what order what is noted, is settled elsewhere.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from dicomveil.errors import DicomveilError
from dicomveil.stream import FileSource
from transforms import files, store_failures, stores, zips
from transforms.locations import StoreError, local_path

_ENTER: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Reason(NamedTuple):
    """Why a source stays: what was found, and what its owner can do."""

    meaning: str
    remedy: str


KEPT: Final[dict[str, Reason]] = {
    "changed": Reason("It is another version than was read.", "Run again, so that this one is de-identified."),
    "gone": Reason("It isn't there any more.", "Nothing to do."),
    "no-plain-file": Reason(
        "No plain file stands there, or none of its own: a link on the way, a member of an archive.",
        "Remove it by hand.",
    ),
    "unreadable": Reason("It can't be looked at.", "Check its folder's permissions, and purge again."),
    "not-permitted": Reason("It may not be removed.", "Check its folder's permissions, and purge again."),
    "outside-input": Reason(
        "It lies outside --input: a link led there, or an earlier run had read it.", "Remove it by hand, if at all."
    ),
    "inside-output": Reason("It lies where runs write to.", "Nothing to do."),
    "is-output": Reason("It and its output are one file.", "Nothing to do."),
    "output-missing": Reason(
        "Its output isn't there.", "Bring the output back and purge again, or run again with --reprocess all."
    ),
    "output-differs": Reason(
        "Its output isn't what the run recorded.",
        "Bring the output back and purge again, or run again with --reprocess all.",
    ),
    "output-unreadable": Reason("Its output can't be read back.", "Check the storage of --output, and purge again."),
    "unrecorded": Reason("The audit has no checksum of its output.", "Bring --audit back, and purge again."),
    "abandoned": Reason("The purge was given up.", "Nothing to do."),
}
"""Every reason for which a source stays."""


class Kept(DicomveilError):
    """A source that stays; `reason` is a key of `KEPT`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: {KEPT[reason].meaning} {KEPT[reason].remedy}")
        self.reason = reason


@dataclass(frozen=True, repr=False)
class Removal:
    """One source to be removed.

    Attributes:
      token: stands for URI and version.
      name: its output's, below the output's root, of `bytes` and `sha256` as the audit has them.
      reason: why it is to stay, whatever is found; "" for none.
    """

    token: str
    uri: str
    version: str
    size: int
    name: str
    bytes: int
    sha256: str
    reason: str = ""


class Seen(NamedTuple):
    """What a file was when it was looked at."""

    device: int
    inode: int
    version: str


def confirm(removal: Removal, output: Path) -> Seen:
    """See that the source is the version that was read, and read its output back, from the disk where that can be had.

    Returns:
      The output, as `remove` must find it again.

    Raises:
      Kept: the source stays, and why.
    """
    if removal.reason:
        raise Kept(removal.reason)
    source = _source(removal)
    with _output(output, removal.name) as (folder, name):
        descriptor = os.open(name, _READ, dir_fd=folder)
        try:
            found = _seen(os.fstat(descriptor))
            if found[:2] == source[:2]:
                raise Kept("is-output")
            if not _holds(descriptor, removal):
                raise Kept("output-differs")
            if _seen(os.fstat(descriptor)) != found:
                raise Kept("output-differs")
        finally:
            os.close(descriptor)
    return found


def remove(removal: Removal, output: Path, seen: Seen) -> None:
    """Remove a confirmed source, after a last look at it and its output.

    Raises:
      Kept: it stays, and why.
    """
    with _output(output, removal.name) as (folder, name):
        if _look(name, folder) != seen:
            raise Kept("output-differs")
        files.protect(name, folder)  # from here on no run writes anything else under its name
        try:
            _unlink(removal)
        except Kept:
            files.protect(name, folder, False)
            raise


def _unlink(removal: Removal) -> None:
    with _source_folder(removal) as (folder, name):
        _check(_look(name, folder), removal)
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            raise
        except OSError:
            raise Kept("not-permitted") from None


def _source(removal: Removal) -> Seen:
    with _source_folder(removal) as (folder, name):
        found = _look(name, folder)
        _check(found, removal)
    return found


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
    return Seen(status.st_dev, status.st_ino, files.version_of(status))


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


def settle_outputs(output: Path, names: set[str]) -> None:
    """Have the folders that lead to outputs outlast the machine's death.

    Raises:
      StoreFailed: the storage can't say that they do.
    """
    root = Path(os.path.realpath(output))
    for folder in {folder for name in names for folder in Path(name).parents}:
        files.sync(root / folder)


def settle_removals(removals: list[Removal]) -> None:
    """Have removals outlast the machine's death, as far as that can be asked: else a source may come back."""
    for folder in {local_path(it.uri).parent for it in removals}:
        with suppress(store_failures.StoreFailed):
            files.sync(folder)
