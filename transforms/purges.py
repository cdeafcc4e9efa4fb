"""A purge on disk: the list of what is to be removed, what is being removed, and what became of each source.

All of it lies under `purge/run=<id>/` in the restricted zone: `list-*.parquet`, which count once `list.json` is there;
`intent-<part>.json`, written before the first source of a part is removed and gone once it is settled;
`settled-<part>.parquet`; and last `ended.json`. Each is written whole and durable before the next step is taken, so
that whoever finds them knows what was done, wherever the process died.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import stores
from transforms.candidates import Removal
from transforms.locations import Location, StoreError, locate, matching, table_file
from transforms.store_failures import serving
from transforms.tables import PURGE_LIST, PURGE_SETTLED, encoded, name_of

PART: Final = 1000
PART_BYTES: Final = 1 << 32
DELETED, KEPT = "deleted", "kept"
Outcomes = dict[str, tuple[str, str]]
"""Of each source token: deleted and "", or kept and why."""

_FIELDS: Final = {"token": "source_token", "uri": "source_uri", "version": "source_version", "size": "source_size"}


class Purge:
    """The purge of one run."""

    def __init__(self, restricted: str, run: str) -> None:
        self._folder = locate(restricted) / name_of(PURGE_LIST) / f"run={run}"

    def write_list(self, removals: Iterable[Removal]) -> None:
        """Write the list, where there is none yet."""
        with serving("removed"):
            for left in matching(self._folder, "list-*.parquet"):
                left.unlink()
        content: dict[str, Any] = {"parts": 0, "sources": 0, "bytes": 0, KEPT: 0}
        for part in _parts(removals):
            rows = [{_FIELDS.get(name, name): value for name, value in vars(it).items()} for it in part]
            self._write(f"list-{content['parts']:05}.parquet", encoded(PURGE_LIST, rows))
            content["parts"] += 1
            content["sources"] += sum(not it.reason for it in part)
            content["bytes"] += sum(it.size for it in part if not it.reason)
            content[KEPT] += sum(bool(it.reason) for it in part)
        self._write("list.json", _json(content))

    @property
    def listed(self) -> dict[str, Any] | None:
        """How many sources are to be removed, their bytes, how many are to stay, and in how many parts they are told;
        None where there is no list yet."""
        return self._read("list.json")

    @property
    def parts(self) -> range:
        """The numbers of the list's parts."""
        return range((self.listed or {"parts": 0})["parts"])

    def part(self, number: int) -> list[Removal]:
        """What one part lists."""
        names = {column: name for name, column in _FIELDS.items()}
        return [
            Removal(**{names.get(column, column): value for column, value in row.items()})
            for row in self._rows(f"list-{number:05}.parquet")
        ]

    def intended(self, part: int) -> set[str]:
        """Whose removal had begun, when the process died."""
        return set(self._read(f"intent-{part:05}.json") or [])

    def intend(self, part: int, tokens: set[str]) -> None:
        """Note whose removal begins."""
        self._write(f"intent-{part:05}.json", _json(sorted(tokens)))

    def settled(self, part: int) -> Outcomes:
        """What became of a part's sources, as far as that was settled."""
        name = f"settled-{part:05}.parquet"
        rows = self._rows(name) if stores.holds(self._folder, name) else []
        return {row["source_token"]: (row["outcome"], row["reason"]) for row in rows}

    def settle(self, part: int, removals: list[Removal], outcomes: Outcomes) -> None:
        """Note what became of all of a part's sources."""
        rows = [
            {"source_token": it.token, "source_uri": it.uri}
            | dict(zip(("outcome", "reason"), outcomes[it.token], strict=True))
            for it in removals
        ]
        self._write(f"settled-{part:05}.parquet", encoded(PURGE_SETTLED, rows))
        with serving("removed"):
            (self._folder / f"intent-{part:05}.json").unlink(missing_ok=True)

    def counts(self) -> tuple[Counter[str], int]:
        """How many sources came to each outcome, by "outcome reason", and the bytes of those that are deleted."""
        counted: Counter[str] = Counter()
        size = 0
        for number in self.parts:
            outcomes = self.settled(number)
            counted.update(" ".join(filter(None, outcome)) for outcome in outcomes.values())
            size += sum(it.size for it in self.part(number) if outcomes.get(it.token, ("",))[0] == DELETED)
        return counted, size

    @property
    def ended(self) -> dict[str, Any] | None:
        """What it came to; None where it hasn't."""
        return self._read("ended.json")

    def end(self, content: dict[str, Any]) -> None:
        """Note what it came to."""
        self._write("ended.json", _json(content))

    def _read(self, name: str) -> Any:
        """A record; None where there is none.

        Raises:
          StoreError: it is none of ours.
        """
        try:
            with serving("read"):
                return json.loads((self._folder / name).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise self._lost(name) from None

    def _rows(self, name: str) -> list[dict[str, Any]]:
        try:
            with serving("read"):
                return pq.read_table(table_file(self._folder / name), partitioning=None).to_pylist()
        except (OSError, pa.ArrowException):
            raise self._lost(name) from None

    def _lost(self, name: str) -> StoreError:
        return StoreError(f"--restricted: purge/{self._folder.name}/{name} can't be read; bring it back")

    def _write(self, name: str, content: bytes) -> None:
        stores.create_restricted(self._folder / name, content, durable=True)


def removed_tokens(folder: Location) -> Iterator[str]:
    """The tokens of the sources that a purge has removed, or was removing when it died.

    Args:
      folder: of its records.
    """
    for intent in folder.glob("intent-*.json"):
        yield from json.loads(intent.read_bytes())
    for settled in folder.glob("settled-*.parquet"):
        rows = pq.read_table(table_file(settled), columns=["source_token", "outcome"], partitioning=None).to_pylist()
        yield from (row["source_token"] for row in rows if row["outcome"] == DELETED)


def was_input(restricted: Location, given: str) -> bool:
    """Whether a run that read just that input has been purged, or was begun to be: there may be nothing left of it.

    Raises:
      StoreFailed: the store can't be asked.
    """
    with serving("read"):
        return any(
            given in _inputs(restricted / "runs" / f"{folder.name.removeprefix('run=')}.json")
            for folder in matching(restricted / name_of(PURGE_LIST), "run=*")
        )


def _inputs(manifest: Location) -> list[str]:
    """What a run has read; nothing where its manifest doesn't tell."""
    try:
        return list(json.loads(manifest.read_bytes())["places"]["inputs"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _parts(removals: Iterable[Removal]) -> Iterator[list[Removal]]:
    """In parts of so many, and so many bytes of output to be read back before the first of them is removed."""
    part: list[Removal] = []
    size = 0
    for it in removals:
        part.append(it)
        size += it.bytes
        if len(part) == PART or size >= PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _json(content: Any) -> bytes:
    return json.dumps(content).encode() + b"\n"
