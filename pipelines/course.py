"""The course of a run, whatever its command: plan, then execute in slices, then settle that every object has its one
outcome.
"""

import datetime
import json
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any, Final

from dicomveil.errors import REASONS, DicomveilError
from pipelines import costs, execute, failures, known, ledger, look, plan, retire, runs
from pipelines.places import RunFailed, RunRefused
from pipelines.progress import Report
from pipelines.resources import check_resources
from pipelines.runners import Runner
from pipelines.runs import Run
from pipelines.summary import STOPPED, Settled, Summary
from transforms import maps, store_failures, stores, tables
from transforms.rewrite import NOT_PERMISSIVE

_STAGES: Final = {"anonymize": "De-identifying", "split": "Splitting", "merge": "Merging"}
_PLURALS: Final = {
    "patient": "patients",
    "study": "studies",
    "series": "series",
    "instance": "instances",
    "frame-of-reference": "frames of reference",
}
_STOPPED: Final = {
    store_failures.STORE_FULL: "Make room",
    store_failures.STORE_FAILED: "See to it",
    store_failures.STORE_REFUSED: "Check the credentials, and what they may do",
    store_failures.STORE_UNREACHED: "See to it",
    store_failures.STORE_UNNAMEABLE: "Rename it, or name as --input what lies beside it",
}


def carry_out(run: Run, runner: Runner, report: Report, plan_only: bool) -> Summary | None:
    """Carry a run from wherever it stands to its end; None where only the plan was asked for.

    Raises:
      RunFailed: it stopped, and can be started again to go on from where it was.
    """
    run.apart = runner.apart
    runs.sweep(run)
    for folder in (run.scratch, run.progress):
        stores.restricted_folder(folder)
    if not plan.planned(run):
        plan.discard(run)
        try:
            run.known = known.gather(run)
            run.ledger = ledger.ask(run)
        except DicomveilError:
            runs.finish(run)  # with another crosswalk or request it is another run
            raise
        with report.stage("Planning", str(run.progress)):
            if run.ledger:
                _run(run, partial(look.build, run=run), runner, "look")
            if not run.ledger or look.due(run):
                _run(run, partial(plan.build, run=run), runner, "plan")
    verdict = plan.verdict(run)
    report.plan(verdict, run.request.keep_source)
    try:
        _check(run, verdict)
    except DicomveilError:
        plan.discard(run)  # whatever the user mends, the same command looks at it anew
        raise
    if plan_only:
        _tell_costs(run, verdict, runner, report)
        return None
    slices = plan.sliced(run, verdict, runner.slice)
    stores.restricted_folder(run.slice_record(0).parent)
    stage = _STAGES.get(run.request.command, "Modifying")
    way = maps.way(run.choices.maps, verdict.map_bytes)
    with report.stage(stage, str(run.progress), verdict.due) if slices else nullcontext():
        watch = failures.Watch(run, verdict)
        for number, buckets in enumerate(slices):
            if run.slice_record(number).exists():
                watch.settle(buckets, _outcomes(run, number))
            elif not watch.stopped:
                run.temporary.mkdir(parents=True, exist_ok=True)
                counts = {it: verdict.buckets[it] for it in buckets}
                build = partial(execute.build, run=run, number=number, buckets=counts, way=way)
                with watch.looking():
                    _run(run, build, runner, f"slice-{number}")
                watch.settle(buckets, _outcomes(run, number))
    settled = _settle(run, slices, verdict)
    settled.stopped = watch.stopped
    if verdict.former:
        _retire(run, settled, bool(verdict.deferred or settled.stopped), runner)
    if (settled.count, f"{settled.tokens:032x}") != (verdict.listed, verdict.tokens):
        raise RunFailed(
            f"{verdict.listed} objects were listed and {settled.count} settled, so the run isn't committed. "
            "Please report it."
        )
    finished = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    summary = Summary(run, verdict, settled, finished)
    settled.parts["restricted"] += runs.given_parts(run.places.restricted, run.id)
    runs.commit(run, settled.parts, summary.content(), whole=not settled.stopped)
    runs.sweep(run)
    runs.finish(run)
    return summary


def _tell_costs(run: Run, verdict: plan.Verdict, runner: Runner, report: Report) -> None:
    where = run.places
    slices = [sum(map(verdict.buckets.__getitem__, it)) for it in plan.slices(verdict, runner.slice)]
    parts = sum(map(execute.shards, slices)) * (len(tables.AUDIT) + len(tables.RESTRICTED))
    records = 2 * len(verdict.buckets) + parts + len(slices)
    needed = costs.needs(
        verdict.met, where.inputs, verdict.unchanged, where.output, where.restricted, where.audit, records
    )
    costs.tell(report.console, needed, [*costs.notes(verdict.met, where.output), *_former(run, verdict)])


def _former(run: Run, verdict: plan.Verdict) -> Iterator[str]:
    """What becomes of outputs whose sources aren't as they were, as a sentence; nothing where all are."""
    if verdict.former:
        gone = "is removed where nothing else stands for it" if run.choices.retire else "stays, without --retire"
        yield (
            f"{verdict.former:,} objects that were settled aren't there any more, or not as they were: an output of "
            f"one that has changed is replaced, or removed; one of an object that is gone {gone}."
        )


def _check(run: Run, verdict: plan.Verdict) -> None:
    """Stop before anything is written, where the plan shows that it would be wrong to go on."""
    check_resources(run)
    merged = {role: count for role, count in verdict.merged.items() if role == "instance" or not _may_merge(run)}
    if merged:
        counts = ", ".join(f"{count} {_PLURALS[role]}" for role, count in sorted(merged.items()))
        or_else = "" if "instance" in merged else ", or add AllowMerge: true and Force: true"
        remedy = f" Leave the constant out{or_else}."
        raise RunRefused(f"A constant of the request would make one of {counts}; nothing was written.{remedy}")
    failed, limits = failures.planned(verdict), run.choices.limits
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(failed.items()))
    if failed and not run.request.permissive:
        raise RunFailed(f"Permissive is false, and the plan sets inputs aside: {told}. Nothing was written.")
    if sum(failed.values()) > limits.borne(verdict.due):
        raise RunFailed(
            f"Of {verdict.due:,} objects the plan sets aside {told}: more than --max-failures {limits.failures}. "
            "Nothing was written. What they are, a run without the limit tells."
        )


def _may_merge(run: Run) -> bool:
    return run.request.allow_merge and run.request.force


def _run(run: Run, build: Callable[[Any], None], runner: Runner, stage: str) -> None:
    try:
        runner.run(build, f"dicomveil-{run.id}-{stage}".lower(), run.scratch)
    except RunFailed:
        raise
    except Exception as failure:
        # Beam puts a worker's exception into the text of its own; only the kind of it is told on.
        if KeyboardInterrupt.__name__ in str(failure):
            raise KeyboardInterrupt from None
        if found := re.search(f"{NOT_PERMISSIVE}<([a-z-]+)>", str(failure)):
            raise RunFailed(
                f"Permissive is false, and an instance was set aside: {found[1]}. {REASONS[found[1]].meaning} "
                "What was written so far stays under --output, and isn't committed."
            ) from None
        for met, remedy in _STOPPED.items():
            if met in str(failure):
                raise RunFailed(f"There is {met}. {remedy}, and run the same command again.") from None
        raise RunFailed(
            f"A worker failed ({type(failure).__name__}). Run the same command again: it goes on from where it was. "
            f"What the workers said is in {runner.said or run.scratch / 'workers.log'}."
        ) from None


def _retire(run: Run, settled: Settled, unfinished: bool, runner: Runner) -> None:
    """Settle what becomes of former versions, record it, and then remove what is to go."""
    if not retire.record_of(run.folder).exists():
        written = retire.written(run.places.restricted, settled.parts["restricted"])
        _run(run, partial(retire.build, run=run, written=written, unfinished=unfinished), runner, "retire")
    runs.hold(run.lease)
    for zone, name, count in retire.remove_recorded(run.folder, run.places.restricted, run.places.output):
        if zone == "gone":
            settled.gone[name] += count
        else:
            settled.parts[zone].append({"path": name, "rows": count})


def _outcomes(run: Run, number: int) -> dict[str, int]:
    """How many objects of a slice that has ended had an outcome, by "outcome reason"."""
    record = json.loads(run.slice_record(number).read_bytes())
    return {name: of for zone, name, of in record if zone == "settled"}


def _settle(run: Run, slices: list[list[int]], verdict: plan.Verdict) -> Settled:
    """Add up what was settled, by the slices and by earlier runs, and what was left."""
    settled = Settled()
    settled.add(verdict.unchanged, verdict.unchanged_tokens)
    settled.add(verdict.deferred, verdict.deferred_tokens)
    for number, buckets in enumerate(slices):
        if not run.slice_record(number).exists():
            left = failures.left(run, buckets)
            settled.add(left.objects, f"{left.tokens:x}")
            settled.outcomes[STOPPED] += left.objects
            continue
        for zone, name, count in json.loads(run.slice_record(number).read_bytes()):
            if zone == "tokens":
                settled.add(count, name)
            elif zone in ("settled", "risk", "frozen"):
                {"settled": settled.outcomes, "risk": settled.risks, "frozen": settled.frozen}[zone][name] += count
            else:
                settled.parts[zone].append({"path": name, "rows": count})
    return settled
