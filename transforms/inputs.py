"""What the user names as input, as the objects that there are: folders, files, patterns, lists, zip files."""

import os
from collections.abc import Callable, Iterator
from functools import partial

from dicomveil.errors import Unsuitable
from transforms import listing, store_failures, stores, zips
from transforms.globs import Pattern, escaped, is_pattern
from transforms.input_lists import Named, entries
from transforms.listing import Listed
from transforms.locations import StoreError, local_path
from transforms.object_stores import Stored, bucket_of, scheme_of, store_of

Task = Listed | Named | tuple[str, str]
"""What one worker lists: an object that was found, one that a list names, or a root, and the pattern that its objects
must match, or ""."""


def spread(given: str) -> Iterator[Task]:
    """The tasks that an input falls into, for several workers at once.

    Raises:
      StoreFailed: a store can't be listed.
    """
    pattern = pattern_of(given)
    if pattern is None:
        yield from (it if isinstance(it, Listed) else (it, "") for it in listing.spread(given))
    elif not scheme_of(given):
        yield root_of(given), pattern.text
    else:
        with store_failures.serving("listed"):
            for found in store_of(scheme_of(given)).level(pattern.literal):
                if not isinstance(found, Stored):
                    if pattern.may_hold(found):
                        yield found, pattern.text
                elif pattern.matches(found.uri):
                    yield listing.as_listed(found)


def spread_list(place: str) -> Iterator[Task]:
    """The same of a list of objects: those of which it tells all that is needed are taken at its word.

    Raises:
      InputListError: it can't be read on.
    """
    for named in entries(place):
        whole = named.size >= 0 and named.version
        yield Listed(named.uri, named.size, named.version, "", named.storage_class) if whole else named


def carry_out(task: Task) -> Iterator[Listed]:
    """Every object that a task finds; of a zip file, each member in its place.

    Raises:
      StoreFailed: a store can't be listed.
    """
    if isinstance(task, Listed | Named):
        yield from inside(task if isinstance(task, Listed) else listing.look_up(task.uri))
        return
    root, pattern = task
    for found in listing.list_objects(root, Pattern(pattern) if pattern else None):
        yield from inside(found)


def listed(given: str) -> Iterator[Listed]:
    """Every object that an input means, by one worker."""
    for task in spread(given):
        yield from carry_out(task)


def pattern_of(given: str) -> Pattern | None:
    """The pattern that an input is; None where something has that very name, special characters or not.

    Raises:
      StoreError: another scheme, or a pattern where the bucket must stand.
      StoreFailed: the store can't be asked.
    """
    if not is_pattern(given):
        return None
    if not scheme_of(given):
        path = os.fspath(local_path(given)) + ("/" if given.endswith("/") else "")
        return Pattern(path) if is_pattern(path) and not os.path.lexists(path) else None
    if is_pattern(bucket_of(given)) or not bucket_of(given):
        raise StoreError(f"{given}: names no bucket; a pattern may begin behind it")
    return None if listing.any_below(given) else Pattern(given)


def root_of(given: str) -> str:
    """The folder or prefix in which all lies that an input means."""
    pattern = pattern_of(given)
    return given if pattern is None else pattern.prefix or os.curdir


def anchored(pattern: Pattern) -> tuple[str, str]:
    """The folder or prefix in which all lies that a pattern means, by its real name, and the pattern from there."""
    if scheme_of(pattern.text):
        return pattern.prefix, pattern.text
    folder = os.path.realpath(pattern.prefix or os.curdir)
    return folder, f"{escaped(folder).rstrip('/')}/{pattern.text[len(pattern.prefix) :]}"


def meaning(given: str) -> Callable[[str], bool]:
    """What tells whether an object is one that an input means, by its URI or real path.

    Raises:
      StoreFailed: the store can't be asked.
    """
    pattern = pattern_of(given)
    return pattern.matches if pattern else partial(_below, given)


def _below(root: str, uri: str) -> bool:
    return uri == root or uri.startswith(f"{root.rstrip('/')}/")


def inside(found: Listed) -> Iterator[Listed]:
    """The members of a zip file that was found, or what was found itself.

    What is a zip file is settled by its name and its first bytes together: with another name it would have to be opened
    to be known, and so would all the rest.
    """
    if found.reason or not zips.is_named_so(found.uri):
        yield found
        return
    try:
        with stores.open_version(found.uri, found.version, found.size) as archive:
            if not zips.is_zip(archive):
                yield found
                return
            empty = True
            for it in zips.members(archive):
                empty = False
                version = it.version(found.version, archive.size)
                yield Listed(it.uri(found.uri), it.place.size, version, it.reason, found.storage_class)
            if empty:
                yield found._replace(reason="empty-zip")
    except Unsuitable as unsuitable:
        yield found._replace(reason=unsuitable.reason)
