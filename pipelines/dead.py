"""Runs that died while they wrote: what they have ended counts as of a run, and what they hadn't goes.

Otherwise nobody could tell whose an output is that lies there, nor by which facts it was made.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Final

from dicomveil.body import parse_request
from dicomveil.errors import InvalidInstance
from dicomveil.keys import Keys
from dicomveil.scan import InstanceScan
from dicomveil.study_map import StudyMap
from pipelines import retire, runs
from pipelines.runs import Parts, Run
from transforms import plans, stores
from transforms.locations import Location, ObjectLocation, locate, matching
from transforms.manifests import Slice, listed_parts, parts_of, read_slice
from transforms.outputs import is_output
from transforms.rewrite import Rewriting
from transforms.tables import CROSSWALK_INSTANCES, INSTANCES, name_of

_THREADS: Final = 16  # they wait for the storage


def close_dead(run: Run) -> None:
    """Close all other runs under this key that died: what is planned from now on must agree with what they wrote.

    They can't go on then: their commands begin a new run.
    """
    for folder, state in runs.begun(run.places.restricted):
        if folder != run.folder and state["fingerprints"]["key"] == run.fingerprints["key"]:
            ended = _ended(folder)
            runs.hold(run.lease)
            if any((folder / "slices").glob("*.json")):
                _remove_leftovers(folder, state, ended["audit"], run.key.keys())
            retire.remove_recorded(folder, run.places.restricted, state["places"]["output"])
            if ended["restricted"]:
                ended["restricted"] += runs.given_parts(run.places.restricted, runs.id_of(folder))
                runs.commit_parts(runs.id_of(folder), state, ended, run.lease)
            runs.forget(folder)


def _ended(folder: Location) -> Parts:
    """The parts of tables that the slices which a run has ended tell of."""
    parts: Parts = {"audit": [], "restricted": []}
    for record in matching(folder / "slices", "*.json"):
        for zone, name, rows in json.loads(record.read_bytes()):
            if zone in parts:
                parts[zone].append({"path": name, "rows": rows})
    return parts


def _remove_leftovers(folder: Location, state: dict[str, Any], ended: list[dict[str, Any]], keys: Keys) -> None:
    """Remove the outputs that a run's plan leads to and no record tells of."""
    output, audit = locate(state["places"]["output"]), locate(state["places"]["audit"])
    left = set(_planned_names(folder, state, keys))
    left.difference_update(_names_before(folder, state))
    table = name_of(INSTANCES)
    records = [Slice(audit / part["path"]) for part in ended if part["path"].startswith(f"{table}/")]
    if any((audit / "runs").glob("*.json")):
        records += [part.rows for part in listed_parts(audit) if part.table == table]
    for record in records:
        left.difference_update(_names(record))
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(partial(_remove_ours, output), left):
            pass


def _remove_ours(output: Location, name: str) -> None:
    """Remove an output, if it is there; an object in a store also only if one of our runs made it."""
    if not isinstance(output, ObjectLocation) or is_output(output / name):
        stores.remove(output, name)


def _names_before(folder: Location, state: dict[str, Any]) -> Iterator[str]:
    """What finished runs have written into the same output, whichever audit tells of it: its source may be purged."""
    for it in runs.manifests(str(folder.parent)):
        if it.get("output") == state["places"]["output"]:
            for part in parts_of(it, folder.parent, name_of(CROSSWALK_INSTANCES)):
                yield from _names(part.rows)


def _names(part: Slice) -> Iterator[str]:
    """Of the outputs that a part of a table tells of."""
    for batch in read_slice(part, ["name"]):
        yield from batch.column("name").to_pylist()


def _planned_names(folder: Location, state: dict[str, Any], keys: Keys) -> Iterator[str]:
    told, command = json.dumps(state["request"]), state.get("command", "anonymize")
    request = parse_request(told, command=command, selecting=False)
    rewriting = Rewriting(
        replace(request, scope=state["fingerprints"].get("scope", "")), str(folder / "target.dcm"), keys
    )
    for bucket in plans.buckets(str(folder)):
        maps = {it.study_token: StudyMap.decode(it.study_map) for it in plans.read_studies(str(folder), bucket)}
        for planned in plans.read_instances(str(folder), bucket):
            if planned.scan and not planned.reason:
                try:
                    scan = InstanceScan.decode(planned.scan)
                    yield rewriting.name(planned, scan, maps[planned.study_token])
                except InvalidInstance:
                    continue  # it was set aside
