"""Turn transcriptions of the Standard's tables into the ones that dicomveil ships.

    extract_tables.py FOLDER

FOLDER holds `e1_1/`, `types/`, `dictionary/` and `uids/`. What is written to `dicomveil/tables/` is
plain CSV, sorted, so that a new edition is read in review as a difference of rows. The coding schemes and the
supplement there are kept by hand.
"""

import csv
import json
import lzma
import sys
from collections.abc import Iterable
from pathlib import Path

EDITION = "2026d"
TABLES = Path(__file__).resolve().parent.parent / "dicomveil" / "tables"
PARTS = {  # what each compound code becomes on a Type; 1C and 2C count as 1 and 2 where the attribute is present
    "X/Z": {"1": "D", "2": "Z", "3": "X"},
    "X/D": {"1": "D", "2": "D", "3": "X"},
    "Z/D": {"1": "D", "2": "Z", "3": "Z"},
    "X/Z/D": {"1": "D", "2": "Z", "3": "X"},
    "X/Z/U*": {"1": "U", "2": "Z", "3": "X"},
}
LITERAL = {("X", "1"): "D", ("X", "2"): "Z", ("Z", "1"): "D"}  # a literal code that would break the IOD
FRAMES_OF_REFERENCE = "FrameOfReferenceUID"
ROLES = {"StudyInstanceUID": "study", "SeriesInstanceUID": "series"}
TWINS = {  # SOP Classes newer than the Types at hand, and those whose IODs they share
    "1.2.840.10008.5.1.4.1.1.2.3": "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.4": "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.5": "1.2.840.10008.5.1.4.1.1.2.2",
}


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


def confidentiality(source: Path) -> None:
    table = rows(source / "e1_1" / f"e1_1_{EDITION}.csv")
    write(f"{EDITION}/e1_1.csv", table[0], (row.values() for row in table))


def dictionary(source: Path) -> None:
    fixed = [row for row in rows(source / "dictionary" / "data_elements_2026c.csv") if "x" not in row["tag"].lower()]
    write(
        "data_elements.csv",
        ("tag", "keyword", "vr", "vm"),
        (
            (row["tag"][1:5] + row["tag"][6:10], row["keyword"], row["vr"], row["vm"])
            for row in fixed
            if row["vr"].strip()
        ),
    )


def role(row: dict[str, str]) -> str:
    """What a UI attribute's value names: study, series, instance, frame-of-reference, other, or a definition."""
    keyword = row["keyword"]
    if row["class"] != "instance":
        return "definition"
    if FRAMES_OF_REFERENCE in keyword:
        return "frame-of-reference"
    return ROLES.get(keyword) or ("instance" if "InstanceUID" in keyword else "other")


def uids(source: Path) -> None:
    registry = rows(source / "uids" / "uid_registry.csv")
    known = {row["uid"]: row for row in registry + rows(source / "uids" / "well_known_instance_like_values.csv")}
    write("uids.csv", ("uid", "type", "name"), ((uid, row["type"], row["name"]) for uid, row in sorted(known.items())))
    attributes = rows(source / "uids" / "ui_attributes_2026d.csv")
    write(
        "uid_attributes.csv",
        ("tag", "keyword", "role"),
        ((row["tag"], row["keyword"], role(row)) for row in attributes),
    )


def action(code: str, kind: str, usage: str) -> str:
    """The action that a code comes to on a Type, "" where it is the code itself."""
    if code in PARTS:
        return PARTS[code][kind[0]]
    return LITERAL.get((code, kind), "") if usage == "M" else ""


def types(source: Path) -> None:
    with lzma.open(source / "types" / "iod_types_2026b.json.xz") as packed:
        data = json.load(packed)
    codes = {
        row["tag"][1:5] + row["tag"][6:10]: row["basic"]
        for row in rows(source / "e1_1" / f"e1_1_{EDITION}.csv")
        if "x" not in row["tag"] and "g" not in row["tag"] and (row["basic"] in PARTS or row["basic"] in "XZ")
    }
    for row in rows(TABLES / "supplement.csv"):
        if "x" not in row["tag"] and (row["action"] in PARTS or row["action"] in "XZ"):
            codes.setdefault(row["tag"][1:5] + row["tag"][6:10], row["action"])
    strictest: dict[tuple[str, str], tuple[str, str]] = {}
    for iod, modules in data["iods"].items():
        for module, usage, _ in modules:
            for path, kind in data["modules"].get(module, {}).items():
                if path[-8:] in codes and kind:
                    there = strictest.get((iod, path), ("3", "U"))
                    strictest[iod, path] = min(
                        there, (kind, usage), key=lambda it: (it[0][0], len(it[0]), it[1] != "M")
                    )
    lines = {
        (iod, path, came)
        for (iod, path), (kind, usage) in strictest.items()
        if (came := action(codes[path[-8:]], kind, usage)) and came != codes[path[-8:]]
    }
    # A path that an IOD holds and that comes to X or, for Z/D, to Z is what an unknown path comes to: not listed.
    fallback = {code: PARTS[code]["3"] for code in PARTS}
    kept = sorted(line for line in lines if fallback.get(codes[line[1][-8:]]) != line[2])
    write(f"{EDITION}/actions_by_iod.csv", ("iod", "path", "action"), kept)
    iods = data["sop"] | {uid: data["sop"][twin] for uid, twin in TWINS.items()}
    patient = {iod: any(module == "patient" for module, _, _ in modules) for iod, modules in data["iods"].items()}
    write(
        "sop_classes.csv",
        ("uid", "iod", "patient"),
        ((uid, iod, "Y" if patient[iod] else "N") for uid, iod in sorted(iods.items())),
    )


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    source = Path(sys.argv[1])
    for extract in (confidentiality, dictionary, uids, types):
        extract(source)


if __name__ == "__main__":
    main()
