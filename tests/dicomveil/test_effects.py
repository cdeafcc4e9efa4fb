"""What requests make of single files, where one of their members meets what another, or the file, does."""

import hashlib
import io
import json
import struct
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from dicomveil import content, walk
from dicomveil.body import parse_request
from dicomveil.deidentifier import Deidentifier
from dicomveil.errors import InvalidInstance, RequestError
from dicomveil.stream import EXPLICIT_LITTLE

KEY = hashlib.sha256(b"effects").digest()
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


def instance(**attributes: Any) -> Dataset:
    """A CT image without pixels, by keyword."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.UID(EXPLICIT)
    made.SOPClassUID, made.SOPInstanceUID = CT, "1.2.3.4"
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3.1", "1.2.3.2"
    made.PatientID, made.PatientName, made.Modality = "PID77", "Canary^Bird", "CT"
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def item(**attributes: Any) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def encoded(made: Dataset) -> bytes:
    stored = io.BytesIO()
    pydicom.dcmwrite(stored, made, enforce_file_format=True)
    return stored.getvalue()


def rewritten(made: Dataset | bytes, **body: Any) -> bytes:
    stored = made if isinstance(made, bytes) else encoded(made)
    return Deidentifier(parse_request(json.dumps(body)), key=KEY).rewrite(stored)


def read(made: Dataset | bytes, **body: Any) -> Dataset:
    return pydicom.dcmread(io.BytesIO(rewritten(made, **body)))


def test_items_under_un_in_a_kept_private_element_are_entered() -> None:
    """A private element of undefined length is walked on from its end, also where a dictionary gives it a plain VR."""
    pack, name = EXPLICIT_LITTLE.item.pack, EXPLICIT_LITTLE.element(0x00100010, "PN", b"Canary^Bird")
    nested = struct.pack("<HHI", 0x0010, 0x0010, 12) + b"Canary^Bird "
    assert len(nested) == len(name)
    empty = EXPLICIT_LITTLE.header(0x00081140, "SQ", -1) + pack(0xFFFE, 0xE0DD, 0)
    private = b"".join(
        (
            EXPLICIT_LITTLE.element(0x00190010, "LO", b"GEMS_ACQU_01"),
            EXPLICIT_LITTLE.header(0x0019109E, "UN", -1),
            pack(0xFFFE, 0xE000, len(nested)) + nested,
            pack(0xFFFE, 0xE0DD, 0),
        )
    )
    stored = encoded(instance())
    for before, more in ((b"\x10\x00\x10\x00PN", empty), (b"\x20\x00\x0d\x00UI", private)):
        at = stored.index(before)
        stored = stored[:at] + more + stored[at:]
    out = rewritten(stored, KeepPrivateTags=True)
    assert b"GEMS_ACQU_01" in out
    assert b"Canary" not in out
    assert "SeriesInstanceUID" in pydicom.dcmread(io.BytesIO(out))


def image(pixels: bytes = b"\x00\x80" * 16, **attributes: Any) -> Dataset:
    """4 x 4 pixels of 12 bits, the highest bit of whose words is an overlay."""
    made = instance(
        Rows=4, Columns=4, BitsAllocated=16, BitsStored=12, HighBit=11, SamplesPerPixel=1, PixelRepresentation=0,
        PhotometricInterpretation="MONOCHROME2", **attributes,
    )  # fmt: skip
    for tag, vr, value in (
        (0x60000010, "US", 4), (0x60000011, "US", 4), (0x60000040, "CS", "G"), (0x60000050, "SS", [1, 1]),
        (0x60000100, "US", 16), (0x60000102, "US", 15), (0x7FE00010, "OW", pixels),
    ):  # fmt: skip
        made.add_new(tag, vr, value)
    return made


@pytest.mark.parametrize("options", [[], ["CleanGraphics"]])
@pytest.mark.parametrize("removed", ["6000,0102", "60xx,xxxx", "60xx,01xx", "60xx,3000", "6000,0040"])
def test_removing_an_overlays_attributes_clears_its_bits_too(removed: str, options: list[str]) -> None:
    """A request that removes more never leaves more: the overlay in the pixels goes with what described it."""
    assert read(image(), Remove=[removed], Options=options).PixelData == bytes(32)


@pytest.mark.parametrize("rule", [{"Remove": ["Rows"]}, {"Remove": ["0028,01xx"]}, {"Replace": {"BitsAllocated": 16}}])
def test_the_layout_of_the_source_decides_where_its_pixels_end(rule: dict[str, Any]) -> None:
    """Bytes behind the last pixel go although the output no longer says how many pixels there are."""
    assert read(image(bytes(32) + b"SECRET"), **rule).PixelData == bytes(32)


@pytest.mark.parametrize("rule", [{"Remove": ["BurnedInAnnotation"]}, {"Replace": {"BurnedInAnnotation": "NO"}}])
def test_what_says_that_it_speaks_is_set_aside_whatever_is_written_instead(rule: dict[str, Any]) -> None:
    """An instance's own YES isn't unsaid by a request; BurnedIn: pass is the way to let it through."""
    with pytest.raises(InvalidInstance, match="burned-in"):
        rewritten(image(BurnedInAnnotation="YES"), **rule)
    assert rewritten(image(BurnedInAnnotation="YES"), BurnedIn="pass", **rule)


def test_a_given_patient_id_is_written_in_utf_8_at_every_depth() -> None:
    """Where the file's character set lacks a character of the new Patient ID, all of the file is switched, Items too."""
    made = instance(ReferencedImageSequence=[item(PatientID="PID77"), item(PatientID="PID77")])
    out = read(made, Replace={"PatientID": "Жук"}, Force=True)
    assert [out.PatientID, *(it.PatientID for it in out.ReferencedImageSequence)] == ["Жук"] * 3


def test_a_patient_id_in_an_item_follows_the_switch_to_utf_8() -> None:
    """A Patient ID that the old character set has too is written in the new one."""
    made = instance(SpecificCharacterSet="ISO_IR 100", ReferencedImageSequence=[item(PatientID="PID77")])
    out = rewritten(made, Replace={"PatientID": "Zoë", "SpecificCharacterSet": "ISO_IR 192"}, Force=True)
    assert out.count("Zoë".encode()) == 2
    assert b"Zo\xeb" not in out


def test_an_earlier_method_follows_the_switch_to_utf_8() -> None:
    """A value that ours is added to is text like any other."""
    made = instance(SpecificCharacterSet="ISO_IR 100", DeidentificationMethod=["schon früher", "x"])
    out = read(made, Replace={"SpecificCharacterSet": "ISO_IR 192"})
    assert out.DeidentificationMethod[:2] == ["schon früher", "x"]


CLAIMS: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "Basic Profile": ({}, ["113100"], "REMOVED"),
    "mask over a sequence": ({"Keep": ["0020,91xx"]}, [], "UNMODIFIED"),
    "date in an Item": ({"Keep": ["ReferencedImageSequence[*].StudyDate"]}, [], "UNMODIFIED"),
    "date everywhere": ({"Keep": ["**.StudyDate"]}, [], "UNMODIFIED"),
    "date of the supplement": ({"Keep": ["SecondaryReviewDate"]}, ["113100"], "UNMODIFIED"),
    "other text": ({"Keep": ["**.CodeMeaning"]}, ["113100"], "REMOVED"),
    "date written in an Item": (
        {"Replace": {"ReferencedImageSequence[*].StudyDate": "20000101"}}, ["113100"], "MODIFIED",
    ),
    "private element": ({"Keep": ["0009,[ACME],01"]}, [], "UNMODIFIED"),
    "safe private element, not cleaned": (
        {"Options": ["RetainSafePrivate"], "Keep": ["0019,[GEMS_ACQU_01],9e"]}, [], "UNMODIFIED",
    ),
    "bits of an overlay": ({"Keep": ["6000,0102"]}, [], "REMOVED"),
    "retained dates, one written": (
        {"Options": ["RetainLongitudinalFullDates", "RetainUIDs"], "Replace": {"StudyDate": "20000101"}},
        ["113100", "113110"], "UNMODIFIED",
    ),
    "retained UIDs, one given": (
        {"Options": ["RetainUIDs"], "Replace": {"StudyInstanceUID": "1.2.9"}, "Force": True}, ["113100"], "REMOVED",
    ),
    "retained device, one removed": (
        {"Options": ["RetainDeviceIdentity"], "Remove": ["StationName"]}, ["113100"], "REMOVED",
    ),
    "cleaned descriptors, one removed": (
        {"Options": ["CleanDescriptors"], "Remove": ["StudyDescription"]}, ["113100", "113105"], "REMOVED",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "codes", "dates"), CLAIMS.values(), ids=CLAIMS)
def test_only_what_was_done_is_claimed(body: dict[str, Any], codes: list[str], dates: str) -> None:
    """A code stands for all that its Profile or Option demands, and REMOVED for no date that stays."""
    out = read(instance(), **body)
    claimed = out.get("DeidentificationMethodCodeSequence", [])
    assert ([code.CodeValue for code in claimed], out.LongitudinalTemporalInformationModified) == (codes, dates)


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[int]:
    """Count the calls of a function, in a list of one number."""
    calls, function = [0], getattr(module, name)

    def counting(*arguments: Any) -> Any:
        calls[0] += 1
        return function(*arguments)

    monkeypatch.setattr(module, name, counting)
    return calls


def test_trees_inside_a_tree_dont_have_the_rest_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tree of content items is read ahead once, also where it stands in an item of another: no square of them."""
    calls = counted(monkeypatch, content, "read_outline")
    inner = item(RelationshipType="CONTAINS", ValueType="CONTAINER")
    around = [
        item(
            RelationshipType="CONTAINS", ValueType="CONTAINER", ReferencedImageSequence=[item(ContentSequence=[inner])]
        )
        for _ in range(20)
    ]
    made = instance(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", ContentSequence=around)
    out = read(made, Options=["CleanStructuredContent"])
    assert len(out.ContentSequence) == 20
    assert calls == [21]


def test_private_items_in_one_another_are_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read to see whether a private element holds Items isn't read again for each level below."""
    calls = counted(monkeypatch, walk, "holds_items")
    pack, name = EXPLICIT_LITTLE.item.pack, b"Canary^Bird "
    nested = struct.pack("<HHI", 0x0010, 0x0010, len(name)) + name
    for _ in range(20):
        undefined = pack(0x0009, 0x1001, 0xFFFFFFFF) + pack(0xFFFE, 0xE000, 0xFFFFFFFF)
        nested = undefined + nested + pack(0xFFFE, 0xE00D, 0) + pack(0xFFFE, 0xE0DD, 0)
    nested = EXPLICIT_LITTLE.header(0x00091001, "UN", -1) + nested[8:]
    stored = encoded(instance())
    at = stored.index(b"\x10\x00\x10\x00PN")
    out = rewritten(stored[:at] + nested + stored[at:], KeepPrivateTags=True)
    assert b"Canary" not in out
    assert calls == [1]


def test_what_is_no_time_doesnt_stay_as_one() -> None:
    """Under modified dates times stay, but only what is a time of day."""
    stored = encoded(instance(StudyTime="1200", SeriesTime="0830")).replace(b"1200", b"JOHN")
    out = rewritten(stored, Options=["RetainLongitudinalModifiedDates"])
    assert b"JOHN" not in out
    assert b"0830" in out


def test_meta_and_data_set_agree_on_the_sop_class() -> None:
    """Keep wins over Replace in the File Meta Information too."""
    out = read(instance(), Keep=["SOPClassUID"], Replace={"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"})
    assert out.file_meta.MediaStorageSOPClassUID == out.SOPClassUID == CT


@pytest.mark.parametrize("vr", ["OB", "CS", "OW", "UN", "LO"])
def test_safe_text_is_cleaned_under_whatever_vr_it_is_written(vr: str) -> None:
    """A safe private element that a dictionary knows as text is text, although its file calls it bytes or a code."""
    stored = encoded(instance())
    private = EXPLICIT_LITTLE.element(0x00190010, "LO", b"GEMS_ACQU_01")
    private += EXPLICIT_LITTLE.element(0x0019109E, vr, b"CANARY BIRD ")
    at = stored.index(b"\x20\x00\x0d\x00UI")
    assert b"CANARY" not in rewritten(stored[:at] + private + stored[at:], Options=["RetainSafePrivate"])


@pytest.mark.parametrize("there", [{}, {"DeidentificationMethod": "earlier"}])
def test_a_removed_method_is_missing_whether_it_was_there_or_not(there: dict[str, str]) -> None:
    """Remove doesn't depend on what the file holds."""
    assert "DeidentificationMethod" not in read(instance(**there), Remove=["DeidentificationMethod"])


def test_a_coding_scheme_follows_the_switch_to_utf_8() -> None:
    """The designator that decides on a Code Meaning is text as well."""
    code = item(CodeValue="1", CodingSchemeDesignator="99é", CodeMeaning="x")
    made = instance(SpecificCharacterSet="ISO_IR 100", ProcedureCodeSequence=[code])
    out = read(made, Replace={"SpecificCharacterSet": "ISO_IR 192"})
    assert out.ProcedureCodeSequence[0].CodingSchemeDesignator == "99é"


@pytest.mark.parametrize(
    "rule",
    [{"Keep": ["SOPInstanceUID"]}, {"Replace": {"SOPInstanceUID": "1.2.9"}}, {"Options": ["RetainUIDs"]}],
)
def test_what_keeps_its_uid_isnt_told_apart(rule: dict[str, Any]) -> None:
    """Conflicts: distinct needs new SOP Instance UIDs, and says so before anything runs."""
    with pytest.raises(RequestError, match="told apart"):
        parse_request(json.dumps({"Conflicts": "distinct", "Force": True, **rule}))


def test_a_date_that_no_patient_owns_is_not_left_where_dates_are_moved() -> None:
    """A palette has no patient whose days could move its dates: they get the Basic Profile's action (E.3.6)."""
    palette = instance(SOPClassUID="1.2.840.10008.5.1.4.39.1", ContentDate="20120702", InstanceCreationDate="20120702")
    del palette.PatientID, palette.PatientName, palette.StudyInstanceUID, palette.SeriesInstanceUID
    made = read(palette, Options=["RetainLongitudinalModifiedDates"])
    assert "20120702" not in str(made)
