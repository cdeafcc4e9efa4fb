"""Data sets to test with: bytes laid out by hand, so that they can be wrong, and a study that shows what can leak.

Nothing here uses the engine's own encoder: what tests it must not share its mistakes.
"""

import struct
import zlib
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
BIG: Final = "1.2.840.10008.1.2.2"
JPEG: Final = "1.2.840.10008.1.2.4.50"

CT: Final = "1.2.840.10008.5.1.4.1.1.2"
_LONG: Final = ["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"]
UNDEFINED: Final = 0xFFFFFFFF


class Syntax:
    """Lays out elements in one transfer syntax.

    Args:
      uid: of the transfer syntax.
    """

    def __init__(self, uid: str = EXPLICIT) -> None:
        self.uid, self.implicit, self.order = uid, uid == IMPLICIT, ">" if uid == BIG else "<"

    def tag(self, tag: int) -> bytes:
        return struct.pack(self.order + "HH", tag >> 16, tag & 0xFFFF)

    def element(self, tag: int, vr: str, value: bytes | str | int, length: int | None = None) -> bytes:
        """An element; `length` is written instead of the true one, where it is to be wrong."""
        if isinstance(value, int):
            value = struct.pack(self.order + {"US": "H", "UL": "I"}[vr], value)
        if isinstance(value, str):
            value = value.encode() + (b"\0" if vr == "UI" else b" ") * (len(value.encode()) % 2)
        size = len(value) if length is None else length
        if self.implicit:
            return self.tag(tag) + struct.pack(self.order + "I", size) + value
        if vr in _LONG:
            return self.tag(tag) + vr.encode() + b"\0\0" + struct.pack(self.order + "I", size) + value
        return self.tag(tag) + vr.encode() + struct.pack(self.order + "H", size) + value

    def item(self, content: bytes, undefined: bool = False) -> bytes:
        """An Item of defined length, or of an undefined one with its delimiter."""
        head = self.tag(0xFFFEE000) + struct.pack(self.order + "I", UNDEFINED if undefined else len(content))
        return head + content + (self.tag(0xFFFEE00D) + bytes(4) if undefined else b"")

    def sequence(
        self, tag: int, items: list[bytes], undefined: bool = False, vr: str = "SQ", item_undefined: bool = False
    ) -> bytes:
        """A sequence of Items, both of defined length or not; under UN its Items must be implicit little endian."""
        content = b"".join(self.item(item, item_undefined) for item in items) if vr == "SQ" else b"".join(items)
        if not undefined:
            return self.element(tag, vr, content)
        order = "<" if vr == "UN" else self.order
        delimiter = struct.pack(order + "HHI", 0xFFFE, 0xE0DD, 0)
        return self.element(tag, vr, content + delimiter, UNDEFINED)


def part10(
    data_set: bytes, syntax: str = EXPLICIT, sop_class: str = CT, preamble: bytes = bytes(128) + b"DICM"
) -> bytes:
    """A DICOM file around an encoded data set, deflated where its transfer syntax says so."""
    explicit = Syntax()
    meta = explicit.element(0x00020001, "OB", b"\0\1") + explicit.element(0x00020002, "UI", sop_class)
    meta += explicit.element(0x00020003, "UI", "1.2.3.4.5") + explicit.element(0x00020010, "UI", syntax)
    if syntax == DEFLATED:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data_set = deflater.compress(data_set) + deflater.flush()
    return preamble + explicit.element(0x00020000, "UL", len(meta)) + meta + data_set


def minimal(syntax: Syntax, *more: tuple[int, bytes]) -> bytes:
    """The data set of a small CT image, with elements of its own put in at their tags, or in the place of its own.

    Args:
      more: (tag, encoded element) each; an empty one takes the element at that tag away.
    """
    e = syntax.element
    elements = {
        0x00080005: e(0x00080005, "CS", "ISO_IR 100"),
        0x00080008: e(0x00080008, "CS", "ORIGINAL\\PRIMARY\\AXIAL"),
        0x00080016: e(0x00080016, "UI", CT),
        0x00080018: e(0x00080018, "UI", "1.2.3.4.5"),
        0x00080020: e(0x00080020, "DA", "20240102"),
        0x00080060: e(0x00080060, "CS", "CT"),
        0x00100010: e(0x00100010, "PN", "Bodox^Kalex"),
        0x00100020: e(0x00100020, "LO", "4711"),
        0x0020000D: e(0x0020000D, "UI", "1.2.3.4"),
        0x0020000E: e(0x0020000E, "UI", "1.2.3.4.1"),
        0x00200052: e(0x00200052, "UI", "1.2.3.4.9"),
        0x00280002: e(0x00280002, "US", 1),
        0x00280010: e(0x00280010, "US", 2),
        0x00280011: e(0x00280011, "US", 2),
        0x00280100: e(0x00280100, "US", 16),
        0x00280101: e(0x00280101, "US", 12),
        0x00280102: e(0x00280102, "US", 11),
        0x7FE00010: e(0x7FE00010, "OW", b"\1\2\3\4\5\6\7\x08"),
    }
    elements |= dict(more)
    return b"".join(element for _, element in sorted(elements.items()))


# ------------------------------------------------------------------------------------------------------- a study

PLANTED: Final = (
    "Zubikax", "Wolemix", "19530417", "MRN5550123", "ACC7770001", "20240305", "Fenoral General", "Dr.Kasulox",
    "1.2.826.0.1.3680043.10.4711",
)  # fmt: skip
"""Values of `write_demo_study` that no output may hold."""

_ROOT: Final = "1.2.826.0.1.3680043.10.4711."
_STUDY: Final = _ROOT + "100"
_FRAME: Final = _ROOT + "9"


def write_demo_study(folder: Path) -> list[Path]:
    """Write a small made-up study whose instances refer to each other: localizer, CT, RTSTRUCT, enhanced MR, SR.

    The same bytes each time. Identifiers stand at the top, nested, in private blocks and in text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    localizer = _image("1.1", 1, "localizer")
    axial = [_image(f"2.{n}", 2, "axial", localizer) for n in (1, 2, 3)]
    study = [localizer, *axial, _structures(axial), _enhanced(localizer), _report(axial)]
    paths = []
    for ds in study:
        paths.append(folder / f"{ds.Modality}-{ds.SOPInstanceUID.split(_ROOT)[1]}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def _common(number: str, series: int, sop_class: str, modality: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID(_ROOT + number)
    meta.TransferSyntaxUID = UID(EXPLICIT)
    ds = FileDataset("", {}, file_meta=meta, preamble=b"Zubikax".ljust(128, b"\0"))
    ds.SpecificCharacterSet, ds.SOPClassUID, ds.SOPInstanceUID = "ISO_IR 192", sop_class, _ROOT + number
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _STUDY, f"{_ROOT}{series}"
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = "20240305"
    ds.StudyTime = ds.ContentTime = "101112"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Zubikax^Wolemix", "MRN5550123", "19530417", "F"
    ds.AccessionNumber, ds.InstitutionName = "ACC7770001", "Fenoral General Hospital"
    ds.ReferringPhysicianName, ds.Modality, ds.Manufacturer = "Dr.Kasulox", modality, "Imaginary"
    ds.StudyID, ds.SeriesNumber, ds.StudyDescription = "17", str(series), "Chest of Zubikax"
    request = Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepDescription = "ACC7770001", "for Dr.Kasulox"
    ds.RequestAttributesSequence = Sequence([request])
    block = ds.private_block(0x0029, "IMAGINARY CSA", create=True)
    inside = Dataset()
    inside.PatientName = "Zubikax^Wolemix"
    block.add_new(0x10, "LO", "copy for Zubikax")
    block.add_new(0x20, "SQ", Sequence([inside]))
    return ds


def _reference(ds: Dataset, **more: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    for keyword, value in more.items():
        setattr(item, keyword, value)
    return item


def _code(value: str, scheme: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


def _pixels(ds: Dataset, frames: int = 1) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.Rows, ds.Columns = 1, "MONOCHROME2", 8, 8
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = bytes(range(128)) * frames


def _image(number: str, series: int, kind: str, localizer: Dataset | None = None) -> FileDataset:
    ds = _common(number, series, CT, "CT")
    ds.ImageType = ["ORIGINAL", "PRIMARY", kind.upper()]
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = _FRAME, ""
    ds.InstanceNumber, ds.ImagePositionPatient = number.split(".")[1], [0, 0, int(number.split(".")[1])]
    ds.ImageOrientationPatient, ds.PixelSpacing, ds.SliceThickness = [1, 0, 0, 0, 1, 0], [1, 1], "1"
    ds.KVP, ds.RescaleIntercept, ds.RescaleSlope, ds.AcquisitionNumber = "120", "-1024", "1", "1"
    if localizer is not None:
        item = _reference(localizer)
        item.PurposeOfReferenceCodeSequence = _code("121311", "DCM", "Localizer")
        ds.ReferencedImageSequence = Sequence([item])
    ds.ProcedureCodeSequence = _code("X17", "99LOCAL", "Chest for Dr.Kasulox")
    _pixels(ds)
    return ds


def _structures(axial: list[FileDataset]) -> FileDataset:
    ds = _common("3.1", 3, "1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT")
    ds.StructureSetLabel, ds.StructureSetDate, ds.StructureSetTime = "Plan Zubikax", "20240305", "101500"
    series, study, frame, roi, contours, contour = (Dataset() for _ in range(6))
    series.SeriesInstanceUID = axial[0].SeriesInstanceUID
    series.ContourImageSequence = Sequence([_reference(image) for image in axial])
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", _STUDY
    study.RTReferencedSeriesSequence = Sequence([series])
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = _FRAME, Sequence([study])
    ds.ReferencedFrameOfReferenceSequence = Sequence([frame])
    roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = "1", "Lung of Wolemix", "MANUAL"
    roi.ReferencedFrameOfReferenceUID = _FRAME
    ds.StructureSetROISequence = Sequence([roi])
    contour.ContourGeometricType, contour.NumberOfContourPoints = "POINT", "1"
    contour.ContourData, contour.ContourImageSequence = [1, 1, 1], Sequence([_reference(axial[0])])
    contours.ReferencedROINumber, contours.ContourSequence = "1", Sequence([contour])
    ds.ROIContourSequence = Sequence([contours])
    return ds


def _enhanced(localizer: FileDataset) -> FileDataset:
    ds = _common("4.1", 4, "1.2.840.10008.5.1.4.1.1.4.1", "MR")
    ds.ImageType, ds.NumberOfFrames, ds.InstanceNumber = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "2", "1"
    ds.FrameOfReferenceUID, ds.ContentQualification = _FRAME, "PRODUCT"
    ds.AcquisitionDateTime = "20240305101600"
    frames = []
    for number in (1, 2):
        frame, content, private = Dataset(), Dataset(), Dataset()
        content.FrameReferenceDateTime, content.StackID = f"2024030510160{number}", "1"
        content.InStackPositionNumber, content.FrameComments = number, "frame of Zubikax"
        frame.FrameContentSequence = Sequence([content])
        frame.ReferencedImageSequence = Sequence([_reference(localizer)])
        block = frame.private_block(0x0021, "IMAGINARY MR", create=True)
        private.PatientID = "MRN5550123"
        block.add_new(0xFE, "SQ", Sequence([private]))
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    ds.SharedFunctionalGroupsSequence = Sequence([Dataset()])
    _pixels(ds, 2)
    return ds


def _report(axial: list[FileDataset]) -> FileDataset:
    ds = _common("5.1", 5, "1.2.840.10008.5.1.4.1.1.88.11", "SR")
    ds.CompletionFlag, ds.VerificationFlag, ds.ValueType = "COMPLETE", "UNVERIFIED", "CONTAINER"
    ds.ContinuityOfContent, ds.ConceptNameCodeSequence = "SEPARATE", _code("18748-4", "LN", "Diagnostic imaging report")
    series, study, text = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = axial[0].SeriesInstanceUID
    series.ReferencedSOPSequence = Sequence([_reference(image) for image in axial])
    study.StudyInstanceUID, study.ReferencedSeriesSequence = _STUDY, Sequence([series])
    ds.CurrentRequestedProcedureEvidenceSequence = Sequence([study])
    text.RelationshipType, text.ValueType = "CONTAINS", "TEXT"
    text.ConceptNameCodeSequence, text.TextValue = _code("121071", "DCM", "Finding"), "Zubikax is well"
    ds.ContentSequence = Sequence([text])
    return ds
