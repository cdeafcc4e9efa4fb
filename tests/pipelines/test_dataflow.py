"""Runs handed to Dataflow, as far as that goes without Google: real staging into a store, real jobs by REST, and the very
pipelines that were staged carried out by another process."""

import json
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from apache_beam.internal.gcp import auth
from click.testing import CliRunner, Result

from dicomveil.testing import write_demo_study
from pipelines.cli import cli
from tests.corpora import KEY
from tests.dataflow_service import DataflowService, dataflow
from tests.emulators import Emulator, environment
from tests.secret_manager import PROJECT, SecretManager, serving
from tests.traces import traces
from transforms import secret_manager, secrets

REFERENCE = f"gcp-secret:{PROJECT}/release/versions/1"


class Cloud:
    """Buckets, a secret, and the service that jobs go to."""

    def __init__(self, folder: Path, server: Emulator, service: DataflowService) -> None:
        self.folder, self.service = folder, service
        self.input, self.output, self.restricted = (server.bucket() for _ in range(3))
        write_demo_study(folder / "in")
        with server.store() as store:
            self.store = store
            for path in (folder / "in").rglob("*.dcm"):
                store.create(f"{self.input}/archive/{path.name}", [path.read_bytes()])

    def words(self, command: str = "anonymize") -> list[str]:
        return [command, "--input", f"{self.input}/archive", "--output", f"{self.output}/out", "--audit",
                f"{self.output}/audit", "--restricted", f"{self.restricted}/zone", "--key", REFERENCE]  # fmt: skip

    def on_dataflow(self) -> list[str]:
        return ["--runner=DataflowRunner", "--project=hospital", "--region=europe-west4", "--no_auth",
                f"--temp_location={self.restricted}/temp", "--sdk_container_image=example/dicomveil:0.1.0",
                "--sdk_location=container", f"--dataflow_endpoint={self.service.url}"]  # fmt: skip

    def run(self, *words: object, status: int = 0) -> Result:
        done = CliRunner().invoke(cli, [str(word) for word in words])
        assert done.exit_code == status, done.output + "".join(self.service.said)
        return done

    def outputs(self) -> dict[str, bytes]:
        root = f"{self.output}/out/"
        found = ((it, it.uri.removeprefix(root)) for it in self.store.list(root))
        return {name: self.store.read(it.uri, it.version, 0, it.size) for it, name in found}


@pytest.fixture
def cloud(fake_gcs: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)  # else Beam looks for them for half a minute
    secrets._resolve.cache_clear()
    with serving(SecretManager({"release": [KEY.hex().encode()]})) as manager, dataflow() as service:
        with environment(fake_gcs.env | {secret_manager.EMULATOR: manager.address}):
            yield Cloud(tmp_path, fake_gcs, service)
    secrets._resolve.cache_clear()


def test_staged_pipelines_come_to_the_same(cloud: Cloud) -> None:
    """Each pipeline of a run is a job of its own; what another process makes of them is what this machine would."""
    cloud.run(*cloud.words(), *cloud.on_dataflow(), "--dataflow_kms_key=projects/hospital/key")
    environments = [job["environment"] for job in cloud.service.jobs]
    assert {it["serviceKmsKeyName"] for it in environments} == {"projects/hospital/key"}
    stages = [job["name"].rpartition("z-")[2].partition("-")[2] for job in cloud.service.jobs]
    assert stages == ["plan", "slice-0"]
    local = cloud.folder / "local"
    cloud.run("anonymize", "--input", cloud.folder / "in", "--output", local, "--key", REFERENCE)
    assert cloud.outputs() == {str(p.relative_to(local)): p.read_bytes() for p in local.rglob("*.dcm")} != {}


def test_a_job_tells_how_far_it_is(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the stages that the service has made of it, as long as it is at work."""
    monkeypatch.setattr("pipelines.progress._LINE_EVERY", 0.5)
    cloud.run(*cloud.words(), *cloud.on_dataflow())
    told = capfd.readouterr().err
    assert all(f"\n{stage} (1 of 2 tasks): " in told for stage in ("Planning", "De-identifying")), told


def test_jobs_say_nothing_of_the_originals(cloud: Cloud) -> None:
    """Neither what is asked of the service nor what is staged holds a key, an original, or an input's place."""
    ds = pydicom.dcmread(next((cloud.folder / "in").rglob("CT*.dcm")))
    (cloud.folder / "request.yaml").write_text(f"DicomVersion: 2023b\nResources: [{{PatientID: {ds.PatientID}}}]\n")
    (cloud.folder / "filter.yaml").write_text(f"StudyInstanceUID: [{ds.StudyInstanceUID}]\n")
    asked = ["--request", cloud.folder / "request.yaml", "--filter", cloud.folder / "filter.yaml"]
    cloud.run(*cloud.words(), *asked, *cloud.on_dataflow())
    named = {"study": ds.StudyInstanceUID, "patient": ds.PatientID, "name": str(ds.PatientName), "input": cloud.input}
    sought = {name: text.encode() for name, text in named.items()} | {"key": KEY}
    staged = list(cloud.store.list(f"{cloud.restricted}/temp/"))
    told = [cloud.store.read(it.uri, it.version, 0, it.size) for it in staged]
    told += [json.dumps(job).encode() for job in cloud.service.jobs]
    there = {"output": f"{cloud.output}/out".encode()}
    assert len(staged) >= 2 and traces(told, sought | there) == {"output"}


@pytest.mark.parametrize(
    ("left", "message"),
    [
        ("--project", "--project: name"),
        ("--region", "--region: name"),
        ("--temp_location", "--temp_location: name"),
        ("--sdk_container_image", "--sdk_container_image: name"),
    ],
)
def test_what_dataflow_needs_is_asked_for(cloud: Cloud, left: str, message: str) -> None:
    words = [word for word in cloud.on_dataflow() if not word.startswith(left)]
    assert message in cloud.run(*cloud.words(), *words, status=2).output
    assert cloud.service.jobs == []


def test_what_workers_cannot_see_is_refused(cloud: Cloud) -> None:
    """Folders of this machine, and keys that are only here; all at once."""
    words = ["anonymize", "--input", cloud.folder / "in", "--output", cloud.folder / "out", "--key", "env:NOWHERE"]
    told = " ".join(cloud.run(*words, *cloud.on_dataflow(), status=2).output.split())
    assert all(f"{name}: is a folder of this machine" in told for name in ("--input", "--output", "--restricted"))
    assert "--key: must be a gcp-secret:" in told and cloud.service.jobs == []


def test_originals_are_kept_out_of_shared_buckets(cloud: Cloud) -> None:
    """What passes between stages is no less restricted than what leads back."""
    words = [word for word in cloud.on_dataflow() if not word.startswith("--temp_location")]
    told = cloud.run(*cloud.words(), *words, f"--temp_location={cloud.output}/temp", status=2).output
    assert "will hold originals" in " ".join(told.split())
