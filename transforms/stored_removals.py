"""Objects in a store that are to go, and outputs in one: told by their versions, which pin their bytes."""

from collections.abc import Iterator
from contextlib import contextmanager

from dicomveil.errors import Unsuitable
from transforms import only_copies, zips
from transforms.candidates import Kept, Removal, Seen
from transforms.locations import Location, ObjectLocation
from transforms.object_stores import NotAllowed, NotThere, OtherVersion, Stored
from transforms.ranged import LARGEST_WINDOW, RangedSource
from transforms.store_failures import serving


class StoredSource:
    """An object that is to go."""

    def __init__(self, removal: Removal) -> None:
        self._removal, self._at = removal, ObjectLocation(removal.uri)

    def look(self) -> Seen:
        """See that it is the version that was read."""
        if zips.is_member(self._removal.version):
            raise Kept("no-plain-file")
        found = _looked(self._at, "gone", "unreadable")
        if found.version != self._removal.version:
            raise Kept("changed")
        return _seen(found)

    def is_gone(self) -> bool:
        """Whether nothing has its name."""
        with serving("read"):
            return not self._at.exists()

    def delete(self) -> None:
        """Delete that version, after a last look, without which nobody could tell who has deleted it."""
        self.look()
        with serving("removed"):
            try:
                self._at.store.delete(self._at.uri, self._removal.version)
            except OtherVersion:
                raise Kept("changed") from None
            except NotAllowed:
                raise Kept("not-permitted") from None


class StoredOutput:
    """Outputs in a store.

    Args:
      restricted: where it is marked which of them are the only copy.
    """

    def __init__(self, root: ObjectLocation, restricted: Location) -> None:
        self._root, self._restricted = root, restricted

    def read_back(self, removal: Removal, source: Seen) -> Seen:
        """Read one from the store, all of the version that is there."""
        found = self._look(removal)
        if found.uri == source.place:
            raise Kept("is-output")
        if found.size != removal.bytes or _sha256(self._root, found) != removal.sha256:
            raise Kept("output-differs")
        return _seen(found)

    @contextmanager
    def guarded(self, removal: Removal, seen: Seen) -> Iterator[None]:
        """Mark it as the only copy, look at it for the last time; and unmark it where its source stays."""
        output = self._root / removal.name
        marked = only_copies.mark(output, self._restricted)
        try:
            if _seen(self._look(removal)) != seen:
                raise Kept("output-differs")
            yield
        except Kept:
            if marked:
                only_copies.unmark(output, self._restricted)
            raise

    def settle(self, names: set[str]) -> None:
        """What a store has taken outlasts this machine."""

    def _look(self, removal: Removal) -> Stored:
        if not removal.name:
            raise Kept("output-missing")
        return _looked(self._root / removal.name, "output-missing", "output-unreadable")


def _looked(at: ObjectLocation, missing: str, refused: str) -> Stored:
    """An object as it is now.

    Raises:
      Kept: for one of the two reasons.
      StoreFailed: the store can't be had.
    """
    with serving("read"):
        try:
            return at.store.head(at.uri)[0]
        except NotThere:
            raise Kept(missing) from None
        except NotAllowed:
            raise Kept(refused) from None


def _sha256(root: ObjectLocation, found: Stored) -> str:
    try:
        return RangedSource(root.store, found.uri, found.version, found.size, LARGEST_WINDOW).sha256()
    except Unsuitable as unsuitable:
        changed = unsuitable.reason == "changed-during-run"
        raise Kept("output-differs" if changed else "output-unreadable") from None


def _seen(found: Stored) -> Seen:
    return Seen(found.uri, found.version)
