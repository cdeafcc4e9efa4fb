"""Speed and memory of the engine, measured side by side with dicognito in one run: `make bench`.

Ratios are what counts, since both sides share the machine and the moment; times alone compare with nothing.
"""

import argparse
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import pydicom
from dicognito.anonymizer import Anonymizer
from pydicom.data import get_testdata_file
from rich.console import Console
from rich.table import Table

from dicomveil import Deidentifier
from dicomveil.compile import compile_request
from dicomveil.keys import Keys
from dicomveil.request import Request
from dicomveil.rewrite import Rewriter
from dicomveil.scan import scan_instance
from dicomveil.stream import BytesSource
from dicomveil.study import Identities, build_study_map
from dicomveil.testing import EXPLICIT, Syntax, minimal, part10
from dicomveil.uids import new_uid
from dicomveil.walk import Mapping

KEY: Final = bytes(range(32))
INSTANCES: Final = ("CT_small.dcm", "MR_small.dcm")
GOAL: Final = 40
PIXEL_DATA: Final = 0x7FE00010
MIB: Final = 1 << 20


def main() -> None:
    """Measure what was asked for, and print one table of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="of both sides, one after the other")
    parser.add_argument("--mebibytes", type=int, default=1024, help="of pixel data in the large instance; 0 skips it")
    asked = parser.parse_args()
    console = Console()
    console.print(speed(asked.rounds))
    if asked.mebibytes:
        console.print(memory(asked.mebibytes))


# ------------------------------------------------------------------------------------------------------------- speed


def speed(rounds: int) -> Table:
    """The full Basic Profile, bytes in and bytes out, against anonymize plus pydicom's read and save."""
    table = Table(
        "instance", "", "dicognito ms", "dicomveil ms", "ratio", "goal", title=f"Rewriting, medians of {rounds} rounds"
    )
    for name in INSTANCES:
        data = Path(str(get_testdata_file(name, download=False))).read_bytes()
        for what, ours, goal in (
            ("rewrite", rewrite(data), str(GOAL)),
            ("rewrite, no UID met before", rewrite(data, remember=False), ""),
            ("scan, map and rewrite", everything(data), ""),
        ):
            theirs, mine = interleaved(dicognito(data), ours, rounds)
            ratio = statistics.median(one / other for one, other in zip(theirs, mine, strict=True))
            medians = f"{statistics.median(theirs):.2f}", f"{statistics.median(mine):.3f}"
            table.add_row(name, what, *medians, f"{ratio:.0f}", goal)
    return table


def rewrite(data: bytes, remember: bool = True) -> Callable[[], object]:
    """The engine's rewrite as a worker does it, with the plan at hand.

    Args:
      remember: whether UIDs that were mapped before are remembered, as those of a study are from instance to instance.
    """
    keys = Keys(KEY)
    rewriter = Rewriter(compile_request(Request()), keys)
    scan = scan_instance(BytesSource(data))
    study_map = build_study_map((scan,), Identities(keys, Request()))
    if remember:
        return lambda: rewriter.rewrite(BytesSource(data), scan, study_map).to_bytes()

    def forgetful() -> bytes:
        rewriter._uids = Mapping(partial(new_uid, keys))
        return rewriter.rewrite(BytesSource(data), scan, study_map).to_bytes()

    return forgetful


def everything(data: bytes) -> Callable[[], object]:
    """All of it for one instance alone."""
    engine = Deidentifier(key=KEY)
    return lambda: engine.rewrite(data)


def dicognito(data: bytes) -> Callable[[], object]:
    anonymizer = Anonymizer(seed="benchmark")

    def anonymize() -> None:
        ds = pydicom.dcmread(io.BytesIO(data))
        anonymizer.anonymize(ds)
        ds.save_as(io.BytesIO())

    return anonymize


def interleaved(slow: Callable[[], object], fast: Callable[[], object], rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds a call of each side, round by round, after one round that isn't counted."""
    found = [(milliseconds(slow, 10), milliseconds(fast, 200)) for _ in range(rounds + 1)][1:]
    return [one for one, _ in found], [other for _, other in found]


def milliseconds(call: Callable[[], object], times: int) -> float:
    begun = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - begun) / times * 1000


# ------------------------------------------------------------------------------------------------------------ memory

# Runs in a process of its own. VmHWM is that process's own peak; ru_maxrss would count what its parent held.
_PEAK: Final = """
import sys
from pipelines.cli import cli
try:
    cli.main(sys.argv[1:], prog_name="dicomveil", standalone_mode=False)
except SystemExit as ended:
    if ended.code:
        raise
with open("/proc/self/status") as status:
    print(next(line for line in status if line.startswith("VmHWM")).split()[1])
"""


def memory(mebibytes: int) -> Table:
    """Peak resident memory of the whole command on one multi-frame instance, beside that on a tiny one."""
    table = Table("pixel data MiB", "peak resident MiB", "seconds", title="The command, one worker")
    for size in (1, mebibytes):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "in.dcm"
            write_multi_frame(source, size)
            begun = time.perf_counter()
            peak = peak_kibibytes(source, Path(folder) / "out")
            table.add_row(f"{size:,}", f"{peak / 1024:.0f}", f"{time.perf_counter() - begun:.1f}")
    return table


def peak_kibibytes(source: Path, output: Path) -> int:
    command = [sys.executable, "-c", _PEAK, "anonymize", "--input", str(source), "--output", str(output)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    (written,) = output.rglob("*.dcm")
    assert written.stat().st_size > source.stat().st_size - 4096
    return int(done.stdout.split()[-1])


def write_multi_frame(path: Path, mebibytes: int) -> None:
    """An instance of so many frames of 1 MiB, its pixels a hole in the file."""
    e = Syntax(EXPLICIT)
    head = minimal(
        e,
        (0x00280008, e.element(0x00280008, "IS", str(mebibytes))),
        (0x00280010, e.element(0x00280010, "US", 512)),
        (0x00280011, e.element(0x00280011, "US", 1024)),
        (PIXEL_DATA, e.element(PIXEL_DATA, "OW", b"", length=mebibytes * MIB)),
    )
    with path.open("wb") as out:
        out.write(part10(head))
        out.truncate(out.tell() + mebibytes * MIB)


if __name__ == "__main__":
    main()
