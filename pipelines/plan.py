"""The first straight line: list, scan, settle conflicts, build the studies' maps, and keep it all as the plan."""

import json
import shutil
from collections import Counter
from dataclasses import dataclass

import apache_beam as beam

from pipelines.runs import Run
from transforms import plans, stores
from transforms.conflicts import SettleConflicts
from transforms.match import MatchSources
from transforms.plan import SumListed, WritePlan
from transforms.scan import ScanInstances
from transforms.study import BuildStudyMaps


@dataclass(frozen=True)
class Verdict:
    """What the plan comes to, before anything is written.

    Attributes:
      listed: how many objects; `tokens` is the sum of their tokens.
      reasons: how many are set aside, by reason.
      buckets: instances in each bucket that has any.
      map_bytes: of all encoded study maps.
    """

    listed: int
    tokens: str
    bytes: int
    studies: int
    map_bytes: int
    reasons: dict[str, int]
    buckets: dict[int, int]


def build(pipeline: beam.Pipeline, run: Run) -> None:
    """PLAN: objects -> scans -> settled -> maps -> buckets."""
    sources = pipeline | "Match" >> MatchSources(str(run.folder / "inputs.json"), run.key)
    scanned = sources | "Scan" >> ScanInstances(run.key, str(run.progress))
    planned = scanned | "Conflicts" >> SettleConflicts(run.key, run.request.conflicts)
    maps = planned | "Maps" >> BuildStudyMaps(run.key)
    (planned, maps) | "Keep" >> WritePlan(str(run.folder))
    sources | "Listed" >> SumListed(str(run.folder))


def verdict(run: Run) -> Verdict:
    """The plan's verdict, kept with it: where it is, the plan is whole, and a resumed run scans nothing again."""
    kept = run.folder / "verdict.json"
    if not kept.exists():
        stores.create_restricted(kept, json.dumps(vars(_judge(run))).encode())
    content = json.loads(kept.read_bytes())
    return Verdict(**content | {"buckets": {int(bucket): count for bucket, count in content["buckets"].items()}})


def discard(run: Run) -> None:
    """Remove what a plan that never became whole has left."""
    shutil.rmtree(run.folder / "plan", ignore_errors=True)


def planned(run: Run) -> bool:
    """Whether the plan is whole."""
    return (run.folder / "verdict.json").exists()


def _judge(run: Run) -> Verdict:
    folder = str(run.folder)
    reasons: Counter[str] = Counter()
    buckets, size, studies, map_bytes = {}, 0, 0, 0
    for bucket in range(plans.BUCKETS):
        instances = plans.read_instances(folder, bucket)
        if instances:
            buckets[bucket] = len(instances)
            reasons.update(planned.reason for planned in instances if planned.reason)
            size += sum(planned.size for planned in instances)
        for _, encoded in plans.read_studies(folder, bucket):
            studies, map_bytes = studies + 1, map_bytes + len(encoded)
    listed, tokens = (run.folder / "listed").read_text().split()
    return Verdict(int(listed), tokens, size, studies, map_bytes, dict(reasons), buckets)


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
