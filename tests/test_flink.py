"""Runs on a real Flink cluster, with worker processes of its own: the same bytes as here, whoever dies in between.

`make test-flink` starts the cluster and runs these; without one they are skipped.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import apache_beam as beam
import psutil
import pydicom
import pytest
import requests
from pydicom.data import get_testdata_file

from benchmarks.scale.watch import cluster_workers, started_as, task_managers
from dicomveil.testing import Syntax, minimal, part10, write_demo_study
from pipelines import flink
from tests.images import image, written

CLUSTER = os.environ.get("DICOMVEIL_FLINK", "")
MASTER = f"http://localhost:{os.environ.get('FLINK_PORT', '8081')}"
SCRIPT = Path(__file__).parents[1] / "deploy" / "flink" / "cluster.sh"
MANY = 2000

pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("flink"),
    pytest.mark.skipif(not CLUSTER, reason="no Flink cluster: make test-flink starts one"),
]


def on_flink() -> list[str]:
    return [
        "--runner=FlinkRunner", f"--flink_master={MASTER}", "--flink_version=1.19", "--parallelism=2",
        f"--flink_job_server_jar={CLUSTER}/job-server.jar", "--environment_type=PROCESS",
        "--environment_config=" + json.dumps({"command": str(Path(sys.executable).with_name("dicomveil-worker"))}),
    ]  # fmt: skip


def command(name: str, source: Path, output: Path, key: Path, *more: str) -> list[str]:
    words = ["--input", str(source), "--output", str(output), "--key", f"file:{key}", *more]
    return [sys.executable, "-m", "pipelines", name, *words]


def done(words: list[str], status: int = 0) -> str:
    """What a command told, which ended as it should."""
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == status, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_study(folder: Path) -> Path:
    write_demo_study(folder)
    return folder


def instances(folder: Path, count: int) -> Path:
    """Instances of four studies of unequal sizes."""
    explicit = Syntax()
    folder.mkdir()
    for number in range(count):
        study = f"1.2.826.0.1.3680043.8.498.{max(number % 8 - 4, 0)}"
        uids = ((0x00080018, f"{study}.1.{number}"), (0x0020000D, study), (0x0020000E, f"{study}.1"))
        elements = ((tag, explicit.element(tag, "UI", uid)) for tag, uid in uids)
        (folder / f"{number:04}.dcm").write_bytes(part10(minimal(explicit, *elements)))
    return folder


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("key") / "project.key"
    done([sys.executable, "-m", "pipelines", "keygen", "--output", str(file)])
    return file


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return instances(tmp_path_factory.mktemp("archive") / "many", MANY)


@pytest.fixture(scope="module")
def undisturbed(many: Path, key: Path) -> dict[str, bytes]:
    """What a run on this machine makes of them."""
    done(command("anonymize", many, many.parent / "local", key))
    return contents(many.parent / "local")


def jobs() -> list[tuple[str, str]]:
    """(name, state) of all that the cluster remembers."""
    told = requests.get(f"{MASTER}/jobs/overview", timeout=30).json()["jobs"]
    return [(job["name"], job["state"]) for job in told]


def until(there: Callable[[], bool], seconds: float = 300) -> None:
    """Wait for something that must come."""
    last = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < last
        time.sleep(0.1)


def at_its_outputs(words: list[str], output: Path) -> "subprocess.Popen[str]":
    """A command that has written its first outputs, and goes on; or has ended before."""
    # Who was started in the background ignores interrupts, and so would what it starts.
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=heeding)
    until(lambda: any(output.rglob("*.dcm")) or process.poll() is not None)
    return process


@contextmanager
def started(words: list[str], output: Path) -> Iterator["subprocess.Popen[str]"]:
    """A command that has written its first outputs, and goes on."""
    process = at_its_outputs(words, output)
    try:
        yield process
        told, _ = process.communicate()
        assert process.returncode == 0, told
    finally:
        process.kill()


@pytest.mark.parametrize("way", ["side-input", "join"])
def test_a_cluster_writes_the_same_bytes(way: str, many: Path, key: Path, undisturbed: dict[str, bytes]) -> None:
    """Whichever way the maps go."""
    output = many.parent / way
    done(command("anonymize", many, output, key, "--maps", way, *on_flink()))
    assert contents(output) == undisturbed


def test_a_later_run_on_a_cluster_takes_what_is_new(tmp_path: Path, key: Path) -> None:
    """What was de-identified on this machine isn't again, and what is new of its study fits."""
    source = write_study(tmp_path / "in")
    late = sorted(source.rglob("*.dcm"))[-1]
    late.rename(tmp_path / late.name)
    done(command("anonymize", source, tmp_path / "out", key))
    (tmp_path / late.name).rename(late)
    told = done(command("anonymize", source, tmp_path / "out", key, *on_flink()))
    assert "6  unchanged" in told and "1  deidentified" in told
    done(command("anonymize", source, tmp_path / "whole", key))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_cluster_of_another_version_is_refused(tmp_path: Path, key: Path) -> None:
    """Before anything is begun: a job server speaks with clusters of its own version alone."""
    words = command("anonymize", write_study(tmp_path / "in"), tmp_path / "out", key, *on_flink())
    told = done([*words, "--flink_version=1.20"], status=2)
    assert "say --flink_version=1.19" in told
    assert not (tmp_path / "out").exists()


def test_modify_on_a_cluster_writes_the_same_bytes(tmp_path: Path, key: Path) -> None:
    source = write_study(tmp_path / "in")
    (tmp_path / "request.yaml").write_text("Replace: {StudyDescription: corrected}\nForce: true\nLevel: Study\n")
    asked = ["--request", str(tmp_path / "request.yaml")]
    done(command("modify", source, tmp_path / "here", key, *asked))
    done(command("modify", source, tmp_path / "there", key, *asked, *on_flink()))
    assert contents(tmp_path / "there") == contents(tmp_path / "here") != {}


@pytest.mark.parametrize("victim", ["worker", "task manager"])
def test_whoever_dies_the_end_is_the_same(
    victim: str, many: Path, key: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """Killed at its work with no word: the cluster starts what it lost again, and the command hears nothing of it."""
    output = tmp_path / "out"
    with started(command("anonymize", many, output, key, *on_flink()), output):
        at_work = [name for name, state in jobs() if state == "RUNNING"]
        assert [told for name in at_work if (told := flink.tasks(MASTER, name)) and 0 < told[0] < told[1]]
        until(lambda: bool(cluster_workers()))
        (cluster_workers() if victim == "worker" else task_managers())[0].kill()
        if victim == "task manager":
            subprocess.run([SCRIPT, "taskmanager", CLUSTER], check=True)
    assert contents(output) == undisturbed


def test_a_slot_puts_out_more_than_its_memory_holds(tmp_path: Path) -> None:
    """Of one stage; a TaskManager's heap has 0.6 GB."""
    pieces, size = 600, 1 << 20
    told = tmp_path / "total"

    def build(pipeline: beam.Pipeline) -> None:
        (
            pipeline
            | beam.Create([1, 2])
            | "Spread" >> beam.Reshuffle()
            | beam.FlatMap(lambda _: (bytes(size) for _ in range(pieces)))
            | beam.Reshuffle()
            | beam.Map(len)
            | beam.CombineGlobally(sum)
            | beam.Map(lambda total: told.write_text(str(total)))
        )

    flink.Flink(flink.with_defaults(on_flink())).run(build, "dicomveil-much", tmp_path)
    assert int(told.read_text()) == 2 * pieces * size


def test_a_codec_that_dies_costs_its_instance(key: Path, tmp_path: Path) -> None:
    """By a crash, or for want of memory: set aside, while worker and job go on with all others."""
    source, request = write_study(tmp_path / "in"), tmp_path / "request.yaml"
    request.write_text("Transcode: JPEG2000Lossless\n")
    giant = pydicom.dcmread(get_testdata_file("SC_rgb_jpeg_gdcm.dcm"))
    giant.Rows = giant.Columns = 65535
    giant.save_as(source / "giant.dcm")
    asked = ["--request", str(request)]
    done(command("anonymize", source, tmp_path / "here", key, *asked), status=3)
    long = image(rows=9000, columns=9000, content="noise")
    long.StudyInstanceUID, long.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    written(long, source / "long.dcm")
    words = command("anonymize", source, tmp_path / "there", key, *asked, *on_flink())
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until(lambda: bool(at_a_codec()) or process.poll() is not None)
    for child in at_a_codec():
        child.send_signal(signal.SIGSEGV)
    told, _ = process.communicate()
    assert process.returncode == 3, told
    assert contents(tmp_path / "there") == contents(tmp_path / "here") != {}
    outcomes = json.loads((tmp_path / "there-audit" / "summary.json").read_bytes())["Outcomes"]
    assert [outcomes.get(f"quarantined transcode-{how}") for how in ("failed", "memory")] == [1, 1]


def at_a_codec() -> list[psutil.Process]:
    """The children of workers that have been at work for longer than their start takes."""
    children = (child for worker in cluster_workers() for child in worker.children(recursive=True))
    return [it for it in children if "spawn_main" in " ".join(it.cmdline()) and it.cpu_times().user > 4]


def test_a_job_manager_that_dies_ends_the_command_and_it_goes_on_later(
    many: Path, key: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """Without high availability its jobs are lost with it; the command says so, and the plan isn't made again."""
    output = tmp_path / "out"
    words = command("anonymize", many, output, key, *on_flink())
    process = at_its_outputs(words, output)
    started_as("StandaloneSessionClusterEntrypoint")[0].kill()
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and f"No JobManager of Flink answers at {MASTER}" in told, told
    subprocess.run([SCRIPT, "jobmanager", CLUSTER], check=True)
    until(there_again)
    told = done(words)
    assert "Going on with run" in told and "Planning" not in told
    assert contents(output) == undisturbed


def there_again() -> bool:
    """Whether the JobManager answers, and has its two TaskManagers back."""
    try:
        return bool(requests.get(f"{MASTER}/overview", timeout=30).json()["taskmanagers"] == 2)
    except requests.RequestException:
        return False


def test_an_interrupted_command_ends_its_job_and_goes_on_later(
    many: Path, key: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """Nothing is left at work without it, and the same command comes to the end."""
    output = tmp_path / "out"
    words = command("anonymize", many, output, key, *on_flink())
    process = at_its_outputs(words, output)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate()
    assert process.returncode != 0 and "Traceback" not in told, told
    until(lambda: any("slice-0" in name and state == "CANCELED" for name, state in jobs()))
    done(words)
    assert contents(output) == undisturbed
