"""The plan as it is kept: buckets of instances and of studies, in the restricted zone of its run.

A study and its instances fall into one bucket, so that a slice of the plan holds all it needs.
"""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.locations import Location, locate, matching, table_file
from transforms.records import Planned, PlannedStudy
from transforms.tables import PLAN_INSTANCES, PLAN_STUDIES, name_of, read_part, write_part

_FEWEST: Final = 256
_IN_ONE: Final = 1 << 13
_ROWS: Final = 1024


def enough_buckets(objects: int) -> int:
    """How many buckets a plan of so many objects has: a power of two, so that some thousands are in each."""
    return max(_FEWEST, 1 << (objects // _IN_ONE).bit_length())


def buckets(folder: str) -> list[int]:
    """Those that hold anything."""
    found = (part.name for schema in (PLAN_INSTANCES, PLAN_STUDIES) for part in parts(folder, schema))
    return sorted({int(name.removeprefix("part-").removesuffix(".parquet")) for name in found})


def parts(folder: str, schema: pa.Schema) -> list[Location]:
    """Every part of one of the plan's tables."""
    return matching(_table(folder, schema), "*.parquet")


def _table(folder: str, schema: pa.Schema) -> Location:
    return locate(folder) / name_of(schema) / "run=plan"


def bucket_of(planned: Planned, buckets: int = _FEWEST) -> int:
    """The bucket of an instance: its study's, or its own where it has none."""
    return token_bucket(planned.study_token or planned.token, buckets)


def token_bucket(token: str, buckets: int = _FEWEST) -> int:
    """A bucket from a token, whose digits are evenly spread; however many there are, they are in the tokens' order."""
    return int(token[:8], 16) * buckets >> 32


def bucket_holding(folder: str, study_token: str) -> int | None:
    """The bucket that a study's map is in; None for none."""
    for bucket in buckets(folder):
        if any(row["study_token"] == study_token for row in _streamed(folder, PLAN_STUDIES, bucket, ["study_token"])):
            return bucket
    return None


def write_instances(folder: str, bucket: int, rows: list[Planned]) -> None:
    """Keep one bucket's instances, by their studies, and of each in the order of their tokens."""
    ordered = sorted(rows, key=lambda planned: (planned.study_token, planned.token))
    write_part(folder, "plan", PLAN_INSTANCES, f"{bucket:03}", [asdict(planned) for planned in ordered])


def write_studies(folder: str, bucket: int, rows: list[PlannedStudy]) -> None:
    """Keep what the plan says of one bucket's studies."""
    studies = [asdict(study) for study in sorted(rows, key=lambda study: study.study_token)]
    write_part(folder, "plan", PLAN_STUDIES, f"{bucket:03}", studies)


def replace_bucket(folder: str, bucket: int, instances: list[Planned], studies: list[PlannedStudy]) -> None:
    """Keep these in a bucket, and no others."""
    for schema in (PLAN_INSTANCES, PLAN_STUDIES):
        _part(folder, schema, bucket).unlink(missing_ok=True)
    write_instances(folder, bucket, instances)
    write_studies(folder, bucket, studies)


def read_instances(folder: str, bucket: int) -> list[Planned]:
    """One bucket's instances; none where it has no file."""
    return [Planned(**row) for row in _rows(folder, PLAN_INSTANCES, bucket)]


def read_studies(folder: str, bucket: int) -> list[PlannedStudy]:
    """One bucket's studies; none where it has no file."""
    return [PlannedStudy(**row) for row in _rows(folder, PLAN_STUDIES, bucket)]


def joined(folder: str, bucket: int) -> Iterator[tuple[bytes, Iterator[Planned]]]:
    """(encoded map, its instances) of one bucket's studies, a study at a time; first, with b"", what has none.

    The instances of one must be read before the next is asked for.
    """
    studies = _streamed(folder, PLAN_STUDIES, bucket, ["study_token", "study_map"])
    study = next(studies, None)
    for token, rows in groupby(_streamed(folder, PLAN_INSTANCES, bucket), itemgetter("study_token")):
        while study and study["study_token"] < token:
            study = next(studies, None)
        yield study["study_map"] if study and study["study_token"] == token else b"", (Planned(**row) for row in rows)


def _streamed(
    folder: str, schema: pa.Schema, bucket: int, columns: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    """One bucket's rows, some at a time."""
    try:
        with pq.ParquetFile(table_file(_part(folder, schema, bucket))) as file:
            for batch in file.iter_batches(_ROWS, columns=columns):
                yield from batch.to_pylist()
    except FileNotFoundError:
        return


def _rows(folder: str, schema: pa.Schema, bucket: int) -> list[dict[str, Any]]:
    try:
        return read_part(_part(folder, schema, bucket))
    except FileNotFoundError:
        return []


def _part(folder: str, schema: pa.Schema, bucket: int) -> Location:
    return _table(folder, schema) / f"part-{bucket:03}.parquet"
