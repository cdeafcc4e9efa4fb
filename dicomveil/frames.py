"""Pixel Data as frames: how its pixels are laid out, and each frame's bytes, read one at a time from where they stand.

Nothing here compresses or decompresses; what a frame's bytes mean once they are compressed is in `compression`.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dicomveil.errors import InvalidInstance
from dicomveil.pixels import (
    BITS_ALLOCATED,
    BITS_STORED,
    COLUMNS,
    FRAMES,
    HIGH_BIT,
    ROWS,
    SAMPLES,
)
from dicomveil.stream import LARGEST_CHUNK, PIXEL_DATA, Encoding, Source, Window, items, tag_text
from dicomveil.transcoding import PIXEL_REPRESENTATION, Place, swapped

Array = NDArray[Any]

PHOTOMETRIC_INTERPRETATION: Final = 0x00280004
PLANAR_CONFIGURATION: Final = 0x00280006
EXTENDED_OFFSETS: Final = 0x7FE00001
EXTENDED_LENGTHS: Final = 0x7FE00002

OF_PIXELS: Final = (
    SAMPLES, PHOTOMETRIC_INTERPRETATION, PLANAR_CONFIGURATION, FRAMES, ROWS, COLUMNS, BITS_ALLOCATED, BITS_STORED,
    HIGH_BIT, PIXEL_REPRESENTATION,
)  # fmt: skip
"""The attributes that say how pixels are laid out."""
_STREAM_STARTS: Final = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")  # JPEG and JPEG-LS; JPEG 2000


@dataclass(frozen=True)
class Image:
    """How pixels are laid out (PS3.3 C.7.6.3).

    Attributes:
      photometric: Photometric Interpretation; "" where it is missing.
      planar: Planar Configuration, 0 by pixel or 1 by plane.
      high: High Bit.
      signed: whether Pixel Representation says two's complement.
    """

    rows: int
    columns: int
    samples: int
    frames: int
    allocated: int
    stored: int
    high: int
    signed: bool
    photometric: str
    planar: int

    @classmethod
    def of(cls, values: dict[int, bytes], encoding: Encoding) -> "Image":
        """As a data set says.

        Args:
          values: of `OF_PIXELS`, as encoded, by tag.

        Raises:
          InvalidInstance: "transcode-failed", a value is missing or makes no sense.
        """

        def number(tag: int, default: int = -1) -> int:
            raw = values.get(tag, b"")
            if not raw and default >= 0:
                return default
            if tag == FRAMES:
                text = raw.strip(b" \0")
                return int(text) if text.isdigit() and len(text) < 10 else _bad(tag)
            return int(encoding.u16.unpack(raw)[0]) if len(raw) == 2 else _bad(tag)

        samples, allocated = number(SAMPLES, 1), number(BITS_ALLOCATED)
        stored = number(BITS_STORED, allocated)
        image = cls(
            rows=number(ROWS) or _bad(ROWS),
            columns=number(COLUMNS) or _bad(COLUMNS),
            samples=samples or _bad(SAMPLES),
            frames=number(FRAMES, 1) or 1,
            allocated=allocated,
            stored=stored,
            high=number(HIGH_BIT, max(stored - 1, 0)),
            signed=number(PIXEL_REPRESENTATION, 0) == 1,
            photometric=values.get(PHOTOMETRIC_INTERPRETATION, b"").decode("latin-1").strip(" \0"),
            planar=number(PLANAR_CONFIGURATION, 0) if samples > 1 else 0,
        )
        if not 0 < image.stored <= image.allocated:
            _bad(BITS_STORED)
        return image

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, columns, samples), the shape of a frame's array."""
        return self.rows, self.columns, self.samples

    @property
    def pixels(self) -> int:
        """The number of samples of one frame."""
        return self.rows * self.columns * self.samples

    @property
    def subsampled(self) -> bool:
        """Whether native pixels hold two colour differences for two pixels (PS3.3 C.7.6.3.1.2)."""
        return self.photometric == "YBR_FULL_422" and self.samples == 3

    @property
    def frame_length(self) -> int:
        """Bytes of one native frame, where frames begin with a byte."""
        return self.pixels // 3 * 2 if self.subsampled else (self.pixels * self.allocated + 7) // 8

    @property
    def dtype(self) -> "np.dtype[Any]":
        """The type of one pixel cell, little endian.

        Raises:
          InvalidInstance: "transcode-unsupported", there is none.
        """
        if self.allocated not in (8, 16, 32):
            raise unsupported(BITS_ALLOCATED)
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.allocated // 8}")


def unsupported(tag: int) -> InvalidInstance:
    """What the target can't hold, told by the attribute that says so."""
    return InvalidInstance("transcode-unsupported", tag_text(tag))


def failed(tag: int = PIXEL_DATA) -> InvalidInstance:
    """What is broken, told by the attribute at fault."""
    return InvalidInstance("transcode-failed", tag_text(tag))


def _bad(tag: int) -> int:
    raise failed(tag)


class NativeFrames:
    """Native Pixel Data as little endian bytes, whatever its encoding is.

    Args:
      word: bytes that are swapped together; 1 where none are.
    """

    def __init__(self, source: Source, start: int, stop: int, word: int) -> None:
        self._source, self._start, self.length, self._word = source, start, stop - start, word

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from an offset in the value.

        Raises:
          InvalidInstance: "truncated".
        """
        word = self._word
        begin = offset - offset % word
        end = min(offset + length + -(offset + length) % word, self.length)
        data = self._source.read(self._start + begin, end - begin)
        if len(data) != end - begin:
            raise InvalidInstance("truncated", tag_text(PIXEL_DATA), self._start)
        return swapped(data, word)[offset - begin : offset - begin + length]

    def pieces(self) -> Iterator[bytes]:
        """All of it, in pieces of at most 1 MiB."""
        for at in range(0, self.length, LARGEST_CHUNK):
            yield self.read(at, min(LARGEST_CHUNK, self.length - at))

    def frame(self, image: Image, index: int) -> Array:
        """One frame as an array of (rows, columns, samples); subsampled colour has been repeated for each pixel.

        Raises:
          InvalidInstance: "transcode-failed", the value is shorter than its frames.
        """
        length = image.frame_length
        data = self.read(index * length, length) if (index + 1) * length <= self.length else b""
        if len(data) != length:
            raise failed()
        if image.subsampled:
            return _upsampled(data, image)
        if image.samples > 1 and image.planar == 1:
            planes = np.frombuffer(data, image.dtype).reshape(image.samples, image.rows, image.columns)
            return np.ascontiguousarray(planes.transpose(1, 2, 0))
        return np.frombuffer(data, image.dtype).reshape(image.shape)


def _upsampled(data: bytes, image: Image) -> Array:
    """Y1 Y2 Cb Cr for two pixels each, as three samples a pixel."""
    if image.allocated != 8 or image.columns % 2:
        raise unsupported(PHOTOMETRIC_INTERPRETATION)
    pairs = np.frombuffer(data, np.uint8).reshape(-1, 4)
    pixels = np.empty((len(pairs), 2, 3), np.uint8)
    pixels[:, :, 0] = pairs[:, :2]
    pixels[:, :, 1:] = pairs[:, None, 2:]
    return pixels.reshape(image.shape)


def native_bytes(frame: Array, image: Image) -> bytes:
    """A frame as native Pixel Data holds it, little endian."""
    if image.samples > 1 and image.planar == 1:
        frame = frame.transpose(2, 0, 1)
    return frame.astype(image.dtype, copy=False).tobytes()


class EncapsulatedFrames:
    """Encapsulated Pixel Data: which fragments make which frame (PS3.5 A.4).

    Raises:
      InvalidInstance: "transcode-failed", it can't be told; or what is wrong with the encoding.
    """

    def __init__(self, source: Source, place: Place, encoding: Encoding, frames: int) -> None:
        self._source = source
        window = Window(source)
        _, _, start, value, stop = place
        found = [(content, end) for _, content, end in items(window, value, -1, stop, encoding, PIXEL_DATA)]
        if len(found) < 2 or any(end < 0 for _, end in found):
            raise InvalidInstance("transcode-failed", tag_text(PIXEL_DATA), start)
        (table_start, table_stop), *self._fragments = found
        self.length = sum(end - content for content, end in self._fragments)
        firsts = self._firsts(source.read(table_start, table_stop - table_start), frames)
        self._spans = list(zip(firsts, [*firsts[1:], len(self._fragments)], strict=True))

    def _firsts(self, table: bytes, frames: int) -> list[int]:
        """The first fragment of each frame: by the Basic Offset Table, one each, or where bitstreams begin.

        A table that doesn't fit is passed over: writers get it wrong.
        """
        fragments = self._fragments
        if frames == 1:
            return [0]
        if len(table) == 4 * frames:
            base = fragments[0][0] - 8
            places = {content - 8 - base: number for number, (content, _) in enumerate(fragments)}
            offsets = struct.unpack(f"<{frames}I", table)
            if offsets[0] == 0 and list(offsets) == sorted(set(offsets)) and places.keys() >= set(offsets):
                return [places[offset] for offset in offsets]
        if len(fragments) == frames:
            return list(range(frames))
        starts = [n for n, (at, _) in enumerate(fragments) if self._source.read(at, 4).startswith(_STREAM_STARTS)]
        if len(starts) != frames or starts[0] != 0:
            raise failed()
        return starts

    def frame(self, index: int) -> bytes:
        """The compressed bytes of one frame.

        Raises:
          InvalidInstance: "truncated".
        """
        first, behind = self._spans[index]
        parts = [self._source.read(start, stop - start) for start, stop in self._fragments[first:behind]]
        if sum(map(len, parts)) != sum(stop - start for start, stop in self._fragments[first:behind]):
            raise InvalidInstance("truncated", tag_text(PIXEL_DATA))
        return b"".join(parts)
