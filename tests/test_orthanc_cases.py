"""What Orthanc's own tests check of anonymization, on data of our own: a user of Orthanc can look up each case.

Cases of one instance stand as data in tests/cases/orthanc, those of whole studies here, through the command. A case's
`orthanc` names the test that it re-creates, and docs/orthanc.md says why each of the others is left out.

In a case, `before` is put on top of a small CT image of patient 4711; a name is a keyword, or "(gggg,[Creator],ee) VR"
for a private element, or "(gggg,eeee) VR" for one that is written as it is. `after` goes by paths, with an index for
each sequence: a value, or one of

  absent, present                    whether it is there
  as before, new                     equal to what stands there in `before`; another value than there, and not empty
  mapped                             the new UID of the one that stands there in `before`; of each, where there are several
  pseudonym, patient                 the new Patient ID of patient 4711
  {mapped: UID}, {matches: PATTERN}, {items: NUMBER}, {same as: PATH in what comes out}

Of modify's cases (modify.yaml) what `after` doesn't name comes out as it was.
"""

import copy
import datetime
import io
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pydicom
import pytest
import yaml
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from dicomveil import Deidentifier, standard
from dicomveil.alterations import altered, settled
from dicomveil.body import parse_request
from dicomveil.compile import compile_request
from dicomveil.errors import InvalidInstance, RequestError
from dicomveil.keys import Keys
from dicomveil.modifier import Modifier
from dicomveil.pseudonyms import patient_pseudonym
from dicomveil.request import Request
from dicomveil.scan import scan_instance
from dicomveil.schema import COMMANDS
from dicomveil.stream import BytesSource
from dicomveil.testing import CT
from dicomveil.uids import new_uid
from tests.corpora import KEY

FOLDER = Path(__file__).parent / "cases" / "orthanc"
ROOT = Path(__file__).parent.parent
KEYS = Keys(KEY)
MR, RTSTRUCT, SR, GSPS = (
    "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.88.33",
    "1.2.840.10008.5.1.4.1.1.11.1",
)  # fmt: skip


def cases(*names: str) -> list[Any]:
    """The cases of some files, each by its name."""
    found = [case for name in names for case in yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))]
    return [pytest.param(case, id=case["name"]) for case in found]


# -------------------------------------------------------------------------------------------------- building data sets

ELEMENT = re.compile(r"\(([0-9A-F]{4}),(?:\[(.+)\],([0-9A-F]{2})|([0-9A-F]{4}))\)(?: ([A-Z]{2}))?")


def data_set(values: dict[str, Any]) -> Dataset:
    """A data set of what a case writes: lists of mappings are sequences."""
    ds = Dataset()
    for name, given in values.items():
        value = given
        if isinstance(given, list) and all(isinstance(item, dict) for item in given):
            value = Sequence([data_set(item) for item in given])
        if found := ELEMENT.fullmatch(name):
            group, creator, low, element, vr = found.groups()
            value = value.encode("latin-1") if vr in ("OB", "OW", "UN") else value
            if creator:
                ds.private_block(int(group, 16), creator, create=True).add_new(int(low, 16), vr, value)
            else:
                ds.add_new(Tag(int(group, 16), int(element, 16)), vr, value)
        else:
            assert Tag(name) is not None
            setattr(ds, name, value)
    return ds


def instance(before: dict[str, Any], without: Iterable[str] = ()) -> Dataset:
    """A small CT image with the elements of a case on top."""
    ds = data_set(
        {
            "SpecificCharacterSet": "ISO_IR 100", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "SOPClassUID": CT,
            "SOPInstanceUID": "1.2.3.4.5", "StudyInstanceUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.4.1",
            "FrameOfReferenceUID": "1.2.3.4.9", "PatientID": "4711", "PatientName": "Bodox^Kalex", "Modality": "CT",
            "StudyDate": "20240305",
        }
        | before
    )  # fmt: skip
    for keyword in without:
        delattr(ds, keyword)
    return ds


def stored(ds: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """A data set as a file."""
    ds = copy.deepcopy(ds)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID, ds.file_meta.MediaStorageSOPClassUID = transfer_syntax, ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


def anonymized(ds: Dataset, body: dict[str, Any] | Request | None = None) -> Dataset:
    """An instance as it comes out under a request, or a body, which is given as JSON."""
    request = body if isinstance(body, Request) else parse_request(json.dumps(body or {}))
    return read(Deidentifier(request, key=KEY).rewrite(stored(ds)))


def modified(ds: Dataset, body: dict[str, Any] | Request) -> Dataset:
    """An instance that is a study of its own as it comes out of modify."""
    request = body if isinstance(body, Request) else parse_request(json.dumps(body), command="modify")
    source = BytesSource(stored(ds))
    scan = scan_instance(source)
    study_map = settled("study", altered([(scan, True)], request, KEYS), ())
    return read(Modifier(request, KEYS).rewrite(source, scan, study_map, selected=True).to_bytes())


def ready(name: str) -> Request:
    """One of the requests that the repository offers."""
    command = name.split("-")[0]
    text = (ROOT / "configs" / "requests" / name).read_text("utf-8")
    return parse_request(text, name, command=command if command in COMMANDS else "anonymize")


def read(data: bytes) -> Dataset:
    ds = pydicom.dcmread(io.BytesIO(data))
    ds.walk(lambda _, element: element.value)  # converts each element, so that one that can't be read fails here
    return ds


# ----------------------------------------------------------------------------------------------------- looking at them

STEP = re.compile(r"(\([^)]*\)(?: [A-Z]{2})?|\w+)(?:\[(\d+)\])?(?:\.|$)")


def element(ds: Dataset, path: str) -> Any:
    """The element at a path; None where there is none."""
    item, found = ds, None
    for name, index in STEP.findall(path):
        found = _element(item, name)
        if found is None:
            return None
        if index:
            if len(found.value) <= int(index):
                return None
            item = found.value[int(index)]
    return found


def _element(ds: Dataset, name: str) -> Any:
    found = ELEMENT.fullmatch(name)
    if not found:
        return ds.get(Tag(name))
    group, creator, low, number, _ = found.groups()
    if not creator:
        return ds.get(Tag(int(group, 16), int(number, 16)))
    try:
        return ds.private_block(int(group, 16), creator)[int(low, 16)]
    except KeyError:
        return None


def plain(value: Any) -> Any:
    """A value as a case writes it: text, or a list of it."""
    if isinstance(value, BaseTag):
        return f"{value.group:04X},{value.element:04X}"
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, (list, pydicom.multival.MultiValue)):
        return [plain(one) for one in value]
    return "" if value is None else str(value)


def check(before: Dataset, path: str, expected: Any, after: Dataset) -> None:
    """Whether what stands at a path is what a case expects."""
    found, original = element(after, path), element(before, path)
    if expected == "absent":
        assert found is None
        return
    assert found is not None, "absent"
    value = plain(found.value)
    if found.VR == "SQ" and expected == "as before":
        assert found.value == original.value
    elif isinstance(expected, dict):
        ((kind, wanted),) = expected.items()
        if kind == "items":
            assert len(found.value) == wanted
        elif kind == "same as":
            assert value == plain(element(after, wanted).value)
        elif kind == "matches":
            assert re.search(wanted, "\\".join(value) if isinstance(value, list) else value)
        else:
            assert value == new_uid(KEYS, wanted)
    elif expected == "present":
        pass
    elif expected == "new":
        assert value and value != plain(original.value)
    elif expected == "as before":
        assert value == plain(original.value) and found.VR == original.VR
    elif expected == "mapped":
        olds = plain(original.value)
        assert value == ([new_uid(KEYS, old) for old in olds] if isinstance(olds, list) else new_uid(KEYS, olds))
    else:
        assert value == (patient_pseudonym(KEYS, "4711") if expected in ("pseudonym", "patient") else expected)
    if vr := re.search(r"\) ([A-Z]{2})$", path):
        assert str(found.VR) == vr[1]


# --------------------------------------------------------------------------------------------------------- one instance


@pytest.mark.parametrize("case", cases("bodies", "paths", "private", "values", "editions", "defects", "ready"))
def test_each_body_does_what_its_case_says(case: dict[str, Any]) -> None:
    """Each element that a case names comes out as it says, and the file says what it is."""
    ds = instance(case.get("before", {}), case.get("without", ()))
    out = anonymized(ds, case["body"] if "body" in case else ready(case["request"]))
    for path, expected in case["after"].items():
        try:
            check(ds, path, expected, out)
        except AssertionError as wrong:
            raise AssertionError(f"{path}: {wrong}") from wrong
    assert out.file_meta.MediaStorageSOPInstanceUID == out.SOPInstanceUID
    assert out.file_meta.MediaStorageSOPClassUID == out.SOPClassUID
    assert out.PatientIdentityRemoved == "YES"


@pytest.mark.parametrize("case", cases("modify"))
def test_modify_changes_what_its_case_says_and_nothing_else(case: dict[str, Any]) -> None:
    """Each element that a case names comes out as it says; the others, and the Pixel Data, as they were."""
    ds = instance(case.get("before", {}) | {"(7FE0,0010) OB": "pixels"}, case.get("without", ()))
    out = modified(ds, case["body"] if "body" in case else ready(case["request"]))
    after = {"SOPInstanceUID": "new"} | case["after"]
    for path, expected in after.items():
        try:
            check(ds, path, expected, out)
        except AssertionError as wrong:
            raise AssertionError(f"{path}: {wrong}") from wrong
    named = {Tag(path.split("[")[0]) for path in after if not path.startswith("(")}
    named |= {
        found.tag
        for path in after
        if path.startswith("(")
        for it in (ds, out)
        if (found := _element(it, path.split(")")[0] + ")"))
    }
    assert {it.tag: it for it in ds if it.tag not in named} == {it.tag: it for it in out if it.tag not in named}
    assert out.file_meta.MediaStorageSOPInstanceUID == out.SOPInstanceUID
    assert out.file_meta.MediaStorageSOPClassUID == out.SOPClassUID


@pytest.mark.parametrize("case", cases("refused"))
def test_bodies_that_cannot_be_obeyed_are_refused(case: dict[str, Any]) -> None:
    """A mistake is told before anything runs, with its line and what to do."""
    text = case["text"] if "text" in case else json.dumps(case["body"], indent=1)
    with pytest.raises(RequestError) as refused:
        parse_request(text, "body", command=case.get("command", "anonymize"))
    told = [f"{problem.where} {problem.what}: {problem.remedy}" for problem in refused.value.problems]
    assert len(told) == len(case["told"]), told
    for problem, wanted in zip(told, case["told"], strict=True):
        assert re.search(wanted, problem), told


@pytest.mark.parametrize("case", cases("names"))
def test_attributes_are_named_in_many_ways(case: dict[str, Any]) -> None:
    """Each spelling of a name removes the attribute that it means, and no other one that would stay."""
    kept = {"SliceThickness": "1", "KVP": "120", "(0018,1151)": "7"}
    steps = {"ReferencedImageSequence": [{"ReferencedSOPClassUID": CT, "ReferencedSOPInstanceUID": "1.2.3.4.77"}]}
    before = {"SliceThickness": "1", "KVP": "120", "XRayTubeCurrent": "7"} | steps | case.get("before", {})
    ds = instance(before)
    out = anonymized(ds, {"Remove": case["names"]} | case.get("body", {}))
    for path in case["removed"]:
        assert element(ds, path) is not None and element(out, path) is None, path
    for path, value in kept.items():
        if path not in case["removed"]:
            assert plain(element(out, path).value) == value, path


BODIES = {
    "nothing": {},
    "a name": {"Replace": {"PatientName": "A^B"}},
    "paths": {"Replace": {"ReferencedStudySequence[0].StudyDescription": "x"}, "Remove": ["**.SeriesDescription"]},
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_one_rule_set_serves_many_copies(body: dict[str, Any]) -> None:
    """Ten copies of one instance come out equal, and so they do under the rule set that a worker gets."""
    ds = instance({"StudyDescription": "Chest", "ReferencedStudySequence": [{"SeriesDescription": "of Bodox"}]})
    request = parse_request(json.dumps(body))
    many = Deidentifier(request, key=KEY)
    results = {many.rewrite(stored(ds)) for _ in range(10)}
    again = Deidentifier(pickle.loads(pickle.dumps(request)), key=KEY)
    assert results == {again.rewrite(stored(ds))}
    sent = pickle.loads(pickle.dumps(compile_request(request)))
    assert sent.fingerprint == compile_request(request).fingerprint


def test_a_body_survives_being_written_down() -> None:
    """A request written out in full is the same request, with all of its paths."""
    body = {
        "Replace": {"PatientName": "A^B", "ReferencedStudySequence[*].StudyDescription": "x"},
        "Remove": ["ReferencedStudySequence[1].StationName", "60xx,0022"],
        "Keep": ["StudyDescription", "(7053,[Philips PET Private Group],00)"],
    }
    request = parse_request(json.dumps(body))
    again = parse_request(json.dumps(request.members()))
    assert again == request and again.fingerprint == request.fingerprint != Request().fingerprint


ACCEPTED = {"Synchronous": True, "Asynchronous": False, "Priority": 3, "KeepLabels": True}


def test_what_concerns_a_server_is_taken_with_a_notice() -> None:
    """A body that was written for a server runs: what has no meaning here is said once, and not obeyed."""
    request = parse_request(json.dumps(ACCEPTED))
    (notice,) = request.notices
    assert all(member in notice for member in ACCEPTED)
    assert request == Request()


def test_a_private_value_without_a_vr_is_set_aside() -> None:
    """Where neither the request, nor a dictionary, nor the element says the VR, no VR is made up."""
    ds = instance({"(7053,[IMAGINARY],00) LO": "of Bodox"})
    data = stored(ds, ImplicitVRLittleEndian)
    body = {"Replace": {"(7053,[IMAGINARY],00)": "pilot"}}
    with pytest.raises(InvalidInstance) as refused:
        Deidentifier(parse_request(json.dumps(body)), key=KEY).rewrite(data)
    assert refused.value.reason == "value"
    body["PrivateDictionary"] = {"7053,00": ["LO", "Ward", 1, "IMAGINARY"]}
    out = read(Deidentifier(parse_request(json.dumps(body)), key=KEY).rewrite(data))
    assert out.private_block(0x7053, "IMAGINARY")[0].value in ("pilot", b"pilot ")


@pytest.mark.parametrize("edition", [edition for edition in standard.EDITIONS if edition != "2008"])
def test_each_edition_is_named_in_the_output(edition: str) -> None:
    """The output names the edition that was followed, and the newest is the one that nobody asked for."""
    method = anonymized(instance({}), {"DicomVersion": edition}).DeidentificationMethod
    assert f"PS3.15 {edition} Basic Profile" in method
    same = anonymized(instance({})).DeidentificationMethod == method
    assert same == (edition == standard.NEWEST)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit])
def test_the_transfer_syntax_stays(syntax: str) -> None:
    """Pixel Data keeps its transfer syntax and its bits; without Pixel Data the syntax stays all the same."""
    ds = instance({"SamplesPerPixel": 1, "Rows": 2, "Columns": 2, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7})
    for pixels in (None, b"\xff\xd8\xff\xd9"):
        if pixels:
            encapsulated = syntax == JPEGBaseline8Bit
            ds.PixelData = pydicom.encaps.encapsulate([pixels]) if encapsulated else pixels
            ds["PixelData"].VR = "OB"
            ds["PixelData"].is_undefined_length = encapsulated
        out = read(Deidentifier(key=KEY).rewrite(stored(ds, syntax)))
        assert out.file_meta.TransferSyntaxUID == syntax
        assert out.get("PixelData") == ds.get("PixelData")


def test_a_text_that_no_character_set_expresses_is_set_aside_or_switched() -> None:
    """A name that the character set doesn't know makes the whole data set UTF-8; what can't be read then is told."""
    body = {"Replace": {"PatientName": "Müller^漢字"}, "Keep": ["StudyDescription"]}
    out = anonymized(instance({"StudyDescription": "Schädel"}), body)
    assert (out.SpecificCharacterSet, str(out.PatientName), out.StudyDescription) == (
        "ISO_IR 192",
        "Müller^漢字",
        "Schädel",
    )
    broken = stored(instance({"StudyDescription": "Sch-del"})).replace(b"Sch-del", b"Sch\xe4del")
    broken = broken.replace(b"ISO_IR 100", b"ISO_IR 192")
    with pytest.raises(InvalidInstance) as refused:
        Deidentifier(parse_request(json.dumps(body)), key=KEY).rewrite(broken.replace(b"ISO_IR 192", b"ISO_IR 6  "))
    assert refused.value.reason == "charset"


def test_uptake_can_be_computed_from_a_quantitative_pet() -> None:
    """pet-quantitative.yaml leaves dose, weight, half-life, the maker's factors, and the time since the injection."""
    philips = "Philips PET Private Group"
    injection = {
        "RadiopharmaceuticalStartDateTime": "20240304233000.00", "RadionuclideTotalDose": "350000000",
        "RadionuclideHalfLife": "6586.2", "RadiopharmaceuticalStartTime": "233000",
    }  # fmt: skip
    ds = instance(
        {
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128", "Modality": "PT", "Units": "CNTS", "DecayCorrection": "START",
            "SeriesDate": "20240305", "SeriesTime": "003000", "AcquisitionDate": "20240305",
            "AcquisitionTime": "003000", "PatientWeight": "71", "PatientSize": "1.7", "PatientSex": "F",
            "RadiopharmaceuticalInformationSequence": [injection], f"(7053,[{philips}],00) DS": "0.000551",
            f"(7053,[{philips}],09) DS": "1.77", f"(7053,[{philips}],03) ST": "SUV of Bodox",
        }
    )  # fmt: skip
    out = anonymized(ds, ready("pet-quantitative.yaml"))
    (given,) = out.RadiopharmaceuticalInformationSequence
    assert uptake(out) == uptake(ds) == datetime.timedelta(hours=1)
    assert out.SeriesDate != ds.SeriesDate and out.SeriesDate == out.AcquisitionDate
    assert (given.RadionuclideTotalDose, given.RadionuclideHalfLife) == (350000000, 6586.2)
    for keyword in ("PatientWeight", "PatientSize", "PatientSex", "DecayCorrection", "Units"):
        assert out[keyword].value == ds[keyword].value
    block = out.private_block(0x7053, philips)
    assert (block[0].value, block[9].value, 3 in block) == (0.000551, 1.77, False)
    assert [item.CodeValue for item in out.DeidentificationMethodCodeSequence] == [
        "113100", "113105", "113107", "113108", "113111",
    ]  # fmt: skip


def uptake(ds: Dataset) -> datetime.timedelta:
    """The time from injection to acquisition."""
    (given,) = ds.RadiopharmaceuticalInformationSequence
    injected = datetime.datetime.strptime(given.RadiopharmaceuticalStartDateTime[:14], "%Y%m%d%H%M%S")
    return datetime.datetime.strptime(ds.AcquisitionDate + ds.AcquisitionTime, "%Y%m%d%H%M%S") - injected


# -------------------------------------------------------------------------------------------------------- whole studies


class Result:
    """What the command made of some data sets."""

    def __init__(self, folder: Path, sources: list[Dataset], said: str) -> None:
        self.folder, self.said = folder, said
        crosswalk = [
            row
            for path in (folder / "out-restricted").rglob("crosswalk/uids/**/*.parquet")
            for row in pq.read_table(path, partitioning=None).to_pylist()
        ]
        self.uids = {row["original"]: row["new"] for row in crosswalk}
        self.files = sorted((folder / "out").rglob("*.dcm"))
        found = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, self.files)}
        self.found = [found.get(self.uids.get(ds.SOPInstanceUID, "")) for ds in sources]

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "out-audit" / "summary.json").read_text()))


def command(folder: Path, sources: list[Dataset], body: dict[str, Any] | None = None, status: int = 0) -> Result:
    """Anonymize data sets together, as a user does."""
    (folder / "in").mkdir(exist_ok=True)
    for number, ds in enumerate(sources):
        (folder / "in" / f"{number:03}.dcm").write_bytes(stored(ds))
    request = folder / "request.json"
    request.write_text(json.dumps(body or {}))
    arguments = ["--input", folder / "in", "--output", folder / "out", "--request", request, "--key", "env:KEY"]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "anonymize", *map(str, arguments)],
        env=os.environ | {"KEY": KEY.hex()}, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return Result(folder, sources, done.stdout + done.stderr)


def reference(ds: Dataset) -> dict[str, Any]:
    return {"ReferencedSOPClassUID": ds.SOPClassUID, "ReferencedSOPInstanceUID": ds.SOPInstanceUID}


def related() -> dict[str, Dataset]:
    """A study whose instances refer to each other: images, a presentation state, structures, a report, a PET."""
    outside = [{"ReferencedSOPClassUID": MR, "ReferencedSOPInstanceUID": f"1.2.9.{n}"} for n in (1, 2, 3)]
    axial = instance({"ReferencedImageSequence": outside, "SourceImageSequence": outside, "StationName": "ROOM1"})
    other = instance(
        {"ReferencedImageSequence": outside, "SourceImageSequence": outside, "SOPInstanceUID": "1.2.3.4.6"}
    )
    state = instance(
        {
            "SOPClassUID": GSPS, "Modality": "PR", "SOPInstanceUID": "1.2.3.4.7", "SeriesInstanceUID": "1.2.3.4.2",
            "ReferencedSeriesSequence": [
                {"SeriesInstanceUID": axial.SeriesInstanceUID, "ReferencedImageSequence": [reference(axial)]}
            ],
        }
    )  # fmt: skip
    series = {
        "SeriesInstanceUID": axial.SeriesInstanceUID, "ContourImageSequence": [reference(axial), reference(other)]
    }  # fmt: skip
    study = {
        "ReferencedSOPClassUID": "1.2.840.10008.3.1.2.3.1", "ReferencedSOPInstanceUID": axial.StudyInstanceUID,
        "RTReferencedSeriesSequence": [series],
    }  # fmt: skip
    contour = {"ContourGeometricType": "POINT", "NumberOfContourPoints": "1", "ContourData": ["1", "2", "3"]}
    structures = instance(
        {
            "SOPClassUID": RTSTRUCT, "Modality": "RTSTRUCT", "SOPInstanceUID": "1.2.3.4.8",
            "SeriesInstanceUID": "1.2.3.4.3",
            "ReferencedFrameOfReferenceSequence": [
                {"FrameOfReferenceUID": axial.FrameOfReferenceUID, "RTReferencedStudySequence": [study]}
            ],
            "ROIContourSequence": [
                {
                    "ReferencedROINumber": "1",
                    "ContourSequence": [contour | {"ContourImageSequence": [reference(axial)]} for _ in range(5)],
                }
            ],
        }
    )  # fmt: skip
    evidence = {
        "StudyInstanceUID": axial.StudyInstanceUID,
        "ReferencedSeriesSequence": [
            {"SeriesInstanceUID": axial.SeriesInstanceUID, "ReferencedSOPSequence": [reference(axial)]}
        ],
    }
    finding = {
        "RelationshipType": "CONTAINS", "ValueType": "TEXT", "TextValue": "no finding",
        "ConceptNameCodeSequence": [
            {"CodeValue": "121071", "CodingSchemeDesignator": "DCM", "CodeMeaning": "Finding"}
        ],
    }  # fmt: skip
    image = {"RelationshipType": "CONTAINS", "ValueType": "IMAGE", "ReferencedSOPSequence": [reference(axial)]}
    report = instance(
        {
            "SOPClassUID": SR, "Modality": "SR", "SOPInstanceUID": "1.2.3.4.10", "SeriesInstanceUID": "1.2.3.4.4",
            "CurrentRequestedProcedureEvidenceSequence": [evidence], "ContentSequence": [finding, image],
        }
    )  # fmt: skip
    pet = instance(
        {
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128", "Modality": "PT", "SOPInstanceUID": "1.2.3.4.11",
            "SeriesInstanceUID": "1.2.3.4.12",
            "RelatedSeriesSequence": [
                {"StudyInstanceUID": axial.StudyInstanceUID, "SeriesInstanceUID": axial.SeriesInstanceUID}
            ],
        }
    )  # fmt: skip
    return {"axial": axial, "other": other, "state": state, "structures": structures, "report": report, "pet": pet}


@pytest.fixture(scope="module")
def relations(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Dataset], dict[str, Dataset], Result]:
    """The related study, what came of it while the report's content was kept, and the run."""
    before = related()
    body = {"Keep": ["ContentSequence"], "UserData": {"ticket": ["a", 1]}}
    result = command(tmp_path_factory.mktemp("relations"), list(before.values()), body)
    assert all(result.found)
    return before, dict(zip(before, result.found, strict=True)), result


Relations = tuple[dict[str, Dataset], dict[str, Dataset], Result]


@pytest.mark.parametrize("sequence", ["ReferencedImageSequence", "SourceImageSequence"])
def test_references_out_of_the_study_stay_alike(sequence: str, relations: Relations) -> None:
    """Two images that refer to the same three others still do, under new UIDs and the same SOP Classes."""
    before, after, _ = relations
    ones, others = after["axial"][sequence].value, after["other"][sequence].value
    assert len(ones) == 3 and ones == others
    for old, new in zip(before["axial"][sequence].value, ones, strict=True):
        assert new.ReferencedSOPInstanceUID not in ("", old.ReferencedSOPInstanceUID)
        assert new.ReferencedSOPClassUID == old.ReferencedSOPClassUID
    assert after["axial"].FrameOfReferenceUID == after["other"].FrameOfReferenceUID
    assert after["axial"].FrameOfReferenceUID != before["axial"].FrameOfReferenceUID


def test_evidence_follows_while_kept_content_stays(relations: Relations) -> None:
    """A report's evidence names the new study, series and image; its content, kept, is what it was, to the byte."""
    before, after, result = relations
    (study,) = after["report"].CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    (image,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == after["axial"].StudyInstanceUID
    assert series.SeriesInstanceUID == after["axial"].SeriesInstanceUID
    assert image.ReferencedSOPInstanceUID == after["axial"].SOPInstanceUID
    assert after["report"].ContentSequence == before["report"].ContentSequence
    assert "ContentSequence" in result.said or "original UID" in result.said


def test_a_presentation_state_names_the_new_image(relations: Relations) -> None:
    """A presentation state applies to the image that it applied to."""
    _, after, _ = relations
    (series,) = after["state"].ReferencedSeriesSequence
    assert series.SeriesInstanceUID == after["axial"].SeriesInstanceUID
    assert series.ReferencedImageSequence[0].ReferencedSOPInstanceUID == after["axial"].SOPInstanceUID


def check_structures(structures: Dataset, axial: Dataset) -> None:
    (frame,) = structures.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    contours = structures.ROIContourSequence[0].ContourSequence
    assert frame.FrameOfReferenceUID == axial.FrameOfReferenceUID
    assert study.ReferencedSOPInstanceUID == axial.StudyInstanceUID == structures.StudyInstanceUID
    assert series.SeriesInstanceUID == axial.SeriesInstanceUID
    assert series.ContourImageSequence[0].ReferencedSOPInstanceUID == axial.SOPInstanceUID
    assert len(contours) == 5
    assert {it.ContourImageSequence[0].ReferencedSOPInstanceUID for it in contours} == {axial.SOPInstanceUID}


def test_structures_lie_on_the_new_images(relations: Relations) -> None:
    """Frame of reference, study, series and image of an RTSTRUCT are the CT's, as far in as the last contour."""
    before, after, _ = relations
    check_structures(after["structures"], after["axial"])
    for keyword in ("FrameOfReferenceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert after["axial"][keyword].value != before["axial"][keyword].value


def test_related_series_are_the_new_ones(relations: Relations) -> None:
    """A PET that names the CT's study and series names the new ones."""
    _, after, _ = relations
    (item,) = after["pet"].RelatedSeriesSequence
    assert item.StudyInstanceUID == after["axial"].StudyInstanceUID
    assert item.SeriesInstanceUID == after["axial"].SeriesInstanceUID


def test_user_data_stands_in_the_summary(relations: Relations) -> None:
    """What a user wrote for himself comes back with the outcome."""
    assert relations[2].summary["UserData"] == {"ticket": ["a", 1]}


def test_a_study_is_told_from_its_source_by_the_crosswalk(relations: Relations) -> None:
    """As many instances come out as went in, each is led back to its source, and the sources are as they were."""
    before, after, result = relations
    assert result.summary["InstancesCount"] == len(before) == len(result.files)
    assert result.summary["ResourcesCount"]["Study"] == 1 and result.summary["Type"] == "Study"
    for ds in before.values():
        assert result.uids[ds.StudyInstanceUID] == after["axial"].StudyInstanceUID
        assert ds.SeriesInstanceUID in result.uids
    assert "StationName" in before["axial"] and "StationName" not in after["axial"]
    for number, ds in enumerate(before.values()):
        assert (result.folder / "in" / f"{number:03}.dcm").read_bytes() == stored(ds)


def test_a_given_study_uid_is_the_one_in_references(tmp_path: Path) -> None:
    """Where the request gives the study its UID, and keeps that of the series, references hold them too."""
    before = related()
    sources = [before["axial"], before["other"], before["structures"]]
    body = {"Replace": {"StudyInstanceUID": "1.2.3.99.4"}, "Keep": ["SeriesInstanceUID"], "Force": True}
    result = command(tmp_path, sources, body)
    axial, _, structures = result.found
    assert axial.StudyInstanceUID == "1.2.3.99.4" and axial.SeriesInstanceUID == "1.2.3.4.1"
    check_structures(structures, axial)


def test_unrelated_studies_stay_apart(tmp_path: Path) -> None:
    """Patients, studies, series and instances of one run are as many as they were."""
    numbers = [(patient, study, series) for patient in (1, 2) for study in (1, 2) for series in (1, 2)]
    sources = [
        instance(
            {
                "PatientID": f"P{patient}", "StudyInstanceUID": f"1.2.3.{patient}.{study}",
                "SeriesInstanceUID": f"1.2.3.{patient}.{study}.{series}",
                "SOPInstanceUID": f"1.2.3.{patient}.{study}.{series}.{n}", "FrameOfReferenceUID": "1.2.3.4.9",
            }
        )
        for patient, study, series in numbers for n in (1, 2)
    ]  # fmt: skip
    result = command(tmp_path, sources)
    for keyword, count in {
        "PatientID": 2, "PatientName": 2, "StudyInstanceUID": 4, "SeriesInstanceUID": 8, "SOPInstanceUID": 16,
    }.items():  # fmt: skip
        assert len({str(ds[keyword].value) for ds in result.found}) == count, keyword
    assert result.summary["ResourcesCount"] == {"Instance": 16, "Series": 8, "Study": 4, "Patient": 2}
    assert result.summary["InstancesCount"] == 16 and "ID" not in result.summary
    assert not {str(ds.PatientID) for ds in result.found} & {"P1", "P2"}


MERGING = {
    "patients": ({"PatientID": "X"}, "2 patients"),
    "studies": ({"StudyInstanceUID": "1.2.99"}, "2 studies"),
    "series": ({"SeriesInstanceUID": "1.2.99"}, "2 series"),
    "instances": ({"SOPInstanceUID": "1.2.99"}, "2 instances"),
    "frames of reference": ({"FrameOfReferenceUID": "1.2.99"}, "2 frames of reference"),
}


def two_patients() -> list[Dataset]:
    return [
        instance(
            {
                "PatientID": f"P{n}", "StudyInstanceUID": f"1.2.3.{n}", "SeriesInstanceUID": f"1.2.3.{n}.1",
                "SOPInstanceUID": f"1.2.3.{n}.1.1", "FrameOfReferenceUID": f"1.2.3.{n}.9",
            }
        )
        for n in (1, 2)
    ]  # fmt: skip


@pytest.mark.parametrize(("replace", "count"), MERGING.values(), ids=MERGING)
def test_a_constant_that_would_merge_stops_the_run(replace: dict[str, str], count: str, tmp_path: Path) -> None:
    """One value for two patients, studies, series, instances or frames of reference: nothing is written."""
    result = command(tmp_path, two_patients(), {"Replace": replace, "Force": True}, status=2)
    assert count in " ".join(result.said.split())
    assert not result.files


def test_patients_are_merged_where_that_is_asked_for(tmp_path: Path) -> None:
    """AllowMerge and Force make one patient of two, whose studies stay two."""
    body = {"Replace": {"PatientID": "X"}, "Force": True, "AllowMerge": True}
    result = command(tmp_path, two_patients(), body)
    assert {ds.PatientID for ds in result.found} == {"X"}
    assert len({ds.StudyInstanceUID for ds in result.found}) == 2


def test_a_failure_stops_a_run_that_permits_none(tmp_path: Path) -> None:
    """With Permissive off, the first instance that can't be done ends the run; by default the others come out."""
    good, other = two_patients()
    other.StudyInstanceUID, other.SOPInstanceUID = good.StudyInstanceUID, "1.2.3.7"
    third = instance({"SOPInstanceUID": "1.2.3.8"})
    stopped = command(tmp_path, [good, other, third], {"Permissive": False}, status=1)
    assert "patient-conflict" in stopped.said and not stopped.files
    (tmp_path / "again").mkdir()
    went_on = command(tmp_path / "again", [good, other, third], status=3)
    assert len(went_on.files) == 1 and went_on.summary["FailedInstancesCount"] == 2


@pytest.mark.long
def test_several_runs_at_once_write_the_same(tmp_path: Path) -> None:
    """A study that two runs anonymize at once, one of them with workers, comes out alike and complete from both."""
    sources = [instance({"SOPInstanceUID": f"1.2.3.4.5.{n}", "InstanceNumber": str(n)}) for n in range(50)]
    (tmp_path / "in").mkdir()
    for number, ds in enumerate(sources):
        (tmp_path / "in" / f"{number}.dcm").write_bytes(stored(ds))
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "pipelines", "anonymize", "--input", str(tmp_path / "in"), "--key", "env:KEY",
             "--output", str(tmp_path / f"out{number}"), "--workers", str(number)],
            env=os.environ | {"KEY": KEY.hex()}, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for number in (1, 2)
    ]  # fmt: skip
    assert [process.wait() for process in runs] == [0, 0]
    results = [
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.dcm")}
        for folder in (tmp_path / f"out{number}" for number in (1, 2))
    ]
    assert len(results[0]) == 50 and results[0] == results[1]
