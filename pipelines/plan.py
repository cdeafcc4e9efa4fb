"""The first straight line: list, scan, settle conflicts, build the studies' maps, and keep it all as the plan."""

import json
import shutil
from collections import Counter
from dataclasses import dataclass

import apache_beam as beam

from dicomveil.scan import InstanceScan
from dicomveil.study import borne
from dicomveil.study_map import StudyMap
from pipelines import runs
from pipelines.runs import Run
from transforms import facts, plans, stores
from transforms.alterations import BuildAlterations
from transforms.conflicts import SettleConflicts
from transforms.facts import Facts
from transforms.issuers import CountIssuers
from transforms.match import MatchSources
from transforms.plan import SumListed, WritePlan
from transforms.records import Planned
from transforms.rejoin import RejoinInstances, SieveTokens
from transforms.scan import ScanInstances
from transforms.selection import SelectResources
from transforms.study import BuildStudyMaps


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


def build(pipeline: beam.Pipeline, run: Run) -> None:
    """PLAN: objects -> scans -> selected -> settled -> maps -> buckets; and once more for what rejoins."""
    request = run.worker_request
    scan = ScanInstances(run.key, str(run.progress), request)
    sources = pipeline | "Match" >> MatchSources(str(run.folder / "inputs.json"), run.key)
    scanned = sources | "Scan" >> scan
    if run.request.selects:
        described = run.described if request.describes else None
        selecting = SelectResources(run.selection, run.found, described, run.key, request)
        scanned = scanned | "Select" >> selecting
    known = Facts(pipeline, run.known)
    sieve = scanned | "Tokens" >> SieveTokens() if known.kinds else None
    planned = scanned | "Conflicts" >> SettleConflicts(run.key, request, run.places.output, known, sieve)
    if request.alters:
        studies = planned | "Alterations" >> BuildAlterations(run.key, request, runs.altered_before(run))
    else:
        studies = planned | "Maps" >> BuildStudyMaps(run.key, request, known, sieve)
        planned | "Issuers" >> CountIssuers(str(run.folder), run.key)
    if facts.INSTANCES in known.kinds:
        rejoining = (studies, planned) | "Rejoin" >> RejoinInstances(run.key, request, known)
        planned = (planned, rejoining | "Scan again" >> scan) | "Instances" >> beam.Flatten()
        sources = (sources, rejoining) | "Objects" >> beam.Flatten()
    (planned, studies) | "Keep" >> WritePlan(str(run.folder))
    sources | "Listed" >> SumListed(str(run.folder))


def verdict(run: Run) -> Verdict:
    """The plan's verdict, kept with it: where it is, the plan is whole, and a resumed run scans nothing again."""
    kept = run.folder / "verdict.json"
    if not kept.exists():
        stores.create_restricted(kept, json.dumps(vars(_judge(run))).encode())
    content = json.loads(kept.read_bytes())
    return Verdict(**content | {"buckets": {int(bucket): count for bucket, count in content["buckets"].items()}})


def discard(run: Run) -> None:
    """Remove a plan: one that never became whole, or was refused."""
    (run.folder / "verdict.json").unlink(missing_ok=True)
    shutil.rmtree(run.folder / "plan", ignore_errors=True)


def planned(run: Run) -> bool:
    """Whether the plan is whole."""
    return (run.folder / "verdict.json").exists()


def _judge(run: Run) -> Verdict:
    folder = str(run.folder)
    reasons: Counter[str] = Counter()
    originals: dict[str, set[str]] = {role: set() for role in run.request.given}
    buckets, size, studies, map_bytes, rejoining = {}, 0, 0, 0, 0
    for bucket in range(plans.BUCKETS):
        instances = plans.read_instances(folder, bucket)
        if instances:
            buckets[bucket] = len(instances)
            reasons.update(planned.reason for planned in instances if planned.reason)
            size += sum(planned.size for planned in instances)
            rejoining += sum(planned.rejoins for planned in instances)
        maps = {study.study_token: study.study_map for study in plans.read_studies(folder, bucket)}
        studies += len({planned.study_token for planned in instances} - {""})
        map_bytes += sum(map(len, maps.values()))
        if originals:
            _gather(originals, instances, maps)
    listed, tokens = (run.folder / "listed").read_text().split()
    issuers = run.folder / "issuers"
    return Verdict(
        int(listed),
        tokens,
        size,
        studies,
        map_bytes,
        dict(reasons),
        buckets,
        _counts(originals),
        rejoining,
        int(issuers.read_text()) if issuers.exists() else 0,
    )


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
