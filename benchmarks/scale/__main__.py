"""How what a run does beside reading and writing grows with the archive: time, memory, and bytes between stages.

    python -m benchmarks.scale --instances 100000 1000000 [--json FILE] [--runner=FlinkRunner ... as a run has it]

Each size has a process of its own, so that the peaks are its own. What is measured is of this machine and moment; what
counts is how it goes with the size.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.machine import report
from benchmarks.scale import graph
from benchmarks.scale.watch import below_this, cluster_workers, task_managers, watched
from dicomveil.keys import generate_key
from dicomveil.request import Request
from pipelines import plan
from pipelines.choices import Choices
from pipelines.places import Places
from pipelines.runners import Runner, runner_of
from pipelines.runs import Run
from transforms import maps, stores
from transforms.secrets import refer

_SLICES: Final = 3
"""So many are measured where there are many: one is like the other."""


def measure(instances: int, way: str, workers: int, words: list[str]) -> dict[str, Any]:
    """Plan an archive of so many instances, and bring the maps of its first slices to their instances.

    Args:
      way: one of `transforms.maps.WAYS`.
      words: Beam's options; none for this machine as the runner.

    Raises:
      AssertionError: not every instance met its study's map.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = _run(Path(folder))
        runner = runner_of(workers, words)
        planned = _watched(runner, words, partial(graph.build_plan, run=run, instances=instances), "plan", run)
        begun = time.monotonic()
        verdict = plan.verdict(run)
        judged = time.monotonic() - begun
        assert (verdict.listed, sum(verdict.buckets.values())) == (instances, instances), verdict.reasons
        slices = plan.slices(verdict, runner.slice)
        stores.restricted_folder(run.slice_record(0).parent)
        way = maps.way(way, verdict.map_bytes)
        joined = []
        for number, buckets in enumerate(slices[:_SLICES]):
            build = partial(graph.build_slice, run=run, number=number, buckets=buckets, way=way)
            met = {"instances": sum(map(verdict.buckets.__getitem__, buckets))}
            joined.append(met | _watched(runner, words, build, f"slice-{number}", run))
            assert int(run.slice_record(number).read_bytes()) == met["instances"]
    return {
        "instances": instances,
        "studies": verdict.studies,
        "buckets": len(verdict.buckets),
        "map_bytes": verdict.map_bytes,
        "maps": way,
        "plan": planned,
        "verdict": {
            "seconds": round(judged, 3),
            "peak_mib_of_command": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        },
        "slices": len(slices),
        "slices_measured": joined,
    }


def _run(folder: Path) -> Run:
    """A run of the Basic Profile that has just begun."""
    key = folder / "key"
    stores.create_restricted(key, generate_key().encode())
    where = Places((), str(folder / "out"), str(folder / "audit"), str(folder / "restricted"))
    run = Run("scale", where, Request(), refer(f"file:{key}"), False, "", Choices())
    stores.restricted_folder(run.progress)
    return run


def _watched(runner: Runner, words: list[str], build: Any, stage: str, run: Run) -> dict[str, Any]:
    here = not words
    with (
        watched(below_this if here else cluster_workers) as workers,
        watched(lambda: [psutil.Process()] if here else task_managers()) as engine,
    ):
        begun = time.monotonic()
        runner.run(build, f"dicomveil-scale-{stage}", run.scratch)
        took = time.monotonic() - begun
    return {
        "seconds": round(took, 3),
        "peak_mib_of_a_worker": workers.each >> 20,
        "peak_mib_of_the_engine": engine.all >> 20,
        "mib_written": sum((*workers.written.values(), *engine.written.values())) >> 20,
    }


def main() -> None:
    """Measure each size that was asked for in a process of its own, and print it all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, nargs="+", default=[100_000])
    parser.add_argument("--maps", choices=maps.WAYS, default=maps.JOIN)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="a file for what was measured")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked, words = parser.parse_known_args()
    if asked.one:
        print(json.dumps(measure(asked.instances[0], asked.maps, asked.workers, words)))
        return
    measured = []
    for instances in asked.instances:
        same = ["--maps", asked.maps, "--workers", str(asked.workers), *words]
        command = [sys.executable, "-m", "benchmarks.scale", "--one", "--instances", str(instances), *same]
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=dict(os.environ)).stdout
        measured.append(json.loads(told.splitlines()[-1]))
        report(measured, asked.json)  # each time, since the larger ones take long


if __name__ == "__main__":
    main()
