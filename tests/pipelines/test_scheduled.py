"""Scheduled runs over object storage: whatever the scheduler does, one run is at work and every instance comes out."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from dicomveil.testing import write_demo_study
from tests import emulators
from tests.corpora import KEY
from tests.pipelines.test_anonymize import contents
from transforms.lease import LASTING, LEASE, Note
from transforms.object_stores import NotThere, scheme_of, store_of

REQUEST = {"DicomVersion": "2026d"}
SHORT = "2"


@dataclass
class Night:
    """A job over buckets, and the commands that a scheduler starts of it."""

    folder: Path
    server: emulators.Emulator
    places: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.places = {place: f"{self.server.bucket()}/{place}" for place in ("input", "output", "audit", "restricted")}
        bucket = self.places["input"].split("/")[2]
        for file in (path for path in (self.folder / "in").rglob("*") if path.is_file()):
            self.server.sends(bucket, f"input/{file.relative_to(self.folder / 'in')}", file.read_bytes())
        job = {"command": "anonymize", "key": "env:DICOMVEIL_KEY", "request": REQUEST, **self.places}
        (self.folder / "night.yaml").write_text(yaml.safe_dump(job))

    def start(self, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pipelines", "run", str(self.folder / "night.yaml"), *more]
        environment = os.environ | self.server.env | {"DICOMVEIL_KEY": KEY.hex(), LASTING: SHORT}
        self.started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return self.started[-1]

    def holder(self) -> str:
        """The run that holds the zone; "" as long as none does."""
        store, uri = store_of(self.server.scheme), f"{self.places['restricted']}/{LEASE}"
        try:
            note = Note.decode(store.read(uri, "", 0, 4096))
        except NotThere:
            return ""
        return note.run if note.holder else ""

    def stored(self, place: str) -> dict[str, str]:
        """Every object of a place, by its name there, with the digest of its bytes."""
        root = self.places[place]
        store = store_of(scheme_of(root))
        return {
            found.uri.removeprefix(f"{root}/"): hashlib.sha256(store.read(found.uri, "", 0, found.size)).hexdigest()
            for found in store.list(f"{root}/")
        }

    def manifests(self) -> list[dict]:
        root = self.places["restricted"]
        store = store_of(scheme_of(root))
        return [json.loads(store.read(found.uri, "", 0, found.size)) for found in store.list(f"{root}/runs/")]


@pytest.fixture(params=["fake-gcs-server", "moto"])
def night(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Night]:
    write_demo_study(tmp_path / "in")
    with emulators.SERVERS[request.param]() as server, emulators.environment(server.env):
        store_of.cache_clear()
        night = Night(tmp_path, server)
        yield night
        for it in night.started:
            it.kill()
            it.communicate()
    store_of.cache_clear()


def undisturbed(folder: Path) -> dict[str, str]:
    """What the same request makes of the same instances in folders."""
    job = {"command": "anonymize", "key": "env:DICOMVEIL_KEY", "request": REQUEST, "input": "in", "output": "out"}
    (folder / "plain.yaml").write_text(yaml.safe_dump(job))
    command = [sys.executable, "-m", "pipelines", "run", str(folder / "plain.yaml")]
    subprocess.run(command, env=os.environ | {"DICOMVEIL_KEY": KEY.hex()}, check=True, capture_output=True)
    return contents(folder / "out")


@pytest.mark.long
def test_two_nights_at_once_are_one(night: Night) -> None:
    """Of two runs that a scheduler starts at once one is refused, is told by whom, and harms nothing."""
    first, second = night.start(), night.start()
    ended = {it: it.communicate(timeout=300) for it in (first, second)}
    assert sorted(it.returncode for it in ended) == [0, 2], ended
    refused = next(told for it, (_, told) in ended.items() if it.returncode == 2)
    assert "Another run is at work in --restricted" in refused
    assert "by the store's clock" in refused
    (manifest,) = night.manifests()
    assert set(manifest["lease"]) == {"holder", "version"}
    assert night.stored("output") == undisturbed(night.folder)
    assert night.holder() == ""


@pytest.mark.long
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "paused"])
def test_the_next_run_takes_over_and_the_last_one_cannot_come_back(night: Night, end: signal.Signals) -> None:
    """A run that died or slept is overtaken once its lease has run out; waking up, it commits nothing and says why."""
    last = night.start()
    until(lambda: bool(night.holder()))
    overtaken = night.holder()
    last.send_signal(end)
    refused = 0
    while True:
        heir = night.start()
        _, told = heir.communicate(timeout=300)
        if heir.returncode != 2:
            break
        assert f"at work in --restricted: {overtaken}" in told
        refused += 1
        assert refused < 20
    assert heir.returncode == 0, told
    (manifest,) = night.manifests()
    assert night.stored("output") == undisturbed(night.folder)
    before = [night.stored(place) for place in ("output", "audit", "restricted")]
    if end == signal.SIGSTOP:
        last.send_signal(signal.SIGCONT)
        _, told = last.communicate(timeout=60)
        assert last.returncode == 1
        assert "Another run has taken over --restricted" in told
    else:
        assert last.wait() == -signal.SIGKILL
    assert [manifest] == night.manifests()
    assert [night.stored(place) for place in ("output", "audit")] == before[:2]


def until(done) -> None:  # type: ignore[no-untyped-def]
    patience = time.monotonic() + 60
    while not done():
        assert time.monotonic() < patience
        time.sleep(0.05)


def test_a_dry_run_tells_what_it_takes_of_the_stores(night: Night) -> None:
    """Requests and bytes by place; nothing is written but what the lease leaves."""
    tried = night.start("--dry-run")
    _, told = tried.communicate(timeout=300)
    assert tried.returncode == 0, told
    assert f"--input {night.server.scheme}://" in told
    assert "egress is charged where" in told
    assert night.stored("output") == night.stored("audit") == {}
    assert set(night.stored("restricted")) <= {LEASE, "lease-clock"}
