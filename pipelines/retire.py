"""The end of a run: what becomes of the outputs of sources that are gone, or another version by now."""

import json
from typing import Any

import apache_beam as beam

from pipelines.runs import Run
from transforms.formers import former_parts
from transforms.locations import Location, locate
from transforms.outcomes import WriteSliceRecord
from transforms.retire import Asked, RetireFormers, remove_retired
from transforms.tables import CROSSWALK_INSTANCES, GONE, name_of

Record = list[tuple[str, str, int]]
_RECORD = "retired.json"


def record_of(folder: Location) -> Location:
    """Where a run records what it retires, beside its slices; nothing is removed before that is there."""
    return folder / "slices" / _RECORD


def build(pipeline: beam.Pipeline, run: Run, written: list[str], unfinished: bool) -> None:
    """RETIRE: former versions, held against what there is by now -> tables -> the record.

    Args:
      written: the parts of the crosswalk of instances that the run has written.
      unfinished: whether something that is new was left for the next run.
    """
    where = run.places
    retire = RetireFormers(
        written,
        where.output,
        where.audit,
        where.restricted,
        run.id,
        run.request.fingerprint,
        Asked(run.choices.retire, unfinished),
    )
    parts = pipeline | "Parts" >> beam.Create(list(map(str, former_parts(str(run.folder))))) | "Retire" >> retire
    parts | "Record" >> WriteSliceRecord(str(record_of(run.folder)))


def written(restricted: str, parts: list[dict[str, Any]]) -> list[str]:
    """The parts of the crosswalk of instances among those of a run."""
    of_table = f"{name_of(CROSSWALK_INSTANCES)}/"
    return [str(locate(restricted) / part["path"]) for part in parts if part["path"].startswith(of_table)]


def remove_recorded(folder: Location, restricted: str, output: str) -> Record:
    """Remove what a run has recorded to be retired, as far as it is there: the record; nothing where there is none."""
    record = record_of(folder)
    if not record.exists():
        return []
    told: Record = [(zone, name, count) for zone, name, count in json.loads(record.read_bytes())]
    gone = (name for zone, name, _ in told if zone == "restricted" and name.startswith(f"{name_of(GONE)}/"))
    zone = locate(restricted)
    remove_retired((zone / name for name in gone), locate(output), zone)
    return told
