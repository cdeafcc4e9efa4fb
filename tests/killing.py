"""Kill a process between any two of its steps. A step is whatever makes, renames or removes a name, or opens it to write.

    python tests/killing.py STEP FOLDER LOG anonymize --input ...

runs the command and kills it before its step of that number (from 1; 0 for never) below a folder; the log gets a line a
step. `dying` does the same to a fork of this process, which takes milliseconds.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def watch(folder: Path, kill_at: int, log: Path | None = None) -> None:
    """From here on count the steps of this process below a folder, and end it before the one of a number."""
    taken = 0
    noted = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if log else None

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal taken
        name = _step(event, arguments, str(folder))
        if name:
            taken += 1
            if taken == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if noted is not None:
                os.write(noted, f"{event} {name}\n".encode("utf-8", "surrogateescape"))

    sys.addaudithook(hook)


def _step(event: str, arguments: tuple[Any, ...], folder: str) -> str:
    """What a step is about; "" for an event that is none."""
    if event == "open":
        path, _, flags = arguments
        counts = isinstance(flags, int) and flags & _WRITES and not isinstance(path, int)
    elif event == "os.rename":
        path, counts = arguments[1], True
    elif event == "os.remove":  # by a folder's descriptor, if it is a source
        path, counts = arguments[0], True
        if arguments[1] != -1:
            return os.fsdecode(path)
    elif event in ("os.mkdir", "os.rmdir"):
        path, counts = arguments[0], True
    else:
        return ""
    return os.fsdecode(path) if counts and os.fsdecode(path).startswith(folder) else ""


def dying(act: Callable[[], object], folder: Path, kill_at: int) -> bool:
    """Do something in a fork that is killed before one of its steps: whether it was, and didn't end before."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        status = 1
        try:
            watch(folder, kill_at)
            act()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


if __name__ == "__main__":
    step, below, log_file, *command = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from pipelines.cli import cli

    watch(Path(below), int(step), Path(log_file))
    cli(command, prog_name="dicomveil")
