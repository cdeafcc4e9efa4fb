"""The plan as it is kept: buckets of instances and of studies, in the restricted zone of its run.

A study and its instances fall into one bucket, so that a slice of the plan holds all it needs.
"""

from dataclasses import asdict
from typing import Any, Final

import pyarrow as pa

from transforms.locations import Location, locate, matching
from transforms.records import Planned, PlannedStudy
from transforms.tables import PLAN_INSTANCES, PLAN_STUDIES, name_of, read_part, write_part

BUCKETS: Final = 256


def buckets(folder: str) -> list[int]:
    """Those that hold anything."""
    found = (part.name for schema in (PLAN_INSTANCES, PLAN_STUDIES) for part in parts(folder, schema))
    return sorted({int(name.removeprefix("part-").removesuffix(".parquet")) for name in found})


def parts(folder: str, schema: pa.Schema) -> list[Location]:
    """Every part of one of the plan's tables."""
    return matching(_table(folder, schema), "*.parquet")


def _table(folder: str, schema: pa.Schema) -> Location:
    return locate(folder) / name_of(schema) / "run=plan"


def bucket_of(planned: Planned) -> int:
    """The bucket of an instance: its study's, or its own where it has none."""
    return study_bucket(planned.study_token or planned.token)


def study_bucket(study_token: str) -> int:
    """A bucket from a token, whose digits are evenly spread."""
    return int(study_token[:8], 16) % BUCKETS


def write_instances(folder: str, bucket: int, rows: list[Planned]) -> None:
    """Keep one bucket's instances, in the order of their tokens."""
    ordered = sorted(rows, key=lambda planned: planned.token)
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


def _rows(folder: str, schema: pa.Schema, bucket: int) -> list[dict[str, Any]]:
    try:
        return read_part(_part(folder, schema, bucket))
    except FileNotFoundError:
        return []


def _part(folder: str, schema: pa.Schema, bucket: int) -> Location:
    return _table(folder, schema) / f"part-{bucket:03}.parquet"
