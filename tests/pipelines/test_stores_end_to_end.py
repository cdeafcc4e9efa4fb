"""Archives in object storage: what comes out is what folders of this machine give, byte for byte."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import boto3
import pytest
from click.testing import CliRunner

from dicomveil.errors import InvalidInstance
from pipelines.cli import cli
from tests import emulators
from tests.corpora import KEY
from tests.emulators import Emulator
from tests.faults import ALWAYS, Request, through
from tests.pipelines.test_known import Site
from transforms.object_stores import ObjectStore
from transforms.rewrite import Rewriting

STORES = ["fake_gcs", "moto", "azurite"]


def put_archive(site: Site) -> None:
    """Two patients, three studies, references across them, names that need care, a broken file and one of another kind."""
    for name, uid, study, patient, refers in (
        ("a/1", "1.2.11", "1.2.3.1", "P1", "1.2.12"), ("a/2", "1.2.12", "1.2.3.1", "P1", "1.2.11"),
        ("b/1", "1.2.21", "1.2.3.2", "P1", "1.2.11"), ("c d+e%2F#?/ü 1", "1.2.31", "1.2.3.3", "P2", "1.2.21"),
    ):  # fmt: skip
        (site.input / name).parent.mkdir(exist_ok=True)
        site.put(name, uid=uid, study=study, patient=patient, refers=refers, frame="1.2.7.1")
    (site.input / "a" / "notes.txt").write_text("nothing")
    (site.input / "broken").write_bytes(bytes(128) + b"DICM" + b"\x02\0\x10\0UI\xff\0")


@dataclass
class Bucket:
    """Three buckets of one store: an archive's, an output's and audit's, and a restricted one."""

    server: Emulator
    store: ObjectStore
    input: str
    output: str
    restricted: str

    def copy(self, folder: Path) -> None:
        """Put what is in a folder into the archive."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(str(path.relative_to(folder)), path.read_bytes())

    def put(self, name: str, data: bytes) -> None:
        self.server.sends(self.input.partition("://")[2], f"archive/{name}", data)

    def words(self, *options: str, output: str = "") -> list[str]:
        return ["anonymize", "--input", f"{self.input}/archive", "--output", output or f"{self.output}/out",
                "--audit", f"{self.output}/audit", "--restricted", f"{self.restricted}/zone",
                "--key", "env:DICOMVEIL_KEY", *options]  # fmt: skip

    def run(self, *options: str, status: int = 0, **more: str) -> str:
        done = CliRunner().invoke(cli, self.words(*options, **more), env={"DICOMVEIL_KEY": KEY.hex()})
        assert done.exit_code == status, done.output
        return done.output

    def outputs(self) -> dict[str, bytes]:
        root = f"{self.output}/out/"
        return {it.uri.removeprefix(root): self.read(it.uri) for it in self.store.list(root)}

    def versions(self) -> dict[str, str]:
        return {it.uri: it.version for it in self.store.list(f"{self.output}/out/")}

    def read(self, uri: str) -> bytes:
        stored, _ = self.store.head(uri)
        return self.store.read(uri, stored.version, 0, stored.size)

    def summary(self) -> dict[str, Any]:
        return dict(json.loads(self.read(f"{self.output}/audit/summary.json")))


@pytest.fixture(params=STORES)
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    with bucket_of(request.getfixturevalue(request.param)) as found:
        yield found


@contextmanager
def bucket_of(server: Emulator) -> Iterator[Bucket]:
    with emulators.environment(server.env), server.store() as store:
        yield Bucket(server, store, server.bucket(), server.bucket(), server.bucket())


def outputs(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.dcm")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """What a run from folder to folder makes of it."""
    site = Site(tmp_path_factory.mktemp("site"))
    put_archive(site)
    site.run(status=3)
    return site


def test_a_store_gives_what_a_folder_gives(bucket: Bucket, site: Site) -> None:
    """Byte for byte, by two workers; the same again touches nothing, and a crosswalk in the store leads back."""
    bucket.copy(site.input)
    bucket.run("--workers", "2", status=3)
    assert bucket.outputs() == outputs(site.output)
    assert bucket.summary()["Outcomes"] == json.loads((site.audit / "summary.json").read_bytes())["Outcomes"]
    before = bucket.versions()
    assert "unchanged" in bucket.run()
    assert bucket.versions() == before
    (name, *_) = outputs(site.output)
    found = CliRunner().invoke(cli, ["lookup", "--restricted", f"{bucket.restricted}/zone", "--new", name])
    assert found.exit_code == 0 and f"{bucket.input}/archive/" in found.output


def test_outputs_say_nothing_of_their_sources(bucket: Bucket, site: Site) -> None:
    """Their metadata are two keyed tokens; what the store tells of them holds no name and no value of the archive."""
    bucket.copy(site.input)
    bucket.run(status=3)
    for stored in bucket.store.list(f"{bucket.output}/"):
        told = f"{stored} {bucket.store.head(stored.uri)[1]}"
        assert "archive" not in told and "Zubik" not in told and "1.2.3." not in told and "P1" not in told
        if stored.uri.endswith(".dcm"):
            assert set(bucket.store.head(stored.uri)[1]) == {"dicomveilsource", "dicomveilmade"}


def test_what_anothers_output_has_as_its_name_is_set_aside(bucket: Bucket, site: Site) -> None:
    """An object that says nothing of its source, or names another, is never overwritten."""
    bucket.copy(site.input)
    taken = f"{bucket.output}/out/{min(outputs(site.output))}"
    bucket.store.create(taken, [b"somebody's"])
    bucket.run("--overwrite", status=3)
    assert bucket.summary()["Outcomes"]["quarantined output-conflict"] == 1 and bucket.read(taken) == b"somebody's"


def test_the_second_night_in_a_store(bucket: Bucket, site: Site, tmp_path: Path) -> None:
    """One new, one changed, one gone: those are written or removed, and no other object gets another version."""
    bucket.copy(site.input)
    bucket.run(status=3)
    before = bucket.versions()
    other = Site(tmp_path)
    put_archive(other)
    (other.input / "a" / "2").unlink()
    other.put("b/1", uid="1.2.21", study="1.2.3.2", patient="P1", refers="1.2.31", frame="1.2.7.1", text="anew")
    other.put("b/2", uid="1.2.22", study="1.2.3.2", patient="P1", refers="1.2.21", frame="1.2.7.1")
    for name in ("b/1", "b/2"):
        bucket.put(name, (other.input / name).read_bytes())
    bucket.store.delete(f"{bucket.input}/archive/a/2")
    bucket.run("--retire")
    after = bucket.versions()
    assert bucket.summary()["Outcomes"] == {"deidentified": 2, "unchanged": 4}
    assert len(before.keys() - after.keys()) == len(after.keys() - before.keys()) == 1
    assert len({uri for uri, version in before.items() if after.get(uri, version) != version}) == 1
    other.run(status=3)
    assert bucket.outputs() == outputs(other.output)


def test_a_slash_at_the_end_is_no_other_output(bucket: Bucket, site: Site) -> None:
    """What is written goes by one name, so the ledger holds however --output is spelled."""
    bucket.copy(site.input)
    bucket.run(status=3)
    before = bucket.versions()
    told = bucket.run(output=f"{bucket.output}/out/")
    assert bucket.summary()["Outcomes"] == {"unchanged": 6}, told
    assert bucket.versions() == before


def test_a_scratch_folder_of_others_is_refused(
    fake_gcs: Emulator, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name can be foreseen, so somebody may have made it before: nothing is put into it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scratch = tmp_path / f"dicomveil-{os.getuid()}"
    with bucket_of(fake_gcs) as bucket:
        bucket.copy(site.input)
        scratch.mkdir()
        scratch.chmod(0o755)
        assert "isn't this user's alone" in " ".join(bucket.run(status=2).split())
        scratch.rmdir()
        scratch.symlink_to(tmp_path)
        bucket.run(status=2)
        assert [path.name for path in tmp_path.iterdir()] == [scratch.name]
        scratch.unlink()
        bucket.run("--plan-only")
        assert scratch.stat().st_mode & 0o777 == 0o700


def test_a_name_that_stops_a_listing_is_told_for_what_it_is(moto: Emulator, site: Site) -> None:
    """And not for a want of credentials; the name itself isn't told."""
    with bucket_of(moto) as bucket:
        bucket.copy(site.input)
        bucket.put("deep/Zyta//1", b"x")
        told = " ".join(bucket.run(status=2).split())
        assert 'an object with "//"' in told and "credentials" not in told and "Zyta" not in told


def test_a_folder_goes_into_a_store_and_out_of_one(bucket: Bucket, site: Site, tmp_path: Path) -> None:
    """Local to store and store to local, with the records where they belong."""
    out = [f"{bucket.output}/out", f"{bucket.output}/audit", f"{bucket.restricted}/zone"]
    words = ["anonymize", "--key", "env:DICOMVEIL_KEY"]
    up = [*words, "--input", str(site.input), "--output", out[0], "--audit", out[1], "--restricted", out[2]]
    done = CliRunner().invoke(cli, up, env={"DICOMVEIL_KEY": KEY.hex()})
    assert done.exit_code == 3 and bucket.outputs() == outputs(site.output), done.output
    bucket.copy(site.input)
    down = [*words, "--input", f"{bucket.input}/archive", "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, down, env={"DICOMVEIL_KEY": KEY.hex()})
    assert done.exit_code == 3 and outputs(tmp_path / "out") == outputs(site.output), done.output


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"--restricted": "{out}/zone"}, "--restricted: is in the bucket of --output"),
        ({"--restricted": ""}, "--restricted: name it"),
        ({"--output": "{in}/archive/out"}, "lies inside --input"),
        ({"--input": "{in}/nothing"}, "nothing is there"),
        ({"--output": "{scheme}://no-such-bucket-at-all/out"}, "there is no such bucket"),
        ({"--key": ""}, "--key: give one where --restricted is in a store"),
    ],
    ids=["one bucket", "no zone", "inside", "nothing", "no bucket", "no key"],
)
def test_mistakes_are_told_before_anything_is_written(
    bucket: Bucket, site: Site, change: dict[str, str], told: str
) -> None:
    """Exit status 2, and not an object more."""
    bucket.copy(site.input)
    places = {"{out}": bucket.output, "{in}": bucket.input, "{scheme}": bucket.server.scheme}
    words = bucket.words()
    for option, value in change.items():
        at = words.index(option)
        for name, place in places.items():
            value = value.replace(name, place)
        words[at : at + 2] = [option, value] if value else []
    done = CliRunner().invoke(cli, words, env={"DICOMVEIL_KEY": KEY.hex()})
    assert done.exit_code == 2 and told in " ".join(done.output.split()), done.output
    assert not list(bucket.store.list(f"{bucket.output}/"))


def test_a_key_of_the_store_encrypts_the_outputs(moto: Emulator, site: Site) -> None:
    """Its name goes with each, also with the medium's; where no name can be taken the command says so."""
    with bucket_of(moto) as bucket:
        bucket.copy(site.input)
        bucket.run("--kms-key", "alias/release", "--dicomdir", f"{bucket.output}/cd", status=3)
        for name in (f"out/{next(iter(bucket.outputs()))}", "cd/DICOMDIR"):
            assert emulators.encrypted_by(moto, f"{bucket.output}/{name}") == "alias/release"
        refused = bucket.run("--kms-key", "alias/release", output=str(site.output), status=2)
        assert "--kms-key: is for an --output in gs:// or s3://" in refused


def of_a_source(request: Request) -> bool:
    return request.method == "GET" and unquote(request.path.partition("?")[0]).endswith("archive/a/1")


def of_an_output(request: Request) -> bool:
    return request.method in ("PUT", "POST") and b".dcm" in request.path.encode() + request.body[:400]


@pytest.mark.parametrize(
    ("suits", "reason", "count", "then"),
    [(of_a_source, "unreadable", 1, 0), (of_an_output, "unwritten", 4, 3)],
    ids=["read", "write"],
)
def test_what_a_store_never_gives_or_takes_is_set_aside(
    bucket: Bucket, site: Site, suits: Callable[[Request], bool], reason: str, count: int, then: int
) -> None:
    """After all retries, while all else is done; the next run tries again, and ends as if nothing had been."""
    bucket.copy(site.input)
    with through(bucket.server, tries=2) as between:
        between.inject("503", ALWAYS, suits)
        bucket.run(status=3)
        assert between.hurt >= 2 * count
    assert bucket.summary()["Outcomes"][f"quarantined {reason}"] == count
    assert len(bucket.outputs()) == 4 - count
    bucket.run(status=then)
    assert bucket.outputs() == outputs(site.output)


def test_an_archived_object_is_told_and_left(moto: Emulator, site: Site) -> None:
    """Nothing is restored by surprise, and all else is done."""
    with bucket_of(moto) as bucket:
        bucket.copy(site.input)
        client = boto3.client("s3", endpoint_url=moto.url)
        client.put_object(Bucket=bucket.input[5:], Key="archive/cold", Body=b"x" * 200, StorageClass="GLACIER")
        bucket.run(status=3)
        assert bucket.summary()["Outcomes"]["filtered not-restored"] == 1
        assert bucket.outputs() == outputs(site.output)


@pytest.mark.parametrize(("slice", "seconds"), [(100, -1), (1, 3600)], ids=["at work", "between slices"])
def test_workers_of_other_machines_tell_their_failures_by_the_store(
    fake_gcs: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slice: int, seconds: int
) -> None:
    """In time for those that are at work to stop; and at the latest no further slice is begun."""
    monkeypatch.setattr("pipelines.local.Local.apart", True)
    monkeypatch.setattr("pipelines.local.Local.slice", slice)
    monkeypatch.setattr("pipelines.failures._POLL", 0.001)
    monkeypatch.setattr("transforms.rewrite._SECONDS", -1)
    monkeypatch.setattr("transforms.progress._SECONDS_IN_STORE", seconds)

    def refuse(*_: Any) -> None:
        time.sleep(0.3)
        raise InvalidInstance("vr")

    monkeypatch.setattr(Rewriting, "rewrite", refuse)
    site = Site(tmp_path)
    for study in range(60):
        site.put(f"{study}", uid=f"1.2.3.{study}.1", study=f"1.2.3.{study}", patient="P", frame="1.2.7.1")
    with bucket_of(fake_gcs) as bucket:
        bucket.copy(site.input)
        bucket.run("--max-failures", "2", status=1)
        told = bucket.summary()["Outcomes"]
    assert told["quarantined vr"] + told["not-attempted stopped"] == 60 and told["quarantined vr"] >= 3


_ASKED = os.environ.get("DICOMVEIL_CAMPAIGN", "")
KILLS = int(_ASKED) if _ASKED.isdigit() else 10


ENV = {"DICOMVEIL_KEY": KEY.hex(), "DICOMVEIL_LEASE_SECONDS": "3"}
ENDED = (0, 3)
"""Nothing is left to set aside where the command was killed in its last moment."""


@pytest.fixture(scope="module")
def seconds(fake_gcs: Emulator, site: Site) -> float:
    """What a run takes that nobody disturbs."""
    with bucket_of(fake_gcs) as bucket:
        bucket.copy(site.input)
        begun = time.monotonic()
        subprocess.run(_command(bucket), env=os.environ | ENV, capture_output=True, check=False)
        return time.monotonic() - begun


@pytest.mark.long
@pytest.mark.parametrize("seed", range(KILLS))
def test_a_killed_run_goes_on_where_it_was(fake_gcs: Emulator, site: Site, seconds: float, seed: int) -> None:
    """Killed at some moment, workers and all or the command alone, and started again: the end is the undisturbed one."""
    with bucket_of(fake_gcs) as bucket:
        bucket.copy(site.input)
        env, words = os.environ | ENV, _command(bucket)
        command = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   start_new_session=True)  # fmt: skip
        time.sleep(random.Random(seed).uniform(0.2, 1) * seconds)
        if seed % 2:
            os.kill(command.pid, signal.SIGKILL)  # its workers live on for a while
        else:
            os.killpg(command.pid, signal.SIGKILL)
        command.wait()
        patience = time.monotonic() + 90
        while True:
            done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
            if done.returncode in ENDED or time.monotonic() > patience:
                break
            assert "holds" in done.stderr or "at work" in done.stderr, done.stderr
            time.sleep(1)
        assert done.returncode in ENDED and bucket.outputs() == outputs(site.output), done.stderr


def _command(bucket: Bucket) -> list[str]:
    return [sys.executable, "-m", "pipelines", *bucket.words("--workers", "2")]
