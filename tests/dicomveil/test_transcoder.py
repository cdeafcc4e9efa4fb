"""An instance in another transfer syntax: the same pixels and data set, or a reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from dicomveil import syntaxes, transcoder
from dicomveil.compression import unavailable
from dicomveil.errors import InvalidInstance
from dicomveil.syntaxes import find
from dicomveil.transcoder import Transcoded, transcode
from tests.images import image, written
from tests.transcoded import differences, pixels, read

CASES = yaml.safe_load((Path(__file__).parents[1] / "cases" / "transcoding.yaml").read_text("utf-8"))
WRITTEN = [syntax for syntax in syntaxes.produced().values() if not unavailable(syntax.uid)]
LOSSLESS = [syntax.keyword for syntax in WRITTEN if not syntax.lossy]
LOSSY = [syntax.keyword for syntax in WRITTEN if syntax.lossy]


def to(keyword: str, source: Path, folder: Path, quality: int = 90) -> tuple[Transcoded, Path]:
    target = folder / f"{keyword}.dcm"
    return transcode(str(source), str(target), find(keyword).uid, quality), target


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"].replace(" ", "-"))
def test_case(case: dict[str, Any], tmp_path: Path) -> None:
    """An image is in a transfer syntax what it was, or near to it, or set aside with the attribute at fault."""
    source = written(image(**case.get("image", {})), tmp_path / "source.dcm")
    for keyword in case["to"]:
        if keyword not in LOSSLESS + LOSSY:
            continue
        if "refused" in case:
            with pytest.raises(InvalidInstance) as refused:
                to(keyword, source, tmp_path)
            assert (refused.value.reason, refused.value.path) == ("transcode-unsupported", case["refused"]), keyword
            continue
        result, path = to(keyword, source, tmp_path)
        ds = read(path)
        before, after = pixels(source).astype(np.int64), pixels(path).astype(np.int64)
        assert np.abs(after - before).max() <= case.get("within", 0), keyword
        assert result.lossy == ("within" in case)
        assert {name: ds[name].value for name in case.get("says", {})} == case.get("says", {}), keyword
        assert ds.file_meta.TransferSyntaxUID == result.transfer_syntax_uid == find(keyword).uid
        assert differences(read(source), ds, result) == [], keyword


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    samples = draw(st.sampled_from([1, 1, 3]))
    allocated = draw(st.sampled_from([8, 16]))
    return {
        "rows": draw(st.integers(1, 40)),
        "columns": draw(st.integers(1, 40)),
        "frames": draw(st.integers(1, 3)),
        "samples": samples,
        "allocated": allocated,
        "stored": draw(st.integers(2, allocated)),
        "signed": samples == 1 and draw(st.booleans()),
        "photometric": "RGB" if samples == 3 else "MONOCHROME2",
        "planar": draw(st.integers(0, 1)),
        "content": draw(st.sampled_from(["smooth", "noise"])),
        "syntax": draw(st.sampled_from(["explicit", "implicit", "big"])),
    }


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layouts(), st.sampled_from(LOSSLESS), st.integers(0, 9))
def test_lossless_there_and_back(tmp_path: Path, layout: dict[str, Any], keyword: str, seed: int) -> None:
    """What a lossless syntax takes it gives back byte for byte; it refuses only what its codec can't hold."""
    source = written(image(seed, **layout), tmp_path / "source.dcm")
    try:
        _, there = to(keyword, source, tmp_path)
    except InvalidInstance as refused:
        # JPEG-LS of odd bit depths isn't made where it would be longer than the pixels.
        assert keyword == "JPEGLSLossless"
        assert refused.reason == "transcode-failed"
        return
    assert np.array_equal(pixels(source), pixels(there))
    if layout["syntax"] == "explicit":
        _, back = to("ExplicitVRLittleEndian", there, tmp_path)
        planar = layout["samples"] == 3 and keyword not in LOSSLESS[:4]
        if not planar:
            assert read(back).PixelData == read(source).PixelData


@pytest.mark.parametrize("keyword", [*LOSSLESS, *LOSSY])
def test_the_same_bytes_again(keyword: str, tmp_path: Path) -> None:
    """The same instance and request give the same file."""
    source = written(image(allocated=8, stored=8, frames=2), tmp_path / "source.dcm")
    _, path = to(keyword, source, tmp_path)
    first = path.read_bytes()
    to(keyword, source, tmp_path)
    assert path.read_bytes() == first


def test_the_same_syntax_is_a_copy(tmp_path: Path) -> None:
    """Pixels aren't compressed again into the syntax that they are in."""
    source = Path(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm"))
    result, path = to("JPEGBaseline8Bit", source, tmp_path, quality=10)
    assert path.read_bytes() == source.read_bytes()
    assert result == Transcoded(JPEGBaseline8Bit)


@pytest.mark.parametrize("keyword", LOSSY)
def test_quality_is_obeyed(keyword: str, tmp_path: Path) -> None:
    """More quality is a longer bitstream, and a smaller ratio."""
    source = written(image(rows=128, columns=128, allocated=8, stored=8, content="noise"), tmp_path / "source.dcm")
    ratios = [to(keyword, source, tmp_path, quality)[0].ratio for quality in (10, 50, 100)]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > ratios[-1]


def test_lossy_is_marked(tmp_path: Path) -> None:
    """Who compresses with loss says so, how, and how much, and that the image is derived (PS3.3 C.7.6.1.1.5)."""
    source = written(image(rows=64, columns=64, frames=3), tmp_path / "source.dcm")
    result, path = to("JPEG2000", source, tmp_path)
    ds = read(path)
    assert (ds.LossyImageCompression, ds.LossyImageCompressionMethod) == ("01", "ISO_15444_1")
    length = sum(map(len, generate_frames(ds.PixelData, number_of_frames=3)))
    assert float(ds.LossyImageCompressionRatio) == pytest.approx(3 * 64 * 64 * 2 / length, abs=0.3)
    assert float(ds.LossyImageCompressionRatio) == pytest.approx(result.ratio, abs=0.01)
    assert ds.ImageType == ["DERIVED", "PRIMARY"]
    assert [(change.keyword, change.action, change.rule) for change in result.changes] == [
        ("ImageType", "D", "Transcode"),
        ("LossyImageCompression", "D", "Transcode"),
        ("LossyImageCompressionRatio", "D", "Transcode"),
        ("LossyImageCompressionMethod", "D", "Transcode"),
        ("PixelData", "C", "Transcode"),
    ]


def test_lossy_again_is_marked_again(tmp_path: Path) -> None:
    """Each lossy compression adds its ratio and its method to those before."""
    ds = image(rows=64, columns=64, allocated=8, stored=8)
    ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", "7"  # whose method nobody has noted
    source = written(ds, tmp_path / "source.dcm")
    _, first = to("JPEGLSNearLossless", source, tmp_path)
    _, second = to("JPEG2000", first, tmp_path)
    _, third = to("ExplicitVRLittleEndian", second, tmp_path)
    again = read(third)
    assert list(again.LossyImageCompressionMethod) == ["", "ISO_14495_1", "ISO_15444_1"]
    assert [float(ratio) >= 1 for ratio in again.LossyImageCompressionRatio] == [True] * 3
    assert float(again.LossyImageCompressionRatio[0]) == 7


def test_decoded_jpeg_stays_marked(tmp_path: Path) -> None:
    """Pixels that come out of lossy JPEG are marked, although their syntax no longer says it."""
    ds = read(Path(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm")))
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if keyword in ds:
            delattr(ds, keyword)
    ds.save_as(tmp_path / "source.dcm")
    _, path = to("ExplicitVRLittleEndian", tmp_path / "source.dcm", tmp_path)
    assert (read(path).LossyImageCompression, read(path).LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert read(path).PhotometricInterpretation == "RGB"


def test_near_lossless_never_wraps_around(tmp_path: Path) -> None:
    """An error that would turn the greatest value into the least is no small one: the instance is set aside."""
    source = written(image(rows=200, columns=200, signed=True, content="noise"), tmp_path / "source.dcm")
    with pytest.raises(InvalidInstance) as refused:
        to("JPEGLSNearLossless", source, tmp_path)
    assert (refused.value.reason, refused.value.path) == ("transcode-unsupported", "(0028,0103)")


@pytest.mark.parametrize("frames", [1, 4])
def test_offset_tables_are_right(frames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Basic Offset Table says where each frame begins; large pixels have an Extended one."""
    source = written(image(frames=frames, content="noise"), tmp_path / "source.dcm")
    _, path = to("JPEG2000Lossless", source, tmp_path)
    offsets = pydicom.encaps.parse_basic_offsets(read(path).PixelData)
    starts, at = [], 0
    for fragment in list(pydicom.encaps.generate_fragments(read(path).PixelData))[1:]:
        starts.append(at)
        at += 8 + len(fragment)
    assert offsets == starts
    basic = list(generate_frames(read(path).PixelData, number_of_frames=frames))

    monkeypatch.setattr(transcoder, "_LARGE", 1)
    _, path = to("JPEG2000Lossless", source, tmp_path)
    ds = read(path)
    tables = ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths
    assert list(np.frombuffer(tables[0], "<u8")) == starts
    assert [frame.rstrip(b"\0") for frame in generate_frames(ds.PixelData, extended_offsets=tables)] == [
        frame.rstrip(b"\0") for frame in basic
    ]
    assert np.array_equal(pixels(path), pixels(source))
    _, native = to("ExplicitVRLittleEndian", path, tmp_path)
    assert "ExtendedOffsetTable" not in read(native)
    assert read(native).PixelData == read(source).PixelData


def test_no_pixels_no_compression(tmp_path: Path) -> None:
    """What has no pixels is written in Explicit VR Little Endian, where a compressed syntax is asked for (PS3.5 A.4)."""
    source = Path(get_testdata_file("rtplan.dcm"))
    result, path = to("JPEG2000", source, tmp_path)
    assert result == Transcoded(ExplicitVRLittleEndian)
    assert read(path).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert differences(read(source), read(path), result) == []


def test_numbers_with_a_point_are_not_compressed(tmp_path: Path) -> None:
    """Float Pixel Data has no compressed form (PS3.5 8.2); in another native syntax it is what it was."""
    ds = image(allocated=32, stored=32)
    del ds.PixelData
    ds.FloatPixelData = np.linspace(0, 1, 21 * 18, dtype="<f4").tobytes()
    source = written(ds, tmp_path / "source.dcm")
    with pytest.raises(InvalidInstance) as refused:
        to("JPEG2000Lossless", source, tmp_path)
    assert (refused.value.reason, refused.value.path) == ("transcode-unsupported", "(7FE0,0008)")
    _, path = to("ExplicitVRBigEndian", source, tmp_path)
    assert np.array_equal(np.frombuffer(read(path).FloatPixelData, ">f4"), np.linspace(0, 1, 21 * 18, dtype="f4"))


def test_icons_stay_valid(tmp_path: Path) -> None:
    """An icon in the syntax that is left becomes native, which is valid in all (PS3.5 A.4)."""
    ds = read(Path(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm")))
    icon = Dataset()
    for keyword in ("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns",
                    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):  # fmt: skip
        setattr(icon, keyword, ds[keyword].value)
    icon.PixelData = encapsulate(list(generate_frames(ds.PixelData, number_of_frames=1)))
    icon["PixelData"].is_undefined_length = True
    ds.IconImageSequence = Sequence([icon])
    ds.save_as(tmp_path / "source.dcm")
    expected = pixels(Path(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm")))
    for keyword in ("ExplicitVRLittleEndian", "ImplicitVRLittleEndian", "ExplicitVRBigEndian", "JPEG2000Lossless"):
        _, path = to(keyword, tmp_path / "source.dcm", tmp_path)
        item = read(path).IconImageSequence[0]
        assert not item["PixelData"].is_undefined_length
        assert item.PhotometricInterpretation == "RGB"
        assert (np.frombuffer(item.PixelData, np.uint8) == pixels(path).ravel()).all()
    assert expected.shape == (100, 100, 3)


def test_signs_are_told_where_they_were_not(tmp_path: Path) -> None:
    """Implicit little endian leaves out whether a value has a sign: Pixel Representation says it."""
    ds = image(signed=True, stored=16, syntax="implicit")
    ds.add_new("PixelPaddingValue", "SS", -2000)
    ds.add_new("SmallestImagePixelValue", "SS", -5)
    modality = Dataset()
    modality.add_new("LUTDescriptor", "SS", [4, -1000, 16])
    modality.add_new("LUTData", "OW", bytes(range(8)))
    ds.ModalityLUTSequence = Sequence([modality])
    source = written(ds, tmp_path / "source.dcm")
    for keyword in ("ExplicitVRLittleEndian", "ExplicitVRBigEndian", "RLELossless"):
        _, path = to(keyword, source, tmp_path)
        again = read(path)
        assert (again["PixelPaddingValue"].VR, again.PixelPaddingValue) == ("SS", -2000)
        assert again.SmallestImagePixelValue == -5
        assert list(again.ModalityLUTSequence[0].LUTDescriptor) == [4, -1000, 16]


def test_unknown_numbers_do_not_change_order(tmp_path: Path) -> None:
    """A private value whose VR nobody tells can't go where bytes have another order; in little endian it stays."""
    ds = image(syntax="implicit")
    ds.private_block(0x0019, "ACME 1.1", create=True).add_new(0x01, "US", 300)
    source = written(ds, tmp_path / "source.dcm")
    with pytest.raises(InvalidInstance) as refused:
        to("ExplicitVRBigEndian", source, tmp_path)
    assert (refused.value.reason, refused.value.path) == ("transcode-unsupported", "(0019,1001)")
    _, path = to("ExplicitVRLittleEndian", source, tmp_path)
    again = read(path)
    assert (again[0x00190010].value, again[0x00190010].VR) == ("ACME 1.1", "LO")
    assert again[0x00191001].value == b"\x2c\x01"


def test_eight_bits_in_words(tmp_path: Path) -> None:
    """Pixels of 8 bits under OW change places in big endian, and come back (PS3.5 annex D)."""
    ds = image(allocated=8, stored=8, frames=3, rows=3, columns=5, content="noise")
    ds["PixelData"].VR = "OW"
    source = written(ds, tmp_path / "source.dcm")
    _, big = to("ExplicitVRBigEndian", source, tmp_path)
    assert read(big)["PixelData"].VR == "OW"
    assert read(big).PixelData[:4] == bytes([ds.PixelData[1], ds.PixelData[0], ds.PixelData[3], ds.PixelData[2]])
    assert np.array_equal(pixels(big), pixels(source))
    _, rle = to("RLELossless", big, tmp_path)
    assert np.array_equal(pixels(rle), pixels(source))


@pytest.mark.parametrize("keyword", ["ExplicitVRLittleEndian", "JPEG2000Lossless"])
def test_broken_pixels_are_told(keyword: str, tmp_path: Path) -> None:
    """A bitstream that can't be decoded, or is of another image, sets the instance aside."""
    ds = read(Path(get_testdata_file("SC_rgb_jpeg_gdcm.dcm")))
    frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    for broken in (frame[:300], b"\xff\xd8" + bytes(50), bytes(2)):
        ds.PixelData = encapsulate([broken])
        ds.save_as(tmp_path / "source.dcm")
        with pytest.raises(InvalidInstance) as failed:
            to(keyword, tmp_path / "source.dcm", tmp_path)
        assert failed.value.reason == "transcode-failed"
    ds.PixelData, ds.Rows = encapsulate([frame]), 50
    ds.save_as(tmp_path / "source.dcm")
    with pytest.raises(InvalidInstance, match="transcode-failed"):
        to(keyword, tmp_path / "source.dcm", tmp_path)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("stored", [12, 16])
def test_the_data_set_says_the_sign(signed: bool, stored: int, tmp_path: Path) -> None:
    """Where a bitstream and Pixel Representation disagree on the sign, the latter is right, as in pydicom."""
    source = written(image(signed=signed, stored=stored), tmp_path / "source.dcm")
    _, path = to("JPEG2000Lossless", source, tmp_path)
    ds = read(path)
    ds.PixelRepresentation = int(not signed)
    ds.save_as(tmp_path / "other.dcm")
    _, native = to("ExplicitVRLittleEndian", tmp_path / "other.dcm", tmp_path)
    assert np.array_equal(pixels(native), pixels(tmp_path / "other.dcm"))
    assert pixels(native).dtype.kind == "ui"[not signed]


def test_missing_pixels_are_told(tmp_path: Path) -> None:
    """Fewer pixels than the data set tells can't be compressed."""
    ds = image(frames=2)
    ds.PixelData = ds.PixelData[:-2]
    source = written(ds, tmp_path / "source.dcm")
    with pytest.raises(InvalidInstance, match="transcode-failed"):
        to("RLELossless", source, tmp_path)


def test_video_is_not_read(tmp_path: Path) -> None:
    """Pixels that nothing here decodes aren't left as they were, but told."""
    ds = read(Path(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm")))
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    ds.save_as(tmp_path / "source.dcm")
    with pytest.raises(InvalidInstance) as refused:
        to("ExplicitVRLittleEndian", tmp_path / "source.dcm", tmp_path)
    assert (refused.value.reason, refused.value.path) == ("transcode-unsupported", "(0002,0010)")


def test_the_meta_group_is_ours(tmp_path: Path) -> None:
    """The file says what it holds: the new syntax, and the identifiers of its data set."""
    ds = image()
    ds.file_meta.SourceApplicationEntityTitle = "WARD7"
    _, path = to("RLELossless", written(ds, tmp_path / "source.dcm"), tmp_path)
    meta = read(path).file_meta
    assert (meta.MediaStorageSOPInstanceUID, meta.MediaStorageSOPClassUID) == (ds.SOPInstanceUID, ds.SOPClassUID)
    assert meta.ImplementationVersionName.startswith("DICOMVEIL")
    assert "SourceApplicationEntityTitle" not in meta


@pytest.mark.parametrize("text", ["1.2.840.10008.1.2.4.90", "JPEG2000Lossless", "jpeg2000lossless",
                                  "JPEG 2000 Image Compression (Lossless Only)"])  # fmt: skip
def test_syntaxes_have_names(text: str) -> None:
    """A transfer syntax is named by its UID, keyword or name."""
    assert find(text).uid == syntaxes.JPEG_2000_LOSSLESS


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("JPEG2000Loseless", "did you mean JPEG2000Lossless?"),
        ("1.2.840.10008.1.2.4.9", "did you mean 1.2.840.10008.1.2.4."),
        ("1.2.840.10008.1.2.4.102", "write one of ImplicitVRLittleEndian, "),
        ("zzz", "write one of ImplicitVRLittleEndian, "),
    ],
)
def test_unknown_syntaxes_are_refused(text: str, remedy: str) -> None:
    """A transfer syntax that nobody knows, or that can't be written, is told with what there is."""
    with pytest.raises(syntaxes.NotProduced) as refused:
        find(text)
    assert refused.value.remedy.startswith(remedy)
    assert ImplicitVRLittleEndian in syntaxes.produced()


def test_every_package_is_there() -> None:
    """The extra brings all that is asked for, and says what is missing."""
    assert syntaxes.missing() == ()
