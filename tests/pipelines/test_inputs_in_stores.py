"""Zip files, patterns, lists and inventories in object storage: the same instances as from a folder of this machine."""

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.test_inputs import anonymized
from tests.pipelines.test_known import Site
from tests.pipelines.test_stores_end_to_end import Bucket, bucket_of
from transforms import inputs, listing, stores

NAMES = {"2024-01/a/1.dcm": "1.2.11", "2024-01/a/2 +%2B.dcm": "1.2.12", "2024-02/b/3.dcm": "1.2.13"}


@pytest.fixture(params=["fake_gcs", "moto"])
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    with bucket_of(request.getfixturevalue(request.param)) as found:
        yield found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Three instances in a folder, and what comes out of them."""
    folder = tmp_path_factory.mktemp("site")
    site = Site(folder)
    for name, uid in NAMES.items():
        (site.input / name).parent.mkdir(parents=True, exist_ok=True)
        site.put(name, uid=uid, patient="P1", refers="1.2.11", text="x" * 5000)
    anonymized(folder, site.input)
    return site


def expected(site: Site) -> dict[str, bytes]:
    return {str(path.relative_to(site.output)): path.read_bytes() for path in site.output.rglob("*.dcm")}


def given(bucket: Bucket, *words: str) -> list[str]:
    """The command with another input."""
    found = bucket.words()
    return [found[0], *words, *found[3:]]


def come_out(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, bytes]:
    command = given(bucket, *words)
    monkeypatch.setattr(bucket, "words", lambda *options, **more: command)
    bucket.run()
    return bucket.outputs()


def test_a_zip_file_in_a_store(bucket: Bucket, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each member is an instance, opened in the version of the zip file that was listed."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in NAMES:
            archive.write(site.input / name, name)
    bucket.put("all.zip", out.getvalue())
    assert come_out(bucket, monkeypatch, "--input", f"{bucket.input}/archive") == expected(site)


def test_a_pattern_in_a_store(bucket: Bucket, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only prefixes are listed in which something can match."""
    bucket.copy(site.input)
    bucket.put("2023-01/a/bad.dcm", b"no instance")
    bucket.put("2024-02/note.txt", b"no instance")
    pattern = f"{bucket.input}/archive/2024-*/**/*.dcm"
    roots = {task[0] for task in inputs.spread(pattern) if isinstance(task, tuple)}
    assert roots == {f"{bucket.input}/archive/2024-01/", f"{bucket.input}/archive/2024-02/"}
    assert {found.uri for found in inputs.listed(pattern)} == {f"{bucket.input}/archive/{name}" for name in NAMES}
    assert come_out(bucket, monkeypatch, "--input", pattern) == expected(site)
    done = bucket_refusal(bucket, f"{bucket.input}/archive/2025-*/**")
    assert "matches no file" in done


def bucket_refusal(bucket: Bucket, pattern: str) -> str:
    from click.testing import CliRunner

    from pipelines.cli import cli

    done = CliRunner().invoke(cli, given(bucket, "--input", pattern))
    assert done.exit_code == 2, done.output
    return done.output


def test_a_list_in_a_store(bucket: Bucket, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list pins the versions that it tells of; of the others the store is asked."""
    bucket.copy(site.input)
    found = {it.uri: it for it in listing.list_objects(f"{bucket.input}/archive")}
    told, asked, last = sorted(found)
    column = "generation" if bucket.input.startswith("gs") else "etag"
    rows = [{"uri": told, "size": found[told].size, column: found[told].version}, {"uri": asked}]
    bucket.put("list.json", "".join(json.dumps(row) + "\n" for row in rows).encode())
    bucket.put("more.csv", gzip.compress(f"uri\n{last}\n".encode()))
    tasks = list(inputs.spread_list(f"{bucket.input}/archive/list.json"))
    assert tasks[0][:3] == found[told][:3] and not isinstance(tasks[1], listing.Listed)
    lists = [f"{bucket.input}/archive/list.json", f"{bucket.input}/archive/more.csv"]
    assert come_out(bucket, monkeypatch, "--input-list", *lists) == expected(site)


def test_the_inventory_of_a_bucket(bucket: Bucket, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An inventory beside what it lists, as its store writes it, stands for the listing."""
    bucket.copy(site.input)
    found = list(listing.list_objects(f"{bucket.input}/archive"))
    name = bucket.input.partition("://")[2]
    out = io.StringIO(newline="")
    if bucket.input.startswith("s3"):
        from urllib.parse import quote_plus

        rows = [
            [name, quote_plus(it.uri.removeprefix(f"{bucket.input}/"), safe="/"), it.size, it.version] for it in found
        ]
        csv.writer(out, quoting=csv.QUOTE_ALL).writerows(rows)
        bucket.put("inv/data/1.csv.gz", gzip.compress(out.getvalue().encode()))
        told = {"destinationBucket": f"arn:aws:s3:::{name}", "fileFormat": "CSV", "fileSchema": "Bucket, Key, Size, ETag",
                "files": [{"key": "archive/inv/data/1.csv.gz"}]}  # fmt: skip
    else:
        csv.writer(out).writerows([["bucket", "name", "size", "generation"],
                                   *([name, it.uri.removeprefix(f"{bucket.input}/"), it.size, it.version] for it in found)])  # fmt: skip
        bucket.put("inv/r_0.csv", out.getvalue().encode())
        told = {"report_config": {}, "report_shards_file_names": ["r_0.csv"]}
    bucket.put("inv/manifest.json", json.dumps(told).encode())
    assert come_out(bucket, monkeypatch, "--input-list", f"{bucket.input}/archive/inv/manifest.json") == expected(site)


def test_what_changed_since_its_inventory_is_set_aside(bucket: Bucket, site: Site, tmp_path: Path) -> None:
    """A version that isn't there any more is never replaced by another."""
    bucket.copy(site.input)
    column = "generation" if bucket.input.startswith("gs") else "etag"
    file = tmp_path / "list.csv"
    file.write_text(f"uri,size,{column}\n{bucket.input}/archive/2024-02/b/3.dcm,9,12345678\n")
    (listed,) = (found for task in inputs.spread_list(str(file)) for found in inputs.carry_out(task))
    from dicomveil.errors import InvalidInstance

    with pytest.raises(InvalidInstance, match="changed-during-run"):
        with stores.open_version(listed.uri, listed.version, listed.size) as source:
            source.read(0, 9)
