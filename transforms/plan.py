"""The plan's way into its buckets and out of them."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final

import apache_beam as beam

from transforms import plans
from transforms.locations import locate
from transforms.notes import WriteNote
from transforms.outcomes import TokenSum
from transforms.records import Planned, PlannedStudy


class KeepInParts(beam.PTransform):
    """Keep the elements of a collection in numbered parts, each written whole by one worker.

    Args:
      number: of the part that an element belongs to, by it and `beside`.
      write: writes the part of a number, and all that it holds.
      beside: side inputs.
    """

    def __init__(self, number: Callable[..., int], write: Callable[[int, list[Any]], None], *beside: Any) -> None:
        super().__init__()
        self._number, self._write, self._beside = number, write, beside

    def expand(self, elements: beam.PCollection) -> beam.PCollection[int]:
        return (
            elements
            | "Key by part" >> beam.WithKeys(self._number, *self._beside).with_output_types(tuple[int, Any])
            | "Group by part" >> beam.GroupByKey()
            | "Write" >> beam.ParDo(_KeepFn(self._write)).with_output_types(int)
        )


class _KeepFn(beam.DoFn):
    def __init__(self, write: Callable[[int, list[Any]], None]) -> None:
        self._write = write

    def process(self, part: tuple[int, Iterable[Any]]) -> Iterator[int]:
        self._write(part[0], list(part[1]))
        yield part[0]


class WritePlan(beam.PTransform):
    """Keep instances and study maps in buckets, and the count and sum of tokens of all that was listed.

    Args:
      folder: of the run, in the restricted zone.
      sources: what was listed; their number says how many buckets there are.
    """

    def __init__(self, folder: str, sources: beam.PCollection) -> None:
        super().__init__()
        self._folder, self._sources = folder, sources

    def expand(self, plan: tuple[beam.PCollection[Planned], beam.PCollection[PlannedStudy]]) -> beam.PCollection[int]:
        instances, maps = plan
        count = self._sources | "Count" >> beam.combiners.Count.Globally()
        enough = beam.pvalue.AsSingleton(count | "Enough" >> beam.Map(plans.enough_buckets).with_output_types(int))
        keep, keep_maps = (partial(write, self._folder) for write in (plans.write_instances, plans.write_studies))
        written = instances | "Instances" >> KeepInParts(plans.bucket_of, keep, enough)
        studies = maps | "Studies" >> KeepInParts(_map_bucket, keep_maps, enough)
        return (written, studies) | "Buckets" >> beam.Flatten()


def _map_bucket(study: PlannedStudy, buckets: int) -> int:
    return plans.token_bucket(study.study_token, buckets)


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
