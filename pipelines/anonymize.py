"""De-identify an archive: plan, then execute in slices, then settle that every object has its one outcome."""

import datetime
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from dicomveil.errors import DicomveilError
from pipelines import execute, plan, runs
from pipelines.progress import Report
from pipelines.runners import local_pipeline, workers_log
from pipelines.runs import Run
from pipelines.summary import Summary
from transforms import stores

SLICE: Final = 4000
_STOPPED: Final = {stores.STORE_FULL: "Make room", stores.STORE_FAILED: "See to it"}


class RunFailed(DicomveilError):
    """The run stopped; the message says why, and what to do."""


@dataclass
class Settled:
    """What the slices' records add up to.

    Attributes:
      parts: of the tables, by zone.
      outcomes: how many, by "outcome reason".
    """

    count: int = 0
    tokens: int = 0
    parts: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"audit": [], "restricted": []})
    outcomes: Counter[str] = field(default_factory=Counter)


def anonymize(run: Run, workers: int, beam_options: list[str], report: Report, plan_only: bool) -> Summary | None:
    """Carry a run from wherever it stands to its end; None where only the plan was asked for.

    Raises:
      RunFailed: it stopped, and can be started again to go on from where it was.
    """
    runs.sweep(run)
    stores.restricted_folder(run.progress)
    if not plan.planned(run):
        plan.discard(run)
        with report.stage("Planning", str(run.progress)):
            _run(run, partial(plan.build, run=run), workers, beam_options)
    verdict = plan.verdict(run)
    report.plan(verdict)
    if plan_only:
        return None
    slices = plan.slices(verdict, SLICE)
    with report.stage("De-identifying", str(run.progress), verdict.listed):
        for number, buckets in enumerate(slices):
            if not run.slice_record(number).exists():
                run.temporary.mkdir(parents=True, exist_ok=True)
                build = partial(execute.build, run=run, number=number, buckets=buckets)
                _run(run, build, workers, beam_options)
    settled = _settle(run, len(slices))
    if (settled.count, f"{settled.tokens:032x}") != (verdict.listed, verdict.tokens):
        raise RunFailed(
            f"{verdict.listed} objects were listed and {settled.count} settled, so the run isn't committed. "
            "Please report it."
        )
    finished = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    summary = Summary(run, verdict, settled.outcomes, settled.parts, finished)
    runs.commit(run, settled.parts, summary.content())
    runs.sweep(run)
    runs.finish(run)
    return summary


def _run(run: Run, build: Callable[[Any], None], workers: int, beam_options: list[str]) -> None:
    try:
        with workers_log(run.folder / "workers.log"):
            pipeline = local_pipeline(workers, beam_options)
            build(pipeline)
            pipeline.run().wait_until_finish()
    except Exception as failure:
        # Beam puts a worker's exception into the text of its own; only the kind of it is told on.
        if KeyboardInterrupt.__name__ in str(failure):
            raise KeyboardInterrupt from None
        for met, remedy in _STOPPED.items():
            if met in str(failure):
                raise RunFailed(f"There is {met}. {remedy}, and run the same command again.") from None
        raise RunFailed(
            f"A worker failed ({type(failure).__name__}). Run the same command again: it goes on from where it was. "
            f"What the workers said is in workers.log of run={run.id} under --restricted."
        ) from None


def _settle(run: Run, slices: int) -> Settled:
    settled = Settled()
    for number in range(slices):
        for zone, name, count in json.loads(run.slice_record(number).read_bytes()):
            if zone == "tokens":
                settled.count += count
                settled.tokens = (settled.tokens + int(name, 16)) % (1 << 128)
            elif zone == "settled":
                settled.outcomes[name] += count
            else:
                settled.parts[zone].append({"path": name, "rows": count})
    return settled
