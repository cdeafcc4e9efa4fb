"""The tables that we ship say what the Standard says, and miss nothing that a decision hangs on."""

import re
import subprocess
import sys

import pytest

from dicomveil import standard

EDITIONS = pytest.mark.parametrize("edition", standard.EDITIONS)
CODES = {"D", "Z", "X", "U", "Z/D", "X/Z", "X/D", "X/Z/D", "X/Z/U*"}
CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4.1"
PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
PALETTE, PRIVATE = "1.2.840.10008.5.1.4.39.1", "1.3.12.2.1107.5.9.1"


@EDITIONS
def test_the_table_is_whole(edition: str) -> None:
    """Table E.1-1 has its 657 rows in 2026d, each with a tag or a mask of its own and one action code we know."""
    table = standard.rows(edition)
    assert len(table) == len({row.tag for row in table}) == {"2026d": 657}[edition]
    assert {row.basic for row in table} <= CODES
    assert all(re.fullmatch(r"\([0-9A-FX]{4},[0-9A-FX]{4}\)|\(GGGG,EEEE\)", row.tag.upper()) for row in table)


@EDITIONS
def test_every_row_is_of_the_dictionary(edition: str) -> None:
    """A row that names an attribute names it as PS3.6 does."""
    for row in standard.rows(edition):
        if "x" not in row.tag and "g" not in row.tag:
            assert standard.dictionary()[standard.tag_number(row.tag)].keyword == row.keyword


def test_every_uid_attribute_has_a_role() -> None:
    """It is known of each attribute of VR UI whether it names something of the patient's, or a definition."""
    roles = {uid.role for uid in standard.uid_attributes().values()}
    assert roles == {"study", "series", "instance", "frame-of-reference", "other", "definition"}
    in_dictionary = {tag for tag, element in standard.dictionary().items() if element.vr == "UI"}
    assert standard.uid_attributes().keys() == in_dictionary


@pytest.mark.parametrize(
    ("role", "keywords"),
    [
        ("study", "StudyInstanceUID"),
        ("series", "SeriesInstanceUID"),
        ("instance", "SOPInstanceUID ReferencedSOPInstanceUID MultiFrameSourceSOPInstanceUID FailedSOPInstanceUIDList"),
        ("instance", "SOPInstanceUIDOfConcatenationSource ReferencedColorPaletteInstanceUID"),
        ("frame-of-reference", "FrameOfReferenceUID ReferencedFrameOfReferenceUID RelatedFrameOfReferenceUID"),
        ("frame-of-reference", "SynchronizationFrameOfReferenceUID VolumeFrameOfReferenceUID"),
        ("frame-of-reference", "TableFrameOfReferenceUID EquipmentFrameOfReferenceUID TargetFrameOfReferenceUID"),
        ("other", "DeviceUID TransactionUID DimensionOrganizationUID TrackingUID UID SelectorUIValue"),
        ("definition", "SOPClassUID ReferencedSOPClassUID CodingSchemeUID ContextUID TransferSyntaxUID"),
    ],
)
def test_roles(role: str, keywords: str) -> None:
    """What is kept names a class, a syntax or a scheme; everything else names something of this patient's data."""
    found = {uid.keyword: uid.role for uid in standard.uid_attributes().values()}
    assert {found[keyword] for keyword in keywords.split()} == {role}


def test_no_definition_is_an_identifier() -> None:
    """No attribute that Table E.1-1 maps (U) is kept as a definition."""
    for row in standard.rows(standard.NEWEST):
        if row.basic == "U":
            assert standard.uid_attributes()[standard.tag_number(row.tag)].role != "definition", row.tag


def test_registered_uids_are_exact() -> None:
    """A well-known frame of reference is registered; what somebody made up below the same root isn't."""
    assert {"1.2.840.10008.1.4.1.1", "1.2.840.10008.15.1.1", "1.2.840.10008.1.5.1", CT} <= standard.registered_uids()
    assert not {"1.2.840.10008", "1.2.840.10008.1.4.1.1.1.99", ""} & standard.registered_uids()
    assert standard.transfer_syntaxes() < standard.registered_uids()


def test_whose_instances_belong_to_nobody() -> None:
    """Palettes and hanging protocols are no patient's; images are."""
    assert PALETTE in standard.non_patient_sop_classes()
    assert not {CT, PRESENTATION_STATE, PRIVATE} & standard.non_patient_sop_classes()


def test_whose_meanings_are_vocabulary() -> None:
    """Schemes of Table 8-1, retired ones too, against what sites make up; National Provider Identifiers are people."""
    assert {
        "DCM",
        "SCT",
        "SRT",
        "SNM3",
        "99SDM",
        "UCUM",
        "LN",
        "RADLEX",
        "I10",
        "ISO639_1",
    } <= standard.coding_schemes()
    assert not {"99LOCAL", "L", "", "NPI", "sct"} & standard.coding_schemes()


@EDITIONS
def test_types_are_known_of_every_iod(edition: str) -> None:
    """No IOD is without a decision by Type: each with a Patient module has at least Content Date's neighbours."""
    types = standard.resolved(edition)
    known = [uid for uid in standard.registered_uids() if types.known(uid)]
    empty = [uid for uid in known if not types._of(uid)[0]]
    assert len(known) > 170 and set(empty) <= {"1.2.840.10008.1.3.10"}
    assert not types.known(PRIVATE)


@pytest.mark.parametrize(
    ("sop_class", "path", "code", "action", "why"),
    [
        (CT, (0x00080023,), "Z/D", "Z", "Content Date is Type 2C in General Image"),
        (ENHANCED_MR, (0x00080023,), "Z/D", "D", "Content Date is Type 1 in Multi-frame Functional Groups"),
        (ENHANCED_MR, (0x00081111,), "X/Z/D", "D", "Type 1C in MR Series, and there"),
        (CT, (0x00081111,), "X/Z/D", "X", "Type 3 in General Series"),
        (CT, (0x00080022,), "X/Z", "X", "Acquisition Date is Type 3 in General Acquisition"),
        (PRESENTATION_STATE, (0x00700082,), "X", "D", "a literal X on Type 1: Presentation Creation Date"),
        (CT, (0x0040A073,), "D", "D", "a literal code is as it stands"),
        (CT, (0x0040A730, 0x00080023), "Z/D", "Z", "what the IOD doesn't hold is as Type 3"),
        (CT, (0x00081140,), "X/Z/U*", "X", "Referenced Image Sequence of Type 3, read strictly"),
    ],
)
def test_types_decide(sop_class: str, path: tuple[int, ...], code: str, action: str, why: str) -> None:
    """Type 1 asks for a dummy, Type 2 for an empty value, Type 3 for none (PS3.15 E.1.1, Table E.1-1a)."""
    assert standard.resolved("2026d").action(path, sop_class, code) == action, why


def test_for_processing_is_as_for_presentation() -> None:
    """The CT classes of 2026d have the Types of the classes that they were split from."""
    types = standard.resolved("2026d")
    for new, old in {f"{CT}.3": CT, f"{CT}.4": f"{CT}.1", f"{CT}.5": f"{CT}.2"}.items():
        assert types._of(new) is types._of(old)


def test_importing_reads_no_table() -> None:
    """What nobody asks for costs nothing: the tables are read when first used."""
    code = (
        "import sys; sys.addaudithook(lambda event, args: event == 'open' and str(args[0]).endswith('.csv') and 1/0);"
        "import dicomveil.standard"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
