"""Who was who, as a person or a script asks it of the crosswalks of finished runs."""

import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from dicomveil.testing import write_demo_study
from pipelines.cli import cli
from pipelines.lookup import BANNER
from tests.corpora import BUNDLED, CORPUS, KEY
from transforms import tables
from transforms.manifests import listed_parts


def dicomveil(*arguments: object, status: int = 0, stdin: str | None = None) -> Result:
    done = CliRunner(env={"DICOMVEIL_KEY": KEY.hex()}).invoke(cli, [*map(str, arguments)], input=stdin)
    assert done.exit_code == status, done.output
    return done


def found(restricted: Path, way: str, value: str, status: int = 0) -> list[dict]:
    done = dicomveil("lookup", "--restricted", restricted, way, value, "--json", status=status)
    return json.loads(done.stdout)


def anonymized(inputs: Path, output: Path, *more: str) -> None:
    dicomveil("anonymize", "--input", inputs, "--output", output, "--key", "env:DICOMVEIL_KEY", *more, status=0)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real studies, of the corpus where there is one, de-identified together with a made-up one."""
    folder = tmp_path_factory.mktemp("looked-up")
    write_demo_study(folder / "in" / "made-up")
    shutil.copytree(BUNDLED / "test_files" / "dicomdirtests", folder / "in" / "real")
    if CORPUS:
        shutil.copytree(CORPUS / "open" / "dicompyler+dicompyler-core", folder / "in" / "corpus")
    anonymized(folder / "in", folder / "out")
    return folder


def rows(restricted: Path, table: str) -> list[dict]:
    return [
        row
        for part in listed_parts(restricted)
        if part.table == f"crosswalk/{table}"
        for row in pq.read_table(part.path, partitioning=None).to_pylist()
    ]


def test_every_patient_and_uid_is_found_both_ways(done: Path) -> None:
    """From the new value to the original, and from the original to the new value."""
    restricted = done / "out-restricted"
    for table in ("patients", "uids"):
        links = {(row["original"], row["new"]) for row in rows(restricted, table) if row["original"]}
        assert links
        for original, new in sorted(links)[:: 1 + len(links) // 20]:
            for way, value in (("--new", new), ("--original", original)):
                told = {(it["original"], it["new"]) for it in found(restricted, way, value) if it["table"] == table}
                assert (original, new) in told
                assert all(value in link for link in told)


def test_an_output_leads_to_its_source(done: Path) -> None:
    """By its name or its SOP Instance UID: the input's URI and version, and the original SOP Instance UID."""
    outputs = list((done / "out").rglob("*.dcm"))
    for output in sorted(outputs)[:: 1 + len(outputs) // 10]:
        name = str(output.relative_to(done / "out"))
        for way, value in (("--new", name), ("--new", output.stem)):
            (link,) = (it for it in found(done / "out-restricted", way, value) if it["table"] == "instances")
            assert (link["name"], link["sop_instance_uid"]) == (name, output.stem)
            status = os.stat(link["source_uri"])
            assert link["source_version"] == f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
            assert link["original_sop_instance_uid"].encode() in Path(link["source_uri"]).read_bytes()
        sources = found(done / "out-restricted", "--original", link["source_uri"])
        assert [it["name"] for it in sources] == [name]


def test_a_way_is_not_its_reverse(done: Path) -> None:
    """A new value is no original and the other way round: not found, and said by the exit status."""
    link = next(row for row in rows(done / "out-restricted", "patients") if row["original"])
    assert found(done / "out-restricted", "--original", link["new"], status=1) == []
    assert found(done / "out-restricted", "--new", link["original"], status=1) == []
    told = dicomveil("lookup", "--restricted", done / "out-restricted", "--new", "DVNOBODY", status=1)
    assert told.stdout == "" and "no finished run" in told.stderr and "DVNOBODY" not in told.stderr


def test_a_value_can_be_kept_out_of_the_shells_history(done: Path) -> None:
    """`-` reads it from standard input; the answer is the same, with the warning beside it."""
    told = dicomveil("lookup", "--restricted", done / "out-restricted", "--original", "-", stdin=" MRN5550123 \n")
    assert told.stdout.splitlines()[1].split() == ["original", "MRN5550123"]
    assert told.stderr == f"dicomveil: {BANNER}\n"
    as_json = found(done / "out-restricted", "--original", "MRN5550123")
    assert [it["table"] for it in as_json] == ["patients"]
    assert all(str(value) in told.stdout for it in as_json for value in it.values() if isinstance(value, str))


@pytest.mark.parametrize(
    "arguments", [[], ["--new", "1.2", "--original", "1.2"], ["--new", ""], ["--original", " "], ["--new", "-"]]
)
def test_a_wrong_question_is_refused(done: Path, arguments: list[str]) -> None:
    """One value, and not a blank one."""
    dicomveil("lookup", "--restricted", done / "out-restricted", *arguments, status=2, stdin="\n")


def test_only_finished_runs_answer(tmp_path: Path) -> None:
    """A second run that agrees is named beside the first; one without a manifest isn't; a lost part is an error."""
    write_demo_study(tmp_path / "in")
    restricted = tmp_path / "out-restricted"
    dicomveil("lookup", "--restricted", restricted, "--original", "MRN5550123", status=2)
    anonymized(tmp_path / "in", tmp_path / "out")
    (first,) = (restricted / "runs").iterdir()
    anonymized(tmp_path / "in", tmp_path / "out", "--reprocess", "all")
    (link,) = found(restricted, "--original", "MRN5550123")
    assert len(link["runs"]) == 2 and link["runs"] == sorted(link["runs"]) and link["runs"][0] == first.stem
    first.unlink()
    assert found(restricted, "--original", "MRN5550123") == [link | {"runs": link["runs"][1:]}]
    for part in listed_parts(restricted):
        part.path.unlink()
    told = dicomveil("lookup", "--restricted", restricted, "--original", "MRN5550123", status=2)
    assert "MRN5550123" not in told.stderr and "part-" in told.stderr


def test_what_holds_no_crosswalk_is_told_from_one_that_knows_nobody(done: Path) -> None:
    """The audit is refused; a value that is no text, or a URI, is sought as what it stands for."""
    told = dicomveil("lookup", "--restricted", done / "out-audit", "--original", "MRN5550123", status=2)
    assert "--restricted" in told.stderr
    dicomveil("lookup", "--restricted", done / "out-restricted", "--original", os.fsdecode(b"\xff\xfe"), status=1)
    part = next(it for it in listed_parts(done / "out-restricted") if it.table == "crosswalk/instances")
    source = pq.read_table(part.path, partitioning=None).to_pylist()[0]["source_uri"]
    assert found(done / "out-restricted", "--original", f"file://{source}")


def test_a_terminal_obeys_no_value(tmp_path: Path) -> None:
    """Escapes in an original value are shown, not sent."""
    row = {"original": "A\x1b[2J\nB", "issuer": "", "new": "DV1", "study_instance_uid": "2.25.1"}
    path, count = tables.write_part(str(tmp_path), "1", tables.CROSSWALK_PATIENTS, "0", [row])
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "1.json").write_text(json.dumps({"run": "1", "parts": [{"path": path, "rows": count}]}))
    told = dicomveil("lookup", "--restricted", tmp_path, "--new", "DV1").stdout
    assert "\x1b" not in told and "A\\x1b[2J\\nB" in told
    assert found(tmp_path, "--new", "DV1")[0]["original"] == row["original"]
