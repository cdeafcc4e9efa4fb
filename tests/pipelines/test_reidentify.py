"""The way back as its user runs it: what is restored, who may read it, and what is refused."""

import datetime
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from dicomveil.testing import EXPLICIT, PLANTED, Syntax, minimal, part10, write_demo_study
from tests.corpora import KEY
from tests.recipients import recipient

E = Syntax(EXPLICIT)
FIRST, OTHER = recipient("first"), recipient("other")
REFERENCES = ["ReferencedImageSequence", "ReferencedFrameOfReferenceSequence"]


def run(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """The command; its exit status is part of what is expected, and no value or key may be in what it says."""
    command = [sys.executable, "-m", "pipelines", *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | {"DICOMVEIL_KEY": KEY.hex()}, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    told = done.stdout + done.stderr
    assert "Traceback" not in told and not any(word in told for word in (*PLANTED, "PRIVATE KEY"))
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up study, de-identified for the first recipient, with the keys and certificates of two."""
    folder = tmp_path_factory.mktemp("way back")
    write_demo_study(folder / "in")
    for name, who in (("first", FIRST), ("other", OTHER)):
        (folder / f"{name}.pem").write_text(who.pem)
        secret(folder / f"{name}.key", who.key_pem())
    secret(folder / "locked.key", FIRST.key_pem(b"Zubikax"))
    secret(folder / "password", b"Zubikax\n")
    (folder / "request.yaml").write_text("EncryptFor: [first.pem]\nBurnedIn: pass\n")
    deidentify(folder, "out")
    return folder


def secret(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)


def deidentify(folder: Path, name: str, request: str = "request.yaml") -> None:
    arguments = ("--request", folder / request, "--key", "env:DICOMVEIL_KEY")
    run("anonymize", "--input", folder / "in", "--output", folder / name, *arguments)


def back(folder: Path, output: Path, who: str = "first", status: int = 0, *more: object, source: str = "out") -> str:
    arguments = ("--certificate", folder / f"{who}.pem", "--private-key", folder / f"{who}.key", *more)
    done = run("reidentify", "--input", folder / source, "--output", output, *arguments, status=status)
    return done.stdout + done.stderr


def instances(root: Path) -> Iterator[tuple[Path, pydicom.Dataset]]:
    for path in sorted(root.rglob("*.dcm")):
        yield path, pydicom.dcmread(path)


def test_a_study_comes_back(folder: Path, tmp_path: Path) -> None:
    """Every instance has its names, IDs, dates and UIDs again, its pixels to the byte, and is named by its own UIDs."""
    told = back(folder, tmp_path / "back")
    assert "identifies people" in told and "7 instances restored" in told
    before = {ds.SOPInstanceUID: ds for _, ds in instances(folder / "in")}
    after = list(instances(tmp_path / "back"))
    assert {ds.SOPInstanceUID for _, ds in after} == set(before)
    for path, ds in after:
        assert (
            str(path.relative_to(tmp_path / "back"))
            == f"{ds.StudyInstanceUID}/{ds.SeriesInstanceUID}/{ds.SOPInstanceUID}.dcm"
        )
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert ds.PatientIdentityRemoved == "NO" and "EncryptedAttributesSequence" not in ds
        assert "DeidentificationMethod" not in ds and "DeidentificationMethodCodeSequence" not in ds
        for element in before[ds.SOPInstanceUID]:
            if element.VR not in ("SQ", "OB") and not element.tag.is_private:
                assert ds[element.tag] == element


def test_only_its_owner_may_read_it(folder: Path, tmp_path: Path) -> None:
    """Folders and files that identify are closed to others whatever the umask."""
    os.umask(mask := os.umask(0))
    try:
        os.umask(0)
        back(folder, tmp_path / "a" / "back")
    finally:
        os.umask(mask)
    for path in (tmp_path / "a" / "back").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert stat.S_IMODE((tmp_path / "a" / "back").stat().st_mode) == 0o700


def test_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    """A second run into the same folder leaves every file as it is, and tells how many."""
    back(folder, tmp_path / "back")
    was = {path: (path.read_bytes(), path.stat().st_ino) for path in (tmp_path / "back").rglob("*.dcm")}
    told = back(folder, tmp_path / "back", "first", 3)
    assert "0 instances restored" in told and "7  not restored: name-taken" in told
    assert was == {path: (path.read_bytes(), path.stat().st_ino) for path in (tmp_path / "back").rglob("*.dcm")}
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == sorted({path.parts[-3] for path in was})


def test_what_is_not_restored_is_told_with_its_reason(folder: Path, tmp_path: Path) -> None:
    """No envelope, another recipient, no DICOM and a broken file are counted apart; exit status 3."""
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "plain.dcm").write_bytes(part10(minimal(E)))
    (mixed / "letter.txt").write_text("about Zubikax")
    (mixed / "cut.dcm").write_bytes(part10(minimal(E))[:-3])
    sealed = next(path for path, _ in instances(folder / "out"))
    (mixed / "sealed.dcm").write_bytes(sealed.read_bytes())
    arguments = ("--certificate", folder / "other.pem", "--private-key", folder / "other.key")
    told = run("reidentify", "--input", mixed, "--output", tmp_path / "back", *arguments, status=3).stdout
    for reason in ("no-envelope", "other-recipient", "not-dicom", "truncated"):
        assert f"1  not restored: {reason}" in told
    assert not list((tmp_path / "back").rglob("*.dcm"))


def test_references_come_back_where_they_were_named(folder: Path, tmp_path: Path) -> None:
    """By default nested UIDs stay pseudonymous; sequences that are named lead to the restored instances again."""
    names = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", *REFERENCES]
    body = {"EncryptFor": ["first.pem"], "BurnedIn": "pass", "EncryptAttributes": names}
    (folder / "references.yaml").write_text(json.dumps(body))
    deidentify(folder, "named", "references.yaml")
    back(folder, tmp_path / "named", source="named")
    back(folder, tmp_path / "plain")
    for name, leads in (("named", True), ("plain", False)):
        known = {ds.SOPInstanceUID: ds for _, ds in instances(tmp_path / name)}
        images = [ds for ds in known.values() if ds.Modality == "CT" and "ReferencedImageSequence" in ds]
        assert images
        for ds in images:
            assert (ds.ReferencedImageSequence[0].ReferencedSOPInstanceUID in known) is leads


def test_a_locked_key_opens_with_its_password(folder: Path, tmp_path: Path) -> None:
    """An encrypted private key wants a password file, which is as private as the key."""
    arguments = ("--input", folder / "out", "--output", tmp_path / "back", "--certificate", folder / "first.pem")
    locked = ("--private-key", folder / "locked.key")
    run("reidentify", *arguments, *locked, "--password-file", folder / "password")
    assert "give --password-file" in run("reidentify", *arguments, *locked, status=2).stderr
    secret(tmp_path / "wrong", b"another\n")
    wrong = run("reidentify", *arguments, *locked, "--password-file", tmp_path / "wrong", status=2)
    assert "password is wrong" in wrong.stderr


def test_what_cannot_be_used_is_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    """A key that others may read or that belongs elsewhere, an output that others may enter or that holds the input."""
    (tmp_path / "open.key").write_bytes(FIRST.key_pem())
    (tmp_path / "open.key").chmod(0o644)
    secret(tmp_path / "text.key", b"Zubikax")
    (tmp_path / "shared").mkdir(mode=0o755)
    target, pem, key = tmp_path / "new", folder / "first.pem", folder / "first.key"
    source = folder / "out"
    for place, output, certificate, private, words in (
        (source, target, pem, tmp_path / "open.key", "may be read by others"),
        (source, target, pem, tmp_path / "text.key", "can't be read as a key"),
        (source, target, pem, folder / "other.key", "belongs to another certificate"),
        (source, target, pem, tmp_path / "missing.key", "No such file"),
        (source, target, key, key, "is no certificate"),
        (source, tmp_path / "shared", pem, key, "chmod 700"),
        (source, source / "back", pem, key, "choose folders apart"),
        (source, folder, pem, key, "choose folders apart"),
        (folder / "missing", target, pem, key, "no such file or folder"),
    ):
        arguments = ("--certificate", certificate, "--private-key", private)
        refused = run("reidentify", "--input", place, "--output", output, *arguments, status=2)
        assert words in refused.stderr
    assert not target.exists() and not list((tmp_path / "shared").iterdir())


def test_a_certificate_that_has_expired_stops_the_run(folder: Path, tmp_path: Path) -> None:
    """The door compares with today, and reads the certificate from the request's folder."""
    (tmp_path / "old.pem").write_text(recipient("old", until=datetime.datetime(2021, 1, 1)).pem)
    (tmp_path / "r.yaml").write_text("EncryptFor: [old.pem]\n")
    arguments = ("--input", folder / "in", "--output", tmp_path / "out", "--request", tmp_path / "r.yaml")
    assert "has expired" in run("anonymize", *arguments, status=2).stderr
    assert not (tmp_path / "out").exists()


def test_records_hold_the_certificate_and_no_original(folder: Path) -> None:
    """The shareable audit names the sequence and its rule; no planted value stands in outputs or records."""
    summary = json.loads((folder / "out-audit" / "summary.json").read_bytes())
    assert summary["Request"]["EncryptFor"] == [FIRST.pem]
    for path in [*(folder / "out").rglob("*"), *(folder / "out-audit").rglob("*")]:
        if path.is_file():
            data = path.read_bytes()
            assert not any(word.encode() in data for word in PLANTED), path.name
            assert FIRST.key_pem()[60:120] not in data
