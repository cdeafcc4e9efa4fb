"""A crosswalk from outside made one of ours: checked whole, found free of contradictions, and kept by token.

How its files are read and what may stand in a row is decided elsewhere, and so is what a run does with it.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dicomveil.errors import DicomveilError, Problem
from dicomveil.keys import Keys
from dicomveil.pseudonyms import patient_digest, pseudonym_of
from dicomveil.uids import uid_digest
from transforms import stores
from transforms.crosswalk_files import NUMBER, CrosswalkFile, Unreadable, crosswalk_files
from transforms.crosswalk_rows import (
    KINDS,
    PATIENT,
    UID,
    Row,
    are_patients,
    doubtful,
    kept_as_they_are,
    mistakes,
    normalized,
    of_no_effect,
)
from transforms.locations import Location
from transforms.tables import CROSSWALK_GIVEN
from transforms.token_sort import TOKEN, TokenSort, token_halves

HELD: Final = 1 << 18
PART_ROWS: Final = 100_000
_TOLD: Final = 20
_ROW_BITS: Final = 40
_TEXT: Final = pa.string()
_SORTED: Final = pa.schema(
    [("token", TOKEN), *((name, _TEXT) for name in ("original", "issuer", "new", "days", "anchor")), ("at", pa.int64())]
)
_NEW: Final = pa.schema([("token", TOKEN), ("at", pa.int64())])


@dataclass(frozen=True)
class CrosswalkVerdict:
    """What an imported crosswalk comes to.

    Attributes:
      rows: how many there are of each kind, each identity once.
      parts: their files' names in the folder, the patients' before the UIDs'.
    """

    rows: dict[str, int]
    parts: tuple[str, ...]


class CrosswalkRefused(DicomveilError):
    """A crosswalk that can't be followed; carries its mistakes, the first of each sort in words.

    Attributes:
      problems: those in words, without any value.
      count: how many there are.
    """

    def __init__(self, problems: tuple[Problem, ...], count: int) -> None:
        more = [f"and {count - len(problems)} more"] if count > len(problems) else []
        super().__init__("\n".join([*map(str, problems), *more]))
        self.problems, self.count = problems, count

    def __reduce__(self) -> tuple[type, tuple[tuple[Problem, ...], int]]:
        return type(self), (self.problems, self.count)


def _token(keys: Keys, kind: str, value: str, issuer: str) -> bytes:
    return (patient_digest(keys, value, issuer) if kind == PATIENT else uid_digest(keys, value))[:16]


def _name(kind: str, token: bytes) -> str:
    """By what a mention of a patient or UID finds its row: the pseudonym, or the UID's token in hexadecimal digits."""
    return pseudonym_of(token) if kind == PATIENT else token[:8].hex()


@dataclass
class _Complaints:
    """Mistakes of one sort: the first few in words, the others counted."""

    told: list[Problem] = field(default_factory=list)
    count: int = 0

    def add(self, where: str, what: str, remedy: str) -> None:
        self.count += 1
        if len(self.told) < _TOLD:
            self.told.append(Problem(where, what, remedy))


class _Import:
    """One import at work: what is wrong so far, and which file each row came from."""

    def __init__(self, scratch: Path, keys: Keys, identity: str, default_issuer: str) -> None:
        self._keys, self._identity, self._default = keys, identity, default_issuer
        self._files: list[str] = []
        self._written_from = 1 << 62
        self._wrong, self._split, self._shared = _Complaints(), _Complaints(), _Complaints()
        self._sorts = {kind: TokenSort(scratch / kind, _SORTED, HELD) for kind in KINDS}
        self._news = {kind: TokenSort(scratch / f"{kind}-new", _NEW, HELD) for kind in KINDS}

    def lists(self, kind: str) -> bool:
        """Whether there are rows of a kind so far."""
        return not self._sorts[kind].empty

    def compare_with_written(self) -> None:
        """From here on files tell what earlier runs have written: that is compared, and not kept."""
        self._written_from = len(self._files) << _ROW_BITS

    def read(self, file: CrosswalkFile) -> None:
        """Take in a file; what is wrong with it is kept."""
        self._files.append(file.name)
        empty, wrong = True, self._wrong.count
        try:
            for batch in file.batches(self._wrong.add):
                empty = empty and not len(batch)
                self._take(file, normalized(batch, file.ours))
        except Unreadable as broken:
            self._wrong.add(file.name, broken.what, broken.remedy)
            return
        if empty and self._wrong.count == wrong:
            self._wrong.add(file.name, "has no rows", "give a header and a row for each value")

    def _take(self, file: CrosswalkFile, rows: pa.Table) -> None:
        rows = rows.filter(pa.array(~(kept_as_they_are(rows) | (file.ours & of_no_effect(rows)))))
        right = np.ones(len(rows), bool)
        suspects = np.flatnonzero(doubtful(rows))
        if self._files[self._written_from >> _ROW_BITS :]:
            suspects = suspects[:0]  # runs take IDs as they are, and nobody could mend what one has written
        for at, values in zip(suspects.tolist(), rows.take(pa.array(suspects)).to_pylist(), strict=True):
            number = values.pop(NUMBER)
            for what, remedy in mistakes(Row(**values)):
                right[at] = False
                self._wrong.add(f"{file.name}, row {number}", what, remedy)
        rows = rows.filter(pa.array(right))
        patients = are_patients(rows)
        for kind, chosen in ((PATIENT, patients), (UID, ~patients)):
            if chosen.any():
                self._sorts[kind].add(self._sortable(kind, rows.filter(pa.array(chosen))))

    def _sortable(self, kind: str, rows: pa.Table) -> pa.Table:
        originals = rows.column("original").to_pylist()
        if kind == PATIENT and self._identity == "id+issuer":
            issuers = [issuer or self._default for issuer in rows.column("issuer").to_pylist()]
            rows = rows.set_column(rows.schema.get_field_index("issuer"), "issuer", pa.array(issuers, _TEXT))
        else:
            issuers = [""] * len(originals)
        tokens = [_token(self._keys, kind, *identity) for identity in zip(originals, issuers, strict=True)]
        at = pc.add(rows.column(NUMBER), (len(self._files) - 1) << _ROW_BITS)
        columns = [pa.array(tokens, TOKEN), *map(rows.column, ("original", "issuer", "new", "days", "anchor")), at]
        return pa.Table.from_arrays(columns, schema=_SORTED)

    def settled(self, kind: str) -> Iterator[pa.Table]:
        """The rows of a kind, one an identity, in the order of their tokens; contradictions are kept."""
        salt = self._keys.derive("crosswalk-new", kind.encode())
        for rows in self._sorts[kind].sorted():
            merged = self._merged(rows)
            digests = [hashlib.blake2b(new.encode(), digest_size=16, key=salt).digest() for new in _list(merged, "new")]
            columns = [pa.array(digests, TOKEN), merged.column("at")]
            self._news[kind].add(pa.Table.from_arrays(columns, schema=_NEW))
            yield merged.filter(pc.less(merged.column("at"), self._written_from))
        self._find_shared(kind)

    def _merged(self, rows: pa.Table) -> pa.Table:
        """The first row of each group, with what only later ones say."""
        tokens = token_halves(rows.column("token").combine_chunks())
        heads = np.r_[True, (tokens[1:] != tokens[:-1]).any(axis=1)]
        first = rows.filter(pa.array(heads))
        group = np.cumsum(heads) - 1
        said = ("new", "days", "anchor")
        same = heads.copy()
        if not heads.all():
            firsts = first.take(pa.array(group))
            alike = [pc.equal(rows.column(name), firsts.column(name)).combine_chunks().to_numpy(False) for name in said]
            same |= np.logical_and.reduce(alike)
        if same.all():
            return first
        others = np.flatnonzero(~same)
        return self._completed(first, group[others].tolist(), rows.take(pa.array(others)).to_pylist())

    def _completed(self, first: pa.Table, groups: list[int], others: list[dict[str, Any]]) -> pa.Table:
        columns, at = {name: _list(first, name) for name in _SAID}, _list(first, "at")
        told_at: dict[tuple[str, int], int] = {}
        contradicted: set[int] = set()
        for group, other in zip(groups, others, strict=True):
            if at[group] >= self._written_from:
                continue
            for name, what in _SAID.items():
                known = columns[name][group]
                if not known and other[name] and other["at"] < self._written_from:
                    columns[name][group], told_at[name, group] = other[name], other["at"]
                elif known and other[name] and known != other[name] and group not in contradicted:
                    contradicted.add(group)
                    where = f"{self._where(told_at.get((name, group), at[group]))} and {self._where(other['at'])}"
                    self._split.add(where, f"give one original {what}", "keep the one that is right")
        for name in _SAID:
            index = first.schema.get_field_index(name)
            first = first.set_column(index, first.schema.field(index), pa.array(columns[name], _TEXT))
        return first

    def _find_shared(self, kind: str) -> None:
        for rows in self._news[kind].sorted():
            tokens = token_halves(rows.column("token").combine_chunks())
            begun = np.flatnonzero(np.r_[True, (tokens[1:] != tokens[:-1]).any(axis=1), True])
            at = rows.column("at").to_numpy()
            # One complaint a new value, of its first two originals.
            for group in np.flatnonzero(np.diff(begun) > 1).tolist():
                first, second, *_ = sorted(at[begun[group] : begun[group + 1]].tolist())
                if first < self._written_from:
                    where = f"{self._where(first)} and {self._where(second)}"
                    self._shared.add(where, "give two originals one new value", _TELL_APART[kind])

    def _where(self, at: int) -> str:
        return f"{self._files[at >> _ROW_BITS]}, row {at & ((1 << _ROW_BITS) - 1)}"

    def refuse(self) -> None:
        """Raise what was found to be wrong.

        Raises:
          CrosswalkRefused: anything was.
        """
        found = (self._wrong, self._split, self._shared)
        if count := sum(sort.count for sort in found):
            raise CrosswalkRefused(tuple(problem for sort in found for problem in sort.told), count)


_SAID: Final = {"new": "two new values", "days": "two shifts of dates", "anchor": "two anchor dates"}
_TELL_APART: Final = {
    PATIENT: "give each patient an ID of its own, since two would be made one",
    UID: "give each a UID of its own",
}


def import_crosswalk(
    uris: Sequence[str],
    folder: Location,
    scratch: Path,
    keys: Keys,
    identity: str = "id",
    default_issuer: str = "",
    written: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> CrosswalkVerdict:
    """Read crosswalks, check all they say, and keep it in parts that join by token.

    Args:
      uris: each a CSV file, a Parquet file, a folder of Parquet files, or the restricted root of earlier runs.
      folder: of its own, in the restricted zone; what stands there is replaced. It may be moved when this is done.
      scratch: folder of this machine for rows that are being sorted, and for what is fetched from stores.
      identity: by what patients are told apart, "id" or "id+issuer".
      default_issuer: of rows without one, where they are told apart by it.
      written: by kind, the tables of what earlier runs have written, which may not be contradicted.

    Raises:
      CrosswalkRefused: all that is wrong with rows, and all that contradicts itself; then nothing is kept.
      StoreError: a URI leads nowhere.
    """
    stores.clear(folder)
    stores.restricted_folder(folder)
    stores.restricted_folder(scratch)
    try:
        work = _Import(scratch, keys, identity, default_issuer)
        for file in crosswalk_files(uris, scratch):
            work.read(file)
        work.compare_with_written()
        told = (uri for kind in KINDS if work.lists(kind) for uri in written.get(kind, ()))
        for file in crosswalk_files(told, scratch):
            work.read(file)
        verdict = _keep(work, folder)
        work.refuse()
    except BaseException:
        stores.clear(folder)
        raise
    finally:
        stores.clear(scratch)
    return verdict


def _keep(work: _Import, folder: Location) -> CrosswalkVerdict:
    parts: list[str] = []
    counts = dict.fromkeys(KINDS, 0)
    for kind in KINDS:
        for number, rows in enumerate(_even(_canonical(kind, rows) for rows in work.settled(kind))):
            counts[kind] += len(rows)
            parts.append(f"{kind}-{number:05}.parquet")
            buffer = io.BytesIO()
            pq.write_table(rows, buffer, compression="zstd")
            stores.create_restricted(folder / parts[-1], buffer.getvalue())
    return CrosswalkVerdict(counts, tuple(parts))


def _even(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of `PART_ROWS`, but for the last."""
    held = CROSSWALK_GIVEN.empty_table()
    for table in tables:
        held = pa.concat_tables([held, table])
        while len(held) >= PART_ROWS:
            yield held.slice(0, PART_ROWS)
            held = held.slice(PART_ROWS)
    if len(held):
        yield held


def _canonical(kind: str, rows: pa.Table) -> pa.Table:
    days = rows.column("days")
    columns = [
        pa.repeat(pa.scalar(kind), len(rows)),
        pa.array([_name(kind, token) for token in _list(rows, "token")], _TEXT),
        *map(rows.column, ("original", "issuer", "new")),
        pc.if_else(pc.equal(days, ""), None, days).cast(pa.int32()),
        rows.column("anchor"),
    ]
    return pa.Table.from_arrays(columns, schema=CROSSWALK_GIVEN)


def _list(rows: pa.Table, column: str) -> list:
    return rows.column(column).to_pylist()
