"""What a run knows before it begins: what earlier ones have settled under its key, and what crosswalks give.

Only what a finished run lists in its manifest counts. Where it is, workers read in a file of the run.
"""

import json
from typing import Any, Final

from dicomveil.study import Lists
from pipelines import runs
from pipelines.dead import close_dead
from pipelines.places import RunRefused
from pipelines.runs import Run
from transforms import facts, stores
from transforms.crosswalk_rows import PATIENT, UID
from transforms.crosswalks import import_crosswalk
from transforms.facts import NOTHING_KNOWN, Known, Part
from transforms.locations import locate
from transforms.manifests import parts_of
from transforms.tables import (
    CROSSWALK_GIVEN,
    CROSSWALK_INSTANCES,
    CROSSWALK_PATIENTS,
    CROSSWALK_STUDIES,
    CROSSWALK_UIDS,
    GONE,
    QUARANTINE,
    name_of,
)

_TABLES: Final = {
    facts.STUDIES: CROSSWALK_STUDIES,
    facts.INSTANCES: CROSSWALK_INSTANCES,
    facts.CONFLICTS: QUARANTINE,
    facts.GIVEN: CROSSWALK_GIVEN,
    facts.GONE: GONE,
}


def gather(run: Run) -> Known:
    """Find what is known, import the crosswalks that the user names, and note both for the workers.

    Where nothing is de-identified nothing need be known: new identifiers follow from the request.

    Raises:
      CrosswalkRefused: a crosswalk has mistakes, or contradicts itself or what earlier runs have written.
      RunRefused: the request goes by a crosswalk, and there is none.
    """
    close_dead(run)
    if run.request.alters:
        return NOTHING_KNOWN
    earlier = runs.finished_under(run.places.restricted, run.fingerprints["key"])
    identity = [run.request.patient_identity, run.request.default_issuer]
    if any(it.get("identity", identity) != identity for it in earlier):
        raise RunRefused(
            "Under --restricted runs with this key told patients apart by another PatientIdentity or DefaultIssuer: "
            "say the same, or choose another --restricted."
        )
    runs.note_before(run, earlier)
    known = {kind: _parts(run, earlier, name_of(schema)) for kind, schema in _TABLES.items()}
    since = run.id if run.choices.anew else max((it["run"] for it in earlier if it.get("anew")), default="")
    if run.choices.anew:
        known[facts.CONFLICTS] = []
    given = [part for part in known[facts.GIVEN] if part.run == known[facts.GIVEN][-1].run]
    if run.places.crosswalks:
        given = _imported(run, earlier, [part.path for part in given])
    known[facts.GIVEN] = given
    file = run.folder / "facts.json"
    stores.create_restricted(file, json.dumps(known).encode())
    names = [locate(part.path).name for part in given]
    lists = Lists(*(any(name.startswith(f"{kind}-") for name in names) for kind in ("patient", "uid")))
    if run.request.unlisted == "quarantine" and not any(lists):
        raise RunRefused("Unlisted: quarantine goes by a crosswalk, and there is none: add --crosswalk-in.")
    return Known(str(file), frozenset(kind for kind, parts in known.items() if parts), lists, run.choices.anew, since)


def _parts(run: Run, earlier: list[dict[str, Any]], table: str) -> list[Part]:
    """The parts of a table, the oldest first."""
    root = locate(run.places.restricted)
    return [
        Part(str(part.path), it["run"], it.get("output") == run.places.output, *part.rows[1:])
        for it in earlier
        for part in parts_of(it, root, table)
    ]


def _imported(run: Run, earlier: list[dict[str, Any]], given: list[str]) -> list[Part]:
    """The parts of what the user's crosswalks give, and those before; both must agree with what this output holds."""
    folder = locate(run.places.restricted) / name_of(CROSSWALK_GIVEN) / f"run={run.id}"
    made_alike = [it for it in earlier if it["fingerprints"] == run.fingerprints]
    written = {
        kind: list(dict.fromkeys(part.path for part in _parts(run, made_alike, name_of(schema)) if part.here))
        for kind, schema in ((PATIENT, CROSSWALK_PATIENTS), (UID, CROSSWALK_UIDS))
    }
    identity = run.request.patient_identity, run.request.default_issuer
    verdict = import_crosswalk(
        [*run.places.crosswalks, *given], folder, run.scratch / "sorting", run.key.keys(), *identity, written
    )
    return [Part(str(folder / name), run.id, True) for name in verdict.parts]
