"""A run that has ended: what its manifests and tables tell, and whether its sources may go."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines import runs
from pipelines.places import Places, RunRefused, inside
from transforms.inputs import meaning, root_of
from transforms.locations import Location, locate
from transforms.manifests import Slice, named_slices
from transforms.object_stores import scheme_of
from transforms.store_failures import serving


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

    def root(self, zone: str) -> Location:
        """Of the "audit" or "restricted" tables."""
        return locate(vars(self.places)[zone])

    def tables(self, zone: str, table: str) -> dict[str, Slice]:
        """The parts of a table by the names that they had in its folder."""
        listed = [part for part in self.parts[zone] if part["path"].startswith(f"{table}/run=")]
        return {name: found for part in listed for name, found in named_slices(part, self.root(zone))}

    def writes(self, uri: str) -> bool:
        """Whether an object lies where runs write."""
        return any(inside(uri, output) for output in self.outputs)

    def means(self, uri: str) -> bool:
        """Whether an object is one that its --input means."""
        return any(means(uri) for means in self._meant)

    @cached_property
    def _meant(self) -> list[Callable[[str], bool]]:
        return [meaning(given) for given in self.places.inputs]


def restricted_root(restricted: str) -> str:
    """The restricted zone by its one name.

    Raises:
      RunRefused: no run has its records there.
      StoreError: it is in no store that can be used.
      StoreFailed: the store can't be had.
    """
    zone = locate(restricted)
    if isinstance(zone, Path):
        zone = Path(os.path.realpath(zone))
    with serving("read"):
        if not any(zone.glob("runs/*.json")) and not any(zone.glob("run=*")):
            raise RunRefused("--restricted: no run has its records there; name what was --restricted.")
    return str(zone)


def ended(restricted: str, run_id: str) -> EndedRun:
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
    written = {it["output"] for it in found.values() if "output" in it} | {where.audit, root}
    parts = {"restricted": manifest["parts"], "audit": _audit(where, run_id, manifest)}
    outputs = tuple(sorted(it if scheme_of(it) else os.path.realpath(it) for it in written))
    return EndedRun(run_id, where, parts, outputs, manifest["ephemeral"], frozenset(found))


def _audit(where: Places, run_id: str, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts that the audit's manifest lists; the sources stay where that is gone."""
    try:
        with serving("read"):
            audit = json.loads((locate(where.audit) / "runs" / f"{run_id}.json").read_bytes())
        if audit["run"] == run_id and audit["fingerprints"] == manifest["fingerprints"]:
            return list(audit["parts"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise RunRefused(
        f"--audit has no record of run {run_id} any more, which tells what its outputs must be; bring it back."
    )


def ended_well(restricted: str, run_id: str) -> EndedRun:
    """A run whose sources may go.

    Raises:
      RunRefused: it has no key, or another run that has begun and not ended needs its sources or writes to its output.
    """
    run = ended(restricted, run_id)
    if run.ephemeral:
        raise RunRefused(f"Run {run_id} had a key of its own, so its sources stay: what comes later can't fit.")
    for folder, state in runs.begun(run.places.restricted):
        other = state["places"]
        overlap = other["output"] == run.places.output or any(
            inside(mine, theirs) or inside(theirs, mine)
            for mine in map(root_of, run.places.inputs)
            for theirs in map(root_of, other["inputs"])
        )
        if runs.id_of(folder) not in run.finished and overlap:
            raise RunRefused(
                f"Run {runs.id_of(folder)} has begun and not ended, and reads the same sources or writes to the same "
                "output: run its command again, and purge then."
            )
    return run
