"""What a run came to: for a script in Orthanc's members and ours, and for a person."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from dicomveil.claims import unnamed
from dicomveil.compile import RECIPE
from dicomveil.errors import REASONS
from pipelines.answer import Resources, answer, written
from pipelines.plan import Verdict
from pipelines.runs import Run
from transforms.records import DEIDENTIFIED, MODIFIED
from transforms.tables import INSTANCES, name_of

NOTHING: Final = "Nothing was found below --input."
RISK: Final = "Their pixels may show who it is; pixels are never changed."
SOURCES_STAY: Final = (
    "The sources stay. Orthanc's split and merge delete theirs; here a request says KeepSource: false for that."
)
NO_KEY: Final = "No key was given: the results of this run can't be repeated, and later studies won't match it."


@dataclass
class Settled:
    """What the slices' records add up to.

    Attributes:
      parts: of the tables, by zone.
      outcomes: how many, by "outcome reason".
      risks: how many instances whose pixels may speak, by kind.
      frozen: instances that hold sequences kept as they are, and original UIDs in those.
    """

    count: int = 0
    tokens: int = 0
    parts: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"audit": [], "restricted": []})
    outcomes: Counter[str] = field(default_factory=Counter)
    risks: Counter[str] = field(default_factory=Counter)
    frozen: Counter[str] = field(default_factory=Counter)


class Summary:
    """The outcomes of a finished run."""

    def __init__(self, run: Run, verdict: Verdict, settled: Settled, finished: str) -> None:
        self._run, self._verdict, self._finished = run, verdict, finished
        self._parts, self._risks, self._frozen, outcomes = (
            settled.parts, settled.risks, settled.frozen, settled.outcomes
        )  # fmt: skip
        self.bytes_read, self.bytes_written = outcomes.pop("bytes read", 0), outcomes.pop("bytes written", 0)
        self.outcomes = outcomes

    def total(self, outcome: str) -> int:
        """How many objects had an outcome, whatever the reason."""
        return sum(count for name, count in self.outcomes.items() if name.split(" ")[0] == outcome)

    @property
    def exit_status(self) -> int:
        """0 where all went well, 3 where something was quarantined."""
        return 3 if self.total("quarantined") else 0

    def content(self) -> dict[str, Any]:
        """`summary.json`: Orthanc's members first."""
        tried = self.total(DEIDENTIFIED) + self.total(MODIFIED) + self.total("quarantined")
        resources = Resources(self._run.folder / "resources", written(self._instances()))
        return (
            answer(self._run.request, resources, tried, self.total("quarantined"))
            | {
                "Run": self._run.id,
                "Started": self._run.started,
                "Finished": self._finished,
                "Resumed": self._run.resumed,
                "Listed": self._verdict.listed,
                "Outcomes": dict(sorted(self.outcomes.items())),
                "Studies": self._verdict.studies,
                "BytesRead": self.bytes_read,
                "BytesWritten": self.bytes_written,
                "Request": self._run.request.members(),
                "Recipe": RECIPE,
                "Fingerprints": self._run.fingerprints,
                "Rejoined": self._verdict.rejoining,
                "SeveralIssuers": self._verdict.issuers,
                "PixelsAtRisk": dict(sorted(self._risks.items())),
                "Warnings": self._warnings(),
            }
            | ({"UserData": json.loads(self._run.request.user_data)} if self._run.request.user_data else {})
        )

    def _warnings(self) -> list[str]:
        return [
            *[NO_KEY] * self._run.ephemeral,
            *[NOTHING] * (not self._verdict.listed),
            *[f"{kind}: {count:,} instances. {RISK}" for kind, count in sorted(self._risks.items())],
            *[SOURCES_STAY] * (self._run.request.command in ("split", "merge") and self._run.request.keep_source),
            *self._kept(),
            *self._rejoined(),
            *self._issuers(),
            *unnamed(self._run.request.dicom_version),
            *self._run.request.notices,
        ]

    def _kept(self) -> list[str]:
        """What Keep has left as it was."""
        instances, uids = self._frozen["instances"], self._frozen["original UIDs"]
        if not instances:
            return []
        remedy = "" if self._run.request.map_uids_in_kept or not uids else " MapUIDsInKept: true would map them."
        return [f"Keep left sequences of {instances:,} instances as they were, {uids:,} original UIDs in them.{remedy}"]

    def _rejoined(self) -> list[str]:
        """What of earlier runs was written again."""
        count = self._verdict.rejoining
        if not count:
            return []
        told = "1 instance of an earlier run was" if count == 1 else f"{count:,} instances of earlier runs were"
        return [f"{told} written again, since more is known of their studies by now."]

    def _issuers(self) -> list[str]:
        """Patient IDs that may be several patients'."""
        count = self._verdict.issuers
        if not count or self._run.request.patient_identity != "id":
            return []
        told = "1 Patient ID was" if count == 1 else f"{count:,} Patient IDs were"
        return [
            f"{told} seen under several issuers, and each taken for one patient; PatientIdentity: id+issuer would tell "
            "them apart."
        ]

    def _instances(self) -> Iterator[Path]:
        """The parts that say what became of each instance."""
        for part in self._parts["audit"]:
            if part["path"].startswith(name_of(INSTANCES) + "/"):
                yield Path(self._run.places.audit) / part["path"]

    def print(self, console: Console) -> None:
        """Tell a person what happened, and where to look."""
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(justify="right")
        table.add_column()
        table.add_column(style="dim", overflow="fold")
        for name, count in sorted(self.outcomes.items()):
            outcome, _, reason = name.partition(" ")
            told = f"{REASONS[reason].meaning} {REASONS[reason].remedy}" if reason else ""
            table.add_row(f"{count:,}", f"{outcome}: {reason}" if reason else outcome, told)
        console.print(f"\n{self._verdict.listed:,} objects in {self._verdict.studies:,} studies, run {self._run.id}")
        console.print(table)
        console.print(f"{self.bytes_read:,} bytes read, {self.bytes_written:,} written")
        where, identified = self._run.places, self._run.request.alters
        shared = "as identifying as the output" if identified else "to be shared"
        for name, place, what in (
            ("output", where.output, "identified instances" if identified else "the de-identified instances"),
            ("audit", where.audit, f"what was changed and why, {shared}: summary.json, instances/, studies/"),
            ("restricted", where.restricted, "what leads back to the originals: crosswalk/, quarantine/"),
        ):
            console.print(f"{name:>10}  {place}  [dim]{what}[/dim]", soft_wrap=True, highlight=False)
        for warning in self._warnings():
            console.print(f"[yellow]{warning}[/yellow]", soft_wrap=True)
        if self.exit_status:
            console.print("Some inputs were quarantined: quarantine/ names each with its reason; exit status 3.")
