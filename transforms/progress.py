"""How far the workers are: small files that the command sums, since Beam tells only at the end.

Each holds how many objects one worker has done, and how many of them have failed.
"""

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_SECONDS: Final = 0.5


class Progress:
    """The count of one worker process, written to a file of its own every half second."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._count, self._failed, self._written = 0, 0, 0.0

    def count(self, failed: bool = False) -> None:
        """One more, which may have failed."""
        self._count += 1
        self._failed += failed
        if time.monotonic() - self._written > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the count; that it can't be written is no reason to stop."""
        self._written = time.monotonic()
        path = Path(self._folder) / f"{platform.node()}-{os.getpid()}-{id(self)}"
        with contextlib.suppress(OSError), open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(f"{self._count} {self._failed}")


def counted(folder: str) -> int:
    """How many objects all workers have done."""
    return sum(done for done, _ in _told(folder))


def failed(folder: str) -> int:
    """How many of them have failed."""
    return sum(failures for _, failures in _told(folder))


def _told(folder: str) -> Iterator[tuple[int, int]]:
    for path in Path(folder).iterdir():
        try:
            done, failures = path.read_text().split()
            yield int(done), int(failures)
        except (OSError, ValueError):
            continue
