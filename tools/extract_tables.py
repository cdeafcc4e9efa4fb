"""Turn transcriptions of the Standard's tables into the ones that dicomveil ships.

    extract_tables.py FOLDER

FOLDER holds `codes/`, `dictionary/`, `e1_1/`, `modules/`, `safe_private/`, `types/` and `uids/`. What is written to
`dicomveil/tables/` is plain CSV, sorted, so that a new edition is read in review as a difference of rows. The coding
schemes and the supplement there are kept by hand.
"""

import csv
import json
import lzma
import sys
from collections.abc import Iterable
from pathlib import Path

EDITIONS = "2008 2017a 2017c 2017d 2019c 2019e 2020a 2020b 2021b 2023b 2024a 2024b 2025e 2026c 2026d".split()  # noqa: SIM905
TABLES = Path(__file__).resolve().parent.parent / "dicomveil" / "tables"
ERRATA = {  # rows that an edition prints twice: (tag, column) -> the cell that the next edition keeps
    "2019c": {("(3008,0105)", "basic"): "X/Z"},
    "2019e": {("(3008,0105)", "basic"): "X/Z"},
    "2020a": {("(3008,0105)", "basic"): "X/Z"},
    "2023b": {
        ("(0032,1021)", "device"): "C",
        ("(0040,0001)", "device"): "C",
        ("(0040,0241)", "device"): "C",
    },
}
# Not an erratum, and left as printed: up to 2021b, Retain UIDs says X of Referenced Patient Sequence (0008,1120).

UNTYPED = {"K", "U", "code-meaning"}  # codes that no Type changes
IN_EVERY_CODE = {"(0008,0106)", "(0008,0107)"}  # D, and 1C in each of some 4700 code sequences: no Type changes them
REFERENCES = ("00081155", "0020000D", "0020000E")  # what an Item refers by: to an instance, a study, a series
FRAMES_OF_REFERENCE = "FrameOfReferenceUID"
ROLES = {"StudyInstanceUID": "study", "SeriesInstanceUID": "series"}
TWINS = {  # SOP Classes newer than the Types at hand, and those whose IODs they share
    "1.2.840.10008.5.1.4.1.1.2.3": "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.4": "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.5": "1.2.840.10008.5.1.4.1.1.2.2",
}
OPTIONS = {  # CID 7050 by what a request calls it
    "113100": "",
    "113101": "CleanPixelData",
    "113102": "CleanRecognizableVisualFeatures",
    "113103": "CleanGraphics",
    "113104": "CleanStructuredContent",
    "113105": "CleanDescriptors",
    "113106": "RetainLongitudinalFullDates",
    "113107": "RetainLongitudinalModifiedDates",
    "113108": "RetainPatientCharacteristics",
    "113109": "RetainDeviceIdentity",
    "113110": "RetainUIDs",
    "113111": "RetainSafePrivate",
    "113112": "RetainInstitutionIdentity",
}
NEWER = {"": EDITIONS[0], "RetainInstitutionIdentity": "2017d"}  # all other options came with Supplement 142, of 2011
FIRST_WITH_OPTIONS = "2017a"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def write(name: str, header: Iterable[str], lines: Iterable[Iterable[str]]) -> None:
    path = TABLES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)


def plain(tag: str) -> str:
    """ "(0008,0050)" as "00080050"."""
    return tag[1:5] + tag[6:10]


def table(source: Path, edition: str) -> list[dict[str, str]]:
    """Table E.1-1 of an edition, each attribute once."""
    errata = ERRATA.get(edition, {})
    found: dict[str, dict[str, str]] = {}
    for row in rows(source / "e1_1" / f"e1_1_{edition}.csv"):
        wrong = any(tag == row["tag"] and row[column] != cell for (tag, column), cell in errata.items())
        if not wrong and found.setdefault(row["tag"], row) is not row:
            sys.exit(f"{edition} lists {row['tag']} twice: look up which row holds, and add it to ERRATA")
    return list(found.values())


def confidentiality(source: Path) -> None:
    for edition in EDITIONS:
        lines = table(source, edition)
        write(f"{edition}/e1_1.csv", lines[0], (row.values() for row in lines))


def safe_private(source: Path) -> None:
    """Table E.3.10-1 of each edition that changed it."""
    before: list[list[str]] = []
    for edition in EDITIONS:
        path = source / "safe_private" / f"safe_private_{edition}.csv"
        if not path.exists():
            continue
        lines = [
            [
                row["group"],
                row["element_low_byte"],
                row["private_creator"].strip(),
                row["vr"],
                row["vm"],
                row["meaning"],
            ]
            for row in rows(path)
        ]
        if lines != before:
            write(f"safe_private/{edition}.csv", ("group", "element", "creator", "vr", "vm", "meaning"), lines)
        before = lines


def codes(source: Path) -> None:
    (path,) = (source / "codes").glob("cid_7050_*.csv")
    named = [(OPTIONS[row["code_value"]], row) for row in rows(path)]
    write(
        "profile_codes.csv",
        ("option", "code_value", "code_meaning", "since"),
        (
            (option, row["code_value"], row["code_meaning"], NEWER.get(option, FIRST_WITH_OPTIONS))
            for option, row in named
        ),
    )


def modules(source: Path) -> None:
    found = rows(source / "modules" / "top_level_attributes_patient_study_series.csv")
    write(
        "modules.csv",
        ("module", "tag", "keyword"),
        ((row["module"].partition(" ")[2], row["tag"], row["keyword"]) for row in found),
    )


def dictionary(source: Path) -> None:
    fixed = [row for row in rows(source / "dictionary" / "data_elements_2026c.csv") if "x" not in row["tag"].lower()]
    write(
        "data_elements.csv",
        ("tag", "keyword", "vr", "vm"),
        ((plain(row["tag"]), row["keyword"], row["vr"], row["vm"]) for row in fixed if row["vr"].strip()),
    )


def role(row: dict[str, str]) -> str:
    """What a UI attribute's value names: study, series, instance, frame-of-reference, other, or a definition."""
    keyword = row["keyword"]
    if row["class"] not in ("instance", "definition"):
        sys.exit(f"{keyword} is classed as neither instance nor definition: decide what its values name")
    if row["class"] == "definition":
        return "definition"
    if FRAMES_OF_REFERENCE in keyword:
        return "frame-of-reference"
    return ROLES.get(keyword) or ("instance" if "InstanceUID" in keyword else "other")


def uids(source: Path) -> None:
    registry = rows(source / "uids" / "uid_registry.csv")
    known = {row["uid"]: row for row in registry + rows(source / "uids" / "well_known_instance_like_values.csv")}
    write("uids.csv", ("uid", "type", "name"), ((uid, row["type"], row["name"]) for uid, row in sorted(known.items())))
    attributes = rows(source / "uids" / "ui_attributes_2026d.csv")
    decided = {row["tag"] for row in attributes}
    for row in rows(source / "dictionary" / "data_elements_2026c.csv"):
        if row["vr"].strip() == "UI" and row["tag"] not in decided:
            sys.exit(f"{row['keyword']} is of VR UI and not in ui_attributes_2026d.csv: decide what it names")
    write(
        "uid_attributes.csv",
        ("tag", "keyword", "role"),
        ((row["tag"], row["keyword"], role(row)) for row in attributes),
    )


def typed(source: Path) -> set[str]:
    """The tags whose Type an edition's code, or the supplement's, depends on."""
    found: dict[str, set[str]] = {}
    for edition in EDITIONS:
        for row in table(source, edition):
            found.setdefault(row["tag"], set()).add(row["basic"])
    for row in rows(TABLES / "supplement.csv"):
        found.setdefault(row["tag"], set()).add(row["action"])
    # 2008 says of the UIDs, too, only that they are protected: no Type decides on what is mapped.
    needed = (tag for tag, said in found.items() if said - UNTYPED - ({"P"} if "U" in said else set()))
    return {plain(tag) for tag in needed if "x" not in tag and "g" not in tag and tag not in IN_EVERY_CODE}


def types(source: Path) -> None:
    with lzma.open(source / "types" / "iod_types_2026b.json.xz") as packed:
        data = json.load(packed)
    needed = typed(source)
    sequences = {
        row["tag"][1:5] + row["tag"][6:10]
        for row in rows(source / "dictionary" / "data_elements_2026c.csv")
        if row["vr"] == "SQ"
    }
    lines = [
        (module, path, kind)
        for module, paths in sorted(data["modules"].items())
        for path, kind in sorted(paths.items())
        if kind[:1] in ("1", "2") and (path[-8:] in needed or path in sequences)
    ]
    write("types.csv", ("module", "path", "type"), lines)
    write("reference_types.csv", ("module", "path", "type"), references(data["modules"]))
    held = ((iod, module, usage) for iod, its in sorted(data["iods"].items()) for module, usage, _ in sorted(its))
    write("iods.csv", ("iod", "module", "usage"), held)
    iods = data["sop"] | {uid: data["sop"][twin] for uid, twin in TWINS.items()}
    patient = {iod: any(module == "patient" for module, _, _ in its) for iod, its in data["iods"].items()}
    write(
        "sop_classes.csv",
        ("uid", "iod", "patient"),
        ((uid, iod, "Y" if patient[iod] else "N") for uid, iod in sorted(iods.items())),
    )


def references(modules: dict[str, dict[str, str]]) -> Iterable[tuple[str, str, str]]:
    """The Types of sequences whose Items refer to something."""
    for module, paths in sorted(modules.items()):
        for path, kind in sorted(paths.items()):
            if kind[:1] in ("1", "2") and any(f"{path}>{tag}" in paths for tag in REFERENCES):
                yield module, path, kind


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    source = Path(sys.argv[1])
    for extract in (confidentiality, safe_private, codes, modules, dictionary, uids, types):
        extract(source)


if __name__ == "__main__":
    main()
