"""How a process holds on to memory that it has freed."""

import ctypes
import os
from contextlib import suppress
from typing import Final

_ARENAS: Final = -8
"""M_ARENA_MAX of the GNU C library's mallopt."""


def share_memory() -> None:
    """Have a process's threads share what they free, workers' too: kept apart it adds up with each slice.

    Only the GNU C library keeps it apart; nothing is lost where there is another one.
    """
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_ARENAS, 1)
