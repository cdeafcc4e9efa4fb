"""One frame through a codec: what each transfer syntax can hold, and arrays to bitstreams and back.

What is written without loss is decoded again and compared, so that a codec's mistake is never an output. The codecs
are of the extra `dicomveil[codecs]`, imported when first used; they are native code that may end its process, which is
why `transforms.children` runs them in another.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from dicomveil import syntaxes
from dicomveil.errors import InvalidInstance
from dicomveil.frames import (
    PHOTOMETRIC_INTERPRETATION,
    Array,
    Image,
    failed,
    native_bytes,
    unsupported,
)
from dicomveil.pixels import BITS_ALLOCATED, BITS_STORED, HIGH_BIT, SAMPLES
from dicomveil.transcoding import PIXEL_REPRESENTATION

_DCT: Final = frozenset((syntaxes.JPEG_BASELINE, syntaxes.JPEG_EXTENDED))
_JPEG_LOSSLESS: Final = frozenset((syntaxes.JPEG_LOSSLESS, syntaxes.JPEG_LOSSLESS_SV1))
_JPEG_LS: Final = frozenset((syntaxes.JPEG_LS, syntaxes.JPEG_LS_NEAR))
_HTJ2K: Final = frozenset((syntaxes.HTJ2K_LOSSLESS, syntaxes.HTJ2K_LOSSLESS_RPCL, syntaxes.HTJ2K))
_JPEG_2000: Final = frozenset((syntaxes.JPEG_2000_LOSSLESS, syntaxes.JPEG_2000)) | _HTJ2K
DECODED: Final = _DCT | _JPEG_LOSSLESS | _JPEG_LS | _JPEG_2000 | {syntaxes.RLE}
"""The compressed transfer syntaxes that can be read."""

_MONOCHROME: Final = ("MONOCHROME1", "MONOCHROME2")
_TRANSFORMED: Final = ("YBR_RCT", "YBR_ICT")
_LARGEST_THUMBNAIL: Final = 64  # pixels a side, which HTJ2K with RPCL asks of its lowest resolution
_PREDICTOR: Final = 1
_END_OF_IMAGE: Final = b"\xff\xd9"
_TRANSFER_SYNTAX: Final = 0x00020010


@dataclass(frozen=True)
class _Holds:
    """What pixels a transfer syntax holds (PS3.5 8.2, within what its codec can do).

    Attributes:
      colour: the Photometric Interpretations of three samples.
      cells: (Bits Allocated, the least and the most Bits Stored) that go together.
      colour_cells: the same of colour.
      palette: whether PALETTE COLOR may be.
      signed: whether two's complement may be.
    """

    colour: tuple[str, ...]
    cells: tuple[tuple[int, int, int], ...]
    colour_cells: tuple[tuple[int, int, int], ...]
    palette: bool
    signed: bool


_TO_16: Final = ((8, 2, 8), (16, 2, 16))
_RGB_OR_YBR: Final = ("RGB", "YBR_FULL", "YBR_FULL_422")
_J2K_CELLS: Final = ((8, 2, 8), (16, 2, 16), (32, 2, 24))
_J2K: Final = _Holds(_RGB_OR_YBR, _J2K_CELLS, _TO_16, palette=True, signed=True)
_J2K_LOSSY: Final = replace(_J2K, palette=False)
_HOLDS: Final[dict[str, _Holds]] = {
    syntaxes.RLE: _Holds(_RGB_OR_YBR, ((8, 1, 8), (16, 1, 16)), ((8, 1, 8), (16, 1, 16)), True, True),
    syntaxes.JPEG_BASELINE: _Holds(_RGB_OR_YBR, ((8, 8, 8),), ((8, 8, 8),), False, False),
    syntaxes.JPEG_EXTENDED: _Holds((), ((8, 8, 8), (16, 12, 12)), (), False, False),
    **dict.fromkeys(_JPEG_LOSSLESS, _Holds(_RGB_OR_YBR, _TO_16, _TO_16, True, True)),
    syntaxes.JPEG_LS: _Holds(_RGB_OR_YBR, _TO_16, _TO_16, True, True),
    syntaxes.JPEG_LS_NEAR: _Holds(_RGB_OR_YBR, _TO_16, _TO_16, False, True),
    syntaxes.JPEG_2000_LOSSLESS: _J2K,
    syntaxes.JPEG_2000: _J2K_LOSSY,
    **dict.fromkeys(_HTJ2K, replace(_J2K, cells=_TO_16)),
    syntaxes.HTJ2K: replace(_J2K_LOSSY, cells=_TO_16),
}
_YBR_OF_8_BITS: Final = frozenset((syntaxes.RLE, *_JPEG_LS))


def unavailable(uid: str) -> str:
    """Why a transfer syntax can't be written with the packages that are installed; "" where it can."""
    if lacking := syntaxes.missing():
        return f"{', '.join(lacking)} not installed: install {syntaxes.EXTRA}"
    if uid in _HTJ2K and not _has_htj2k():
        return "the imagecodecs that is installed writes no HTJ2K: install a newer one, which needs Python 3.11"
    return ""


def _has_htj2k() -> bool:
    import imagecodecs

    codec = getattr(imagecodecs, "HTJ2K", None)
    return bool(codec is not None and codec.available)


def decoded(image: Image, uid: str) -> Image:
    """How pixels are laid out once they are decoded: as they were, but for colour that the codec turns into RGB.

    Raises:
      InvalidInstance: "transcode-unsupported", nothing here reads the transfer syntax.
    """
    if uid not in DECODED:
        raise unsupported(_TRANSFER_SYNTAX)
    if uid == syntaxes.RLE:
        return image
    turned = image.photometric in _TRANSFORMED or (uid in _DCT and image.photometric != "RGB")
    return replace(image, planar=0, photometric="RGB" if turned and image.samples == 3 else image.photometric)


def encoded(image: Image, uid: str) -> Image:
    """How pixels are described once they are encoded.

    Raises:
      InvalidInstance: "transcode-unsupported" with the attribute whose value the target can't hold.
    """
    holds = _HOLDS[uid]
    if image.samples not in (1, 3):
        raise unsupported(SAMPLES)
    colour = image.samples == 3
    grey = _MONOCHROME + (("PALETTE COLOR",) if holds.palette else ())
    if image.photometric not in (holds.colour if colour else grey):
        raise unsupported(PHOTOMETRIC_INTERPRETATION)
    if image.signed and (colour or not holds.signed or image.photometric == "PALETTE COLOR"):
        raise unsupported(PIXEL_REPRESENTATION)
    cells = holds.colour_cells if colour else holds.cells
    widest = 8 if uid in _YBR_OF_8_BITS and image.photometric.startswith("YBR") else 16
    if image.photometric not in _MONOCHROME:
        cells = tuple(cell for cell in cells if cell[0] <= widest)
    if image.allocated not in [allocated for allocated, _, _ in cells]:
        raise unsupported(BITS_ALLOCATED)
    if not any(image.allocated == allocated and least <= image.stored <= most for allocated, least, most in cells):
        raise unsupported(BITS_STORED)
    if image.high != image.stored - 1 and uid != syntaxes.RLE:
        raise unsupported(HIGH_BIT)
    return replace(image, photometric=_photometric(image, uid), planar=1 if colour and uid == syntaxes.RLE else 0)


def _photometric(image: Image, uid: str) -> str:
    if image.samples == 1:
        return image.photometric
    if uid == syntaxes.JPEG_BASELINE:
        return "YBR_FULL_422"
    if image.photometric == "YBR_FULL_422":
        return "YBR_FULL"  # its colour differences have been repeated for each pixel
    if image.photometric == "RGB" and uid in _JPEG_2000:
        return "YBR_ICT" if syntaxes.produced()[uid].lossy else "YBR_RCT"
    return image.photometric


def decode(uid: str, data: bytes, image: Image) -> Array:
    """One frame's bitstream as an array of (rows, columns, samples).

    Raises:
      InvalidInstance: "transcode-failed", it can't be read, or isn't what the image is said to be;
        "transcode-unsupported", it has lossy pixels that Bits Stored doesn't hold.
      MemoryError: it needs more memory than there may be.
    """
    try:
        cells, precision, signed = _READ[uid](uid, data, image)
        cells = cells.reshape(image.shape)
    except (InvalidInstance, MemoryError):
        raise
    except Exception:  # each codec has errors of its own, whose text may hold anything
        raise failed() from None
    if uid == syntaxes.RLE:
        return cells
    fitted = _fitted(cells, image, precision, signed)
    if precision > image.stored and syntaxes.produced()[uid].lossy:
        stored_values(fitted, image)  # what a lossy codec has pushed past Bits Stored would be another value, native
    return fitted


def encode(uid: str, frame: Array, image: Image, quality: int) -> bytes:
    """An array as one frame's bitstream.

    Args:
      image: what `encoded` has let pass, as it was before.
      quality: 1 to 100, for lossy transfer syntaxes.

    Raises:
      InvalidInstance: "transcode-unsupported", its unused bits hold something that the target has no room for, or it
        can't be kept within the bounds of near-lossless; "transcode-failed", the codec gave up, or its bitstream
        decodes to something else.
      MemoryError: it needs more memory than there may be.
    """
    values = frame if uid == syntaxes.RLE else stored_values(frame, image)
    try:
        data, error = _WRITE[uid](uid, np.ascontiguousarray(values), image, quality)
    except (InvalidInstance, MemoryError):
        raise
    except Exception:
        raise failed() from None
    if error >= 0:
        again = decode(uid, data, image)
        if error == 0 and not np.array_equal(again, values):
            raise failed()
        if error and np.abs(again.astype(np.int64) - values).max() > error:
            raise unsupported(PIXEL_REPRESENTATION)
    return data


def stored_values(frame: Array, image: Image) -> Array:
    """The pixels of cells: Bits Stored of each, with the sign's bit repeated above it.

    Raises:
      InvalidInstance: "transcode-unsupported" where bits above hold anything else than zeros or the sign, such as an
        embedded overlay (PS3.5 8.1.2).
    """
    spare = image.allocated - image.stored
    if not spare:
        return frame
    values: Array = np.right_shift(np.left_shift(frame, spare), spare)
    if not np.array_equal(values, frame):
        above = np.right_shift(frame, image.stored)  # of a signed array: with its sign
        if not image.signed or np.any((above != 0) & (values != frame)):
            raise unsupported(BITS_STORED)
    return values


def _fitted(cells: Array, image: Image, precision: int, signed: bool) -> Array:
    """Decoded pixels in cells as the image describes them, whatever signedness the bitstream gave them."""
    if precision > image.allocated:
        raise failed(BITS_ALLOCATED)
    if image.signed and not signed:
        spare = image.allocated - min(precision, image.stored)
        whole = cells.astype(image.dtype)
        values: Array = np.right_shift(np.left_shift(whole, spare), spare)
        above = np.right_shift(whole, image.allocated - spare)
        return values if not np.any((above != 0) & (values != whole)) else whole
    if signed and not image.signed:
        cells = cells.astype(np.int64) & ((1 << precision) - 1)
    return cells.astype(image.dtype)


# ---------------------------------------------------------------------------------------------------------- reading

_Read = Callable[[str, bytes, Image], tuple[Array, int, bool]]
"""From (transfer syntax, bitstream, image) to (pixels, their precision, whether the bitstream says that they are
signed)."""


def _read_rle(uid: str, data: bytes, image: Image) -> tuple[Array, int, bool]:
    from rle.rle import decode_frame

    flat = np.frombuffer(decode_frame(data, image.rows * image.columns, image.allocated, "<"), image.dtype)
    planes = flat.reshape(image.samples, image.rows, image.columns)
    return np.ascontiguousarray(planes.transpose(1, 2, 0)), image.allocated, image.signed


def _read_jpeg(uid: str, data: bytes, image: Image) -> tuple[Array, int, bool]:
    import imagecodecs

    colour = "RGB", "RGB"  # as they are
    if uid in _DCT and image.samples == 3 and _is_ybr(data, image.photometric):
        colour = "YCBCR", "RGB"
    if image.samples == 1:
        cells = imagecodecs.jpeg8_decode(data)
    else:
        cells = imagecodecs.jpeg8_decode(data, colorspace=colour[0], outcolorspace=colour[1])
    precision = _jpeg_precision(data)
    if data.rfind(_END_OF_IMAGE) < _segments(data)[1] or cells.max(initial=0) >> precision:
        raise failed()  # the codec makes up what is missing, and passes over what can't be
    return np.asarray(cells), precision, False


def _read_jpeg_ls(uid: str, data: bytes, image: Image) -> tuple[Array, int, bool]:
    from jpeg_ls import decode_buffer

    cells, said = decode_buffer(data)
    precision = said["bits_per_sample"]
    flat = np.frombuffer(cells, "<u1" if precision <= 8 else "<u2")
    if (said["height"], said["width"], said["components"]) != image.shape:
        raise failed()
    if image.samples > 1 and said["interleave_mode"] == 0:
        flat = flat.reshape(image.samples, image.rows, image.columns).transpose(1, 2, 0)
    return flat, precision, False


def _read_jpeg_2000(uid: str, data: bytes, image: Image) -> tuple[Array, int, bool]:
    import openjpeg

    said = openjpeg.get_parameters(data)
    if (said["rows"], said["columns"], said["samples_per_pixel"]) != image.shape:
        raise failed()
    return openjpeg.decode(data), int(said["precision"]), bool(said["is_signed"])


def _segments(data: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """The marker segments of a JPEG before its first scan, as (marker, content), and where that begins."""
    found: list[tuple[int, bytes]] = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xDA:
            break
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((marker, data[at + 4 : at + 2 + length]))
        at += 2 + length
    return found, at


def _frame_header(data: bytes) -> bytes:
    for marker, content in _segments(data)[0]:
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return content
    raise failed()


def _jpeg_precision(data: bytes) -> int:
    return _frame_header(data)[0]


def _is_ybr(data: bytes, photometric: str) -> bool:
    """Whether three components are luminance and colour differences, as their marks say before the data set does."""
    header = _frame_header(data)
    if bytes(header[6::3][:3]).upper() == b"RGB":
        return False
    for marker, content in _segments(data)[0]:
        if marker == 0xEE and content[:5] == b"Adobe" and len(content) >= 12:
            return content[11] != 0
        if marker == 0xE0 and content[:5] == b"JFIF\0":
            return True
    return photometric != "RGB"


_READ: Final[dict[str, _Read]] = {
    syntaxes.RLE: _read_rle,
    **dict.fromkeys(_DCT | _JPEG_LOSSLESS, _read_jpeg),
    **dict.fromkeys(_JPEG_LS, _read_jpeg_ls),
    **dict.fromkeys(_JPEG_2000, _read_jpeg_2000),
}


# ---------------------------------------------------------------------------------------------------------- writing

_Write = Callable[[str, Array, Image, int], tuple[bytes, int]]
"""From (transfer syntax, pixels, image, quality) to (bitstream, how much a pixel may differ; -1 for no bound)."""


def _write_rle(uid: str, frame: Array, image: Image, quality: int) -> tuple[bytes, int]:
    from rle.rle import encode_frame

    data = native_bytes(frame, replace(image, planar=0))
    return bytes(encode_frame(data, image.rows, image.columns, image.samples, image.allocated, "<")), 0


def _unsigned(values: Array, image: Image) -> Array:
    """Pixels as their Bits Stored alone, in the smallest cells that hold them."""
    cells = values.astype(f"<u{image.allocated // 8}") & ((1 << image.stored) - 1)
    return np.ascontiguousarray(cells.astype(np.uint8 if image.stored <= 8 else np.uint16))


def _squeezed(values: Array) -> Array:
    return values[:, :, 0] if values.shape[2] == 1 else values


def _write_dct(uid: str, values: Array, image: Image, quality: int) -> tuple[bytes, int]:
    import imagecodecs

    cells, bits = np.ascontiguousarray(_squeezed(_unsigned(values, image))), image.stored
    if image.samples == 1:
        return bytes(imagecodecs.jpeg8_encode(cells, quality, bitspersample=bits)), -1
    colour = "RGB" if image.photometric == "RGB" else "YCBCR"
    data = imagecodecs.jpeg8_encode(cells, quality, colorspace=colour, outcolorspace="YCBCR", subsampling="422")
    return bytes(data), -1


def _write_jpeg_lossless(uid: str, values: Array, image: Image, quality: int) -> tuple[bytes, int]:
    import imagecodecs

    cells = np.ascontiguousarray(_squeezed(_unsigned(values, image)))
    arguments: dict[str, Any] = {"lossless": True, "predictor": _PREDICTOR, "bitspersample": image.stored}
    if image.samples == 3:
        arguments |= {"colorspace": "UNKNOWN", "outcolorspace": "UNKNOWN"}
    return bytes(imagecodecs.jpeg8_encode(cells, **arguments)), 0


def _write_jpeg_ls(uid: str, values: Array, image: Image, quality: int) -> tuple[bytes, int]:
    near = near_of(quality, image.stored) if uid == syntaxes.JPEG_LS_NEAR else 0
    cells = _unsigned(values, image)
    if image.stored == 8 * cells.itemsize:
        import imagecodecs

        return bytes(imagecodecs.jpegls_encode(np.ascontiguousarray(_squeezed(cells)), level=near)), near
    from jpeg_ls import encode_buffer  # tells a precision, but gives up where the bitstream is longer than the pixels

    mode = 2 if image.samples == 3 else 0
    data = encode_buffer(cells.tobytes(), image.rows, image.columns, image.samples, image.stored, near, mode)
    return bytes(data), near


def near_of(quality: int, stored: int) -> int:
    """The most that a pixel of near-lossless JPEG-LS may differ: 1 at quality 100, 2 at 90, 10 at 10; less for few
    bits."""
    return min(1 + (100 - quality) // 10, max((1 << stored) // 4, 1))


def decibels_of(quality: int) -> float:
    """The ratio of a frame's range of values to the error's root mean square, for lossy JPEG 2000: 56 dB at 90."""
    return 20 + 0.4 * quality


def _error_of(values: Array, image: Image, quality: int) -> float:
    """The root mean square of the error that a quality allows, as a part of what Bits Stored can tell apart."""
    extent = max(int(values.max()) - int(values.min()), 1)
    return float(extent / (1 << image.stored) / 10 ** (decibels_of(quality) / 20))


def _resolutions(image: Image) -> int:
    """How many resolutions an image has room for: six, or as many as halve its shorter side to one pixel."""
    return min(6, min(image.rows, image.columns).bit_length())


def _write_jpeg_2000(uid: str, values: Array, image: Image, quality: int) -> tuple[bytes, int]:
    import imagecodecs

    arguments: dict[str, Any] = {
        "codecformat": "J2K",
        "bitspersample": image.stored,
        "resolutions": _resolutions(image),
        "reversible": uid == syntaxes.JPEG_2000_LOSSLESS,
        "mct": image.photometric == "RGB",
        "colorspace": {1: "GRAYSCALE", 3: "RGB"}[image.samples],
        "numthreads": 1,
    }
    if uid == syntaxes.JPEG_2000:
        arguments["level"] = -20 * float(np.log10(_error_of(values, image, quality)))
    cells = np.ascontiguousarray(_squeezed(_cells(values, image)))
    return bytes(imagecodecs.jpeg2k_encode(cells, **arguments)), 0 if uid == syntaxes.JPEG_2000_LOSSLESS else -1


def _cells(values: Array, image: Image, bits: int = 0) -> Array:
    """Pixels in the smallest cells that hold Bits Stored, with their sign."""
    size = next(size for size in (8, 16, 32) if size >= (bits or image.stored))
    return values.astype(f"<{'i' if image.signed else 'u'}{size // 8}")


def _write_htj2k(uid: str, values: Array, image: Image, quality: int) -> tuple[bytes, int]:
    """The codec takes whole cells only: their precision is told to be Bits Stored in the codestream's header.

    Without loss, unsigned pixels are moved so that the level shift of the cells is that of Bits Stored (ISO 15444-1
    G.1). With loss they are scaled up to the cells: quantization steps are relative to the precision (E.1), so that
    the decoder scales them down.
    """
    import imagecodecs

    lossy = uid == syntaxes.HTJ2K
    size = 8 if image.stored <= 8 else 16
    spare = size - image.stored
    wide = values.astype(np.int64)
    shift = 0 if image.signed else (1 << (size - 1)) - (1 << (image.stored - 1))
    moved = wide << spare if lossy else wide + shift
    arguments: dict[str, Any] = {
        "reversible": not lossy,
        "rgb": image.photometric == "RGB",
        "resolutions": _decompositions(image),
        "tlm": True,
    }
    if lossy:
        arguments["level"] = min(max(_error_of(values, image, quality) / 0.3, 2.0**-15), 0.5)
    cells = np.ascontiguousarray(_squeezed(_cells(moved, image, size)))
    data = bytearray(imagecodecs.htj2k_encode(cells, **arguments))
    if data[2:4] != b"\xff\x51":
        raise failed()
    for component in range(image.samples):
        data[42 + 3 * component] = (0x80 if image.signed else 0) | (image.stored - 1)
    return bytes(data), -1 if lossy else 0


def _decompositions(image: Image) -> int:
    """How often an image is halved: five times, or as often as its lowest resolution needs to be a thumbnail."""
    longest, halved = max(image.rows, image.columns), 0
    while longest > _LARGEST_THUMBNAIL:
        longest, halved = (longest + 1) // 2, halved + 1
    return min(max(halved, min(5, min(image.rows, image.columns).bit_length() - 1)), 32)


_WRITE: Final[dict[str, _Write]] = {
    syntaxes.RLE: _write_rle,
    **dict.fromkeys(_DCT, _write_dct),
    **dict.fromkeys(_JPEG_LOSSLESS, _write_jpeg_lossless),
    **dict.fromkeys(_JPEG_LS, _write_jpeg_ls),
    **dict.fromkeys((syntaxes.JPEG_2000_LOSSLESS, syntaxes.JPEG_2000), _write_jpeg_2000),
    **dict.fromkeys(_HTJ2K, _write_htj2k),
}
