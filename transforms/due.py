"""What a run is to process, and what it isn't, as its look at the ledger leaves it for the plan."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final

import apache_beam as beam
import pyarrow.parquet as pq

from transforms import plans
from transforms.ledger import Unchanged
from transforms.locations import Location, locate, table_file
from transforms.plan import KeepInParts
from transforms.records import SourceObject
from transforms.sieve import Sieve, as_side_input, passes
from transforms.tables import PLAN_DUE, PLAN_UNCHANGED, read_part, write_part

_COLUMNS: Final = ("token", "uri", "size", "version", "reason", "storage_class")
_ROWS: Final = 1 << 14


class WriteDue(KeepInParts):
    """Keep the objects that are due in buckets.

    Args:
      folder: of the run, in the restricted zone.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(_bucket, partial(_write_due, folder))


def _bucket(source: SourceObject) -> int:
    return plans.token_bucket(source.token)


def _write_due(folder: str, bucket: int, sources: list[SourceObject]) -> None:
    rows = [{name: getattr(it, name) for name in _COLUMNS} for it in sorted(sources, key=lambda it: it.token)]
    write_part(folder, "plan", PLAN_DUE, f"{bucket:03}", rows)


class ReadDue(beam.PTransform):
    """The objects that are due."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._parts = list(map(str, due_parts(folder)))

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[SourceObject]:
        return (
            pipeline
            | "Parts" >> beam.Create(self._parts)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.FlatMap(_read_due).with_output_types(SourceObject)
        )


def _read_due(part: str) -> Iterator[SourceObject]:
    for row in read_part(locate(part)):
        yield SourceObject(**row)


def due_parts(folder: str) -> list[Location]:
    """Where they are kept."""
    return plans.parts(folder, PLAN_DUE)


class WriteUnchanged(beam.PTransform):
    """Keep what has an output and is unchanged in buckets, since it may have to be written again all the same."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    def expand(self, unchanged: beam.PCollection[Unchanged]) -> beam.PCollection:
        written = unchanged | "Written ones" >> beam.FlatMap(_written).with_output_types(tuple[bytes, bool])
        return written | "Keep" >> KeepInParts(_first_byte, partial(_write_unchanged, self._folder))


def _written(it: Unchanged) -> Iterator[tuple[bytes, bool]]:
    if it.written:
        yield it.token, it.by_other_request


def _first_byte(told: tuple[bytes, bool]) -> int:
    return told[0][0]


def _write_unchanged(folder: str, bucket: int, told: list[tuple[bytes, bool]]) -> None:
    rows = [{"token": token, "by_other_request": other} for token, other in sorted(told)]
    write_part(folder, "plan", PLAN_UNCHANGED, f"{bucket:03}", rows)


class UnchangedOf(beam.PTransform):
    """Of the sources of all that rejoins those that were listed and found unchanged."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._parts = list(map(str, plans.parts(folder, PLAN_UNCHANGED)))

    def expand(self, rejoining: beam.PCollection[SourceObject]) -> beam.PCollection[Unchanged]:
        tokens = rejoining | "Tokens" >> beam.Map(_by_token).with_output_types(tuple[str, None])
        sieve = tokens | "Of each" >> beam.Keys() | "Sieve" >> Sieve()
        unchanged = (
            rejoining.pipeline
            | "Parts" >> beam.Create(self._parts)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(_ReadUnchangedFn(), as_side_input(sieve)).with_output_types(tuple[str, Unchanged])
        )
        return (
            (tokens, unchanged)
            | "Join" >> beam.CoGroupByKey()
            | "Both" >> beam.FlatMapTuple(_both).with_output_types(Unchanged)
        )


def _by_token(source: SourceObject) -> tuple[str, None]:
    return source.token, None


class _ReadUnchangedFn(beam.DoFn):
    def process(self, part: str, sieve: bytes) -> Iterator[tuple[str, Unchanged]]:
        if not sieve:
            return
        with pq.ParquetFile(table_file(locate(part))) as file:
            for batch in file.iter_batches(_ROWS):
                for token, other in zip(*(batch.column(at).to_pylist() for at in (0, 1)), strict=True):
                    if passes(token.hex(), sieve):
                        yield token.hex(), Unchanged(token, b"", b"", True, other, None)


def _both(token: str, told: tuple[Iterable[None], Iterable[Unchanged]]) -> Iterator[Unchanged]:
    if list(told[0]):
        yield from told[1]
