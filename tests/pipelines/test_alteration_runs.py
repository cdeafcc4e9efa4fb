"""Modify, split and merge as whole runs: what the engine makes of the same projects, and new UIDs of their own."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from dicomveil import Deidentifier
from dicomveil.testing import write_demo_study
from tests.corpora import KEY
from tests.oracles.altered_in_process import Body, alter
from tests.oracles.in_process import Site
from tests.oracles.orthanc_studies import clinic
from tests.oracles.random_projects import Made, projects, shapes_of_instances
from tests.oracles.reference_graph import Graph, read

FEW = settings(
    max_examples=3, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None
)
DEMO = "1.2.826.0.1.3680043.10.4711"


def body_for(command: str, studies: list[str], project: list[Made], draw: Any) -> Body:
    """A body that selects a part of a project."""
    of_first = [made.target for made in project if made.target.study == studies[0]]
    if command == "split":
        return {"Instances": [{"SOPInstanceUID": draw(st.sampled_from(of_first)).sop_instance}]}
    if command == "merge":
        others = [made.target.series for made in project if made.target.study != studies[0]]
        return {
            "Study": {"StudyInstanceUID": studies[0]},
            "Resources": [{"SeriesInstanceUID": draw(st.sampled_from(others))}],
        }
    return {
        "Level": draw(st.sampled_from(["Study", "Series", "Instance"])),
        "Resources": [{"SeriesInstanceUID": of_first[0].series}, {"PatientID": project[-1].target.patient}],
    }


@pytest.mark.long
@pytest.mark.parametrize("command", ["modify", "split", "merge"])
@FEW
@given(data=st.data(), project=projects(shapes=shapes_of_instances))
def test_a_run_writes_what_the_engine_makes(
    data: st.DataObject, project: list[Made], command: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Selection, maps and shuffles give each instance what it gets where all are at hand: byte for byte."""
    studies = sorted({made.target.study for made in project})
    assume(len(studies) > 1)
    body = body_for(command, studies, project, data.draw)
    folder = tmp_path_factory.mktemp(command)
    files = {f"{number}": made.content for number, made in enumerate(project)}
    for label, content in files.items():
        (folder / label).write_bytes(content)
    site = Site(folder / "site", request=yaml.safe_dump(body), command=command)
    site.run(folder / label for label in files)
    assert sorted(site.outputs().values()) == sorted(alter(command, body, files).outputs.values())


BODIES: list[tuple[str, Body]] = [
    ("modify", {}),
    ("modify", {"Level": "Series"}),
    ("modify", {"Level": "Study"}),
    ("modify", {"Level": "Study", "RemovePrivateTags": True}),
    ("modify", {"Level": "Study", "Replace": {"StudyDescription": "A"}}),
    ("modify", {"Level": "Study", "Replace": {"StudyDescription": "B"}}),
    ("modify", {"Level": "Study", "Remove": ["StudyDescription"]}),
    ("modify", {"Level": "Study", "Keep": ["StudyInstanceUID"], "Force": True}),
    ("modify", {"Level": "Study", "Resources": [{"SeriesInstanceUID": f"{DEMO}.2"}]}),
    ("modify", {"Level": "Study", "Resources": [{"SeriesInstanceUID": f"{DEMO}.3"}]}),
    ("split", {"Series": [{"SeriesInstanceUID": f"{DEMO}.2"}]}),
    ("split", {"Series": [{"SeriesInstanceUID": f"{DEMO}.2"}], "Remove": ["StudyDate"]}),
    ("split", {"Series": [{"SeriesInstanceUID": f"{DEMO}.2"}, {"SeriesInstanceUID": f"{DEMO}.3"}]}),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in write_demo_study(tmp_path_factory.mktemp("demo"))}


def news(files: dict[str, bytes], before: Graph) -> dict[str, bytes]:
    """The file of each instance by each of its own identifiers that is new."""
    old = {uid for it in before.values() for uid in it.edges.values()}
    graph = read(files)
    return {
        uid: files[label]
        for label, it in graph.items()
        for uid in (it.study, it.series, it.sop_instance)
        if uid not in old
    }


def test_two_requests_never_give_one_uid_to_different_data_sets(sources: dict[str, bytes]) -> None:
    """Whatever two requests share, the UIDs that they give are different ones."""
    before = read(sources)
    made = [news(alter(command, body, sources).outputs, before) for command, body in BODIES]
    assert all(made)
    shared = [left.keys() & right.keys() for left, right in itertools.combinations(made, 2)]
    assert not any(shared)


def test_what_is_merged_into_two_studies_has_two_names(tmp_path: Path) -> None:
    """The study that others are merged into counts among what is asked."""
    files = {path.name: path.read_bytes() for path in clinic(tmp_path)}
    bodies = [
        {"Study": {"StudyInstanceUID": study}, "Resources": [{"StudyInstanceUID": "1.2.3.6.3"}]}
        for study in ("1.2.3.6.1", "1.2.3.6.2")
    ]
    first, second = (news(alter("merge", body, files).outputs, read(files)) for body in bodies)
    assert len(first) == len(second) == 1  # one instance, whose series shares its UID
    assert not first.keys() & second.keys()


def test_an_identified_study_and_its_release_share_no_new_uid(sources: dict[str, bytes]) -> None:
    """Under one key, what is modified and what is de-identified of the same source can't be told by a UID."""
    before, engine = read(sources), Deidentifier(key=KEY)
    released = news({label: engine.rewrite(content) for label, content in sources.items()}, before)
    for command, body in BODIES:
        altered = alter(command, body, sources).outputs
        assert not news(altered, before).keys() & released.keys()
        assert not [uid for uid in released for content in altered.values() if uid.encode() in content]


def test_the_same_holds_of_whole_runs(sources: dict[str, bytes], tmp_path: Path) -> None:
    """And no new UID of one stands in the outputs or the crosswalk of the other."""
    for name, content in sources.items():
        (tmp_path / name).write_bytes(content)
    files = [tmp_path / name for name in sources]
    modified = Site(tmp_path / "modified", request="Level: Study", command="modify")
    released = Site(tmp_path / "released")
    modified.run(files)
    released.run(files)
    ours, theirs = set(modified.uids().values()), set(released.uids().values())
    assert len(ours) > 10 and len(theirs) > 10
    assert not ours & theirs
    assert not [uid for uid in ours for content in released.outputs().values() if uid.encode() in content]
