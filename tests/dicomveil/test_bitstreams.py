"""What can hold text in compressed pixels is found, all of it and nothing else, and blanking it changes no pixel."""

import random
from collections.abc import Iterator
from copy import deepcopy
from itertools import accumulate, pairwise
from pathlib import Path

import pydicom
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dicomveil.bitstreams import EXAMINED, FILL, Span, comments
from dicomveil.errors import InvalidInstance
from tests.corpora import BUNDLED

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "bitstreams.yaml").read_text(encoding="utf-8"))
SYNTAX = "1.2.840.10008.1.2.4."
RLE = "1.2.840.10008.1.2.5"
NAMED = {
    "SOF": "ffc0000b080010001001011100",
    "SOS": "ffda0008010100003f00",
    "SIZ": "ff5100290000" + "00000010" * 2 + "00000000" * 2 + "00000010" * 2 + "00000000" * 2 + "0001070101",
    "SOD": "ff90000a0000000000160001ff931122334455667788",
    "TABLE": "01" * 64,
}
Fragments = list[tuple[int, int]]


def laid_out(stream: str) -> tuple[bytes, Fragments, bytes]:
    """The bytes of a stream, 100 bytes of something else before it and 8 between fragments; and the same blanked."""
    before, between = bytes(range(100)), b"\xfe\xff\x00\xe0Jane"
    data, blank, fragments, start = before, before, [], len(before)
    for token in [*stream.split(), "|"] if stream else []:
        if token == "|":
            fragments.append((start, len(data)))
            data, blank = data + between, blank + between
            start = len(data)
            continue
        text, found = token.lstrip("?="), token.startswith("?")
        if text.startswith("hex:") or text == token:
            part = bytes.fromhex(NAMED.get(text, text.removeprefix("hex:")))
        else:
            part = text.replace("_", " ").encode()
            part += b"\0" * (text in ("JFIF", "JFXX", "SPIFF"))
        data, blank = data + part, blank + (FILL * len(part) if found else part)
    return data, fragments, blank


def find(data: bytes, fragments: Fragments, syntax: str = SYNTAX + "50") -> list[Span]:
    """The spans found, none of them outside of the fragments, in order and apart."""

    def read(offset: int, length: int) -> bytes:
        assert length <= 1 << 20
        return data[offset : offset + length]

    spans = comments(read, fragments, syntax)
    assert all(any(start <= span.start < span.stop <= stop for start, stop in fragments) for span in spans)
    assert all(one.stop <= other.start for one, other in pairwise(spans))
    return spans


def blanked(data: bytes, spans: list[Span]) -> bytes:
    new = bytearray(data)
    for start, stop in spans:
        new[start:stop] = FILL * (stop - start)
    return bytes(new)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_each_codestream_is_read_as_its_case_says(case: dict) -> None:
    """What a case marks is found, and no other byte; a second look finds nothing more to blank."""
    syntax = RLE if case.get("syntax") == "rle" else SYNTAX + case.get("syntax", "50")
    data, fragments, expected = laid_out(case["stream"])
    if "reason" in case:
        with pytest.raises(InvalidInstance, match=case["reason"]):
            find(data, fragments, syntax)
        return
    assert blanked(data, find(data, fragments, syntax)) == expected
    assert find(expected, fragments, syntax) == []


def test_an_error_tells_where() -> None:
    """An error gives the position in the source, across fragments."""
    data, fragments, _ = laid_out("ffd8 SOF SOS 1122 fffe0006 =Jane | 1122")
    with pytest.raises(InvalidInstance) as bad:
        find(data, fragments)
    assert bad.value.offset == fragments[1][0]


def test_a_source_that_ends_early_is_truncated() -> None:
    """Fragments that reach past the end of the source set the instance aside."""
    data, fragments, _ = laid_out("ffd8 SOF SOS 1122 fffe0006 ?Jane")
    with pytest.raises(InvalidInstance, match="truncated"):
        find(data[:-20], fragments)


def test_every_image_compression_of_the_standard_is_examined() -> None:
    """Every transfer syntax that encapsulates single images in a codec's bitstream is understood; video isn't."""
    images = (50, 51, 57, 70, 80, 81, 90, 91, 92, 93, 201, 202, 203, 110, 111, 112)
    assert {f"{SYNTAX}{end}" for end in images} < EXAMINED
    assert not EXAMINED & {f"{SYNTAX}{end}" for end in range(100, 109)}


# ----------------------------------------------------------------------------------------------------------- properties

Pieces = list[tuple[bytes, bool]]
TEXT = st.binary(max_size=40)
SHORT = st.binary(min_size=4, max_size=40)


def segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload


@st.composite
def hidden(draw: st.DrawFn) -> Pieces:
    """Comments and application segments that no decoder needs, behind any number of fill bytes."""
    pieces: Pieces = []
    for marker in draw(st.lists(st.sampled_from([0xFE, 0xE1, 0xE3, 0xED, 0xEF]), max_size=3)):
        text = draw(TEXT)
        pieces += [(b"\xff" * draw(st.integers(0, 3)) + segment(marker, text)[:4], False), (text, True)]
    return pieces


@st.composite
def jpeg(draw: st.DrawFn, jpeg_ls: bool = False) -> Pieces:
    """A JPEG or JPEG-LS image of random scans, with comments wherever a segment may stand."""
    header = segment(0xF7 if jpeg_ls else 0xC1, bytes.fromhex("080010001001011100"))
    pieces: Pieces = [(b"\xff\xd8", False), *draw(hidden()), (header, False), *draw(hidden())]
    for _ in range(draw(st.integers(1, 3))):
        data = draw(st.binary(max_size=60)).replace(b"\xff", b"\xff\x2a" if jpeg_ls else b"\xff\0")
        scan = bytes.fromhex(NAMED["SOS"]) + data + b"\xff\xd3" * draw(st.integers(0, 1))
        pieces += [(scan, False), *draw(hidden())]
    tail = draw(SHORT).strip(b"\0\xff ")
    tail = b"" if tail[:2] in (b"\xd8\xff", b"\x4f\xff", b"\x0cj", b"\x0cJ") else tail
    return [*pieces, (b"\xff\xd9\0", False), (tail, True)]


@st.composite
def jpeg_2000(draw: st.DrawFn) -> Pieces:
    """A JPEG 2000 codestream of some tile-parts, with comments in every header."""

    def remarks() -> Pieces:
        texts = draw(st.lists(TEXT, max_size=2))
        return [
            piece
            for text in texts
            for piece in ((b"\xff\x64" + (len(text) + 4).to_bytes(2, "big") + b"\0\1", False), (text, True))
        ]

    pieces: Pieces = [(b"\xff\x4f" + bytes.fromhex(NAMED["SIZ"]), False), *remarks()]
    last = draw(st.integers(0, 2))
    for part in range(last + 1):
        inner, data = remarks(), draw(st.binary(max_size=60)).replace(b"\xff", b"\xff\x2a")
        length = 14 + sum(len(piece) for piece, _ in inner) + len(data)
        if part == last and draw(st.booleans()):
            length = 0
        header = b"\xff\x90\0\x0a\0\0" + length.to_bytes(4, "big") + b"\0\1"
        pieces += [(header, False), *inner, (b"\xff\x93" + data, False)]
    return [*pieces, (b"\xff\xd9", False)]


@st.composite
def boxes(draw: st.DrawFn) -> Pieces:
    """A JP2 file with metadata boxes of every form of length, its codestream in the middle."""

    def box(kind: bytes, found: bool, content: Pieces) -> Pieces:
        size = sum(len(piece) for piece, _ in content)
        if draw(st.booleans()):
            return [((size + 8).to_bytes(4, "big"), False), (kind, found), *content]
        return [(b"\0\0\0\1", False), (kind, found), ((size + 16).to_bytes(8, "big"), False), *content]

    def metadata() -> Pieces:
        kinds = draw(st.lists(st.sampled_from([b"xml ", b"uuid", b"uinf", b"free", b"abcd"]), max_size=3))
        return [piece for kind in kinds for piece in box(kind, True, [(draw(TEXT), True)])]

    pieces: Pieces = [(b"\0\0\0\x0cjP  \r\n\x87\n", False), *metadata()]
    pieces += box(b"jp2h", False, [*box(b"colr", False, [(b"\1\0\0\0\0\0\x11", False)]), *metadata()])
    return [*pieces, *metadata(), *box(b"jp2c", False, draw(jpeg_2000())), *metadata()]


KINDS = {"50": jpeg(), "80": jpeg(jpeg_ls=True), "90": jpeg_2000(), "91": boxes()}


@st.composite
def frames(draw: st.DrawFn) -> tuple[str, list[Pieces]]:
    end = draw(st.sampled_from(sorted(KINDS)))
    return SYNTAX + end, draw(st.lists(KINDS[end], min_size=1, max_size=3))


def stored(pieces: list[Pieces]) -> tuple[list[bytes], list[bytes]]:
    """The frames as they are, and blanked."""
    return (
        [b"".join(part for part, _ in frame) for frame in pieces],
        [b"".join(FILL * len(part) if found else part for part, found in frame) for frame in pieces],
    )


def cut(frames: list[bytes], chance: random.Random) -> tuple[bytes, Fragments]:
    """Frames cut into fragments at random, with an Item's header before each."""
    data, fragments = b"", []
    for frame in frames:
        cuts = sorted({0, len(frame), *(chance.randrange(1, len(frame)) for _ in range(chance.randrange(5)))})
        for start, stop in pairwise(cuts):
            data += b"\xfe\xff\x00\xe0" + (stop - start).to_bytes(4, "little")
            fragments.append((len(data), len(data) + stop - start))
            data += frame[start:stop]
    return data, fragments


def joined(data: bytes, fragments: Fragments) -> bytes:
    return b"".join(data[start:stop] for start, stop in fragments)


@given(frames())
def test_what_is_hidden_is_found_exactly(made: tuple[str, list[Pieces]]) -> None:
    """Wherever the syntax lets a comment stand, it is found with its first and its last byte, and nothing else is."""
    syntax, pieces = made
    originals, expected = stored(pieces)
    ends = list(accumulate(map(len, originals), initial=0))
    data, fragments = b"".join(originals), list(pairwise(ends))
    out = blanked(data, find(data, fragments, syntax))
    assert out == b"".join(expected)
    assert find(out, fragments, syntax) == []


@given(frames(), st.randoms(use_true_random=False))
def test_fragments_change_nothing(made: tuple[str, list[Pieces]], chance: random.Random) -> None:
    """However the frames are cut into fragments, the same bytes are found; but a tail that fills a fragment is none."""
    syntax, pieces = made
    if syntax.endswith(("50", "80")):
        pieces = [frame[:-1] for frame in pieces]
    originals, expected = stored(pieces)
    data, fragments = cut(originals, chance)
    out = blanked(data, find(data, fragments, syntax))
    assert joined(out, fragments) == b"".join(expected)


@given(frames(), st.randoms(use_true_random=False))
def test_a_broken_codestream_is_read_or_set_aside(made: tuple[str, list[Pieces]], chance: random.Random) -> None:
    """Whatever is wrong in a codestream, spans come out or InvalidInstance, and blanking is done in one pass."""
    syntax, pieces = made
    data, fragments = cut(stored(pieces)[0], chance)
    broken = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        broken[chance.randrange(len(broken))] = chance.choice(
            [0, 1, 0x20, 0x64, 0x93, 0xD8, 0xD9, 0xDA, 0xE0, 0xFE, 0xFF]
        )
    data = bytes(broken)
    try:
        out = blanked(data, find(data, fragments, syntax))
    except InvalidInstance as bad:
        assert bad.reason == "bitstream"
    else:
        assert find(out, fragments, syntax) == []


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"])
)
def test_noise_is_read_or_set_aside(noise: bytes, begin: bytes) -> None:
    """Random bytes raise InvalidInstance at the worst."""
    data = begin + noise
    try:
        find(data, [(0, len(data))])
    except InvalidInstance as bad:
        assert bad.reason == "bitstream"


# --------------------------------------------------------------------------------------------------------- real images


def items(pixel_data: bytes) -> Fragments:
    """The fragments of encapsulated Pixel Data, without the Basic Offset Table."""
    found, at = [], 0
    while pixel_data[at : at + 4] == b"\xfe\xff\x00\xe0":
        stop = at + 8 + int.from_bytes(pixel_data[at + 4 : at + 8], "little")
        found.append((at + 8, stop))
        at = stop
    return found[1:]


def compressed() -> Iterator[pytest.param]:
    for path in sorted((BUNDLED / "test_files").glob("*.dcm")):
        try:
            ds = pydicom.dcmread(path)
        except pydicom.errors.InvalidDicomError:
            continue
        if ds.file_meta.get("TransferSyntaxUID") in EXAMINED and "PixelData" in ds:
            yield pytest.param(ds, id=path.stem)


REAL = list(compressed())


def remarked(frame: bytes) -> bytes:
    """The image with a comment more."""
    if frame.startswith(b"\xff\xd8"):
        return frame[:2] + segment(0xFE, b"Doe^Jane") + segment(0xE1, b"Doe^Jane") + frame[2:]
    at = frame.index(b"\xff\x4f\xff\x51")
    at += 4 + int.from_bytes(frame[at + 4 : at + 6], "big")
    comment = b"\xff\x64\x00\x0c\x00\x01Doe^Jane"
    box = frame.find(b"jp2c", 0, at) - 4
    if box >= 0 and (length := int.from_bytes(frame[box : box + 4], "big")):
        frame = frame[:box] + (length + len(comment)).to_bytes(4, "big") + frame[box + 4 :]
    return frame[:at] + comment + frame[at:]


@pytest.mark.parametrize("ds", REAL)
def test_real_images_are_followed_to_their_end(ds: pydicom.Dataset) -> None:
    """Real images can be read, and blanked, once."""
    syntax, fragments = ds.file_meta.TransferSyntaxUID, items(ds.PixelData)
    assert fragments
    out = blanked(ds.PixelData, find(ds.PixelData, fragments, syntax))
    assert find(out, fragments, syntax) == []


def test_the_comments_of_real_images() -> None:
    """What encoders wrote about themselves is found in full."""
    found = set()
    for ds in (param.values[0] for param in REAL):
        data = ds.PixelData
        found |= {data[span.start : span.stop] for span in find(data, items(data), ds.file_meta.TransferSyntaxUID)}
    assert {b"Created by GDCM/OpenJPEG version 2.0", b"Kakadu-2.2"} <= found


def decoded(ds: pydicom.Dataset) -> bytes:
    """The pixels as a decoder at hand sees them; nothing where there is none."""
    try:
        return bytes(ds.pixel_array.tobytes())
    except (RuntimeError, NotImplementedError, AttributeError):
        return b""


@pytest.mark.parametrize("ds", [ds for ds in REAL if decoded(ds.values[0])])
def test_blanking_leaves_every_pixel(ds: pydicom.Dataset) -> None:
    """A decoder sees the same pixels in an image as it is, and with a comment put in and blanked."""
    expected = decoded(ds)
    syntax = ds.file_meta.TransferSyntaxUID
    frames = list(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames", 1))))
    if syntax != RLE:
        frames = [remarked(frame) for frame in frames]
    data = pydicom.encaps.encapsulate(frames)
    out = blanked(data, find(data, items(data), syntax))
    assert b"Doe^Jane" not in out
    ds = deepcopy(ds)
    ds.PixelData = out
    assert ds.pixel_array.tobytes() == expected
