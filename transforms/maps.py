"""(instance, map of its study): how a study's facts reach its instances, wherever those are rewritten.

There are two ways, which come to the same. A side input brings all maps of a slice to every worker, which is quickest
as long as they are small. Joined, each study's map travels beside some of its instances at a time, so that no worker
holds more than one of them, and a large study is rewritten by all.
"""

from collections.abc import Iterator
from typing import Final

import apache_beam as beam

from transforms import plans
from transforms.plan import ReadMaps, ReadPlanned
from transforms.records import Planned

AUTO, SIDE_INPUT, JOIN = "auto", "side-input", "join"
WAYS: Final = (AUTO, SIDE_INPUT, JOIN)
LARGEST_SIDE_INPUT: Final = 256 << 20
_SMALLEST: Final = 64 << 10
_Batch = tuple[bytes, list[Planned]]


def way(asked: str, map_bytes: int) -> str:
    """The way that is gone.

    Args:
      asked: one of `WAYS`.
      map_bytes: of all encoded maps.
    """
    if asked != AUTO:
        return asked
    return SIDE_INPUT if map_bytes <= LARGEST_SIDE_INPUT else JOIN


class PairWithMaps(beam.PTransform):
    """Read a plan's instances, each with the encoded map of its study; b"" where it has none.

    Args:
      folder: of the run, in the restricted zone.
      way: SIDE_INPUT or JOIN.
    """

    def __init__(self, folder: str, way: str) -> None:
        super().__init__()
        self._folder, self._way = folder, way

    def expand(self, buckets: beam.PCollection[int]) -> beam.PCollection[tuple[Planned, bytes]]:
        if self._way == JOIN:
            return (
                buckets
                | "Join" >> beam.FlatMap(_batches, self._folder).with_output_types(_Batch)
                | "Spread" >> beam.Reshuffle()
                | "Each" >> beam.FlatMapTuple(_each).with_output_types(tuple[Planned, bytes])
            )
        maps = buckets | "Maps" >> ReadMaps(self._folder)
        return (
            buckets
            | "Instances" >> ReadPlanned(self._folder)
            | "Spread" >> beam.Reshuffle()
            | "Attach" >> beam.ParDo(_AttachFn(), beam.pvalue.AsDict(maps)).with_output_types(tuple[Planned, bytes])
        )


class _AttachFn(beam.DoFn):
    def process(self, planned: Planned, maps: dict[str, bytes]) -> Iterator[tuple[Planned, bytes]]:
        yield planned, maps.get(planned.study_token, b"")


def _batches(bucket: int, folder: str) -> Iterator[_Batch]:
    """Instances of one study and its map; so many that the map at most doubles what crosses the shuffle."""
    for study_map, instances in plans.joined(folder, bucket):
        batch: list[Planned] = []
        size = 0
        for planned in instances:
            batch.append(planned)
            size += len(planned.scan)
            if size >= max(_SMALLEST, len(study_map)):
                yield study_map, batch
                batch, size = [], 0
        if batch:
            yield study_map, batch


def _each(study_map: bytes, batch: list[Planned]) -> Iterator[tuple[Planned, bytes]]:
    for planned in batch:
        yield planned, study_map
