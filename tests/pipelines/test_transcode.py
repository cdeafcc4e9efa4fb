"""`Transcode` as its user asks for it: through anonymize and modify, on images that syntaxes hold or don't."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicomveil import syntaxes
from pipelines.cli import cli
from tests.corpora import KEY
from tests.images import image
from tests.pipelines.test_anonymize import table
from tests.transcoded import pixels

LOSSLESS = ("ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian",
            "RLELossless", "JPEGLossless", "JPEGLosslessSV1", "JPEGLSLossless", "JPEG2000Lossless")  # fmt: skip
LOSSY = ("JPEGBaseline8Bit", "JPEGLSNearLossless", "JPEG2000")
SOME = [("anonymize", it) for it in ("JPEG2000Lossless", "JPEGBaseline8Bit")] + [("modify", "RLELossless")]
REST = [(command, it) for it in (*LOSSLESS, *LOSSY) for command in ("anonymize", "modify") if (command, it) not in SOME]
EVERY = [*SOME, *(pytest.param(*it, marks=pytest.mark.long) for it in REST)]
KEPT = {"Keep": ["SOPInstanceUID"], "Force": True}
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")

pytestmark = pytest.mark.skipif(bool(syntaxes.missing()), reason="dicomveil[codecs] is not installed")


def identified(number: int, **layout: Any) -> Dataset:
    """An image of a study, 8 bits deep unless said otherwise."""
    ds = image(**({"allocated": 8, "stored": 8, "rows": 64, "columns": 64} | layout))
    ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID = "P1", "1.2.3", "1.2.3.1"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.1.{number}"
    return ds


def report() -> Dataset:
    """An instance without pixels, which refers to the first image."""
    ds = identified(9)
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
                    "SamplesPerPixel", "PhotometricInterpretation"):  # fmt: skip
        delattr(ds, keyword)
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.1.1"
    ds.ReferencedImageSequence = Sequence([item])
    return ds


class Site:
    """A folder of images, and what a command makes of it."""

    def __init__(self, folder: Path, *images: Dataset) -> None:
        self.folder, self.images = folder, {ds.SOPInstanceUID: ds for ds in images}
        (folder / "in").mkdir()
        for ds in images:
            ds.save_as(folder / "in" / f"{ds.SOPInstanceUID}.dcm", enforce_file_format=True)

    def run(self, command: str, body: dict[str, Any], name: str = "out", status: int = 0) -> dict[str, Dataset]:
        """The outputs, by the SOP Instance UID of their sources."""
        request, out = self.folder / f"{name}.json", self.folder / name
        request.write_text(json.dumps(body))
        arguments = [command, "--input", str(self.folder / "in"), "--output", str(out), "--request", str(request)]
        done = CliRunner().invoke(cli, [*arguments, "--key", "env:DICOMVEIL_KEY"], env={"DICOMVEIL_KEY": KEY.hex()})
        assert done.exit_code == status, done.output
        rows = table(Path(f"{out}-restricted"), "crosswalk/instances") if list(out.rglob("*.dcm")) else []
        return {row["original_sop_instance_uid"]: pydicom.dcmread(out / row["name"]) for row in rows}

    def reasons(self, name: str = "out") -> list[str]:
        return [row["reason"] for row in table(Path(f"{self.folder / name}-restricted"), "quarantine")]


@pytest.mark.parametrize(("command", "keyword"), EVERY)
def test_an_image_is_written_in_the_syntax(command: str, keyword: str, tmp_path: Path) -> None:
    """Every syntax comes out as asked for, pixels equal where it is lossless, and the audit says which it is."""
    site = Site(tmp_path, identified(1), report())
    done = site.run(command, {"Transcode": keyword})
    one, after = site.images["1.2.3.1.1"], done["1.2.3.1.1"]
    assert pydicom.uid.UID(after.file_meta.TransferSyntaxUID).keyword == keyword
    error = np.abs(pixels(after.filename).astype(int) - one.pixel_array.astype(int)).max()
    assert error == 0 if keyword in LOSSLESS else error < 40
    assert after.get("LossyImageCompression") == (None if keyword in LOSSLESS else "01")
    assert after.SOPInstanceUID != one.SOPInstanceUID == "1.2.3.1.1"
    assert done["1.2.3.1.9"].ReferencedImageSequence[0].ReferencedSOPInstanceUID == after.SOPInstanceUID
    told = {row["sop_instance_uid"]: row for row in table(tmp_path / "out-audit", "instances")}[after.SOPInstanceUID]
    assert told["transfer_syntax_uid"] == after.file_meta.TransferSyntaxUID
    assert any(it["rule"] == "Transcode" for it in told["changes"]) or keyword in LOSSLESS


@pytest.mark.parametrize("keyword", ["RLELossless", "JPEGBaseline8Bit"])
@pytest.mark.parametrize("command", ["anonymize", "modify"])
def test_a_kept_instance_uid_stays(command: str, keyword: str, tmp_path: Path) -> None:
    """With Keep and Force the SOP Instance UID is the source's, with loss too."""
    done = Site(tmp_path, identified(1)).run(command, {"Transcode": keyword} | KEPT)
    assert done["1.2.3.1.1"].SOPInstanceUID == "1.2.3.1.1" == done["1.2.3.1.1"].file_meta.MediaStorageSOPInstanceUID


def test_a_lossy_release_shares_no_uid_with_one_without_loss(tmp_path: Path) -> None:
    """Under one key, a release in JPEG and one without have other UIDs at every level; two qualities have too."""
    site = Site(tmp_path, identified(1))
    bodies = {"plain": {}, "rle": {"Transcode": "RLELossless"}, "jpeg": {"Transcode": "JPEGBaseline8Bit"},
              "poor": {"Transcode": "JPEGBaseline8Bit", "LossyQuality": 20}}  # fmt: skip
    found = {name: site.run("anonymize", body, name)["1.2.3.1.1"] for name, body in bodies.items()}
    uids = {name: {str(getattr(ds, keyword)) for keyword in UIDS} for name, ds in found.items()}
    assert uids["plain"] == uids["rle"]
    assert not (uids["plain"] & uids["jpeg"] or uids["plain"] & uids["poor"] or uids["jpeg"] & uids["poor"])


@pytest.mark.parametrize("command", ["anonymize", "modify"])
def test_quality_is_obeyed(command: str, tmp_path: Path) -> None:
    """A quality of 40 gives a smaller bitstream and a greater ratio than one of 80."""
    site = Site(tmp_path, identified(1, content="noise", samples=3, photometric="RGB"))
    low, high = (
        site.run(command, {"Transcode": "JPEGBaseline8Bit", "LossyQuality": quality}, f"q{quality}")["1.2.3.1.1"]
        for quality in (40, 80)
    )
    assert len(low.PixelData) < len(high.PixelData)
    assert float(low.LossyImageCompressionRatio) > float(high.LossyImageCompressionRatio)


def test_what_cant_be_produced_is_set_aside(tmp_path: Path) -> None:
    """16 bits don't fit into JPEG Baseline: that instance is quarantined with the reason, and the others come out."""
    site = Site(tmp_path, identified(1), identified(2, allocated=16, stored=16))
    done = site.run("modify", {"Transcode": "JPEGBaseline8Bit"}, status=3)
    assert list(done) == ["1.2.3.1.1"]
    assert site.reasons() == ["transcode-unsupported"]
    summary = json.loads((tmp_path / "out-audit" / "summary.json").read_text())
    assert (summary["InstancesCount"], summary["FailedInstancesCount"]) == (2, 1)


def test_a_study_is_transcoded_in_place_of_its_source(tmp_path: Path) -> None:
    """With KeepSource: false one instance is left, in the new syntax, and a source that failed stays."""
    site = Site(tmp_path, identified(1), identified(2, allocated=16, stored=16))
    done = site.run("modify", {"Level": "Study", "Transcode": "JPEGBaseline8Bit", "KeepSource": False}, status=3)
    assert done["1.2.3.1.1"].StudyInstanceUID != "1.2.3"
    assert [file.name for file in (tmp_path / "in").iterdir()] == ["1.2.3.1.2.dcm"]


def test_without_transcode_a_compressed_image_stays_as_it_is(tmp_path: Path) -> None:
    """What came compressed is compressed alike, byte for byte, and Transcode makes another syntax of it."""
    first = Site(tmp_path, identified(1))
    first.run("modify", {"Transcode": "JPEGLosslessSV1"} | KEPT, "packed")
    (tmp_path / "again").mkdir()
    packed = pydicom.dcmread(next((tmp_path / "packed").rglob("*.dcm")))
    site = Site(tmp_path / "again", packed)
    same = site.run("anonymize", {}, "same")["1.2.3.1.1"]
    assert (same.file_meta.TransferSyntaxUID, same.PixelData) == (packed.file_meta.TransferSyntaxUID, packed.PixelData)
    other = site.run("modify", {"Transcode": "JPEGLSLossless"}, "other")["1.2.3.1.1"]
    assert other.file_meta.TransferSyntaxUID == syntaxes.JPEG_LS
    assert (pixels(other.filename) == pixels(packed.filename)).all()


def test_only_what_is_selected_is_transcoded(tmp_path: Path) -> None:
    """Instances that are copied beside what is selected keep their syntax."""
    site = Site(tmp_path, identified(1), identified(2))
    done = site.run("modify", {"Transcode": "RLELossless", "Resources": [{"SOPInstanceUID": "1.2.3.1.1"}]})
    names = {uid: pydicom.uid.UID(ds.file_meta.TransferSyntaxUID).keyword for uid, ds in done.items()}
    assert names == {"1.2.3.1.1": "RLELossless", "1.2.3.1.2": "ExplicitVRLittleEndian"}


def test_the_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two runs with loss, under one key, are equal byte for byte."""
    site = Site(tmp_path, identified(1))
    for name in ("one", "two"):
        site.run("anonymize", {"Transcode": "JPEG2000", "LossyQuality": 50}, name)
    one, two = (next((tmp_path / name).rglob("*.dcm")).read_bytes() for name in ("one", "two"))
    assert one == two


MISTAKES = {
    "JPEGBaseline": "did you mean JPEGBaseline8Bit",
    "1.2.840.10008.1.2.4.100": "can't be written",
    "1.2.3": "is no transfer syntax",
}


@pytest.mark.parametrize("asked", MISTAKES)
def test_a_syntax_that_there_is_not_is_told(asked: str, tmp_path: Path) -> None:
    """An unknown or unwritable syntax is one clear mistake, and nothing is read."""
    Site(tmp_path, identified(1))
    request = tmp_path / "t.json"
    request.write_text(json.dumps({"Transcode": asked, "LossyQuality": 50}))
    arguments = [
        "modify",
        "--input",
        str(tmp_path / "in"),
        "--output",
        str(tmp_path / "out"),
        "--request",
        str(request),
    ]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2
    assert MISTAKES[asked] in done.output
    assert not (tmp_path / "out").exists()
