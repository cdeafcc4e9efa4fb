"""Where a run reads and writes: roots by their one names, apart from each other, and all mistakes in them at once."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomveil.errors import DicomveilError
from pipelines import media
from transforms import listing, store_failures
from transforms.globs import Pattern
from transforms.input_lists import InputListError, entries
from transforms.inputs import anchored, listed, pattern_of, root_of
from transforms.locations import StoreError, locate
from transforms.object_stores import bucket_of, scheme_of

_READ: Final = ("--input", "--crosswalk-in")


class RunRefused(DicomveilError):
    """What the user asked for can't be done as asked; says what to do instead."""


class RunFailed(DicomveilError):
    """The run stopped; the message says why, and what to do."""


@dataclass(frozen=True)
class Places:
    """Where a run reads and writes, as absolute paths; inputs also as patterns of such, and as lists of objects."""

    inputs: tuple[str, ...]
    output: str
    audit: str
    restricted: str
    crosswalks: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()


def resolve(
    inputs: tuple[str, ...],
    output: str,
    audit: str | None,
    restricted: str | None,
    crosswalks: tuple[str, ...] = (),
    lists: tuple[str, ...] = (),
) -> Places:
    """Resolve the roots, and refuse any that lies inside another.

    Raises:
      RunRefused: all that is wrong with them, at once.
    """
    roots = {f"--input {uri}": uri for uri in inputs} | {f"--crosswalk-in {uri}": uri for uri in crosswalks}
    base = output.rstrip("/")
    roots |= {
        "--output": output,
        "--audit": audit or f"{base}-audit",
        "--restricted": restricted or f"{base}-restricted",
    }
    problems, real, meant = [], {}, {}
    for name, uri in roots.items():
        try:
            if name.startswith("--input") and (pattern := pattern_of(uri)):
                real[name], meant[name] = anchored(pattern)
            else:
                found = _absolute(uri)
                real[name] = meant[name] = found if name.startswith("--input") else found.rstrip("/") or found
            if not name.startswith("--input") and not listing.is_text(real[name]):
                problems.append(f"{name.split(' ')[0]}: its name is no UTF-8; give it another")
        except StoreError as refused:
            problems.append(f"{name.split(' ')[0]}: {refused}")
        except store_failures.StoreFailed as failed:
            problems.append(f"{name}: there is {failed}")
    problems += _apart(real, output, restricted)
    problems += [told for name, path in real.items() if scheme_of(path) for told in _unreachable(name, path)]
    folders = {name: path for name, path in real.items() if not scheme_of(path)}
    for name in [name for name in folders if name.startswith(_READ)]:
        if not os.path.lexists(real[name]):
            problems.append(f"{name}: there is no such file or folder")
        elif not os.access(real[name], os.R_OK):
            problems.append(f"{name}: can't be read; check its permissions")
    problems += [told for name in folders if not name.startswith(_READ) for told in _unwritable(name, real[name])]
    patterns = {name: Pattern(text) for name, text in meant.items() if real[name] != text}
    problems += _contained(
        {name: path for name, path in real.items() if not name.startswith("--crosswalk-in")}, patterns
    )
    problems += [told for name, pattern in patterns.items() if not problems for told in _unmatched(name, pattern.text)]
    if problems:
        raise RunRefused("\n".join(problems))
    inputs, tables = (tuple(sorted({meant[name] for name in meant if name.startswith(option)})) for option in _READ)
    written = {name: real[name] for name in ("--output", "--audit", "--restricted")}
    return Places(inputs, real["--output"], real["--audit"], real["--restricted"], tables, _lists(lists, written))


def _lists(lists: tuple[str, ...], written: dict[str, str]) -> tuple[str, ...]:
    """Lists of objects by their one names, each read to its end before anything begins.

    Raises:
      RunRefused: one can't be read, or names what lies where the run writes.
    """
    problems, found = [], set()
    for uri in lists:
        try:
            place = _absolute(uri)
            found.add(place)
            inside = next(((name, at) for at, it in enumerate(entries(place), 1) for name, root in written.items()
                           if _inside(it.uri, root)), None)  # fmt: skip
            if inside:
                problems.append(f"--input-list {uri}: its object {inside[1]:,} lies inside {inside[0]}; leave it out")
        except DicomveilError as refused:
            problems.append(f"--input-list {'' if isinstance(refused, InputListError) else f'{uri}: '}{refused}")
    if problems:
        raise RunRefused("\n".join(problems))
    return tuple(sorted(found))


def medium(folder: str, where: Places) -> Path:
    """Where a run's output is copied for media, apart from all that it reads and writes.

    Raises:
      MediaRefused: it can't be.
    """
    roots = (*map(root_of, where.inputs), where.output, where.audit, where.restricted)
    return media.folder("--dicomdir", folder, roots)


def check_kms_key(name: str, output: str) -> None:
    """Refuse a key by which nothing would be encrypted.

    Raises:
      RunRefused: the output is in no store that takes a key's name.
    """
    if scheme_of(output) not in ("gs", "s3"):
        raise RunRefused(
            "--kms-key: is for an --output in gs:// or s3://; in az:// give the container an encryption scope, and on "
            "this machine encrypt the file system."
        )


def _absolute(uri: str) -> str:
    """A root by its one name.

    Raises:
      StoreError: it is in no store that can be used.
    """
    found = locate(uri)
    return os.path.realpath(found) if isinstance(found, Path) else str(found) + "/" * uri.endswith("/")


def _unreachable(name: str, uri: str) -> Iterator[str]:
    """Why a root in a store can't be used: what is read must be there, what is written must have a bucket."""
    try:
        found = listing.any_below(uri)
    except store_failures.StoreFailed as failed:
        yield f"{name}: there is {failed}"
    else:
        if not found and name.startswith(_READ):
            yield f"{name}: nothing is there"


def _unmatched(name: str, pattern: str) -> Iterator[str]:
    """A pattern that nothing matches is a slip."""
    if next(listed(pattern), None) is None:
        yield f'{name}: matches no file; end it with "/" for all that lies below the folders it matches'


def _apart(real: dict[str, str], output: str, restricted: str | None) -> Iterator[str]:
    """What must lie apart in stores: whoever may read a bucket may read all of it."""
    if scheme_of(output) and not restricted:
        yield "--restricted: name it: an --output in a store has none beside it, since it must be in another bucket"
    zone = real.get("--restricted", "")
    for name in ("--output", "--audit") if scheme_of(zone) else ():
        if scheme_of(real.get(name, "")) and _bucket(real[name]) == _bucket(zone):
            yield f"--restricted: is in the bucket of {name}: name another, which fewer people may read"


def _bucket(uri: str) -> tuple[str, str]:
    return scheme_of(uri), bucket_of(uri)


def _unwritable(name: str, path: str) -> Iterator[str]:
    """Why a root can't be written: judged by itself, or by what it would be made in."""
    there = path
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        yield f"{name}: {'this' if there == path else 'what it would lie in'} is a file, and must be a folder"
    elif not os.access(there, os.W_OK | os.X_OK):
        yield f"{name}: can't be written; check the permissions"


def _contained(real: dict[str, str], patterns: dict[str, Pattern]) -> Iterator[str]:
    """Roots that lie inside others; inputs may overlap each other, since each object counts once.

    Args:
      patterns: those of the roots that hold no more than a pattern means, by name.
    """
    for name, path in real.items():
        for other, outer in real.items():
            if name == other or (name.startswith("--input") and other.startswith("--input")):
                continue
            if other in patterns and not patterns[other].may_hold(f"{path.rstrip('/')}/"):
                continue
            if (_same(path, outer) and name < other) or (not _same(path, outer) and _inside(path, outer)):
                yield f"{name} lies inside {other}: choose folders apart from each other"


def _same(path: str, other: str) -> bool:
    return path.rstrip("/") == other.rstrip("/")


def _inside(path: str, outer: str) -> bool:
    """Whether a root is another one, or below it."""
    return f"{path.rstrip('/')}/".startswith(f"{outer.rstrip('/')}/")
