"""The parts of tables that count: those that the manifest of a finished run lists, and no others.

What runs write while they are at work, or have left behind when they died, is never read here.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transforms.stores import StoreError


@dataclass(frozen=True)
class ListedPart:
    """One part of a table.

    Attributes:
      run: the run that wrote it.
      table: such as "crosswalk/uids".
      name: its path below the root.
    """

    run: str
    table: str
    name: str
    path: Path


def listed_parts(root: Path) -> Iterator[ListedPart]:
    """Every part below a root that a finished run lists, the oldest run first.

    Raises:
      StoreError: there is no finished run, or a manifest that is none.
    """
    manifests = sorted((root / "runs").glob("*.json"))
    if not manifests:
        raise StoreError(f"{root}: no finished run has its records there")
    for manifest in manifests:
        try:
            content = json.loads(manifest.read_bytes())
            run, names = content["run"], [part["path"] for part in content["parts"]]
            found = [ListedPart(run, name[: name.index("/run=")], name, root / name) for name in names]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise StoreError(f"{root}: runs/{manifest.name} there is no record of a run; remove it") from None
        yield from found
