"""A canary as the key: it is found nowhere but where its owner put it, in no form, while a run is on or after it."""

import base64
import bz2
import hashlib
import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import apache_beam as beam
import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner
from apache_beam.runners.dataflow.internal import apiclient
from click.testing import CliRunner

from dicomveil.keys import Keys
from dicomveil.testing import write_demo_study
from pipelines.cli import cli
from tests.pipelines.test_anonymize import instance, run
from tests.secret_manager import PROJECT, SecretManager, serving
from tests.traces import secrets_of, traces, traces_below
from transforms import secret_manager, secrets

pytestmark = pytest.mark.long

PURPOSES = json.loads((Path(__file__).parents[1] / "docs" / "identity-vectors.json").read_text())["labels"]
OTHER = hashlib.sha256(b"another canary").digest()
TEMPLATE = [
    "--runner=DataflowRunner",
    "--project=project",
    "--region=europe-west4",
    "--temp_location=gs://bucket/temp",
    "--staging_location=gs://bucket/staging",
    "--template_location=gs://bucket/template",
    "--sdk_location=container",
    "--no_auth",
]


@pytest.fixture
def key() -> bytes:
    """A key that no file has ever held."""
    return hashlib.sha256(b"a canary").digest()


@pytest.fixture
def canary(key: bytes) -> dict[str, bytes]:
    return secrets_of(key, PURPOSES)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A study, and inputs that are set aside at every stage: no DICOM, cut off, in conflict."""
    folder = tmp_path / "in"
    write_demo_study(folder / "study")
    (folder / "letter.txt").write_text("a letter")
    (folder / "cut").write_bytes(instance("1.2.3.1")[:-3])
    for number in (1, 2):
        (folder / f"conflict {number}").write_bytes(instance("1.2.3.2", text=f"text {number}"))
    return folder


@pytest.fixture
def zone(tmp_path: Path) -> Path:
    """All that a run may write to, the temporary folder of its processes too."""
    (tmp_path / "zone" / "tmp").mkdir(parents=True)
    return tmp_path / "zone"


def spoken(archive: Path, zone: Path, *more: object, status: int = 0, **environment: str) -> list[bytes]:
    """A run with two workers, and what it said."""
    command = ["anonymize", "--input", archive, "--output", zone / "out", "--workers", 2, *more]
    said = run(*command, key=False, status=status, TMPDIR=str(zone / "tmp"), **environment)
    return [said.stdout.encode(), said.stderr.encode()]


def by_variable(key: bytes, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    yield "env:CANARY", {"CANARY": key.hex()}


def by_file(key: bytes, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    path = folder / "canary.key"
    path.write_bytes(base64.b64encode(key))
    path.chmod(0o600)
    yield f"file:{path}", {}


def by_secret(key: bytes, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with serving(SecretManager({"release": [key.hex().encode()]})) as manager:
        reference = f"gcp-secret:{PROJECT}/release/versions/latest"
        yield reference, {secret_manager.EMULATOR: manager.address, "GRPC_VERBOSITY": "DEBUG"}


Way = Callable[[bytes, Path], Iterator[tuple[str, dict[str, str]]]]
WAYS: dict[str, Way] = {"env": by_variable, "file": by_file, "gcp-secret": by_secret}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_run_leaves_no_trace_of_its_key(
    way: Way, key: bytes, canary: dict[str, bytes], archive: Path, zone: Path, tmp_path: Path
) -> None:
    """Plan, logs, tables, outputs and messages hold no key, neither half-way nor at the end nor after a refusal."""
    for reference, environment in way(key, tmp_path):
        said = spoken(archive, zone, "--key", reference, "--plan-only", **environment)
        assert (zone / "out-restricted").exists() and list(zone.rglob("*.parquet"))
        assert traces(said, canary) == set() and traces_below(zone, canary) == {}
        said = spoken(archive, zone, "--key", reference, status=3, **environment)
        assert list((zone / "out").rglob("*.dcm"))
        assert traces(said, canary) == set() and traces_below(zone, canary) == {}
        request = tmp_path / "request.yaml"
        request.write_text("Supplement: false\n")
        said = spoken(archive, zone, "--key", reference, "--request", request, status=2, **environment)
        assert traces(said, canary) == set() and traces_below(zone, canary) == {}


def test_a_run_that_fails_leaves_no_trace_of_its_key(
    key: bytes, canary: dict[str, bytes], archive: Path, zone: Path
) -> None:
    """What workers write when they find another key, or stop for want of permission, is no key either."""
    with serving(SecretManager({"release": [key.hex().encode()]})) as manager:
        environment = {secret_manager.EMULATOR: manager.address}
        reference = f"gcp-secret:{PROJECT}/release/versions/latest"
        other = {"second": OTHER}
        manager.answered = lambda _: manager.versions["release"].__setitem__(0, other["second"].hex().encode())
        said = spoken(archive, zone, "--key", reference, status=1, **environment)
        assert b"A worker failed" in said[1] and list(zone.rglob("workers.log"))
        manager.refused = grpc.StatusCode.PERMISSION_DENIED
        said += spoken(archive, zone, "--key", reference, status=2, **environment)
    assert traces(said, canary | other) == set() and traces_below(zone, canary | other) == {}


def test_a_key_given_by_mistake_is_not_repeated(
    key: bytes, canary: dict[str, bytes], archive: Path, zone: Path
) -> None:
    """The key itself instead of a reference, or in the wrong place, is refused without a word of it."""
    text = key.hex()
    said = spoken(archive, zone, "--key", text, status=2)
    said += spoken(archive, zone, "--key", f"env:{text}", status=2)
    said += spoken(archive, zone, "--key", f"file:{text}", status=2)
    said += spoken(archive, zone, "--key", f"gcp-secret:{text}", status=2)
    said += spoken(archive, zone, "--key", "env:CANARY", status=2, CANARY=text[:-2] + "!!")
    canary["most of it"] = key[:31]
    assert all(said[1::2]) and traces(said, canary) == set() and traces_below(zone, canary) == {}


def test_a_runs_own_key_is_in_its_file_alone(archive: Path, zone: Path) -> None:
    """An ephemeral key stands in one file while its run isn't done, and nowhere after."""
    said = spoken(archive, zone, "--plan-only")
    (path,) = (zone / "out-restricted").glob("run=*/key")
    canary = secrets_of(bytes.fromhex(path.read_text()), PURPOSES)
    assert traces(said, canary) == set()
    assert traces_below(zone, canary) == {str(path.relative_to(zone)): {"key"}}
    said = spoken(archive, zone, status=3)
    assert b"can't be repeated" in said[0]
    assert traces(said, canary) == set() and traces_below(zone, canary) == {}


class Graphs:
    """What each pipeline of a run is sent away as: as a portable graph, and as a job of Dataflow."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.portable: list[bytes] = []
        self.staged: list[tuple[str, bytes]] = []
        whole = beam.Pipeline.run
        monkeypatch.setattr(
            beam.Pipeline, "run", lambda pipeline, *more: (self.keep(pipeline), whole(pipeline, *more))[1]
        )
        monkeypatch.setattr(apiclient.DataflowApplicationClient, "stage_file", self.stage)

    def keep(self, pipeline: beam.Pipeline) -> None:
        self.portable.append(pipeline.to_runner_api().SerializeToString())
        self.portable.append(repr(pipeline._options.get_all_options()).encode())
        options = PipelineOptions([*TEMPLATE, f"--job_name=job-{len(self.portable)}"])
        DataflowRunner().run_pipeline(pipeline, options)

    def stage(self, folder: str, name: str, stream: io.BytesIO, *more: object, **others: object) -> None:
        self.staged.append((name, stream.read()))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_no_graph_carries_the_key(
    way: Way,
    key: bytes,
    canary: dict[str, bytes],
    archive: Path,
    zone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither the pipelines with their pickled steps and options, nor the jobs that Dataflow would get, hold the key."""
    graphs = Graphs(monkeypatch)
    secrets._resolve.cache_clear()
    for reference, environment in way(key, tmp_path):
        command = ["anonymize", "--input", archive, "--output", zone / "out", "--key", reference]
        done = CliRunner().invoke(cli, list(map(str, command)), env=environment)
        assert done.exit_code == 3, done.output
        fingerprint = Keys(key).fingerprint.encode()
        assert {name for name, _ in graphs.staged} >= {"pipeline.pb", "template"}
        assert len(graphs.portable) >= 4  # a graph and its options, for the plan and for each slice
        both = [*graphs.portable, *[content for _, content in graphs.staged]]
        assert traces(both, canary) == set()
        # That the search looks into pickled steps is shown by what does travel: which key it is.
        assert traces(graphs.portable[:1], {"fingerprint": fingerprint}) == {"fingerprint"}
        assert traces([dict(graphs.staged)["pipeline.pb"]], {"fingerprint": fingerprint}) == {"fingerprint"}
    secrets._resolve.cache_clear()


def test_no_graph_carries_originals(archive: Path, zone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is selected, taken, listed and known before lies in the restricted zone; what is sent away leads there."""
    graphs = Graphs(monkeypatch)
    study = next(archive.rglob("*.dcm"))
    ds = pydicom.dcmread(study)
    (tmp_path / "filter.yaml").write_text(f"StudyInstanceUID: [{ds.StudyInstanceUID}]\n")
    (tmp_path / "request.yaml").write_text(f"Resources: [{{PatientID: {ds.PatientID}}}]\nDicomVersion: 2023b\n")
    (tmp_path / "crosswalk.csv").write_text(f"kind,original,new\npatient,{ds.PatientID},STUDY-7\n")
    command = ["anonymize", "--input", archive, "--output", zone / "out", "--key", "env:CANARY"]
    command += ["--filter", tmp_path / "filter.yaml", "--request", tmp_path / "request.yaml"]
    command += ["--crosswalk-in", tmp_path / "crosswalk.csv"]
    done = CliRunner().invoke(cli, list(map(str, command)), env={"CANARY": hashlib.sha256(b"a key").hexdigest()})
    assert done.exit_code == 0, done.output
    planted = {"study": ds.StudyInstanceUID, "patient": ds.PatientID, "name": str(ds.PatientName), "file": study.name}
    named = {name: text.encode() for name, text in planted.items()} | {"input": str(archive).encode()}
    both = [*graphs.portable, *[content for _, content in graphs.staged]]
    assert traces(both, named | {"output": str(zone / "out").encode()}) == {"output"}  # which does travel


class _Careless(beam.DoFn):
    def __init__(self, secret: object) -> None:
        self.secret = secret

    def process(self, element: int) -> None:
        return None


def graph(secret: object) -> bytes:
    pipeline = beam.Pipeline()
    _ = pipeline | beam.Create([1]) | beam.ParDo(_Careless(secret))
    return bytes(pipeline.to_runner_api().SerializeToString())


def parquet(secret: object) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table({"a": [secret] * 3}), written, compression="zstd")
    return written.getvalue()


HIDDEN: dict[str, Callable[[bytes], bytes]] = {
    "bytes": lambda key: b"x" + key + b"y",
    "digits": lambda key: b"key=" + key.hex().upper().encode(),
    "base64": lambda key: base64.b64encode(b"four" + key + b"more"),
    "base64 for URLs": lambda key: base64.urlsafe_b64encode(b"fives" + key),
    "a literal": lambda key: repr({"key": key}).encode(),
    "a pickle": lambda key: pickle.dumps({"key": key}),
    "a packed pickle": lambda key: b"head" + bz2.compress(pickle.dumps([key])),
    "a pickled step": lambda key: pickler.dumps(_Careless(key)),
    "a step of a graph": graph,
    "a step's text": lambda key: graph(key.hex()),
    "an element of a graph": lambda key: graph([{"key": base64.b64encode(key).decode()}]),
    "Parquet": parquet,
    "text in Parquet": lambda key: parquet("key: " + key.hex()),
}


@pytest.mark.parametrize("hide", HIDDEN.values(), ids=HIDDEN)
def test_a_trace_would_be_found(hide: Callable[[bytes], bytes], key: bytes, tmp_path: Path) -> None:
    """The search finds a key that is written carelessly, in whatever it is packed."""
    (tmp_path / ("a.parquet" if hide(key)[:4] == b"PAR1" else "a")).write_bytes(hide(key))
    assert set().union(*traces_below(tmp_path, {"key": key}).values()) == {"key"}
    assert traces_below(tmp_path, {"key": OTHER}) == {}
