"""The second straight line: read the plan, attach the maps, rewrite, and write what became of each object."""

from typing import Final

import apache_beam as beam

from pipelines.runs import Run, taken
from transforms.audit import WriteCrosswalks, WriteOutcomes
from transforms.ledger import LedgerRows
from transforms.maps import PairWithMaps
from transforms.outcomes import WriteSliceRecord
from transforms.rewrite import Destination, RewriteInstances
from transforms.successors import WriteSuccessors

_SHARDS: Final = 4
_SHARD: Final = 1 << 10


def shards(instances: int) -> int:
    """Parts of a table that a slice has, each held by one worker; a slice that is done again writes the same names."""
    return max(_SHARDS, instances // _SHARD)


def build(pipeline: beam.Pipeline, run: Run, number: int, buckets: dict[int, int], way: str) -> None:
    """EXECUTE one slice: planned instances + maps -> objects and outcomes -> tables -> the slice's record.

    Args:
      buckets: how many instances each has.
    """
    where, folder, request, choices = run.places, str(run.folder), run.worker_request, run.choices
    slice_ = pipeline | "Slice" >> beam.Create(list(buckets), reshuffle=False)
    pairs = slice_ | "Pair" >> PairWithMaps(folder, way)
    stop = str(run.stop) if choices.limits.failures else ""
    destination = Destination(
        where.output, where.restricted, str(run.temporary), str(run.progress), stop, choices.kms_key
    )
    outcomes = pairs | "Rewrite" >> RewriteInstances(request, str(run.target), run.key, destination)
    fingerprint, taking = run.request.fingerprint, taken(choices.taking, run.key)
    ledger = LedgerRows(run.key, fingerprint, run.fingerprints["table"], taking)
    kept = None if request.alters or run.ephemeral else ledger
    written = outcomes | "Outcomes" >> WriteOutcomes(
        where.audit, where.restricted, run.id, f"{number:05}", shards(sum(buckets.values())), fingerprint, kept
    )
    linked = folder, where.audit, where.restricted, run.id, run.key, request
    crosswalks = slice_ | "Crosswalks" >> (
        WriteSuccessors(*linked, str(run.target)) if request.alters else WriteCrosswalks(*linked)
    )
    (written, crosswalks) | "All parts" >> beam.Flatten() | "Record" >> WriteSliceRecord(str(run.slice_record(number)))
