"""File-sets for media: what is copied comes as it is, under legal names, and every reader finds it by the DICOMDIR."""

import io
import re
import shutil
import subprocess
import tempfile
import tracemalloc
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.fileset import FileSet, is_conformant_file_id

from dicomveil.media import DICOMDIR, REASONS, SYNTAXES, Directory, Numbers, encoded, records
from dicomveil.testing import CT, EXPLICIT, IMPLICIT, Syntax, minimal, part10, write_demo_study
from tests.corpora import CORPUS
from tests.pipelines.test_inputs import anonymized, run

E = Syntax().element
NAMED = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def instance(uid: str, *more: tuple[int, bytes], syntax: str = EXPLICIT) -> bytes:
    own = Syntax(syntax)
    return part10(minimal(own, (0x00080018, own.element(0x00080018, "UI", uid)), *more), syntax)


def tree(folder: Path) -> list[tuple[tuple[str, ...], str]]:
    """Who is where, as pydicom reads the DICOMDIR: identifiers and File ID of each instance."""
    found = []
    for it in FileSet(folder / DICOMDIR):
        ds = it.load()
        found.append((tuple(str(ds.get(name)) for name in NAMED), str(Path(it.path).relative_to(folder))))
    return sorted(found)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A de-identified study."""
    folder = tmp_path_factory.mktemp("release")
    write_demo_study(folder / "in")
    anonymized(folder, folder / "in")
    return folder / "out"


def test_a_release_becomes_a_file_set(release: Path, tmp_path: Path) -> None:
    """Every instance is there byte for byte, under a conformant File ID, in the tree of its patient, study and series."""
    run("media", "--input", release, "--output", tmp_path / "cd", "--id", "RELEASE_1")
    files = sorted(path for path in (tmp_path / "cd").rglob("*") if path.is_file() and path.name != DICOMDIR)
    assert sorted(path.read_bytes() for path in files) == sorted(path.read_bytes() for path in release.rglob("*.dcm"))
    assert all(is_conformant_file_id(path.relative_to(tmp_path / "cd")) for path in files)
    found = tree(tmp_path / "cd")
    assert len(found) == len(files) and {file for _, file in found} == {
        str(it.relative_to(tmp_path / "cd")) for it in files
    }
    directory = pydicom.dcmread(tmp_path / "cd" / DICOMDIR)
    assert directory.FileSetID == "RELEASE_1" and directory.file_meta.TransferSyntaxUID == EXPLICIT


def test_the_same_release_makes_the_same_file_set(release: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run("media", "--input", release, "--output", tmp_path / name)
    assert (tmp_path / "one" / DICOMDIR).read_bytes() == (tmp_path / "two" / DICOMDIR).read_bytes()


def test_a_run_may_end_with_its_medium(release: Path, tmp_path: Path) -> None:
    """--dicomdir makes of a run's output what the command makes of it; the folder is seen to before the run begins."""
    write_demo_study(tmp_path / "in")
    anonymized(tmp_path, tmp_path / "in", options=("--dicomdir", tmp_path / "cd"))
    run("media", "--input", tmp_path / "out", "--output", tmp_path / "again")
    assert (tmp_path / "cd" / DICOMDIR).read_bytes() == (tmp_path / "again" / DICOMDIR).read_bytes()
    for wrong, told in {tmp_path / "cd": "isn't empty", tmp_path / "in" / "cd": "lies inside what is read"}.items():
        done = run("anonymize", "--input", tmp_path / "in", "--output", tmp_path / "new", "--dicomdir", wrong, status=2)
        assert f"--dicomdir: {told}" in done.output and not (tmp_path / "new").exists()


@pytest.mark.skipif(not shutil.which("dcmdump"), reason="needs dcmdump")
def test_dcmtk_reads_the_directory(release: Path, tmp_path: Path) -> None:
    """dcmdump checks every offset against the record that stands there; dcmmkdir describes the folder in the same records."""
    run("media", "--input", release, "--output", tmp_path / "cd")
    dump = subprocess.run(["dcmdump", tmp_path / "cd" / DICOMDIR], capture_output=True, text=True, check=True)
    assert not re.search("^[EW]:", dump.stderr, re.MULTILINE)
    theirs = ["dcmmkdir", "-Pgp", "+I", "+r", "+id", str(tmp_path / "cd"), "+D", str(tmp_path / "theirs")]
    (tmp_path / "cd" / DICOMDIR).rename(tmp_path / "ours")
    made = subprocess.run(theirs, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    (ours, other) = (pydicom.dcmread(tmp_path / name).DirectoryRecordSequence for name in ("ours", "theirs"))

    def told(it: Dataset) -> tuple[str, ...]:
        values = [
            str(it.get(name))
            for name in (
                "DirectoryRecordType",
                "ReferencedFileID",
                "PatientID",
                "StudyInstanceUID",
                "SeriesInstanceUID",
            )
        ]
        return (
            *values,
            str(it.get("ReferencedSOPInstanceUIDInFile")),
            str(it.get("ReferencedTransferSyntaxUIDInFile")),
        )

    refused = [["DICOMDIR"], *(line.split("/") for line in re.findall(r"^W:   (PT.+)$", made.stderr, re.MULTILINE))]
    only_ours = set(map(told, ours)) - set(map(told, other))
    assert set(map(told, other)) <= set(map(told, ours))
    assert {kind for kind, *_ in only_ours} <= {"SERIES", "SR DOCUMENT"} and len(only_ours) == 2 * (len(refused) - 1)


def test_what_cant_be_on_media_is_named(tmp_path: Path) -> None:
    """Each with its reason, and the rest is there."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a").write_bytes(instance("1.2.1"))
    (folder / "b").write_bytes(instance("1.2.2", syntax=IMPLICIT))
    (folder / "c").write_bytes(instance("1.2.1", (0x00200013, E(0x00200013, "IS", "7"))))
    (folder / "d").write_bytes(instance("1.2.4")[132:])
    (folder / "e").write_bytes(instance("1.2.5")[:-3])
    (folder / "f.txt").write_bytes(b"no instance")
    sr = instance(
        "1.2.6",
        (0x00080016, E(0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.88.11")),
        (0x00080060, E(0x00080060, "CS", "SR")),
    )
    (folder / "g").write_bytes(sr)
    shutil.copy(get_testdata_file("DICOMDIR"), folder / DICOMDIR)
    done = run("media", "--input", folder, "--output", tmp_path / "cd", status=3)
    assert [uids[3] for uids, _ in tree(tmp_path / "cd")] == ["1.2.1"]
    assert len(list((tmp_path / "cd").rglob("IM*"))) == 1
    for reason, name in {"media-syntax": "b", "media-twice": "c", "media-file": "d", "truncated": "e", "not-dicom": "f.txt",
                         "media-record": "g", "dicomdir": DICOMDIR}.items():  # fmt: skip
        assert f"{reason}: {folder}/{name}\n" in done.output
    assert set(REASONS) <= set(re.findall("[a-z]+-[a-z]+", done.output))


def test_mistakes_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    done = run("media", "--input", tmp_path / "none", "--output", tmp_path / "full", "--id", "release", status=2)
    for told in ("--input", "there is no such file", "--output: isn't empty", "--id: is no File-set ID"):
        assert told in done.output


def test_patients_without_an_id_stay_apart(tmp_path: Path) -> None:
    """A patient's record must have an ID that no other has: where instances have none, each study gets one of its own."""
    (tmp_path / "in").mkdir()
    for number in "12":
        more = [(tag, E(tag, "UI", f"1.9.{number}.{tag}")) for tag in (0x0020000D, 0x0020000E)]
        (tmp_path / "in" / number).write_bytes(instance(f"1.2.{number}", (0x00100020, E(0x00100020, "LO", "")), *more))
    run("media", "--input", tmp_path / "in", "--output", tmp_path / "cd")
    patients = [
        it
        for it in pydicom.dcmread(tmp_path / "cd" / DICOMDIR).DirectoryRecordSequence
        if it.DirectoryRecordType == "PATIENT"
    ]
    assert sorted(it.PatientID for it in patients) == ["PT000001", "PT000002"]


# -------------------------------------------------------------------------------------------------- the directory


def header(numbers: Numbers) -> FileDataset:
    ds = FileDataset(None, {}, file_meta=FileMetaDataset())
    ds.file_meta.TransferSyntaxUID, ds.SOPClassUID = EXPLICIT, CT
    ds.PatientID, ds.Modality = f"P{numbers.patient}", "CT"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = (
        f"1.{numbers[0]}.{numbers[1]}",
        f"1.{numbers[0]}.{numbers[1]}.{numbers[2]}",
    )
    ds.SOPInstanceUID = f"{ds.SeriesInstanceUID}.{numbers.instance}"
    return ds


@given(st.sets(st.builds(Numbers, *[st.integers(0, 2)] * 4), min_size=1, max_size=30))
def test_every_record_is_reached_by_its_offset(places: set[Numbers]) -> None:
    """From the root along the offsets each instance is reached once, below its own series, study and patient."""
    with tempfile.TemporaryFile() as aside:
        directory = Directory(aside)
        for numbers in sorted(places):
            chain = [encoded(record) for record in records(header(numbers), numbers)]
            directory.add(chain, numbers, f"1.{numbers}")
        data = b"".join(directory.chunks("X"))
    ds = pydicom.dcmread(io.BytesIO(data))
    at = {it.seq_item_tell: it for it in ds.DirectoryRecordSequence}
    found = []

    def walk(offset: int, above: tuple[str, ...]) -> None:
        while offset:
            it = at[offset]
            assert len(above) == ["PATIENT", "STUDY", "SERIES", "IMAGE"].index(it.DirectoryRecordType)
            if it.DirectoryRecordType == "IMAGE":
                found.append(tuple(it.ReferencedFileID))
            walk(it.OffsetOfReferencedLowerLevelDirectoryEntity, (*above, it.DirectoryRecordType))
            offset = it.OffsetOfTheNextDirectoryRecord

    walk(ds.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity, ())
    assert found == [numbers.file_id for numbers in sorted(places)]
    last = at[ds.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity]
    assert last.DirectoryRecordType == "PATIENT" and last.OffsetOfTheNextDirectoryRecord == 0
    assert len(at) == len({it[:n] for it in places for n in range(1, 5)})


def test_a_large_directory_isnt_held() -> None:
    """Of fifty thousand records a few bytes each are held."""
    chain = [encoded(record) for record in records(header(Numbers(0, 0, 0, 0)), Numbers(0, 0, 0, 0))]
    with tempfile.TemporaryFile() as aside:
        tracemalloc.start()
        directory = Directory(aside)
        for number in range(50_000):
            directory.add(chain, Numbers(0, 0, 0, number), "1.2")
        size = sum(map(len, directory.chunks()))
        assert size > 50_000 * 100 and tracemalloc.get_traced_memory()[1] < 8 << 20
        tracemalloc.stop()


def test_every_record_type_is_described() -> None:
    """Reports, plans and presentation states of the bundled files get records of their own kind."""
    expected = {"rtplan.dcm": "RT PLAN", "rtdose.dcm": "RT DOSE", "rtstruct.dcm": "RT STRUCTURE SET", "test-SR.dcm": "SR DOCUMENT",
                "CT_small.dcm": "IMAGE", "waveform_ecg.dcm": "WAVEFORM"}  # fmt: skip
    for name, kind in expected.items():
        ds = pydicom.dcmread(str(get_testdata_file(name)), force=True)
        ds.file_meta.TransferSyntaxUID = EXPLICIT
        assert records(ds, Numbers(0, 0, 0, 0))[-1].DirectoryRecordType == kind


@pytest.mark.skipif(not CORPUS, reason="needs DICOMVEIL_CORPUS")
def test_real_instances_on_media(tmp_path: Path) -> None:
    """Of the corpus, what is in the File-set is read back by pydicom, and what is left out has a reason."""
    files = [path for path in sorted((CORPUS / "open").rglob("*")) if path.is_file() and path.stat().st_size < 2 << 20]
    (tmp_path / "in").mkdir()
    for number, path in enumerate(files[:: max(1, len(files) // 150)]):
        shutil.copy(path, tmp_path / "in" / f"{number:04}")
    done = run("media", "--input", tmp_path / "in", "--output", tmp_path / "cd", status=3)
    (count,) = re.findall(r"^([\d,]+) instances in the File-set", done.output, re.MULTILINE)
    found = tree(tmp_path / "cd")
    assert len(found) == int(count.replace(",", "")) > 10
    left = sum(
        int(number.replace(",", "")) for number in re.findall(r"^ *([\d,]+) +left out", done.output, re.MULTILINE)
    )
    assert len(found) + left == len(list((tmp_path / "in").iterdir()))
    syntaxes = {
        pydicom.dcmread(tmp_path / "cd" / file, stop_before_pixels=True).file_meta.TransferSyntaxUID
        for _, file in found
    }
    assert syntaxes <= SYNTAXES
