"""Pixel Data stays byte for byte, but for bits and bytes that are no pixels."""

import io
import struct

import pydicom
import pytest

from dicomveil import Deidentifier
from dicomveil.compile import compile_request
from dicomveil.errors import InvalidInstance
from dicomveil.keys import Keys
from dicomveil.request import Request
from dicomveil.rewrite import Rewriter
from dicomveil.scan import scan_instance
from dicomveil.stream import LARGEST_CHUNK
from dicomveil.study import Identities, build_study_map
from dicomveil.testing import BIG, DEFLATED, EXPLICIT, IMPLICIT, JPEG, UNDEFINED, Syntax, minimal, part10
from tests.corpora import KEY

ENGINE = Deidentifier(key=KEY)
PIXELS = 0x7FE00010


class Stored:
    """An instance that is read piece by piece, as from a file."""

    def __init__(self, data: bytes) -> None:
        self._data, self.size, self.most = data, len(data), 0

    def read(self, offset: int, length: int) -> bytes:
        self.most = max(self.most, length)
        return self._data[offset : offset + length]


def overlaid(uid: str, bit: int, values: list[int], *more: tuple[int, bytes]) -> bytes:
    """A 16-bit image with 12 bits stored, and an overlay group that says where in the pixels it is."""
    s = Syntax(uid)
    return part10(
        minimal(
            s,
            (0x60000010, s.element(0x60000010, "US", 2)),
            (0x60000102, s.element(0x60000102, "US", bit)),
            (0x60001500, s.element(0x60001500, "LO", "for Bodox ")),
            (PIXELS, s.element(PIXELS, "OW", struct.pack(f"{s.order}{len(values)}H", *values))),
            *more,
        ),
        uid,
    )


@pytest.mark.parametrize("uid", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
def test_embedded_overlays_are_cleared(uid: str) -> None:
    """The overlay's bit goes from every pixel, and no other bit changes."""
    ds = pydicom.dcmread(io.BytesIO(ENGINE.rewrite(overlaid(uid, 12, [0xFFFF, 0x1234, 0x0FFF, 0xEFFF]))))
    order = ">" if uid == BIG else "<"
    assert struct.unpack(f"{order}4H", ds.PixelData) == (0xEFFF, 0x0234, 0x0FFF, 0xEFFF)
    assert not any(element.tag.group == 0x6000 for element in ds)


def test_a_large_image_is_cleared_piece_by_piece() -> None:
    """Clearing streams: the same bits go from the first and the last pixel of an image of several pieces."""
    e, pixels = Syntax(EXPLICIT), b"\xff\xff" * (LARGEST_CHUNK + 1)
    size = [(0x00280010, e.element(0x00280010, "US", 1)), (0x00280011, e.element(0x00280011, "US", 1))]
    frames = (0x00280008, e.element(0x00280008, "IS", str(LARGEST_CHUNK + 1)))
    data = overlaid(EXPLICIT, 15, [], *size, frames, (PIXELS, e.element(PIXELS, "OW", pixels)))
    stored, keys = Stored(data), Keys(KEY)
    scan = scan_instance(stored)
    rewritten = Rewriter(compile_request(Request()), keys).rewrite(
        stored, scan, build_study_map((scan,), Identities(keys, Request()))
    )
    out = b"".join(rewritten.chunks())
    assert out.endswith(b"\xff\x7f" * (LARGEST_CHUNK + 1))
    assert stored.most <= LARGEST_CHUNK
    assert any(change.action == "C" for change in rewritten.changes)


UNSAFE = {
    "among stored bits": overlaid(EXPLICIT, 3, [1, 2, 3, 4]),
    "beyond the word": overlaid(EXPLICIT, 40, [1, 2, 3, 4]),
    "encapsulated": overlaid(
        JPEG,
        12,
        [],
        (PIXELS, Syntax().element(PIXELS, "OB", Syntax().item(b"") + b"\xfe\xff\xdd\xe0" + bytes(4), UNDEFINED)),
    ),
}


@pytest.mark.parametrize("data", UNSAFE.values(), ids=UNSAFE)
def test_overlays_that_cannot_be_cleared_set_the_instance_aside(data: bytes) -> None:
    """Where clearing would touch a pixel, or can't be done, the instance is quarantined."""
    with pytest.raises(InvalidInstance, match="overlay-in-pixels"):
        ENGINE.rewrite(data)


def test_overlay_data_of_its_own_leaves_the_pixels_alone() -> None:
    """A bit position among stored bits means nothing where the overlay has data of its own."""
    data = overlaid(EXPLICIT, 3, [1, 2, 3, 15], (0x60003000, Syntax().element(0x60003000, "OW", b"\1\0")))
    assert pydicom.dcmread(io.BytesIO(ENGINE.rewrite(data))).PixelData == struct.pack("<4H", 1, 2, 3, 15)


@pytest.mark.parametrize("uid", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
def test_bytes_behind_the_last_pixel_are_dropped(uid: str) -> None:
    """Native Pixel Data ends where its pixels do."""
    s = Syntax(uid)
    data = part10(minimal(s, (PIXELS, s.element(PIXELS, "OW", b"12345678Bodox was here"))), uid)
    assert pydicom.dcmread(io.BytesIO(ENGINE.rewrite(data))).PixelData == b"12345678"


@pytest.mark.parametrize(
    "element",
    [
        Syntax().element(0x00280008, "IS", "many"),
        Syntax().element(0x00280008, "IS", "10" + " " * 100),
        Syntax().element(0x00280010, "UL", 2),
        Syntax().element(0x00280010, "US", 2) + Syntax().element(0x00280010, "US", 4),
    ],
    ids=["no number", "long", "wrong VR", "contradicted"],
)
def test_a_layout_that_cannot_be_read_drops_nothing(element: bytes) -> None:
    """Where it isn't certain how many pixels there are, every byte stays."""
    tag = struct.unpack("<HH", element[:4])
    data = part10(
        minimal(Syntax(), (tag[0] << 16 | tag[1], element), (PIXELS, Syntax().element(PIXELS, "OW", bytes(80))))
    )
    out = ENGINE.rewrite(data)
    assert len(pydicom.dcmread(io.BytesIO(out)).PixelData) == 80
