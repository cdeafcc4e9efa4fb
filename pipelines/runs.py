"""A run on disk: its folder, its lock, what it began with, and the manifest that makes it count.

A run exists for readers once `runs/<id>.json` does, which is created atomically and last.
"""

import datetime
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from dicomveil.alterations import scope_of
from dicomveil.compile import RECIPE, fingerprint_of
from dicomveil.errors import DicomveilError
from dicomveil.request import Request
from transforms import secrets as key_references
from transforms import stores
from transforms.crosswalk_files import crosswalk_files
from transforms.facts import NOTHING_KNOWN, Known
from transforms.secrets import KeyReference
from transforms.selection import write_selection
from transforms.tables import AUDIT, CROSSWALK_GIVEN, CROSSWALK_UIDS, RESTRICTED, SCHEMA_VERSION, name_of

STATE_VERSION: Final = 3
_TEMPORARY: Final = ".run="
_BEFORE_STATE: Final = {"key", "inputs.json"}
_BEFORE: Final = "before.json"
_READ: Final = ("--input", "--crosswalk-in")
Parts = dict[str, list[dict[str, Any]]]
"""The parts of tables by zone, "audit" or "restricted": the path of each below its root, and its rows."""


class RunRefused(DicomveilError):
    """What the user asked for can't be done as asked; says what to do instead."""


@dataclass(frozen=True)
class Places:
    """Where a run reads and writes, as absolute paths."""

    inputs: tuple[str, ...]
    output: str
    audit: str
    restricted: str
    crosswalks: tuple[str, ...] = ()


@dataclass
class Run:
    """One run, new or resumed.

    Attributes:
      folder: its own, in the restricted zone.
      fingerprints: of request, decision table and key, and where identifiers are derived under the request its scope;
        an output holds one set of them.
      resumed: whether it was begun by an earlier command that died.
      known: what is known before it.
      anew: whether conflicts that earlier runs met are settled anew.
    """

    id: str
    places: Places
    request: Request
    key: KeyReference
    ephemeral: bool
    started: str
    resumed: bool = False
    known: Known = NOTHING_KNOWN
    anew: bool = False
    fingerprints: dict[str, str] = field(default_factory=dict)

    @property
    def worker_request(self) -> Request:
        """The request as it travels to workers: without originals."""
        return replace(self.request.for_workers(), scope=self.fingerprints.get("scope", ""))

    @property
    def selection(self) -> Path:
        """Where it stands what the request selects."""
        return self.folder / "selection.json"

    @property
    def found(self) -> Path:
        """Where it stands which of that there is."""
        return self.folder / "found.json"

    @property
    def described(self) -> Path:
        """Where it stands what patients who come to share an ID say of themselves."""
        return self.folder / "described.json"

    @property
    def target(self) -> Path:
        """Where it stands what a study that others are merged into says of itself."""
        return self.folder / "target.dcm"

    @property
    def folder(self) -> Path:
        return Path(self.places.restricted) / f"run={self.id}"

    @property
    def progress(self) -> Path:
        return self.folder / "progress"

    @property
    def temporary(self) -> Path:
        """Where outputs are written before they are renamed into place: on their own file system."""
        return _temporary(self.places.output, self.id)

    def slice_record(self, number: int) -> Path:
        return self.folder / "slices" / f"{number:05}.json"


def _temporary(output: str, run_id: str) -> Path:
    return Path(output) / f"{_TEMPORARY}{run_id}"


def places(
    inputs: tuple[str, ...],
    output: str,
    audit: str | None,
    restricted: str | None,
    crosswalks: tuple[str, ...] = (),
) -> Places:
    """Resolve the roots, and refuse any that lies inside another.

    Raises:
      RunRefused: all that is wrong with them, at once.
    """
    roots = {f"--input {uri}": uri for uri in inputs} | {f"--crosswalk-in {uri}": uri for uri in crosswalks}
    base = output.rstrip("/")
    roots |= {
        "--output": output,
        "--audit": audit or f"{base}-audit",
        "--restricted": restricted or f"{base}-restricted",
    }
    problems, real = [], {}
    for name, uri in roots.items():
        try:
            real[name] = os.path.realpath(stores.local_path(uri))
            if not name.startswith("--input") and not stores.is_text(real[name]):
                problems.append(f"{name.split(' ')[0]}: its name is no UTF-8; give it another")
        except stores.StoreError as refused:
            problems.append(f"{name.split(' ')[0]}: {refused}")
    for name in [name for name in real if name.startswith(_READ)]:
        if not os.path.lexists(real[name]):
            problems.append(f"{name}: there is no such file or folder")
        elif not os.access(real[name], os.R_OK):
            problems.append(f"{name}: can't be read; check its permissions")
    problems += [told for name in real if not name.startswith(_READ) for told in _unwritable(name, real[name])]
    problems += _contained({name: path for name, path in real.items() if not name.startswith("--crosswalk-in")})
    if problems:
        raise RunRefused("\n".join(problems))
    inputs, tables = (tuple(sorted({real[name] for name in real if name.startswith(option)})) for option in _READ)
    return Places(inputs, real["--output"], real["--audit"], real["--restricted"], tables)


def _unwritable(name: str, path: str) -> Iterator[str]:
    """Why a root can't be written: judged by itself, or by what it would be made in."""
    there = path
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        yield f"{name}: {'this' if there == path else 'what it would lie in'} is a file, and must be a folder"
    elif not os.access(there, os.W_OK | os.X_OK):
        yield f"{name}: can't be written; check the permissions"


def _contained(real: dict[str, str]) -> Iterator[str]:
    """Roots that lie inside others; inputs may overlap each other, since each object counts once."""
    for name, path in real.items():
        for other, outer in real.items():
            if name == other or (name.startswith("--input") and other.startswith("--input")):
                continue
            if (path == outer and name < other) or (path != outer and os.path.commonpath((path, outer)) == outer):
                yield f"{name} lies inside {other}: choose folders apart from each other"


@contextmanager
def locked(restricted: str) -> Iterator[None]:
    """Hold the restricted zone for this command alone.

    Raises:
      RunRefused: another command holds it.
    """
    stores.restricted_folder(Path(restricted))
    Path(restricted).chmod(0o700)
    with open(os.open(Path(restricted) / "lock", os.O_RDWR | os.O_CREAT, 0o600), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunRefused("Another run is at work in --restricted: wait for it, or choose another.") from None
        yield


def begin(where: Places, request: Request, key: str | None, overwrite: bool, anew: bool = False) -> Run:
    """Find the run that died here with the same question, or begin a new one.

    Raises:
      RunRefused: the output was made with another request, edition, recipe or key.
      KeyRefused: the key can't be used.
    """
    _tidy(where.restricted)
    asked: dict[str, Any] = {"anew": anew, "crosswalks": _versions(where.crosswalks)}
    unfinished = _unfinished(where, request, asked, key)
    if unfinished:
        run = Run(**unfinished, places=where, request=request, ephemeral=key is None, resumed=True)
    else:
        now = datetime.datetime.now(datetime.timezone.utc)
        run_id = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        folder = Path(where.restricted) / f"run={run_id}"
        reference = key or key_references.ephemeral(str(folder))
        run = Run(
            run_id, where, request, key_references.refer(reference), key is None, now.isoformat(timespec="seconds")
        )
    run.fingerprints, run.anew = fingerprints(request, run.key), anew
    if not overwrite:
        try:
            _refuse_mixture(run)
        except RunRefused:
            if not run.resumed:
                forget(run.folder)
            raise
    if not unfinished:
        _remember(run, asked["crosswalks"])
    return run


def _versions(crosswalks: tuple[str, ...]) -> list[str]:
    """Which versions of the crosswalks there are: a plan doesn't hold where the user has mended one."""
    return [found.version for file in crosswalk_files(crosswalks) for found in stores.list_objects(str(file.path))]


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


def _remember(run: Run, crosswalks: list[str]) -> None:
    if run.request.selects:
        write_selection(run.selection, run.request)
    stores.create_restricted(run.folder / "inputs.json", json.dumps(run.places.inputs).encode())
    state = _state(run) | {"crosswalks": crosswalks}
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
        "fingerprints": run.fingerprints,
        "ephemeral": run.ephemeral,
        "anew": run.anew,
        "identity": [run.request.patient_identity, run.request.default_issuer],
    }


def _unfinished(where: Places, request: Request, asked: dict[str, Any], key: str | None) -> dict[str, Any] | None:
    """What is known of the newest run that was begun with the same question and has no manifest."""
    reference = key_references.refer(key) if key else None
    for folder, state in begun(where.restricted):
        same = state["places"] == json.loads(json.dumps(asdict(where))) and state["version"] == STATE_VERSION
        same = same and all(state[name] == asked[name] for name in ("anew", "crosswalks"))
        if not same or state["ephemeral"] != (key is None):
            continue
        try:
            found = reference or key_references.refer(f"file:{folder / 'key'}")
        except DicomveilError:
            continue
        same = state["fingerprints"] == fingerprints(request, found)
        if same and state["selection"] == selected(request, found):
            if _overtaken(where.restricted, folder, found.fingerprint):
                continue
            return {"id": id_of(folder), "key": found, "started": state["started"]}
    return None


def _overtaken(restricted: str, folder: Path, key: str) -> bool:
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
        {"path": f"{folder}/{path.name}", "rows": pq.read_metadata(path).num_rows}
        for path in sorted((Path(restricted) / folder).glob("*.parquet"))
    ]


def begun(restricted: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders of runs that died, the newest first, with what each began with."""
    for file in sorted(Path(restricted).glob("run=*/state.json"), reverse=True):
        yield file.parent, _read(file, "--restricted")


def id_of(folder: Path) -> str:
    """The run whose folder it is."""
    return folder.name.removeprefix("run=")


def _tidy(restricted: str) -> None:
    """Clear away what commands that died have left: a run they never began or had ended, and half-written outputs.

    This command holds the restricted zone, so none of them is at work any more.
    """
    for folder in Path(restricted).glob("run=*"):
        ended = (Path(restricted) / "runs" / f"{id_of(folder)}.json").exists()
        names = {path.name for path in set(folder.iterdir()).difference(stores.left_behind(folder))}
        if ended or names <= _BEFORE_STATE:
            forget(folder)
    for folder, state in begun(restricted):
        shutil.rmtree(_temporary(state["places"]["output"], id_of(folder)), ignore_errors=True)


def _refuse_mixture(run: Run) -> None:
    """An output holds what one request, edition, recipe and key have made, and nothing that no run accounts for."""
    told = {"request": "request", "table": "edition, tables or recipe", "key": "key", "scope": "selection"}
    makers = [_read(manifest, "--audit") for manifest in sorted((Path(run.places.audit) / "runs").glob("*.json"))]
    if _holds_something(Path(run.places.output)):
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


def _holds_something(output: Path) -> bool:
    """Whether anything stands in the output but what runs that died were writing."""
    return output.is_dir() and any(not path.name.startswith(_TEMPORARY) for path in output.iterdir())


def _read(file: Path, option: str) -> dict[str, Any]:
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


def commit(run: Run, parts: Parts, summary: dict[str, Any]) -> None:
    """Write the summary, then the manifests: from here on the run counts."""
    stores.create_small(Path(run.places.audit) / "summary.json", _json(summary))
    commit_parts(run.id, _state(run), parts, whole=True)


def commit_parts(run_id: str, state: dict[str, Any], parts: Parts, whole: bool = False) -> None:
    """Have the parts of tables count that a run has written, the restricted ones last.

    Args:
      whole: whether it came to its end, and isn't one that died and is closed by another.
    """
    told = {"run": run_id, "started": state["started"], "schema_version": SCHEMA_VERSION, "recipe": RECIPE}
    told |= {"fingerprints": state["fingerprints"]}
    audit, restricted = (Path(state["places"][zone]) / "runs" / f"{run_id}.json" for zone in ("audit", "restricted"))
    stores.create_small(audit, _json(told | {"parts": parts.get("audit", [])}))
    told |= {"output": state["places"]["output"], "anew": state["anew"], "identity": state["identity"]}
    told |= {"command": state.get("command", "anonymize"), "selection": state.get("selection", "")}
    told |= {"whole": whole, "places": state["places"], "ephemeral": state["ephemeral"]}
    told |= {"keep_source": state["request"].get("KeepSource", True)}
    stores.create_restricted(restricted, _json(told | {"parts": parts.get("restricted", [])}))


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
    root, table = Path(run.places.restricted), name_of(CROSSWALK_UIDS)
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
    return [_read(file, "--restricted") for file in sorted((Path(restricted) / "runs").glob("*.json"))]


def sweep(run: Run) -> None:
    """Remove what was being written, by this command or by one that died."""
    shutil.rmtree(run.temporary, ignore_errors=True)
    shutil.rmtree(run.progress, ignore_errors=True)
    for root in map(Path, (run.places.audit, run.places.restricted)):
        tables = [root / name_of(schema) / f"run={run.id}" for schema in (*AUDIT, *RESTRICTED)]
        for folder in (root, root / "runs", *tables):
            for left in stores.left_behind(folder):
                left.unlink(missing_ok=True)


def finish(run: Run) -> None:
    """Remove what only an unfinished run needs: the plan, and a key of its own."""
    forget(run.folder)


def forget(folder: Path) -> None:
    """Remove a run's folder, and a key of its own."""
    key_references.destroy_ephemeral(str(folder))
    shutil.rmtree(folder, ignore_errors=True)
