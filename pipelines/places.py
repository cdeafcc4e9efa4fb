"""Where a command reads and writes: roots by their one names, apart from each other; all mistakes in them at once."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomveil.errors import DicomveilError
from transforms import listing, purges, store_failures
from transforms.globs import Pattern
from transforms.input_lists import InputListError, entries
from transforms.inputs import anchored, listed, pattern_of
from transforms.locations import Location, StoreError, locate
from transforms.object_stores import bucket_of, scheme_of

_READ: Final = ("--input", "--crosswalk-in")
_NO_TEXT: Final = "its name is no UTF-8; give it another"


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
    real, meant, problems = _named(roots)
    problems += [
        f"{name.split(' ')[0]}: {_NO_TEXT}"
        for name, path in real.items()
        if not name.startswith("--input") and not listing.is_text(path)
    ]
    problems += _apart(real, output, restricted)
    problems += _wrong(real, meant)
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
            lies = next(((name, at) for at, it in enumerate(entries(place), 1) for name, root in written.items()
                         if inside(it.uri, root)), None)  # fmt: skip
            if lies:
                problems.append(f"--input-list {uri}: its object {lies[1]:,} lies inside {lies[0]}; leave it out")
        except DicomveilError as refused:
            problems.append(f"--input-list {'' if isinstance(refused, InputListError) else f'{uri}: '}{refused}")
    if problems:
        raise RunRefused("\n".join(problems))
    return tuple(sorted(found))


def resolve_unrecorded(
    inputs: tuple[str, ...], output: str, also: Callable[[dict[str, str]], Iterable[str]]
) -> tuple[tuple[str, ...], Location]:
    """The same of a command that keeps no records: its inputs by their one names, and its output.

    Args:
      also: tells what else is wrong with the roots, by the options and values that name them.

    Raises:
      RunRefused: all that is wrong with them, at once.
    """
    real, meant, problems = _named({f"--input {uri}": uri for uri in inputs} | {"--output": output})
    problems += [*_wrong(real, meant), *(also(real) if "--output" in real else ())]
    if problems:
        raise RunRefused("\n".join(problems))
    return tuple(sorted({meant[name] for name in meant if name.startswith("--input")})), locate(real["--output"])


def medium(root: str, where: Places) -> Location:
    """Where a run's output is copied for media: new or empty, and apart from all that the run reads and writes.

    Raises:
      RunRefused: it can't be.
    """
    roots = {f"--input {uri}": uri for uri in where.inputs}
    roots |= {"--output": where.output, "--audit": where.audit, "--restricted": where.restricted}
    real, meant, problems = _named(roots | {"--dicomdir": root})
    if not problems:
        problems += one_bucket(real, "--restricted", ["--dicomdir"])
        problems += [*_unusable("--dicomdir", real["--dicomdir"]), *_contained(real, _patterns(real, meant))]
        problems += not_empty("--dicomdir", real["--dicomdir"])
    if problems:
        raise RunRefused("\n".join(problems))
    return locate(real["--dicomdir"])


def not_empty(name: str, root: str) -> Iterator[str]:
    """Why a root can't be that of a File-set, unless it is new or empty."""
    try:
        full = listing.any_below(root) if scheme_of(root) else bool(os.listdir(root))
    except (FileNotFoundError, store_failures.StoreFailed):  # what a store fails with is told where it is looked for
        full = False
    except OSError:
        full = True
    if full:
        yield f"{name}: isn't empty; a File-set holds its own files and no others: name a new folder"


def one_bucket(real: dict[str, str], restricted: str, others: Iterable[str]) -> Iterator[str]:
    """What few may read must lie apart in stores: whoever may read a bucket may read all of it.

    Args:
      real: roots by their options.
      restricted: the option of the one that few may read.
      others: options of others; they may be missing.
    """
    for name in others if scheme_of(real.get(restricted, "")) else ():
        if scheme_of(real.get(name, "")) and _bucket(real[name]) == _bucket(real[restricted]):
            yield f"{restricted}: is in the bucket of {name}: name another, which fewer people may read"


def _bucket(uri: str) -> tuple[str, str]:
    return scheme_of(uri), bucket_of(uri)


def check_kms_key(name: str | None, output: str, medium: str = "") -> None:
    """Refuse a key by which not all would be encrypted that is to be.

    Args:
      medium: where a copy for media goes; "" for nowhere. A folder of this machine has its own ways.

    Raises:
      RunRefused: one is named, and the output is in no store that takes a key's name, or the medium in another one.
    """
    if name is not None and scheme_of(output) not in ("gs", "s3"):
        raise RunRefused(
            "--kms-key: is for an --output in gs:// or s3://; in az:// give the container an encryption scope, and on "
            "this machine encrypt the file system."
        )
    if name is not None and scheme_of(medium) not in ("", scheme_of(output)):
        raise RunRefused("--kms-key: is of --output's store, and --dicomdir in another: copy it by dicomveil media.")


def _named(roots: dict[str, str]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Roots by their one names, the inputs as they are meant, and what is wrong with those that have none."""
    real, meant, problems = dict[str, str](), dict[str, str](), list[str]()
    for name, uri in roots.items():
        if scheme_of(uri) and not listing.is_text(uri):
            problems.append(f"{name.split(' ')[0]}: {_NO_TEXT}")
            continue
        try:
            if name.startswith("--input") and (pattern := pattern_of(uri)):
                real[name], meant[name] = anchored(pattern)
            else:
                found = _absolute(uri)
                real[name] = meant[name] = found if name.startswith("--input") else found.rstrip("/") or found
        except StoreError as refused:
            problems.append(f"{name.split(' ')[0]}: {refused}")
        except store_failures.StoreFailed as failed:
            problems.append(f"{name}: there is {failed}")
    return real, meant, problems


def _patterns(real: dict[str, str], meant: dict[str, str]) -> dict[str, Pattern]:
    """The inputs that are patterns."""
    return {name: Pattern(text) for name, text in meant.items() if real[name] != text}


def _wrong(real: dict[str, str], meant: dict[str, str]) -> list[str]:
    """Why roots can't be used, each by itself and beside the others."""
    patterns, zone = _patterns(real, meant), real.get("--restricted", "")
    problems = [told for name, path in real.items() for told in _unusable(name, path, zone)]
    problems += _contained(
        {name: path for name, path in real.items() if not name.startswith("--crosswalk-in")}, patterns
    )
    if problems:
        return problems
    return [told for name, pattern in patterns.items() for told in _unmatched(name, pattern.text)]


def _unusable(name: str, path: str, zone: str = "") -> Iterator[str]:
    """Why a root can't be used by itself."""
    if scheme_of(path):
        yield from _unreachable(name, path, zone)
    elif not name.startswith(_READ):
        yield from _unwritable(name, path)
    elif not os.path.lexists(path):
        yield f"{name}: there is no such file or folder"
    elif not os.access(path, os.R_OK):
        yield f"{name}: can't be read; check its permissions"


def _absolute(uri: str) -> str:
    """A root by its one name.

    Raises:
      StoreError: it is in no store that can be used.
    """
    found = locate(uri)
    return os.path.realpath(found) if isinstance(found, Path) else str(found) + "/" * uri.endswith("/")


def _unreachable(name: str, uri: str, zone: str) -> Iterator[str]:
    """Why a root in a store can't be used: what is read must be there, what is written must have a bucket.

    Args:
      zone: root of the restricted zone; where a purge of it has emptied an input there is no folder to tell it by.
    """
    try:
        found = listing.any_below(uri) or bool(zone and purges.was_input(locate(zone), uri))
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
    yield from one_bucket(real, "--restricted", ("--output", "--audit"))


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
            if (_same(path, outer) and name < other) or (not _same(path, outer) and inside(path, outer)):
                yield f"{name} lies inside {other}: choose folders apart from each other"


def _same(path: str, other: str) -> bool:
    return path.rstrip("/") == other.rstrip("/")


def inside(path: str, outer: str) -> bool:
    """Whether a root is another one, or below it."""
    return f"{path.rstrip('/')}/".startswith(f"{outer.rstrip('/')}/")
