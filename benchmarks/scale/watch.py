"""Memory and bytes written of processes, looked at while they work."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import psutil

_EVERY: Final = 0.25


@dataclass
class Seen:
    """What was seen of some processes.

    Attributes:
      each: resident bytes of the largest one, at its peak.
      all: of all of them together.
      written: bytes that they wrote to files and pipes, by process.
    """

    each: int = 0
    all: int = 0
    written: dict[int, int] = field(default_factory=dict)


@contextmanager
def watched(processes: Callable[[], list[psutil.Process]]) -> Iterator[Seen]:
    """Look at some processes, whichever there are at the time."""
    seen, before, stop = Seen(), dict[int, int](), threading.Event()

    def look() -> None:
        total = 0
        for process in processes():
            try:
                resident, written = process.memory_info().rss, process.io_counters().write_chars
            except psutil.Error:
                continue
            total += resident
            seen.each = max(seen.each, resident)
            seen.written[process.pid] = written - before.setdefault(process.pid, written)
        seen.all = max(seen.all, total)

    def go_on() -> None:
        look()
        while not stop.wait(_EVERY):
            look()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def below_this() -> list[psutil.Process]:
    """The processes that this one has started, without itself."""
    return psutil.Process().children(recursive=True)


def started_as(program: str) -> list[psutil.Process]:
    """The processes of this machine that were started as something with such an end."""
    there = psutil.process_iter(["cmdline"])
    return [it for it in there if any(word.endswith(program) for word in it.info["cmdline"] or [])]


def cluster_workers() -> list[psutil.Process]:
    """The worker processes that a cluster on this machine has started."""
    return started_as("/dicomveil-worker")


def task_managers() -> list[psutil.Process]:
    """Flink's."""
    return started_as("TaskManagerRunner")
