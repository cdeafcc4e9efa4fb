"""What storage fails with, as a run tells it, and how failures of each kind of storage become that."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dicomveil.errors import DicomveilError
from transforms.object_stores import NotAllowed, NotThere, OtherVersion, Unavailable, Unnameable

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
