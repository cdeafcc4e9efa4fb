"""Removing one source for good: only the very version that was read, only once its output has been read back.

What is looked at where something lies is settled by the kind of storage; which sources are removed, and in what order
what is noted, elsewhere.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from transforms import local_removals
from transforms.candidates import Kept, Removal, Seen
from transforms.local_removals import LocalOutput, LocalSource
from transforms.locations import Location
from transforms.object_stores import scheme_of
from transforms.stored_removals import StoredOutput, StoredSource


class Source(Protocol):
    """What is to go.

    Raises, each but `is_gone`:
      Kept: it stays, and why.
      StoreFailed: a store can't be had; what it was asked may have been done.
    """

    def look(self) -> Seen:
        """See that it is the version that was read."""
        ...

    def is_gone(self) -> bool:
        """Whether nothing has its name."""
        ...

    def delete(self) -> None:
        """Remove that version, after a last look at it."""
        ...


class Output(Protocol):
    """Where the outputs of what is to go are. Raises as `Source` does."""

    def read_back(self, removal: Removal, source: Seen) -> Seen:
        """Read the output of a source to its end: it must be what was recorded."""
        ...

    def guarded(self, removal: Removal, seen: Seen) -> AbstractContextManager[None]:
        """Look at an output again, and have no run write anything else under its name, then and from then on.

        Where its source stays (`Kept`), it is as it was.
        """
        ...

    def settle(self, names: set[str]) -> None:
        """Have what leads to outputs outlast the machine's death.

        Raises:
          StoreFailed: the storage can't say that it does.
        """
        ...


def output_of(root: Location, restricted: Location) -> Output:
    """The outputs below a root, as runs of a restricted zone have written them."""
    return LocalOutput(root) if isinstance(root, Path) else StoredOutput(root, restricted)


def source_of(removal: Removal) -> Source:
    """What is to go, where it lies."""
    return StoredSource(removal) if scheme_of(removal.uri) else LocalSource(removal)


def confirm(removal: Removal, output: Output) -> Seen:
    """See that the source is the version that was read, and read its output back.

    Returns:
      The output, as `remove` must find it again.

    Raises:
      Kept: the source stays, and why.
      StoreFailed: a store can't be had.
    """
    if removal.reason:
        raise Kept(removal.reason)
    return output.read_back(removal, source_of(removal).look())


def remove(removal: Removal, output: Output, seen: Seen) -> None:
    """Remove a confirmed source, after a last look at it and its output.

    Raises:
      Kept: it stays, and why.
      StoreFailed: a store can't be had; it may be gone.
    """
    with output.guarded(removal, seen):
        source_of(removal).delete()


def settle_removals(removals: Iterable[Removal]) -> None:
    """Have removals outlast the machine's death, as far as that can be asked; what a store has done does."""
    local_removals.settle_removals(it.uri for it in removals if not scheme_of(it.uri))
