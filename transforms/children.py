"""Work that may end its process, such as a codec's on hostile pixels, in a child that can be killed.

A child that crashes, hangs or eats memory is that instance's quarantine, and never the worker's end: the next instance
gets another child. What a codec prints goes nowhere, because it may hold anything.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable
from concurrent.futures import TimeoutError
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from dicomveil.errors import InvalidInstance, Unsuitable

if TYPE_CHECKING:
    from pebble import ProcessPool

    from dicomveil.transcoder import Transcoded

T = TypeVar("T")

_MIB: Final = 1 << 20
_START: Final = 300.0
"""Seconds that a child may take to start: it imports the caller's main module, as every spawned process does."""


class ChildrenUnable(Exception):
    """No child can be started here at all."""


@dataclass(frozen=True)
class Limits:
    """What a child may take.

    Attributes:
      memory: bytes of address space, beyond what it has when it is ready.
      seconds: of time for any instance.
      seconds_per_mib: of time more for each MiB of it.
    """

    memory: int = 2048 * _MIB
    seconds: float = 60.0
    seconds_per_mib: float = 5.0


class Children:
    """One child at a time, used again as long as it lives; made once a worker, in a DoFn's `setup`.

    It is pickled without its child. A script that makes one needs the usual `if __name__ == "__main__":`, because its
    children import it.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._pool: ProcessPool | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_limits": self._limits, "_pool": None}

    def start(self) -> None:
        """Start the child.

        Raises:
          ChildrenUnable: it can't be started.
        """
        from pebble import ProcessPool

        self._pool = ProcessPool(
            max_workers=1, initializer=_confine, initargs=(self._limits.memory,), context=get_context("spawn")
        )
        try:
            self._pool.schedule(_ready, timeout=_START).result(_START)
        except Exception as reason:
            self.close()
            raise ChildrenUnable(f"a child process can't be started: {type(reason).__name__}") from None

    def close(self) -> None:
        """End the child, at once."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def run(self, function: Callable[..., T], *arguments: Any, size: int = 0) -> T:
        """What a function of a module returns, called in the child.

        Args:
          size: bytes of the instance, by which it gets time.

        Raises:
          InvalidInstance: "transcode-timeout", "transcode-memory", "transcode-failed" where the child came to its end,
            or what the function raised. Of any other exception nothing is told but that it was "transcode-failed".
        """
        if self._pool is None:
            self.start()
        pool = self._pool
        assert pool is not None
        from pebble import ProcessExpired

        seconds = self._limits.seconds + self._limits.seconds_per_mib * size / _MIB
        try:
            result, unsuitable = pool.schedule(_guarded, args=(function, arguments), timeout=seconds).result()
        except TimeoutError:
            raise InvalidInstance("transcode-timeout") from None
        except ProcessExpired as ended:
            killed = ended.exitcode in (-signal.SIGKILL, 128 + signal.SIGKILL)  # what a system out of memory does
            raise InvalidInstance("transcode-memory" if killed else "transcode-failed") from None
        if unsuitable is not None:
            raise unsuitable
        return cast(T, result)

    def transcode(self, source_path: str, target_path: str, transfer_syntax_uid: str, quality: int) -> "Transcoded":
        """`dicomveil.transcoder.transcode` in the child; no half-written target is left.

        Raises:
          InvalidInstance: as that does, and as `run` does.
        """
        from dicomveil.transcoder import transcode

        arguments = source_path, target_path, transfer_syntax_uid, quality
        try:
            return self.run(transcode, *arguments, size=os.path.getsize(source_path))
        except BaseException:
            if os.path.exists(target_path):
                os.remove(target_path)
            raise


def _confine(memory: int) -> None:
    """Make this process one that says nothing, leaves no core, and has a bound to its memory."""
    import imagecodecs
    import jpeg_ls  # noqa: F401  # loaded now, so that it doesn't count
    import openjpeg  # noqa: F401
    from rle import rle  # noqa: F401

    import dicomveil.transcoder  # noqa: F401

    for name in ("jpeg8_encode", "jpegls_encode", "jpeg2k_encode", "htj2k_encode"):
        getattr(imagecodecs, name, None)  # it loads a codec when it is asked for it
    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold the instance
    if sys.platform == "linux":  # elsewhere address space isn't bounded so
        bound = _address_space() + memory
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as pages:
        return int(pages.read().split()[0]) * resource.getpagesize()


def _ready() -> bool:
    return True


def _guarded(function: Callable[..., T], arguments: tuple[Any, ...]) -> tuple[T | None, Unsuitable | None]:
    """What a function returns, or why it doesn't: never an exception, whose text would cross to the worker's logs."""
    try:
        return function(*arguments), None
    except Unsuitable as unsuitable:
        return None, unsuitable
    except MemoryError:
        return None, InvalidInstance("transcode-memory")
    except Exception:
        return None, InvalidInstance("transcode-failed")
