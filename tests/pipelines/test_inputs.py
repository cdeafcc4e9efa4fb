"""What the user names as input, through the commands: zip files, patterns, filters, and the real studies in all forms."""

import json
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pydicom
import pytest
from click.testing import CliRunner, Result

from dicomveil.testing import PLANTED, write_demo_study
from pipelines.cli import cli
from tests.corpora import CORPUS, KEY
from tests.pipelines.test_anonymize import contents, table


def run(*arguments: object, status: int = 0) -> Result:
    """A command as its user gives it, with a key."""
    done = CliRunner().invoke(cli, list(map(str, arguments)), env={"DICOMVEIL_KEY": KEY.hex()})
    assert done.exit_code == status, done.output
    assert "Traceback" not in done.output
    return done


def anonymized(folder: Path, *inputs: object, status: int = 0, options: tuple[object, ...] = ()) -> dict[str, str]:
    """What comes out of inputs, by name, with its digest."""
    more = ["--output", folder / "out", "--key", "env:DICOMVEIL_KEY", *options]
    run("anonymize", "--input", *inputs, *more, status=status)
    return contents(folder / "out")


def reasons(folder: Path) -> dict[str, int]:
    return dict(Counter(row["reason"] for row in table(folder / "out-audit", "instances")))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "in"
    folder.mkdir()
    write_demo_study(folder)
    return folder


@pytest.fixture(scope="module")
def expected(study: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What comes out of the plain files."""
    return anonymized(tmp_path_factory.mktemp("plain"), study)


def archive(file: Path, study: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", method) as made:
        for path in sorted(study.rglob("*")):
            made.write(path, path.relative_to(study))
    return file


# ------------------------------------------------------------------------------------------------------- zip files


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_a_zip_file_of_a_study_is_that_study(
    study: Path, expected: dict[str, str], tmp_path: Path, method: int
) -> None:
    """Members come out byte for byte as the files would, and nothing says which archive they came in."""
    made = archive(tmp_path / "in" / "Zubikax.ZIP", study, method)
    assert anonymized(tmp_path, made.parent) == expected
    shared = [
        path.read_bytes() for root in ("out", "out-audit") for path in (tmp_path / root).rglob("*") if path.is_file()
    ]
    assert not any(mark.encode() in data for data in shared for mark in (*PLANTED, "Zubikax"))
    crosswalk = table(tmp_path / "out-restricted", "crosswalk/instances")
    assert {row["source_uri"].rpartition("!/")[0] for row in crosswalk} == {str(made)}


def test_a_zip_file_beside_its_files_counts_once(study: Path, expected: dict[str, str], tmp_path: Path) -> None:
    """The same instance in a zip file and beside it is one instance."""
    archive(tmp_path / "more" / "a.zip", study)
    assert anonymized(tmp_path, study, tmp_path / "more") == expected
    assert reasons(tmp_path)["duplicate"] == len(expected)


def test_what_no_zip_file_may_do_is_told(study: Path, expected: dict[str, str], tmp_path: Path) -> None:
    """Nested, empty, damaged and falsely named ones are set aside by reason, and the rest comes out."""
    inner = archive(tmp_path / "inner.zip", study)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as outer:
        outer.write(inner, "inner.zip")
        outer.writestr("../../../escaped.dcm", b"no instance")
        outer.writestr("empty.dcm", b"")
    folder = tmp_path / "in"
    archive(folder / "good.zip", study)
    shutil.move(tmp_path / "in.zip", folder / "outer.zip")
    with zipfile.ZipFile(folder / "none.zip", "w"):
        pass
    (folder / "cut.zip").write_bytes(inner.read_bytes()[:-9])
    (folder / "report.docx").write_bytes(inner.read_bytes())
    shutil.copy(next(study.glob("*.dcm")), folder / "instance.zip")
    assert anonymized(tmp_path, folder, status=3) == expected
    found = reasons(tmp_path)
    assert found.pop("") == len(expected)
    assert found == {
        "zip-not-opened": 2, "empty-zip": 1, "zip-damaged": 1, "not-dicom": 1, "empty-file": 1, "duplicate": 1
    }  # fmt: skip
    assert not list(tmp_path.rglob("escaped*"))


@pytest.mark.parametrize("form", ["zip", "folder of zips", "pattern", "list"])
def test_a_second_run_opens_nothing_again(study: Path, expected: dict[str, str], tmp_path: Path, form: str) -> None:
    """Members and whatever a pattern or list means are known by the ledger as files are; a changed zip file isn't."""
    made = archive(tmp_path / "in" / "a.zip", study)
    (tmp_path / "list").write_text(f"path\n{made}\n")
    given = {"zip": ["--input", made], "folder of zips": ["--input", made.parent],
             "pattern": ["--input", f"{tmp_path}/i?/*"], "list": ["--input-list", tmp_path / "list"]}[form]  # fmt: skip
    more = "--output", tmp_path / "out", "--key", "env:DICOMVEIL_KEY"
    run("anonymize", *given, *more)
    run("anonymize", *given, *more)
    assert outcomes(tmp_path) == {"unchanged": len(expected)}
    archive(made, study, zipfile.ZIP_STORED)
    run("anonymize", *given, *more)
    assert outcomes(tmp_path) == {"deidentified": len(expected)} and contents(tmp_path / "out") == expected


def outcomes(folder: Path) -> dict[str, int]:
    return dict(json.loads((folder / "out-audit" / "summary.json").read_bytes())["Outcomes"])


def test_a_zip_file_is_never_deleted_for_its_members(study: Path, tmp_path: Path) -> None:
    """KeepSource: false leaves zip files: a member can't be deleted, and the others may not have come out."""
    made = archive(tmp_path / "in" / "a.zip", study)
    request = tmp_path / "r.yaml"
    request.write_text("KeepSource: false")
    done = run("anonymize", "--input", made, "--output", tmp_path / "out", "--key", "env:DICOMVEIL_KEY",
               "--request", request, status=3)  # fmt: skip
    assert made.exists() and "no-plain-file" in done.output


# -------------------------------------------------------------------------------------------------------- patterns


@pytest.mark.parametrize("pattern", ["*.dcm", "**", "**/*.dcm", "[!.]*", "?*.dcm"])
def test_a_pattern_is_the_files_that_it_means(
    study: Path, expected: dict[str, str], tmp_path: Path, pattern: str
) -> None:
    (tmp_path / "x" / "[in]").mkdir(parents=True)
    shutil.copytree(study, tmp_path / "x" / "[in]" / "2024-03")
    shutil.copytree(study, tmp_path / "x" / "[in]" / "2025-03")
    (tmp_path / "x" / "[in]" / "2025-03" / "bad.dcm").write_bytes(b"no instance")
    assert anonymized(tmp_path, tmp_path / "x" / "[[]in]" / "2024-*" / pattern) == expected
    assert set(reasons(tmp_path)) == {""}


def test_a_folder_of_such_a_name_is_no_pattern(study: Path, expected: dict[str, str], tmp_path: Path) -> None:
    """What exists as it is written is meant."""
    shutil.copytree(study, tmp_path / "in[*]?")
    assert anonymized(tmp_path, tmp_path / "in[*]?") == expected


def test_a_pattern_for_nothing_is_a_slip(study: Path, tmp_path: Path) -> None:
    """A pattern that meets folders only, or nothing, is told of at once."""
    for pattern in (study.parent / "i*", study / "*.dcn"):
        done = run("anonymize", "--input", pattern, "--output", tmp_path / "out", status=2)
        assert f"--input {pattern}: matches no file; end it" in done.output.replace("\n", "")
    assert anonymized(tmp_path, f"{study.parent}/i*/")


def test_an_output_may_lie_beside_what_a_pattern_means(study: Path, expected: dict[str, str], tmp_path: Path) -> None:
    """But not where a pattern could match."""
    shutil.copytree(study, tmp_path / "2024-03")
    assert anonymized(tmp_path, tmp_path / "20*" / "*.dcm") == expected
    for pattern in ("**", "o*/*", "*/"):
        done = run("anonymize", "--input", f"{tmp_path}/{pattern}", "--output", tmp_path / "out", status=2)
        assert "--output lies inside --input" in done.output


# ----------------------------------------------------------------------------------------------------------- lists


def test_a_list_names_files_and_zip_files(study: Path, expected: dict[str, str], tmp_path: Path) -> None:
    """A table of paths, some of them of zip files, is what they are; one that isn't there is set aside."""
    made = archive(tmp_path / "a.zip", study)
    files = sorted(study.glob("*.dcm"))
    rows = ["path", *map(str, files[:3]), str(made), str(tmp_path / "Zubikax.dcm")]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    more = "--output", tmp_path / "out", "--key", "env:DICOMVEIL_KEY"
    run("anonymize", "--input-list", tmp_path / "list.csv", *more, status=3)
    assert contents(tmp_path / "out") == expected
    assert reasons(tmp_path) == {"": len(expected), "duplicate": 3, "unreadable": 1}
    (tmp_path / "list.csv").write_text("\n".join(["path", *map(str, files[3:])]))
    run("anonymize", "--input-list", tmp_path / "list.csv", "--input", files[0], *more)
    assert contents(tmp_path / "out") == expected


def test_mistakes_of_a_list_are_told_before_anything_begins(study: Path, tmp_path: Path) -> None:
    (tmp_path / "one").write_text(f"uri\n{study}/a.dcm\nftp://Zubikax\n")
    (tmp_path / "two").write_text(f"uri\n{study}/a.dcm\n{tmp_path}/out/Zubikax.dcm\n")
    more = "--output", tmp_path / "out", "--input-list", tmp_path / "one", tmp_path / "two"
    done = run("anonymize", *more, status=2)
    assert f"--input-list {tmp_path}/one, row 3: is in no storage that can be used" in done.output
    assert f"--input-list {tmp_path}/two: its object 2 lies inside --output; leave it out" in done.output
    assert "Zubikax" not in done.output and not (tmp_path / "out").exists()
    assert "--input: say what to read" in run("anonymize", "--output", tmp_path / "out", status=2).output


# --------------------------------------------------------------------------------------------------------- filters


def filtered(folder: Path, asked: Any, *inputs: object, status: int = 0) -> dict[str, str]:
    file = folder / "filter.yaml"
    file.write_text(asked if isinstance(asked, str) else json.dumps(asked))
    return anonymized(folder, *inputs, options=("--filter", file), status=status)


def test_a_filter_takes_what_it_names(study: Path, expected: dict[str, str], tmp_path: Path) -> None:
    """What isn't taken is filtered, and what is comes out under the names that it would have anyway."""
    taken = filtered(tmp_path, {"Modality": ["SR"]}, study)
    assert 0 < len(taken) < len(expected) and taken.keys() <= expected.keys()
    assert {pydicom.dcmread(tmp_path / "out" / name).Modality for name in taken} == {"SR"}
    assert reasons(tmp_path) == {"": len(taken), "not-taken": len(expected) - len(taken)}


def test_what_a_filter_names_is_a_secret(study: Path, expected: dict[str, str], tmp_path: Path) -> None:
    """Identifiers that a filter names are in no output, audit or message, and gone from the restricted zone at the end."""
    uids = {pydicom.dcmread(path).StudyInstanceUID for path in study.glob("*.dcm")}
    (tmp_path / "uids.txt").write_text("\n".join([*uids, *(f"1.2.{number}" for number in range(5000))]))
    asked = "any: [{StudyInstanceUID: {file: uids.txt}}, {AccessionNumber: [Zubikax]}]"
    assert filtered(tmp_path, asked, study) == expected
    for root in ("out", "out-audit", "out-restricted"):
        for path in (tmp_path / root).rglob("*"):
            assert not path.is_file() or b"Zubikax" not in path.read_bytes() or root == "out-restricted"
    assert not list((tmp_path / "out-restricted").rglob("filter.json"))


def test_mistakes_of_a_filter_are_told_with_the_others(study: Path, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("Modalty: CT\nStudyDate: soon")
    done = run("anonymize", "--input", study, "--output", study / "out", "--filter", tmp_path / "f.yaml", status=2)
    for told in ("Modalty: is no member", "StudyDate: is no date", "lies inside"):
        assert told in done.output
    done = run("anonymize", "--input", study, "--output", tmp_path / "out", "--filter", tmp_path / "no", status=2)
    assert "check --filter" in done.output


def test_another_filter_is_another_run(
    study: Path, expected: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A run that is planned for one filter isn't gone on with under another."""
    (tmp_path / "one").write_text("Modality: SR")
    (tmp_path / "two").write_text("not: {Modality: SR}")
    more = "--input", study, "--output", tmp_path / "out", "--key", "env:DICOMVEIL_KEY"
    run("anonymize", *more, "--filter", tmp_path / "one", "--plan-only")
    run("anonymize", *more, "--filter", tmp_path / "one", "--plan-only")
    assert "Going on with run" in capfd.readouterr().err
    run("anonymize", *more, "--filter", tmp_path / "two")
    assert "Going on with run" not in capfd.readouterr().err
    done = contents(tmp_path / "out")
    assert 0 < len(done) < len(expected)


def test_what_is_left_is_looked_at_again_under_another_filter_alone(study: Path, tmp_path: Path) -> None:
    """A run with the same filter opens nothing again; with another one, what that may take."""
    one = filtered(tmp_path, {"Modality": "SR"}, study)
    assert filtered(tmp_path, {"Modality": "SR"}, study) == one
    summary = json.loads((tmp_path / "out-audit" / "summary.json").read_bytes())
    assert summary["Outcomes"]["unchanged"] == len(list(study.glob("*.dcm")))
    both = filtered(tmp_path, {"Modality": ["SR", "CT"]}, study)
    assert one.keys() < both.keys() and all(both[name] == one[name] for name in one)
    summary = json.loads((tmp_path / "out-audit" / "summary.json").read_bytes())
    assert summary["Outcomes"]["unchanged"] == len(one)


def test_a_filter_may_stand_in_a_job(study: Path, expected: dict[str, str], tmp_path: Path) -> None:
    """As a mapping, or as the name of a file beside the job; mistakes in it are told as the job's own."""
    job = {"command": "anonymize", "input": str(study), "key": "env:DICOMVEIL_KEY",
           "request": {"DicomVersion": "2026d"}}  # fmt: skip
    (tmp_path / "f.yaml").write_text("Modality: [SR]")
    for output, asked in {
        "inline": {"Modality": ["SR"], "StudyDate": {"to": "2199-01-01"}},
        "beside": "f.yaml",
    }.items():
        file = tmp_path / f"{output}.yaml"
        file.write_text(json.dumps(job | {"filter": asked, "output": output}))
        run("run", file)
    assert contents(tmp_path / "inline") == contents(tmp_path / "beside")
    assert 0 < len(contents(tmp_path / "inline")) < len(expected)
    file.write_text(json.dumps(job | {"filter": {"Modalty": ["SR"], "StudyDate": "soon"}, "output": "x"}, indent=1))
    done = run("run", file, status=2)
    assert ".yaml:9 filter Modalty: is no member of a filter (did you mean Modality?)" in done.output
    assert "filter StudyDate: is no date and no range" in done.output


# ---------------------------------------------------------------------------------------------------- real studies


@pytest.mark.skipif(not CORPUS, reason="needs DICOMVEIL_CORPUS")
def test_real_studies_come_out_alike_from_folder_zip_and_pattern(tmp_path: Path) -> None:
    """Thirty files as scanners wrote them, in each form of input."""
    files = sorted((path for path in (CORPUS / "open").rglob("*") if path.is_file()), key=lambda it: it.stat().st_size)
    folder = tmp_path / "in"
    for path in files[:: max(1, len(files) // 30)]:
        if path.stat().st_size < 8 << 20:
            target = folder / path.relative_to(CORPUS / "open")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    made = archive(tmp_path / "zip" / "a.zip", folder)
    results = []
    for name, given in {"plain": folder, "zipped": made, "pattern": folder / "**"}.items():
        (tmp_path / name).mkdir()
        status = run(
            "anonymize", "--input", given, "--output", tmp_path / name / "out", "--key", "env:DICOMVEIL_KEY", status=3
        )
        assert status.exit_code == 3
        results.append((contents(tmp_path / name / "out"), reasons(tmp_path / name)))
    assert results[0] == results[1] == results[2] and len(results[0][0]) > 5
