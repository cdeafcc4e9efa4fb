"""The parts of tables that count: those that the manifest of a finished run lists, and no others.

What runs write while they are at work, or have left behind when they died, is never read here. Where parts of several
runs have been merged into one file, a manifest tells which of its rows are the run's.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.locations import Location, StoreError, matching, table_file

_ROWS: Final = 1 << 14
_T = TypeVar("_T")
Part = dict[str, Any]
"""An entry of a manifest: `path` below the root and `rows`; of a merged file also `slices`, a [first row, rows, name]
of each part that the run had."""


class Slice(NamedTuple):
    """Rows of a file.

    Attributes:
      begin: number of the first; end: of the first one behind them, -1 for all that follow.
    """

    path: Location
    begin: int = 0
    end: int = -1


@dataclass(frozen=True)
class ListedPart:
    """One part of a table, or several of them that follow on each other in one file.

    Attributes:
      run: the run that wrote it.
      table: such as "crosswalk/uids".
      name: its path below the root.
      rows: which of the file are meant.
    """

    run: str
    table: str
    name: str
    rows: Slice

    @property
    def path(self) -> Location:
        """The file."""
        return self.rows.path


def listed_parts(root: Location) -> Iterator[ListedPart]:
    """Every part below a root that a finished run lists, the oldest run first.

    Raises:
      StoreError: there is no finished run, or a manifest that is none.
    """
    manifests = matching(root / "runs", "*.json")
    if not manifests:
        raise StoreError(f"{root}: no finished run has its records there")
    for manifest in manifests:
        try:
            found = list(parts_of(json.loads(manifest.read_bytes()), root))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise StoreError(f"{root}: runs/{manifest.name} there is no record of a run; remove it") from None
        yield from found


def parts_of(manifest: dict[str, Any], root: Location, table: str = "") -> Iterator[ListedPart]:
    """The parts that one manifest lists; of one table, if that is named."""
    for part in manifest["parts"]:
        name = part["path"]
        of_table = name[: name.index("/run=")]
        if table in ("", of_table):
            for begin, end in _ranges(part):
                yield ListedPart(manifest["run"], of_table, name, Slice(root / name, begin, end))


def files_of(parts: Iterable[ListedPart]) -> Iterator[ListedPart]:
    """The same, each file once, whichever rows of it are meant."""
    seen: set[Location] = set()
    for part in parts:
        if part.path not in seen:
            seen.add(part.path)
            yield part


def named_slices(part: Part, root: Location) -> Iterator[tuple[str, Slice]]:
    """The parts that an entry stands for, by the names that they had in their table's folder."""
    path = root / part["path"]
    if "slices" not in part:
        yield path.name, Slice(path)
    for begin, rows, name in part.get("slices", ()):
        yield name, Slice(path, begin, begin + rows)


def _ranges(part: Part) -> list[tuple[int, int]]:
    """Which rows of its file an entry means, as few ranges as may be."""
    if "slices" not in part:
        return [(0, -1)]
    ranges: list[tuple[int, int]] = []
    for begin, rows, _ in sorted(part["slices"]):
        if ranges and ranges[-1][1] == begin:
            ranges[-1] = ranges[-1][0], begin + rows
        else:
            ranges.append((begin, begin + rows))
    return ranges


def read_rows(
    path: Location, wanted: Sequence[tuple[int, int, _T]], columns: list[str] | None = None, rows: int = _ROWS
) -> Iterator[tuple[_T, pa.RecordBatch]]:
    """Rows of a file, a batch at a time, with what its reader knows their range by; what nobody wants is skipped.

    Args:
      wanted: (begin, end, what it is known by) of each range, as in `Slice`.
      columns: which are read, of those that there are; None for all.
      rows: how many a batch has at most.
    """
    with pq.ParquetFile(table_file(path)) as file:
        there = file.schema_arrow.names
        chosen = None if columns is None else [name for name in columns if name in there]
        at = 0
        for number in range(file.num_row_groups):
            behind = at + file.metadata.row_group(number).num_rows
            inside = [it for it in wanted if it[0] < behind and not 0 <= it[1] <= at]
            for batch in file.iter_batches(rows, row_groups=[number], columns=chosen) if inside else ():
                for begin, end, known in inside:
                    first, last = max(begin - at, 0), min((behind if end < 0 else end) - at, len(batch))
                    if first < last:
                        yield known, batch.slice(first, last - first)
                at += len(batch)
            at = behind


def read_slice(slice_: Slice, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a slice, a batch at a time."""
    yield from (batch for _, batch in read_rows(slice_.path, [(slice_.begin, slice_.end, None)], columns))
