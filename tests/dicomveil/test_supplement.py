"""Our own decisions: complete, explained, and none that keeps what people type."""

import re

import pytest

from dicomveil import standard

ROWS = {row.tag: row for row in standard.supplement()}
BY_KEYWORD = {row.keyword: row for row in standard.supplement()}
LISTED = {row.tag for row in standard.rows(standard.NEWEST)}
DATES, TEXTS = {"DA", "DT", "TM"}, {"AE", "PN", "LO", "SH", "ST", "LT", "UT", "UC", "UR"}
BYTES = {"OB", "OW", "UN", "OB or OW"}
OUTSIDE_DATA_SETS = (0x0000, 0x0002, 0x0004)


def text(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def test_nothing_that_can_identify_is_undecided() -> None:
    """Each date, name, text, address and document attribute of PS3.6 is named by Table E.1-1 or by us."""
    undecided = [
        (text(tag), element.keyword)
        for tag, element in standard.dictionary().items()
        if element.vr in DATES | TEXTS | BYTES
        and tag >> 16 not in OUTSIDE_DATA_SETS
        and text(tag) not in LISTED
        and text(tag) not in ROWS
    ]
    assert undecided == []


def test_no_uid_is_undecided() -> None:
    """Each UID attribute that names something of the patient's is mapped or replaced by one of the two tables."""
    codes = {row.tag: row.basic for row in standard.rows(standard.NEWEST)} | {
        tag: row.action for tag, row in ROWS.items()
    }
    for tag, uid in standard.uid_attributes().items():
        if tag >> 16 not in OUTSIDE_DATA_SETS:
            assert (codes.get(text(tag), "K") == "K") == (uid.role == "definition"), uid.keyword


@pytest.mark.parametrize("row", standard.supplement(), ids=lambda row: row.tag)
def test_every_row_is_one_of_the_dictionarys_with_a_reason(row: standard.SupplementRow) -> None:
    """A decision names an attribute by PS3.6's keyword, only where Table E.1-1 is silent, and says why."""
    assert row.action in {"X", "Z/D", "X/Z/D", "U", "K", "code-meaning"}
    assert len(row.reason) > 8 and row.tag not in LISTED
    if "x" not in row.tag:
        assert standard.dictionary()[standard.tag_number(row.tag)].keyword == row.keyword


def test_no_attribute_is_decided_twice() -> None:
    """One attribute, one row, in the order of tags."""
    tags = [row.tag for row in standard.supplement()]
    assert tags == sorted(set(tags))


def test_no_date_name_or_address_is_kept() -> None:
    """Whatever is a date, a time, a person's name, an address or a network name goes; a code that is an URN stays."""
    for row in standard.supplement():
        if "x" not in row.tag and standard.dictionary()[standard.tag_number(row.tag)].vr in {*DATES, "PN", "UR", "AE"}:
            assert row.action in {"X", "X/Z/D", "Z/D"} or row.keyword == "URNCodeValue"


VENDORS = re.compile("ExposureControlMode|SafetyStandard|ASL|Compression|Species|DimensionDescription|Transform|DCT")


def test_what_people_type_is_not_kept() -> None:
    """Descriptions, comments, notes and labels go, but for those that equipment writes."""
    typed = re.compile("Description|Comment|Notes|Label|Reason|Remarks")
    kept = [row.keyword for row in standard.supplement() if row.action == "K" and typed.search(row.keyword)]
    assert [keyword for keyword in kept if not VENDORS.search(keyword)] == []


@pytest.mark.parametrize(
    ("action", "keywords"),
    [
        ("U", "MultiFrameSourceSOPInstanceUID SOPInstanceUIDOfConcatenationSource VolumeFrameOfReferenceUID"),
        ("U", "TableFrameOfReferenceUID EquipmentFrameOfReferenceUID TargetFrameOfReferenceUID SelectorUIValue"),
        ("code-meaning", "CodeMeaning"),
        ("Z/D", "ContentDescription DocumentTitle"),
        ("X", "PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar PatientAlternativeCalendar"),
        (
            "X",
            "RetrieveURL RetrieveURI PixelDataProviderURL DeviceID CompletionFlagDescription EncryptedAttributesSequence",
        ),
        ("X/Z/D", "SegmentLabel TrackingID RadiationMachineName TextValue FrameLabelVector"),
        ("K", "Manufacturer ManufacturerModelName SoftwareVersions PulseSequenceName ConvolutionKernel CodeValue"),
        ("K", "PixelData WaveformData ICCProfile LUTExplanation RescaleType StackID"),
    ],
)
def test_decisions(action: str, keywords: str) -> None:
    """Links are mapped, typed text goes, and the vocabulary that makes images usable stays."""
    assert {BY_KEYWORD[keyword].action for keyword in keywords.split()} == {action}


def test_whole_groups() -> None:
    """Overlays go whole, labels and descriptions included, and curves as Table E.1-1 has them."""
    assert ROWS["(60xx,xxxx)"].action == "X" and "(50xx,xxxx)" in LISTED
