"""An archive in object storage, listed, scanned and rewritten in slices: instances a second, and memory at its peak.

The store is fake-gcs-server, which keeps its objects in files, so that it doesn't grow slower with each. What counts is
how memory goes with the number of instances, and how many requests one takes; times are of this machine and moment.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.machine import report
from dicomveil.keys import generate_key
from dicomveil.testing import Syntax, minimal, part10
from tests import emulators
from transforms.object_stores import ObjectStore, bucket_of

STUDY: Final = 50
_STAGES: Final = ("start", "plan", "execute")
_MARKS: Final = {"Planning": "plan", "De-identifying": "execute"}
_EVERY: Final = 0.1


@dataclass
class Watched:
    """A command that was looked at while it ran.

    Attributes:
      seconds: by stage.
      peaks: of resident memory of it and its workers, in bytes, by stage.
    """

    status: int = 0
    told: str = ""
    seconds: Counter[str] = field(default_factory=Counter)
    peaks: dict[str, int] = field(default_factory=dict)


def measure(objects: int, workers: int, console: Any = sys.stderr) -> dict[str, Any]:
    """Put so many instances into a store, de-identify them there, and tell what it took.

    Raises:
      AssertionError: not every instance came out.
    """
    with tempfile.TemporaryDirectory() as folder, emulators.gcs(folder) as server:
        with emulators.environment(server.env), server.store() as store:
            archive, output, restricted = (server.bucket() for _ in range(3))
            size = _fill(store, archive, objects)
            command = [sys.executable, "-m", "pipelines", "anonymize", "--input", f"{archive}/archive",
                       "--output", f"{output}/out", "--audit", f"{output}/audit", "--restricted", f"{restricted}/zone",
                       "--key", "env:DICOMVEIL_KEY", "--workers", str(workers)]  # fmt: skip
            key = generate_key()
            first = _watch(command, key, console)
            again = _watch(command, key, console)
            # In the server's own folder: listed from the root, each page of a thousand takes it as long as all of them.
            there = sum(1 for _ in Path(folder, bucket_of(output)).rglob("*.dcm"))
    assert first.status == again.status == 0, first.told + again.told
    assert there == objects, f"{there} of {objects} came out"
    assert f"{objects:,} objects" in again.told and "unchanged" in again.told, again.told
    return {
        "objects": objects,
        "bytes": size,
        "workers": workers,
        "instances_a_second": {stage: round(objects / first.seconds[stage]) for stage in _STAGES[1:]},
        "seconds": {stage: round(took, 1) for stage, took in first.seconds.items()},
        "peak_mib": {stage: peak >> 20 for stage, peak in first.peaks.items()},
        "nothing_new": {
            "seconds": round(sum(again.seconds.values()), 1),
            "peak_mib": max(again.peaks.values()) >> 20,
        },
    }


def _fill(store: ObjectStore, archive: str, objects: int) -> int:
    """Put instances in studies of 50 into the store; their bytes."""

    def put(number: int) -> int:
        study, of = divmod(number, STUDY)
        data = instance(f"1.2.826.0.1.3680043.8.498.{study + 1}", of + 1, f"P{study % 1000:05}")
        store.create(f"{archive}/archive/{study % 100:02}/{study:06}/{of:03}.dcm", [data])
        return len(data)

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(put, range(objects)))


def instance(study: str, number: int, patient: str) -> bytes:
    explicit = Syntax()
    values = (
        (0x00080018, "UI", f"{study}.1.{number}"), (0x00100020, "LO", patient), (0x0020000D, "UI", study),
        (0x0020000E, "UI", f"{study}.1"), (0x00200052, "UI", f"{study}.2"),
    )  # fmt: skip
    return part10(minimal(explicit, *((tag, explicit.element(tag, vr, value)) for tag, vr, value in values)))


def _watch(command: list[str], key: str, console: Any) -> Watched:
    """Run a command, and look at the memory of it and its workers until it ends."""
    watched, stage, lines = Watched(), ["start"], []
    env = os.environ | {"DICOMVEIL_KEY": key}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def read() -> None:
        for line in process.stdout or ():
            lines.append(line)
            stage[0] = next((then for mark, then in _MARKS.items() if line.startswith(mark)), stage[0])

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    last = time.monotonic()
    while process.poll() is None:
        time.sleep(_EVERY)
        now, at = time.monotonic(), stage[0]
        watched.seconds[at] += now - last
        watched.peaks[at] = max(watched.peaks.get(at, 0), _resident(process.pid))
        last = now
    reader.join()
    watched.status, watched.told = process.returncode, "".join(lines)
    print(watched.told[-800:], file=console)
    return watched


def _resident(pid: int) -> int:
    """Of a process and all below it, in bytes."""
    total = 0
    try:
        command = psutil.Process(pid)
        for process in (command, *command.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def table(measured: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of a table in Markdown: docs/scale.md has it."""
    yield "| instances | planned a second | rewritten a second | MiB, plan | MiB, rewrite | again, nothing new, s |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for it in measured:
        cells = [it["objects"], *(it["instances_a_second"][stage] for stage in _STAGES[1:])]
        cells += [it["peak_mib"][stage] for stage in _STAGES[1:]]
        yield "| " + " | ".join(f"{cell:,}" for cell in [*cells, it["nothing_new"]["seconds"]]) + " |"


def main() -> None:
    """Measure each size that was asked for, and tell of all of them so far as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, nargs="+", default=[20_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="a file for what was measured")
    asked = parser.parse_args()
    measured: list[dict[str, Any]] = []
    for objects in asked.objects:
        measured.append(measure(objects, asked.workers))
        report(measured, asked.json)  # each time, since the larger ones take long


if __name__ == "__main__":
    main()
