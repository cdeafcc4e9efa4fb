"""Limits of one run, as the user gives them: how much it takes of what is new, and how many failures it bears."""

import math
import re
from typing import Final, NamedTuple

from dicomveil.errors import DicomveilError

_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE: Final = re.compile(r"([0-9]{1,18})\s*([KMGT]?)(i?)B?", re.IGNORECASE)


class LimitRefused(DicomveilError):
    """A limit that is none; says what is one."""


class Limits(NamedTuple):
    """How much a run takes, and how much may fail.

    Attributes:
      instances: to be rewritten, at most; 0 for no limit.
      bytes: of them, at most; 0 for no limit.
      failures: "20", or "5%" of what the run takes; "" for no limit.
    """

    instances: int = 0
    bytes: int = 0
    failures: str = ""

    def beyond(self, instances: int, size: int) -> bool:
        """Whether that is more than the run takes."""
        return bool((self.instances and instances > self.instances) or (self.bytes and size > self.bytes))

    def borne(self, objects: int) -> float:
        """How many failures are borne among so many objects; infinity where there is no limit."""
        if not self.failures:
            return math.inf
        number = int(self.failures.rstrip("%"))
        return number * objects / 100 if self.failures.endswith("%") else number


NO_LIMITS: Final = Limits()


def read_size(text: str) -> int:
    """Bytes: "500", "20 GB" (powers of ten) or "20 GiB" (powers of two).

    Raises:
      LimitRefused: it is none of these.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found or (found[3] and not found[2]) or not int(found[1]):
        raise LimitRefused("--max-bytes takes a number of bytes from 1 on, such as 500, 20GB or 20GiB.")
    return int(found[1]) * (_BINARY if found[3] else _UNITS)[found[2].upper()]


def check_failures(text: str) -> str:
    """How many failures are borne: "20", or "5%" of what the run takes.

    Raises:
      LimitRefused: it is none of these.
    """
    found = re.fullmatch(r"([0-9]{1,18})(%?)", text.strip())
    if not found or (found[2] and int(found[1]) > 100):
        raise LimitRefused("--max-failures takes a number such as 20, or a share such as 5%.")
    return found[0]
