"""What happens to Pixel Data, which is: nothing, but for bits that are no pixels.

Two things can hide in native Pixel Data: an overlay in bits that the pixels don't use (retired, PS3.5 8.1.2), and
bytes behind the last pixel. The first are cleared where they stand, the second are dropped.
"""

from typing import Final

from dicomveil.decision import Decision
from dicomveil.errors import InvalidInstance
from dicomveil.part10 import DEFLATED_UIDS, GE_PRIVATE_UID, UNCOMPRESSED_UIDS
from dicomveil.stream import PIXEL_DATA, Encoding, tag_text
from dicomveil.walk import Edit, Mask, Walk

SAMPLES: Final = 0x00280002
FRAMES: Final = 0x00280008
ROWS: Final = 0x00280010
COLUMNS: Final = 0x00280011
BITS_ALLOCATED: Final = 0x00280100
BITS_STORED: Final = 0x00280101
HIGH_BIT: Final = 0x00280102
OVERLAY_BIT_POSITION: Final = 0x60000102
OVERLAY_DATA: Final = 0x60003000
FLOAT_PIXEL_DATA: Final = 0x7FE00008
DOUBLE_FLOAT_PIXEL_DATA: Final = 0x7FE00009
LAYOUT: Final = frozenset((SAMPLES, FRAMES, ROWS, COLUMNS, BITS_ALLOCATED, BITS_STORED, HIGH_BIT))
_PIXELS: Final = frozenset((FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA, PIXEL_DATA))

_BEHIND_PIXELS = Decision(PIXEL_DATA, "PixelData", "OW", "C", "PS3.5 8.1.1")
_OVERLAY_BITS = Decision(PIXEL_DATA, "PixelData", "OW", "C", "E.1-1 (60xx,3000)")


def settle_pixels(walk: Walk, encoding: Encoding, transfer_syntax_uid: str) -> None:
    """Clear embedded overlays and drop what lies behind the last pixel, once the walk has seen everything.

    Raises:
      InvalidInstance: "overlay-in-pixels" where the overlay's bits can't be cleared: in encapsulated Pixel Data, or
        within the stored bits; "undefined-length" for native Pixel Data without a length.
    """
    pixels = [note for note in walk.notes if note[0] in _PIXELS]
    if not pixels:
        return
    layout = _layout(walk, encoding)
    bits = _embedded_overlays(walk, encoding, layout)
    native = transfer_syntax_uid in UNCOMPRESSED_UIDS or transfer_syntax_uid in DEFLATED_UIDS
    for tag, vr, start, value, stop, undefined, _ in pixels:
        if native:
            if undefined:
                raise InvalidInstance("undefined-length", tag_text(tag), start)
            end = _end_of_pixels(tag, value, stop, layout)
            if end < stop:
                header = encoding.header(tag, vr.decode() or "OW", end - value)
                walk.edits.append(Edit(start, value, header))
                walk.edits.append(Edit(end, stop, b"", None, tag, vr, _BEHIND_PIXELS))
                stop = end
        if tag == PIXEL_DATA and bits:
            if not native:
                raise InvalidInstance("overlay-in-pixels", tag_text(tag), start)
            mask = _mask(bits, layout[BITS_ALLOCATED], encoding.big or transfer_syntax_uid == GE_PRIVATE_UID)
            walk.edits.append(Edit(value, stop, mask, None, tag, vr, _OVERLAY_BITS))


def _layout(walk: Walk, encoding: Encoding) -> dict[int, int]:
    """What is said of how the pixels are laid out; nothing at all where any of it can't be read or is contradicted."""
    layout: dict[int, int] = {}
    for tag, _, _, _, _, _, raw in walk.notes:
        if tag in LAYOUT:
            number = _number(raw, tag, encoding)
            if number is None or layout.setdefault(tag, number) != number:
                return {}
    return layout


def _number(raw: bytes, tag: int, encoding: Encoding) -> int | None:
    """The value of a US attribute or of Number of Frames; None where it is no number."""
    if tag == FRAMES:
        text = raw.strip(b" \0")
        return int(text) if text.isdigit() else None
    return int(encoding.u16.unpack(raw)[0]) if len(raw) == 2 else None


def _embedded_overlays(walk: Walk, encoding: Encoding, layout: dict[int, int]) -> frozenset[int]:
    """The bits of the Pixel Data that hold overlays whose group was removed."""
    apart = {note[0] >> 16 for note in walk.notes if note[0] & 0xFF01FFFF == OVERLAY_DATA and note[4] > note[3]}
    bits = set()
    for tag, _, start, _, _, _, raw in walk.notes:
        if tag & 0xFF01FFFF == OVERLAY_BIT_POSITION:
            bit = int.from_bytes(raw, "big" if encoding.big else "little")
            if bit and not (_stored(bit, layout) and tag >> 16 in apart):
                bits.add(_unused(bit, layout, start))
    return frozenset(bits)


def _stored(bit: int, layout: dict[int, int]) -> bool:
    stored = layout.get(BITS_STORED, layout.get(BITS_ALLOCATED, 16))
    high = layout.get(HIGH_BIT, stored - 1)
    return high - stored < bit <= high


def _unused(bit: int, layout: dict[int, int], start: int) -> int:
    """The bit, if it can be cleared without touching a pixel."""
    if _stored(bit, layout) or layout.get(BITS_ALLOCATED) not in (8, 16, 32) or bit >= layout[BITS_ALLOCATED]:
        raise InvalidInstance("overlay-in-pixels", "", start)
    return bit


def _mask(bits: frozenset[int], allocated: int, big: bool) -> Mask:
    word = (1 << allocated) - 1
    for bit in bits:
        word &= ~(1 << bit)
    return Mask(word.to_bytes(allocated // 8, "big" if big else "little"))


def _end_of_pixels(tag: int, value: int, stop: int, layout: dict[int, int]) -> int:
    """Where the pixels stop, padded to an even length; where the value does if that isn't known, or comes first."""
    allocated = {FLOAT_PIXEL_DATA: 32, DOUBLE_FLOAT_PIXEL_DATA: 64}.get(tag) or layout.get(BITS_ALLOCATED)
    if not allocated or not layout.get(ROWS) or not layout.get(COLUMNS):
        return stop
    pixels = layout[ROWS] * layout[COLUMNS] * layout.get(SAMPLES, 1) * layout.get(FRAMES, 1)
    length = (pixels * allocated + 7) // 8
    return min(value + length + (length & 1), stop) if length else stop
