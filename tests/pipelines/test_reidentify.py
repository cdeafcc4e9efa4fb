"""The way back as its user runs it: what is restored, who may read it, and what is refused."""

import datetime
import json
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from click.testing import CliRunner

from dicomveil.testing import EXPLICIT, PLANTED, Syntax, minimal, part10, write_demo_study
from pipelines import reidentify as door
from pipelines.cli import cli
from tests import emulators
from tests.corpora import KEY
from tests.emulators import Emulator
from tests.faults import ALWAYS, proxy
from tests.pipelines.test_stores_end_to_end import Bucket, bucket_of
from tests.recipients import recipient
from transforms import stores
from transforms.locations import locate

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


def back(
    folder: Path, output: object, who: str = "first", status: int = 0, *more: object, source: object = "out"
) -> str:
    """What the command tells; `source` is a name in the folder, or lies elsewhere by an absolute path or a URI."""
    given = source if "://" in str(source) else folder / str(source)
    arguments = ("--certificate", folder / f"{who}.pem", "--private-key", folder / f"{who}.key", *more)
    done = run("reidentify", "--input", given, "--output", output, *arguments, status=status)
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


# ---------------------------------------------------------------------------------------------------------- inputs


def test_inputs_are_named_as_everywhere(folder: Path, tmp_path: Path) -> None:
    """A pattern is all that it matches, a zip file its members, and what several of them reach counts once."""
    (tmp_path / "in").mkdir()
    found = [path for path, _ in instances(folder / "out")]
    with zipfile.ZipFile(tmp_path / "in" / "some.zip", "w", zipfile.ZIP_DEFLATED) as made:
        for path in found[:3]:
            made.write(path, path.name)
    told = back(folder, tmp_path / "zip", source=tmp_path / "in")
    assert "3 instances restored" in told
    pattern = folder / "out" / "**" / f"{found[0].stem}*"
    told = back(folder, tmp_path / "one", "first", 0, "--input", folder / "out" / "**" / found[0].name, source=pattern)
    assert "1 instances restored" in told
    assert contents(tmp_path / "one").items() <= contents(tmp_path / "zip").items()
    assert "matches no file" in back(folder, tmp_path / "none", status=2, source="out/*.nothing")
    assert not (tmp_path / "none").exists()


def test_of_a_damaged_member_nothing_is_left(folder: Path, tmp_path: Path) -> None:
    """Of a large one that is found out at its end alone: an original that may be another's is never there."""
    sealed = next(path for path, ds in instances(folder / "out") if "PixelData" in ds).read_bytes()
    pixels = E.element(0x7FE00010, "OW", bytes(2 << 20))
    whole = sealed[: sealed.index(b"\xe0\x7f\x10\x00")] + pixels
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("a", whole)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.index(b"PK\1\2") - 1000
    data[at] ^= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert "not restored: zip-damaged" in back(folder, tmp_path / "back", status=3, source=tmp_path / "a.zip")
    assert not contents(tmp_path / "back")


# ---------------------------------------------------------------------------------------------------------- stores


@pytest.fixture(params=["fake_gcs", "moto", "azurite"])
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    with bucket_of(request.getfixturevalue(request.param)) as found:
        yield found


def here(folder: Path, output: object, status: int = 0, source: object = "out") -> str:
    """What `back` does, in this process."""
    given = source if "://" in str(source) else folder / str(source)
    keys = ("--certificate", folder / "first.pem", "--private-key", folder / "first.key")
    words = map(str, ("reidentify", "--input", given, "--output", output, *keys))
    done = CliRunner().invoke(cli, list(words))
    assert done.exit_code == status, done.output
    return done.output


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def objects(bucket: Bucket, root: str) -> dict[str, bytes]:
    return {it.uri.removeprefix(f"{root}/"): bucket.read(it.uri) for it in bucket.store.list(f"{root}/")}


def test_a_store_gets_what_a_folder_gets(folder: Path, tmp_path: Path, bucket: Bucket) -> None:
    """Byte for byte, from a store or a folder; a second run leaves every object as it is, and tells how many."""
    bucket.copy(folder / "out")
    root = f"{bucket.restricted}/back"
    here(folder, tmp_path / "back")
    expected = contents(tmp_path / "back")
    told = back(folder, f"{root}/", source=f"{bucket.input}/archive")
    assert "7 instances restored" in told and "Whoever may read its bucket may read it" in told
    assert objects(bucket, root) == expected
    versions = {it.uri: it.version for it in bucket.store.list(f"{root}/")}
    told = here(folder, root, 3)
    assert "0 instances restored" in told and "7  not restored: name-taken" in told
    assert versions == {it.uri: it.version for it in bucket.store.list(f"{root}/")}
    taken = min(expected)
    bucket.store.delete(f"{root}/{taken}")
    bucket.store.create(f"{root}/{taken}", [b"another's"])
    here(folder, root, 3)
    assert objects(bucket, root) == expected | {taken: b"another's"}
    here(folder, tmp_path / "down", source=f"{bucket.input}/archive/**/*.dcm")
    assert contents(tmp_path / "down") == expected
    assert stat.S_IMODE((tmp_path / "down").stat().st_mode) == 0o700


def test_mistakes_in_a_store_are_told_before_anything_is_written(folder: Path, bucket: Bucket) -> None:
    """Whoever may read the de-identified may not read what comes of it: another bucket, and nothing inside another."""
    bucket.copy(folder / "out")
    source, scheme = f"{bucket.input}/archive", bucket.server.scheme
    for given, output, words in (
        (source, f"{bucket.input}/back", f"--output: is in the bucket of --input {source}: name another"),
        (source, f"{source}/back", f"--output lies inside --input {source}: choose folders apart"),
        (source, bucket.input, "lies inside --output: choose folders apart"),
        (f"{bucket.input}/none", f"{bucket.restricted}/back", "nothing is there"),
        (f"{source}/**/*.none", f"{bucket.restricted}/back", "matches no file"),
        (source, f"{scheme}://no-such-bucket-at-all/back", "--output: there is a refusal of the storage"),
        (source, f"{scheme}://", "names no bucket"),
        (f"{scheme}://", f"{bucket.restricted}/back", "names no bucket"),
        (source, "ftp://elsewhere/back", "no such storage can be used"),
    ):
        told = here(folder, output, 2, given)
        assert words in " ".join(told.split()), told
    for root in (bucket.input, bucket.restricted):
        assert not [it.uri for it in bucket.store.list(f"{root}/") if "back" in it.uri]


def test_a_key_of_the_store_encrypts_what_is_restored(folder: Path, tmp_path: Path, moto: Emulator) -> None:
    """Its name goes with each; where no name can be taken the command says so."""
    with bucket_of(moto) as bucket:
        back(folder, f"{bucket.restricted}/back", "first", 0, "--kms-key", "alias/clinic")
        names = [it.uri for it in bucket.store.list(f"{bucket.restricted}/")]
        assert names and {emulators.encrypted_by(moto, name) for name in names} == {"alias/clinic"}
    told = back(folder, tmp_path / "back", "first", 2, "--kms-key", "alias/clinic")
    assert "--kms-key: is for an --output in gs:// or s3://" in told


def test_a_file_that_changes_while_it_is_read_leaves_no_object(
    folder: Path, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was restored of half of the one and half of the other would be nobody's."""
    source = next(path for path, _ in instances(folder / "out"))
    (tmp_path / "in").write_bytes(source.read_bytes())
    made_of = stores.made_of
    monkeypatch.setattr(stores, "made_of", lambda *given: made_of(given[0], changing(tmp_path / "in", given[1])))
    settled = door.reidentify(
        (str(tmp_path / "in"),), locate(f"{bucket.restricted}/back"), FIRST.opener, lambda count: None
    )
    assert settled.left == {"changed-during-run": 1} and not settled.restored
    assert not objects(bucket, bucket.restricted)


def changing(path: Path, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield from chunks
    path.write_bytes(b"other")


@pytest.mark.parametrize("server", ["fake_gcs", "moto"])
def test_a_store_that_takes_nothing_ends_it(folder: Path, server: str, request: pytest.FixtureRequest) -> None:
    """With a line that says so and what stays, exit status 1, and no object."""
    emulator: Emulator = request.getfixturevalue(server)
    with bucket_of(emulator) as bucket, proxy(emulator.url) as between:
        between.inject("503", ALWAYS, lambda request: request.method in ("PUT", "POST"))
        patience = {"DICOMVEIL_STORE_TRIES": "2", "DICOMVEIL_STORE_FIRST_WAIT": "0.01"}
        with emulators.environment(emulator.at(between.url) | patience):
            told = back(folder, f"{bucket.restricted}/back", status=1)
        assert "There is a store that fails, or can't be reached. What was restored so far stays" in told
        assert not objects(bucket, bucket.restricted)


def test_a_store_that_refuses_is_told_so(folder: Path, azurite: Emulator) -> None:
    """Without leave nothing is tried; the key isn't told."""
    with bucket_of(azurite) as bucket:
        connection = azurite.env["AZURE_STORAGE_CONNECTION_STRING"].replace("AccountKey=E", "AccountKey=F")
        with emulators.environment({"AZURE_STORAGE_CONNECTION_STRING": connection}):
            told = back(folder, f"{bucket.restricted}/back", status=2)
        assert "--output: there is a refusal of the storage" in told and "AccountKey" not in told
