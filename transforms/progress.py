"""How far the workers are: small files that the command sums, since Beam tells only at the end."""

import contextlib
import os
import time
from pathlib import Path
from typing import Final

_SECONDS: Final = 0.5


class Progress:
    """The count of one worker process, written to a file of its own every half second."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._count, self._written = 0, 0.0

    def count(self) -> None:
        """One more."""
        self._count += 1
        if time.monotonic() - self._written > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the count; that it can't be written is no reason to stop."""
        self._written = time.monotonic()
        path = Path(self._folder) / f"{os.getpid()}-{id(self)}"
        with contextlib.suppress(OSError), open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(str(self._count))


def counted(folder: str) -> int:
    """The sum over all workers."""
    total = 0
    for path in Path(folder).iterdir():
        try:
            total += int(path.read_text() or 0)
        except (OSError, ValueError):
            continue
    return total
