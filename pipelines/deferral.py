"""What a limited run takes, and what it leaves for the next one.

Whole studies are taken, in the order of the buckets and of the studies' tokens, which are keyed hashes: which ones come
first follows from the key and tells nothing of whose they are.
"""

from collections import defaultdict
from typing import NamedTuple

from pipelines.costs import Met, meet
from pipelines.runs import Run
from transforms import plans
from transforms.outcomes import TOKENS
from transforms.records import Planned


class Total(NamedTuple):
    """So many objects, and the sum of their tokens modulo 2^128."""

    objects: int = 0
    tokens: int = 0

    def plus(self, instances: list[Planned]) -> "Total":
        """The same with more."""
        more = sum(int(planned.token, 16) for planned in instances)
        return Total(self.objects + len(instances), (self.tokens + more) % TOKENS)


def defer(run: Run, met: dict[str, Met]) -> Total:
    """Take from the plan what goes beyond the limits: what was taken away. The first study stays, however large.

    Args:
      met: where it is added what scanning that has taken, by scheme and storage class.
    """
    limits, deferred = run.choices.limits, Total()
    if not (limits.instances or limits.bytes):
        return deferred
    count = size = 0
    full = False
    folder = str(run.folder)
    for bucket in plans.buckets(folder):
        studies: defaultdict[str, list[Planned]] = defaultdict(list)
        for planned in plans.read_instances(folder, bucket):
            studies[planned.study_token].append(planned)
        left = set()
        for token in sorted(studies.keys() - {""}):
            more = [planned for planned in studies[token] if not planned.reason]
            full = full or (bool(count) and limits.beyond(count + len(more), size + _bytes(more)))
            if full:
                left.add(token)
                meet(studies[token], met, taken=False)
                deferred = deferred.plus(studies.pop(token))
            else:
                count, size = count + len(more), size + _bytes(more)
        if left:
            stay = [planned for instances in studies.values() for planned in instances]
            maps = [study for study in plans.read_studies(folder, bucket) if study.study_token not in left]
            plans.replace_bucket(folder, bucket, stay, maps)
    return deferred


def _bytes(instances: list[Planned]) -> int:
    return sum(planned.size for planned in instances)
