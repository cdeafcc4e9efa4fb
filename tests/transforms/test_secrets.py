"""From a reference to a key: where keys may be kept, what is refused, and what a worker holds it to."""

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from dicomveil.errors import DicomveilError, KeyRefused
from dicomveil.keys import Keys
from tests.corpora import KEY
from tests.secret_manager import PROJECT, SecretManager, serving
from transforms import secret_manager, secrets
from transforms.secrets import KeyReference, destroy_ephemeral, ephemeral, refer

TEXT = KEY.hex().encode()
OTHER = KEY[::-1].hex().encode()
LATEST = f"gcp-secret:{PROJECT}/release/versions/latest"


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins as a process does that has resolved no key yet."""
    monkeypatch.setattr(secret_manager, "PATIENCE", 0.5)
    secrets._resolve.cache_clear()
    yield
    secrets._resolve.cache_clear()


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretManager]:
    """A Secret Manager with two versions of one secret; the second holds the key."""
    with serving(SecretManager({"release": [OTHER, TEXT], "gone": [None]}, {"stable": 1})) as manager:
        monkeypatch.setenv(secret_manager.EMULATOR, manager.address)
        yield manager


def refused(reference: str) -> str:
    """The message of a refusal, which tells nothing of key, payload or place."""
    with pytest.raises(KeyRefused) as told:
        refer(reference)
    message = str(told.value) + repr(told.value) + str(vars(told.value))
    for secret in (TEXT.decode(), OTHER.decode(), KEY.hex().upper(), "hospital", "4711"):
        assert secret not in message
    return str(told.value)


def key_file(folder: Path, content: bytes = TEXT, mode: int = 0o600) -> Path:
    path = folder / "project.key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_file_and_a_variable_lead_to_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same key by either way is the same key, and nothing of it stands in what travels."""
    monkeypatch.setenv("RELEASE_KEY", KEY.hex() + "\n")
    monkeypatch.chdir(tmp_path)
    key_file(tmp_path)
    by_variable, by_file = refer("env:RELEASE_KEY"), refer("file:project.key")
    assert by_variable == KeyReference("env:RELEASE_KEY", Keys(KEY).fingerprint)
    assert by_file == KeyReference(f"file:{tmp_path / 'project.key'}", Keys(KEY).fingerprint)
    assert by_file.keys().derive("uid", b"1.2.3") == Keys(KEY).derive("uid", b"1.2.3")
    assert KEY not in pickle.dumps(by_file) and TEXT not in pickle.dumps(by_variable)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644, 0o660])
def test_a_key_file_for_others_is_refused(mode: int, tmp_path: Path) -> None:
    """Any right of group or others on the file is one too many."""
    assert "chmod 600" in refused(f"file:{key_file(tmp_path, mode=mode)}")


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_file_of_its_owner_is_taken(mode: int, tmp_path: Path) -> None:
    """What only its owner may read is taken."""
    assert refer(f"file:{key_file(tmp_path, mode=mode)}").fingerprint == Keys(KEY).fingerprint


REFUSED: dict[str, tuple[Callable[[Path], str], str]] = {
    "nothing": (lambda _: "", "--key takes"),
    "the key itself": (lambda _: KEY.hex(), "never the key itself"),
    "an unknown kind": (lambda _: f"vault:{KEY.hex()}", "--key takes"),
    "no place": (lambda _: "file:", "--key takes"),
    "no such variable": (lambda _: "env:NOWHERE", "is not set"),
    "a variable that can't be": (lambda _: "env:\udcff\0=", "is not set"),
    "no such file": (lambda folder: f"file:{folder}/none", "can't be read"),
    "a folder": (lambda folder: f"file:{folder}", "can't be read"),
    "no text of a key": (lambda folder: f"file:{key_file(folder, b'!' * 64)}", "neither hexadecimal nor base64"),
    "too short": (lambda folder: f"file:{key_file(folder, TEXT[:62])}", "shorter than 32 bytes"),
    "a digit lost": (lambda folder: f"file:{key_file(folder, TEXT[:-1])}", "odd number"),
    "empty": (lambda folder: f"file:{key_file(folder, b'')}", "shorter than 32 bytes"),
    "too long": (lambda folder: f"file:{key_file(folder, TEXT * 2000)}", "too long"),
    "one byte": (lambda folder: f"file:{key_file(folder, b'ab' * 32)}", "isn't random"),
    "a pass phrase": (lambda folder: f"file:{key_file(folder, b'correct horse battery staple, once'.hex().encode())}", "isn't random"),
    "words": (lambda folder: f"file:{key_file(folder, b'CorrectHorseBatteryStaple' * 2)}", "isn't random"),
    "days": (lambda folder: f"file:{key_file(folder, b'20240101193112312020022919870604' * 2)}", "isn't random"),
    "0x": (lambda folder: f"file:{key_file(folder, b'0x' + TEXT)}", "leave that out"),
    "128 bits twice": (lambda folder: f"file:{key_file(folder, TEXT[:32] * 2)}", "isn't random"),
    "counting": (lambda folder: f"file:{key_file(folder, bytes(range(32)).hex().encode())}", "only counts"),
    "counting down": (lambda folder: f"file:{key_file(folder, bytes(range(99, 60, -1)).hex().encode())}", "only counts"),
    "no secret's name": (lambda _: "gcp-secret:hospital/release", "gcp-secret:projects/P/secrets/S/versions/V"),
    "a region's secret": (lambda _: "gcp-secret:projects/hospital/locations/x/secrets/s/versions/1", "gcp-secret:projects/P"),
}  # fmt: skip


@pytest.mark.parametrize(("reference", "message"), REFUSED.values(), ids=REFUSED)
def test_what_leads_to_no_key_is_refused(reference: Callable[[Path], str], message: str, tmp_path: Path) -> None:
    """A reference that leads to no usable key gets one clear message, which quotes nothing."""
    assert message in refused(reference(tmp_path))


def test_another_key_is_refused_by_a_worker(tmp_path: Path) -> None:
    """A worker that finds another key than the run began with doesn't work with it."""
    reference = refer(f"file:{key_file(tmp_path)}")
    secrets._resolve.cache_clear()
    key_file(tmp_path, OTHER)
    with pytest.raises(KeyRefused, match="not the one that this run began with"):
        pickle.loads(pickle.dumps(reference)).keys()


def test_a_worker_resolves_once(manager: SecretManager) -> None:
    """However many steps a process has, it asks for the key once."""
    reference = refer(f"gcp-secret:{PROJECT}/release/versions/2")
    assert len({id(reference.keys()) for _ in range(5)}) == 1
    assert len(manager.asked) == 1


@pytest.mark.parametrize(("asked", "found"), [("latest", 2), ("stable", 1), ("1", 1), ("2", 2)])
def test_a_secrets_version_is_pinned(asked: str, found: int, manager: SecretManager) -> None:
    """`latest` and other aliases become the version that answered, so that a later worker finds the same key."""
    reference = refer(f"gcp-secret:{PROJECT}/release/versions/{asked}")
    assert reference.reference == f"gcp-secret:{PROJECT}/release/versions/{found}"
    assert reference.fingerprint == Keys([KEY[::-1], KEY][found - 1]).fingerprint
    manager.versions["release"].append((b"\x01" + KEY[1:]).hex().encode())
    assert reference.keys().fingerprint == reference.fingerprint
    assert manager.asked[-1][0] == f"{PROJECT}/release/versions/{found}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{PROJECT}/other/versions/latest", "no such secret"),
        (f"{PROJECT}/release/versions/3", "no such secret"),
        (f"{PROJECT}/gone/versions/latest", "disabled or destroyed"),
    ],
)
def test_a_version_that_is_not_there_is_refused(name: str, message: str, manager: SecretManager) -> None:
    """A secret or version that isn't there, or was disabled, is told as that."""
    assert message in refused(f"gcp-secret:{name}")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "roles/secretmanager.secretAccessor"),
        (grpc.StatusCode.UNAUTHENTICATED, "credentials"),
        (grpc.StatusCode.INVALID_ARGUMENT, "check what --key names"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "quota"),
        (grpc.StatusCode.UNAVAILABLE, "can't be reached"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "can't be reached"),
        (grpc.StatusCode.INTERNAL, "can't be reached"),
    ],
)
def test_a_refusal_is_told_on(status: grpc.StatusCode, message: str, manager: SecretManager) -> None:
    """Each status of the service becomes one sentence that says what to do."""
    manager.refused = status
    assert message in refused(LATEST)


def test_a_short_outage_is_waited_for(manager: SecretManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is away for a moment is asked again."""
    monkeypatch.setattr(secret_manager, "PATIENCE", 20.0)
    manager.refused = grpc.StatusCode.UNAVAILABLE
    answer = manager.access

    def away_at_first(*request: object) -> object:
        manager.refused = None if len(manager.asked) else manager.refused
        return answer(*request)

    manager.access = away_at_first  # type: ignore[method-assign,assignment]
    assert refer(LATEST).fingerprint == Keys(KEY).fingerprint and len(manager.asked) == 2


DAMAGED: dict[str, tuple[Callable[..., object], str]] = {
    "another payload": (lambda answer: setattr(answer.payload, "data", OTHER), "damaged on its way"),
    "another checksum": (lambda answer: setattr(answer.payload, "data_crc32c", 1), "damaged on its way"),
    "no checksum": (lambda answer: setattr(answer.payload, "data_crc32c", None), "damaged on its way"),
    "no payload": (lambda answer: setattr(answer, "payload", None), "damaged on its way"),
    "another secret": (lambda answer: setattr(answer, "name", f"{PROJECT}/other/versions/2"), "for another secret"),
    "no version": (lambda answer: setattr(answer, "name", f"{PROJECT}/release/versions/latest"), "for another secret"),
    "another version": (lambda answer: setattr(answer, "name", f"{PROJECT}/release/versions/7"), "another version"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGED.values(), ids=DAMAGED)
def test_an_answer_is_checked(damage: Callable[..., object], message: str, manager: SecretManager) -> None:
    """A payload that doesn't fit its CRC32C, or an answer to another question, is no key."""
    manager.answered = damage
    assert message in refused(f"gcp-secret:{PROJECT}/release/versions/2")


def test_what_a_secret_holds_must_be_a_key(manager: SecretManager) -> None:
    """A secret that holds something else than a key is refused as a file would be."""
    manager.versions["release"] = [b"correct horse", TEXT[:40]]
    assert "neither hexadecimal nor base64" in refused(f"gcp-secret:{PROJECT}/release/versions/1")
    assert "shorter than 32 bytes" in refused(LATEST)


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address where nobody answers ends in one message, not in silence."""
    monkeypatch.setenv(secret_manager.EMULATOR, "127.0.0.1:1")
    assert "can't be reached" in refused(LATEST)


def test_without_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that Google doesn't know is told so."""
    monkeypatch.delenv(secret_manager.EMULATOR, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    assert "credentials" in refused(LATEST)


@pytest.mark.parametrize("missing", ["google_crc32c", "google.api_core.exceptions", "google.cloud.secretmanager"])
def test_without_the_client_library(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client library is an extra, and its absence names it."""
    monkeypatch.setitem(sys.modules, missing, None)
    assert "pip install 'dicomveil[gcp]'" in refused(LATEST)


def test_what_a_version_holds_is_not_shown() -> None:
    """The value that carries a payload shows its name alone."""
    assert "payload" not in repr(secret_manager.SecretVersion("projects/p/secrets/s/versions/1", TEXT))


def test_an_ephemeral_key_is_made_once_and_wiped(tmp_path: Path) -> None:
    """A run's own key is found again, is its owner's alone, and leaves nothing, not even half-written."""
    folder = tmp_path / "run=1"
    before = os.umask(0)
    try:
        reference = ephemeral(str(folder))
    finally:
        os.umask(before)
    assert ephemeral(str(folder)) == reference
    path = folder / "key"
    assert path.stat().st_mode & 0o777 == 0o600 and folder.stat().st_mode & 0o777 == 0o700
    linked = tmp_path / "the same bytes"
    os.link(path, linked)
    (folder / ".key.1.part").write_bytes(TEXT[:20])
    destroy_ephemeral(str(folder))
    assert not list(folder.iterdir()) and set(linked.read_bytes()) == {0}
    with pytest.raises(DicomveilError):
        KeyReference(reference, Keys(KEY).fingerprint).keys()
