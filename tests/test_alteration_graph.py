"""After modify, split and merge each reference leads to what became of its instance: random projects."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pydicom
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from dicomveil.errors import InvalidInstance
from dicomveil.testing import CT
from tests.oracles.altered_in_process import Altered, Body, alter
from tests.oracles.random_projects import (
    Made,
    Target,
    Tree,
    evidence,
    images,
    merged,
    of_other_studies,
    of_series,
    of_study,
    pictured,
    projects,
    series,
    shapes_for,
    shapes_of_instances,
    stored,
    structures,
)
from tests.oracles.reference_chains import compare, reading
from tests.oracles.reference_graph import Graph, read

MANY = settings(
    max_examples=30,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
LEVELS = ("Patient", "Study", "Series", "Instance")
NEW = {
    "Patient": ["study", "series", "sop_instance"], "Study": ["study", "series", "sop_instance"],
    "Series": ["series", "sop_instance"], "Instance": ["sop_instance"],
}  # fmt: skip
KEYWORDS = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "sop_instance": "SOPInstanceUID"}
PROJECTS = projects(shapes=shapes_for)


def labelled(project: list[Made]) -> dict[str, bytes]:
    return {f"{number}": made.content for number, made in enumerate(project)}


def resources(project: list[Made], *roles: str) -> st.SearchStrategy[list[dict[str, str]]]:
    """Some of what there is, by DICOM identifiers."""
    keywords = {"PatientID": "patient"} | {keyword: role for role, keyword in KEYWORDS.items()}
    there = {
        (keyword, getattr(it.target, role))
        for it in project
        for keyword, role in keywords.items()
        if role in (roles or keywords.values())
    }
    some = st.lists(st.sampled_from(sorted(there)), unique=True, min_size=1, max_size=3)
    return some.map(lambda found: [{keyword: value} for keyword, value in found])


def meant(
    before: Graph, after: Graph, done: Altered, new: list[str], given: dict[str, str] | None = None
) -> Iterator[Any]:
    """Where an instance's own identifiers aren't what the command means.

    Args:
      new: the roles that change in what is selected.
      given: constants, by role.
    """
    originals = {uid for it in before.values() for uid in it.edges.values()}
    for label, it in after.items():
        for role in (*KEYWORDS, "patient"):
            old, now = getattr(before[label], role), getattr(it, role)
            wanted = (given or {}).get(role) if label in done.selected else None
            changes = label in done.selected and role in new
            if now != wanted if wanted is not None else (now in originals) if changes else now != old:
                yield label, role, old, now


def altered(command: str, body: Body, files: dict[str, bytes]) -> tuple[Graph, Graph, Altered]:
    done = alter(command, body, files)
    before = read(files)
    return {label: before[label] for label in done.outputs}, read(done.outputs), done


@pytest.mark.parametrize("level", LEVELS)
@MANY
@given(data=st.data(), project=PROJECTS)
def test_references_follow_what_is_modified(data: st.DataObject, project: list[Made], level: str) -> None:
    """At every level, whatever is selected: references lead to the successors, and name the study and series they are in."""
    new, given_ = data.draw(st.sampled_from([(role,) for role in KEYWORDS] + [()])), {}
    body: Body = {"Level": level, "Resources": data.draw(resources(project)), "Keep": [KEYWORDS[it] for it in new]}
    if level == "Patient":
        given_ = {"patient": "NEW"}
    elif level == "Study" and "study" not in new and data.draw(st.booleans()):
        given_ = {"study": "1.2.3.4.5.6.7"}  # it makes one of several
    body |= {"Replace": {(KEYWORDS | {"patient": "PatientID"})[it]: given_[it] for it in given_}, "Force": True}
    with _unless_conflicting():
        before, after, done = altered("modify", body, labelled(project))
        assert list(meant(before, after, done, [role for role in NEW[level] if role not in new], given_)) == []
        assert compare(before, after) == []


@MANY
@given(data=st.data(), project=PROJECTS)
def test_references_follow_what_is_split_off(data: st.DataObject, project: list[Made]) -> None:
    """Series and instances of a study in a study of their own: all others, and they, refer to them there."""
    study = _one_study(data, project)
    named = data.draw(resources(study, "series", "sop_instance"))
    before, after, done = altered("split", _split(named), labelled(project))
    assert len(before) == len(study)
    assert list(meant(before, after, done, list(KEYWORDS))) == []
    assert compare(before, after) == []


@MANY
@given(data=st.data(), project=projects(shapes=shapes_of_instances))
def test_references_follow_what_is_merged(data: st.DataObject, project: list[Made]) -> None:
    """Studies, series and instances in another study: references between them and to them name that one."""
    target = _one_study(data, project)
    others = [made for made in project if made not in target]
    assume(others)
    body: Body = {"Study": {"StudyInstanceUID": target[0].target.study}}
    body["Resources"] = data.draw(resources(others, *KEYWORDS))
    before, after, done = altered("merge", body, labelled(project))
    given_ = {"study": target[0].target.study, "patient": target[0].target.patient}
    assert list(meant(before, after, done, list(KEYWORDS), given_)) == []
    assert compare(before, after) == []


@pytest.mark.parametrize("role", ["series", "sop_instance"])
@MANY
@given(data=st.data(), project=projects(shapes=shapes_of_instances))
def test_what_is_split_and_merged_again_is_what_it_was(data: st.DataObject, project: list[Made], role: str) -> None:
    """Split, then merge, gives back the study under new names: the same patient, study and contents, and one graph."""
    study = _one_study(data, project)
    named, first = data.draw(resources(study, role)), study[0].target
    files = labelled(study)
    split = alter("split", _split(named), files)
    assume(len(split.selected) < len(study))
    new = next(it.study for label, it in read(split.outputs).items() if label in split.selected)
    body: Body = {"Study": {"StudyInstanceUID": first.study}, "Resources": [{"StudyInstanceUID": new}]}
    merged = alter("merge", body, split.outputs)
    before, after = read(files), read(merged.outputs)
    assert before.keys() == after.keys()
    assert {(it.study, it.patient) for it in after.values()} == {(first.study, first.patient)}
    assert compare(before, after) == []
    if role == "series":
        assert len({it.series for it in after.values()}) == len({it.series for it in before.values()})
    assert {label: plain(content) for label, content in merged.outputs.items()} == {
        label: plain(content) for label, content in files.items()
    }


def _one_study(data: st.DataObject, project: list[Made]) -> list[Made]:
    chosen = data.draw(st.sampled_from(sorted({made.target.study for made in project})))
    return [made for made in project if made.target.study == chosen]


def _split(named: list[dict[str, str]]) -> Body:
    series = [it for it in named if "SeriesInstanceUID" in it]
    return {"Series": series, "Instances": [it for it in named if it not in series]}


@contextmanager
def _unless_conflicting() -> Iterator[None]:
    """A patient's new ID for a part of a study that stays one is refused, which is another test's."""
    try:
        yield
    except InvalidInstance as refused:
        assert refused.reason == "patient-conflict"
        assume(False)


def plain(content: bytes) -> dict[int, str]:
    """What a file's data set holds at the top level that is neither a UID nor a sequence."""
    ds = pydicom.dcmread(io.BytesIO(content), force=True)
    return {int(it.tag): repr(it.value) for it in ds if it.VR not in ("UI", "SQ", "UN")}


# ------------------------------------------------------------------------------------------------------ one by one

STUDY, SERIES = "1.2.3.1", "1.2.3.1.1"
MOVED, STAYED = (Target(CT, f"{SERIES}.{number}", SERIES, STUDY, "1.2.3.9", "P") for number in (1, 2))
OWNER = Target("1.2.840.10008.5.1.4.1.1.11.2", "1.2.3.1.2.1", "1.2.3.1.2", STUDY, "1.2.3.9", "P")


def pair(*shapes: Callable[[Target], Tree]) -> dict[str, bytes]:
    """Two images of one series, and an instance that refers to both."""
    tree = merged([shape(target) for target in (MOVED, STAYED) for shape in shapes])
    return {"moved": stored(MOVED, {}), "stayed": stored(STAYED, {}), "owner": stored(OWNER, tree)}


SPLIT: Body = {"Instances": [{"SOPInstanceUID": MOVED.sop_instance}]}


def dataset(content: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(content))


def test_blended_images_are_named_in_the_study_where_they_are() -> None:
    """PS3.3 C.11.14.1: what blends images names their study and series, which needn't be its own any more."""
    done = alter("split", SPLIT, pair(pictured))
    moved, owner = dataset(done.outputs["moved"]), dataset(done.outputs["owner"])
    assert [item.StudyInstanceUID for item in owner.BlendingSequence] == [moved.StudyInstanceUID, STUDY]
    assert owner.BlendingSequence[0].ReferencedSeriesSequence[0].SeriesInstanceUID == moved.SeriesInstanceUID


def test_what_names_a_study_of_its_own_stays_with_what_it_is_about() -> None:
    """PS3.3 C.11.31: a registration of blended images may be in another study than they, and goes with them."""

    def blended(target: Target) -> Tree:
        registration = {"StudyInstanceUID": STUDY, "ReferencedSeriesSequence": [series(STAYED)]}
        item = {"StudyInstanceUID": target.study, "SeriesInstanceUID": target.series, **images(target)}
        return {"AdvancedBlendingSequence": [item | {"ReferencedSpatialRegistrationSequence": [registration]}]}

    files = {"moved": stored(MOVED, {}), "stayed": stored(STAYED, {}), "owner": stored(OWNER, blended(MOVED))}
    done = alter("split", SPLIT, files)
    (item,) = dataset(done.outputs["owner"]).AdvancedBlendingSequence
    assert item.StudyInstanceUID == dataset(done.outputs["moved"]).StudyInstanceUID
    assert item.ReferencedSpatialRegistrationSequence[0].StudyInstanceUID == STUDY


@pytest.mark.parametrize("shape", [evidence, of_series])
def test_what_is_missing_of_a_series_goes_with_it(shape: Callable[[Target], Tree]) -> None:
    """An instance that isn't at hand is still in its series, if all that is at hand of that moves."""
    missing = MOVED._replace(sop_instance=f"{SERIES}.99")
    tree = merged([shape(it) for it in (MOVED, missing)])
    files = {"moved": stored(MOVED, {}), "stayed": stored(OWNER, tree)}
    before, after = read(files), read(alter("split", {"Series": [{"SeriesInstanceUID": SERIES}]}, files).outputs)
    assert compare(before, after) == []
    ((study, series_uid),) = {(it.study, it.series) for it in reading(after["stayed"]).chains}
    assert (study, series_uid) == (after["moved"].study, after["moved"].series)


def test_instances_that_keep_their_uid_are_named_where_they_are() -> None:
    """Who moves instances to another study and keeps their SOP Instance UIDs finds them by evidence that names it."""
    body: Body = {"Level": "Study", "Resources": SPLIT["Instances"], "Keep": ["SOPInstanceUID"], "Force": True}
    done = alter("modify", body, pair(evidence))
    moved, owner = dataset(done.outputs["moved"]), dataset(done.outputs["owner"])
    named = {
        (item.StudyInstanceUID, series.SeriesInstanceUID, series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in owner.CurrentRequestedProcedureEvidenceSequence
        for series in item.ReferencedSeriesSequence
    }
    assert moved.SOPInstanceUID == MOVED.sop_instance
    assert named == {
        (moved.StudyInstanceUID, moved.SeriesInstanceUID, MOVED.sop_instance), (STUDY, SERIES, STAYED.sop_instance)
    }  # fmt: skip


def test_what_is_in_one_study_by_a_constant_is_listed_as_such() -> None:
    """PS3.3 C.12.2: two studies that a constant makes one are no other studies to each other any more."""
    elsewhere = MOVED._replace(study="1.2.3.2")
    files = {"moved": stored(elsewhere, {}), "owner": stored(OWNER, of_other_studies(elsewhere))}
    body: Body = {"Level": "Study", "Replace": {"StudyInstanceUID": "1.2.3.3"}, "Force": True}
    owner = dataset(alter("modify", body, files).outputs["owner"])
    assert "StudiesContainingOtherReferencedInstancesSequence" not in owner
    assert len(owner.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1


def test_what_merge_takes_over_follows_too() -> None:
    """A study that names another which is merged into it names itself then, in all of its instances."""
    elsewhere = MOVED._replace(study="1.2.3.2", sop_instance="1.2.3.2.1.1", series="1.2.3.2.1")
    files = {"owner": stored(OWNER, of_study(elsewhere)), "moved": stored(elsewhere, {})}
    body: Body = {"Study": {"StudyInstanceUID": STUDY}, "Resources": [{"StudyInstanceUID": elsewhere.study}]}
    done = alter("merge", body, files)
    assert [
        item.ReferencedSOPInstanceUID for it in done.outputs.values() for item in dataset(it).ReferencedStudySequence
    ] == [STUDY, STUDY]


# ------------------------------------------------------------------------------------------------- the oracle itself


def edited(graph: Graph, label: str, keyword: str, old: str, new: str) -> Graph:
    """A graph in which an instance's edges of a keyword lead elsewhere."""
    led = {
        path: new if f"{keyword}[" in path and uid == old and "." in path else uid
        for path, uid in graph[label].edges.items()
    }
    return {**graph, label: graph[label]._replace(edges=led)}


DAMAGES: dict[str, tuple[str, Callable[[Graph], Graph]]] = {
    "a reference is left dangling": ("chains", lambda g: edited(g, "owner", "ReferencedSOPInstanceUID", g["moved"].sop_instance, MOVED.sop_instance)),
    "a study is named that it isn't in": ("chains", lambda g: edited(g, "owner", "StudyInstanceUID", g["moved"].study, STUDY)),
    "a series is named that it isn't in": ("chains", lambda g: edited(g, "owner", "SeriesInstanceUID", g["moved"].series, SERIES)),
    "a frame of reference follows": ("rest", lambda g: edited(g, "owner", "FrameOfReferenceUID", "1.2.3.9", g["moved"].study)),
    "two instances are one": ("again", lambda g: {**g, "moved": g["moved"]._replace(sop_instance=g["stayed"].sop_instance)}),
    "what stayed was changed": ("chains", lambda g: edited(g, "owner", "ReferencedSOPInstanceUID", STAYED.sop_instance, "2.25.1")),
    "file meta names another": ("meta", lambda g: {**g, "moved": g["moved"]._replace(edges=g["moved"].edges | {"meta.MediaStorageSOPInstanceUID[0]": "2.25.1"})}),
    "an other study is its own": ("list", lambda g: {**g, "owner": g["owner"]._replace(study=g["moved"].study)}),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_reference_that_leads_elsewhere_is_told(damage: str) -> None:
    """Each way in which a reference can break is found, and what split makes has none of them."""
    what, apply = DAMAGES[damage]
    files = pair(evidence, of_series, structures)
    before, after = read(files), read(alter("split", SPLIT, files).outputs)
    assert compare(before, after) == []
    assert what in {difference.what for difference in compare(before, apply(after))}
