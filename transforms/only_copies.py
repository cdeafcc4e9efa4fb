"""Outputs whose sources are gone for good: marked, so that no run writes another thing there, or removes them.

A file bears its mark itself: nobody may write it. Not every store can mark an object that is there, so the mark of an
output in a store lies in the restricted zone, by the output's URI. It is written before the source goes.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from typing import Final

from dicomveil.errors import InvalidInstance
from transforms import files, stores
from transforms.locations import Location, ObjectLocation
from transforms.object_stores import ABSENT, OtherVersion
from transforms.store_failures import serving

_FOLDER: Final = "only-copies"


def is_only_copy(root: Location, name: str, restricted: Location) -> bool:
    """Whether an output below a root is marked so.

    Raises:
      StoreFailed: its mark can't be asked for.
    """
    if not isinstance(root, ObjectLocation):
        return files.is_protected(root / name)
    mark_of = _mark(root / name, restricted)
    return stores.holds(mark_of.parent, mark_of.name)


def leave(output: Location, chunks: Iterable[bytes]) -> None:
    """Leave an output that is marked so as it is, which must be what would be written.

    Raises:
      InvalidInstance: "only-copy", where it is something else.
      StoreFailed: it can't be read.
    """
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    if digest.hexdigest() != stores.sha256_of_file(output):
        raise InvalidInstance("only-copy")


def mark(output: ObjectLocation, restricted: Location) -> bool:
    """Mark an output in a store so that the mark outlasts any death: whether it wasn't marked before.

    Raises:
      StoreFailed: it can't be.
    """
    target = _mark(output, restricted)
    content = json.dumps({"Output": str(output)}).encode() + b"\n"
    if isinstance(target, ObjectLocation):
        with serving("written"):
            try:
                target.store.create(target.uri, [content], version=ABSENT)
            except OtherVersion:
                return False
            return True
    new = not os.path.lexists(target)
    stores.create_restricted(target, content, durable=True)
    return new


def unmark(output: ObjectLocation, restricted: Location) -> None:
    """Take the mark off again.

    Raises:
      StoreFailed: it can't be.
    """
    with serving("removed"):
        _mark(output, restricted).unlink(missing_ok=True)


def _mark(output: ObjectLocation, restricted: Location) -> Location:
    """Where the mark of an output is; spread, since there are as many as were purged."""
    digest = hashlib.sha256(output.uri.encode()).hexdigest()
    return restricted / _FOLDER / digest[:2] / digest
