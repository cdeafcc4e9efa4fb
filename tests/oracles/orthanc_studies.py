"""Studies for comparing with Orthanc: whole ones from the corpora, and made-up instances that hold every attribute.

What is done with them isn't known here.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pydicom

from dicomveil import standard
from dicomveil.testing import CT, EXPLICIT, IMPLICIT, Syntax, minimal, part10, write_demo_study
from tests.corpora import instances, label
from tests.oracles.random_projects import (
    SOP_CLASSES,
    Target,
    Tree,
    evidence,
    images,
    merged,
    private,
    stored,
    structures,
)

VALUES: Final[dict[str, str | bytes]] = {
    "AE": "BODOX", "AS": "047Y", "AT": b"\x10\0\x10\0", "CS": "BODOX", "DA": "19530417", "DS": "47.11", "DT": "19530417101112",
    "FD": bytes(8), "FL": bytes(4), "IS": "4711", "LO": "Bodox", "LT": "Bodox", "OB": b"\1\2", "OD": bytes(8), "OF": bytes(4),
    "OL": bytes(4), "OV": bytes(8), "OW": b"\1\2", "PN": "Bodox^Kalex", "SH": "Bodox", "SL": bytes(4), "SS": bytes(2),
    "ST": "Bodox", "SV": bytes(8), "TM": "101112", "UC": "Bodox", "UI": "", "UL": bytes(4), "UN": b"\1\2",
    "UR": "http://bodox", "US": bytes(2), "UT": "Bodox", "UV": bytes(8),
}  # fmt: skip
"""A value of each VR, as it is encoded in little endian."""

# They tell how the rest is read, or what the instance is; command and directory elements are in no data set.
_LEFT: Final = {0x00080001, 0x00080005, 0x00080016, 0x00080018, 0x00080060, 0x0020000D, 0x0020000E, 0x00100020}
_HOLDER: Final = 0x52009229  # Shared Functional Groups Sequence


def _attributes(sequences: bool) -> Iterator[tuple[int, bytes]]:
    """Every attribute of the dictionary, encoded, with a value of its VR, or an Item that names a person and UIDs."""
    syntax = Syntax()
    item = syntax.element(0x00080104, "LO", "Bodox") + syntax.element(0x00081155, "UI", "1.2.3.4.5")
    item += syntax.element(0x00100020, "LO", "4711") + syntax.element(0x0020000D, "UI", "1.2.3.4")
    for tag, element in sorted(standard.dictionary().items()):
        if tag >> 16 < 8 or tag >> 16 in (0x0028, 0x7FE0, 0xFFFE) or tag in _LEFT or not tag & 0xFFFF:
            continue
        vr = element.vr.split(" or ")[-1]
        if sequences and vr == "SQ":
            yield tag, syntax.sequence(tag, [item])
        elif not sequences and vr in VALUES:
            yield tag, syntax.element(tag, vr, f"1.2.3.4.7.{tag}" if vr == "UI" else VALUES[vr])


def every_attribute(folder: Path) -> list[Path]:
    """Three CT images of one series: every attribute at the top level, every one in an Item, and every sequence."""
    syntax = Syntax()
    held = syntax.sequence(_HOLDER, [b"".join(element for _, element in _attributes(sequences=False))])
    overlays = [
        (tag, syntax.element(tag, vr, VALUES[vr]))
        for tag, vr in ((0x50003000, "OW"), (0x60003000, "OW"), (0x60004000, "LT"))
    ]
    contents = [[*_attributes(sequences=False), *overlays], [(_HOLDER, held)], [*_attributes(sequences=True)]]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, content in enumerate(contents):
        uid = syntax.element(0x00080018, "UI", f"1.2.3.4.5.{number}")
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(part10(minimal(syntax, *content, (0x00080018, uid)), sop_class=CT))
    return paths


def awkward(folder: Path) -> list[Path]:
    """CT images of one study that hold what is easily missed; no two have all that identifies."""
    e, sequence, implicit = Syntax().element, Syntax().sequence, Syntax(IMPLICIT)
    study, series, other = "1.2.3.4", "1.2.3.4.1", "1.2.3.9.9"
    reference = e(0x00081150, "UI", CT) + e(0x00081155, "UI", "1.2.3.4.5.1")
    of_study = e(0x00081150, "UI", "1.2.840.10008.3.1.2.3.1") + e(0x00081155, "UI", study)
    person = e(0x00100010, "PN", "Bodox^Kalex") + e(0x00100020, "LO", "4711") + e(0x00100021, "LO", "Fenoral")
    private = (
        e(0x00090010, "LO", "BODOX 1") + e(0x00091001, "LO", "private") + sequence(0x00091002, [person + reference])
    )
    held = [
        (0x00080005, e(0x00080005, "CS", "ISO_IR 100")),
        (0x00080058, e(0x00080058, "UI", "1.2.3.4.5.0\\1.2.3.4.5.1\\1.2.3.9.7")),  # Failed SOP Instance UID List
        (0x00081110, sequence(0x00081110, [of_study])),
        (0x00081250, sequence(0x00081250, [e(0x0020000D, "UI", study) + e(0x0020000E, "UI", series) + private])),
        (0x00082112, sequence(0x00082112, [reference + sequence(0x00409092, [person]), reference.replace(b"5.1", b"5.8")])),
        (0x00083010, e(0x00083010, "UI", "1.2.3.9.1\\1.2.3.9.2")),  # Irradiation Event UID
        (0x00089215, sequence(0x00089215, [reference + e(0x00400555, "LO", "") + e(0x0040A123, "PN", "Bodox^Kalex")])),
        (0x00091000, e(0x00090010, "LO", "BODOX 1") + e(0x00091001, "LO", "private") + sequence(0x00091002, [person + reference])),
        (0x000B0010, e(0x000B0010, "LO", "BODOX NOTHING")),
        (0x000D0010, e(0x000D0010, "LO", "BODOX 2") + e(0x000D1001, "UI", "1.2.3.4.5.1")),
        (0x000D1002, sequence(0x000D1002, [implicit.item(implicit.element(0x00100010, "PN", "Bodox^Kalex"))], vr="UN")),
        (0x00100024, sequence(0x00100024, [e(0x00400032, "UT", "1.2.3.9")])),
        (0x00101002, sequence(0x00101002, [e(0x00100020, "LO", "4712") + e(0x00100022, "CS", "TEXT")])),
        (0x00180015, e(0x00180015, "CS", "CHEST")),
        (0x00181020, e(0x00181020, "LO", "S\xe4ge".encode("latin-1"))),
        (0x00200052, e(0x00200052, "UI", "1.2.3.4.9")),
        (0x00281214, e(0x00281214, "UI", "1.2.3.9.3")),  # Large Palette Color Lookup Table UID
        (0x0040A390, sequence(0x0040A390, [e(0x0020000D, "UI", other) + e(0x0040E011, "UI", "1.2.3.9.5")])),
        (0x00700001, sequence(0x00700001, [e(0x00700022, "FL", bytes(8)) + e(0x00700006, "ST", "by Bodox")])),
        (0x00880200, sequence(0x00880200, [e(0x00280010, "US", 2) + e(0x60003000, "OW", b"\1\2") + e(0x60004000, "LT", "Bodox")])),
        (0x04000561, sequence(0x04000561, [e(0x04000562, "DT", "20240102") + sequence(0x04000550, [person])])),
        (0x20050014, e(0x20050014, "LO", "Philips MR Imaging DD 005")),
        (0x2005140F, sequence(0x2005140F, [implicit.item(implicit.element(0x00080018, "UI", "1.2.3.4.5.1"))], vr="UN")),
        (0x50000005, e(0x50000005, "US", 1)),
        (0x60000010, e(0x60000010, "US", 2) + e(0x60000011, "US", 2) + e(0x60000040, "CS", "G") + e(0x60000100, "US", 1)),
        (0x60003000, e(0x60003000, "OW", b"\1\2") + e(0x60004000, "LT", "Bodox")),
        (0xFFFAFFFA, sequence(0xFFFAFFFA, [e(0x04000100, "UI", "1.2.3.9.6")])),
        (0xFFFCFFFC, e(0xFFFCFFFC, "OB", b"Bo")),
    ]  # fmt: skip
    varied = [
        [(0x7FE00010, e(0x7FE00010, "OW", b"\1\2\3\4\5\6\7\x08Bodox "))],
        [(0x00200052, e(0x00200052, "UI", ""))],
        [(0x00100020, b"")],
        [(0x00100010, b""), (0x00200052, e(0x00200052, "UI", series))],
    ]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, own in enumerate(varied):
        uid = (0x00080018, e(0x00080018, "UI", f"1.2.3.4.5.{number}"))
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(part10(minimal(Syntax(), *held, uid, *own)))
    return paths


def clinic(folder: Path) -> list[Path]:
    """Three studies of two people that refer to each other, in three character sets, with sequences of the Patient and
    General Study Modules in one of them.

    Its names are those of their series and, in it, of the instances; the last shares the UID of its series.
    """
    latin, unicode, kanji = (
        (name.encode(charset), text.encode(charset))
        for name, text, charset in (
            ("M\xfcller^J\xf6rg ", "Sch\xe4del", "latin-1"),
            ("M\xfcller^J\xf6rg=\u5c71\u7530", "Sch\xe4del \u5c71 ", "utf-8"),
            ("Yamada^Tarou=\u5c71\u7530^\u592a\u90ce", "Schaedel", "iso2022_jp"),
        )
    )
    code = {"CodeValue": "X", "CodingSchemeDesignator": "99LOCAL", "CodeMeaning": "Chest"}
    modules: Tree = {
        "OtherPatientIDsSequence": [{"PatientID": "4799", "TypeOfPatientID": "TEXT"}],
        "ProcedureCodeSequence": [code, code | {"CodeMeaning": latin[1]}],
        "ReferencedStudySequence": [{"ReferencedSOPClassUID": "1.2.3", "ReferencedSOPInstanceUID": "1.2.3.9.4"}],
        "PatientBirthDate": "19530417", "PatientSex": "F", "StudyTime": "101112", "AccessionNumber": "A1", "StudyID": "S1",
        "StudyDescription": latin[1], "PatientComments": latin[1], "OtherPatientIDs": "4798",
    }  # fmt: skip
    other: Tree = {
        "StudyDate": "20240405",
        "AccessionNumber": "B2",
        "PatientSize": "1.70",
        "IssuerOfPatientID": "ELSEWHERE",
    }
    strange: Tree = {"00110001 LO": "nobody's", "00310010 LO": "ODD", "00311001 OB": b"\1\2\3"}
    kinds = {
        "1.1": ("image", latin, modules), "1.2": ("image", latin, modules), "1.3": ("report", latin, modules),
        "1.4": ("structures", latin, modules),
        "2.1": ("image", unicode, other), "2.2": ("presentation", unicode, other), "3.1": ("image", kanji, strange),
    }  # fmt: skip
    characters = {latin: "ISO_IR 100", unicode: "ISO_IR 192", kanji: "\\ISO 2022 IR 87"}
    folder.mkdir(parents=True, exist_ok=True)
    there = {}
    for number, (kind, *_) in kinds.items():
        study, at = number.split(".")
        series = f"1.2.3.6.{study}.{'12345'[int(at) // 2]}"
        frame, patient = f"1.2.3.6.{study}.9", "CLINIC-2" if study == "3" else "CLINIC-1"
        instance = series if study == "3" else f"{series}.{at}"
        there[number] = Target(SOP_CLASSES[kind], instance, series, f"1.2.3.6.{study}", frame, patient)
    refers = {
        "1.2": [images(there["1.1"]), private(there["1.1"])],
        "1.3": [evidence(there["1.1"]), evidence(there["1.2"]), evidence(there["2.1"])],
        "1.4": [structures(there["1.1"]), structures(there["1.2"])],
        "2.2": [images(there["2.1"]), images(there["1.1"]), images(there["3.1"])],
    }
    paths = []
    for number, (_, text, more) in kinds.items():
        names: Tree = {
            "SpecificCharacterSet": characters[text], "PatientName": text[0], "SeriesDescription": text[1],
            "InstanceNumber": number[-1],
        }  # fmt: skip
        syntax = IMPLICIT if number == "2.1" else EXPLICIT
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(stored(there[number], merged([names, more, *refers.get(number, [])]), syntax))
    return paths


MADE_UP: Final = {"every attribute": every_attribute, "demo": write_demo_study, "awkward": awkward}
"""How to make each study that is made for the comparison."""
SMALL: Final = ("demo", "awkward")

_LARGE, _MANY = 1_500_000, 6


def made_up(folder: Path) -> dict[str, list[Path]]:
    """The studies that are made for the comparison, by name."""
    return {name: make(folder / name) for name, make in MADE_UP.items()}


def real() -> dict[str, list[Path]]:
    """The studies of the corpora: some small instances of each, one a SOP Instance UID, by the file of the first."""
    studies: dict[str, dict[str, Path]] = {}
    for path in instances():
        if path.stat().st_size > _LARGE:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        if "StudyInstanceUID" in ds and "SOPInstanceUID" in ds:
            study = studies.setdefault(str(ds.StudyInstanceUID), {})
            if len(study) < _MANY:
                study.setdefault(str(ds.SOPInstanceUID), path)
    return {label(min(study.values())): list(study.values()) for study in studies.values()}
