"""(instance, map of its study): how a study's facts reach its instances, wherever those are rewritten."""

from collections.abc import Iterator

import apache_beam as beam

from transforms.records import Planned


class AttachMaps(beam.PTransform):
    """Pair each instance with its study's encoded map, taken from a side input keyed by study."""

    def __init__(self, maps: beam.PCollection[tuple[str, bytes]]) -> None:
        super().__init__()
        self._maps = maps

    def expand(self, instances: beam.PCollection[Planned]) -> beam.PCollection[tuple[Planned, bytes]]:
        return (
            instances
            | "Spread" >> beam.Reshuffle()
            | "Attach"
            >> beam.ParDo(_AttachFn(), beam.pvalue.AsDict(self._maps)).with_output_types(tuple[Planned, bytes])
        )


class _AttachFn(beam.DoFn):
    def process(self, planned: Planned, maps: dict[str, bytes]) -> Iterator[tuple[Planned, bytes]]:
        yield planned, maps.get(planned.study_token, b"")
