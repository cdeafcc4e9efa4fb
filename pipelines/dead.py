"""Runs that died while they wrote: what they have ended counts as of a run, and what they hadn't goes.

Otherwise nobody could tell whose an output is that lies there, nor by which facts it was made.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dicomveil.body import parse_request
from dicomveil.compile import compile_request
from dicomveil.errors import InvalidInstance
from dicomveil.keys import Keys
from dicomveil.rewrite import Rewriter
from dicomveil.scan import InstanceScan
from dicomveil.study_map import StudyMap
from pipelines import runs
from pipelines.runs import Run
from transforms import plans, stores
from transforms.manifests import listed_parts
from transforms.tables import INSTANCES, name_of

_Part = tuple[str, str, int]


def close_dead(run: Run) -> None:
    """Close all other runs under this key that died: what is planned from now on must agree with what they wrote.

    They can't go on then: their commands begin a new run.
    """
    for folder, state in runs.begun(run.places.restricted):
        if folder != run.folder and state["fingerprints"]["key"] == run.fingerprints["key"]:
            ended = list(_ended(folder))
            if (folder / "slices").exists():
                _remove_leftovers(folder, state, ended, run.key.keys())
            if ended:
                parts = [{"path": name, "rows": rows} for zone, name, rows in ended if zone == "restricted"]
                parts += runs.given_parts(run.places.restricted, runs.id_of(folder))
                runs.commit_restricted(run.places.restricted, runs.id_of(folder), state, parts)
            runs.forget(folder)


def _ended(folder: Path) -> Iterator[_Part]:
    """The parts of tables that the slices which a run has ended tell of."""
    for record in sorted((folder / "slices").glob("*.json")):
        for zone, name, rows in json.loads(record.read_bytes()):
            if zone in ("audit", "restricted"):
                yield zone, name, rows


def _remove_leftovers(folder: Path, state: dict[str, Any], ended: list[_Part], keys: Keys) -> None:
    """Remove the outputs that a run's plan leads to and no record tells of."""
    output, audit = Path(state["places"]["output"]), Path(state["places"]["audit"])
    left = {name for name in _planned_names(folder, state, keys) if stores.holds(output, name)}
    if not left:
        return
    records = [audit / name for zone, name, _ in ended if zone == "audit" and name.startswith(f"{name_of(INSTANCES)}/")]
    if (audit / "runs").is_dir() and any((audit / "runs").glob("*.json")):
        records += [part.path for part in listed_parts(audit) if part.table == name_of(INSTANCES)]
    for record in records:
        left.difference_update(pq.read_table(record, columns=["name"], partitioning=None).column("name").to_pylist())
    for name in left:
        stores.remove(output, name)


def _planned_names(folder: Path, state: dict[str, Any], keys: Keys) -> Iterator[str]:
    request = parse_request(json.dumps(state["request"]))
    rewriter = Rewriter(compile_request(request), keys)
    for bucket in range(plans.BUCKETS):
        maps = {it.study_token: StudyMap.decode(it.study_map) for it in plans.read_studies(str(folder), bucket)}
        for planned in plans.read_instances(str(folder), bucket):
            if planned.scan and not planned.reason:
                try:
                    scan = InstanceScan.decode(planned.scan)
                    yield rewriter.name(scan, maps[planned.study_token], planned.sop_instance_uid)
                except InvalidInstance:
                    continue  # it was set aside
