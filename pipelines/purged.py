"""What a purge came to: counts alone, for a person and for the records."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console

from pipelines.tally import tally
from transforms import candidates
from transforms.purges import DELETED, KEPT
from transforms.records import COPIED

_STAYS: Final = {
    "filtered duplicate": "Equal bytes were read from another file.",
    COPIED: "Not selected: their outputs bear the same identifiers.",
}


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
            table.add_row(f"{count:,}", f"kept: {reason}", " ".join(candidates.KEPT[reason]))
        for name, count in sorted(self.never.items()):
            told = _STAYS.get(name, "")
            table.add_row(f"{count:,}", f"stay: {name.replace(' ', ': ')}", told)
        if table.row_count:
            console.print(table)
        if self.abandoned:
            console.print("The purge was given up: nothing more is deleted.", highlight=False)
