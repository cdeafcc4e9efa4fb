"""Turn transcriptions of Table E.3.4-1 (PS3.15) into the ones that dicomveil ships.

    extract_structured.py FOLDER

FOLDER holds `structured_content/`. What is written to `dicomveil/tables/` is plain CSV in the table's own order, so
that a new edition is read in review as a difference of rows. The retired SNOMED codes of its concepts come from
pydicom, which has them from PS3.16 Annex O.
"""

import csv
import sys
from collections.abc import Iterable
from pathlib import Path

from pydicom.sr._snomed_dict import mapping

EDITIONS = ("2019c", "2021b", "2023b", "2025e")
TABLES = Path(__file__).resolve().parent.parent / "dicomveil" / "tables"
COLUMNS = (
    "code_meaning", "code_value", "scheme", "value_type", "basic", "uids", "device", "institution", "patient",
    "full_dates", "modified_dates", "descriptors",
)  # fmt: skip
RETIRED_SCHEMES = ("99SDM", "SNM3", "SRT")  # share their code values, older names of the same terms (PS3.16 8.1)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def write(path: Path, header: Iterable[str], lines: Iterable[Iterable[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)


def concepts(source: Path) -> set[str]:
    """Write each edition's table, and return the SNOMED CT codes in any."""
    snomed: set[str] = set()
    for edition in EDITIONS:
        table = rows(source / "structured_content" / f"e3_4_1_{edition}.csv")
        write(TABLES / "structured_content" / f"{edition}.csv", COLUMNS, ([row[it] for it in COLUMNS] for row in table))
        snomed |= {row["code_value"] for row in table if row["scheme"] == "SCT"}
    return snomed


def retired(snomed: set[str]) -> None:
    """Write the retired codes that stand for the same concepts."""
    codes = [(old, new) for old, new in mapping["SRT"].items() if new in snomed]
    write(
        TABLES / "retired_concepts.csv",
        ("scheme", "code_value", "current_scheme", "current_code_value"),
        sorted((scheme, old, "SCT", new) for scheme in RETIRED_SCHEMES for old, new in codes),
    )


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    retired(concepts(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
