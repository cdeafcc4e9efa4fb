"""File-sets for media: what is copied comes as it is, under legal names, and every reader finds it by the DICOMDIR."""

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
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
from pipelines import media as door
from tests import emulators
from tests.corpora import CORPUS, KEY
from tests.emulators import Emulator
from tests.faults import ALWAYS, proxy
from tests.pipelines.test_inputs import anonymized, run
from tests.pipelines.test_stores_end_to_end import Bucket, bucket_of
from transforms import stores
from transforms.locations import Location, locate

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
    for wrong, told in {tmp_path / "cd": "isn't empty", tmp_path / "in" / "cd": "lies inside --input"}.items():
        done = run("anonymize", "--input", tmp_path / "in", "--output", tmp_path / "new", "--dicomdir", wrong, status=2)
        assert re.search(f"--dicomdir:? {told}", done.output) and not (tmp_path / "new").exists()


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


def test_a_file_set_may_lie_beside_what_a_pattern_means(release: Path, tmp_path: Path) -> None:
    """But not where the pattern could match."""
    shutil.copytree(release, tmp_path / "all" / "release")
    pattern = tmp_path / "all" / "rel*" / "**"
    done = run("media", "--input", pattern, "--output", tmp_path / "all" / "release-cd", status=2)
    assert "--output lies inside --input" in done.output
    run("media", "--input", pattern, "--output", tmp_path / "all" / "cd")
    assert len(tree(tmp_path / "all" / "cd")) == len(list(release.rglob("*.dcm")))


# ---------------------------------------------------------------------------------------------------------- stores


@pytest.fixture(params=["fake_gcs", "moto", "azurite"])
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    with bucket_of(request.getfixturevalue(request.param)) as found:
        yield found


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def objects(bucket: Bucket, root: str) -> dict[str, bytes]:
    return {it.uri.removeprefix(f"{root}/"): bucket.read(it.uri) for it in bucket.store.list(f"{root}/")}


def test_a_file_set_is_staged_in_a_store(release: Path, tmp_path: Path, bucket: Bucket) -> None:
    """Byte for byte what a folder gets, from a store or a folder, the DICOMDIR last; and only where nothing is yet."""
    run("media", "--input", release, "--output", tmp_path / "cd", "--id", "RELEASE_1")
    expected = contents(tmp_path / "cd")
    bucket.copy(release)
    root = f"{bucket.output}/cd"
    for source, name in ((release, root), (f"{bucket.input}/archive", f"{bucket.output}/cd2/")):
        run("media", "--input", source, "--output", name, "--id", "RELEASE_1")
        assert objects(bucket, name.rstrip("/")) == expected
    written = {it.uri: it.modified for it in bucket.store.list(f"{root}/")}
    assert max(written.values()) == written[f"{root}/{DICOMDIR}"]
    done = run("media", "--input", release, "--output", root, status=2)
    assert "--output: isn't empty" in done.output and objects(bucket, root) == expected
    run("media", "--input", root, "--output", tmp_path / "burnt", "--id", "RELEASE_1")
    assert contents(tmp_path / "burnt") == expected


def test_mistakes_in_a_store_are_told_at_once(release: Path, bucket: Bucket) -> None:
    bucket.copy(release)
    source, scheme = f"{bucket.input}/archive", bucket.server.scheme
    for place, output, words in (
        (source, f"{source}/cd", f"--output lies inside --input {source}: choose folders apart"),
        (source, bucket.input, "--output: isn't empty"),
        (source, bucket.input, "lies inside --output: choose folders apart"),
        (f"{bucket.input}/none", f"{bucket.output}/cd", "nothing is there"),
        (source, f"{scheme}://no-such-bucket-at-all/cd", "--output: there is a refusal of the storage"),
        (source, f"{scheme}://", "names no bucket"),
    ):
        done = run("media", "--input", place, "--output", output, "--id", "release", status=2)
        told = " ".join(done.output.split())
        assert words in told and "--id: is no File-set ID" in told, told
    assert not list(bucket.store.list(f"{bucket.output}/"))


def test_a_run_in_a_store_may_end_with_its_medium(release: Path, tmp_path: Path, moto: Emulator) -> None:
    """Where few may read the originals' bucket no medium goes; nor into what is read, nor where something is."""
    write_demo_study(tmp_path / "in")
    with bucket_of(moto) as bucket:
        bucket.copy(tmp_path / "in")
        for wrong, told in {
            f"{bucket.restricted}/cd": "--restricted: is in the bucket of --dicomdir",
            f"{bucket.input}/archive/cd": "--dicomdir lies inside --input",
            f"{bucket.output}/out/cd": "--dicomdir lies inside --output",
            f"{bucket.input}": "--dicomdir: isn't empty",
        }.items():
            done = run(*bucket.words("--dicomdir", wrong), status=2)
            assert told in " ".join(done.output.split())
        other = moto.bucket()
        done = run(*bucket.words("--dicomdir", f"{other}/cd", "--temp_location", f"{other}/temp"), status=2)
        assert "--temp_location: leads into --dicomdir or its bucket" in " ".join(done.output.split())
        run(*bucket.words("--dicomdir", f"{bucket.output}/cd"))
        run("media", "--input", release, "--output", tmp_path / "cd")
        assert objects(bucket, f"{bucket.output}/cd") == contents(tmp_path / "cd")


def test_a_key_of_the_store_encrypts_the_file_set(release: Path, tmp_path: Path, moto: Emulator) -> None:
    """The DICOMDIR, too; where no name can be taken the command says so."""
    with bucket_of(moto) as bucket:
        run("media", "--input", release, "--output", f"{bucket.output}/cd", "--kms-key", "alias/release")
        for it in bucket.store.list(f"{bucket.output}/"):
            assert emulators.encrypted_by(moto, it.uri) == "alias/release"
    done = run("media", "--input", release, "--output", tmp_path / "cd", "--kms-key", "alias/release", status=2)
    assert "--kms-key: is for an --output in gs:// or s3://" in done.output


def test_who_else_writes_there_is_never_overwritten(
    release: Path, fake_gcs: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two File-sets at one place at once would be none: the slower one stops, and leaves the other's DICOMDIR alone."""
    made_of = stores.made_of

    def meanwhile(root: Location, opened: ExitStack, chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield from made_of(opened, chunks)
        stores.create_small(root / DICOMDIR, b"another's")

    with bucket_of(fake_gcs) as bucket:
        for root in (locate(bucket.output), tmp_path / "cd"):
            with monkeypatch.context() as patch:
                patch.setattr(stores, "made_of", partial(meanwhile, root))
                done = run("media", "--input", release, "--output", root, status=1)
            assert "something else was written where the File-set goes" in " ".join(done.output.split())
            assert (root / DICOMDIR).read_bytes() == b"another's"


@pytest.mark.parametrize("server", ["fake_gcs", "moto"])
def test_a_store_that_takes_nothing_ends_it(release: Path, server: str, request: pytest.FixtureRequest) -> None:
    """With a line that says so, exit status 1, and no DICOMDIR."""
    emulator: Emulator = request.getfixturevalue(server)
    with bucket_of(emulator) as bucket, proxy(emulator.url) as between:
        between.inject("503", ALWAYS, lambda request: request.method in ("PUT", "POST"))
        patience = {"DICOMVEIL_STORE_TRIES": "2", "DICOMVEIL_STORE_FIRST_WAIT": "0.01"}
        env = os.environ | emulator.at(between.url) | patience | {"DICOMVEIL_KEY": KEY.hex()}
        command = [sys.executable, "-m", "pipelines", "media", "--input", release, "--output", f"{bucket.output}/cd"]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert "There is a store that fails, or can't be reached. The File-set isn't whole" in done.stderr
        assert not objects(bucket, bucket.output)


def test_a_file_that_changes_while_it_is_copied_leaves_no_object(
    release: Path, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(next(release.rglob("*.dcm")), tmp_path / "in")
    made_of = stores.made_of

    def changing(chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield from chunks
        (tmp_path / "in").write_bytes(b"other")

    monkeypatch.setattr(stores, "made_of", lambda opened, chunks: made_of(opened, changing(chunks)))
    written = door.write([str(tmp_path / "in")], locate(f"{bucket.output}/cd"), "", lambda count: None)
    assert written.counts == {"changed-during-run": 1} and not objects(bucket, bucket.output)


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
