"""Who was who: one value sought in the crosswalks that finished runs left under --restricted.

It knows tables by their columns' names alone, so that a table of a later version is searched as well.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms import listing
from transforms.locations import Location, StoreError, local_path, locate, table_file
from transforms.manifests import ListedPart, listed_parts, read_rows
from transforms.tables import RESTRICTED, name_of

BANNER: Final = (
    "This leads from new values to the originals, or back: whoever sees the answer knows who is who. "
    "Leave it to those who may know, and keep it out of logs and mails."
)
_TABLES: Final = "crosswalk/"
_ROWS: Final = 1 << 16
_BLANKS: Final = " \0"
_INTERNAL: Final = ("facts", "map_token")


@dataclass(frozen=True, repr=False)
class Match:
    """One row that holds the value.

    Attributes:
      table: such as "patients".
      runs: those that wrote such a row, the oldest first.
      row: its columns, those without a value left out.
    """

    table: str
    runs: tuple[str, ...]
    row: dict[str, Any]


def look_up(restricted: str, value: str, original: bool) -> list[Match]:
    """Every row of a crosswalk that holds a value; the parts of runs that aren't finished don't count.

    Args:
      value: a Patient ID, a UID, a source's URI or an output's name; blanks around it don't count.
      original: whether it is sought among the original values, or else among the new ones.

    Raises:
      StoreError: no finished run has its records there, or a part of them can't be read.
    """
    sought = value.strip(_BLANKS)
    if sought.startswith("file://") or not listing.is_text(sought):
        sought = listing.uri_of(os.path.realpath(local_path(sought)))
    runs: dict[tuple[str, str], set[str]] = {}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    parts = list(listed_parts(locate(restricted)))
    if not {part.table for part in parts} <= {name_of(schema) for schema in RESTRICTED}:
        raise StoreError(f"{restricted}: holds other tables; name what was --restricted")
    files: dict[Location, list[ListedPart]] = {}
    for part in parts:
        if part.table.startswith(_TABLES):
            files.setdefault(part.path, []).append(part)
    for found in files.values():
        for run, row in _matching(found, sought, original):
            same = found[0].table.removeprefix(_TABLES), json.dumps(row, default=str)
            rows[same] = row
            runs.setdefault(same, set()).add(run)
    told = sorted(rows.items(), key=lambda item: item[0])
    return [Match(same[0], tuple(sorted(runs[same])), row) for same, row in told]


def _matching(parts: list[ListedPart], value: str, original: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """(run, row) of the rows that hold a value, in the parts that are in one file."""
    path = parts[0].path
    try:
        schema = pq.read_schema(table_file(path))
        columns = [column.name for column in schema if column.type == pa.string() and _holds(column.name, original)]
        if not columns:
            return
        sought = reduce(or_, (pc.field(name) == value for name in columns))
        found = [
            (run, row)
            for run, batch in read_rows(path, [(*part.rows[1:], part.run) for part in parts], rows=_ROWS)
            for row in pa.Table.from_batches([batch]).filter(sought).to_pylist()
        ]
    except (OSError, pa.ArrowException):
        raise StoreError(f"{parts[0].name}: a finished run lists it, and it can't be read; restore it") from None
    for run, row in found:
        yield run, {name: cell for name, cell in row.items() if cell not in (None, "") and name not in _INTERNAL}


def _holds(column: str, original: bool) -> bool:
    """Whether a column holds original values, or else new ones, by which something could be sought."""
    if column == "source_uri" or column.split("_")[0] == "original":
        return original
    return not original and (column in ("new", "name") or column.endswith(("_uid", "_id")))


def as_json(matches: list[Match]) -> str:
    """The matches for a script."""
    return json.dumps([{"table": it.table, "runs": it.runs, **it.row} for it in matches], indent=1, default=str)


def as_text(matches: list[Match]) -> str:
    """The matches for a person: a paragraph each. What a terminal would obey is escaped."""
    return "\n\n".join("\n".join(_lines(match)) for match in matches)


def _lines(match: Match) -> Iterator[str]:
    yield f"{match.table}, run {', '.join(match.runs)}"
    width = max(map(len, match.row), default=0)
    for name, cell in match.row.items():
        yield f"  {name:<{width}}  {_printable(str(cell))}"


def _printable(text: str) -> str:
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
