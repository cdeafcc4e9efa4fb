"""What a run knows before it begins: what earlier ones have settled under its key, and what crosswalks give.

Only what a finished run lists in its manifest counts. Where it is, workers read in a file of the run.
"""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow.parquet as pq

from dicomveil.study import Lists
from pipelines.runs import Run, RunRefused, manifests
from transforms import facts, stores
from transforms.crosswalks import import_crosswalk
from transforms.facts import Known
from transforms.tables import (
    CROSSWALK_GIVEN,
    CROSSWALK_INSTANCES,
    CROSSWALK_PATIENTS,
    CROSSWALK_STUDIES,
    CROSSWALK_UIDS,
    QUARANTINE,
    name_of,
)

_TABLES: Final = {
    facts.STUDIES: CROSSWALK_STUDIES,
    facts.INSTANCES: CROSSWALK_INSTANCES,
    facts.CONFLICTS: QUARANTINE,
    facts.GIVEN: CROSSWALK_GIVEN,
}


class Part(NamedTuple):
    """One part of a table of an earlier run.

    Attributes:
      here: whether that wrote into this run's output.
      same: whether it had the same request, tables and key.
    """

    path: str
    run: str
    here: bool
    same: bool


def gather(run: Run) -> Known:
    """Find what is known, import the crosswalks that the user names, and note both for the workers.

    Raises:
      CrosswalkRefused: a crosswalk has mistakes, or contradicts itself or what earlier runs have written.
      RunRefused: the request goes by a crosswalk, and there is none.
    """
    earlier = [it for it in manifests(run.places.restricted) if it["fingerprints"]["key"] == run.fingerprints["key"]]
    known = {kind: _parts(run, earlier, name_of(schema)) for kind, schema in _TABLES.items()}
    if run.anew:
        known[facts.CONFLICTS] = []
    given = [part for part in known[facts.GIVEN] if part[1] == known[facts.GIVEN][-1][1]]
    if run.places.crosswalks:
        given = _imported(run, earlier, [path for path, *_ in given])
    known[facts.GIVEN] = given
    file = run.folder / "facts.json"
    stores.create_restricted(file, json.dumps(known).encode())
    names = [Path(path).name for path, *_ in given]
    lists = Lists(*(any(name.startswith(f"{kind}-") for name in names) for kind in ("patient", "uid")))
    if run.request.unlisted == "quarantine" and not any(lists):
        raise RunRefused("Unlisted: quarantine goes by a crosswalk, and there is none: add --crosswalk-in.")
    return Known(str(file), frozenset(kind for kind, parts in known.items() if parts), lists, run.anew)


def given_parts(run: Run) -> list[dict[str, Any]]:
    """What this run keeps of the crosswalks that the user named, for its manifest."""
    folder = Path(run.places.restricted) / _given_folder(run)
    return [
        {"path": f"{_given_folder(run)}/{path.name}", "rows": pq.read_metadata(path).num_rows}
        for path in sorted(folder.glob("*.parquet"))
    ]


def _given_folder(run: Run) -> str:
    return f"{name_of(CROSSWALK_GIVEN)}/run={run.id}"


def _parts(run: Run, earlier: list[dict[str, Any]], table: str) -> list[Part]:
    """The parts of a table, the oldest first."""
    root = Path(run.places.restricted)
    return [
        Part(
            str(root / part["path"]),
            it["run"],
            it.get("output") == run.places.output,
            it["fingerprints"] == run.fingerprints,
        )
        for it in earlier
        for part in it["parts"]
        if part["path"].startswith(f"{table}/run=")
    ]


def _imported(run: Run, earlier: list[dict[str, Any]], given: list[str]) -> list[Part]:
    """The parts of what the user's crosswalks give, and those before; what was derived until now stays."""
    folder = Path(run.places.restricted) / _given_folder(run)
    keys, request = run.key.keys(), run.request
    identity = request.patient_identity, request.default_issuer
    verdict = import_crosswalk(run.places.crosswalks, folder, keys, *identity)
    written = [
        path
        for schema, listed in ((CROSSWALK_PATIENTS, verdict.lists_patients), (CROSSWALK_UIDS, verdict.lists_uids))
        for path, *_ in (_parts(run, earlier, name_of(schema)) if listed else [])
    ]
    if written or given:
        verdict = import_crosswalk([*run.places.crosswalks, *given, *written], folder, keys, *identity)
    return [Part(str(folder / name), run.id, True, True) for name in verdict.parts]
