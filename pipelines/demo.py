"""`make run`: the main job on real studies that come with pydicom, and on a made-up one that shows what can leak.

It calls the command line as a user would, then shows a few instances before and after.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pydicom
from pydicom.data import get_testdata_file
from rich.console import Console
from rich.table import Table

from dicomveil.testing import write_demo_study
from transforms.tables import CROSSWALK_INSTANCES, name_of, read_part

HERE: Final = Path(".run")
REAL: Final = (
    "CT_small.dcm",
    "MR_small.dcm",
    "rtplan.dcm",
    "rtstruct.dcm",
    "rtdose.dcm",
    "JPEG2000.dcm",
    "test-SR.dcm",
)
SHOWN: Final = (
    "PatientName", "PatientID", "StudyDate", "InstitutionName", "StudyInstanceUID", "SOPInstanceUID",
    "FrameOfReferenceUID",
)  # fmt: skip

_NEXT: Final = f"""
Where to look next:
  {HERE}/output                       the instances, by patient, study and series
  {HERE}/output-audit/summary.json    the run in numbers; instances/ lists every change (docs/audit.md)
  {HERE}/output-restricted/crosswalk  who is who: keep it where the originals are
  .venv/bin/dicomveil explain       what happens to each attribute, and which row says so

Ask the audit which rules did the most:
  .venv/bin/python -c "
import collections, pyarrow.parquet as pq
rows = pq.read_table('{HERE}/output-audit/instances').to_pylist()
done = collections.Counter((c['keyword'], c['action'], c['rule']) for row in rows for c in row['changes'])
print(*done.most_common(10), sep='\\n')"
"""


def main() -> int:
    """Build the input, run the job, show what it did."""
    console = Console()
    for name in ("input", "output", "output-audit", "output-restricted"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    _gather(HERE / "input")
    key = HERE / "key"
    if not key.exists():
        subprocess.run([sys.executable, "-m", "pipelines", "keygen", "--output", str(key)], check=True)
    command = ["anonymize", "--input", str(HERE / "input"), "--output", str(HERE / "output"), "--key", f"file:{key}"]
    console.print(f"$ dicomveil {' '.join(command)}\n", highlight=False, soft_wrap=True)
    status = subprocess.run([sys.executable, "-m", "pipelines", *command, *sys.argv[1:]]).returncode
    if status not in (0, 3):
        return status
    _show(console)
    console.print(_NEXT, highlight=False, markup=False, soft_wrap=True)
    return 0


def _gather(folder: Path) -> None:
    folder.mkdir(parents=True)
    write_demo_study(folder / "made-up-study")
    studies = get_testdata_file("dicomdirtests/98892001/CT2N/6293", download=False)
    if studies:
        shutil.copytree(Path(str(studies)).parents[2], folder / "studies")
    for name in REAL:
        if path := get_testdata_file(name, download=False):
            shutil.copy(str(path), folder)


def _show(console: Console) -> None:
    """A few instances before and after; this is made-up and public data, so originals may be shown."""
    pairs: dict[str, dict[str, str]] = {}
    for part in (HERE / "output-restricted" / name_of(CROSSWALK_INSTANCES)).rglob("*.parquet"):
        pairs |= {os.path.basename(row["source_uri"]): row for row in read_part(part)}
    names = {row[uid]: name for name, row in pairs.items() for uid in ("original_sop_instance_uid", "sop_instance_uid")}
    for name in ("CT-2.1.dcm", "RTSTRUCT-3.1.dcm", "CT_small.dcm"):
        if name in pairs:
            before = pydicom.dcmread(pairs[name]["source_uri"])
            after = pydicom.dcmread(HERE / "output" / pairs[name]["name"])
            console.print(_table(name, before, after, names))


def _table(name: str, before: pydicom.Dataset, after: pydicom.Dataset, names: dict[str, str]) -> Table:
    table = Table(title=name, title_justify="left", show_lines=False)
    for column in ("", "before", "after"):
        table.add_column(column, overflow="fold")
    for keyword in SHOWN:
        table.add_row(keyword, _text(before.get(keyword)), _text(after.get(keyword)))
    table.add_row("refers to", _references(before, names), _references(after, names))
    table.add_row("private elements", str(_private(before)), str(_private(after)))
    table.add_row("elements, all depths", str(_count(before)), str(_count(after)))
    return table


def _text(value: object) -> str:
    return "[dim]absent[/dim]" if value is None else str(value) or "[dim]empty[/dim]"


def _references(ds: pydicom.Dataset, names: dict[str, str]) -> str:
    """Which files, by their original names, its references lead to; an RTSTRUCT names its study in the same way."""
    found = [str(element.value) for element in ds.iterall() if element.keyword == "ReferencedSOPInstanceUID"]
    named = (("its study" if uid == ds.StudyInstanceUID else names.get(uid, "something else")) for uid in found)
    return ", ".join(dict.fromkeys(named)) or "nothing"


def _private(ds: pydicom.Dataset) -> int:
    return sum(element.tag.is_private for element in ds.iterall())


def _count(ds: pydicom.Dataset) -> int:
    return sum(1 for _ in ds.iterall())


if __name__ == "__main__":
    sys.exit(main())
