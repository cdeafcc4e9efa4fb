"""Merge what the runs of years have left: many small parts of tables into few large ones, for the same readers."""

import datetime
import json
import os
import secrets
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from pipelines import runs
from pipelines.places import RunRefused
from transforms import stores
from transforms.compaction import TARGET, Merged, Zone, compact
from transforms.lease import Lease
from transforms.locations import Location, locate, matching
from transforms.tables import AUDIT, CROSSWALK_GIVEN, RESTRICTED

_NO_RECORDS: Final = "--restricted: no finished run has its records there; name what was --restricted."
_SCHEMAS: Final = tuple(schema for schema in RESTRICTED if schema is not CROSSWALK_GIVEN)


@dataclass
class Compacted:
    """What came of it, by zone."""

    zones: dict[str, Merged]

    def print(self, console: Console) -> None:
        """Tell a person how many files there were, and are."""
        table = Table(box=None, pad_edge=False, show_header=False)
        for _ in range(3):
            table.add_column()
        for zone, merged in self.zones.items():
            for name, before in sorted(merged.before.items()):
                if before:
                    table.add_row(zone, f"{name}/", f"{before:,} files, {merged.after[name]:,} now")
        console.print(table)
        if not any(merged.rows for merged in self.zones.values()):
            console.print("There is nothing to merge.", highlight=False)


def root_of(restricted: str) -> str:
    """The restricted zone by its one name.

    Raises:
      RunRefused: no finished run has its records there, so it isn't one, and nothing must be locked in it.
      StoreError: it is in no store that can be used.
    """
    found = locate(restricted)
    if next(iter(found.glob("runs/*.json")), None) is None:
        raise RunRefused(_NO_RECORDS)
    return os.path.realpath(found) if isinstance(found, Path) else str(found)


def merge(restricted: str, audit: str | None, lease: Lease | None = None, target: int = TARGET) -> Compacted:
    """Merge the parts of finished runs of anonymize, as far as they were made alike; whoever reads them sees the same.

    Args:
      audit: the records' folder that goes with it, whose tables are merged too; None for none.
      lease: on the restricted zone; None where that is a folder.

    Raises:
      RunRefused: no run has its records there.
      LeaseLost: another command has taken it over; nothing is lost.
      StoreFailed: something can't be written; nothing is lost, and the same command goes on.
    """
    root = locate(restricted)
    manifests = {it["run"]: it for it in runs.manifests(restricted)}
    if not manifests:
        raise RunRefused(_NO_RECORDS)
    groups = {run: _group(it) for run, it in manifests.items() if it.get("command", "anonymize") == "anonymize"}
    now = datetime.datetime.now(datetime.timezone.utc)
    name = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    hold = partial(runs.hold, lease)
    zone = Zone(root, _SCHEMAS, stores.create_restricted, hold)
    zones = {"restricted": compact(zone, manifests, groups, name, target)}
    if audit is not None:
        told = _audit(locate(audit))
        zone = Zone(locate(audit), AUDIT, _create_shared, hold)
        zones["audit"] = compact(zone, told, {run: groups[run] for run in told.keys() & groups.keys()}, name, target)
    return Compacted(zones)


def _group(manifest: dict[str, Any]) -> str:
    """What runs must have in common whose rows may be in one file."""
    return json.dumps([manifest["fingerprints"], manifest.get("output", "")], sort_keys=True)


def _audit(root: Location) -> dict[str, dict[str, Any]]:
    """The manifests of an audit, by run.

    Raises:
      RunRefused: there are none.
    """
    try:
        found = [json.loads(file.read_bytes()) for file in matching(root / "runs", "*.json")]
        told = {it["run"]: it for it in found}
        Counter(part["path"] for it in found for part in it["parts"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RunRefused("--audit: something in runs/ there is no record of a run; remove it.") from None
    if not told:
        raise RunRefused("--audit: no finished run has its records there; name what was --audit.")
    return told


def _create_shared(target: Location, data: bytes, durable: bool) -> None:
    stores.create_small(target, data, durable=durable)
