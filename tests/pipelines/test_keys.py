"""A run and its key: where workers find it, which run goes on with it, and what is left of it at the end."""

import base64
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomveil.keys import Keys, parse_key
from tests.corpora import KEY
from tests.pipelines.test_anonymize import contents, instance, run
from tests.secret_manager import PROJECT, SecretManager, serving

LATEST = f"gcp-secret:{PROJECT}/release/versions/latest"
TEXT, OTHER = KEY.hex().encode(), KEY[::-1].hex().encode()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Six instances of one series."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        (folder / str(number)).write_bytes(instance(f"1.2.3.{number}", study="1.2.9.1", patient="MRN1"))
    return folder


@pytest.fixture
def manager() -> Iterator[SecretManager]:
    with serving(SecretManager({"release": [OTHER, TEXT]})) as manager:
        yield manager


def command(archive: Path, output: str, *more: object) -> list[object]:
    return ["anonymize", "--input", archive, "--output", archive.parent / output, *more]


def emulated(manager: SecretManager) -> dict[str, str]:
    return {"SECRET_MANAGER_EMULATOR_HOST": manager.address, "DICOMVEIL_KEY": ""}


@pytest.mark.long
def test_each_worker_asks_secret_manager_for_the_pinned_version(archive: Path, manager: SecretManager) -> None:
    """`latest` is asked for once, by the command; its workers find the version that answered, though it is old by then."""

    def rotated(_: object) -> None:
        if len(manager.versions["release"]) == 2:
            manager.versions["release"].append((b"\x01" + KEY[1:]).hex().encode())

    manager.answered = rotated
    run(*command(archive, "out", "--key", LATEST, "--workers", 2), key=False, **emulated(manager))
    names = [name for name, _ in manager.asked]
    assert names[0].endswith("/latest") and {*names[1:]} == {f"{PROJECT}/release/versions/2"}
    assert len({caller for name, caller in manager.asked if name.endswith("/2")}) >= 2
    run(*command(archive, "by-variable"))
    assert contents(archive.parent / "out") == contents(archive.parent / "by-variable")


@pytest.mark.long
def test_a_worker_that_finds_another_key_stops_the_run(archive: Path, manager: SecretManager) -> None:
    """A version that holds another key by now is refused by the workers, and nothing is written with it."""
    manager.answered = lambda _: manager.versions["release"].__setitem__(1, OTHER)
    said = run(*command(archive, "out", "--key", LATEST, "--workers", 2), key=False, status=1, **emulated(manager))
    assert "A worker failed" in said.stderr and not list((archive.parent / "out").rglob("*.dcm"))
    (log,) = (archive.parent / "out-restricted").glob("run=*/workers.log")
    assert "not the one that this run began with" in log.read_text()
    assert TEXT not in log.read_bytes() and OTHER not in log.read_bytes()


@pytest.mark.long
def test_a_secret_that_moved_on_is_another_key(archive: Path, manager: SecretManager) -> None:
    """A run into an output of `latest` as it was is refused once `latest` is another; the version itself still goes."""
    run(*command(archive, "out", "--key", LATEST), key=False, **emulated(manager))
    before = contents(archive.parent / "out")
    manager.versions["release"].append((b"\x01" + KEY[1:]).hex().encode())
    said = run(*command(archive, "out", "--key", LATEST), key=False, status=2, **emulated(manager))
    assert "made with another key" in said.stderr
    pinned = LATEST.replace("latest", "2")
    run(*command(archive, "out", "--key", pinned), key=False, **emulated(manager))
    assert contents(archive.parent / "out") == before


def test_no_secret_manager_no_run(archive: Path) -> None:
    """A secret that can't be had is told in one line, and nothing is written."""
    with serving(SecretManager({})) as manager:
        said = run(*command(archive, "out", "--key", LATEST), key=False, status=2, **emulated(manager))
    assert said.stderr.startswith("dicomveil: Secret Manager knows no such secret") and said.stderr.count("\n") == 1
    assert {path.name for path in archive.parent.iterdir()} == {"in"}


def test_every_way_to_a_key_gives_the_same(archive: Path, tmp_path: Path) -> None:
    """The same key in a file and in a variable, in hexadecimal and in base64, gives the same bytes."""
    file = tmp_path / "project.key"
    file.write_bytes(base64.urlsafe_b64encode(KEY) + b"\n")
    file.chmod(0o600)
    run(*command(archive, "by-file", "--key", f"file:{file}"), key=False)
    run(*command(archive, "by-variable"))
    assert contents(tmp_path / "by-file") == contents(tmp_path / "by-variable")


def test_the_audit_names_the_key_by_its_fingerprint(archive: Path) -> None:
    """Manifest and summary tell which key it was, so that a mixed-up one is noticed, and nothing more of it."""
    run(*command(archive, "out"))
    audit = archive.parent / "out-audit"
    (manifest,) = (audit / "runs").glob("*.json")
    assert json.loads(manifest.read_bytes())["fingerprints"]["key"] == Keys(KEY).fingerprint
    assert Keys(KEY).fingerprint in (audit / "summary.json").read_text()


def test_an_unfinished_run_goes_on_with_its_own_key(archive: Path) -> None:
    """Without a key, the same command finds the run and the key that it made, and wipes it when it is done."""
    run(*command(archive, "out", "--plan-only"), key=False)
    restricted = archive.parent / "out-restricted"
    (key,) = restricted.rglob("key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    keys = Keys(parse_key(key.read_bytes()))
    said = run(*command(archive, "out"), key=False)
    assert "Going on with run" in said.stderr and "can't be repeated" in said.stdout
    (manifest,) = (archive.parent / "out-audit" / "runs").glob("*.json")
    assert json.loads(manifest.read_bytes())["fingerprints"]["key"] == keys.fingerprint
    assert not list(restricted.rglob("key")) and not list(restricted.glob("run=*"))


@pytest.mark.long
def test_a_key_given_later_begins_another_run(archive: Path) -> None:
    """A run that began with a key of its own isn't gone on with under a key that was given, nor the reverse."""
    run(*command(archive, "out", "--plan-only"), key=False)
    assert "Going on" not in run(*command(archive, "out", "--plan-only")).stderr
    assert "Going on" in run(*command(archive, "out"), key=False).stderr
    said = run(*command(archive, "out"), status=2)
    assert "another key" in said.stderr


def test_a_key_half_written_by_a_command_that_died_is_cleared(archive: Path) -> None:
    """What a command left that died while it made its key is removed by the next."""
    left = archive.parent / "out-restricted" / "run=20200101T000000Z-abcdef"
    left.mkdir(parents=True)
    (left / ".key.1.part").write_bytes(TEXT[:20])
    run(*command(archive, "out", "--plan-only"))
    assert not left.exists()


def test_a_key_made_is_a_key_taken(archive: Path, tmp_path: Path) -> None:
    """keygen prints 256 bits, another each time, or writes them to a new file that only its owner may read."""
    keys = {Keys(parse_key(run("keygen", key=False).stdout.encode())).fingerprint for _ in range(3)}
    assert len(keys) == 3
    file = tmp_path / "project.key"
    before = os.umask(0)
    try:
        said = run("keygen", "--output", file, key=False)
    finally:
        os.umask(before)
    assert said.stdout == said.stderr == "" and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "File exists" in run("keygen", "--output", file, key=False, status=2).stderr
    run(*command(archive, "out", "--key", f"file:{file}"), key=False)


def test_a_run_needs_no_client_library_for_other_keys(archive: Path) -> None:
    """What only Secret Manager needs is imported for it alone."""
    code = "import sys; from transforms.secrets import refer; refer('env:DICOMVEIL_KEY'); "
    code += "sys.exit(bool({'google.cloud.secretmanager', 'google_crc32c', 'google.auth'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"DICOMVEIL_KEY": KEY.hex()})
    assert done.returncode == 0
