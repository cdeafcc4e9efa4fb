"""The pipelines that are measured: the plan without listing and scanning, and a slice without reading and writing."""

from collections.abc import Iterator

import apache_beam as beam

from benchmarks.scale.archive import MakeScans
from dicomveil.study_map import StudyMap
from pipelines import plan
from pipelines.runs import Run
from transforms.maps import PairWithMaps
from transforms.notes import WriteNote
from transforms.plan import SumListed
from transforms.records import Planned
from transforms.scan import ScanInstances


def build_plan(pipeline: beam.Pipeline, run: Run, instances: int) -> None:
    """Made-up scans -> settled -> maps -> buckets."""
    scanned = pipeline | "Archive" >> MakeScans(instances, run.key)
    scanned | "Listed" >> SumListed(str(run.folder))
    scan = ScanInstances(run.key, str(run.progress), run.worker_request)  # for what rejoins: nothing does
    plan.settle(pipeline, run, scanned, scanned, scan, None)


def build_slice(pipeline: beam.Pipeline, run: Run, number: int, buckets: list[int], way: str) -> None:
    """Planned instances + maps -> how many met theirs."""
    (
        pipeline
        | "Slice" >> beam.Create(buckets, reshuffle=False)
        | "Pair" >> PairWithMaps(str(run.folder), way)
        | "Look" >> beam.ParDo(_LookFn()).with_output_types(int)
        | "Count" >> beam.CombineGlobally(sum)
        | "Note" >> WriteNote(run.slice_record(number), str)
    )


class _LookFn(beam.DoFn):
    """Does with a map what a rewrite does: reads it once as long as the instances of its study come together."""

    _last: tuple[bytes, StudyMap] = b"", StudyMap("")

    def process(self, pair: tuple[Planned, bytes]) -> Iterator[int]:
        planned, encoded = pair
        if encoded != self._last[0]:
            self._last = encoded, StudyMap.decode(encoded)
        assert self._last[1].study_token == planned.study_token
        yield 1
