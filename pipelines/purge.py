"""Move instead of copy: delete what a run has de-identified, once the whole run has ended well.

What goes on the list, and in what order things are noted and done is settled here; which run may be purged in
`pipelines.ended`, what is looked at before a source is removed in `transforms.removals`.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import pyarrow as pa

from dicomveil.request import Request
from pipelines import runs
from pipelines.choices import Choices
from pipelines.ended import EndedRun, ended, ended_well
from pipelines.places import Places, RunRefused
from pipelines.purged import Purged
from transforms import removals, secrets, stores, zips
from transforms.candidates import Kept, Removal, Seen
from transforms.lease import Lease
from transforms.locations import StoreError, local_path, locate
from transforms.manifests import Slice, read_slice
from transforms.object_stores import scheme_of
from transforms.purges import DELETED, KEPT, Outcomes, Purge
from transforms.records import COPIED, WRITTEN
from transforms.removals import Output
from transforms.store_failures import serving
from transforms.tables import CROSSWALK_INSTANCES, INSTANCES, QUARANTINE, name_of

NO_KEY: Final = (
    "KeepSource: false needs --key: without one the originals would go, and with the run's own key the way to have "
    "what comes later fit. Make one with: dicomveil keygen"
)
_THREADS: Final = 16  # they wait for the storage
_AUDITED: Final = ["source_token", "outcome", "name", "bytes", "sha256"]
_READ: Final = ["source_token", "source_uri", "source_version", "source_size", "name"]


def purge(
    restricted: str,
    run_id: str,
    tell: Callable[[str], None],
    told: Callable[[int], None],
    lease: Lease | None = None,
) -> Purged:
    """Delete the sources of a run, from wherever an earlier attempt stands; what that kept is tried again.

    Args:
      tell: hears how many will be deleted, before the first is.
      told: hears how many are settled.
      lease: on the restricted zone, without which nothing is deleted; None where that is a folder.

    Raises:
      RunRefused: the run may not be purged.
      StoreError: its records can't be read.
      StoreFailed: what is done can't be noted, or a store can't be had; nothing more is deleted.
      LeaseLost: another command holds the zone, or may hold it.
    """
    run = ended_well(restricted, run_id)
    found = Purge(run.places.restricted, run_id)
    if (found.ended or {}).get("Abandoned"):
        raise RunRefused(f"The purge of run {run_id} was given up, so its sources stay: remove them by hand.")
    if found.listed is None:
        found.write_list(_listed(run))
    _settle_records(run)
    listed, (before, _) = found.listed or {}, found.counts()
    going = _many(listed["sources"] - before[DELETED])
    tell(f"Of run {run_id} {going} will be deleted for good now, each once its output has been read back.")
    done, output = 0, _output(run)
    with _threads() as pool:
        for part in found.parts:
            done += len(_settle(found, part, output, pool, lease))
            told(done)
    return _end(run, found)


def dry_run(restricted: str, run_id: str) -> Purged:
    """What a purge would come to: sources are looked at and outputs read back, and nothing is written.

    Raises:
      RunRefused: the run may not be purged.
    """
    run = ended_well(restricted, run_id)
    purged, output = Purged(run_id, never=_never(run), dry=True), _output(run)
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
    run = ended(restricted, run_id)
    found = Purge(run.places.restricted, run_id)
    for part in found.parts:
        listed, outcomes, begun = found.part(part), found.settled(part), found.intended(part)
        for it in listed:
            if it.token in begun and removals.source_of(it).is_gone():
                outcomes[it.token] = (DELETED, "")
            outcomes.setdefault(it.token, (KEPT, it.reason or "abandoned"))
        found.settle(part, listed, outcomes)
    return _end(run, found, abandoned=True)


def check(request: Request, key: str | None) -> None:
    """Refuse, before anything is read, what could never be purged.

    Raises:
      RunRefused: the sources shall go, and there is no key.
    """
    if not request.keep_source and key is None:
        raise RunRefused(NO_KEY)


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
        place = uri if scheme_of(uri) else str(local_path(uri))
    except StoreError:
        return "no-plain-file"
    if not scheme_of(uri) and not os.path.isabs(place):
        return "no-plain-file"
    if run.writes(place):
        return "inside-output"
    return "" if run.means(place) else "outside-input"


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
        with serving("read"):
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
        root = run.root(zone)
        for path in (root / "runs" / f"{run.id}.json", *(root / part["path"] for part in parts)):
            stores.outlast(path)
            folders |= {path.parent, path.parent.parent, root}
    for folder in folders:
        stores.outlast(folder)


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that begin nothing more once something has failed."""
    pool = ThreadPoolExecutor(_THREADS)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _output(run: EndedRun) -> Output:
    return removals.output_of(locate(run.places.output), run.root("restricted"))


def _settle(found: Purge, part: int, output: Output, pool: ThreadPoolExecutor, lease: Lease | None) -> Outcomes:
    """Bring one part of the list to its end.

    The outputs are on the disk and have been read back before it is noted whose removal begins, and that is noted
    before the first is removed. So a source that is gone although nobody settled it was removed here.
    """
    listed, outcomes, begun = found.part(part), found.settled(part), found.intended(part)
    left = [it for it in listed if outcomes.get(it.token, ("",))[0] != DELETED]
    if not left and not begun:
        return outcomes
    confirmed: dict[str, Seen] = {}
    for it, seen in zip(left, pool.map(partial(_confirmed, output), left), strict=True):
        if isinstance(seen, Seen):
            confirmed[it.token] = seen
        else:
            outcomes[it.token] = (DELETED, "") if seen == "gone" and it.token in begun else (KEPT, seen)
    going = [it for it in left if it.token in confirmed]
    if going:
        output.settle({it.name for it in going})
        if lease:
            lease.confirm()
        found.intend(part, begun | confirmed.keys())
        removed = pool.map(lambda it: _removed(output, it, confirmed[it.token]), going)
        outcomes |= {it.token: outcome for it, outcome in zip(going, removed, strict=True)}
        removals.settle_removals(going)
    found.settle(part, listed, outcomes)
    return outcomes


def _confirmed(output: Output, removal: Removal) -> Seen | str:
    """The output as it was seen, or why the source stays."""
    try:
        return removals.confirm(removal, output)
    except Kept as kept:
        return kept.reason


def _removed(output: Output, removal: Removal, seen: Seen) -> tuple[str, str]:
    try:
        removals.remove(removal, output, seen)
    except Kept as kept:
        return KEPT, kept.reason
    return DELETED, ""


def _end(run: EndedRun, found: Purge, abandoned: bool = False) -> Purged:
    """Count what became of all, and tell of it in the run's summary where that is still the newest."""
    counts, size = found.counts()
    purged = Purged(run.id, counts, size, _never(run), abandoned)
    summary = run.root("audit") / "summary.json"
    try:
        with serving("read"):
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
