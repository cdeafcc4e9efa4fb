"""The main job as its user runs it: the command line on a folder, what it writes, and what it refuses."""

import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import duckdb
import pydicom
import pytest

from dicomveil.errors import REASONS
from dicomveil.orthanc_ids import resource_id
from dicomveil.testing import EXPLICIT, PLANTED, Syntax, minimal, part10, write_demo_study
from tests.corpora import BUNDLED, KEY
from transforms.manifests import parts_of, read_slice

KEYED = {"DICOMVEIL_KEY": KEY.hex()}
E = Syntax(EXPLICIT)


def run(*arguments: object, status: int = 0, key: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, with a key in the environment; its exit status is part of what is expected."""
    command = [
        sys.executable,
        "-m",
        "pipelines",
        *map(str, arguments),
        *(["--key", "env:DICOMVEIL_KEY"] if key else []),
    ]
    done = subprocess.run(command, env=os.environ | KEYED | environment, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, by its name there, with the digest of its bytes."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def table(folder: Path, name: str) -> list[dict]:
    """A table's rows, of the parts that finished runs list."""
    rows: list[dict] = []
    for manifest in sorted((folder / "runs").glob("*.json")):
        content = json.loads(manifest.read_bytes())
        slices = [part.rows for part in parts_of(content, folder, name)]
        read = [row for slice_ in slices for batch in read_slice(slice_) for row in batch.to_pylist()]
        assert len(read) == sum(part["rows"] for part in content["parts"] if part["path"].startswith(f"{name}/"))
        rows += read
    return rows


def instance(uid: str, **values: str) -> bytes:
    """A small instance; `values` replace Study (which gets a series of its own), Patient ID or the pixels."""
    more = [(0x00080018, E.element(0x00080018, "UI", uid))]
    if "study" in values:
        more.append((0x0020000E, E.element(0x0020000E, "UI", f"{values['study']}.1")))
    for keyword, value in values.items():
        tag, vr = {"study": (0x0020000D, "UI"), "patient": (0x00100020, "LO"), "text": (0x00204000, "LT")}[keyword]
        more.append((tag, E.element(tag, vr, value)))
    return part10(minimal(E, *more))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up study, pydicom's real ones, and files that are none."""
    folder = tmp_path_factory.mktemp("input")
    write_demo_study(folder / "made-up")
    shutil.copytree(BUNDLED / "test_files" / "dicomdirtests", folder / "real")
    (folder / "letter-Zubikax.txt").write_text("about Zubikax")
    (folder / "empty").touch()
    return folder


@pytest.fixture(scope="module")
def done(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the study was de-identified: out, out-audit and out-restricted."""
    folder = tmp_path_factory.mktemp("done")
    run("anonymize", "--input", study, "--output", folder / "out")
    return folder


def test_every_input_has_exactly_one_outcome(study: Path, done: Path) -> None:
    """As many outcomes as files, each with its own token, and a reason wherever there is no output."""
    rows = table(done / "out-audit", "instances")
    assert len(rows) == len({row["source_token"] for row in rows}) == sum(p.is_file() for p in study.rglob("*"))
    assert all(row["outcome"] == "deidentified" or row["reason"] in REASONS for row in rows)
    summary = json.loads((done / "out-audit" / "summary.json").read_bytes())
    counted = Counter(f"{row['outcome']} {row['reason']}".strip() for row in rows)
    assert summary["Outcomes"] == counted
    assert summary["InstancesCount"] == counted["deidentified"]


def test_the_output_holds_instances_only(done: Path) -> None:
    """Each output stands at its new patient, study, series and instance, as the audit says, byte for byte."""
    rows = {row["name"]: row for row in table(done / "out-audit", "instances") if row["name"]}
    found = contents(done / "out")
    assert found == {name: row["sha256"] for name, row in rows.items()}
    for name, row in rows.items():
        ds = pydicom.dcmread(done / "out" / name, stop_before_pixels=True)
        assert name == f"{ds.PatientID}/{ds.StudyInstanceUID}/{ds.SeriesInstanceUID}/{ds.SOPInstanceUID}.dcm"
        assert row["bytes"] == (done / "out" / name).stat().st_size
        assert row["changes"] and row["removed"] == sum(change["action"] == "X" for change in row["changes"])


def test_references_lead_where_they_led(done: Path) -> None:
    """The RTSTRUCT names the new study, series, images and frame of reference; the report names the images."""
    found = [pydicom.dcmread(path) for path in (done / "out").rglob("*.dcm")]
    structures = next(ds for ds in found if ds.Modality == "RTSTRUCT" and ds.get("Manufacturer") == "Imaginary")
    images = [ds for ds in found if ds.StudyInstanceUID == structures.StudyInstanceUID and ds.Modality == "CT"]
    frame = structures.ReferencedFrameOfReferenceSequence[0]
    assert {ds.FrameOfReferenceUID for ds in images} == {frame.FrameOfReferenceUID}
    study = frame.RTReferencedStudySequence[0]
    assert study.ReferencedSOPInstanceUID == structures.StudyInstanceUID
    series = study.RTReferencedSeriesSequence[0]
    axial = {ds.SOPInstanceUID for ds in images if ds.SeriesInstanceUID == series.SeriesInstanceUID}
    assert {item.ReferencedSOPInstanceUID for item in series.ContourImageSequence} == axial
    localizer = next(ds for ds in images if ds.SeriesInstanceUID != series.SeriesInstanceUID)
    enhanced = next(ds for ds in found if ds.StudyInstanceUID == structures.StudyInstanceUID and ds.Modality == "MR")
    for item in enhanced.PerFrameFunctionalGroupsSequence:
        assert item.ReferencedImageSequence[0].ReferencedSOPInstanceUID == localizer.SOPInstanceUID


def test_nothing_original_is_shared(study: Path, done: Path) -> None:
    """No planted value, file name or original UID stands in output or audit, or in what the command prints."""
    shared = b"".join(p.read_bytes() for root in ("out", "out-audit") for p in (done / root).rglob("*") if p.is_file())
    shared += "".join(str(row) for row in table(done / "out-audit", "instances")).encode()
    for value in (*PLANTED, "letter-Zubikax", "98892001", str(study)):
        assert value.encode() not in shared


def test_the_restricted_zone_is_closed(done: Path) -> None:
    """Only their owner may enter restricted folders or read restricted files, whatever the umask."""
    for path in [done / "out-restricted", *(done / "out-restricted").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_the_crosswalk_leads_back(done: Path) -> None:
    """Every output is found in the crosswalk with its source, and every UID that was mapped with its original."""
    restricted = done / "out-restricted"
    instances = {row["name"]: row for row in table(restricted, "crosswalk/instances")}
    assert instances.keys() == contents(done / "out").keys()
    uids = {row["new"]: row["original"] for row in table(restricted, "crosswalk/uids")}
    for name, row in instances.items():
        before = pydicom.dcmread(row["source_uri"], stop_before_pixels=True)
        after = pydicom.dcmread(done / "out" / name, stop_before_pixels=True)
        assert uids[after.SOPInstanceUID] == before.SOPInstanceUID == row["original_sop_instance_uid"]
        assert uids[after.StudyInstanceUID] == before.StudyInstanceUID
    patients = {row["new"]: row["original"] for row in table(restricted, "crosswalk/patients")}
    assert "MRN5550123" in patients.values()


def test_two_workers_and_another_order_give_the_same_bytes(study: Path, done: Path, tmp_path: Path) -> None:
    """The same key gives byte-identical outputs, however many workers and in whatever order the inputs are named."""
    parts = sorted((study).iterdir(), reverse=True)
    run("anonymize", "--input", *parts, study, "--output", tmp_path / "out", "--workers", 2)
    assert contents(tmp_path / "out") == contents(done / "out")


def test_a_second_run_gives_the_same(study: Path, done: Path) -> None:
    """A run into the same output under the same key changes nothing there, also where it processes everything again."""
    before = contents(done / "out")
    run("anonymize", "--input", study, "--output", done / "out")
    run("anonymize", "--input", study, "--output", done / "out", "--reprocess", "all")
    assert contents(done / "out") == before
    assert len(list((done / "out-audit" / "runs").glob("*.json"))) == 3


def test_another_key_or_request_is_refused(study: Path, done: Path, tmp_path: Path) -> None:
    """An output holds one key and one request; to mix them must be said."""
    said = run("anonymize", "--input", study, "--output", done / "out", status=2, DICOMVEIL_KEY=KEY[::-1].hex())
    assert "another key" in said.stderr
    request = tmp_path / "request.yaml"
    request.write_text("Supplement: false\n")
    said = run("anonymize", "--input", study, "--output", done / "out", "--request", request, status=2)
    assert "another request and edition" in said.stderr
    elsewhere = ["--audit", tmp_path / "audit", "--restricted", tmp_path / "restricted"]
    said = run("anonymize", "--input", study, "--output", done / "out", *elsewhere, status=2)
    assert "no run in --audit accounts for" in said.stderr
    assert contents(done / "out")


def test_duplicates_and_conflicts_are_settled_by_content(tmp_path: Path) -> None:
    """Equal bytes count once; different bytes under one SOP Instance UID are all set aside, or told apart on demand."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in {
        "a": instance("1.2.3.1"), "b": instance("1.2.3.1"), "c": instance("1.2.3.2", text="one"),
        "d": instance("1.2.3.2", text="two"), "e": instance("1.2.3.2", text="two"), "f": instance("1.2.3.3"),
    }.items():  # fmt: skip
        (folder / name).write_bytes(content)
    run("anonymize", "--input", folder, "--output", tmp_path / "out", status=3)
    rows = Counter((row["outcome"], row["reason"]) for row in table(tmp_path / "out-audit", "instances"))
    assert rows == {("deidentified", ""): 2, ("filtered", "duplicate"): 2, ("quarantined", "sop-uid-conflict"): 2}
    request = tmp_path / "request.yaml"
    request.write_text("Conflicts: distinct\n")
    run("anonymize", "--input", folder, "--output", tmp_path / "distinct", "--request", request)
    rows = Counter((row["outcome"], row["reason"]) for row in table(tmp_path / "distinct-audit", "instances"))
    assert rows == {("deidentified", ""): 4, ("filtered", "duplicate"): 2}
    assert len(contents(tmp_path / "distinct")) == 4


def test_patients_are_the_studys(tmp_path: Path) -> None:
    """A study shares one pseudonym; blanks are never a key, and two Patient IDs in one study set it aside."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in {
        "known": instance("1.2.3.1", study="1.2.9.1", patient="MRN1"),
        "without": instance("1.2.3.2", study="1.2.9.1", patient=" "),
        "blank": instance("1.2.3.3", study="1.2.9.2", patient="UNKNOWN"),
        "also blank": instance("1.2.3.4", study="1.2.9.3", patient=""),
        "one": instance("1.2.3.5", study="1.2.9.4", patient="MRN2"),
        "other": instance("1.2.3.6", study="1.2.9.4", patient="MRN3"),
    }.items():
        (folder / name).write_bytes(content)
    run("anonymize", "--input", folder, "--output", tmp_path / "out", status=3)
    names = {
        Path(row["source_uri"]).name: row["name"].split("/")[0]
        for row in table(tmp_path / "out-restricted", "crosswalk/instances")
    }
    assert names["known"] == names["without"]
    assert len({names["known"], names["blank"], names["also blank"]}) == 3
    rows = table(tmp_path / "out-restricted", "quarantine")
    assert {(Path(row["source_uri"]).name, row["reason"]) for row in rows} == {
        ("one", "patient-conflict"),
        ("other", "patient-conflict"),
    }
    for path in (tmp_path / "out").rglob("*.dcm"):
        assert pydicom.dcmread(path).PatientID == path.relative_to(tmp_path / "out").parts[0]


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    """A FIFO is never opened, a broken link and an unreadable file are quarantined, and none of them stops the run."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good").write_bytes(instance("1.2.3.1"))
    os.mkfifo(folder / "fifo")
    (folder / "broken").symlink_to(folder / "nowhere")
    (folder / "link").symlink_to(folder / "good")
    (folder / "round").symlink_to(folder)
    os.link(folder / "good", folder / os.fsdecode(b"not-utf8-\xff"))
    run("anonymize", "--input", folder, "--output", tmp_path / "out", status=3)
    rows = {Path(row["source_uri"]).name: row["reason"] for row in table(tmp_path / "out-restricted", "quarantine")}
    assert rows.pop("fifo") == "not-a-file" and rows.pop("nowhere") == "unreadable"
    assert set(rows.values()) == {"duplicate"} and len(rows) == 1


def test_no_key_is_a_key_of_the_run(tmp_path: Path) -> None:
    """Without a key the result can't be repeated, the summary says so, and the run's own key is gone at its end."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_bytes(instance("1.2.3.1"))
    said = run("anonymize", "--input", tmp_path / "in", "--output", tmp_path / "out", key=False)
    assert "can't be repeated" in said.stdout
    assert not list((tmp_path / "out-restricted").rglob("key"))
    said = run("anonymize", "--input", tmp_path / "in", "--output", tmp_path / "out", key=False, status=2)
    assert "another key" in said.stderr


def test_the_key_is_written_nowhere(done: Path) -> None:
    """The key stands in no file of a run, in no form."""
    for path in done.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert KEY not in content and KEY.hex().encode() not in content


@pytest.mark.long
def test_a_killed_run_goes_on_from_its_plan(tmp_path: Path) -> None:
    """A run that was killed is found again, scans nothing twice, and ends as an undisturbed one does."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:04}").write_bytes(instance(f"1.2.3.{number}", study=f"1.2.9.{number % 40}"))
    run("anonymize", "--input", folder, "--output", tmp_path / "calm")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pipelines", "anonymize", "--input", str(folder), "--output", str(out)]
    process = subprocess.Popen(
        [*command, "--key", "env:DICOMVEIL_KEY", "--workers", "2"], env=os.environ | KEYED,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    restricted = tmp_path / "out-restricted"
    while process.poll() is None and not list(restricted.glob("run=*/verdict.json")):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    said = run("anonymize", "--input", folder, "--output", out)
    assert "Going on with run" in said.stderr and "Planning" not in said.stderr
    assert contents(out) == contents(tmp_path / "calm")
    assert not list(out.glob(".run=*")) and not list(restricted.glob("run=*"))


REFUSED = {
    "no such folder": (["--input", "{in}/nowhere", "--output", "{out}"], "there is no such file or folder"),
    "nothing": (["--input", "", "--output", "{out}"], "--input: is empty"),
    "output inside input": (["--input", "{in}", "--output", "{in}/out"], "lies inside"),
    "input inside output": (["--input", "{in}/sub", "--output", "{in}"], "lies inside"),
    "audit inside output": (
        ["--input", "{in}", "--output", "{out}", "--audit", "{out}/audit"],
        "--audit lies inside --output",
    ),
    "another store": (["--input", "hdfs://host/x", "--output", "{out}"], "no such storage can be used"),
    "unknown option": (["--input", "{in}", "--output", "{out}", "--worker", "2"], "did you mean --workers?"),
    "another runner": (["--input", "{in}", "--output", "{out}", "--runner=TwisterRunner"], "--runner: can't be used"),
    "no cluster": (
        ["--input", "{in}", "--output", "{out}", "--runner=FlinkRunner", "--flink_master=localhost:1"],
        "no JobManager of Flink answers at http://localhost:1",
    ),
    "no master": (["--input", "{in}", "--output", "{out}", "--runner=FlinkRunner"], "--flink_master: name"),
    "no job server": (
        ["--input", "{in}", "--output", "{out}", "--runner=FlinkRunner", "--flink_job_server_jar={in}/none.jar"],
        "--flink_job_server_jar: there is no such file",
    ),
    "a cluster's workers": (
        ["--input", "{in}", "--output", "{out}", "--runner=PortableRunner", "--workers", "2"],
        "a cluster has --parallelism",
    ),
    "the key itself": (["--input", "{in}", "--output", "{out}", "--key", "0123456789abcdef"], "never the key itself"),
    "short key": (["--input", "{in}", "--output", "{out}", "--key", "env:SHORT"], "shorter than 32 bytes"),
    "no key there": (["--input", "{in}", "--output", "{out}", "--key", "env:NOWHERE"], "is not set"),
    "key for all": (["--input", "{in}", "--output", "{out}", "--key", "file:{in}/open"], "chmod 600"),
    "request member": (
        ["--input", "{in}", "--output", "{out}", "--request", "{in}/bad.yaml"],
        "did you mean DicomVersion?",
    ),
    "no request": (["--input", "{in}", "--output", "{out}", "--request", "{in}/none.yaml"], "can't be read"),
    "no output": (["--input", "{in}"], "Missing option '--output'"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_mistakes_are_refused_before_anything_is_written(arguments: list[str], message: str, tmp_path: Path) -> None:
    """A mistake in the command gets one clear message, exit status 2, and no output."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_bytes(instance("1.2.3.1"))
    (folder / "bad.yaml").write_text("DicomVersoin: 2026d\n")
    (folder / "open").write_text(KEY.hex())
    (folder / "open").chmod(0o644)
    words = [word.format(**{"in": folder, "out": tmp_path / "out"}) for word in arguments]
    said = run("anonymize", *words, status=2, key=False, SHORT="ab" * 20)
    assert message in said.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_beam_options_are_taken(tmp_path: Path) -> None:
    """An option that Beam declares is accepted, DirectRunner means the local runner, and `--` takes the rest."""
    (tmp_path / "a").write_bytes(instance("1.2.3.1"))
    run("anonymize", "--input", tmp_path / "a", "--output", tmp_path / "out", "--runner=DirectRunner", "--job_name=x")
    assert len(contents(tmp_path / "out")) == 1


def test_a_plan_alone_writes_no_output(tmp_path: Path) -> None:
    """--plan-only tells what there is, and the same command without it goes on from the plan."""
    (tmp_path / "a").write_bytes(instance("1.2.3.1"))
    said = run("anonymize", "--input", tmp_path / "a", "--output", tmp_path / "out", "--plan-only")
    assert "Plan: 1 objects" in said.stderr and not (tmp_path / "out").exists()
    said = run("anonymize", "--input", tmp_path / "a", "--output", tmp_path / "out")
    assert "Going on with run" in said.stderr and len(contents(tmp_path / "out")) == 1


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """One attempt tells everything that is wrong with a command, and leaves nothing behind."""
    (tmp_path / "a").write_bytes(instance("1.2.3.1"))
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe", 0o600)
    words = ["--input", tmp_path / "nowhere", "--output", tmp_path / "file", "--request", tmp_path / "none.yaml"]
    words += ["--worker", 2, "--direct_num_workers=2", "--key", f"file:{tmp_path / 'pipe'}"]
    said = run("anonymize", *words, status=2, key=False).stderr
    for told in (
        "did you mean --workers?",
        "--direct_num_workers: say --workers instead",
        "can't be read",
        "there is no such file or folder",
        "--output: this is a file, and must be a folder",
        "a pipe or device won't do",
    ):
        assert told in said
    assert "2: what is this?" not in said
    assert {path.name for path in tmp_path.iterdir()} == {"a", "file", "pipe"}


@pytest.mark.long
def test_a_run_that_died_counts_for_what_it_wrote(tmp_path: Path) -> None:
    """What a run wrote before it died is in the output: another key is refused there, and its rest is swept."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_bytes(instance("1.2.3.1"))
    out, restricted = tmp_path / "out", tmp_path / "out-restricted"
    command = ["anonymize", "--input", tmp_path / "in", "--output", out]
    run(*command, "--plan-only")
    (died,) = restricted.glob("run=*")
    (out / f".{died.name}").mkdir(parents=True)
    (out / f".{died.name}" / "half").write_bytes(b"half")
    run(*command, "--plan-only", DICOMVEIL_KEY=KEY[::-1].hex())
    assert not (out / f".{died.name}").exists()
    shutil.rmtree(max(restricted.glob("run=*"), key=lambda folder: folder.stat().st_mtime))
    (out / "one.dcm").write_bytes(b"one")
    said = run(*command, status=2, DICOMVEIL_KEY=KEY[::-1].hex())
    assert "another key" in said.stderr
    said = run("anonymize", "--input", tmp_path / "in" / "a", "--output", out)
    assert "Going on" not in said.stderr
    (out.parent / "out-audit" / "runs" / "other.json").write_text("{")
    said = run(*command, status=2)
    assert "other.json there is no record of a run" in said.stderr


def test_an_unfinished_run_is_closed_too(tmp_path: Path) -> None:
    """Plan, key and notes of a run that isn't done can be read by nobody else, whatever the umask."""
    (tmp_path / "a").write_bytes(instance("1.2.3.1"))
    before = os.umask(0)
    try:
        run("anonymize", "--input", tmp_path / "a", "--output", tmp_path / "out", "--plan-only", key=False)
    finally:
        os.umask(before)
    found = [tmp_path / "out-restricted", *(tmp_path / "out-restricted").rglob("*")]
    assert {path.name for path in found} >= {"key", "listed", "progress", "verdict.json", "state.json"}
    for path in found:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_order_of_inputs_is_no_question(tmp_path: Path) -> None:
    """The same inputs in another order are the same run, and go on from its plan."""
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(instance(f"1.2.3.{ord(name)}"))
    out = ["--output", tmp_path / "out"]
    run("anonymize", "--input", tmp_path / "a", tmp_path / "b", *out, "--plan-only")
    said = run("anonymize", "--input", tmp_path / "b", "--input", tmp_path / "a", *out)
    assert "Going on with run" in said.stderr and len(contents(tmp_path / "out")) == 2


def test_the_summary_names_what_is_there(tmp_path: Path) -> None:
    """Resources are what stands in the output, nothing that was set aside; and an empty input is remarked on."""
    folder = tmp_path / "in"
    folder.mkdir()
    said = run("anonymize", "--input", folder, "--output", tmp_path / "out")
    assert "Nothing was found below --input." in said.stdout
    summary = json.loads((tmp_path / "out-audit" / "summary.json").read_bytes())
    assert summary["Resources"] == [] and not {"ID", "Type", "Path", "PatientID"} & summary.keys()
    (folder / "good").write_bytes(instance("1.2.3.1", study="1.2.9.1"))
    for name, patient in (("one", "MRN1"), ("other", "MRN2")):
        (folder / name).write_bytes(instance(f"1.2.3.{len(name)}", study="1.2.9.2", patient=patient))
    said = run("anonymize", "--input", folder, "--output", tmp_path / "out", status=3)
    assert REASONS["patient-conflict"].remedy in " ".join(said.stdout.split())
    summary = json.loads((tmp_path / "out-audit" / "summary.json").read_bytes())
    (name,) = contents(tmp_path / "out")
    assert [it["Type"] for it in summary["Resources"]] == ["Instance", "Series", "Study", "Patient"]
    for depth, found in enumerate(reversed(summary["Resources"]), 1):
        assert found["Output"] == "/".join(name.split("/")[:depth])
        assert found["ID"] == resource_id(*found["Identifiers"].values())
        assert found["ID"] != resource_id("MRN1", "1.2.9.1", "1.2.3", "1.2.3.1")
    assert summary["ResourcesCount"] == {"Instance": 1, "Series": 1, "Study": 1, "Patient": 1}
    study, patient = summary["Resources"][2:]
    assert (summary["Type"], summary["ID"], summary["Path"]) == ("Study", study["ID"], f"/studies/{study['ID']}")
    assert summary["PatientID"] == patient["ID"] and summary["ParentResources"] == []
    assert (summary["InstancesCount"], summary["FailedInstancesCount"]) == (3, 2)


def test_the_documented_view_reads_finished_runs(done: Path, tmp_path: Path) -> None:
    """The SQL of docs/audit.md gives a row for each changed element, of what the manifests list alone."""
    audit = shutil.copytree(done / "out-audit", tmp_path / "audit")
    document = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    statements = document.split("```sql\n")[1].split("```")[0].replace("release-audit", str(audit))
    unlisted = audit / "instances" / "run=unlisted"
    unlisted.mkdir()
    (unlisted / "part-0.parquet").write_bytes(b"no table")
    database = duckdb.connect()
    database.execute(statements)
    rows = table(audit, "instances")
    expected = Counter(
        (change["keyword"], change["action"], change["rule"]) for row in rows for change in row["changes"]
    )
    assert {row[:3]: row[3] for row in database.fetchall()} == expected
