"""Move instead of copy: delete what a run has de-identified, once the whole run has ended well.

Which run may be purged, what goes on its list, and in what order things are noted and done is settled here; what is
looked at before a source is removed, in `transforms.removals`.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from rich.console import Console

from dicomveil.request import Request
from pipelines import runs
from pipelines.choices import Choices
from pipelines.places import Places, RunRefused
from pipelines.tally import tally
from transforms import files, removals, secrets, stores, zips
from transforms.inputs import means, root_of
from transforms.locations import StoreError, local_path
from transforms.manifests import Slice, named_slices, read_slice
from transforms.object_stores import scheme_of
from transforms.purges import DELETED, KEPT, Outcomes, Purge
from transforms.records import COPIED, WRITTEN
from transforms.removals import Kept, Removal, Seen
from transforms.tables import CROSSWALK_INSTANCES, INSTANCES, QUARANTINE, name_of

NO_KEY: Final = (
    "KeepSource: false needs --key: without one the originals would go, and with the run's own key the way to have "
    "what comes later fit. Make one with: dicomveil keygen"
)
_STAYS: Final = {
    "filtered duplicate": "Equal bytes were read from another file.",
    COPIED: "Not selected: their outputs bear the same identifiers.",
}
_THREADS: Final = 16  # they wait for the disk
_AUDITED: Final = ["source_token", "outcome", "name", "bytes", "sha256"]
_READ: Final = ["source_token", "source_uri", "source_version", "source_size", "name"]


@dataclass(frozen=True)
class EndedRun:
    """A run that has ended well, by its two manifests.

    Attributes:
      parts: of its tables, by zone.
      outputs: every folder that a run of this restricted zone writes to.
      ephemeral: whether it had a key of its own.
      finished: the runs of this restricted zone that have a manifest.
    """

    id: str
    places: Places
    parts: dict[str, list[dict[str, Any]]]
    outputs: tuple[str, ...]
    ephemeral: bool
    finished: frozenset[str]

    def tables(self, zone: str, table: str) -> dict[str, Slice]:
        """The parts of a table by the names that they had in its folder."""
        root = Path(vars(self.places)[zone])
        listed = [part for part in self.parts[zone] if part["path"].startswith(f"{table}/run=")]
        return {name: found for part in listed for name, found in named_slices(part, root)}


@dataclass
class Purged:
    """What a purge came to.

    Attributes:
      counts: how many sources, by "deleted" or "kept reason".
      bytes: of what was deleted.
      never: how many inputs were no candidates, by "outcome reason".
      dry: whether nothing was deleted, and the counts say what would be.
    """

    run: str
    counts: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    never: Counter[str] = field(default_factory=Counter)
    abandoned: bool = False
    dry: bool = False

    @property
    def deleted(self) -> int:
        """How many sources were deleted."""
        return self.counts[DELETED]

    @property
    def kept(self) -> dict[str, int]:
        """How many sources stay that were to go, by reason."""
        return {name.removeprefix(f"{KEPT} "): count for name, count in sorted(self.counts.items()) if name != DELETED}

    @property
    def exit_status(self) -> int:
        """0 where all that was to go is gone, or the purge was given up; 3 where something stays."""
        return 3 if self.kept and not self.abandoned else 0

    @property
    def run_exit_status(self) -> int:
        """That of the whole run: 3 also where it has quarantined something."""
        return 3 if any(name.startswith("quarantined ") for name in self.never) else self.exit_status

    def content(self) -> dict[str, Any]:
        """For `summary.json` and `ended.json`: counts alone."""
        told = {"Run": self.run, "Deleted": self.deleted, "DeletedBytes": self.bytes, "Kept": self.kept}
        return told | {"NeverListed": dict(sorted(self.never.items())), "Abandoned": self.abandoned}

    def print(self, console: Console) -> None:
        """Tell a person how many, and why not the others."""
        done = "would be deleted" if self.dry else "deleted"
        console.print(
            f"\n{self.deleted:,} sources {done}, {self.bytes:,} bytes, run {self.run}", highlight=False, soft_wrap=True
        )
        table = tally()
        for reason, count in self.kept.items():
            table.add_row(f"{count:,}", f"kept: {reason}", " ".join(removals.KEPT[reason]))
        for name, count in sorted(self.never.items()):
            told = _STAYS.get(name, "")
            table.add_row(f"{count:,}", f"stay: {name.replace(' ', ': ')}", told)
        if table.row_count:
            console.print(table)
        if self.abandoned:
            console.print("The purge was given up: nothing more is deleted.", highlight=False)


def purge(restricted: str, run_id: str, tell: Callable[[str], None], told: Callable[[int], None]) -> Purged:
    """Delete the sources of a run, from wherever an earlier attempt stands; what that kept is tried again.

    Args:
      tell: hears how many will be deleted, before the first is.
      told: hears how many are settled.

    Raises:
      RunRefused: the run may not be purged.
      StoreError: its records can't be read.
      StoreFailed: what is done can't be noted; nothing more is deleted.
    """
    run = _ended_well(restricted, run_id)
    found = Purge(run.places.restricted, run_id)
    if (found.ended or {}).get("Abandoned"):
        raise RunRefused(f"The purge of run {run_id} was given up, so its sources stay: remove them by hand.")
    if found.listed is None:
        found.write_list(_listed(run))
    _settle_records(run)
    listed, (before, _) = found.listed or {}, found.counts()
    going = _many(listed["sources"] - before[DELETED])
    tell(f"Of run {run_id} {going} will be deleted for good now, each once its output has been read back.")
    done = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for part in found.parts:
            done += len(_settle(found, part, Path(run.places.output), pool))
            told(done)
    return _end(run, found)


def dry_run(restricted: str, run_id: str) -> Purged:
    """What a purge would come to: sources are looked at and outputs read back, and nothing is written.

    Raises:
      RunRefused: the run may not be purged.
    """
    run = _ended_well(restricted, run_id)
    purged, output = Purged(run_id, never=_never(run), dry=True), Path(run.places.output)
    found = Purge(run.places.restricted, run_id)
    before = (found.settled(part) for part in found.parts)
    done = {token for outcomes in before for token, outcome in outcomes.items() if outcome[0] == DELETED}
    for it in _listed(run):
        if it.token in done:
            continue
        reason = _confirmed(output, it)
        purged.counts[f"{KEPT} {reason}" if isinstance(reason, str) else DELETED] += 1
        purged.bytes += 0 if isinstance(reason, str) else it.size
    return purged


def abandon(restricted: str, run_id: str) -> Purged:
    """Give a purge up, begun or not: what is there stays, and no command deletes sources of this run any more.

    Raises:
      RunRefused: there is no such run.
    """
    run = _ended(restricted, run_id)
    found = Purge(run.places.restricted, run_id)
    for part in found.parts:
        listed, outcomes, begun = found.part(part), found.settled(part), found.intended(part)
        for it in listed:
            if it.token in begun and not os.path.lexists(local_path(it.uri)):
                outcomes[it.token] = (DELETED, "")
            outcomes.setdefault(it.token, (KEPT, it.reason or "abandoned"))
        found.settle(part, listed, outcomes)
    return _end(run, found, abandoned=True)


def check(request: Request, key: str | None, where: Places | None = None) -> None:
    """Refuse, before anything is read, what could never be purged.

    Raises:
      RunRefused: the sources shall go, and there is no key, or something is in a store, where no source is deleted.
    """
    if request.keep_source:
        return
    if key is None:
        raise RunRefused(NO_KEY)
    roots = (*where.inputs, where.output, where.audit, where.restricted) if where else ()
    if any(map(scheme_of, roots)):
        raise RunRefused(
            "KeepSource: false is for folders of this machine: in a store the sources stay. Let its lifecycle rules "
            "delete them."
        )


def restricted_root(restricted: str) -> str:
    """The restricted zone as an absolute path.

    Raises:
      RunRefused: no run has its records there.
      StoreError: it is in no store that can be used.
    """
    root = Path(os.path.realpath(local_path(restricted)))
    if not any(root.glob("runs/*.json")) and not any(root.glob("run=*")):
        raise RunRefused("--restricted: no run has its records there; name what was --restricted.")
    return str(root)


def unfinished(where: Places, request: Request, key: str | None, choices: Choices) -> str | None:
    """The newest run that the same command has ended without having purged it; None for none.

    Raises:
      KeyRefused: the key can't be used.
    """
    if request.keep_source or key is None:
        return None
    reference = secrets.refer(key)
    asked, selection = runs.fingerprints(request, reference), runs.selected(request, reference)
    taken = runs.taken(choices.taking, reference)
    places = json.loads(json.dumps(vars(where)))
    for it in reversed(runs.manifests(where.restricted)):
        same = it.get("places") == places and it["fingerprints"] == asked
        same = same and it.get("anew") == choices.anew and it.get("selection", selection) == selection
        same = same and it.get("filter", "") == taken
        if same and it.get("whole") and not it.get("keep_source", True):
            return None if Purge(where.restricted, it["run"]).ended else it["run"]
    return None


# ------------------------------------------------------------------------------------------------------ which run


def _ended(restricted: str, run_id: str) -> EndedRun:
    """A run by its manifests.

    Raises:
      RunRefused: there is none, or it died.
    """
    root = restricted_root(restricted)
    found = {it["run"]: it for it in runs.manifests(root)}
    if run_id not in found:
        if any(runs.id_of(folder) == run_id for folder, _ in runs.begun(root)):
            raise RunRefused(f"Run {run_id} has begun and not ended: run its command again, and purge it then.")
        newest = ", ".join(sorted(found, reverse=True)[:3])
        remedy = f"the newest are {newest}" if newest else "name what was --restricted"
        raise RunRefused(f"--run: no finished run {run_id!r} has its records under --restricted; {remedy}.")
    manifest = found[run_id]
    if not manifest.get("whole"):
        raise RunRefused(
            f"Run {run_id} died, and another closed it: its sources stay. Run again over them, and purge that."
        )
    told = manifest["places"] | {"restricted": root}
    where = Places(**told | {name: tuple(told.get(name, ())) for name in ("inputs", "crosswalks", "lists")})
    outputs = {it["output"] for it in found.values() if "output" in it} | {where.audit, root}
    parts = {"restricted": manifest["parts"], "audit": _audit(where, run_id, manifest)}
    writes = tuple(sorted(map(os.path.realpath, outputs)))
    return EndedRun(run_id, where, parts, writes, manifest["ephemeral"], frozenset(found))


def _audit(where: Places, run_id: str, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts that the audit's manifest lists; the sources stay where that is gone."""
    try:
        audit = json.loads((Path(where.audit) / "runs" / f"{run_id}.json").read_bytes())
        if audit["run"] == run_id and audit["fingerprints"] == manifest["fingerprints"]:
            return list(audit["parts"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise RunRefused(
        f"--audit has no record of run {run_id} any more, which tells what its outputs must be; bring it back."
    )


def _ended_well(restricted: str, run_id: str) -> EndedRun:
    """A run whose sources may go.

    Raises:
      RunRefused: it has no key, or another run that has begun and not ended needs its sources or writes to its output.
    """
    run = _ended(restricted, run_id)
    if run.ephemeral:
        raise RunRefused(f"Run {run_id} had a key of its own, so its sources stay: what comes later can't fit.")
    for folder, state in runs.begun(run.places.restricted):
        other = state["places"]
        overlap = other["output"] == run.places.output or any(
            _within(mine, theirs) or _within(theirs, mine)
            for mine in map(root_of, run.places.inputs)
            for theirs in map(root_of, other["inputs"])
        )
        if runs.id_of(folder) not in run.finished and overlap:
            raise RunRefused(
                f"Run {runs.id_of(folder)} has begun and not ended, and reads the same sources or writes to the same "
                "output: run its command again, and purge then."
            )
    return run


def _within(path: str, folder: str) -> bool:
    return os.path.commonpath((path, folder)) == folder


# ------------------------------------------------------------------------------------------------------- the list


def _listed(run: EndedRun) -> Iterator[Removal]:
    """Every source of which the run has written an output, with what that must be; none of what was set aside."""
    audited = run.tables("audit", name_of(INSTANCES))
    for name, path in sorted(run.tables("restricted", name_of(CROSSWALK_INSTANCES)).items()):
        there = _rows(audited[name], _AUDITED) if name in audited else []
        outputs = {row["source_token"]: row for row in there if row["outcome"] in WRITTEN}
        for source in _rows(path, _READ):
            if outputs.get(source["source_token"], {}).get("outcome") == COPIED:
                continue  # it bears the identifiers of its source
            output = outputs.get(source["source_token"], {})
            recorded = output.get("name") == source["name"] and output["sha256"]
            yield Removal(
                token=source["source_token"],
                uri=source["source_uri"],
                version=source["source_version"],
                size=source["source_size"] or 0,
                name=source["name"],
                bytes=output["bytes"] if recorded else 0,
                sha256=output["sha256"] if recorded else "",
                reason=_stays(source["source_uri"], source["source_version"], run)
                or ("" if recorded else "unrecorded"),
            )


def _stays(uri: str, version: str, run: EndedRun) -> str:
    """Why a source stays for where it lies."""
    if zips.is_member(version):
        return "no-plain-file"
    try:
        path = str(local_path(uri))
    except StoreError:
        return "no-plain-file"
    if not os.path.isabs(path):
        return "no-plain-file"
    if any(_within(path, output) for output in run.outputs):
        return "inside-output"
    return "" if any(means(given, path) for given in run.places.inputs) else "outside-input"


def _never(run: EndedRun) -> Counter[str]:
    """How many inputs were set aside, by outcome and reason, or copied beside what was modified."""
    counted: Counter[str] = Counter()
    for path in run.tables("restricted", name_of(QUARANTINE)).values():
        counted.update(f"{row['outcome']} {row['reason']}" for row in _rows(path, ["outcome", "reason"]))
    for path in run.tables("audit", name_of(INSTANCES)).values():
        counted.update(COPIED for row in _rows(path, ["outcome"]) if row["outcome"] == COPIED)
    return counted


def _rows(part: Slice, columns: list[str]) -> list[dict[str, Any]]:
    try:
        return [row for batch in read_slice(part, columns) for row in batch.to_pylist()]
    except (OSError, pa.ArrowException):
        path = part.path
        raise RunRefused(
            f"{path.parent.name}/{path.name}: the run lists it, and it can't be read; bring it back."
        ) from None


# -------------------------------------------------------------------------------------------------------- doing it


def _settle_records(run: EndedRun) -> None:
    """Have what leads back to the originals, and tells what was done, outlast the machine's death."""
    folders = set()
    for zone, parts in run.parts.items():
        root = Path(vars(run.places)[zone])
        for path in (root / "runs" / f"{run.id}.json", *(root / part["path"] for part in parts)):
            files.sync(path)
            folders |= {path.parent, path.parent.parent, root}
    for folder in folders:
        files.sync(folder)


def _settle(found: Purge, part: int, output: Path, pool: ThreadPoolExecutor) -> Outcomes:
    """Bring one part of the list to its end.

    The outputs are on the disk and have been read back before it is noted whose removal begins, and that is noted
    before the first is removed. So a source that is gone although nobody settled it was removed here.
    """
    listed, outcomes, begun = found.part(part), found.settled(part), found.intended(part)
    left = [it for it in listed if outcomes.get(it.token, ("",))[0] != DELETED]
    if not left:
        return outcomes
    confirmed: dict[str, Seen] = {}
    for it, seen in zip(left, pool.map(partial(_confirmed, output), left), strict=True):
        if isinstance(seen, Seen):
            confirmed[it.token] = seen
        else:
            outcomes[it.token] = (DELETED, "") if seen == "gone" and it.token in begun else (KEPT, seen)
    going = [it for it in left if it.token in confirmed]
    if going:
        removals.settle_outputs(output, {it.name for it in going})
        found.intend(part, begun | confirmed.keys())
        for it in going:
            outcomes[it.token] = _removed(it, output, confirmed[it.token])
        removals.settle_removals(going)
    found.settle(part, listed, outcomes)
    return outcomes


def _confirmed(output: Path, removal: Removal) -> Seen | str:
    """The output as it was seen, or why the source stays."""
    try:
        return removals.confirm(removal, output)
    except Kept as kept:
        return kept.reason


def _removed(removal: Removal, output: Path, seen: Seen) -> tuple[str, str]:
    try:
        removals.remove(removal, output, seen)
    except Kept as kept:
        return KEPT, kept.reason
    return DELETED, ""


def _end(run: EndedRun, found: Purge, abandoned: bool = False) -> Purged:
    """Count what became of all, and tell of it in the run's summary where that is still the newest."""
    counts, size = found.counts()
    purged = Purged(run.id, counts, size, _never(run), abandoned)
    summary = Path(run.places.audit) / "summary.json"
    try:
        content = json.loads(summary.read_bytes())
    except (OSError, ValueError):
        content = {}
    if content.get("Run") == run.id:
        told = {name: it for name, it in purged.content().items() if name != "Run"}
        stores.create_small(summary, json.dumps(content | {"Purge": told}, indent=1).encode() + b"\n")
    found.end(purged.content())
    return purged


def _many(count: int) -> str:
    return "1 source" if count == 1 else f"{count:,} sources"
