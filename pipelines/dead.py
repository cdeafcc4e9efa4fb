"""Runs that died while they wrote: what they have ended counts as of a run, and what they hadn't goes.

Otherwise nobody could tell whose an output is that lies there, nor by which facts it was made.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dicomveil.body import parse_request
from dicomveil.errors import InvalidInstance
from dicomveil.keys import Keys
from dicomveil.scan import InstanceScan
from dicomveil.study_map import StudyMap
from pipelines import runs
from pipelines.runs import Parts, Run
from transforms import plans, stores
from transforms.manifests import listed_parts
from transforms.rewrite import Rewriting
from transforms.tables import CROSSWALK_INSTANCES, INSTANCES, name_of


def close_dead(run: Run) -> None:
    """Close all other runs under this key that died: what is planned from now on must agree with what they wrote.

    They can't go on then: their commands begin a new run.
    """
    for folder, state in runs.begun(run.places.restricted):
        if folder != run.folder and state["fingerprints"]["key"] == run.fingerprints["key"]:
            ended = _ended(folder)
            if (folder / "slices").exists():
                _remove_leftovers(folder, state, ended["audit"], run.key.keys())
            if ended["restricted"]:
                ended["restricted"] += runs.given_parts(run.places.restricted, runs.id_of(folder))
                runs.commit_parts(runs.id_of(folder), state, ended)
            runs.forget(folder)


def _ended(folder: Path) -> Parts:
    """The parts of tables that the slices which a run has ended tell of."""
    parts: Parts = {"audit": [], "restricted": []}
    for record in sorted((folder / "slices").glob("*.json")):
        for zone, name, rows in json.loads(record.read_bytes()):
            if zone in parts:
                parts[zone].append({"path": name, "rows": rows})
    return parts


def _remove_leftovers(folder: Path, state: dict[str, Any], ended: list[dict[str, Any]], keys: Keys) -> None:
    """Remove the outputs that a run's plan leads to and no record tells of."""
    output, audit = Path(state["places"]["output"]), Path(state["places"]["audit"])
    left = {name for name in _planned_names(folder, state, keys) if stores.holds(output, name)}
    if not left:
        return
    left.difference_update(_names_before(folder, state))
    table = name_of(INSTANCES)
    records = [audit / part["path"] for part in ended if part["path"].startswith(f"{table}/")]
    if any((audit / "runs").glob("*.json")):
        records += [part.path for part in listed_parts(audit) if part.table == table]
    for record in records:
        left.difference_update(pq.read_table(record, columns=["name"], partitioning=None).column("name").to_pylist())
    for name in left:
        stores.remove(output, name)


def _names_before(folder: Path, state: dict[str, Any]) -> Iterator[str]:
    """What finished runs have written into the same output, whichever audit tells of it: its source may be purged."""
    for it in runs.manifests(str(folder.parent)):
        for part in it["parts"] if it.get("output") == state["places"]["output"] else ():
            if part["path"].startswith(f"{name_of(CROSSWALK_INSTANCES)}/"):
                path = folder.parent / part["path"]
                yield from pq.read_table(path, columns=["name"], partitioning=None).column("name").to_pylist()


def _planned_names(folder: Path, state: dict[str, Any], keys: Keys) -> Iterator[str]:
    told, command = json.dumps(state["request"]), state.get("command", "anonymize")
    request = parse_request(told, command=command, selecting=False)
    rewriting = Rewriting(
        replace(request, scope=state["fingerprints"].get("scope", "")), str(folder / "target.dcm"), keys
    )
    for bucket in range(plans.BUCKETS):
        maps = {it.study_token: StudyMap.decode(it.study_map) for it in plans.read_studies(str(folder), bucket)}
        for planned in plans.read_instances(str(folder), bucket):
            if planned.scan and not planned.reason:
                try:
                    scan = InstanceScan.decode(planned.scan)
                    yield rewriting.name(planned, scan, maps[planned.study_token])
                except InvalidInstance:
                    continue  # it was set aside
