"""What may end its process runs in a child, and ends nothing else."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from pydicom.data import get_testdata_file

from dicomveil import transcoder
from dicomveil.errors import InvalidInstance
from dicomveil.syntaxes import find
from dicomveil.transcoder import Transcoded
from tests.images import image, written
from tests.transcoded import pixels, read
from tests.transforms import hostile
from transforms.children import Children, Limits

MIB = 1 << 20
STRICT = Limits(memory=512 * MIB, seconds=2, seconds_per_mib=0)


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    made = Children(STRICT)
    made.start()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (hostile.crash, "transcode-failed"),
        (hostile.leave, "transcode-failed"),
        (hostile.fail, "transcode-failed"),
        (hostile.spin, "transcode-timeout"),
        (hostile.hang, "transcode-timeout"),
        (hostile.eat, "transcode-memory"),
        (hostile.be_killed, "transcode-memory"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_childs_death_is_its_instances(children: Children, function: object, reason: str) -> None:
    """A codec that crashes, hangs or eats memory costs its instance; the worker and the next instance go on."""
    with pytest.raises(InvalidInstance) as ended:
        children.run(function)  # type: ignore[arg-type]
    assert ended.value.reason == reason
    assert ended.value.__cause__ is None  # whose text may hold anything
    assert "Bodox" not in str(ended.value)
    assert children.run(hostile.well) != os.getpid()


def test_a_child_is_used_again(children: Children) -> None:
    """Starting a process for each instance would take longer than most of them."""
    assert children.run(hostile.well) == children.run(hostile.well)


def test_time_grows_with_size() -> None:
    """A large instance may take longer than a small one."""
    children = Children(Limits(seconds=0.5, seconds_per_mib=1))
    children.start()
    try:
        with pytest.raises(InvalidInstance, match="transcode-timeout"):
            children.run(hostile.wait, 1.5, size=MIB // 4)
        children.run(hostile.well, size=60 * MIB)  # starts the next child
        assert children.run(hostile.wait, 1.5, size=8 * MIB) == 1.5
    finally:
        children.close()


def test_a_child_says_nothing(children: Children, capfd: pytest.CaptureFixture[str]) -> None:
    """What a codec prints may hold what it reads: nobody sees it."""
    children.run(hostile.speak)
    children.run(hostile.well)
    assert capfd.readouterr() == ("", "")


def test_nothing_half_written_is_left(children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a child died there is no output."""
    source = written(image(), tmp_path / "source.dcm")
    monkeypatch.setattr(transcoder, "transcode", hostile.begin_and_crash)
    with pytest.raises(InvalidInstance, match="transcode-failed"):
        children.transcode(str(source), str(tmp_path / "target.dcm"), find("RLELossless").uid, 90)
    assert not (tmp_path / "target.dcm").exists()


def test_transcodes_in_the_child(children: Children, tmp_path: Path) -> None:
    """The child does what the engine does."""
    source = Path(get_testdata_file("MR_small.dcm"))
    result = children.transcode(str(source), str(tmp_path / "target.dcm"), find("JPEG2000Lossless").uid, 90)
    assert result.transfer_syntax_uid == find("JPEG2000Lossless").uid
    assert np.array_equal(pixels(tmp_path / "target.dcm"), pixels(source))
    with pytest.raises(InvalidInstance) as refused:
        children.transcode(str(source), str(tmp_path / "other.dcm"), find("JPEGBaseline8Bit").uid, 90)
    assert (refused.value.reason, refused.value.path) == ("transcode-unsupported", "(0028,0103)")
    assert not (tmp_path / "other.dcm").exists()


def test_a_frame_larger_than_memory_is_told(children: Children, tmp_path: Path) -> None:
    """A small file that says that it is a huge image costs itself, before any codec tries."""
    ds = read(Path(get_testdata_file("SC_rgb_jpeg_gdcm.dcm")))
    ds.Rows = ds.Columns = 65535
    ds.save_as(tmp_path / "source.dcm")
    with pytest.raises(InvalidInstance, match="transcode-memory"):
        children.transcode(str(tmp_path / "source.dcm"), str(tmp_path / "t.dcm"), find("RLELossless").uid, 90)


@pytest.mark.long
@pytest.mark.parametrize("keyword", ["RLELossless", "JPEG2000"])
def test_memory_does_not_grow_with_frames(keyword: str, tmp_path: Path) -> None:
    """300 MiB of frames go through, there and back, in a child that may take 64 MiB."""
    ds = image(rows=512, columns=512)
    frame, frames = ds.PixelData, 600
    ds.NumberOfFrames = frames
    ds.PixelData = b""
    ds.save_as(tmp_path / "small.dcm", enforce_file_format=True)
    head = (tmp_path / "small.dcm").read_bytes()
    with (tmp_path / "source.dcm").open("wb") as source:
        source.write(head[:-4] + (frames * len(frame)).to_bytes(4, "little"))
        for _ in range(frames):
            source.write(frame)
    children = Children(Limits(memory=64 * MIB, seconds=600))
    try:
        there = children.transcode(str(tmp_path / "source.dcm"), str(tmp_path / "there.dcm"), find(keyword).uid, 90)
        uid = find("ExplicitVRLittleEndian").uid
        children.transcode(str(tmp_path / "there.dcm"), str(tmp_path / "back.dcm"), uid, 90)
    finally:
        children.close()
    if not there.lossy:
        with (tmp_path / "back.dcm").open("rb") as back:
            back.seek(-len(frame), os.SEEK_END)
            assert back.read() == frame
    assert (tmp_path / "back.dcm").stat().st_size > frames * len(frame)


class _TranscodeFn(beam.DoFn):
    def __init__(self, folder: str) -> None:
        self._folder, self._children = folder, Children()

    def setup(self) -> None:
        self._children.start()

    def process(self, keyword: str) -> Iterator[str]:
        target = f"{self._folder}/{keyword}.dcm"
        yield self._children.transcode(f"{self._folder}/source.dcm", target, find(keyword).uid, 90).transfer_syntax_uid

    def teardown(self) -> None:
        self._children.close()


def test_works_in_a_pipeline(tmp_path: Path) -> None:
    """A DoFn makes its child in setup, and ends it in teardown."""
    written(image(), tmp_path / "source.dcm")
    keywords = ["RLELossless", "JPEGLSLossless"]
    with TestPipeline() as pipeline:
        made = pipeline | beam.Create(keywords) | beam.ParDo(_TranscodeFn(str(tmp_path)))
        assert_that(made, equal_to([find(keyword).uid for keyword in keywords]))


def test_is_pickled_without_its_child(children: Children) -> None:
    """What goes to workers is what a child may take."""
    assert pickle.loads(pickle.dumps(children)).__dict__ == {"_limits": STRICT, "_pool": None}
    assert pickle.loads(pickle.dumps(Transcoded("1.2"))) == Transcoded("1.2")
