"""What a codec may do to its process, for children to go through."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path


def well() -> int:
    """The process that this is."""
    return os.getpid()


def crash() -> None:
    ctypes.string_at(0)


def spin() -> None:
    while True:
        pass


def hang() -> None:
    ctypes.CDLL(None).sleep(1000)  # in native code, where no exception arrives


def eat() -> None:
    held = []
    while True:
        held.append(bytearray(1 << 24))


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # as a system does that is out of memory


def leave() -> None:
    os._exit(3)


def fail() -> None:
    raise ValueError("Bodox^Kalex")


def speak() -> None:
    os.write(2, b"Bodox^Kalex\n")
    print("Bodox^Kalex")
    print("Bodox^Kalex", file=sys.stderr)


def begin_and_crash(source: str, target: str, uid: str, quality: int) -> None:
    Path(target).write_bytes(b"half")
    crash()


def wait(seconds: float) -> float:
    time.sleep(seconds)
    return seconds
