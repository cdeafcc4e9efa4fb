"""What happens to Pixel Data, which is: nothing, but for bits that are no pixels.

Two things can hide in native Pixel Data: an overlay in bits that the pixels don't use (retired, PS3.5 8.1.2), and
bytes behind the last pixel. The first are cleared where they stand, the second are dropped.
"""

from typing import Final

from dicomveil.decision import Decision, Element
from dicomveil.errors import InvalidInstance
from dicomveil.part10 import DEFLATED_UIDS, GE_PRIVATE_UID, UNCOMPRESSED_UIDS
from dicomveil.stream import Encoding, tag_text
from dicomveil.walk import Edit, Mask, Walk

SAMPLES: Final = 0x00280002
FRAMES: Final = 0x00280008
ROWS: Final = 0x00280010
COLUMNS: Final = 0x00280011
BITS_ALLOCATED: Final = 0x00280100
BITS_STORED: Final = 0x00280101
HIGH_BIT: Final = 0x00280102
OVERLAY_BIT_POSITION: Final = 0x60000102
FLOAT_PIXEL_DATA: Final = 0x7FE00008
DOUBLE_FLOAT_PIXEL_DATA: Final = 0x7FE00009
PIXEL_DATA: Final = 0x7FE00010
LAYOUT: Final = (SAMPLES, FRAMES, ROWS, COLUMNS, BITS_ALLOCATED, BITS_STORED, HIGH_BIT)

_BEHIND_PIXELS = Decision(PIXEL_DATA, "PixelData", "OW", "C", "PS3.5 8.1.1")
_OVERLAY_BITS = Decision(PIXEL_DATA, "PixelData", "OW", "C", "E.1-1 (60xx,3000)")


def settle_pixels(walk: Walk, encoding: Encoding, transfer_syntax_uid: str) -> None:
    """Clear embedded overlays and drop what lies behind the last pixel, once the walk has seen everything.

    Raises:
      InvalidInstance: "overlay-in-pixels" where the overlay's bits can't be cleared: in encapsulated Pixel Data, or
        within the stored bits; "undefined-length" for native Pixel Data without a length.
    """
    if not any(tag in walk.notes for tag in (FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA, PIXEL_DATA)):
        return
    layout = _layout(walk, encoding)
    bits = _embedded_overlays(walk, encoding, layout)
    native = transfer_syntax_uid in UNCOMPRESSED_UIDS or transfer_syntax_uid in DEFLATED_UIDS
    for tag in (FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA, PIXEL_DATA):
        for element, _ in walk.notes.get(tag, ()):
            if element.undefined and native:
                raise InvalidInstance("undefined-length", tag_text(tag), element.start)
            stop = _drop_behind(walk, encoding, element, tag, layout) if native else element.stop
            if tag == PIXEL_DATA and bits:
                if not native:
                    raise InvalidInstance("overlay-in-pixels", tag_text(tag), element.start)
                big = encoding.big or transfer_syntax_uid == GE_PRIVATE_UID
                mask = _mask(bits, layout[BITS_ALLOCATED], big)
                walk.edits.append(Edit(element.value, stop, mask, None, tag, element.vr, _OVERLAY_BITS))


def _layout(walk: Walk, encoding: Encoding) -> dict[int, int]:
    """What is said of how the pixels are laid out; nothing at all where any of it can't be read or is contradicted."""
    layout: dict[int, int] = {}
    for tag in LAYOUT:
        for _, raw in walk.notes.get(tag, ()):
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
    bits = set()
    for tag, noted in walk.notes.items():
        if tag & 0xFF01FFFF == OVERLAY_BIT_POSITION:
            apart = any(element.stop > element.value for element, _ in walk.notes.get(tag & 0xFFFF0000 | 0x3000, ()))
            for element, raw in noted:
                bit = int.from_bytes(raw, "big" if encoding.big else "little")
                if bit and not (_stored(bit, layout) and apart):
                    bits.add(_unused(bit, layout, element))
    return frozenset(bits)


def _stored(bit: int, layout: dict[int, int]) -> bool:
    stored = layout.get(BITS_STORED, layout.get(BITS_ALLOCATED, 16))
    high = layout.get(HIGH_BIT, stored - 1)
    return high - stored < bit <= high


def _unused(bit: int, layout: dict[int, int], element: Element) -> int:
    """The bit, if it can be cleared without touching a pixel."""
    if _stored(bit, layout) or layout.get(BITS_ALLOCATED) not in (8, 16, 32) or bit >= layout[BITS_ALLOCATED]:
        raise InvalidInstance("overlay-in-pixels", "", element.start)
    return bit


def _mask(bits: frozenset[int], allocated: int, big: bool) -> Mask:
    word = (1 << allocated) - 1
    for bit in bits:
        word &= ~(1 << bit)
    return Mask(word.to_bytes(allocated // 8, "big" if big else "little"))


def _drop_behind(walk: Walk, encoding: Encoding, element: Element, tag: int, layout: dict[int, int]) -> int:
    """Drop the bytes behind the last pixel, if it is known where that is; where the pixels stop."""
    allocated = {FLOAT_PIXEL_DATA: 32, DOUBLE_FLOAT_PIXEL_DATA: 64}.get(tag, layout.get(BITS_ALLOCATED))
    if not allocated or not layout.get(ROWS) or not layout.get(COLUMNS):
        return element.stop
    pixels = layout[ROWS] * layout[COLUMNS] * layout.get(SAMPLES, 1) * layout.get(FRAMES, 1)
    length = (pixels * allocated + 7) // 8
    stop = element.value + length + (length & 1)
    if not length or stop >= element.stop:
        return element.stop
    header = encoding.header(tag, element.vr.decode() or "OW", stop - element.value)
    walk.edits.append(Edit(element.start, element.value, header))
    walk.edits.append(Edit(stop, element.stop, b"", None, tag, element.vr, _BEHIND_PIXELS))
    return stop
