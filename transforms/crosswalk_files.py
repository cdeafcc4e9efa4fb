"""Files that hold crosswalks, read in batches of text: CSV, Parquet, and what an earlier run left under --restricted.

How rows are laid out is known here; what may stand in them isn't.
"""

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from transforms import stores
from transforms.locations import ObjectLocation, StoreError, locate
from transforms.manifests import files_of, listed_parts

COLUMNS: Final = ("original", "new", "role", "issuer", "days", "anchor")
NUMBER: Final = "number"
OURS: Final = ("crosswalk/patients", "crosswalk/uids")

_REQUIRED: Final = ("original", "new")
_BATCH: Final = 1 << 16
_BLOCK: Final = 1 << 22
_HEADER: Final = 1 << 16
# Names that can mean one thing only; "patient_id", say, may be the old one or the new.
_ALIASES: Final = {
    "original": ("original", "old", "original_value", "original_id", "original_uid", "original_patient_id"),
    "new": ("new", "new_value", "new_id", "new_uid", "new_patient_id", "pseudonym", "replacement", "subject_id"),
    "role": ("role", "kind"),
    "issuer": ("issuer", "issuer_of_patient_id"),
    "days": ("days", "shift_days", "date_shift_days"),
    "anchor": ("anchor", "anchor_date"),
}
_MEANINGS: Final = {name.replace("_", ""): column for column, names in _ALIASES.items() for name in names}
_IGNORED: Final = frozenset(("studyinstanceuid", "inside", "late", "token"))
_ROOT: Final = "crosswalk"

Complain = Callable[[str, str, str], None]
"""Takes what is wrong: where, what, and the remedy."""


class Unreadable(Exception):
    """A file that can't be read as a crosswalk; holds what is wrong and the remedy, never a value."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


@dataclass(frozen=True, repr=False)
class CrosswalkFile:
    """One file.

    Attributes:
      name: what the user knows it by.
      ours: whether one of our runs wrote it, and so knows of studies without Patient ID and of values that stay.
      parquet: else CSV.
    """

    name: str
    path: Path
    ours: bool
    parquet: bool

    def batches(self, complain: Complain) -> Iterator[pa.Table]:
        """Its rows in order: the text columns `COLUMNS`, "" for nothing, and the row's `NUMBER` (in CSV, the line's).

        Args:
          complain: told of each row that has another number of columns than the header.

        Raises:
          Unreadable: it is no such file.
        """
        read = self._parquet() if self.parquet else self._csv(complain)
        try:
            yield from read
        except (pa.ArrowException, OSError):
            # Its text may quote the file.
            raise Unreadable(*_BROKEN[self.parquet]) from None

    def _parquet(self) -> Iterator[pa.Table]:
        with pq.ParquetFile(self.path) as file:
            columns = _meanings(file.schema_arrow.names)
            first = 1
            for batch in file.iter_batches(_BATCH, columns=list(columns)):
                texts = {columns[name]: _text(columns[name], batch.column(name)) for name in batch.schema.names}
                yield _table(texts, np.arange(first, first + len(batch)))
                first += len(batch)

    def _csv(self, complain: Complain) -> Iterator[pa.Table]:
        names, delimiter = _header(self.path)
        columns = _meanings(names)
        numbers = _LineNumbers(lambda line: complain(f"{self.name}, row {line}", *_UNEVEN))
        unique = [columns.get(name, f"column {at}") for at, name in enumerate(names)]
        reader = arrow_csv.open_csv(
            self.path,
            arrow_csv.ReadOptions(use_threads=False, block_size=_BLOCK, skip_rows=1, column_names=unique),
            arrow_csv.ParseOptions(
                delimiter=delimiter, ignore_empty_lines=False, invalid_row_handler=numbers.leave_out
            ),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(unique, pa.string()),
                include_columns=list(columns.values()),
                strings_can_be_null=False,
            ),
        )
        for batch in reader:
            texts = dict(zip(batch.schema.names, batch.columns, strict=True))
            rows = _table(texts, numbers.next(len(batch)))
            said = [rows.column(name) for name in COLUMNS if name in texts]
            yield rows.filter(pc.not_equal(pc.binary_join_element_wise(*said, ""), ""))


_UNEVEN: Final = ("has another number of columns than the header", "quote values that hold the delimiter")
_BROKEN: Final = {
    True: ("can't be read as Parquet", "write it again"),
    False: ("can't be read as CSV in UTF-8", "save it in UTF-8, parted by commas, semicolons or tabs"),
}


@dataclass
class _LineNumbers:
    """Which lines the rows of a CSV file stand on: all behind the header, but for those left out."""

    complain: Callable[[int], None]
    line: int = 2
    left_out: list[int] = field(default_factory=list)

    def leave_out(self, row: arrow_csv.InvalidRow) -> str:
        self.left_out.append(row.number)
        self.complain(row.number)
        return "skip"

    def next(self, count: int) -> np.ndarray:
        """The lines of the next rows."""
        lines = np.arange(self.line, self.line + count + len(self.left_out))
        lines = lines[~np.isin(lines, self.left_out)][:count]
        if count:
            self.line = int(lines[-1]) + 1
            self.left_out = [number for number in self.left_out if number >= self.line]
        return lines


def crosswalk_files(uris: Iterable[str], scratch: Path) -> Iterator[CrosswalkFile]:
    """The files that URIs stand for: a file, a folder of Parquet parts, or the restricted root of earlier runs.

    Args:
      scratch: folder of this machine for what is fetched from stores.

    Raises:
      StoreError: there is no such thing.
    """
    for uri in uris:
        place = locate(uri)
        if isinstance(place, ObjectLocation):
            yield from _stored(uri, place, scratch)
        elif place.is_dir():
            yield from _of_runs(uri, place) if (place / _ROOT).is_dir() else _of_folder(uri, place)
        else:
            yield _file(uri, place)


def _stored(uri: str, place: ObjectLocation, scratch: Path) -> Iterator[CrosswalkFile]:
    """The same of a store: each is fetched for as long as it is read."""
    if place.is_object() and place.exists():
        yield from _fetched(uri, place, scratch)
        return
    if next((place / _ROOT).iterdir(), None):
        for part in files_of(listed_parts(place)):
            if part.table in OURS:
                yield from _fetched(f"{place}/{part.name}", place / part.name, scratch)
        return
    found = False
    for stored in place.below():
        if stored.uri.endswith(".parquet"):
            found = True
            yield from _fetched(stored.uri, ObjectLocation(stored.uri), scratch)
    if not found:
        raise StoreError(f"{uri}: holds neither Parquet files nor what a run left under --restricted")


def _fetched(name: str, place: ObjectLocation, scratch: Path) -> Iterator[CrosswalkFile]:
    copy = scratch / "fetched"
    stores.create_restricted(copy, place.read_bytes())
    try:
        yield _file(name, copy)
    finally:
        copy.unlink()


def _of_runs(uri: str, root: Path) -> Iterator[CrosswalkFile]:
    for part in files_of(listed_parts(root)):
        if part.table in OURS:
            yield CrosswalkFile(f"{uri.rstrip('/')}/{part.name}", root / part.name, ours=True, parquet=True)


def _of_folder(uri: str, folder: Path) -> Iterator[CrosswalkFile]:
    found = [path for path in sorted(folder.rglob("*.parquet")) if not path.name.startswith((".", "_"))]
    if not found:
        raise StoreError(f"{uri}: holds neither Parquet files nor what a run left under --restricted")
    for path in found:
        yield _file(f"{uri.rstrip('/')}/{path.relative_to(folder)}", path)


def _file(name: str, path: Path) -> CrosswalkFile:
    try:
        with path.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
        return CrosswalkFile(name, path, parquet and _written_by_us(path), parquet)
    except OSError as failed:
        raise StoreError(f"{name}: {failed.strerror}") from None


def _written_by_us(path: Path) -> bool:
    try:
        metadata = pq.read_schema(path).metadata or {}
    except pa.ArrowException:
        return False  # what it is instead is told when it is read
    return metadata.get(b"table", b"").decode("utf-8", "replace") in OURS


def _meanings(names: list[str]) -> dict[str, str]:
    """What each column that we read means.

    Raises:
      Unreadable: one is missing, given twice, or unknown. Unknown ones are named only in a header that is one, since
        the first line of a file without a header holds values.
    """
    meant: dict[str, str] = {}
    unknown: list[str] = []
    for name in names:
        plain = _plain(name)
        if plain in _MEANINGS:
            if _MEANINGS[plain] in meant.values():
                raise Unreadable(f"has two columns for `{_MEANINGS[plain]}`", "leave one of them out")
            meant[name] = _MEANINGS[plain]
        elif plain not in _IGNORED:
            unknown.append(name)
    missing = [column for column in _REQUIRED if column not in meant.values()]
    if missing:
        raise Unreadable(
            f"has no column {' or '.join(f'`{column}`' for column in missing)}", "name the columns in its first row"
        )
    if unknown:
        told = ", ".join(f"`{name}`" for name in unknown)
        raise Unreadable(f"has columns of unknown meaning: {told}", f"leave them out, or use {', '.join(COLUMNS)}")
    return meant


def _header(path: Path) -> tuple[list[str], str]:
    """The names of the columns of a CSV file, and what parts them: what gives the most columns that we know."""
    with path.open("rb") as file:
        raw = file.read(_HEADER)
    try:
        lines = raw.splitlines()[0].decode("utf-8-sig").splitlines() if raw else []
    except UnicodeDecodeError:
        raise Unreadable(*_BROKEN[False]) from None
    if not lines or len(raw.splitlines()) < 2:
        raise Unreadable("has no rows", "give a header and a row for each value")
    read = [(next(csv.reader(lines, delimiter=delimiter)), delimiter) for delimiter in ",;\t"]
    return max(read, key=lambda names: sum(_plain(name) in _MEANINGS for name in names[0]))


def _plain(name: str) -> str:
    """The name of a column as `_MEANINGS` has it."""
    return name.strip().lower().replace("_", "").replace(" ", "").replace("-", "")


def _table(texts: dict[str, pa.Array], numbers: np.ndarray) -> pa.Table:
    """All columns in their order; those that the file doesn't have are empty, but all are patients without roles."""
    columns = [texts[name] if name in texts else _repeated(name, len(numbers)) for name in COLUMNS]
    return pa.Table.from_arrays([*columns, pa.array(numbers, pa.int64())], names=[*COLUMNS, NUMBER])


def _repeated(column: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar("patient" if column == "role" else "", pa.string()), count)


def _text(column: str, values: pa.Array) -> pa.Array:
    """A column of Parquet as text.

    Raises:
      Unreadable: it is of numbers, in which leading zeros and more are lost.
    """
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if column == "anchor" and pa.types.is_date(kind):
        return pc.strftime(values.cast(pa.date32()), "%Y%m%d").fill_null("")
    if pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return values.cast(pa.string()).fill_null("")
    if column == "days" and pa.types.is_integer(kind):
        return values.cast(pa.string()).fill_null("")
    raise Unreadable(f"has a column `{column}` that isn't text", "write it as text, so that no digit is lost")
