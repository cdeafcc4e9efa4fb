"""The plan's way into its buckets and out of them."""

from collections.abc import Iterable, Iterator
from typing import Final

import apache_beam as beam

from transforms import plans
from transforms.locations import locate
from transforms.notes import WriteNote
from transforms.outcomes import TokenSum
from transforms.records import Planned, PlannedStudy


class WritePlan(beam.PTransform):
    """Keep instances and study maps in buckets, and the count and sum of tokens of all that was listed.

    Args:
      folder: of the run, in the restricted zone.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    def expand(self, plan: tuple[beam.PCollection[Planned], beam.PCollection[PlannedStudy]]) -> beam.PCollection[int]:
        instances, maps = plan
        written = (
            instances
            | "Key by bucket" >> beam.WithKeys(plans.bucket_of).with_output_types(tuple[int, Planned])
            | "Group by bucket" >> beam.GroupByKey()
            | "Write instances" >> beam.ParDo(_WriteInstancesFn(self._folder)).with_output_types(int)
        )
        studies = (
            maps
            | "Key maps by bucket" >> beam.WithKeys(_map_bucket).with_output_types(tuple[int, PlannedStudy])
            | "Group maps by bucket" >> beam.GroupByKey()
            | "Write maps" >> beam.ParDo(_WriteMapsFn(self._folder)).with_output_types(int)
        )
        return (written, studies) | "Buckets" >> beam.Flatten()


def _map_bucket(study: PlannedStudy) -> int:
    return plans.study_bucket(study.study_token)


class _WriteInstancesFn(beam.DoFn):
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, bucket: tuple[int, Iterable[Planned]]) -> Iterator[int]:
        plans.write_instances(self._folder, bucket[0], list(bucket[1]))
        yield bucket[0]


class _WriteMapsFn(beam.DoFn):
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, bucket: tuple[int, Iterable[PlannedStudy]]) -> Iterator[int]:
        plans.write_studies(self._folder, bucket[0], list(bucket[1]))
        yield bucket[0]


LISTED: Final = "listed"


class SumListed(beam.PTransform):
    """Note how many objects were listed, and the sum of their tokens, for the last step to compare with.

    Args:
      name: of the note in the run's folder.
    """

    def __init__(self, folder: str, name: str = LISTED) -> None:
        super().__init__()
        self._note = locate(folder) / name

    def expand(self, sources: beam.PCollection) -> beam.PCollection:
        return sources | "Count and sum" >> beam.CombineGlobally(TokenSum()) | "Note" >> WriteNote(self._note, _total)


def _total(total: tuple[int, str]) -> str:
    return f"{total[0]} {total[1]}"


class ReadPlanned(beam.PTransform):
    """The instances of a slice's buckets."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    def expand(self, buckets: beam.PCollection[int]) -> beam.PCollection[Planned]:
        return buckets | "Read" >> beam.FlatMap(_instances, self._folder).with_output_types(Planned)


class ReadMaps(beam.PTransform):
    """The encoded maps of a slice's studies, by study token."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    def expand(self, buckets: beam.PCollection[int]) -> beam.PCollection[tuple[str, bytes]]:
        return buckets | "Read" >> beam.FlatMap(_maps, self._folder).with_output_types(tuple[str, bytes])


def _instances(bucket: int, folder: str) -> list[Planned]:
    return plans.read_instances(folder, bucket)


def _maps(bucket: int, folder: str) -> list[tuple[str, bytes]]:
    return [(study.study_token, study.study_map) for study in plans.read_studies(folder, bucket)]
