"""What the tests stand on: data sets laid out by hand are what another reader takes them for."""

import io
from pathlib import Path

import pydicom
import pytest

from dicomveil.testing import BIG, DEFLATED, EXPLICIT, IMPLICIT, PLANTED, Syntax, minimal, part10, write_demo_study


@pytest.mark.parametrize("uid", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
@pytest.mark.parametrize("undefined", [False, True])
def test_pydicom_reads_what_is_laid_out(uid: str, undefined: bool) -> None:
    """Every syntax, and both ways to write a length, give the data set that was meant."""
    syntax = Syntax(uid)
    item = syntax.element(0x00081155, "UI", "1.2.3.4.6")
    sequence = syntax.sequence(0x00081140, [item, item], undefined, item_undefined=undefined)
    ds = pydicom.dcmread(io.BytesIO(part10(minimal(syntax, (0x00081140, sequence)), uid)))
    assert [it.ReferencedSOPInstanceUID for it in ds.ReferencedImageSequence] == ["1.2.3.4.6"] * 2
    assert (ds.PatientID, ds.Rows, ds.PixelData) == ("4711", 2, b"\1\2\3\4\5\6\7\x08")


def test_the_demo_study_is_coherent(tmp_path: Path) -> None:
    """Every instance that the demo study refers to is one of its own, and one frame of reference holds its images."""
    study = [pydicom.dcmread(path) for path in write_demo_study(tmp_path)]
    own = {ds.SOPInstanceUID for ds in study} | {ds.StudyInstanceUID for ds in study}
    everything = [element for ds in study for element in ds.iterall()]
    assert {e.value for e in everything if e.keyword == "ReferencedSOPInstanceUID"} <= own
    assert len({e.value for e in everything if e.keyword == "FrameOfReferenceUID"}) == 1
    assert {ds.Modality for ds in study} == {"CT", "MR", "RTSTRUCT", "SR"}


def test_the_demo_study_plants_what_it_says(tmp_path: Path) -> None:
    """Each planted value stands in the study: top-level, nested and private; and the bytes are the same each time."""
    first = [path.read_bytes() for path in write_demo_study(tmp_path / "a")]
    assert first == [path.read_bytes() for path in write_demo_study(tmp_path / "b")]
    assert [value for value in PLANTED if not any(value.encode() in data for data in first)] == []
    ds = pydicom.dcmread(tmp_path / "a" / "CT-2.1.dcm")
    assert "Zubikax" in str(ds.PatientName) and "Zubikax" in str(ds[0x0029, 0x1020].value[0].PatientName)
