"""The plan as it is kept: buckets of instances and of studies, in the restricted zone of its run.

A study and its instances fall into one bucket, so that a slice of the plan holds all it needs.
"""

from dataclasses import asdict
from typing import Any, Final

from transforms.locations import Location, locate, matching
from transforms.records import Planned, PlannedStudy
from transforms.tables import PLAN_INSTANCES, PLAN_STUDIES, read_part, write_part

BUCKETS: Final = 256


def buckets(folder: str) -> list[int]:
    """Those that hold anything."""
    plan = locate(folder) / "plan"
    found = (
        part.name for table in ("instances", "studies") for part in matching(plan / table / "run=plan", "*.parquet")
    )
    return sorted({int(name.removeprefix("part-").removesuffix(".parquet")) for name in found})


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
    for table in ("instances", "studies"):
        _part(folder, table, bucket).unlink(missing_ok=True)
    write_instances(folder, bucket, instances)
    write_studies(folder, bucket, studies)


def read_instances(folder: str, bucket: int) -> list[Planned]:
    """One bucket's instances; none where it has no file."""
    return [Planned(**row) for row in _rows(folder, "instances", bucket)]


def read_studies(folder: str, bucket: int) -> list[PlannedStudy]:
    """One bucket's studies; none where it has no file."""
    return [PlannedStudy(**row) for row in _rows(folder, "studies", bucket)]


def _rows(folder: str, table: str, bucket: int) -> list[dict[str, Any]]:
    try:
        return read_part(_part(folder, table, bucket))
    except FileNotFoundError:
        return []


def _part(folder: str, table: str, bucket: int) -> Location:
    return locate(folder) / "plan" / table / "run=plan" / f"part-{bucket:03}.parquet"
