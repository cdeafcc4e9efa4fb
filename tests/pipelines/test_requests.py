"""A request meets an archive: what its constants would merge, where it stops, and what its summary tells."""

import io
import json
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from tests.pipelines.test_anonymize import contents, run, table

STUDY = "1.2.826.0.1.3680043.8.498.1"


def instance(number: int, study: int = 1, patient: str = "P1", **more: object) -> bytes:
    """An MR instance of a study that refers to the study's first instance, and to another study's."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    ds.SOPInstanceUID = f"{STUDY}.{study}.1.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{STUDY}.{study}", f"{STUDY}.{study}.1"
    ds.FrameOfReferenceUID = f"{STUDY}.{study}.9"
    ds.PatientID, ds.PatientName, ds.StudyDate, ds.Modality = patient, "Zubikax^Wolemix", "20200131", "MR"
    ds.ReferencedImageSequence = [reference(f"{STUDY}.{study}.1.1"), reference(f"{STUDY}.77.1.1")]
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    written = io.BytesIO()
    ds.save_as(written, enforce_file_format=True)
    return written.getvalue()


def reference(uid: str) -> Dataset:
    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", uid
    return ds


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two studies of two patients, two instances each."""
    for study in (1, 2):
        for number in (1, 2):
            file = tmp_path / "in" / f"{study}-{number}.dcm"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(instance(number, study, f"P{study}"))
    return tmp_path / "in"


def asked(archive: Path, body: dict, status: int = 0, output: str = "out"):  # type: ignore[no-untyped-def]
    """Run a body over an archive: what the command said, and the output folder."""
    request = archive.parent / "request.json"
    request.write_text(json.dumps(body))
    out = archive.parent / output
    return run("anonymize", "--input", archive, "--output", out, "--request", request, status=status), out


def read(out: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(out.rglob("*.dcm"))]


CONSTANTS = {
    "PatientID": ("X", "2 patients"),
    "StudyInstanceUID": ("1.2.3", "2 studies"),
    "SeriesInstanceUID": ("1.2.3", "2 series"),
    "SOPInstanceUID": ("1.2.3", "4 instances"),
    "FrameOfReferenceUID": ("1.2.3", "2 frames of reference"),
}


@pytest.mark.parametrize("keyword", CONSTANTS)
def test_a_constant_that_would_merge_stops_the_run(keyword: str, archive: Path) -> None:
    """A body written for one resource never makes one patient, study or frame of reference of many unasked."""
    value, told = CONSTANTS[keyword]
    done, out = asked(archive, {"Replace": {keyword: value}, "Force": True}, status=2)
    assert told in done.stderr and "nothing was written" in done.stderr
    assert not list(out.rglob("*.dcm"))


def test_merging_is_done_where_it_is_asked_for(archive: Path) -> None:
    """With AllowMerge and Force the constant stands in every instance, and its folder holds them all."""
    _, out = asked(archive, {"Replace": {"PatientID": "X/../Y"}, "Force": True, "AllowMerge": True})
    found = read(out)
    assert len(found) == 4 and {ds.PatientID for ds in found} == {"X/../Y"}
    assert [path.name for path in out.iterdir()] == ["X%2F..%2FY"]


def test_instances_are_never_merged(archive: Path) -> None:
    """One SOP Instance UID for several instances would overwrite all but one of them."""
    body = {"Replace": {"SOPInstanceUID": "1.2.3"}, "Force": True, "AllowMerge": True}
    done, _ = asked(archive, body, status=2)
    assert "4 instances" in done.stderr


def test_references_follow_a_constant(archive: Path) -> None:
    """What refers to a study, series or frame of reference that got a constant refers to the constant."""
    for file in archive.glob("2-*"):
        file.unlink()
    nested = reference(f"{STUDY}.1.1.1")
    nested.StudyInstanceUID, nested.SeriesInstanceUID, nested.PatientID = f"{STUDY}.1", f"{STUDY}.1.1", "P1"
    (archive / "1-3.dcm").write_bytes(instance(3, ReferencedImageSequence=[nested]))
    body = {
        "Replace": {
            "StudyInstanceUID": "1.9",
            "SeriesInstanceUID": "1.9.1",
            "FrameOfReferenceUID": "1.9.9",
            "PatientID": "N",
        },
        "Force": True,
    }
    _, out = asked(archive, body)
    item = next(it for ds in read(out) for it in ds.ReferencedImageSequence if "PatientID" in it)
    assert (item.StudyInstanceUID, item.SeriesInstanceUID, item.PatientID) == ("1.9", "1.9.1", "N")
    assert {ds.FrameOfReferenceUID for ds in read(out)} == {"1.9.9"}


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_a_kept_identifier_is_kept_in_its_references(keyword: str, archive: Path) -> None:
    """Keep of an identifier breaks no link: whatever names it still does, and the other identifiers are new."""
    nested = reference(f"{STUDY}.1.1.1")
    nested.StudyInstanceUID, nested.SeriesInstanceUID = f"{STUDY}.1", f"{STUDY}.1.1"
    (archive / "1-3.dcm").write_bytes(instance(3, ReferencedImageSequence=[nested]))
    _, out = asked(archive, {"Keep": [keyword], "Force": True})
    names = {"SOPInstanceUID": "ReferencedSOPInstanceUID"}
    ours = [ds for ds in read(out) for it in ds.ReferencedImageSequence if "StudyInstanceUID" in it]
    (item,) = ours[0].ReferencedImageSequence
    for other in CONSTANTS.keys() - {"PatientID", "FrameOfReferenceUID"}:
        value = item.get(names.get(other, other))
        assert value.startswith(STUDY) == (other == keyword)
        assert value in {ds.get(other) for ds in read(out)}


def test_what_is_kept_whole_is_told(archive: Path) -> None:
    """The audit lists each sequence that Keep froze and how many original UIDs stay; the summary warns of them."""
    done, out = asked(archive, {"Keep": ["ReferencedImageSequence"]})
    rows = table(out.parent / "out-audit", "instances")
    assert [row["frozen"] for row in rows] == [
        [{"path": "(0008,1140)", "keyword": "ReferencedImageSequence", "original_uids": 2}]
    ] * 4
    assert "4 instances as they were, 8 original UIDs" in done.stdout.replace("\n", " ")
    _, mapped = asked(archive, {"Keep": ["ReferencedImageSequence"], "MapUIDsInKept": True}, output="mapped")
    found = {it.ReferencedSOPInstanceUID for ds in read(mapped) for it in ds.ReferencedImageSequence}
    assert not any(uid.startswith(STUDY) for uid in found)


def test_user_data_and_server_members_are_told(archive: Path) -> None:
    """UserData ends in summary.json as it is; an older edition, and members only a server could obey, get a notice."""
    data = {"trial": [1, {"a": None}]}
    done, out = asked(
        archive,
        {"UserData": data, "DicomVersion": "2021b", "Synchronous": True, "Priority": 3, "KeepPrivateTags": None},
    )
    summary = json.loads((out.parent / "out-audit" / "summary.json").read_bytes())
    assert summary["UserData"] == data
    told = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    assert [member for member in summary if f"`{member}`" not in told] == []
    older, *others = summary["Warnings"]
    assert "dicomveil explain --diff 2021b" in older
    assert others == [
        "Synchronous, Priority: of a server, without effect here.",
        "KeepPrivateTags: null is read as true.",
    ]
    assert "Synchronous, Priority" in done.stdout


def test_a_strict_run_stops_at_the_plan(archive: Path) -> None:
    """`Permissive: false` ends with status 1 before anything is written, where the plan sets something aside."""
    (archive / "cut.dcm").write_bytes(instance(9)[:-30])
    done, out = asked(archive, {"Permissive": False}, status=1)
    assert "1 truncated" in done.stderr and not list(out.rglob("*.dcm"))


def test_a_strict_run_stops_at_the_first_failure(archive: Path) -> None:
    """`Permissive: false` ends with status 1 at an instance that only its rewriting shows to be unsuitable."""
    (archive / "burned.dcm").write_bytes(instance(9, BurnedInAnnotation="YES"))
    done, out = asked(archive, {"Permissive": False}, status=1)
    assert "burned-in" in done.stderr
    assert not (out.parent / "out-audit" / "summary.json").exists()
    again, _ = asked(archive, {}, status=3, output="other")
    assert "quarantined: burned-in" in again.stdout


def test_text_is_cleaned_of_what_the_study_says_anywhere(archive: Path) -> None:
    """A word that names a person in one instance of a study is dropped from the texts of all of its instances."""
    (archive / "1-3.dcm").write_bytes(instance(3, StudyDescription="MR head Kobetz", SeriesDescription="t1 sag"))
    (archive / "1-4.dcm").write_bytes(instance(4, OperatorsName="Head^Kobetz"))
    _, out = asked(archive, {"Options": ["CleanDescriptors"], "Vocabulary": ["Kobetz"]})
    texts = {ds.get("StudyDescription", "") for ds in read(out)}
    assert texts == {"", "MR"}


def test_dates_move_by_the_patients_days(archive: Path) -> None:
    """All studies of a patient move by the same days, another patient's by others, and what is left says so."""
    (archive / "3-1.dcm").write_bytes(instance(1, 3, "P1", StudyDate="20200210"))
    _, out = asked(archive, {"Options": ["RetainLongitudinalModifiedDates"]})
    dates: dict[str, set[str]] = {}
    for ds in read(out):
        dates.setdefault(ds.PatientID, set()).add(ds.StudyDate)
        assert ds.LongitudinalTemporalInformationModified == "MODIFIED"
    one, other = sorted(dates.values(), key=len, reverse=True)
    first, second = sorted(pydicom.valuerep.DA(date) for date in one)
    assert (second - first).days == 10
    assert "20200131" not in one | other and not one & other


def test_retained_uids_name_the_output(archive: Path) -> None:
    """Under RetainUIDs an instance is written under its own UIDs, and its references still lead to it."""
    _, out = asked(archive, {"Options": ["RetainUIDs"]})
    assert len(contents(out)) == 4
    assert all(path.stem.startswith(STUDY) and path.parent.name.startswith(STUDY) for path in out.rglob("*.dcm"))
