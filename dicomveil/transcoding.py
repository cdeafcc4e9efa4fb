"""One element in another of the three encodings: its VR written or left out, its numbers' bytes in the other order.

Values stay what they are; nothing here reads or changes a meaning, compresses pixels or knows a file.
"""

from typing import Final

from dicomveil import standard
from dicomveil.errors import InvalidInstance
from dicomveil.stream import ITEM, MAX_DEPTH, Encoding, Window, items, skip, tag_text

_WORDS: Final = {
    "AT": 2, "OW": 2, "SS": 2, "US": 2, "FL": 4, "OF": 4, "OL": 4, "SL": 4, "UL": 4, "FD": 8, "OD": 8, "OV": 8, "SV": 8,
    "UV": 8,
}  # fmt: skip
"""Bytes of a number, by VR; swapped in big endian (PS3.5 7.3). AT is two numbers."""

Place = tuple[int, bytes, int, int, int]
"""(tag, VR, start, value, stop) of an element, as `Encoding.elements` tells it; `stop` known."""


def transcoded(
    window: Window,
    place: Place,
    source: Encoding,
    target: Encoding,
    limit: int,
    prefix: bytes = b"",
    depth: int = 0,
) -> bytes:
    """An element as the target encodes it, sequences with all that is in them, padded to an even length.

    Where the source leaves VRs out, PS3.6 gives them; what it doesn't list is UN, as PS3.5 6.2.2 has it.

    Args:
      limit: bytes that it may have at the most.
      prefix: an encoded element to put at the head of each of its Items that doesn't begin with that tag, if it is a
        sequence.

    Raises:
      InvalidInstance: "envelope-size" past the limit, or what is wrong with the encoding.
    """
    tag, encoded_vr, start, value, stop = place
    if stop - start > limit:
        raise InvalidInstance("envelope-size", tag_text(tag), start)
    vr = resolved_vr(tag, encoded_vr)
    if vr != "SQ":
        if is_undefined(window, place):
            return target.header(tag, vr, -1) + window.slice(value, stop)  # Items inside UN: the same in all encodings
        return target.element(tag, vr, _ordered(window.slice(value, stop), vr, source.big != target.big))
    if depth >= MAX_DEPTH:
        raise InvalidInstance("nesting", tag_text(tag), start)
    delimited = is_undefined(window, place)
    content = []
    for number, (_, inside, behind) in enumerate(items(window, value, -1 if delimited else stop, stop, source, tag)):
        try:
            item = _item(window, inside, behind, stop, source, target, limit, depth)
        except InvalidInstance as bad:
            raise bad.inside(tag_text(tag), number) from None
        if item[:4] != prefix[:4]:
            item = prefix + item
        content.append(target.item.pack(ITEM >> 16, ITEM & 0xFFFF, len(item)) + item)
    return target.element(tag, "SQ", b"".join(content))


def _item(
    window: Window, inside: int, behind: int, end: int, source: Encoding, target: Encoding, limit: int, depth: int
) -> bytes:
    content = []
    for tag, vr, start, value, stop in source.elements(window, inside, behind if behind >= 0 else end, behind < 0):
        if not tag & 0xFFFF:
            if stop < 0:
                raise InvalidInstance("undefined-length", tag_text(tag), start)
            continue  # a group length, which would no longer be true
        if stop < 0:
            stop = skip(window, value, end, source, vr, tag)
        content.append(transcoded(window, (tag, vr, start, value, stop), source, target, limit, b"", depth + 1))
        window.after = stop
    return b"".join(content)


def is_undefined(window: Window, place: Place) -> bool:
    """Whether an element's length is written as undefined, so that its value ends with a delimiter."""
    return window.slice(place[3] - 4, place[3]) == b"\xff\xff\xff\xff"  # no VR, nor a length beside one, is this


def resolved_vr(tag: int, encoded: bytes) -> str:
    """An element's VR: as encoded, or as PS3.6 gives it where the encoding leaves it out."""
    return encoded.decode("latin-1") or _listed_vr(tag)


def _listed_vr(tag: int) -> str:
    element = standard.dictionary().get(tag)
    if element is None:
        return "UN"
    return "OW" if "OW" in element.vr else element.vr.split(" ")[0]  # implicit little endian has words, PS3.5 A.1


def _ordered(value: bytes, vr: str, swap: bool) -> bytes:
    size = _WORDS.get(vr, 0) if swap else 0
    if not size:
        return value
    return b"".join(value[at : at + size][::-1] for at in range(0, len(value), size))
