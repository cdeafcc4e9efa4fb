"""Lists of objects as input: tables of URIs, and the inventories that stores make of themselves.

What a list is, is told by how it begins. It is read row by row and never held. No message quotes a row: what stands
there may name patients.
"""

import codecs
import csv
import gzip
import io
import json
import os
import posixpath
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.parquet as pq

from dicomveil.errors import DicomveilError, Unsuitable
from dicomveil.stream import Source
from transforms import listing, stores
from transforms.listing import is_text
from transforms.locations import StoreError, local_path
from transforms.object_stores import SCHEMES, bucket_of, name_in_bucket, scheme_of
from transforms.source_file import SourceFile
from transforms.store_failures import StoreFailed

_URI: Final = ("uri", "url", "path", "gcsuri", "s3uri", "gcsurl", "s3url", "gcspath", "s3path", "objecturi", "filepath")
_BUCKETS: Final = ("bucket", "bucketname", "container", "containername")
_NAMES: Final = {
    "key": "s3", "keyname": "s3", "name": "gs", "object": "gs", "objectname": "gs", "blob": "az", "blobname": "az"
}  # fmt: skip
"""Columns of names in a bucket, and the scheme of the store that calls them so."""
_SIZES: Final = ("size", "sizebytes", "bytes", "contentlength")
_VERSIONS: Final = {"gs": "generation", "s3": "etag", "az": "etag"}
_CLASSES: Final = ("storageclass", "accesstier")
_READ: Final = (*_URI, *_BUCKETS, *_NAMES, *_SIZES, "generation", "etag", *_CLASSES,
                "islatest", "isdeletemarker", "timedeleted")  # fmt: skip
_DELIMITERS: Final = ",;\t"
_HEAD: Final = 1 << 16
_LONGEST_LINE: Final = 1 << 20
_LARGEST_MANIFEST: Final = 1 << 26
_ROWS: Final = 1 << 13

Row = Mapping[str, Any]
"""A row by its columns' plain names: letters and digits, lower case."""


class InputListError(DicomveilError):
    """A list that can't be read to its end; the message names the file, the row where there is one, and the remedy.

    Attributes:
      row: its number or line, from 1 on; 0 where it is the whole file's.
    """

    def __init__(self, file: str, row: int, what: str, remedy: str) -> None:
        super().__init__(f"{file}{f', row {row:,}' if row else ''}: {what} ({remedy})")
        self.row = row


class Named(NamedTuple):
    """One object that a list names.

    Attributes:
      size: in bytes; -1 where it isn't told.
      version: what pins its bytes; "" where it isn't told, or the list is no authority on it.
    """

    uri: str
    size: int = -1
    version: str = ""
    storage_class: str = ""


def entries(place: str) -> Iterator[Named]:
    """Every object that a list names, in its order; what is deleted, or an older version, is passed over.

    Args:
      place: of a Parquet, CSV or newline-JSON file, gzipped or not, or of the manifest of an S3 Inventory or a Storage
        Insights report. Relative paths in it start at its own folder.

    Raises:
      InputListError: it can't be read on.
    """
    for row, told in _rows(place):
        try:
            found = _entry(told, place)
        except ValueError as bad:
            what, remedy = bad.args
            raise InputListError(told.get(_FILE, place), row, what, remedy) from None
        if found:
            yield found


_FILE: Final = "\0file"  # in a row: the file of an inventory that it stands in


def _entry(told: Row, place: str) -> Named | None:
    """What a row names; None where that isn't there any more.

    Raises:
      ValueError: what is wrong with it, and what to do.
    """
    if _is(told, "islatest", "false") or _is(told, "isdeletemarker", "true") or _text(told, ("timedeleted",)):
        return None
    uri = _uri(told, place)
    size = _text(told, _SIZES)
    if size and not re.fullmatch("[0-9]{1,18}", size):
        raise ValueError("its size is no whole number of bytes", "mend it, or leave the column out")
    scheme = scheme_of(uri)
    version = _text(told, (_VERSIONS[scheme],)).strip('"') if scheme else ""
    if scheme == "gs" and version and not re.fullmatch("[0-9]+", version):
        raise ValueError("its generation is no number", "mend it, or leave the column out")
    return Named(uri, int(size) if size else -1, version, _text(told, _CLASSES))


def _uri(told: Row, place: str) -> str:
    uri = _text(told, _URI)
    if not uri:
        bucket, column = _text(told, _BUCKETS), next((name for name in _NAMES if told.get(name) not in (None, "")), "")
        if not bucket or not column:
            raise ValueError("names no object", "give its uri, or its bucket and key")
        uri = f"{bucket}/{told[column]}" if scheme_of(bucket) else f"{_NAMES[column]}://{bucket}/{told[column]}"
    if "\0" in uri or not is_text(uri):
        raise ValueError("holds what no name can: NUL, or half a character", "mend it")
    if scheme_of(uri):
        if not bucket_of(uri) or not name_in_bucket(uri):
            raise ValueError(
                "names a bucket and no object in it", "give each object's whole uri; name prefixes by --input"
            )
        return uri
    try:
        path = local_path(uri)
    except StoreError:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError("is in no storage that can be used", f"name paths, or one of {known}") from None
    if path.is_absolute():
        return os.fspath(path)
    if scheme_of(place):
        raise ValueError("is a relative path, in a list that lies in no folder", "write whole uris")
    return os.path.join(os.path.dirname(os.path.abspath(local_path(place))), path)


def _text(told: Row, names: Iterable[str]) -> str:
    """The first of some columns that says anything."""
    return next((str(it).strip() for name in names if (it := told.get(name)) not in (None, "")), "")


def _is(told: Row, name: str, value: str) -> bool:
    return _text(told, (name,)).lower() == value


# ----------------------------------------------------------------------------------------------------- what it is


def _rows(place: str) -> Iterator[tuple[int, Row]]:
    """Every row of a list with its number, whatever kind of list it is."""
    with _opened(place) as source:
        head = _head(source, place)
        manifest = _manifest(source, head)
        for mark, inventory in _INVENTORIES.items():
            if mark in manifest:
                yield from inventory(manifest, place)
                return
        yield from _table_rows(source, head, place)


def _table_rows(source: Source, head: bytes, file: str, columns: list[str] | None = None,
                delimiter: str = "") -> Iterator[tuple[int, Row]]:  # fmt: skip
    """Every row of a table.

    Args:
      head: how it begins, inflated.
      columns: those of a CSV without a header.
    """
    if head[:4] == b"PAR1":
        return _parquet_rows(source, file)
    if head[:3] == b"ORC":
        raise InputListError(file, 0, "is ORC, which isn't read", "have the inventory made as CSV or Parquet")
    if head.lstrip()[:1] == b"{" and columns is None:
        return _json_rows(_lines(source, file), file)
    if head.lstrip()[:1] == b"[" and columns is None:
        raise InputListError(file, 0, "is one JSON array, which would have to be held", "write an object a line")
    if b"\0" in head or head[:2] == b"PK":
        raise InputListError(file, 0, "is no Parquet, CSV or newline JSON", "name the list itself")
    return _csv_rows(_lines(source, file), file, columns, delimiter)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _known(columns: Iterable[str], file: str) -> dict[str, str]:
    """The columns that are read, by name, with their plain names.

    Raises:
      InputListError: none of them can name an object.
    """
    found = {column: _plain(column) for column in columns if _plain(column) in _READ}
    plain = set(found.values())
    if plain.isdisjoint(_URI) and (plain.isdisjoint(_BUCKETS) or plain.isdisjoint(_NAMES)):
        raise InputListError(file, 0, "has no column that names objects", "call one uri, or two bucket and key")
    return found


def _parquet_rows(source: Source, file: str) -> Iterator[tuple[int, Row]]:
    number = 0
    try:
        with pq.ParquetFile(pa.PythonFile(SourceFile(source), mode="r")) as table:
            columns = _known(table.schema_arrow.names, file)
            for batch in table.iter_batches(_ROWS, columns=list(columns)):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {columns[column]: value for column, value in row.items()}
    except (pa.ArrowException, OSError):
        raise InputListError(file, number, "is a Parquet file that can't be read", "make it anew") from None


def _json_rows(lines: Iterator[tuple[int, str]], file: str) -> Iterator[tuple[int, Row]]:
    known: dict[str, str] = {}
    for number, line in lines:
        if not line.strip():
            continue
        try:
            told = json.loads(line)
        except (ValueError, RecursionError):
            raise InputListError(file, number, "is no JSON", "write an object a line") from None
        if not isinstance(told, dict):
            raise InputListError(file, number, "is no object", "write an object a line") from None
        known = known or _known(told, file)
        yield (
            number,
            {_plain(name): value for name, value in told.items() if isinstance(value, str | int | float | bool)},
        )


def _csv_rows(
    lines: Iterator[tuple[int, str]], file: str, columns: list[str] | None, delimiter: str
) -> Iterator[tuple[int, Row]]:
    reading = _Numbered(lines)
    first = "" if columns else next(reading, "")
    delimiter = delimiter or max(_DELIMITERS, key=first.count)
    try:
        if columns is None:
            columns = next(csv.reader([first], delimiter=delimiter), [])
            if columns and ("://" in columns[0] or columns[0].startswith("/")):
                raise InputListError(file, 1, "has no names of columns", "write a first line: uri")
        known = _known(columns, file)
        kept = [(number, known[column]) for number, column in enumerate(columns) if column in known]
        for cells in csv.reader(reading, delimiter=delimiter, strict=True):
            if any(cells[len(columns) :]):
                raise InputListError(
                    file,
                    reading.number,
                    "has more values than there are columns",
                    "put names that hold a comma in quotes",
                )
            if cells:
                yield reading.number, {plain: cells[number] for number, plain in kept if number < len(cells)}
    except csv.Error:
        raise InputListError(file, reading.number, "is no row of a CSV file", "mend its quotes") from None


class _Numbered:
    """Lines, and the number of the last one that was read."""

    def __init__(self, lines: Iterator[tuple[int, str]]) -> None:
        self._lines, self.number = lines, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        return line


# ---------------------------------------------------------------------------------------------------- inventories


def _manifest(source: Source, head: bytes) -> dict[str, Any]:
    """A file that is one JSON object, as a manifest is; empty where it is none. Of lines of objects the first tells."""
    if head.lstrip()[:1] != b"{":
        return {}
    first = _json_object(head.lstrip().partition(b"\n")[0])
    return first or (_json_object(source.read(0, source.size)) if source.size <= _LARGEST_MANIFEST else {})


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _s3_inventory(manifest: dict[str, Any], place: str) -> Iterator[tuple[int, Row]]:
    """The objects of an S3 Inventory, whose keys are URL-encoded where it is CSV."""
    kind, files = str(manifest.get("fileFormat", "")).upper(), manifest["files"]
    columns = [column.strip() for column in str(manifest.get("fileSchema", "")).split(",")] if kind == "CSV" else None
    if kind == "ORC":
        raise InputListError(place, 0, "is an inventory in ORC, which isn't read", "have it made as CSV or Parquet")
    if not isinstance(files, list) or not all(isinstance(it, dict) and isinstance(it.get("key"), str) for it in files):
        raise InputListError(place, 0, "is no manifest of an S3 Inventory", "name its manifest.json")
    bucket = str(manifest.get("destinationBucket", "")).rpartition(":")[2]
    for it in files:
        file = f"s3://{bucket}/{it['key']}" if scheme_of(place) else _beside(place, it["key"])
        for number, told in _part(file, columns):
            key = {"key": unquote_plus(str(told["key"]))} if kind == "CSV" and "key" in told else {}
            yield number, {**told, **key, _FILE: file}


def _gcs_inventory(manifest: dict[str, Any], place: str) -> Iterator[tuple[int, Row]]:
    """The objects of a Storage Insights report, whose shards lie beside its manifest."""
    names = manifest["report_shards_file_names"]
    if not isinstance(names, list) or not all(isinstance(it, str) for it in names):
        raise InputListError(place, 0, "is no manifest of an inventory report", "name its manifest file")
    config = {_plain(name): value for name, value in _flat(manifest.get("report_config", {}))}
    header = str(config.get("headerrequired", True)).lower() != "false"
    columns = None if header else [str(it) for it in config.get("metadatafields", [])]
    for name in names:
        folder = place.rpartition("/")[0] if scheme_of(place) else os.path.dirname(local_path(place))
        file = posixpath.join(folder, posixpath.basename(name))
        for number, told in _part(file, columns, str(config.get("delimiter", ""))):
            yield number, {**told, _FILE: file}


_INVENTORIES: Final[dict[str, Callable[[dict[str, Any], str], Iterator[tuple[int, Row]]]]] = {
    "fileSchema": _s3_inventory,
    "report_shards_file_names": _gcs_inventory,
}
"""By the member that makes a JSON object the manifest of an inventory."""


def _flat(told: Any) -> Iterator[tuple[str, Any]]:
    """The members of a JSON object and of those in it."""
    if isinstance(told, dict):
        for name, value in told.items():
            yield name, value
            yield from _flat(value)


def _part(file: str, columns: list[str] | None, delimiter: str = "") -> Iterator[tuple[int, Row]]:
    """The rows of one file of an inventory."""
    with _opened(file) as source:
        yield from _table_rows(source, _head(source, file), file, columns, delimiter)


def _beside(manifest: str, key: str) -> str:
    """Where a file of an inventory is, whose manifest was brought to this machine: below one of the folders around it,
    or beside it."""
    folder = Path(os.path.abspath(local_path(manifest))).parent
    around = [parent / key.lstrip("/") for parent in (folder, *folder.parents)]
    near = [folder / posixpath.basename(key), folder.parent / "data" / posixpath.basename(key)]
    return os.fspath(next((path for path in (*around, *near) if path.is_file()), near[0]))


# --------------------------------------------------------------------------------------------------- how it is read


@contextmanager
def _opened(file: str) -> Iterator[Source]:
    try:
        found = listing.look_up(file)
        if found.reason:
            raise InputListError(file, 0, "can't be read", "check that it exists and may be read")
        with stores.open_version(found.uri, found.version, found.size, whole=True) as source:
            yield source
    except (StoreError, StoreFailed):
        raise InputListError(file, 0, "can't be read", "check that it exists and may be read") from None
    except Unsuitable:
        raise InputListError(file, 0, "changed or broke off while it was read", "try again") from None


def _head(source: Source, file: str) -> bytes:
    """How a file begins, inflated where it is gzipped."""
    head = source.read(0, _HEAD)
    try:
        if head.startswith(b"\x1f\x8b"):
            head = zlib.decompressobj(wbits=31).decompress(head, _HEAD)
        return head.removeprefix(codecs.BOM_UTF8)
    except zlib.error:
        raise InputListError(file, 0, "is gzipped and damaged", "make it anew") from None


def _lines(source: Source, file: str) -> Iterator[tuple[int, str]]:
    """The lines of a text, inflated where it is gzipped, with their numbers."""
    raw: Any = io.BufferedReader(SourceFile(source), _LONGEST_LINE)
    if source.read(0, 2) == b"\x1f\x8b":
        raw = gzip.GzipFile(fileobj=raw)
    number = 0
    try:
        while line := raw.readline(_LONGEST_LINE):
            number += 1
            if len(line) == _LONGEST_LINE:
                raise InputListError(file, number, "is a line without end", "name the list itself")
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise InputListError(file, number, "is no text in UTF-8", "write it anew in UTF-8") from None
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise InputListError(file, number, "is gzipped and cut off or damaged", "make it anew") from None
