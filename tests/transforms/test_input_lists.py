"""Lists of objects: what each form names, row by row, and what is told of those that can't be read on."""

import csv
import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transforms import inputs
from transforms.input_lists import InputListError, Named, entries

MARK = "Zubikax"


def parquet(file: Path, columns: dict[str, list[Any]]) -> None:
    pq.write_table(pa.table(columns), file)


def named(folder: Path, content: bytes | str, name: str = "list") -> list[Named]:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(entries(str(file)))


TABLES: dict[str, tuple[str, list[Named]]] = {
    "uris": ("uri\ngs://b/a b.dcm\ns3://b/x%20y\n/data/c\n", [Named("gs://b/a b.dcm"), Named("s3://b/x%20y"), Named("/data/c")]),
    "another name for them": ("Object URI;note\ngs://b/a;x\n", [Named("gs://b/a")]),
    "sizes and generations": ("uri,size,generation\ngs://b/a,12,1700\n", [Named("gs://b/a", 12, "1700")]),
    "no version without its column": ("uri,size,etag\ngs://b/a,12,CJ\n", [Named("gs://b/a", 12)]),
    "ETags, quoted or not": ('uri,Size,ETag\ns3://b/a,1,abc\naz://b/a,2,"""0x8D"""\n', [Named("s3://b/a", 1, "abc"), Named("az://b/a", 2, "0x8D")]),
    "no version of a file": ("uri,size,etag\n/a,1,abc\n", [Named("/a", 1)]),
    "bucket and key": ("bucket,key,storage_class\nb,x/y.dcm,GLACIER\n", [Named("s3://b/x/y.dcm", storage_class="GLACIER")]),
    "bucket and name": ("bucket,name\nb,x+y%20z\n", [Named("gs://b/x+y%20z")]),
    "container and blob": ("Container\tBlob Name\nc\tx\n", [Named("az://c/x")]),
    "a bucket with its scheme": ("bucket,key\ngs://b,x\n", [Named("gs://b/x")]),
    "quoted names, commas and lines in them": ('uri\n"gs://b/a,""1""\n2"\n', [Named('gs://b/a,"1"\n2')]),
    "a byte order mark and other ends of lines": ("\ufeffuri\r\ngs://b/a\r\n\r\n", [Named("gs://b/a")]),
    "older versions and what is deleted": (
        "bucket,key,is_latest,is_delete_marker,timeDeleted\nb,1,true,false,\nb,2,false,false,\nb,3,true,true,\nb,4,TRUE,FALSE,2020-01-01\n",
        [Named("s3://b/1")],
    ),
    "newline JSON": ('{"uri": "gs://b/a", "size": 7, "generation": 9}\n\n{"path": "/x"}\n', [Named("gs://b/a", 7, "9"), Named("/x")]),
    "newline JSON behind a byte order mark": ('\ufeff{"uri": "gs://b/a"}\r\n{"uri": "gs://b/b"}\r\n', [Named("gs://b/a"), Named("gs://b/b")]),
    "empty cells behind the last column": ("uri,size\ngs://b/a,1,,\n", [Named("gs://b/a", 1)]),
    "nothing but a header": ("uri\n", []),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_a_table_names_objects(name: str, packed: bool, tmp_path: Path) -> None:
    """By whatever columns, and as far as it tells size and version these are believed."""
    text, expected = TABLES[name]
    assert named(tmp_path, gzip.compress(text.encode()) if packed else text) == expected


def test_parquet_names_objects_too(tmp_path: Path) -> None:
    parquet(tmp_path / "p", {"bucket": ["b", "b"], "name": ["x y", None], "size": [5, 6], "generation": [77, None],
                             "unread": [[1], [2]]})  # fmt: skip
    found = entries(str(tmp_path / "p"))
    assert next(found) == Named("gs://b/x y", 5, "77")
    with pytest.raises(InputListError, match="row 2: names no object"):
        next(found)


def test_relative_paths_start_at_the_list(tmp_path: Path) -> None:
    assert named(tmp_path, "path\nsub/a.dcm\nfile:///x%20y\n") == [Named(str(tmp_path / "sub/a.dcm")), Named("/x y")]


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=30),
        min_size=1,
        max_size=20,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_survives_each_form(tmp_path: Path, names: list[str]) -> None:
    """Names hold anything; what stands in CSV, JSON and Parquet is read as it was meant."""
    uris = [f"gs://b/{name}".strip() for name in names]
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["uri"], *([uri] for uri in uris)])
    expected = [Named(uri) for uri in uris if uri != "gs://b/"]
    if len(expected) < len(uris):
        return
    assert named(tmp_path, out.getvalue()) == expected
    assert named(tmp_path, "".join(json.dumps({"uri": uri}) + "\n" for uri in uris)) == expected
    if uris:
        parquet(tmp_path / "p", {"uri": uris})
        assert list(entries(str(tmp_path / "p"))) == expected


# ---------------------------------------------------------------------------------------------------- inventories


def s3_inventory(folder: Path, kind: str = "CSV", **more: Any) -> Path:
    """An S3 Inventory as it lies below its destination, brought to this machine with its folders."""
    base = folder / "inv" / "archive" / "nightly"
    (base / "data").mkdir(parents=True, exist_ok=True)
    (base / "2026-01-01T01-00Z").mkdir(exist_ok=True)
    rows = [["archive", "a+b%2Bc/%C3%84.dcm", "12", "abc", "true", "false", "STANDARD"],
            ["archive", "old", "1", "x", "false", "false", "STANDARD"]]  # fmt: skip
    if kind == "CSV":
        for number, row in enumerate(rows):
            out = io.StringIO(newline="")
            csv.writer(out, quoting=csv.QUOTE_ALL).writerow(row)
            (base / "data" / f"{number}.csv.gz").write_bytes(gzip.compress(out.getvalue().encode()))
    else:
        parquet(
            base / "data" / "0.parquet", {"bucket": ["archive"], "key": ["a+b%2Bc"], "size": [12], "e_tag": ["abc"]}
        )
    suffix, count = ("csv.gz", 2) if kind == "CSV" else ("parquet", 1)
    manifest = base / "2026-01-01T01-00Z" / "manifest.json"
    told = {"sourceBucket": "archive", "destinationBucket": "arn:aws:s3:::inventories", "version": "2016-11-30", "fileFormat": kind,
            "fileSchema": "Bucket, Key, Size, ETag, IsLatest, IsDeleteMarker, StorageClass",
            "files": [{"key": f"inv/archive/nightly/data/{number}.{suffix}", "size": 1} for number in range(count)]}  # fmt: skip
    manifest.write_text(json.dumps(told | more, indent=2))
    return manifest


def gcs_inventory(folder: Path, header: bool = True) -> Path:
    """A Storage Insights report: two shards beside their manifest."""
    names = ["bucket", "name", "size", "timeDeleted", "storageClass", "etag", "generation"]
    rows = [["b", "a+b%2Bc d", "12", "", "NEARLINE", "CJ", "1700"], ["b", "gone", "1", "2026-01-01", "", "", "3"]]
    for number, row in enumerate(rows):
        lines = [names, row] if header else [row]
        (folder / f"r_{number}.csv").write_text("".join("|".join(it) + "\n" for it in lines))
    told = {"report_config": {"csv_options": {"delimiter": "|", "header_required": header}, "object_metadata_report_options":
            {"metadata_fields": names}}, "records_processed": 2, "report_shards_file_names": ["r_0.csv", "r_1.csv"]}  # fmt: skip
    (folder / "r_manifest.json").write_text(json.dumps(told))
    return folder / "r_manifest.json"


def test_the_inventory_of_an_s3_bucket_names_its_objects(tmp_path: Path) -> None:
    """In CSV its keys are URL-encoded, blanks as plus signs; older versions are passed over."""
    assert list(entries(str(s3_inventory(tmp_path)))) == [Named("s3://archive/a b+c/Ä.dcm", 12, "abc", "STANDARD")]


def test_keys_in_a_parquet_inventory_are_as_they_are(tmp_path: Path) -> None:
    assert list(entries(str(s3_inventory(tmp_path, "Parquet")))) == [Named("s3://archive/a+b%2Bc", 12, "abc")]


@pytest.mark.parametrize("header", [True, False])
def test_the_report_of_a_gcs_bucket_names_its_objects(tmp_path: Path, header: bool) -> None:
    """Nothing in it is encoded, and generations pin what was there; with or without names of columns."""
    assert list(entries(str(gcs_inventory(tmp_path, header)))) == [Named("gs://b/a+b%2Bc d", 12, "1700", "NEARLINE")]


# ------------------------------------------------------------------------------------------------------- mistakes


def with_gap(folder: Path) -> None:
    manifest = s3_inventory(folder)
    (manifest.parent.parent / "data" / "1.csv.gz").unlink()
    manifest.rename(folder / "list")


MISTAKES: dict[str, tuple[str | bytes | Callable[[Path], object], str]] = {
    "no such column": (f"patient,study\n{MARK},1\n", ": has no column that names objects (call one uri, or two bucket and key)"),
    "a bucket without names": (f"bucket,size\n{MARK},1\n", ": has no column that names objects"),
    "no header": (f"gs://b/{MARK}\n", ", row 1: has no names of columns (write a first line: uri)"),
    "no header, paths": (f"/data/{MARK}\n", ", row 1: has no names of columns"),
    "an empty uri": ('uri,size\ngs://b/a,1\n"",2\n', ", row 3: names no object"),
    "a bucket alone": (f"uri\ngs://{MARK}/\n", ", row 2: names a bucket and no object in it"),
    "another store": (f"uri\ngs://b/a\nhttps://x/{MARK}\n", ", row 3: is in no storage that can be used (name paths, or one of gs://"),
    "a size that is none": (f"uri,size\ngs://b/{MARK},big\n", ", row 2: its size is no whole number of bytes"),
    "an open quote": (f'uri\n"gs://b/{MARK}\n' + "x" * 200_000, ", row 3: is no row of a CSV file"),
    "an open quote in a short list": (f'uri\n"gs://b/{MARK}\ngs://b/b\ngs://b/c\n', ", row 4: is no row of a CSV file"),
    "a comma without quotes": (f"uri\ngs://b/{MARK}, x.dcm\n", ", row 2: has more values than there are columns"),
    "a NUL in a name": ('{"uri": "/a\\u0000b"}\n', ", row 1: holds what no name can"),
    "half a character": ('{"uri": "gs://b/\\ud800"}\n', ", row 1: holds what no name can"),
    "a generation that is none": (f"uri,generation\ngs://b/a,{MARK}\n", ", row 2: its generation is no number"),
    "a short row": ("size,uri\n1\n", ", row 2: names no object"),
    "not in UTF-8": (b"uri\ngs://b/\xc4\n", ", row 2: is no text in UTF-8"),
    "something binary": (b"\x7fELF\0\0", ": is no Parquet, CSV or newline JSON (name the list itself)"),
    "a zip file": (b"PK\3\4", ": is no Parquet, CSV or newline JSON"),
    "broken JSON": ('{"uri": "gs://b/a"}\n{"uri"\n', ", row 2: is no JSON"),
    "JSON of something else": (f'{{"patient": "{MARK}"}}\n', ": has no column that names objects"),
    "a JSON array": ('[{"uri": "gs://b/a"}]', ": is one JSON array, which would have to be held (write an object a line)"),
    "a JSON line that is no object": ('{"uri": "gs://b/a"}\n"gs://b/b"\n', ", row 2: is no object"),
    "ORC": (b"ORC\n", ": is ORC, which isn't read (have the inventory made as CSV or Parquet)"),
    "an inventory in ORC": (lambda it: s3_inventory(it, fileFormat="ORC").rename(it / "list"), ": is an inventory in ORC"),
    "a manifest of something else": (lambda it: s3_inventory(it, files="x").rename(it / "list"), ": is no manifest of an S3 Inventory"),
    "an inventory with a file missing": (with_gap, "1.csv.gz: can't be read (check that it exists and may be read)"),
    "Parquet cut off": (lambda it: (parquet(it / "p", {"uri": ["gs://b/a"]}), (it / "list").write_bytes((it / "p").read_bytes()[:-9])),
                        ": is a Parquet file that can't be read (make it anew)"),
    "gzip cut off": (gzip.compress(b"uri\n" + b"gs://b/a\n" * 9999)[:-9], ": is gzipped and cut off or damaged"),
    "gzip that is none": (b"\x1f\x8b" + b"x" * 99, ": is gzipped and damaged"),
    "a line without end": (b"uri\n" + b"x" * (3 << 20), ", row 2: is a line without end"),
    "nothing at all": (b"", ": has no column that names objects"),
    "no file": (lambda it: None, ": can't be read (check that it exists and may be read)"),
    "a folder": (lambda it: (it / "list").mkdir(), ": can't be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_list_that_cant_be_read_on_is_told_with_row_and_remedy(name: str, tmp_path: Path) -> None:
    """One message, with the file, the row and what to do; what stands in the row isn't quoted."""
    content, message = MISTAKES[name]
    file = tmp_path / "list"
    if callable(content):
        content(tmp_path)
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputListError) as refused:
        list(entries(str(file)))
    assert message in str(refused.value)
    assert MARK not in str(refused.value) and "\n" not in str(refused.value)


# -------------------------------------------------------------------------------------------------- what it costs


@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
def test_a_long_list_isnt_held(form: str, tmp_path: Path) -> None:
    """A list of a hundred thousand objects is passed on row by row."""
    uris = [f"gs://b/{number:09}.dcm" for number in range(100_000)]
    file = tmp_path / "list"
    if form == "parquet":
        pq.write_table(pa.table({"uri": uris}), file, row_group_size=10_000)
    else:
        line = (lambda it: it) if form == "csv" else (lambda it: json.dumps({"uri": it}))
        file.write_text("".join([*(["uri\n"] if form == "csv" else []), *(f"{line(uri)}\n" for uri in uris)]))
    tracemalloc.start()
    assert sum(1 for _ in entries(str(file))) == len(uris)
    assert tracemalloc.get_traced_memory()[1] < 6 << 20
    tracemalloc.stop()


def test_what_a_list_tells_isnt_asked_again(tmp_path: Path) -> None:
    """An object with size and version is taken at the list's word; of any other the store is asked, by whoever lists."""
    (tmp_path / "x.dcm").write_bytes(b"123")
    (tmp_path / "list").write_text(
        f"uri,size,generation\ngs://nowhere/a,12,1700\n{tmp_path}/x.dcm,3,9\n{tmp_path}/gone,3,9\n"
    )
    told, there, gone = inputs.spread_list(str(tmp_path / "list"))
    assert list(inputs.carry_out(told)) == [inputs.Listed("gs://nowhere/a", 12, "1700", "")]
    (found,) = inputs.carry_out(there)
    assert (found.uri, found.size, found.reason) == (str(tmp_path / "x.dcm"), 3, "")
    assert [it.reason for it in inputs.carry_out(gone)] == ["unreadable"]
