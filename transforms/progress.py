"""How far the workers are: small files that the command sums, since Beam tells only at the end.

Each holds how many objects one worker has done, and how many of them have failed. They lie in a store where workers and
command share no disk; there they are written and read now and then, and the last of a worker's counts may be missing.
"""

import contextlib
import functools
import os
import platform
import time
from pathlib import Path
from typing import Final

from transforms.locations import Location, ObjectLocation, locate

_SECONDS: Final = 0.5
_SECONDS_IN_STORE: Final = 10.0


class Progress:
    """The count of one worker process, written to a file of its own every half second, or ten in a store."""

    def __init__(self, folder: str) -> None:
        self._folder = locate(folder)
        self._count, self._failed, self._written = 0, 0, 0.0

    def count(self, failed: bool = False) -> None:
        """One more, which may have failed."""
        self._count += 1
        self._failed += failed
        self._write(_SECONDS)

    def flush(self) -> None:
        """Write the count, as long as that costs nothing."""
        self._write(-1)

    def _write(self, seconds: float) -> None:
        """Unless that was done so many seconds ago; that it can't be written is no reason to stop."""
        now = time.monotonic()
        if now - self._written <= (_SECONDS_IN_STORE if isinstance(self._folder, ObjectLocation) else seconds):
            return
        self._written = now
        target, told = self._folder / f"{platform.node()}-{os.getpid()}-{id(self)}", f"{self._count} {self._failed}"
        if isinstance(target, ObjectLocation):
            with contextlib.suppress(Exception):
                target.store.create(target.uri, [told.encode()])
        else:
            with contextlib.suppress(OSError), open(os.open(target, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(told)


def counted(folder: str) -> int:
    """How many objects all workers have done."""
    return sum(done for done, _ in _told(folder))


def failed(folder: str) -> int:
    """How many of them have failed."""
    return sum(failures for _, failures in _told(folder))


def _told(folder: str) -> list[tuple[int, int]]:
    where = locate(folder)
    if isinstance(where, Path):
        return _read(where)
    return _told_in_store(where, time.monotonic() // _SECONDS_IN_STORE)


@functools.lru_cache(maxsize=1)
def _told_in_store(folder: ObjectLocation, moment: float) -> list[tuple[int, int]]:
    """At some moment: asked again at the same it isn't looked at again."""
    del moment
    with contextlib.suppress(Exception):
        return _read(folder)
    return []


def _read(folder: Location) -> list[tuple[int, int]]:
    told = []
    for file in folder.iterdir():
        with contextlib.suppress(OSError, ValueError):
            done, failures = file.read_text().split()
            told.append((int(done), int(failures)))
    return told
