"""The tables that we ship say what the Standard says, and miss nothing that a decision hangs on."""

import hashlib
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.datadict import get_private_entry

from dicomveil import standard

EDITIONS = pytest.mark.parametrize("edition", standard.EDITIONS)
COMPOUND = {"Z/D", "X/Z", "X/D", "X/Z/D", "X/Z/U*"}
COLUMNS = [column for column in standard.OPTION_COLUMNS.values() if column]
CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4.1"
PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
PALETTE, PRIVATE = "1.2.840.10008.5.1.4.39.1", "1.3.12.2.1107.5.9.1"


# Rows by action code, counted in the published tables: X, D, Z, U, compound; 2008 has none but "protect".
COUNTS = {
    "2008": (0, 0, 0, 0, 0, 48),
    "2017a": (199, 5, 14, 36, 26, 0),
    "2017c": (199, 5, 14, 34, 26, 0),
    "2017d": (198, 5, 14, 34, 26, 0),
    "2019c": (267, 15, 21, 37, 37, 0),
    "2019e": (272, 31, 34, 48, 40, 0),
    "2020a": (275, 35, 34, 48, 40, 0),
    "2020b": (275, 35, 34, 48, 40, 0),
    "2021b": (286, 45, 38, 50, 41, 0),
    "2023b": (371, 92, 43, 54, 48, 0),
    "2024a": (377, 92, 43, 54, 48, 0),
    "2024b": (384, 92, 42, 54, 49, 0),
    "2025e": (415, 93, 42, 55, 50, 0),
    "2026c": (416, 93, 42, 55, 50, 0),
    "2026d": (417, 93, 42, 55, 50, 0),
}


def test_editions_are_in_order() -> None:
    """Every edition has its table, they are told the oldest first, and the last is the default."""
    assert sorted(COUNTS) == list(standard.EDITIONS) and standard.NEWEST == "2026d"


@EDITIONS
def test_the_table_is_whole(edition: str) -> None:
    """Each edition of Table E.1-1 has its rows, each with a tag or a mask of its own and one action code we know."""
    table = standard.rows(edition)
    codes = Counter("compound" if row.basic in COMPOUND else row.basic for row in table)
    assert tuple(codes[code] for code in ("X", "D", "Z", "U", "compound", "P")) == COUNTS[edition]
    assert len(table) == len({row.tag for row in table}) == codes.total() == sum(COUNTS[edition])
    assert all(re.fullmatch(r"\([0-9A-Fx]{4},[0-9A-Fx]{4}\)|\(gggg,eeee\)", row.tag) for row in table)
    options = {cell for row in table for column in COLUMNS for cell in [getattr(row, column)]}
    assert options <= {"", "K", "C"} | ({"X"} if edition <= "2021b" else set())


@pytest.mark.parametrize(
    ("keyword", "column", "cells", "why"),
    [
        ("SourceSerialNumber", "basic", "2017d:X 2019c:X/Z 2019e:X/Z 2020a:X/Z 2020b:X/Z", "printed twice up to 2020a"),
        ("PerformedStationAETitle", "device", "2021b:K 2023b:C 2024a:C", "printed twice in 2023b"),
        ("ScheduledStationAETitle", "device", "2021b:K 2023b:C 2024a:C", "printed twice in 2023b"),
        ("ScheduledStudyLocationAETitle", "device", "2021b:K 2023b:C 2024a:C", "printed twice in 2023b"),
        ("ReferencedPatientSequence", "uids", "2017a:X 2021b:X 2023b:K 2026d:K", "as printed"),
        ("PatientID", "basic", "2008:P 2017a:Z 2024a:Z 2024b:Z/D 2026d:Z/D", "pseudonyms are allowed since 2024b"),
        ("InstitutionName", "institution", "2017c: 2017d:K", "the option is of 2017d"),
        ("AcquisitionDateTime", "basic", "2017d:X/D 2019c:X/Z/D", "changed"),
        ("PatientName", "basic", "2008:P 2017a:Z 2026d:Z", "always protected"),
        ("DoseCalculationModelName", "basic", "2026c: 2026d:X", "the newest row"),
    ],
)
def test_editions_differ(keyword: str, column: str, cells: str, why: str) -> None:
    """An attribute's row is the edition's own; where an edition prints it twice, the one that the next edition keeps."""
    for said in cells.split():
        edition, _, cell = said.partition(":")
        found = [getattr(row, column) for row in standard.rows(edition) if row.keyword == keyword]
        assert (found or [""]) == [cell], f"{edition}: {why}"


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


@EDITIONS
def test_no_definition_is_an_identifier(edition: str) -> None:
    """No attribute that Table E.1-1 maps (U) is kept as a definition, but what 2017a alone called an identifier."""
    only_2017a = {"ContextGroupExtensionCreatorUID", "CreatorVersionUID"}
    for row in standard.rows(edition):
        if row.basic == "U" and not (edition == "2017a" and row.keyword in only_2017a):
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


# Of the lines "IOD path action" that recipe 1 was first written with, sorted.
FIRST_ACTIONS = "9bdd774869a7feefcd251424c86653f161c77a337dfc8679d46c416ab0734316"


@EDITIONS
def test_types_are_known_of_every_iod(edition: str) -> None:
    """No IOD is without a decision by Type: each with a Patient module has at least Content Date's neighbours."""
    types = standard.resolved(edition)
    known = [uid for uid in standard.registered_uids() if types.known(uid)]
    empty = [uid for uid in known if not types._of(uid)[0]]
    assert len(known) > 170 and set(empty) <= {"1.2.840.10008.1.3.10"}
    assert not types.known(PRIVATE)


@pytest.mark.parametrize(
    ("sop_class", "path", "code", "kind", "action", "why"),
    [
        (CT, (0x00080023,), "Z/D", "2C", "Z", "Content Date in General Image"),
        (ENHANCED_MR, (0x00080023,), "Z/D", "1", "D", "Content Date in Multi-frame Functional Groups"),
        (ENHANCED_MR, (0x00081111,), "X/Z/D", "1C", "D", "stricter in MR Series than in General Series"),
        (CT, (0x00081111,), "X/Z/D", "3", "X", "General Series"),
        (CT, (0x00080022,), "X/Z", "3", "X", "Acquisition Date in General Acquisition"),
        (PRESENTATION_STATE, (0x00700082,), "X", "1", "D", "a literal X on Presentation Creation Date"),
        (CT, (0x0040A073,), "D", "3", "D", "a literal code is as it stands"),
        (CT, (0x0040A730, 0x00080023), "Z/D", "3", "Z", "what the IOD doesn't hold is as Type 3"),
        (CT, (0x00081140,), "X/Z/U*", "3", "X", "Referenced Image Sequence, read strictly"),
        (CT, (0x00100010,), "Z", "2", "Z", "Patient's Name"),
        (CT, (0x00100010,), "P", "2", "Z", "2008 protects as the IOD allows"),
        (CT, (0x00101010,), "P", "3", "X", "Patient's Age"),
        (CT, (0x00080018,), "U", "", "U", "no Type decides on a UID that is mapped"),
        (CT, (0x00180050,), "K", "", "K", "nor on what no table protects: Slice Thickness"),
        (PRIVATE, (0x00100010,), "Z", "", "Z", "nothing is known of a private SOP Class"),
    ],
)
def test_types_decide(sop_class: str, path: tuple[int, ...], code: str, kind: str, action: str, why: str) -> None:
    """Type 1 asks for a dummy, Type 2 for an empty value, Type 3 for none (PS3.15 E.1.1, Table E.1-1a)."""
    types = standard.resolved("2026d")
    assert (types.type(path, sop_class), types.action(path, sop_class, code)) == (kind, action), why


@EDITIONS
def test_every_code_comes_to_what_the_type_allows(edition: str) -> None:
    """Under each edition a Type 1 keeps a value and a Type 2 its element, where the code leaves it to the Type (E.1.1)."""
    types = standard.resolved(edition)
    codes = {row.tag[1:5] + row.tag[6:10]: row.basic for row in standard.rows(edition)}
    assert {types.action((0,), CT, code) for code in codes.values()} <= {"D", "Z", "X", "U"}
    allowed = {"1": {"D", "U"}, "2": {"D", "Z", "U"}}
    decided = 0
    for uid in types._iods:
        for path, (kind, mandatory) in types._of(uid)[0].items():
            code = codes.get(f"{path[-1]:08X}", "")
            if code in COMPOUND | {"P"} or (code and mandatory and kind in allowed):
                decided += 1
                assert types.action(path, uid, code) in allowed[kind[0]], (uid, path, code)
    assert decided > 1000


def test_the_first_recipes_actions_stand() -> None:
    """What every row of 2026d came to at every path of every IOD when recipe 1 was written, it still comes to."""
    types = standard.resolved("2026d")
    codes = {row.tag[1:5] + row.tag[6:10]: row.basic for row in standard.rows("2026d")}
    found = set()
    for uid, iod in types._iods.items():
        for path in types._of(uid)[0]:
            code = codes.get(f"{path[-1]:08X}", "K")
            action = types.action(path, uid, code)
            if action not in (code, types.action((0, path[-1]), uid, code)):
                found.add(f"{iod} {'>'.join(f'{step:08X}' for step in path)} {action}")
    assert len(found) == 5346
    assert hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest() == FIRST_ACTIONS


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the tables to change, in the place of ours."""
    monkeypatch.setattr(standard, "_TABLES", shutil.copytree(standard._TABLES, tmp_path / "tables"))
    cached = [it for it in vars(standard).values() if hasattr(it, "cache_clear")]
    for it in cached:
        it.cache_clear()
    yield tmp_path / "tables"
    for it in cached:
        it.cache_clear()


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["forward", "backward"])
def test_the_strictest_type_holds(tables: Path, order: slice) -> None:
    """An attribute that several modules of an IOD hold has the strictest of its Types, in whatever order they come."""
    strictest = [("1", "M"), ("1", "U"), ("1C", "M"), ("2", "M"), ("2C", "U")]
    for last in range(len(strictest)):
        several = strictest[last:][order]
        lines = [f"m{at},00100010,{kind}" for at, (kind, _) in enumerate(several)]
        (tables / "types.csv").write_text("\n".join(["module,path,type", *lines, ""]))
        lines = [f"ct-image,m{at},{usage}" for at, (_, usage) in enumerate(several)]
        (tables / "iods.csv").write_text("\n".join(["iod,module,usage", *lines, ""]))
        standard._types.cache_clear()
        types = standard.Resolution("2026d")
        assert types.type((0x00100010,), CT) == strictest[last][0]
        assert types.action((0x00100010,), CT, "Z") == ("D" if last == 0 else "Z")


def test_another_edition_changes_no_fingerprint(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new edition with rows, Types and safe private tables of its own leaves every older one's digest."""
    before = {edition: standard.digest(edition) for edition in standard.EDITIONS}
    (tables / "2027a").mkdir()
    row = '"(0018,0050)",SliceThickness,Slice Thickness,N,Y,X/Z/D,,,,,,,,,,\n'
    (tables / "2027a" / "e1_1.csv").write_text((tables / "2026d" / "e1_1.csv").read_text() + row)
    (tables / "safe_private" / "2027a.csv").write_text("group,element,creator,vr,vm,meaning\n")
    with (tables / "types.csv").open("a") as types:
        types.write("ct-image,00180050,2\n")
    monkeypatch.setattr(standard, "EDITIONS", (*standard.EDITIONS, "2027a"))
    for it in (standard.digest, standard._types):
        it.cache_clear()
    assert {edition: standard.digest(edition) for edition in before} == before
    assert standard.digest("2027a") not in before.values()
    assert standard.Resolution("2027a").type((0x00180050,), CT) == "2"
    assert standard.Resolution("2026d").type((0x00180050,), CT) == ""


@pytest.mark.parametrize(
    ("table", "line", "changed"),
    [
        ("types.csv", "ct-image,00100010,1", set(standard.EDITIONS)),
        ("types.csv", "ct-image,3004007F,1", {"2026d"}),
        ("uids.csv", "1.2.3,SOP Class,Something", set(standard.EDITIONS)),
        ("2021b/e1_1.csv", '"(0018,0050)",SliceThickness,Slice Thickness,N,Y,X,,,,,,,,,,', {"2021b"}),
        ("safe_private/2020b.csv", "0011,01,SOMEBODY,DS,1,Something", {"2020b"}),
    ],
)
def test_a_change_reaches_the_fingerprints_that_hang_on_it(
    tables: Path, table: str, line: str, changed: set[str]
) -> None:
    """What changes a decision of an edition changes its digest, so that outputs of other tables never pass for equal."""
    before = {edition: standard.digest(edition) for edition in standard.EDITIONS}
    assert len(set(before.values())) == len(before)
    with (tables / table).open("a") as lines:
        lines.write(f"{line}\n")
    for it in (standard.digest, standard._types, standard.rows, standard._typed):
        it.cache_clear()
    assert {edition for edition in before if standard.digest(edition) != before[edition]} == changed


def test_for_processing_is_as_for_presentation() -> None:
    """The CT classes of 2026d have the Types of the classes that they were split from."""
    types = standard.resolved("2026d")
    for new, old in {f"{CT}.3": CT, f"{CT}.4": f"{CT}.1", f"{CT}.5": f"{CT}.2"}.items():
        assert types._of(new) is types._of(old)


@pytest.mark.parametrize(
    ("edition", "rows", "key", "element"),
    [
        ("2008", 130, (0x00E1, "ELSCINT1", 0x21), ("DS", "1", "DLP")),
        ("2017c", 130, (0x01E1, "ELSCINT1", 0x26), ("CS", "1", "Phantom Type")),
        ("2020a", 130, (0x01E1, "ELSCINT1", 0x26), ("CS", "1", "Phantom Type")),
        ("2020b", 130, (0x00E1, "ELSCINT1", 0x50), ("DS", "1", "Acquisition Duration")),
        ("2021b", 479, (0x2001, "Philips Imaging DD 001", 0x55), ("UL", "1", "Graphic Line Color")),
        ("2026d", 479, (0x2001, "Philips Imaging DD 001", 0x7D), ("OW", "1", "Frame Pixel Data")),
        ("2026d", 479, (0x0119, "SIEMENS Ultrasound SC2000", 0x11), ("", "1", "Stage Timer Time")),
    ],
)
def test_safe_private(edition: str, rows: int, key: tuple[int, str, int], element: tuple[str, str, str]) -> None:
    """Each edition has the table of Safe Private Attributes that was in force with it (PS3.15 Table E.3.10-1)."""
    table = standard.safe_private(edition)
    vr, vm, meaning = table[key]
    assert len(table) == rows and (vr, vm) == element[:2] and meaning.startswith(element[2])
    assert all(group % 2 and creator == creator.strip() and low < 0x100 for group, creator, low in table)
    assert {it.vr for it in table.values()} <= standard.VRS | {""}


@pytest.mark.parametrize(
    ("key", "vr", "why"),
    [
        ((0x0029, "SIEMENS CSA HEADER", 0x10), "OB", "pydicom's"),
        ((0x700D, "CANON_MEC_MR3", 0x05), "DS", "given with an element of its own"),
        ((0x7003, "DLX_ANNOT_01", 0x04), "ST", "any odd group from 7001 to 70FF"),
        ((0x70FF, "DLX_ANNOT_01", 0x04), "ST", "the last of them"),
        ((0x7002, "DLX_ANNOT_01", 0x04), "", "no private group"),
        ((0x2001, "Philips Imaging DD 001", 0x55), "UL", "Table E.3.10-1 against pydicom's CS"),
        ((0x01F1, "ELSCINT1", 0x26), "DS", "pydicom has two, Table E.3.10-1 chooses"),
        ((0x01F1, "ELSCINT1", 0x4E), "", "pydicom has two, and nobody chooses"),
        ((0x0019, "GEMS_ACQU_01", 0x10), "", "a Private Creator itself"),
        ((0x0019, "NOBODY", 0x10), "", "unknown"),
    ],
)
def test_private_dictionary(key: tuple[int, str, int], vr: str, why: str) -> None:
    """The VR of a private element in an implicit file is what the Standard says, else what pydicom does."""
    assert standard.private_dictionary().get(key, "") == vr, why


def test_private_vrs_agree_with_pydicoms_own_look_up() -> None:
    """For nearly every element what is told is what pydicom finds for a tag with that block, and always a VR."""
    table, safe = standard.private_dictionary(), standard.safe_private(standard.NEWEST)
    assert set(table.values()) <= standard.VRS - {"UN"}
    agreed = sum(
        _pydicoms(key) in (vr, {"OW": "OB_OW", "US": "US or SS"}.get(vr))
        for key, vr in table.items()
        if key not in safe
    )
    assert agreed / (len(table) - len(safe)) > 0.8


def _pydicoms(key: tuple[int, str, int]) -> str:
    group, creator, low = key
    for tag in (group << 16 | 0x1000 | low, group << 16 | low):
        try:
            return get_private_entry(tag, creator)[0]
        except KeyError:
            continue
    return ""


@pytest.mark.parametrize(
    ("edition", "missing"),
    [
        ("2008", set(standard.OPTION_COLUMNS)),
        ("2017c", {"RetainInstitutionIdentity"}),
        ("2017d", set()),
        ("2026d", set()),
    ],
)
def test_options_came_with_editions(edition: str, missing: set[str]) -> None:
    """2008 has the Basic Profile alone; Retain Institution Identity came with 2017d."""
    assert {option for option in standard.OPTION_COLUMNS if not standard.has_option(edition, option)} == missing
    assert standard.has_option(edition, "")


@EDITIONS
def test_an_option_that_an_edition_has_changes_something(edition: str) -> None:
    """Where an edition has an option with a column of its own, some row says what the option does."""
    for option, column in standard.OPTION_COLUMNS.items():
        if column and column != "safe_private":
            said = any(getattr(row, column) for row in standard.rows(edition))
            assert said == standard.has_option(edition, option), option


def test_options_have_codes() -> None:
    """The Basic Profile and each option have their code of CID 7050 (PS3.16), in its order and each its own."""
    codes = standard.profile_codes()
    assert list(codes) == ["", *standard.OPTION_COLUMNS]
    assert [code.value for code in codes.values()] == [str(113100 + at) for at in range(13)]
    assert codes["RetainDeviceIdentity"].meaning == "Retain Device Identity Option"


@pytest.mark.parametrize(
    ("module", "holds", "lacks"),
    [
        ("Patient", "PatientName PatientID IssuerOfPatientID", "PatientAge StudyID"),
        ("General Study", "StudyInstanceUID AccessionNumber ReferringPhysicianName", "SeriesInstanceUID PatientName"),
        ("Patient Study", "PatientAge PatientWeight", "PatientName"),
        ("General Series", "SeriesInstanceUID Modality", "StudyInstanceUID"),
        ("General Equipment", "Manufacturer DeviceSerialNumber", "PatientID"),
        ("Clinical Trial Subject", "ClinicalTrialSubjectID", "ClinicalTrialSeriesID"),
        ("Clinical Trial Study", "ClinicalTrialTimePointID", "ClinicalTrialSubjectID"),
        ("Clinical Trial Series", "ClinicalTrialSeriesID", "ClinicalTrialSubjectID"),
    ],
)
def test_modules_hold_their_attributes(module: str, holds: str, lacks: str) -> None:
    """What belongs to patient, study, series and equipment is told as PS3.3 C.7 groups it."""
    found = {standard.dictionary()[tag].keyword for tag in standard.module_tags(module)}
    assert set(holds.split()) <= found and not set(lacks.split()) & found


def test_an_unknown_module_is_a_mistake() -> None:
    """A misspelt module doesn't pass for an empty one."""
    with pytest.raises(KeyError):
        standard.module_tags("General Studies")


def test_importing_reads_no_table() -> None:
    """What nobody asks for costs nothing: the tables are read when first used."""
    code = (
        "import sys; sys.addaudithook(lambda event, args: event == 'open' and str(args[0]).endswith('.csv') and 1/0);"
        "import dicomveil.standard"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
