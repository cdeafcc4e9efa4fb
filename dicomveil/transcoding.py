"""One element in another of the three encodings: its VR written or left out, its numbers' bytes in the other order.

Values stay what they are; nothing here reads or changes a meaning, compresses pixels or knows a file.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from pydicom.datadict import dictionary_VR, repeater_has_tag

from dicomveil import standard
from dicomveil.errors import InvalidInstance
from dicomveil.stream import (
    IMPLICIT_LITTLE,
    ITEM,
    MAX_DEPTH,
    PIXEL_DATA,
    Encoding,
    Window,
    holds_items,
    inner,
    items,
    skip,
    tag_text,
)

_WORDS: Final = {
    "AT": 2, "OW": 2, "SS": 2, "US": 2, "FL": 4, "OF": 4, "OL": 4, "SL": 4, "UL": 4, "FD": 8, "OD": 8, "OV": 8, "SV": 8,
    "UV": 8,
}  # fmt: skip
"""Bytes of a number, by VR; swapped in big endian (PS3.5 7.3). AT is two numbers."""
PIXEL_REPRESENTATION: Final = 0x00280103
LONGEST_NOTED: Final = 64

Place = tuple[int, bytes, int, int, int]
"""(tag, VR, start, value, stop) of an element, as `Encoding.elements` tells it; `stop` known."""

Decode = Callable[[Window, Place, dict[int, bytes]], dict[int, bytes]]
"""What becomes of encapsulated Pixel Data in an Item: from where it stands and the Item's short values before it, by
tag and as encoded, to encoded elements by tag, which take the place of the Item's or are added."""


class Terms(NamedTuple):
    """What else holds for an element that is encoded anew.

    Attributes:
      signed: what Pixel Representation says around it: what is US or SS by it becomes SS where a VR must be given.
      decode: what becomes of encapsulated Pixel Data inside it; None leaves it as it is.
      strict: whether a value of unknown VR may not go where numbers have the other byte order, because nobody could
        say whether its bytes should have changed theirs.
    """

    signed: bool = False
    decode: Decode | None = None
    strict: bool = False


_PLAIN: Final = Terms()


def transcoded(
    window: Window,
    place: Place,
    source: Encoding,
    target: Encoding,
    limit: int,
    prefix: bytes = b"",
    depth: int = 0,
    terms: Terms = _PLAIN,
) -> bytes:
    """An element as the target encodes it, sequences with all that is in them, padded to an even length.

    Where the source leaves VRs out, PS3.6 gives them; what it doesn't list is UN, as PS3.5 6.2.2 has it. What it lists
    and the source has as UN stays so, but where bytes change their order.

    Args:
      limit: bytes that it may have at the most.
      prefix: an encoded element to put at the head of each of its Items that doesn't begin with that tag, if it is a
        sequence.

    Raises:
      InvalidInstance: "transcode-unsupported" by the terms, "envelope-size" past the limit, or what is
        wrong with the encoding.
    """
    tag, encoded_vr, start, value, stop = place
    if stop - start > limit:
        raise InvalidInstance("envelope-size", tag_text(tag), start)
    vr = resolved_vr(tag, encoded_vr, terms.signed)
    if vr == "UN" and source.big != target.big:
        vr = known_vr(window, place, terms)
        source = IMPLICIT_LITTLE if vr == "SQ" else source
    if vr != "SQ":
        if is_undefined(window, place):
            return target.header(tag, vr, -1) + window.slice(value, stop)  # Items inside UN: the same in all encodings
        return target.element(tag, vr, ordered(window.slice(value, stop), vr, source.big != target.big))
    if depth >= MAX_DEPTH:
        raise InvalidInstance("nesting", tag_text(tag), start)
    delimited = is_undefined(window, place)
    content = []
    for number, (_, inside, behind) in enumerate(items(window, value, -1 if delimited else stop, stop, source, tag)):
        try:
            item = _item(window, inside, behind, stop, source, target, limit, depth, terms)
        except InvalidInstance as bad:
            raise bad.inside(tag_text(tag), number) from None
        if item[:4] != prefix[:4]:
            item = prefix + item
        content.append(target.item.pack(ITEM >> 16, ITEM & 0xFFFF, len(item)) + item)
    return target.element(tag, "SQ", b"".join(content))


def _item(
    window: Window,
    inside: int,
    behind: int,
    end: int,
    source: Encoding,
    target: Encoding,
    limit: int,
    depth: int,
    terms: Terms,
) -> bytes:
    content: dict[int, bytes] = {}
    noted: dict[int, bytes] = {}
    for tag, vr, start, value, stop in source.elements(window, inside, behind if behind >= 0 else end, behind < 0):
        if not tag & 0xFFFF:
            if stop < 0:
                raise InvalidInstance("undefined-length", tag_text(tag), start)
            continue  # a group length, which would no longer be true
        undefined = stop < 0
        if undefined:
            stop = skip(window, value, end, source, vr, tag)
        if terms.decode is not None and tag == PIXEL_DATA and undefined:
            content.update(terms.decode(window, (tag, vr, start, value, stop), noted))
        else:
            if terms.decode is not None and stop - value <= LONGEST_NOTED:
                noted[tag] = window.slice(value, stop)
            if tag == PIXEL_REPRESENTATION:
                terms = terms._replace(signed=any(window.slice(value, stop)))
            place = tag, vr, start, value, stop
            element = transcoded(window, place, source, target, limit, b"", depth + 1, terms)
            content[tag] = content.get(tag, b"") + element
        window.after = stop
    return b"".join(content[tag] for tag in (sorted(content) if terms.decode is not None else content))


def holds_encapsulated(window: Window, place: Place, encoding: Encoding, depth: int = 0) -> bool:
    """Whether encapsulated Pixel Data stands anywhere inside a sequence.

    Raises:
      InvalidInstance: what is wrong with the encoding.
    """
    tag, vr, start, value, end = place
    if depth >= MAX_DEPTH:
        raise InvalidInstance("nesting", tag_text(tag), start)
    inside = inner(encoding, vr)
    for _, content, stop in items(window, value, -1 if is_undefined(window, place) else end, end, inside, tag):
        behind = stop if stop >= 0 else end
        for nested, nested_vr, at, nested_value, after in inside.elements(window, content, behind, stop < 0):
            if after < 0:
                if nested == PIXEL_DATA:
                    return True
                after = window.after = skip(window, nested_value, end, inside, nested_vr, nested)
            is_sequence = resolved_vr(nested, nested_vr) == "SQ"
            if is_sequence and holds_encapsulated(
                window, (nested, nested_vr, at, nested_value, after), inside, depth + 1
            ):
                return True
            window.after = after
        if stop >= 0:
            window.after = stop
    return False


def is_undefined(window: Window, place: Place) -> bool:
    """Whether an element's length is written as undefined, so that its value ends with a delimiter."""
    return window.slice(place[3] - 4, place[3]) == b"\xff\xff\xff\xff"  # no VR, nor a length beside one, is this


def resolved_vr(tag: int, encoded: bytes, signed: bool = False) -> str:
    """An element's VR: as encoded, or as PS3.6 gives it where the encoding leaves it out."""
    return encoded.decode("latin-1") or _listed_vr(tag, signed)


def _listed_vr(tag: int, signed: bool) -> str:
    if tag & 0x10000:
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"  # a private creator, PS3.5 7.8.1
    element = standard.dictionary().get(tag)
    listed = element.vr if element else _repeating_vr(tag)
    if "OW" in listed:
        return "OW"  # implicit little endian has words, PS3.5 A.1
    return "SS" if signed and listed == "US or SS" else listed.split(" ")[0]


def known_vr(window: Window, place: Place, terms: Terms) -> str:
    """The VR of an element that is encoded as UN, where its value's byte order must be known; "UN" where it isn't.

    Raises:
      InvalidInstance: "transcode-unsupported", it isn't, and the terms are strict.
    """
    tag, _, start, value, stop = place
    vr, undefined = _listed_vr(tag, terms.signed), is_undefined(window, place)
    if holds_items(window, value, -1 if undefined else stop, stop, IMPLICIT_LITTLE):
        return "SQ"  # whatever is listed: Items inside UN are implicit little endian in all encodings
    if vr not in ("SQ", "UN") and not undefined:
        return vr
    if terms.strict and stop > value:
        raise InvalidInstance("transcode-unsupported", tag_text(tag), start)
    return "UN"


def _repeating_vr(tag: int) -> str:
    """The VR of an attribute of curves and overlays, groups 50xx and 60xx; "UN" where there is none."""
    return str(dictionary_VR(tag)) if repeater_has_tag(tag) else "UN"


def swapped(value: bytes, size: int) -> bytes:
    """Numbers of `size` bytes each in the other byte order; what is left over at the end stays."""
    if size < 2:
        return value
    turned, whole = bytearray(value), len(value) - len(value) % size
    for at in range(size):
        turned[at:whole:size] = value[size - 1 - at : whole : size]
    return bytes(turned)


def word_size(vr: str) -> int:
    """Bytes of a number of this VR, 1 where byte order doesn't touch it."""
    return _WORDS.get(vr, 1)


def ordered(value: bytes, vr: str, swap: bool) -> bytes:
    """A value with the bytes of its numbers in the other order, if asked for."""
    size = _WORDS.get(vr, 0) if swap else 0
    return swapped(value, size) if size and not len(value) % size else value
