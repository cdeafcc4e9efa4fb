"""What a run came to: for a script in Orthanc's members and ours, and for a person."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console

from dicomveil.claims import unnamed
from dicomveil.compile import RECIPE
from dicomveil.errors import REASONS
from pipelines.answer import Resources, answer, written
from pipelines.plan import Verdict
from pipelines.runs import Run
from pipelines.tally import tally
from transforms.locations import Location, locate
from transforms.outcomes import TOKENS
from transforms.records import DEIDENTIFIED, MODIFIED
from transforms.retire import MEANINGS
from transforms.tables import INSTANCES, name_of

NOTHING: Final = "Nothing was found below --input."
RISK: Final = "Their pixels may show who it is; pixels are never changed."
SOURCES_STAY: Final = (
    "The sources stay. Orthanc's split and merge delete theirs; here a request says KeepSource: false for that."
)
NOTHING_NEW: Final = "Nothing is new since earlier runs."
UNCHANGED: Final = "unchanged"
OVER_LIMIT: Final = "not-attempted over-limit"
STOPPED: Final = "not-attempted stopped"
TOO_MANY: Final = (
    "More failed than --max-failures bears, so the run stopped; what it didn't attempt, the next run does."
)
_GONE: Final = {"kept": "gone from the input", "retired": "retired"}
NO_KEY: Final = "No key was given: the results of this run can't be repeated, and later studies won't match it."


@dataclass
class Settled:
    """What the slices' records add up to.

    Attributes:
      parts: of the tables, by zone.
      outcomes: how many, by "outcome reason".
      risks: how many instances whose pixels may speak, by kind.
      frozen: instances that hold sequences kept as they are, and original UIDs in those.
      gone: what became of objects that aren't there any more, by "outcome reason".
      stopped: whether the run stopped since more had failed than it bears.
    """

    count: int = 0
    tokens: int = 0
    parts: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"audit": [], "restricted": []})
    outcomes: Counter[str] = field(default_factory=Counter)
    risks: Counter[str] = field(default_factory=Counter)
    frozen: Counter[str] = field(default_factory=Counter)
    gone: Counter[str] = field(default_factory=Counter)
    stopped: bool = False

    def add(self, count: int, tokens: str) -> None:
        """Count objects that are settled, by the sum of their tokens in hexadecimal digits."""
        self.count, self.tokens = self.count + count, (self.tokens + int(tokens, 16)) % TOKENS


class Summary:
    """The outcomes of a finished run."""

    def __init__(self, run: Run, verdict: Verdict, settled: Settled, finished: str) -> None:
        self._run, self._verdict, self._finished = run, verdict, finished
        self._parts, self._risks, self._frozen, outcomes = (
            settled.parts, settled.risks, settled.frozen, settled.outcomes
        )  # fmt: skip
        self.bytes_read, self.bytes_written = outcomes.pop("bytes read", 0), outcomes.pop("bytes written", 0)
        self.outcomes = outcomes
        self._gone = dict(sorted(settled.gone.items()))
        self.stopped = settled.stopped
        if verdict.deferred:
            self.outcomes[OVER_LIMIT] = verdict.deferred
        if verdict.unchanged:
            self.outcomes[UNCHANGED] = verdict.unchanged

    def total(self, outcome: str) -> int:
        """How many objects had an outcome, whatever the reason."""
        return sum(count for name, count in self.outcomes.items() if name.split(" ")[0] == outcome)

    @property
    def exit_status(self) -> int:
        """0 where all went well, 1 where it stopped, 3 where something was quarantined."""
        if self.stopped:
            return 1
        return 3 if self.total("quarantined") else 0

    def content(self) -> dict[str, Any]:
        """`summary.json`: Orthanc's members first."""
        tried = self.total(DEIDENTIFIED) + self.total(MODIFIED) + self.total("quarantined")
        resources = Resources(self._run.scratch / "resources", written(self._instances()))
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
                "UnchangedSetAside": self._verdict.unchanged_aside,
                "UnchangedByOtherRequests": self._verdict.unchanged_other,
                "Gone": self._gone,
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
            *[TOO_MANY] * self.stopped,
            *[NOTHING_NEW] * bool(self._verdict.listed and not self._verdict.due),
            *self._others(),
            *self._kept(),
            *self._rejoined(),
            *self._issuers(),
            *unnamed(self._run.request.dicom_version),
            *self._run.request.notices,
        ]

    def _others(self) -> list[str]:
        """What another request has made, and stays."""
        count = self._verdict.unchanged_other
        if not count:
            return []
        told = "1 output was" if count == 1 else f"{count:,} outputs were"
        return [
            f"{told} made by another request, edition or recipe, and stay as they are; "
            "--reprocess changed-request makes them anew."
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

    def _instances(self) -> Iterator[Location]:
        """The parts that say what became of each instance."""
        for part in self._parts["audit"]:
            if part["path"].startswith(name_of(INSTANCES) + "/"):
                yield locate(self._run.places.audit) / part["path"]

    def _since(self) -> str:
        aside = self._verdict.unchanged_aside
        return "Since earlier runs." + (f" {aside:,} of them were set aside then." if aside else "")

    def print(self, console: Console) -> None:
        """Tell a person what happened, and where to look."""
        table = tally()
        for name, count in sorted(self.outcomes.items()):
            outcome, _, reason = name.partition(" ")
            told = f"{REASONS[reason].meaning} {REASONS[reason].remedy}" if reason else ""
            if outcome == UNCHANGED:
                told = self._since()
            table.add_row(f"{count:,}", f"{outcome}: {reason}" if reason else outcome, told)
        for name, count in self._gone.items():
            outcome, _, reason = name.partition(" ")
            table.add_row(f"{count:,}", f"{_GONE[outcome]}: {reason}", MEANINGS[outcome, reason])
        console.print(f"\n{self._verdict.listed:,} objects in {self._verdict.studies:,} studies, run {self._run.id}")
        console.print(table)
        console.print(f"{self.bytes_read:,} bytes read, {self.bytes_written:,} written")
        where, identified = self._run.places, self._run.request.alters
        shared = "as identifying as the output" if identified else "to be shared"
        for name, place, what in (
            ("output", where.output, "identified instances" if identified else "the de-identified instances"),
            ("audit", where.audit, f"what was changed and why, {shared}: summary.json, instances/, studies/"),
            (
                "restricted",
                where.restricted,
                "what leads back to the originals: crosswalk/, quarantine/, ledger/",
            ),
        ):
            console.print(f"{name:>10}  {place}  [dim]{what}[/dim]", soft_wrap=True, highlight=False)
        for warning in self._warnings():
            console.print(f"[yellow]{warning}[/yellow]", soft_wrap=True)
        if self.exit_status:
            console.print("Some inputs were quarantined: quarantine/ names each with its reason; exit status 3.")
