"""What there is: the objects below a root, with the versions that will be opened."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote_from_bytes

from transforms.files import version_of
from transforms.globs import Pattern
from transforms.locations import FILE_SCHEME, ObjectLocation, local_path
from transforms.object_stores import NotThere, Stored, scheme_of
from transforms.store_failures import serving


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


def any_below(root: str) -> bool:
    """Whether a store has an object of that name, or any below it.

    Raises:
      StoreFailed: the store can't be asked, or there is no such bucket.
    """
    return next(_list_stored(root), None) is not None  # by a page, where a level may be held whole
