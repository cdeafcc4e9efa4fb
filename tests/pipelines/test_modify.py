"""`dicomveil modify` as its user runs it: which identifiers are new, what follows, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from pipelines import course, execute
from pipelines.local import Local
from tests.pipelines.archives import UIDS, Archive, uid_of
from tests.pipelines.test_anonymize import contents, table
from tests.test_orthanc_cases import data_set, instance, stored

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "modify.yaml").read_text("utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_levels_selection_and_guards(case: dict[str, Any], tmp_path: Path) -> None:
    """What is selected has the identifiers that Level says, and every reference leads where it led."""
    check(case, tmp_path, "modify")


def check(case: dict[str, Any], folder: Path, command: str) -> None:
    """Whether a case of this form comes out as it says."""
    archive = Archive(folder, case["archive"], case.get("more"))
    done = archive.run(case.get("command", command), case["body"], status=case.get("status", 0))
    for wanted in case.get("told", ()):
        assert re.search(wanted, done.said), done.said
    if case.get("status") == 2:
        assert not done.output.exists()
        return
    assert done.names() == case["after"]
    done.check()
    assert case.get("outcomes", {}).items() <= done.outcomes.items()


TORN = {
    "P1/S/A/1": [], "P1/S/A/2": ["P1/S/A/1"], "P1/S/B/1": ["P1/S/A/1"],
    "P1/S/R/1": ["P1/S/A/1", "P1/S/A/2", "P1/S/B/1"], "P2/T/C/1": ["P1/S/A/1"],
}  # fmt: skip
PART = {"Level": "Study", "Replace": {"StudyDescription": "Schädel"}, "Resources": [{"SOPInstanceUID": "$A/1"}]}
PARTED = {"P1/S/A/1": "P1/S+/A+/1+"} | {name: name for name in ("P1/S/A/2", "P1/S/B/1", "P1/S/R/1")}


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_encoding_is_modified_alike(syntax: str, tmp_path: Path) -> None:
    """Transfer syntax and text stay what they were, and evidence is told apart in each."""
    done = Archive(tmp_path, TORN, syntax=syntax).run("modify", PART)
    assert done.names() == PARTED
    done.check()
    assert {ds.file_meta.TransferSyntaxUID for ds in done.after.values()} == {syntax}
    assert done.after["P1/S/A/1"].StudyDescription == "Schädel"


def test_the_crosswalk_leads_back_and_the_sources_stay(tmp_path: Path) -> None:
    """A modified study's identifiers are told with those of its source, at each level, and only those that changed."""
    archive = Archive(tmp_path, TORN)
    done = archive.run(
        "modify", {"Level": "Series", "Replace": {"PatientName": "Zyta"}, "Resources": [{"StudyInstanceUID": "$S"}]}
    )
    done.check()
    uids = {row["original"]: (row["role"], row["new"]) for row in table(done.restricted, "crosswalk/uids")}
    told = {name: (keyword, ds) for name, ds in done.after.items() for keyword in ["SOPInstanceUID"]}
    assert {uid for uid, (role, _) in uids.items() if role == "series"} == {uid_of(it) for it in "ABR"}
    for name, (keyword, ds) in told.items():
        assert uids[archive.before[name][keyword].value] == ("instance", ds[keyword].value)
        assert ds.PatientName == "Zyta"
    assert uid_of("S") not in uids and not table(done.restricted, "crosswalk/patients")
    rows = table(done.audit, "instances")
    assert len(rows) == 5 and {row["outcome"] for row in rows} == {"modified", "filtered"}
    summary = done.summary
    assert (summary["IsAnonymization"], summary["InstancesCount"], summary["FailedInstancesCount"]) == (False, 4, 0)


def test_what_changed_is_told_by_the_line_that_asked_for_it(tmp_path: Path) -> None:
    """The audit says of each change whether the request, the new identifiers or a reference made it."""
    more = {"P1": {"StationName": "ROOM", "(0011,[IMAGINARY],01) LO": "x"}}
    body = {
        "Replace": {"PatientName": "Zyta"},
        "Remove": ["StationName"],
        "RemovePrivateTags": True,
        "Resources": [{"SOPInstanceUID": "$A/1"}],
    }
    done = Archive(tmp_path, TORN, more).run("modify", body)
    told = {name: {change["path"]: change["rule"] for change in changes} for name, changes in done.changes.items()}
    assert told["P1/S/A/1"] == {
        "(0008,0018)": "modify", "(0008,1010)": "Remove", "(0010,0010)": "Replace",
        "(0011,0010)": "RemovePrivateTags", "(0011,1001)": "RemovePrivateTags",
    }  # fmt: skip
    assert set(told["P1/S/R/1"].values()) == {"reference"} and len(told["P1/S/R/1"]) == 2
    assert "StationName" in done.after["P1/S/R/1"]


def test_objects_that_are_no_patients_are_modified_too(tmp_path: Path) -> None:
    """A palette has no patient and no study: its own attributes change, and it is given no Patient ID."""
    archive = Archive(tmp_path, {"P1/S/A/1": []})
    ds = data_set(
        {
            "SOPClassUID": "1.2.840.10008.5.1.4.39.1",
            "SOPInstanceUID": "1.2.3.7",
            "ContentLabel": "HOT",
            "ContentDescription": "x",
        }
    )
    (tmp_path / "in" / "palette.dcm").write_bytes(stored(ds))
    archive.files["-/-/-/p"], archive.before["-/-/-/p"] = tmp_path / "in" / "palette.dcm", ds
    body = {
        "Level": "Patient",
        "Replace": {"PatientID": "P7", "ContentLabel": "COLD"},
        "Remove": ["ContentDescription"],
        "Force": True,
    }
    done = archive.run("modify", body)
    (palette,) = (it for it in map(pydicom.dcmread, done.output.glob("non-patient/*.dcm")))
    assert palette.ContentLabel == "COLD" and "PatientID" not in palette and "ContentDescription" not in palette
    assert palette.SOPInstanceUID not in ("1.2.3.7", "") and done.outcomes["-/-/-/p"] == "modified"
    chosen = archive.run("modify", {"Resources": [{"SOPInstanceUID": "1.2.3.7"}]}, output="chosen")
    assert chosen.outcomes == {"-/-/-/p": "modified", "P1/S/A/1": "not-selected"}


def test_equal_inputs_are_one_and_others_under_one_uid_are_set_aside(tmp_path: Path) -> None:
    """A copy is filtered; two contents under one SOP Instance UID are quarantined, and the rest of the study goes on."""
    archive = Archive(tmp_path, TORN)
    copy = tmp_path / "in" / "copy.dcm"
    copy.write_bytes(archive.files["P1/S/A/2"].read_bytes())
    other = instance(
        {
            "PatientID": "P1",
            "StudyInstanceUID": uid_of("S"),
            "SeriesInstanceUID": uid_of("B"),
            "SOPInstanceUID": uid_of("B/1"),
        }
    )
    (tmp_path / "in" / "other.dcm").write_bytes(stored(other))
    archive.files |= {"copy": copy, "other": tmp_path / "in" / "other.dcm"}
    done = archive.run("modify", {"Level": "Study", "Resources": [{"StudyInstanceUID": "$S"}]}, status=3)
    assert sorted([done.outcomes["copy"], done.outcomes["P1/S/A/2"]]) == ["duplicate", "modified"]
    assert done.outcomes["other"] == done.outcomes["P1/S/B/1"] == "sop-uid-conflict"
    (found,) = {ds.StudyInstanceUID for ds in done.after.values()}
    assert found != uid_of("S")


def test_what_cant_be_read_is_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    """A damaged instance of a study that is modified is quarantined; with Permissive off nothing is written."""
    archive = Archive(tmp_path, TORN)
    damaged = archive.files["P1/S/B/1"]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    done = archive.run("modify", PART, status=3)
    assert done.outcomes["P1/S/B/1"] == "truncated"
    assert done.names() == {name: it for name, it in PARTED.items() if name != "P1/S/B/1"}
    stopped = archive.run("modify", PART | {"Permissive": False}, output="stopped", status=1)
    assert "truncated" in stopped.said and not stopped.output.exists()


def test_a_text_that_no_character_set_expresses_is_kept_whole(tmp_path: Path) -> None:
    """A name that the character set lacks makes the instance UTF-8, and no character is lost anywhere in it."""
    more = {"P1": {"StudyDescription": "Schädel", "SeriesDescription": "Größe"}}
    done = Archive(tmp_path, TORN, more).run(
        "modify", {"Replace": {"PatientName": "Müller^漢字"}, "Resources": [{"SOPInstanceUID": "$A/1"}]}
    )
    ds, other = done.after["P1/S/A/1"], done.after["P1/S/A/2"]
    assert (ds.SpecificCharacterSet, str(ds.PatientName), ds.StudyDescription) == (
        "ISO_IR 192",
        "Müller^漢字",
        "Schädel",
    )
    assert (other.SpecificCharacterSet, other.SeriesDescription) == ("ISO_IR 100", "Größe")


# ------------------------------------------------------------------------------------------------------- run after run


def test_the_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two runs of one request under one key agree, another selection, request or command shares no new UID with them."""
    archive = Archive(tmp_path, TORN)
    first, again = archive.run("modify", PART, output="1"), archive.run("modify", PART, output="2")
    assert contents(first.output) == contents(again.output)
    others = [
        archive.run("modify", PART | {"Resources": [*PART["Resources"], {"SOPInstanceUID": "$A/2"}]}, output="3"),
        archive.run("modify", PART | {"Replace": {"StudyDescription": "Chest"}}, output="4"),
        archive.run("split", {"Instances": PART["Resources"]}, output="5"),
        archive.run("anonymize", output="6"),
    ]
    found = [
        {str(ds[keyword].value) for ds in done.after.values() for keyword in UIDS} - originals()
        for done in (first, *others)
    ]
    assert all(found) and sum(map(len, found)) == len(set().union(*found))


def originals() -> set[str]:
    return {uid for name in TORN for _, study, series, number in [name.split("/")]
            for uid in (uid_of(study), uid_of(series), uid_of(f"{series}/{number}"))}  # fmt: skip


def test_a_plan_alone_writes_nothing_and_is_gone_on_from(tmp_path: Path) -> None:
    """--plan-only finds what isn't there too, and the same command goes on from it."""
    archive = Archive(tmp_path, TORN)
    planned = archive.run("modify", PART, "--plan-only")
    assert not planned.output.exists() and not planned.after
    done = archive.run("modify", PART)
    assert done.summary["Resumed"] and done.names() == PARTED
    archive.run("modify", {"Resources": [{"PatientID": "P9"}]}, "--plan-only", output="none", status=2)


def test_another_selection_is_another_request(tmp_path: Path) -> None:
    """An output holds what one request has made of one selection; --overwrite goes on in it all the same."""
    archive = Archive(tmp_path, TORN)
    archive.run("modify", PART)
    before = contents(tmp_path / "out")
    assert (
        "another selection" in archive.run("modify", PART | {"Resources": [{"SOPInstanceUID": "$A/2"}]}, status=2).said
    )
    assert "another request" in archive.run("modify", PART | {"Level": "Series"}, status=2).said
    assert "another request" in archive.run("anonymize", status=2).said
    assert contents(tmp_path / "out") == before
    assert archive.run("modify", PART).names() == PARTED and contents(tmp_path / "out") == before
    done = archive.run("modify", PART | {"Resources": [{"SOPInstanceUID": "$A/2"}]}, "--overwrite")
    assert done.names()["P1/S/A/2"] == "P1/S+/A+/2+"


def test_a_run_goes_on_with_the_slices_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a runner that would take larger ones, for whose number what a smaller one has settled would stand."""
    archive = Archive(tmp_path, TORN | {"P2/U/D/1": []})
    whole = archive.run("modify", PART, output="whole")
    build, built = execute.build, []

    def die(pipeline: object, number: int, **how: object) -> None:
        if built:
            raise RuntimeError("killed")
        built.append(number)
        build(pipeline, number=number, **how)

    with monkeypatch.context() as patch:
        patch.setattr(execute, "build", die)
        patch.setattr(Local, "slice", 1)
        archive.run("modify", PART, status=1)
    done = archive.run("modify", PART)
    assert done.summary["Resumed"] and contents(done.output) == contents(whole.output)


def test_a_run_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a dead run had ended is taken over, and the whole is what it would have been."""
    archive = Archive(tmp_path, TORN)
    whole = archive.run("modify", PART, output="whole")
    built = []

    def die(pipeline: object, number: int, **how: object) -> None:
        if built:
            raise RuntimeError("killed")
        built.append(number)
        build(pipeline, number=number, **how)

    build = execute.build
    with monkeypatch.context() as patch:
        patch.setattr(execute, "build", die)
        patch.setattr(course.plan, "slices", lambda verdict, size: [[it] for it in sorted(verdict.buckets)])
        archive.run("modify", PART, status=1)
        assert built
        patch.setattr(execute, "build", build)
        done = archive.run("modify", PART)
    assert done.summary["Resumed"]
    assert contents(done.output) == contents(whole.output)
    assert len(table(done.audit, "instances")) == 5


def test_what_is_modified_and_what_is_released_dont_disturb_each_other(tmp_path: Path) -> None:
    """One --restricted serves both: what anonymize has settled stays, whatever was modified before it or between."""
    archive = Archive(tmp_path, TORN)
    shared = ("--restricted", tmp_path / "shared")
    alone = archive.run("anonymize", output="alone", inputs=[archive.files[name] for name in TORN])
    archive.run("modify", PART, *shared, output="m1")
    archive.run("anonymize", {}, *shared, output="a1", inputs=[archive.files["P1/S/A/1"], archive.files["P1/S/R/1"]])
    archive.run("modify", PART, *shared, output="m2")
    archive.run("split", {"Instances": PART["Resources"]}, *shared, output="s1")
    archive.run("anonymize", {}, *shared, output="a1")
    assert contents(tmp_path / "a1") == contents(alone.output)
    assert contents(tmp_path / "m1") == contents(tmp_path / "m2")


def test_without_a_key_a_run_has_one_of_its_own(tmp_path: Path) -> None:
    """Nobody can repeat it, and it says so; the reference graph is the same."""
    archive = Archive(tmp_path, TORN)
    done = archive.run("modify", PART, key=False)
    assert "No key was given" in done.said and done.names() == PARTED
    done.check()


def test_nothing_original_leaves_the_restricted_zone_but_in_the_data(tmp_path: Path) -> None:
    """What a request selects stands under --restricted alone; a refusal names its place, not its value."""
    archive = Archive(tmp_path, TORN)
    body = {"Resources": [{"PatientID": "P1"}, {"SOPInstanceUID": "1.2.3.777.888"}]}
    refused = archive.run("modify", body, status=2)
    assert "777" not in refused.said and "P1" not in refused.said.replace(str(tmp_path), "")
    done = archive.run("modify", PART, output="done")
    audit = b"".join(
        path.read_bytes() for path in done.audit.rglob("*") if path.is_file() and path.suffix != ".parquet"
    )
    assert uid_of("A/1").encode() not in audit and str(tmp_path / "in").encode() not in audit
    rows = table(done.audit, "instances")
    assert not any(str(tmp_path) in str(value) for row in rows for value in row.values())


def test_a_kept_list_of_references_stays_though_its_study_is_torn(tmp_path: Path) -> None:
    """Keep of a sequence wins over what follows, in what is selected; in the rest nothing is kept from following."""
    archive = Archive(tmp_path, TORN)
    evidence = "CurrentRequestedProcedureEvidenceSequence"
    selected = [{"SOPInstanceUID": "$A/1"}, {"SOPInstanceUID": "$B/1"}]
    done = archive.run("modify", {"Level": "Study", "Keep": [evidence], "Resources": selected})
    assert done.after["P1/S/B/1"][evidence] == archive.before["P1/S/B/1"][evidence]
    assert done.after["P1/S/A/2"][evidence] != archive.before["P1/S/A/2"][evidence]
    assert "1 original UID" in done.said or "original UIDs" in done.said


def test_what_anonymize_selects_is_released_alone_and_the_rest_joins_it_later(tmp_path: Path) -> None:
    """Resources select for anonymize too, at mixed levels; the whole in parts is the whole at once."""
    archive = Archive(tmp_path, TORN)
    part = archive.run("anonymize", {"Resources": [{"SeriesInstanceUID": "$A"}, "@P2"]})
    assert part.after.keys() == {"P1/S/A/1", "P1/S/A/2", "P2/T/C/1"}
    assert part.outcomes["P1/S/R/1"] == "not-selected"
    archive.run("anonymize")
    archive.run("anonymize", output="alone")
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    refused = archive.run("anonymize", {"Resources": [{"PatientID": "P9"}]}, output="none", status=2)
    assert "Resources[0]: there is no such patient" in refused.said and not refused.output.exists()
