"""Identity that holds: what belongs together agrees in whatever runs, order, site and trouble it was de-identified."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dicomveil.testing import CT
from tests.corpora import KEY
from tests.oracles.in_process import Site
from tests.oracles.random_projects import (
    ROOT,
    SOP_CLASSES,
    Made,
    Target,
    frames,
    images,
    merged,
    of_other_studies,
    projects,
    registration,
    segments,
    stored,
    structures,
)
from tests.oracles.reference_graph import Graph, compare, edges, read

pytestmark = pytest.mark.long

RESEARCH = (Path(__file__).parents[2] / "configs" / "requests" / "research-dates.yaml").read_text()
# Every example is several runs of seconds each, and a smaller one would take as many again to find.
FEW = settings(
    max_examples=10 if "DICOMVEIL_CAMPAIGN" in os.environ else 1,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def write(folder: Path, files: dict[str, bytes]) -> dict[str, Path]:
    """Put files where a run can read them: their paths, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in files}


# ------------------------------------------------------------------------------------------------------ any split


@FEW
@given(project=projects().filter(lambda project: 8 <= len(project) <= 30), draw=st.data())
def test_runs_agree_however_the_input_is_split(project: list[Made], draw: st.DataObject) -> None:
    """For every project and every way to split it into runs, in any order: together they write what one run writes."""
    with tempfile.TemporaryDirectory() as folder:
        files = write(Path(folder) / "in", {f"{number}": made.content for number, made in enumerate(project)})
        whole, parts = Site(Path(folder) / "whole"), Site(Path(folder) / "parts")
        whole.run(files.values())
        order = draw.draw(st.permutations(sorted(files)))
        first, second = sorted(draw.draw(st.integers(1, len(order) - 1)) for _ in range(2))
        for number, names in enumerate([order[:first], order[first:second], order[second:]]):
            if names:
                output = draw.draw(st.sampled_from(["out", f"out-{number}"]))
                parts.run([files[name] for name in names], output=output)
        assert parts.outputs() == whole.outputs()
        assert len(whole.outputs()) == len(files)
        assert compare(read(files), whole.graph(), whole.uids()) == []
        assert (parts.uids(), parts.patients()) == (whole.uids(), whole.patients())


# --------------------------------------------------------------------------------------------------- late arrivals


def late_project() -> dict[str, dict[str, bytes]]:
    """Study A, study B of the same patient a year later, and what was made of A's images later still."""
    first, second, frame = ROOT + "1", ROOT + "2", ROOT + "1.9"

    def target(kind: str, study: str, number: str, frame: str = frame) -> Target:
        return Target(SOP_CLASSES[kind], f"{study}.{number}.1", f"{study}.{number}", study, frame, "MRN1")

    localizer = target("image", first, "1")
    axial = [localizer._replace(sop_instance=f"{first}.2.{n}", series=f"{first}.2") for n in (1, 2)]
    follow_up = target("image", second, "1")
    dated: dict[str, Any] = {"StudyDate": "20230301", "ContentDate": "20230301", "StudyDescription": "CT CHEST"}
    year_later = dated | {"StudyDate": "20240301", "ContentDate": "20240301"}
    late = {
        "structures": merged([structures(axial[0]), structures(axial[1]), dated]),
        "segmentation": merged([segments(axial[0]), segments(axial[1]), frames(localizer), dated]),
        "registration": merged([registration(localizer), registration(follow_up), of_other_studies(follow_up), dated]),
    }
    return {
        "study A": {
            "localizer": stored(localizer, dated),
            **{f"axial {n}": stored(image, images(localizer) | dated) for n, image in enumerate(axial)},
        },
        "study B": {"follow-up": stored(follow_up, merged([images(localizer), of_other_studies(axial[0]), year_later]))},
        "late": {
            kind: stored(target(kind, first, f"{7 + n}"), tree) for n, (kind, tree) in enumerate(late.items())
        },
    }  # fmt: skip


ORDERS = {
    "as it came": {"out": ["study A"], "out-B": ["study B"], "out-late": ["late"]},
    "backwards": {"out": ["late", "study B"], "out-A": ["study A"]},
}
"""What goes into each output, run by run."""


def test_what_arrives_late_fits(tmp_path: Path) -> None:
    """A follow-up, an RTSTRUCT and a SEG, years after the images they refer to, fit them, in whatever order all came.

    What one run with two workers writes is what several runs with one write, each into an output of its own.
    """
    project = {part: write(tmp_path / "in" / part, files) for part, files in late_project().items()}
    at_once = Site(tmp_path / "at once", request=RESEARCH)
    at_once.run([path for files in project.values() for path in files.values()], "--workers", "2")
    check_links(at_once.graph())
    for order, runs in ORDERS.items():
        site = Site(tmp_path / order, request=RESEARCH)
        for output, parts in runs.items():
            site.run([path for part in parts for path in project[part].values()], output=output)
        assert site.outputs() == at_once.outputs()
        assert (site.uids(), site.patients()) == (at_once.uids(), at_once.patients())


def check_links(graph: Graph) -> None:
    """Each link of the late project, by its name."""
    localizer, axial, follow_up = graph["localizer"], graph["axial 0"], graph["follow-up"]
    frame = "FrameOfReferenceUID[0]"
    assert {instance.patient for instance in graph.values()} == {localizer.patient}
    assert follow_up.edges["ReferencedImageSequence[0].ReferencedSOPInstanceUID[0]"] == localizer.sop_instance
    assert follow_up.edges[frame] == localizer.edges[frame] == axial.edges[frame]
    assert follow_up.study != localizer.study
    roi = graph["structures"].edges
    of_study = "ReferencedFrameOfReferenceSequence[1].RTReferencedStudySequence[0]."
    contours = of_study + "RTReferencedSeriesSequence[0]."
    assert roi["ReferencedFrameOfReferenceSequence[1].FrameOfReferenceUID[0]"] == axial.edges[frame]
    assert roi[of_study + "ReferencedSOPInstanceUID[0]"] == axial.study
    assert roi[contours + "SeriesInstanceUID[0]"] == axial.series
    image = roi[contours + "ContourImageSequence[0].ReferencedSOPInstanceUID[0]"]
    assert image == graph["axial 1"].sop_instance
    derived = "PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]."
    assert graph["segmentation"].edges[derived + "ReferencedSOPInstanceUID[0]"] == axial.sop_instance
    assert graph["segmentation"].edges["SynchronizationFrameOfReferenceUID[0]"] == axial.edges[frame]
    moved = "RegistrationSequence[1].ReferencedImageSequence[0].ReferencedSOPInstanceUID[0]"
    assert graph["registration"].edges[moved] == follow_up.sop_instance


# ---------------------------------------------------------------------------------------------------- stored facts

WORDS = "Options: [CleanDescriptors]\nVocabulary: [Kobetz]\n"


def numbered(number: int, of_study: int = 0, **more: str) -> Target:
    image = Target(CT, f"{ROOT}1.{number}", f"{ROOT}1{of_study}.0", f"{ROOT}0.{of_study}", ROOT + "9", "MRN1")
    return image._replace(**more)


def test_what_one_run_settles_holds_in_the_next(tmp_path: Path) -> None:
    """Whose a study is and which words name its people is the same however its instances came, and earlier outputs follow.

    An instance without Patient ID is its study's, before or after the one that says so; a word that turns out to be a
    name goes from texts that were released with it.
    """
    speaking = {"StudyDescription": "MR head Kobetz"}
    first = {
        "known": stored(numbered(1), images(numbered(4))),
        "nameless": stored(numbered(2, 1, patient=""), images(numbered(1))),
        "text": stored(numbered(3, 2), speaking),
    }
    second = {
        "nameless later": stored(numbered(4, patient=""), {}),
        "known later": stored(numbered(5, 1), images(numbered(2, 1))),
        "operator": stored(numbered(6, 2), {"OperatorsName": "Head^Kobetz"}),
    }
    files = write(tmp_path / "in", first | second)
    whole, parts = (Site(tmp_path / name, request=WORDS) for name in ("whole", "parts"))
    whole.run(files.values())
    for part in (first, second):
        parts.run([files[name] for name in part])
    assert parts.outputs() == whole.outputs()
    assert {instance.patient for instance in parts.graph().values()} == {parts.patients()["MRN1"]}
    assert not any(b"Kobetz" in content for content in parts.outputs().values())


# -------------------------------------------------------------------------------------------------------- retries


def workers(process: int) -> list[int]:
    """Beam's workers below a process: each one's own id."""
    found = []
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, listed.read_text().split()):
            found += workers(child)
            if b"sdk_worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are told by /proc")
def test_workers_killed_at_their_work_change_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Workers that are killed while they write end the run; the same command goes on, and all comes out as if undisturbed."""
    image = Target(CT, ROOT + "1.0", ROOT + "1", ROOT + "0", ROOT + "9", "MRN1")
    made = {
        f"{n}": stored(
            image._replace(sop_instance=f"{ROOT}5.{n}", series=f"{ROOT}1.{n % 30}.0", study=f"{ROOT}0.{n % 30}"),
            images(image),
        )
        for n in range(120)
    }
    files = write(tmp_path / "in", made)
    calm, stormy = Site(tmp_path / "calm"), Site(tmp_path / "stormy")
    calm.run([tmp_path / "in"])
    command = ["anonymize", "--input", tmp_path / "in", "--output", stormy.out, "--audit", stormy.folder / "audit"]
    command += ["--restricted", stormy.folder / "restricted", "--key", "env:SITE_KEY", "--workers", 2]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", *map(str, command)], env=os.environ | {"SITE_KEY": KEY.hex()},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and not stormy.outputs():
        time.sleep(0.005)
    written = stormy.outputs()
    for worker in workers(process.pid):
        os.kill(worker, signal.SIGKILL)
    assert process.wait(120) == 1 and 0 < len(written) < len(files)
    assert written.items() <= calm.outputs().items()
    capfd.readouterr()
    stormy.run([tmp_path / "in"])
    assert "Going on with run" in capfd.readouterr().err
    assert stormy.outputs() == calm.outputs()
    assert edges(stormy.graph()) == edges(calm.graph()) == 6 * len(files)
