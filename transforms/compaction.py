"""Many small parts of old runs' tables merged into few large ones, without a row lost whenever the machine dies.

Merged files are written first and whole; then each manifest is replaced by one that names its rows in them; only then
do the parts go that no manifest lists any more. What a merge that died has left, the next one clears away.
"""

import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import stores
from transforms.locations import Location, matching, table_file
from transforms.manifests import Part
from transforms.tables import name_of

TARGET: Final = 128 << 20
"""Bytes that a merged file has about."""
_MOST_ROWS: Final = 1 << 16
_MOST_BYTES: Final = 1 << 26
"""Of a row group, before it is compressed."""
PREFIX: Final = "compacted-"
"""What stands before the name of a merge in its files' folder."""

_Manifests = dict[str, dict[str, Any]]


class Zone(NamedTuple):
    """Tables under one root, and who writes there.

    Attributes:
      schemas: of the tables that may be merged.
      create: writes a small file atomically.
      hold: called before anything is replaced or removed; raises where somebody else holds the zone by now.
    """

    root: Location
    schemas: tuple[pa.Schema, ...]
    create: Callable[[Location, bytes, bool], None]
    hold: Callable[[], None]


@dataclass
class Merged:
    """What came of merging.

    Attributes:
      before, after: how many files each table had, and has.
      rows: of the files that were written.
    """

    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    rows: int = 0


class _File(NamedTuple):
    """A file of a table, and whose rows it holds.

    Attributes:
      whose: (run, name that the part had, first row, rows) of each.
    """

    path: Location
    name: str
    size: int
    whose: tuple[tuple[str, str, int, int], ...]


def compact(zone: Zone, manifests: _Manifests, groups: dict[str, str], merge: str, target: int = TARGET) -> Merged:
    """Merge the small parts of a zone's tables.

    Args:
      manifests: of all finished runs there, by run; those of merged ones are replaced in place.
      groups: what the runs have in common whose parts may be in one file, by run; other runs' stay as they are.
      merge: a name for this merge, that no other had.
      target: bytes that a merged file has about.

    Raises:
      StoreFailed: something can't be written; nothing is lost.
    """
    clear(zone, manifests)
    merged = Merged()
    tables = [name_of(schema) for schema in zone.schemas]
    merged.before = {table: len(_files(zone, manifests, table)) for table in tables}
    moved: dict[str, dict[str, list[tuple[str, str, int, int]]]] = {}
    for schema in zone.schemas:
        batches = list(_batches(zone, manifests, groups, schema, target))
        for number, files in enumerate(batches):
            name = f"{name_of(schema)}/run={PREFIX}{merge}/part-{number:05}.parquet"
            begins = _write(zone, name, schema, files)
            merged.rows += sum(rows for it in files for _, _, _, rows in it.whose)
            for it, begin in zip(files, begins, strict=True):
                for run, part, first, rows in it.whose:
                    moved.setdefault(run, {}).setdefault(name, []).append((it.name, part, begin + first, rows))
    for run, into in sorted(moved.items()):
        manifests[run] = manifests[run] | {"parts": _parts(manifests[run]["parts"], into)}
        zone.hold()
        zone.create(zone.root / "runs" / f"{run}.json", json.dumps(manifests[run], indent=1).encode() + b"\n", True)
    clear(zone, manifests)
    merged.after = {table: len(_files(zone, manifests, table)) for table in tables}
    return merged


def _files(zone: Zone, manifests: _Manifests, table: str) -> list[_File]:
    """The files of a table that manifests list, the oldest runs' first."""
    whose: dict[str, list[tuple[str, str, int, int]]] = {}
    for run, manifest in sorted(manifests.items()):
        for part in manifest["parts"]:
            if part["path"].startswith(f"{table}/run="):
                rows = part.get("slices") or [(0, part["rows"], part["path"].rpartition("/")[2])]
                whose.setdefault(part["path"], []).extend((run, name, first, count) for first, count, name in rows)
    return [_File(zone.root / name, name, 0, tuple(it)) for name, it in whose.items()]


def _batches(
    zone: Zone, manifests: _Manifests, groups: dict[str, str], schema: pa.Schema, target: int
) -> Iterator[list[_File]]:
    """What is merged into one file each: small files of runs that have enough in common, as many as fill one."""
    waiting: dict[str, list[_File]] = {}
    for file in _files(zone, manifests, name_of(schema)):
        of_groups = {groups.get(run, "") for run, *_ in file.whose}
        if len(of_groups) > 1 or "" in of_groups:
            continue
        sized = file._replace(size=stores.size_of(file.path))
        if sized.size >= target // 2 or set(pq.read_schema(table_file(file.path)).names).difference(schema.names):
            continue  # it is large already, or holds columns that a later version has written
        (group,) = of_groups
        waiting.setdefault(group, []).append(sized)
        if sum(it.size for it in waiting[group]) >= target:
            yield waiting.pop(group)
    yield from (files for files in waiting.values() if len(files) > 1)


def _write(zone: Zone, name: str, schema: pa.Schema, files: list[_File]) -> list[int]:
    """Write one file of several: at which row each begins in it."""
    begins: list[int] = []
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for rows in _row_groups(_rows(files, schema, begins)):
            writer.write_table(rows, len(rows))
    zone.create(zone.root / name, sink.getvalue(), True)
    return begins


def _rows(files: list[_File], schema: pa.Schema, begins: list[int]) -> Iterator[pa.Table]:
    at = 0
    for it in files:
        begins.append(at)
        with pq.ParquetFile(table_file(it.path)) as file:
            for batch in file.iter_batches(1 << 14):
                at += len(batch)
                yield _as(pa.Table.from_batches([batch]), schema)


def _as(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows with all columns that the table has by now; those that came later are empty."""
    columns = [
        rows.column(field.name).cast(field.type) if field.name in rows.schema.names else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= _MOST_ROWS or sum(it.nbytes for it in held) >= _MOST_BYTES:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _parts(parts: list[Part], into: dict[str, list[tuple[str, str, int, int]]]) -> list[Part]:
    """The parts of a run, with merged files in place of what has been merged into them."""
    gone = {was for moved in into.values() for was, *_ in moved}
    stay = [part for part in parts if part["path"] not in gone]
    for name, moved in sorted(into.items()):
        slices = [[begin, rows, part] for _, part, begin, rows in moved]
        stay.append({"path": name, "rows": sum(rows for _, rows, _ in slices), "slices": slices})
    return stay


def clear(zone: Zone, manifests: _Manifests) -> None:
    """Remove what no manifest lists: of finished runs, and of merges that died or were merged again."""
    listed = {part["path"] for manifest in manifests.values() for part in manifest["parts"]}
    for schema in zone.schemas:
        table = name_of(schema)
        for folder in matching(zone.root / table, "run=*"):
            run = folder.name.removeprefix("run=")
            if run in manifests or run.startswith(PREFIX):
                for left in stores.left_behind(folder):
                    left.unlink(missing_ok=True)
                for file in matching(folder, "part-*.parquet"):
                    if f"{table}/{folder.name}/{file.name}" not in listed:
                        zone.hold()
                        file.unlink(missing_ok=True)
                stores.remove_empty(folder)
    for left in stores.left_behind(zone.root / "runs"):
        left.unlink(missing_ok=True)
