"""The first straight line: list, scan, settle conflicts, build the studies' maps, and keep it all as the plan."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import apache_beam as beam

from dicomveil.scan import InstanceScan
from dicomveil.study import borne
from dicomveil.study_map import StudyMap
from pipelines import look, runs
from pipelines.costs import Met, meet
from pipelines.deferral import Total, defer
from pipelines.places import RunFailed
from pipelines.runs import Run
from transforms import facts, plans, stores
from transforms.alterations import BuildAlterations
from transforms.conflicts import SettleConflicts
from transforms.due import ReadDue, UnchangedOf
from transforms.facts import Facts, Retired
from transforms.formers import ReadSuperseded
from transforms.issuers import CountIssuers
from transforms.ledger import CountUnchanged
from transforms.match import MatchSources
from transforms.outcomes import TOKENS
from transforms.plan import LISTED, SumListed, WritePlan
from transforms.records import Planned
from transforms.rejoin import RejoinInstances, SieveTokens
from transforms.scan import ScanInstances
from transforms.selection import SelectResources
from transforms.study import BuildStudyMaps
from transforms.study_groups import SetLargeStudiesAside

_MORE, _AGAIN = "more", "again"
_SLICES: Final = "slices.json"


@dataclass(frozen=True)
class Verdict:
    """What the plan comes to, before anything is written.

    Attributes:
      listed: how many objects; `tokens` is the sum of their tokens.
      reasons: how many are set aside, by reason.
      buckets: instances in each bucket that has any.
      map_bytes: of all encoded study maps.
      merged: how many originals a constant of the request would make one of, by what they are: patient, study, ...
      rejoining: how many instances of earlier runs are written again.
      issuers: how many Patient IDs were seen under several issuers.
      unchanged: how many are as the ledger holds them, and aren't in any bucket; `unchanged_tokens` is the sum of their
        tokens, `unchanged_aside` how many of them were set aside, `unchanged_other` how many outputs among them another
        request, edition or recipe has made.
      former: how many versions of objects aren't there any more.
      deferred: how many are left for the next run by a limit, and aren't in any bucket; `deferred_tokens` likewise.
      met: what of it lies in which storage class, by scheme and class.
    """

    listed: int
    tokens: str
    bytes: int
    studies: int
    map_bytes: int
    reasons: dict[str, int]
    buckets: dict[int, int]
    merged: dict[str, int]
    rejoining: int
    issuers: int
    unchanged: int = 0
    unchanged_tokens: str = "0"
    unchanged_aside: int = 0
    unchanged_other: int = 0
    former: int = 0
    deferred: int = 0
    deferred_tokens: str = "0"
    met: dict[str, Met] = field(default_factory=dict)

    @property
    def due(self) -> int:
        """How many objects are processed."""
        return self.listed - self.unchanged - self.deferred


def build(pipeline: beam.Pipeline, run: Run) -> None:
    """PLAN: objects -> scans -> selected -> settled -> maps -> buckets; and once more for what rejoins."""
    taking = str(run.filter) if run.choices.taking else ""
    scan = ScanInstances(run.key, str(run.progress), run.worker_request, taking)
    folder = str(run.folder)
    if run.ledger:
        sources = pipeline | "Due" >> ReadDue(folder)
        superseded = pipeline | "Superseded" >> ReadSuperseded(folder, run.choices.retire)
    else:
        sources = pipeline | "Match" >> MatchSources(str(run.folder / "inputs.json"), run.key)
        sources | "Listed" >> SumListed(folder)
        superseded = None
    settle(pipeline, run, sources, sources | "Scan" >> scan, scan, superseded)


def settle(
    pipeline: beam.Pipeline,
    run: Run,
    sources: beam.PCollection,
    scanned: beam.PCollection[Planned],
    scan: beam.PTransform,
    superseded: beam.PCollection[Retired] | None,
) -> None:
    """The part of the plan that opens no object: scans -> selected -> settled -> maps -> buckets.

    Args:
      sources: what there is; its number counts.
      scan: from objects to scans, for what rejoins.
      superseded: what the ledger shows to be over; None where there is none.
    """
    request, folder = run.worker_request, str(run.folder)
    if run.request.selects:
        described = run.described if request.describes else None
        selecting = SelectResources(run.selection, run.found, described, run.key, request)
        scanned = scanned | "Select" >> selecting
    known = Facts(pipeline, run.known, superseded)
    sieve = scanned | "Tokens" >> SieveTokens() if known.kinds else None
    planned = scanned | "Conflicts" >> SettleConflicts(run.key, request, run.places.output, known, sieve)
    planned = planned | "Sizes" >> SetLargeStudiesAside(scanned)
    if request.alters:
        studies = planned | "Alterations" >> BuildAlterations(run.key, request, runs.altered_before(run))
    else:
        studies = planned | "Maps" >> BuildStudyMaps(run.key, request, known, sieve)
        planned | "Issuers" >> CountIssuers(folder, run.key)
    if facts.INSTANCES in known.kinds:
        rejoining = (studies, planned) | "Rejoin" >> RejoinInstances(run.key, request, known)
        planned = (planned, rejoining | "Scan again" >> scan) | "Instances" >> beam.Flatten()
        rejoining | "More" >> SumListed(folder, _MORE)
        sources = (sources, rejoining) | "All" >> beam.Flatten()
        if run.ledger:
            again = rejoining | "Though unchanged" >> UnchangedOf(folder)
            again | "Count them" >> CountUnchanged(run.folder / _AGAIN)
    (planned, studies) | "Keep" >> WritePlan(folder, sources)


def verdict(run: Run) -> Verdict:
    """The plan's verdict, kept with it: where it is, the plan is whole, and a resumed run scans nothing again.

    Raises:
      RunFailed: it doesn't hold each object once; it is discarded.
    """
    kept = run.folder / "verdict.json"
    if not kept.exists():
        met: dict[str, Met] = {}
        judged = _judge(run, defer(run, met), met)
        if sum(judged.buckets.values()) != judged.due:
            discard(run)
            raise RunFailed(
                "The inputs changed while they were listed once more, for a worker that had died. Nothing was written; "
                "run the same command again."
            )
        stores.create_restricted(kept, json.dumps(vars(judged)).encode())
    content = json.loads(kept.read_bytes())
    content["buckets"] = {int(bucket): count for bucket, count in content["buckets"].items()}
    content["met"] = {kind: Met(*counts) for kind, counts in content["met"].items()}
    return Verdict(**content)


def discard(run: Run) -> None:
    """Remove a plan: one that never became whole, or was refused."""
    for kept in ("verdict.json", _SLICES):
        (run.folder / kept).unlink(missing_ok=True)
    stores.clear(run.folder / "plan")


def planned(run: Run) -> bool:
    """Whether the plan is whole."""
    return (run.folder / "verdict.json").exists()


def _judge(run: Run, deferred: Total, met: dict[str, Met]) -> Verdict:
    folder = str(run.folder)
    reasons: Counter[str] = Counter()
    originals: dict[str, set[str]] = {role: set() for role in run.request.given}
    buckets, size, studies, map_bytes, rejoining = {}, 0, 0, 0, 0
    for bucket in plans.buckets(folder):
        instances = plans.read_instances(folder, bucket)
        if instances:
            buckets[bucket] = len(instances)
            reasons.update(planned.reason for planned in instances if planned.reason)
            size += sum(planned.size for planned in instances)
            rejoining += sum(planned.rejoins for planned in instances)
            meet(instances, met)
        maps = {study.study_token: study.study_map for study in plans.read_studies(folder, bucket)}
        studies += len({planned.study_token for planned in instances} - {""})
        map_bytes += sum(map(len, maps.values()))
        if originals:
            _gather(originals, instances, maps)
    listed, more = (_sum(run, name) for name in (LISTED, _MORE))
    unchanged, revived, again = (_noted(run, name) for name in (look.NOTED, look.REVIVED_NOTED, _AGAIN))
    left = [it - less - more for it, less, more in zip(unchanged, revived, again, strict=True)]
    issuers = run.folder / "issuers"
    return Verdict(
        listed[0] + more[0] - again[0],
        f"{(listed[1] + more[1] - again[1]) % TOKENS:032x}",
        size,
        studies,
        map_bytes,
        dict(reasons),
        buckets,
        _counts(originals),
        rejoining,
        int(issuers.read_text()) if issuers.exists() else 0,
        left[0],
        f"{left[1] % TOKENS:032x}",
        left[2],
        left[3],
        look.former(run),
        deferred.objects,
        f"{deferred.tokens:032x}",
        met,
    )


def _sum(run: Run, name: str) -> tuple[int, int]:
    """Count and sum of tokens of some objects."""
    note = run.folder / name
    count, tokens = note.read_text().split() if note.exists() else ("0", "0")
    return int(count), int(tokens, 16)


def _noted(run: Run, name: str) -> list[int]:
    """Count, sum of tokens, and two counts more, of objects that are as the ledger holds them."""
    note = run.folder / name
    return list(json.loads(note.read_bytes())) if note.exists() else [0, 0, 0, 0]


def _gather(originals: dict[str, set[str]], instances: list[Planned], maps: dict[str, bytes]) -> None:
    """Add what a constant would take the place of."""
    for planned in instances:
        if planned.scan and not planned.reason and planned.selected:
            scan = InstanceScan.decode(planned.scan)
            names = dict(borne(scan)) | {"patient": StudyMap.decode(maps[planned.study_token]).name or scan.patient_id}
            for role, found in originals.items():
                found.add(names.get(role, ""))


def _counts(originals: dict[str, set[str]]) -> dict[str, int]:
    return {role: count for role, found in originals.items() if (count := len(found - {""})) > 1}


def sliced(run: Run, verdict: Verdict, instances: int) -> list[list[int]]:
    """The slices that a run began with, or begins with now: when it goes on, a number must mean the same slice."""
    kept = run.folder / _SLICES
    if not kept.exists():
        stores.create_restricted(kept, json.dumps(slices(verdict, instances)).encode())
    return list(json.loads(kept.read_bytes()))


def slices(verdict: Verdict, instances: int) -> list[list[int]]:
    """The buckets in slices of at least so many instances, but for the last."""
    found: list[list[int]] = [[]]
    held = 0
    for bucket, count in sorted(verdict.buckets.items()):
        if held >= instances:
            found.append([])
            held = 0
        found[-1].append(bucket)
        held += count
    return [buckets for buckets in found if buckets]
