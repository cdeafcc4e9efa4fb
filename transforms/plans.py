"""The plan as it is kept: buckets of instances and of studies, in the restricted zone of its run.

A study and its instances fall into one bucket, so that a slice of the plan holds all it needs.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Final

from transforms.records import Planned, PlannedStudy
from transforms.tables import PLAN_INSTANCES, PLAN_STUDIES, read_part, write_part

BUCKETS: Final = 256


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


def read_instances(folder: str, bucket: int) -> list[Planned]:
    """One bucket's instances; none where it has no file."""
    path = _part(folder, "instances", bucket)
    return [Planned(**row) for row in read_part(path)] if path.exists() else []


def read_studies(folder: str, bucket: int) -> list[PlannedStudy]:
    """One bucket's studies; none where it has no file."""
    path = _part(folder, "studies", bucket)
    return [PlannedStudy(**row) for row in read_part(path)] if path.exists() else []


def _part(folder: str, table: str, bucket: int) -> Path:
    return Path(folder) / "plan" / table / "run=plan" / f"part-{bucket:03}.parquet"
