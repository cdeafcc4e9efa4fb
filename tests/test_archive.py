"""A synthetic archive with an answer key: nothing planted survives, and references lead where they led."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from dicomveil import standard
from dicomveil.keys import Keys
from dicomveil.uids import new_uid
from tests.corpora import CORPUS, KEY, NO_CORPUS

pytestmark = [pytest.mark.archive, pytest.mark.skipif(CORPUS is None, reason=NO_CORPUS)]
PATIENTS = os.environ.get("DICOMVEIL_ARCHIVE_PATIENTS", "8")
KEYS = Keys(KEY)

# References that the tables take away with what holds them: Referenced Study Sequence, and the content of reports.
TAKEN_AWAY = {"ReferencedStudySequence", "ContentSequence", "GraphicAnnotationSequence", "OriginalAttributesSequence"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The archive, and its copy made by the command line with two workers."""
    root = tmp_path_factory.mktemp("archive")
    made, copy = root / "made", root / "copy"
    maker = [sys.executable, str(CORPUS / "make_archive.py"), str(made), "--patients", PATIENTS]
    subprocess.run([*maker, "--studies", "2", "--series", "2", "--instances", "4"], check=True, capture_output=True)
    environment = os.environ | {"DICOMVEIL_KEY": KEY.hex()}
    command = [
        "anonymize",
        "--input",
        str(made / "dicom"),
        "--output",
        str(copy),
        "--key",
        "env:DICOMVEIL_KEY",
        "--workers",
        "2",
        "--request",
        str(root / "request.yaml"),
    ]
    (root / "request.yaml").write_text("BurnedIn: pass\n")
    run = subprocess.run([sys.executable, "-m", "pipelines", *command], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return made, copy


def test_no_planted_value_survives(archive: tuple[Path, Path]) -> None:
    """No name, number, date, address or UID of the answer key stands in any byte of any output."""
    made, copy = archive
    told = made.parent / "leaks.json"
    counter = [sys.executable, str(CORPUS / "count_leaks.py"), str(made), str(copy), "--json", str(told)]
    subprocess.run(counter, check=True, capture_output=True)
    counted = json.loads(told.read_text())
    assert counted["planted"] and {kind: count for kind, count in counted["leaked"].items() if count} == {}


def references(ds: pydicom.Dataset, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every instance-role UID, by the path of keywords and Items that leads to it."""
    for element in ds:
        if element.tag.is_private or element.keyword in TAKEN_AWAY:
            continue
        if element.VR == "SQ":
            for number, item in enumerate(element.value):
                yield from references(item, (*path, element.keyword, str(number)))
        elif element.VR == "UI" and element.value:
            role = standard.uid_attributes().get(int(element.tag))
            if role and role.role != "definition":
                values = element.value if element.VM > 1 else [element.value]
                yield from (((*path, element.keyword, str(n)), str(value)) for n, value in enumerate(values))


def test_every_reference_leads_where_it_led(archive: tuple[Path, Path]) -> None:
    """The reference graph before and after is the same, every edge at the same path under the new names."""
    made, copy = archive
    after = {str(ds.SOPInstanceUID): ds for ds in map(read, copy.rglob("*.dcm"))}
    node = compiled_removals()
    checked = 0
    for path in (made / "dicom").rglob("*.dcm"):
        ds = read(path)
        twin = dict(references(after[new_uid(KEYS, str(ds.SOPInstanceUID))]))
        for where, uid in references(ds):
            if not any(step in node for step in where):
                assert twin[where] == new_uid(KEYS, uid)
                checked += 1
    assert checked > 1000


def compiled_removals() -> set[str]:
    """Sequences that the Basic Profile removes or replaces whole."""
    return {row.keyword for row in standard.rows("2026d") if row.keyword.endswith("Sequence") and row.basic != "X/Z/U*"}


def read(path: Path) -> pydicom.Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True)
