"""From what was measured to what larger archives take: the tables of docs/scale.md.

python -m benchmarks.scale.fit docs/figures/scale_local.json
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

TARGETS: Final = (100_000_000, 1_000_000_000)
_MILLION: Final = 1_000_000


class Line(NamedTuple):
    """What a thing takes: so much in any case, and so much for each million instances."""

    base: float
    each_million: float

    def at(self, instances: int) -> float:
        return self.base + self.each_million * instances / _MILLION


def fitted(measured: list[dict[str, Any]], of: Callable[[dict[str, Any]], float]) -> Line:
    """The line of least squares of relative errors, never below zero at its base.

    Raises:
      ValueError: fewer than two sizes.
    """
    sizes = np.array([it["instances"] / _MILLION for it in measured])
    if len(set(sizes)) < 2:
        raise ValueError("a line takes two sizes")
    took = np.array([of(it) for it in measured], float)
    weights = 1 / np.maximum(took, 1e-9)
    slope, base = np.polyfit(sizes, took, 1, w=weights)
    if base < 0:
        base, slope = 0, np.sum(weights**2 * sizes * took) / np.sum(weights**2 * sizes**2)
    return Line(float(base), float(slope))


def plan_seconds(measured: dict[str, Any]) -> float:
    """Of the plan, what the workers do."""
    return float(measured["plan"]["seconds"])


def verdict_seconds(measured: dict[str, Any]) -> float:
    """Of the plan, what the command does alone."""
    return float(measured["verdict"]["seconds"])


def slice_seconds(measured: dict[str, Any]) -> float:
    """What joining all slices takes, by those that were measured."""
    each = measured["slices_measured"]
    return float(sum(it["seconds"] for it in each) / sum(it["instances"] for it in each) * measured["instances"])


def written_gib(measured: dict[str, Any]) -> float:
    """What the plan writes between its stages, and as its buckets."""
    return float(measured["plan"]["mib_written"]) / 1024


_FITTED: Final[dict[str, Callable[[dict[str, Any]], float]]] = {
    "plan, workers, hours": lambda it: plan_seconds(it) / 3600,
    "plan, command alone, hours": lambda it: verdict_seconds(it) / 3600,
    "joining maps, hours": lambda it: slice_seconds(it) / 3600,
    "written while planning, GiB": written_gib,
}


def tables(measured: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of two tables in Markdown: what was measured, and what follows."""
    peaks_of = ("MiB of a worker", "MiB of the engine", "MiB of the command")
    yield _row(["instances", "plan, s", "verdict, s", "a slice of", "s", *peaks_of])
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for it in measured:
        first, stages = it["slices_measured"][0], [it["plan"], *it["slices_measured"]]
        peaks = [max(stage[f"peak_mib_of_{whose}"] for stage in stages) for whose in ("a_worker", "the_engine")]
        plan, verdict, one = (f"{it:.1f}" for it in (plan_seconds(it), verdict_seconds(it), first["seconds"]))
        cells = [it["instances"], plan, verdict, first["instances"], one]
        yield _row([*cells, *peaks, it["verdict"]["peak_mib_of_command"]])
    yield ""
    yield _row(["", "in any case", "each million", *(f"{target:,}" for target in TARGETS)])
    yield "| --- | --- | --- | --- | --- |"
    for name, of in _FITTED.items():
        line = fitted(measured, of)
        yield _row([name, *(f"{value:.2g}" for value in line), *(f"{line.at(target):,.1f}" for target in TARGETS)])


def _row(cells: list[Any]) -> str:
    return "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells) + " |"


if __name__ == "__main__":
    for file in sys.argv[1:]:
        print(*tables(json.loads(Path(file).read_bytes())["measured"]), sep="\n")
