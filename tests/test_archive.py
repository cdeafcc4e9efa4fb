"""A synthetic archive with an answer key: nothing planted survives, and references lead where they led."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dicomveil import Deidentifier
from dicomveil.body import parse_request
from tests.corpora import CORPUS, KEY, NO_CORPUS
from tests.oracles.reference_graph import Recipe, Rules, compare, edges, read
from tests.pipelines.test_anonymize import table

pytestmark = [pytest.mark.archive, pytest.mark.skipif(CORPUS is None, reason=NO_CORPUS)]
PATIENTS = os.environ.get("DICOMVEIL_ARCHIVE_PATIENTS", "8")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The archive, and its copy made by the command line with two workers."""
    root = tmp_path_factory.mktemp("archive")
    made, copy = root / "made", root / "copy"
    maker = [sys.executable, str(CORPUS / "make_archive.py"), str(made), "--patients", PATIENTS]
    subprocess.run([*maker, "--studies", "2", "--series", "2", "--instances", "4"], check=True, capture_output=True)
    environment = os.environ | {"DICOMVEIL_KEY": KEY.hex()}
    command = [
        "anonymize",
        "--input",
        str(made / "dicom"),
        "--output",
        str(copy),
        "--key",
        "env:DICOMVEIL_KEY",
        "--workers",
        "2",
        "--request",
        str(root / "request.yaml"),
    ]
    (root / "request.yaml").write_text("BurnedIn: pass\n")
    run = subprocess.run([sys.executable, "-m", "pipelines", *command], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return made, copy


def test_no_planted_value_survives(archive: tuple[Path, Path]) -> None:
    """No name, number, date, address or UID of the answer key stands in any byte of any output."""
    made, copy = archive
    told = made.parent / "leaks.json"
    counter = [sys.executable, str(CORPUS / "count_leaks.py"), str(made), str(copy), "--json", str(told)]
    subprocess.run(counter, check=True, capture_output=True)
    counted = json.loads(told.read_text())
    assert counted["planted"] and {kind: count for kind, count in counted["leaked"].items() if count} == {}


def test_every_reference_leads_where_it_led(archive: tuple[Path, Path]) -> None:
    """The reference graph before and after is the same under the run's own crosswalk, every edge at its path."""
    made, copy = archive
    restricted = copy.with_name("copy-restricted")
    sources = {row["name"]: Path(row["source_uri"]) for row in table(restricted, "crosswalk/instances")}
    assert len(sources) == sum(1 for path in (made / "dicom").rglob("*") if path.is_file())
    crosswalk = {row["original"]: row["new"] for row in table(restricted, "crosswalk/uids")}
    graph = read({name: copy / name for name in sources})
    assert compare(read(sources), graph, crosswalk) == []
    assert edges(graph) > 1000
    people = {row["original"]: row["new"] for row in table(restricted, "crosswalk/patients")}
    assert len(set(people.values())) == len(people) == int(PATIENTS)
    assert {instance.patient for instance in graph.values()} == set(people.values())


def test_dates_move_and_references_stay(archive: tuple[Path, Path]) -> None:
    """Under research-dates.yaml the archive's graph is the same one: its UIDs don't hang on what becomes of dates."""
    request = (Path(__file__).parents[1] / "configs" / "requests" / "research-dates.yaml").read_text()
    engine = Deidentifier(parse_request(request + "BurnedIn: pass\n"), key=KEY)
    files = {str(path): path for path in sorted((archive[0] / "dicom").rglob("*.dcm"))[::3]}
    graph = read({name: engine.rewrite(path.read_bytes()) for name, path in files.items()})
    options = ("RetainLongitudinalModifiedDates", "RetainPatientCharacteristics", "CleanDescriptors")
    assert compare(read(files), graph, Recipe(KEY), Rules(options)) == []
    assert edges(graph) > 300
