"""`dicomveil split` and `dicomveil merge` as their user runs them: what moves, what stays, and what follows."""

from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipelines import course
from tests.pipelines.archives import Archive, places, uid_of
from tests.pipelines.test_anonymize import contents, table
from tests.pipelines.test_modify import check
from tests.test_orthanc_cases import related, stored

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "split_merge.yaml").read_text("utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_studies_are_split_and_merged(case: dict[str, Any], tmp_path: Path) -> None:
    """What is named is in the other study, the rest is where it was, and every reference leads where it led."""
    check(case, tmp_path, "")


TWO = {"P1/S/A/1": [], "P1/S/B/1": ["P1/S/A/1"], "P2/T/C/1": ["P1/S/A/1"]}
BODIES = {
    "modify": {"Level": "Patient", "Replace": {"PatientID": "P7"}, "Force": True, "Resources": [{"PatientID": "P1"}]},
    "split": {"Series": [{"SeriesInstanceUID": "$A"}]},
    "merge": {"Study": {"StudyInstanceUID": "$S"}, "Resources": ["@P2/T"]},
}


@pytest.mark.parametrize("command", BODIES)
def test_a_run_that_died_is_closed_by_the_next_one(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes next under its --restricted takes a dead run's outputs into account, and isn't held up by it."""
    archive = Archive(tmp_path, TWO)
    shared = ("--restricted", tmp_path / "shared")
    with monkeypatch.context() as patch:
        patch.setattr(course, "_settle", lambda *run: 1 / 0)
        archive.run(command, BODIES[command], *shared, output="died", status=1)
    assert list((tmp_path / "died").rglob("*.dcm"))
    archive.run("anonymize", {}, *shared, output="next")
    assert "another request" in archive.run("anonymize", {}, *shared, output="died", status=2).said
    done = archive.run(command, BODIES[command], *shared, output="again")
    assert contents(tmp_path / "died") == contents(done.output)


def test_what_is_split_off_has_what_the_request_says_of_its_patient_and_study(tmp_path: Path) -> None:
    """Replace and Remove concern the new study alone; numbers, frames of reference and all else stay."""
    more = {"P1": {"ReferringPhysicianName": "Dr.Kasulox", "OtherPatientIDs": "X1"}}
    archive = Archive(tmp_path, {"P1/S/A/1": [], "P1/S/A/2": [], "P1/S/B/1": ["P1/S/A/2"]}, more)
    body = {
        "Instances": [{"SOPInstanceUID": "$A/2"}], "Remove": ["ReferringPhysicianName", "OtherPatientIDs"],
        "Replace": {"PatientName": "Zyta", "StudyDescription": "漢字", "ProcedureCodeSequence": [{"CodeMeaning": "Chest"}]},
    }  # fmt: skip
    done = archive.run("split", body)
    done.check()
    moved, stayed = done.after["P1/S/A/2"], done.after["P1/S/A/1"]
    assert (str(moved.PatientName), moved.StudyDescription, moved.ProcedureCodeSequence[0].CodeMeaning) == (
        "Zyta",
        "漢字",
        "Chest",
    )
    assert "ReferringPhysicianName" not in moved and "OtherPatientIDs" not in moved
    assert (moved.InstanceNumber, moved.FrameOfReferenceUID) == (2, stayed.FrameOfReferenceUID)
    assert stayed == archive.before["P1/S/A/1"]


SAYS = {
    "SpecificCharacterSet": "ISO_IR 144", "PatientName": "Иванов^Пётр", "StudyDescription": "Грудь", "StudyID": "7",
    "PatientBirthDate": "19700203", "AccessionNumber": "A7", "PatientComments": "", "OtherPatientIDs": "X1",
    "ProcedureCodeSequence": [
        {"SpecificCharacterSet": "ISO_IR 100", "CodeValue": "1", "CodeMeaning": "Schädel", "CodingSchemeDesignator": "99X"}
    ],
    "OtherPatientIDsSequence": [{"PatientID": "Ж1", "IssuerOfPatientID": "x", "(0011,[IMAGINARY],01) LO": "private"}],
}  # fmt: skip
LACKS = {"EthnicGroup": "E", "PatientSex": "F", "ReferringPhysicianName": "Dr.Kasulox", "RequestingService": "x",
         "ReferencedStudySequence": [{"ReferencedSOPInstanceUID": "1.2.3.77"}]}  # fmt: skip
OWN = {"SeriesDescription": "Größe", "PatientAge": "033Y", "PatientWeight": "71", "StationName": "ROOM"}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_what_is_merged_takes_over_patient_and_study(syntax: str, tmp_path: Path) -> None:
    """All that the target says of patient and study, sequences and their character sets too, and nothing that it
    doesn't say; what is of the series and the instance stays, and no character is lost."""
    archive = Archive(tmp_path, {"P1/S/A/1": [], "P2/T/B/1": ["P1/S/A/1"]}, {"P1": SAYS, "P2": LACKS | OWN}, syntax)
    done = archive.run("merge", {"Study": {"StudyInstanceUID": "$S"}, "Resources": [{"StudyInstanceUID": "$T"}]})
    done.check()
    target, moved = done.after["P1/S/A/1"], done.after["P2/T/B/1"]
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "StudyDescription", "StudyID", "AccessionNumber",
                    "PatientComments", "OtherPatientIDs", "ProcedureCodeSequence", "StudyInstanceUID"):  # fmt: skip
        assert moved[keyword].value == target[keyword].value, keyword
    (other,) = moved.OtherPatientIDsSequence
    assert (other.PatientID, other.IssuerOfPatientID, len(other)) == ("Ж1", "x", 2)
    assert not [keyword for keyword in LACKS if keyword in moved]
    assert {keyword: str(moved[keyword].value) for keyword in OWN} == OWN
    assert moved.SpecificCharacterSet == "ISO_IR 192"


def test_a_study_that_was_split_is_put_together_again(tmp_path: Path) -> None:
    """Split, then merge: the same instances in one study and as many series, which refer to each other as they did."""
    refers = {
        "P1/S/A/1": ["P1/S/A/2", "P1/S/B/1"], "P1/S/A/2": [], "P1/S/B/1": ["P1/S/A/1"], "P1/S/B/2": ["P1/S/R/1"],
        "P1/S/R/1": ["P1/S/A/1", "P1/S/A/2", "P1/S/B/1", "P1/S/B/2"],
    }  # fmt: skip
    archive = Archive(tmp_path, refers)
    split = archive.run("split", {"Series": [{"SeriesInstanceUID": "$B"}], "Instances": [{"SOPInstanceUID": "$A/2"}]})
    split.check()
    moved = split.after["P1/S/B/1"].StudyInstanceUID
    body = {"Study": {"StudyInstanceUID": "$S"}, "Resources": [{"StudyInstanceUID": moved}]}
    archive.run("merge", body, output="merged", inputs=[tmp_path / "out"])
    found = {str(ds.PixelData): ds for ds in map(pydicom.dcmread, (tmp_path / "merged").rglob("*.dcm"))}
    after = {name: found[str(ds.PixelData)] for name, ds in archive.before.items()}
    assert {ds.StudyInstanceUID for ds in after.values()} == {uid_of("S")}
    assert len({after[name].SeriesInstanceUID for name in refers}) == 4  # A was torn: its parts stay two series
    for name, targets in refers.items():
        now = [after[it] for it in targets]
        assert [it.ReferencedSOPInstanceUID for it in after[name].get("ReferencedImageSequence", [])] == [
            it.SOPInstanceUID for it in now
        ]
        assert sorted(places(after[name])) == sorted(
            (it.StudyInstanceUID, it.SeriesInstanceUID, it.SOPInstanceUID) for it in now
        )


def test_what_moved_is_told(tmp_path: Path) -> None:
    """The audit says which references followed, the crosswalk which identifiers changed; a target's don't."""
    archive = Archive(tmp_path, TWO | {"P1/S/B/1": ["P2/T/C/1"]})
    done = archive.run("merge", BODIES["merge"])
    done.check()
    rules = {name: {change["rule"] for change in changes} for name, changes in done.changes.items()}
    assert (rules["P1/S/A/1"], rules["P1/S/B/1"]) == (set(), {"reference"})
    assert rules["P2/T/C/1"] == {"merge", "Replace"}
    uids = {row["original"]: row["new"] for row in table(done.restricted, "crosswalk/uids")}
    assert uids[uid_of("T")] == uid_of("S") and uids.keys() == {uid_of(it) for it in ("T", "C", "C/1")}
    (patient,) = table(done.restricted, "crosswalk/patients")
    assert (patient["original"], patient["new"]) == ("P2", "P1")
    assert done.summary["TargetStudyUID"] == uid_of("S") and not done.summary["IsAnonymization"]


def test_structures_and_reports_follow_a_part_of_their_images(tmp_path: Path) -> None:
    """Of two images of a series one moves: an RTSTRUCT names both studies, a report's evidence and a presentation state
    the image where it is now, and a series that only a part has left stays named as it was."""
    archive = Archive(tmp_path, {})
    study = related()
    for name, ds in study.items():
        archive.files[name], archive.before[name] = tmp_path / "in" / f"{name}.dcm", ds
        archive.files[name].write_bytes(stored(ds))
    after = archive.run("split", {"Instances": [{"SOPInstanceUID": study["axial"].SOPInstanceUID}]}).after
    axial, other = after["axial"], after["other"]
    assert axial.StudyInstanceUID != other.StudyInstanceUID == study["other"].StudyInstanceUID
    (frame,) = after["structures"].ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == axial.FrameOfReferenceUID == other.FrameOfReferenceUID
    found = {
        (item.ReferencedSOPInstanceUID, series.SeriesInstanceUID, image.ReferencedSOPInstanceUID)
        for item in frame.RTReferencedStudySequence
        for series in item.RTReferencedSeriesSequence
        for image in series.ContourImageSequence
    }
    assert found == {(it.StudyInstanceUID, it.SeriesInstanceUID, it.SOPInstanceUID) for it in (axial, other)}
    assert places(after["report"]) == [(axial.StudyInstanceUID, axial.SeriesInstanceUID, axial.SOPInstanceUID)]
    image = after["report"].ContentSequence[1].ReferencedSOPSequence[0]
    (shown,) = after["state"].ReferencedSeriesSequence
    assert shown.SeriesInstanceUID == axial.SeriesInstanceUID
    assert (
        image.ReferencedSOPInstanceUID
        == shown.ReferencedImageSequence[0].ReferencedSOPInstanceUID
        == axial.SOPInstanceUID
    )
    assert after["pet"] == study["pet"]
