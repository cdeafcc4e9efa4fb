"""Runs on Prism and on Spark, by Beam's job services: the same bytes as by the local runner.

`make test-prism` and `make test-spark` provide them; where one is missing its tests are skipped.
"""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from dicomveil.testing import write_demo_study
from pipelines.cli import cli
from tests.corpora import KEY
from tests.pipelines.test_anonymize import contents

PRISM, SPARK = os.environ.get("DICOMVEIL_PRISM", ""), os.environ.get("DICOMVEIL_SPARK", "")
ON_PRISM = ["--runner=PrismRunner", f"--prism_location={PRISM}"]
ON_SPARK = ["--runner=SparkRunner", f"--spark_job_server_jar={SPARK}", "--spark_master_url=local[2]"]
# Their workers are threads of this process, which lose the runner at its end.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
runners = pytest.mark.parametrize(
    "runner",
    [
        pytest.param(ON_PRISM, marks=pytest.mark.skipif(not PRISM, reason="no Prism: make test-prism builds it")),
        pytest.param(ON_SPARK, marks=pytest.mark.skipif(not SPARK, reason="no Spark: make test-spark provides it")),
    ],
    ids=["Prism", "Spark"],
)


def run(folder: Path, output: str, *more: str, command: str = "anonymize", status: int = 0) -> str:
    words = [command, "--input", str(folder / "in"), "--output", str(folder / output), "--key", "env:DICOMVEIL_KEY"]
    done = CliRunner().invoke(cli, [*words, *more], env={"DICOMVEIL_KEY": KEY.hex()})
    assert done.exit_code == status, done.output
    return " ".join(done.output.split())


@runners
@pytest.mark.parametrize("way", ["side-input", "join"])
def test_a_runner_writes_the_same_bytes(runner: list[str], way: str, tmp_path: Path) -> None:
    """Whichever way the maps go; and a later run finds that nothing is new."""
    write_demo_study(tmp_path / "in")
    run(tmp_path, "here")
    run(tmp_path, "there", "--maps", way, *runner)
    assert contents(tmp_path / "there") == contents(tmp_path / "here") != {}
    assert "Nothing is new" in run(tmp_path, "there", "--maps", way, *runner)


@runners
def test_modify_on_a_runner_writes_the_same_bytes(runner: list[str], tmp_path: Path) -> None:
    write_demo_study(tmp_path / "in")
    (tmp_path / "request.yaml").write_text("Replace: {StudyDescription: corrected}\nForce: true\nLevel: Study\n")
    asked = ["--request", str(tmp_path / "request.yaml")]
    run(tmp_path, "here", *asked, command="modify")
    run(tmp_path, "there", *asked, *runner, command="modify")
    assert contents(tmp_path / "there") == contents(tmp_path / "here") != {}


@pytest.mark.parametrize("location", [[], ["--prism_location=/nowhere/prism"]], ids=["none", "nothing there"])
def test_prism_is_never_fetched(location: list[str], tmp_path: Path) -> None:
    """What runs with the originals is what the user has put there."""
    write_demo_study(tmp_path / "in")
    told = run(tmp_path, "out", "--runner=PrismRunner", *location, status=2)
    assert "--prism_location: name the program" in told and not (tmp_path / "out").exists()
