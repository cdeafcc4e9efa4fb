"""What happens to Pixel Data and overlays, which is: nothing, but for bits that are no pixels.

Two things can hide in native Pixel Data: an overlay in bits that the pixels don't use (retired, PS3.5 8.1.2), and
bytes behind the last pixel. The first are cleared where they stand, the second are dropped. In encapsulated Pixel Data
it is the comments of the bitstream. What the pixels themselves may show is told, and never changed.
"""

from functools import lru_cache
from typing import Final

from dicomveil import bitstreams, burned_in
from dicomveil.decision import NOTHING, Decision
from dicomveil.errors import InvalidInstance
from dicomveil.part10 import DEFLATED_UIDS, GE_PRIVATE_UID, UNCOMPRESSED_UIDS, Instance
from dicomveil.stream import PIXEL_DATA, Encoding, items, tag_text
from dicomveil.walk import Edit, Mask, Walk

IMAGE_TYPE: Final = 0x00080008
BURNED_IN_ANNOTATION: Final = 0x00280301
SPECIMEN_LABEL_IN_IMAGE: Final = 0x00480010

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

OVERLAY_TYPE: Final = 0x60000040
_OF_REGIONS: Final = frozenset((0x0010, 0x0011, 0x0012, 0x0015, 0x0040, 0x0050, 0x0051, 0x0100, 0x0102, 0x1301,
                                0x1302, 0x1303, 0x3000))  # fmt: skip
"""Attributes of an overlay that hold numbers and bits."""
_TELLING: Final = (IMAGE_TYPE, BURNED_IN_ANNOTATION, SPECIMEN_LABEL_IN_IMAGE)
_OVERLAY = Decision(OVERLAY_DATA, "", "UN", "X", "E.1-1 (60xx,xxxx)", literal=NOTHING)
_COMMENT = Decision(PIXEL_DATA, "PixelData", "OB", "C", "BitstreamComments")
_BEHIND_PIXELS = Decision(PIXEL_DATA, "PixelData", "OW", "C", "PS3.5 8.1.1")
_OVERLAY_BITS = Decision(PIXEL_DATA, "PixelData", "OW", "C", "E.1-1 (60xx,3000)")


def settle_pixels(walk: Walk, instance: Instance, comments: str) -> None:
    """Clear embedded overlays, drop what lies behind the last pixel and blank comments, once the walk has seen all.

    Args:
      comments: what becomes of comments in encapsulated Pixel Data: blank, keep or quarantine.

    Raises:
      InvalidInstance: "overlay-in-pixels" where the overlay's bits can't be cleared: in encapsulated Pixel Data, or
        within the stored bits; "undefined-length" for native Pixel Data without a length; "bitstream" and
        "bitstream-comment" for what compressed pixels hold.
    """
    pixels = [note for note in walk.notes if note[0] in _PIXELS]
    if not pixels:
        return
    encoding, transfer_syntax_uid = instance.encoding, instance.transfer_syntax_uid
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
        elif undefined and comments != "keep":
            _settle_comments(walk, instance, value, comments)
        if tag == PIXEL_DATA and bits:
            if not native:
                raise InvalidInstance("overlay-in-pixels", tag_text(tag), start)
            mask = _mask(bits, layout[BITS_ALLOCATED], encoding.big or transfer_syntax_uid == GE_PRIVATE_UID)
            walk.edits.append(Edit(value, stop, mask, None, tag, vr, _OVERLAY_BITS))


def _settle_comments(walk: Walk, instance: Instance, value: int, comments: str) -> None:
    """Blank what a compressed bitstream says beside its pixels, where it stands: no length changes."""
    uid = instance.transfer_syntax_uid
    if uid not in bitstreams.EXAMINED:
        return
    window, encoding = walk.window, instance.encoding
    fragments = [(content, stop) for _, content, stop in items(window, value, -1, window.size, encoding, PIXEL_DATA)]
    for span in bitstreams.comments(instance.source.read, fragments[1:], uid):
        if comments == "quarantine":
            raise InvalidInstance("bitstream-comment", tag_text(PIXEL_DATA), span.start)
        blank = bitstreams.FILL * (span.stop - span.start)
        walk.edits.append(Edit(span.start, span.stop, blank, None, PIXEL_DATA, b"OB", _COMMENT))


def settle_overlays(walk: Walk) -> None:
    """Under Clean Graphics: keep overlays that mark regions, without their text; those that are graphics may be text.

    Source: PS3.15 2026d E.3.3; PS3.3 C.9.2 (Overlay Type R and G).
    """
    notes = [note for note in walk.notes if note[0] & 0xFF010000 == 0x60000000]
    regions = {
        tag >> 16 for tag, *_, raw in notes if tag & 0xFFFF == OVERLAY_TYPE & 0xFFFF and raw.strip(b" \0") == b"R"
    }
    gone = {edit[0] for edit in walk.edits if edit[6] is not None and edit[4] & 0xFF010000 == 0x60000000}
    for tag, vr, start, _, stop, _, _ in notes:
        if start not in gone and (tag >> 16 not in regions or tag & 0xFFFF not in _OF_REGIONS):
            walk.edits.append(Edit(start, stop, b"", None, tag, vr, _OVERLAY))


def settle_risk(walk: Walk, sop_class_uid: str, modality: str, policy: str, documents_kept: bool) -> str:
    """Why the pixels may speak, as `burned_in` has it; "" where nothing says so.

    Args:
      policy: quarantine what says so itself, quarantine-risky too, or pass.
      documents_kept: whether encapsulated documents stay.

    Raises:
      InvalidInstance: "burned-in", it is set aside by the policy.
    """
    told = {note[0]: note[6] for note in walk.notes if note[0] in _TELLING}
    risk = _risk(sop_class_uid, modality, documents_kept, *(told.get(tag, b"") for tag in _TELLING))
    if risk is None:
        return ""
    if policy != "pass" and (risk.verdict == "quarantine" or policy == "quarantine-risky"):
        raise InvalidInstance("burned-in", tag_text(BURNED_IN_ANNOTATION))
    return risk.kind


@lru_cache(1000)
def _risk(
    sop_class_uid: str, modality: str, documents_kept: bool, image_type: bytes, annotation: bytes, label: bytes
) -> burned_in.Risk | None:
    types, answer, shown = (value.decode("latin-1").strip(" \0") for value in (image_type, annotation, label))
    return burned_in.risk(sop_class_uid, types.split("\\"), answer, modality, shown, documents_kept)


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
