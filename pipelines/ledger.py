"""What a run asks the ledger before it plans: which of its runs count, and what is to be processed all the same."""

import hashlib
import json
from typing import Any, Final

from dicomveil.request import Request
from pipelines import runs
from pipelines.places import RunRefused
from pipelines.runs import Run
from transforms import facts, stores
from transforms.inputs import pattern_of
from transforms.ledger import EVERYTHING, LedgerPart, Question
from transforms.locations import locate, matching
from transforms.manifests import parts_of
from transforms.tables import CROSSWALK_GIVEN, GONE, LEDGER, PURGE_LIST, name_of

_NO_LEDGER: Final = "--retire goes by the ledger of earlier runs, and there is none for {}."


def check(request: Request, key: str | None, retire: bool) -> None:
    """Refuse, before anything is read, to retire by a ledger that there can't be.

    Raises:
      RunRefused: the run has no key of the user's, or takes a part of its inputs.
    """
    if retire and key is None:
        raise RunRefused(_NO_LEDGER.format("a run without --key"))
    if retire and request.selects:
        raise RunRefused(_NO_LEDGER.format("a request with Resources"))


def fits(request: Request) -> bool:
    """Whether what earlier runs have settled tells what this one would make of the same objects.

    Of modify, split and merge, and where Resources are named, outputs hang on what is selected; and whether a constant
    makes one of several patients, studies or series is seen when all of them are.
    """
    merging = request.allow_merge and request.force and "instance" not in request.given
    return not (request.alters or request.selects or (request.given and not merging))


def ask(run: Run) -> str:
    """Note for the workers what they ask the ledger: the note's place; "" where there is nothing to ask."""
    if run.ephemeral or not fits(run.request) or not runs.holds_something(locate(run.places.output)):
        return ""
    earlier = runs.finished_under(run.places.restricted, run.fingerprints["key"])
    here = [it for it in earlier if it.get("output") == run.places.output]
    parts, gone = (_parts(run, here, name_of(schema)) for schema in (LEDGER, GONE))
    if not parts:
        return ""
    question = Question(
        parts,
        gone,
        tuple(it["run"] for it in here),
        _under_others(run, earlier),
        tuple(given for given in run.places.inputs if not pattern_of(given)),
        run.fingerprints["request"],
        run.fingerprints["table"],
        EVERYTHING if run.choices.anew else run.choices.reprocess,
        retries=not run.request.permissive,
        moves=not run.request.keep_source,
        follows=run.request.external_references == "remove",
        filter=runs.taken(run.choices.taking, run.key),
        patterns=tuple(given for given in run.places.inputs if pattern_of(given)),
    )
    file = run.folder / "ledger.json"
    stores.create_restricted(file, question.encode())
    return str(file)


def purges(run: Run) -> tuple[str, ...]:
    """Where it is recorded what was deleted on purpose."""
    return tuple(map(str, matching(locate(run.places.restricted) / name_of(PURGE_LIST), "run=*")))


def _parts(run: Run, here: list[dict[str, Any]], table: str) -> tuple[LedgerPart, ...]:
    root = locate(run.places.restricted)
    return tuple(
        LedgerPart(str(part.path), it["run"], *part.rows[1:]) for it in here for part in parts_of(it, root, table)
    )


def _under_others(run: Run, earlier: list[dict[str, Any]]) -> tuple[str, ...]:
    """The runs that went by another crosswalk than is in force now."""
    given = json.loads((run.folder / "facts.json").read_bytes())[facts.GIVEN]
    now = [hashlib.sha256(locate(path).read_bytes()).hexdigest() for path, *_ in given]
    found: list[str] = []
    then: list[str | None] = []
    for it in earlier:
        told = [part for part in it["parts"] if part["path"].startswith(f"{name_of(CROSSWALK_GIVEN)}/run=")]
        then = [part.get("sha256") for part in told] or then
        if then != now:
            found.append(it["run"])
    return tuple(found)
