"""A run on disk: its folder, its lock, what it began with, and the manifest that makes it count.

A run exists for readers once `runs/<id>.json` does, which is created atomically and last.
"""

import datetime
import fcntl
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from dicomveil.alterations import scope_of
from dicomveil.compile import RECIPE, fingerprint_of
from dicomveil.errors import DicomveilError
from dicomveil.filters import Filter
from dicomveil.request import Request
from pipelines.choices import Choices
from pipelines.places import Places, RunRefused
from transforms import listing, store_failures, stores
from transforms import secrets as key_references
from transforms.crosswalk_files import crosswalk_files
from transforms.facts import NOTHING_KNOWN, Known
from transforms.lease import Lease, leased
from transforms.locations import Location, locate, matching, table_file
from transforms.object_stores import scheme_of
from transforms.secrets import KeyReference
from transforms.selection import write_selection
from transforms.tables import AUDIT, CROSSWALK_GIVEN, CROSSWALK_UIDS, RESTRICTED, SCHEMA_VERSION, name_of

STATE_VERSION: Final = 5
_TEMPORARY: Final = ".run="
_BEFORE_STATE: Final = {"key", "inputs.json"}
_BEFORE: Final = "before.json"
Parts = dict[str, list[dict[str, Any]]]
"""The parts of tables by zone, "audit" or "restricted": the path of each below its root, and its rows."""


@dataclass
class Run:
    """One run, new or resumed.

    Attributes:
      folder: its own, in the restricted zone.
      fingerprints: of request, decision table and key, and where identifiers are derived under the request its scope;
        an output holds one set of them.
      resumed: whether it was begun by an earlier command that died.
      known: what is known before it.
      ledger: file that tells what is asked of the ledger; "" where there is none.
      apart: whether its workers are on other machines.
      lease: on the restricted zone, without which nothing is committed; None where that is a folder.
    """

    id: str
    places: Places
    request: Request
    key: KeyReference
    ephemeral: bool
    started: str
    choices: Choices
    resumed: bool = False
    known: Known = NOTHING_KNOWN
    ledger: str = ""
    apart: bool = False
    lease: Lease | None = None
    fingerprints: dict[str, str] = field(default_factory=dict)

    @property
    def worker_request(self) -> Request:
        """The request as it travels to workers: without originals."""
        return replace(self.request.for_workers(), scope=self.fingerprints.get("scope", ""))

    @property
    def selection(self) -> Location:
        """Where it stands what the request selects."""
        return self.folder / "selection.json"

    @property
    def filter(self) -> Location:
        """Where it stands what is taken."""
        return self.folder / "filter.json"

    @property
    def found(self) -> Location:
        """Where it stands which of that there is."""
        return self.folder / "found.json"

    @property
    def described(self) -> Location:
        """Where it stands what patients who come to share an ID say of themselves."""
        return self.folder / "described.json"

    @property
    def target(self) -> Location:
        """Where it stands what a study that others are merged into says of itself."""
        return self.folder / "target.dcm"

    @property
    def stop(self) -> Location:
        """What is there once the workers are to stop."""
        return self.folder / "stop"

    @property
    def folder(self) -> Location:
        return locate(self.places.restricted) / f"run={self.id}"

    @property
    def scratch(self) -> Path:
        """The same on this machine: for what only this command reads."""
        return self.folder if isinstance(self.folder, Path) else _scratch(self.id)

    @property
    def progress(self) -> Location:
        """Looked at far too often for a store, unless workers see nothing else."""
        return (self.folder if self.apart else self.scratch) / "progress"

    @property
    def temporary(self) -> Path:
        """Where outputs are written before they are renamed into place: on their own file system."""
        return _temporary(self.places.output, self.id)

    def slice_record(self, number: int) -> Location:
        return self.folder / "slices" / f"{number:05}.json"


def _scratch(run_id: str) -> Path:
    return _all_scratch() / f"run={run_id}"


def _all_scratch() -> Path:
    return Path(tempfile.gettempdir()) / f"dicomveil-{os.getuid()}"


def _own_scratch() -> None:
    """Make the folder of all scratch folders; its name can be foreseen, so it may be there, and somebody else's.

    Raises:
      RunRefused: others may enter it, or lead it elsewhere.
    """
    folder = _all_scratch()
    stores.restricted_folder(folder)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise RunRefused(f"{folder}: isn't this user's alone, and originals would lie there; remove it, or set TMPDIR.")


def _temporary(output: str, run_id: str) -> Path:
    folder = locate(output) / f"{_TEMPORARY}{run_id}"
    return folder if isinstance(folder, Path) else _scratch(run_id) / "outputs"


@contextmanager
def locked(restricted: str) -> Iterator[Lease | None]:
    """Hold the restricted zone for this command alone.

    Yields:
      The lease on it, where it is in a store; None for a folder, whose lock nobody can lose.

    Raises:
      RunRefused, LeaseHeld: another command holds it.
      LeaseLost: on leaving, where another has taken it over.
    """
    zone = locate(restricted)
    if not isinstance(zone, Path):
        with store_failures.serving("written"), leased(zone.uri) as lease:
            yield lease
        return
    stores.restricted_folder(zone)
    zone.chmod(0o700)
    with open(os.open(zone / "lock", os.O_RDWR | os.O_CREAT, 0o600), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunRefused("Another run is at work in --restricted: wait for it, or choose another.") from None
        yield None


def begin(where: Places, request: Request, key: str | None, choices: Choices, lease: Lease | None = None) -> Run:
    """Find the run that died here with the same question, or begin a new one.

    Args:
      lease: on the restricted zone, which then tells the run.

    Raises:
      RunRefused: the output was made with another request, edition, recipe or key; or the scratch folder is another's.
      KeyRefused: the key can't be used.
    """
    if any(map(scheme_of, (where.output, where.restricted))):
        _own_scratch()
    _tidy(where.restricted)
    versions = {"crosswalks": _versions(where.crosswalks), "lists": [listing.look_up(it).version for it in where.lists]}
    unfinished = _unfinished(where, request, choices.question() | versions, key, choices.taking)
    if unfinished:
        run = Run(**unfinished, places=where, request=request, ephemeral=key is None, choices=choices, resumed=True)
    else:
        now = datetime.datetime.now(datetime.timezone.utc)
        run_id = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        folder = locate(where.restricted) / f"run={run_id}"
        if key is None and not isinstance(folder, Path):
            raise RunRefused(
                "--key: give one where --restricted is in a store, which may keep what is deleted: a run's own key "
                "must end with it. Make one with: dicomveil keygen"
            )
        reference = key or key_references.ephemeral(str(folder))
        started = now.isoformat(timespec="seconds")
        run = Run(run_id, where, request, key_references.refer(reference), key is None, started, choices)
    run.fingerprints = fingerprints(request, run.key)
    if not choices.overwrite:
        try:
            _refuse_mixture(run)
        except RunRefused:
            if not run.resumed:
                forget(run.folder)
            raise
    if not unfinished:
        _remember(run, versions)
    if lease:
        run.lease = lease
        lease.name(run.id)
    return run


def _versions(crosswalks: tuple[str, ...]) -> list[str]:
    """Which versions of the crosswalks there are: a plan doesn't hold where the user has mended one."""
    folders = [uri for uri in crosswalks if not scheme_of(uri)]
    files = [str(file.path) for file in crosswalk_files(folders, Path())]
    stored = [uri for uri in crosswalks if scheme_of(uri)]
    return [found.version for root in (*files, *stored) for found in listing.list_objects(root)]


def fingerprints(request: Request, key: KeyReference) -> dict[str, str]:
    """Of what decides on an output; of a request under which identifiers are derived also the scope."""
    told = {"request": request.fingerprint, "table": fingerprint_of(request), "key": key.fingerprint}
    return told | ({"scope": scope_of(request, key.keys())} if request.alters else {})


def selected(request: Request, key: KeyReference) -> str:
    """Stands for what a request selects, and the study that it is split from or merged into; "" for everything."""
    if not request.selects:
        return ""
    study = (request.study.role, request.study.id) if request.study else ()
    return key.keys().token("selection", request.selection, repr(study).encode())


def taken(taking: Filter | None, key: KeyReference) -> str:
    """Stands for what is taken; "" for everything."""
    return key.keys().token("filter", taking.encode()) if taking else ""


def _remember(run: Run, versions: dict[str, list[str]]) -> None:
    if run.choices.taking:
        stores.create_restricted(run.filter, run.choices.taking.encode())
    if run.request.selects:
        write_selection(run.selection, run.request)
    given = [*run.places.inputs, *({"list": place} for place in run.places.lists)]
    stores.create_restricted(run.folder / "inputs.json", json.dumps(given).encode())
    state = _state(run) | versions
    stores.create_restricted(run.folder / "state.json", json.dumps(state).encode())


def _state(run: Run) -> dict[str, Any]:
    """What a run is, as far as others must know of it."""
    return {
        "version": STATE_VERSION,
        "started": run.started,
        "places": asdict(run.places),
        "command": run.request.command,
        "request": run.request.members(),
        "selection": selected(run.request, run.key),
        "filter": taken(run.choices.taking, run.key),
        "fingerprints": run.fingerprints,
        "ephemeral": run.ephemeral,
        "identity": [run.request.patient_identity, run.request.default_issuer],
    } | run.choices.question()


def _unfinished(
    where: Places, request: Request, asked: dict[str, Any], key: str | None, taking: Filter | None
) -> dict[str, Any] | None:
    """What is known of the newest run that was begun with the same question and has no manifest."""
    reference = key_references.refer(key) if key else None
    for folder, state in begun(where.restricted):
        same = state["places"] == json.loads(json.dumps(asdict(where))) and state["version"] == STATE_VERSION
        same = same and all(state[name] == told for name, told in asked.items())
        if not same or state["ephemeral"] != (key is None):
            continue
        try:
            found = reference or key_references.refer(f"file:{folder / 'key'}")
        except DicomveilError:
            continue
        same = state["fingerprints"] == fingerprints(request, found)
        same = same and state.get("filter", "") == taken(taking, found)
        if same and state["selection"] == selected(request, found):
            if _overtaken(where.restricted, folder, found.fingerprint):
                continue
            return {"id": id_of(folder), "key": found, "started": state["started"]}
    return None


def _overtaken(restricted: str, folder: Location, key: str) -> bool:
    """Whether a run was planned without what another has settled since."""
    before = folder / _BEFORE
    return before.exists() and json.loads(before.read_bytes()) != [it["run"] for it in finished_under(restricted, key)]


def note_before(run: Run, earlier: list[dict[str, Any]]) -> None:
    """Note which finished runs the plan knows of."""
    stores.create_restricted(run.folder / _BEFORE, json.dumps([it["run"] for it in earlier]).encode())


def given_parts(restricted: str, run_id: str) -> list[dict[str, Any]]:
    """What a run keeps of the crosswalks that the user named, for its manifest."""
    folder = f"{name_of(CROSSWALK_GIVEN)}/run={run_id}"
    return [
        {
            "path": f"{folder}/{path.name}",
            "rows": pq.read_metadata(table_file(path)).num_rows,
            "sha256": stores.sha256_of_file(path),
        }
        for path in matching(locate(restricted) / folder, "*.parquet")
    ]


def begun(restricted: str) -> Iterator[tuple[Location, dict[str, Any]]]:
    """The folders of runs that died, the newest first, with what each began with."""
    for file in reversed(matching(locate(restricted), "run=*/state.json")):
        yield file.parent, _read(file, "--restricted")


def id_of(folder: Location) -> str:
    """The run whose folder it is."""
    return folder.name.removeprefix("run=")


def _tidy(restricted: str) -> None:
    """Clear away what commands that died have left: a run they never began or had ended, and half-written outputs.

    This command holds the restricted zone, so none of them is at work any more.
    """
    for folder in locate(restricted).glob("run=*"):
        ended = (locate(restricted) / "runs" / f"{id_of(folder)}.json").exists()
        names = {path.name for path in folder.iterdir()} - {path.name for path in stores.left_behind(folder)}
        if ended or names <= _BEFORE_STATE:
            forget(folder)
    for folder, state in begun(restricted):
        shutil.rmtree(_temporary(state["places"]["output"], id_of(folder)), ignore_errors=True)


def _refuse_mixture(run: Run) -> None:
    """An output holds what one request, edition, recipe and key have made, and nothing that no run accounts for."""
    told = {"request": "request", "table": "edition, tables or recipe", "key": "key", "scope": "selection"}
    makers = [_read(manifest, "--audit") for manifest in matching(locate(run.places.audit) / "runs", "*.json")]
    if holds_something(locate(run.places.output)):
        died = [state for _, state in begun(run.places.restricted)]
        makers += [state for state in died if state["places"]["output"] == run.places.output]
        if not makers:
            raise RunRefused(
                "The output holds what no run in --audit accounts for: choose another --output, name the --audit that "
                "goes with it, or go on in it with --overwrite."
            )
    for maker in makers:
        other = [told[name] for name in told if maker["fingerprints"].get(name) != run.fingerprints.get(name)]
        if other:
            raise RunRefused(
                f"The output was made with another {' and '.join(other)}: choose another --output, "
                "or go on in this one with --overwrite."
            )


def holds_something(output: Location) -> bool:
    """Whether anything stands in the output but what runs that died were writing."""
    if not isinstance(output, Path):
        return listing.any_below(f"{output}/")
    return output.is_dir() and any(not path.name.startswith(_TEMPORARY) for path in output.iterdir())


def _read(file: Location, option: str) -> dict[str, Any]:
    """A record of an earlier run.

    Raises:
      RunRefused: it is none.
    """
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
        content["fingerprints"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise RunRefused(f"{option}: {file.name} there is no record of a run; remove it, or choose another.") from None
    return content


def commit(run: Run, parts: Parts, summary: dict[str, Any], whole: bool = True) -> None:
    """Write the summary, then the manifests: from here on the run counts.

    Args:
      whole: whether it came to its end, and didn't stop before.
    """
    _confirm(run.lease)
    stores.create_small(locate(run.places.audit) / "summary.json", _json(summary))
    commit_parts(run.id, _state(run), parts, run.lease, whole)


def commit_parts(run_id: str, state: dict[str, Any], parts: Parts, lease: Lease | None, whole: bool = False) -> None:
    """Have the parts of tables count that a run has written, the restricted ones last.

    Args:
      lease: of this command, under which they count.
      whole: whether it came to its end, and isn't one that died and is closed by another.

    Raises:
      LeaseLost: another command holds the zone, or may hold it.
    """
    told = {"run": run_id, "started": state["started"], "schema_version": SCHEMA_VERSION, "recipe": RECIPE}
    told |= {"fingerprints": state["fingerprints"]}
    audit, restricted = (locate(state["places"][zone]) / "runs" / f"{run_id}.json" for zone in ("audit", "restricted"))
    stores.create_small(audit, _json(told | _confirm(lease) | {"parts": parts.get("audit", [])}))
    told |= {"output": state["places"]["output"], "anew": state["anew"], "identity": state["identity"]}
    told |= {"command": state.get("command", "anonymize"), "selection": state.get("selection", "")}
    told |= {"filter": state.get("filter", "")}
    told |= {"whole": whole, "places": state["places"], "ephemeral": state["ephemeral"]}
    told |= {"keep_source": state["request"].get("KeepSource", True)}
    stores.create_restricted(restricted, _json(told | _confirm(lease) | {"parts": parts.get("restricted", [])}))


def hold(lease: Lease | None) -> None:
    """See that the zone is still this command's, before what can't be undone; its store is asked only in doubt.

    Raises:
      LeaseLost: another command has taken it over.
    """
    if lease:
        lease.settle()


def _confirm(lease: Lease | None) -> dict[str, Any]:
    """Renew the lease at once, and tell by which one something counts."""
    if lease is None:
        return {}
    lease.confirm()
    return {"lease": lease.told}


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"


def finished_under(restricted: str, key: str) -> list[dict[str, Any]]:
    """What finished runs that de-identified under one key have left, the oldest first.

    Args:
      key: its fingerprint.

    Raises:
      RunRefused: something there is no record of a run.
    """
    found = (it for it in manifests(restricted) if it["fingerprints"]["key"] == key)
    return [it for it in found if it.get("command", "anonymize") == "anonymize"]


def altered_before(run: Run) -> list[str]:
    """The crosswalks of UIDs that finished runs of modify, split or merge with the same request left for its output."""
    root, table = locate(run.places.restricted), name_of(CROSSWALK_UIDS)
    return [
        str(root / part["path"])
        for it in manifests(run.places.restricted)
        if it["fingerprints"] == run.fingerprints and it.get("output") == run.places.output
        for part in it["parts"]
        if part["path"].startswith(f"{table}/run=")
    ]


def manifests(restricted: str) -> list[dict[str, Any]]:
    """What finished runs have left under --restricted, the oldest first.

    Raises:
      RunRefused: something there is no record of a run.
    """
    return [_read(file, "--restricted") for file in matching(locate(restricted) / "runs", "*.json")]


def sweep(run: Run) -> None:
    """Remove what was being written, by this command or by one that died."""
    shutil.rmtree(run.temporary, ignore_errors=True)
    stores.clear(run.progress)
    for root in map(locate, (run.places.audit, run.places.restricted)):
        tables = [root / name_of(schema) / f"run={run.id}" for schema in (*AUDIT, *RESTRICTED)]
        for folder in (root, root / "runs", *tables):
            for left in stores.left_behind(folder):
                left.unlink(missing_ok=True)


def finish(run: Run) -> None:
    """Remove what only an unfinished run needs: the plan, and a key of its own."""
    forget(run.folder)


def forget(folder: Location) -> None:
    """Remove a run's folder, and a key of its own."""
    if isinstance(folder, Path):
        key_references.destroy_ephemeral(str(folder))
    else:
        shutil.rmtree(_scratch(id_of(folder)), ignore_errors=True)
    stores.clear(folder)
