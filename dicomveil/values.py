"""Values that a request writes: read from JSON or YAML, legal for their VR (PS3.5 6.2), then encoded.

Where a value is written, and what it takes the place of, is decided elsewhere.
"""

import base64
import binascii
import datetime
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dicomveil import charset
from dicomveil.stream import EXPLICIT_LITTLE, Encoding, tag_text

SPECIFIC_CHARACTER_SET: Final = 0x00080005
ENCAPSULATED_DOCUMENT: Final = 0x00420011
_ITEM: Final = (0xFFFE, 0xE000)
_DEEPEST: Final = 64  # sequences in sequences: a YAML alias may hold itself


class Named(NamedTuple):
    """An attribute that a member of an Item names.

    Attributes:
      vm: as in PS3.6: "1", "1-n", "2-2n"; "" for any.
    """

    tag: int
    vr: str
    vm: str


class Member(NamedTuple):
    """An element of an Item to be written."""

    tag: int
    value: "Value"


Item = tuple[Member, ...]


@dataclass(frozen=True)
class Value:
    """A value to be written, not yet in a data set's encoding; its repr doesn't show it.

    Attributes:
      text: of a VR made of characters, several values with their backslashes; else None.
      raw: of any other VR but SQ: as `stream.ENCODINGS` encode it, in their order; else None.
      items: of a sequence, their members in tag order; else None.
      mime_type: of a document (EncapsulatedDocument) that `raw` holds; "" for anything else.
    """

    vr: str
    text: str | None = field(default=None, repr=False)
    raw: tuple[bytes, bytes, bytes] | None = field(default=None, repr=False)
    items: tuple[Item, ...] | None = field(default=None, repr=False)
    mime_type: str = ""

    @property
    def plain(self) -> bool:
        """Whether it is encoded alike under every Specific Character Set."""
        if self.items is not None:
            return all(_character_set(item) or all(member.value.plain for member in item) for item in self.items)
        return self.text is None or self.text.isascii()


class ValueProblem(ValueError):
    """A value that can't be written.

    Attributes:
      what: what is wrong with it, "is ..." or "has ..."; behind the member's place where it is inside an Item.
      remedy: what to write instead. Neither holds the value.
    """

    def __init__(self, what: str, remedy: str, where: str = "") -> None:
        self.what, self.remedy = f"{where} {what}" if where else what, remedy
        self._what, self._where = what, where
        super().__init__(f"{self.what} ({remedy})")

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self._what, self.remedy, self._where)

    def inside(self, item: int, tag: int = 0) -> "ValueProblem":
        """The same, of a member of an Item, or of the Item where no tag is known."""
        step = f"[{item}]" + (f".{tag_text(tag)}" if tag else "")
        return ValueProblem(self._what, self.remedy, step + self._where)


Resolve = Callable[[str], Named]


def parse_value(vr: str, vm: str, given: object, resolve: Resolve) -> Value:
    r"""The value that a request gives, checked whole.

    Args:
      vr: one VR.
      vm: as in PS3.6: "1", "1-n", "2-2n"; "" for any.
      given: what JSON or YAML parsed. None or "" for an empty value; text, several values parted by a backslash;
        a number for VRs that hold numbers; `data:application/octet-stream;base64,...` for the bytes of any VR but
        SQ, numbers in little endian, text in UTF-8; another data URI for a document in OB; for SQ a list of mappings
        from attributes to values.
      resolve: tells what attribute a name means; asked for members of Items and for values of AT.

    Raises:
      ValueProblem: it is no such value, or `resolve` raised it.

    Source: PS3.5 6.2, 6.4.
    """
    return _parse(vr, vm, given, resolve, 0)


def _parse(vr: str, vm: str, given: object, resolve: Resolve, depth: int) -> Value:
    if vr == "SQ":
        return Value("SQ", items=_items(given, resolve, depth))
    if vr not in _FORMS and vr not in _SIZES:
        raise ValueProblem("has no VR that a value could be written in", "name an attribute of one known VR")
    given = "" if given is None else _number_text(vr, given)
    if not isinstance(given, str):
        raise ValueProblem(*_WRONG_TYPES.get(type(given), ("is no text", "quote it")))
    mime_type, data = _data_uri(vr, given)
    if vr in _FORMS:
        return Value(vr, text=_text(vr, vm, given if data is None else _utf8(data)))
    little = data if data is not None else _packed(vr, vm, given, resolve)
    size = _SIZES[vr]
    width = _WIDTHS.get(vr, size)
    if len(little) % width:
        raise ValueProblem(f"is no whole number of values of {vr}", f"give {width} bytes for each")
    if vr not in _ONE:
        _check_count(len(little) // width, vm)
    return Value(vr, raw=(little, little, _swapped(little, size)), mime_type=mime_type)


_WRONG_TYPES: Final = {
    bool: ("is true or false, which no VR holds", "quote it if it is text, as YAML reads yes and no as this"),
    list: ("is a list, and its VR isn't SQ", "part several values by a backslash in one text"),
    dict: ("is a mapping, and its VR isn't SQ", "write text"),
    datetime.date: ("is a date of YAML's", "quote it, as YYYYMMDD"),
    datetime.datetime: ("is a date of YAML's", "quote it, as YYYYMMDDHHMMSS"),
}


def _number_text(vr: str, given: object) -> object:
    """A number as it is written, for VRs that hold numbers."""
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        return given
    if vr not in _NUMBERS and vr not in ("DS", "IS"):
        raise ValueProblem(f"is a number, and {vr} holds none", "quote it if it is text")
    return repr(given)


# ------------------------------------------------------------------------------------------------------------- bytes

_OCTETS: Final = "application/octet-stream"
_DATA_URI: Final = re.compile(r"data:([^;,]*)(;[^,]*)?,(.*)", re.DOTALL | re.IGNORECASE)


def _is_pdf(data: bytes) -> bool:
    return data.startswith(b"%PDF-")


def _is_stl(data: bytes) -> bool:
    """Binary STL: a header of 80 bytes, the number of triangles, 50 bytes for each."""
    return len(data) >= 84 and len(data) == 84 + 50 * int.from_bytes(data[80:84], "little")


def _is_xml(data: bytes) -> bool:
    return data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<") and b"ClinicalDocument" in data


def _is_plain_text(data: bytes) -> bool:
    return b"\0" not in data and bool(data.strip())


_DOCUMENTS: Final[dict[str, Callable[[bytes], bool]]] = {
    "application/pdf": _is_pdf,
    "text/xml": _is_xml,
    "model/stl": _is_stl,
    "model/obj": _is_plain_text,
    "model/mtl": _is_plain_text,
}


def _data_uri(vr: str, given: str) -> tuple[str, bytes | None]:
    """The MIME type of a document, and the bytes of a data URI; None where the text is none.

    In text, only application/octet-stream says that bytes are meant.
    """
    found = _DATA_URI.fullmatch(given)
    if not found:
        return "", None
    mime_type, form, encoded_bytes = found[1].lower(), (found[2] or "").lower(), found[3]
    document = _DOCUMENTS.get(mime_type) if vr == "OB" else None
    if mime_type != _OCTETS and not document:
        if vr in _FORMS:
            return "", None
        raise ValueProblem("has a MIME type that can't be written here", f"write data:{_OCTETS};base64,...")
    if form != ";base64":
        raise ValueProblem("is a data URI that isn't in base64", f"write data:{mime_type};base64,...")
    try:
        data = base64.b64decode(re.sub(r"[ \t\r\n]", "", encoded_bytes), validate=True)
    except (binascii.Error, ValueError):
        raise ValueProblem("is no base64", "encode it anew") from None
    if document and not document(data):
        raise ValueProblem(f"is no document of {mime_type}", "give the MIME type of what it is")
    return (mime_type if document else ""), data


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueProblem("has bytes that are no text in UTF-8", "encode the text in UTF-8, then in base64") from None


def _swapped(little: bytes, size: int) -> bytes:
    """Numbers of `size` bytes in the other byte order."""
    if size == 1:
        return little
    return b"".join(little[at : at + size][::-1] for at in range(0, len(little), size))


# ----------------------------------------------------------------------------------------------------------- numbers

_NUMBERS: Final = {
    "US": "H",
    "SS": "h",
    "UL": "I",
    "SL": "i",
    "UV": "Q",
    "SV": "q",
    "FL": "f",
    "FD": "d",
    "OF": "f",
    "OD": "d",
    "OL": "I",
    "OV": "Q",
}
_ONE: Final = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "UN"])  # one value whatever its length (PS3.5 6.4)
# The numbers that a value is made of, in bytes.
_SIZES: Final = {vr: struct.calcsize("<" + code) for vr, code in _NUMBERS.items()} | {
    "AT": 2,
    "OB": 1,
    "OW": 2,
    "UN": 1,
}
_WIDTHS: Final = {"AT": 4}  # of a value made of several numbers
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,20}")
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_TAG: Final = re.compile(r"\(?([0-9A-Fa-f]{4})[,-]?([0-9A-Fa-f]{4})\)?")


def _packed(vr: str, vm: str, given: str, resolve: Resolve) -> bytes:
    """Numbers or tags, parted by backslashes, in little endian."""
    if not given:
        return b""
    if vr == "AT":
        return b"".join(_tag(value.strip(" "), resolve) for value in given.split("\\"))
    if vr not in _NUMBERS:
        raise ValueProblem(f"is text, and {vr} holds bytes", f"write data:{_OCTETS};base64,...")
    return b"".join(_number(vr, value.strip(" ")) for value in given.split("\\"))


def _number(vr: str, value: str) -> bytes:
    code, remedy = _NUMBERS[vr], "write numbers, several parted by backslashes"
    form = _DECIMAL if code in "fd" else _INTEGER
    if not form.fullmatch(value):
        raise ValueProblem(f"is no number of {vr}", remedy)
    try:
        number = float(value) if code in "fd" else int(value)
        if math.isfinite(number):
            return struct.pack("<" + code, number)
    except (struct.error, OverflowError):
        pass
    raise ValueProblem(f"is beyond the numbers of {vr}", remedy)


def _tag(value: str, resolve: Resolve) -> bytes:
    found = _TAG.fullmatch(value)
    tag = int(found[1] + found[2], 16) if found else resolve(value).tag
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF)


# ------------------------------------------------------------------------------------------------------------- text


def _is_real_date(value: str) -> bool:
    """Whether the first eight digits are a day of the calendar, or fewer say none."""
    if len(value) < 8:
        return value[:4] != "0000"
    try:
        datetime.date(int(value[:4]), int(value[4:6]), int(value[6:8]))
    except ValueError:
        return False
    return True


def _is_real_date_time(value: str) -> bool:
    date, sign, offset = value.strip(" ").partition("-" if "-" in value else "+")
    hours_east = int(sign + offset[:2]) + int(sign + offset[2:]) / 60 if offset else 0
    return _is_real_date(date[:8]) and -12 <= hours_east <= 14


def _is_name(value: str) -> bool:
    """PN: up to three component groups of up to five components, each group of up to 64 characters (PS3.5 6.2.1)."""
    groups = value.split("=")
    return len(groups) <= 3 and all(len(group) <= 64 and group.count("^") <= 4 for group in groups)


def _is_32_bit(value: str) -> bool:
    return -(2**31) <= int(value) < 2**31


def _is_uid(value: str) -> bool:
    """Whether the first arcs are ones that there are (ISO/IEC 8824)."""
    first, second = value.split(".")[:2]
    return first == "2" or (first in "01" and int(second) < 40)


def _is_not_blank(value: str) -> bool:
    return bool(value.strip(" "))


class _Form(NamedTuple):
    """What one value of a VR may be.

    Attributes:
      longest: in characters; 0 where the VR sets no limit, or one that `check` knows.
      pattern: what a value that isn't empty looks like.
      remedy: what to write.
      check: what a pattern can't say.
    """

    longest: int
    pattern: re.Pattern[str]
    remedy: str
    check: Callable[[str], bool] = bool


def _form(longest: int, pattern: str, remedy: str, check: Callable[[str], bool] = bool) -> _Form:
    return _Form(longest, re.compile(pattern, re.DOTALL), remedy, check)


_TIME: Final = r"(?:[01][0-9]|2[0-3])(?:[0-5][0-9](?:(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?"
_MONTH: Final = r"(?:0[1-9]|1[0-2])"
_SHORT_TEXT: Final = r"[^\x00-\x1f\x7f-\x9f]*"
_LONG_TEXT: Final = r"[^\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]*"
_NO_CONTROLS: Final = "leave control characters out"
_ONLY_BREAKS: Final = "leave control characters out but TAB, LF, FF and CR"
_FREE: Final = (_NO_CONTROLS, _ONLY_BREAKS)
"""What is told of VRs whose values have no form, only a length."""
_FORMS: Final = {
    "AE": _form(16, r"[\x20-\x7e]*", "write up to 16 ASCII characters, not only blanks", _is_not_blank),
    "AS": _form(4, r"[0-9]{3}[DWMY]", "write nnnD, nnnW, nnnM or nnnY"),
    "CS": _form(16, r"[A-Z0-9_ ]*", "write up to 16 upper-case letters, digits, blanks and underscores"),
    "DA": _form(8, r"[0-9]{8}", "write YYYYMMDD, a day of the calendar", _is_real_date),
    "DS": _form(16, rf" *{_DECIMAL.pattern} *", "write a decimal number of up to 16 characters"),
    "DT": _form(
        26,
        rf"[0-9]{{4}}(?:{_MONTH}(?:[0-9]{{2}}(?:{_TIME})?)?)?(?:[+-][0-9]{{2}}[0-5][0-9])? *",
        "write YYYYMMDDHHMMSS.FFFFFF&ZZXX, from the right as short as you like",
        _is_real_date_time,
    ),
    "IS": _form(12, r" *[+-]?[0-9]+ *", "write a whole number of 32 bits with sign", _is_32_bit),
    "LO": _form(64, _SHORT_TEXT, _NO_CONTROLS),
    "LT": _form(10240, _LONG_TEXT, _ONLY_BREAKS),
    "PN": _form(0, _SHORT_TEXT, "write up to 3 groups of 64 characters parted by =, each of up to 5 by ^", _is_name),
    "SH": _form(16, _SHORT_TEXT, _NO_CONTROLS),
    "ST": _form(1024, _LONG_TEXT, _ONLY_BREAKS),
    "TM": _form(14, rf"{_TIME} *", "write HHMMSS.FFFFFF, from the right as short as you like"),
    "UC": _form(0, _SHORT_TEXT, _NO_CONTROLS),
    "UI": _form(
        64,
        r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+",
        "write up to 64 digits and dots, no component with a leading zero",
        _is_uid,
    ),
    "UR": _form(0, r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+ *", "write a URI, other characters as %XX"),
    "UT": _form(0, _LONG_TEXT, _ONLY_BREAKS),
}


def _text(vr: str, vm: str, text: str) -> str:
    """The text, if it is what its VR allows."""
    if not text:
        return text
    values = [text] if vr in charset.ONE_VALUE_VRS else text.split("\\")
    form = _FORMS[vr]
    for value in filter(None, values):
        if form.longest and len(value) > form.longest:
            shorter = f"write up to {form.longest} characters"
            raise ValueProblem(f"is longer than {vr} allows", shorter if form.remedy in _FREE else form.remedy)
        if not (form.pattern.fullmatch(value) and form.check(value)):
            raise ValueProblem(f"is no {vr}", form.remedy)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueProblem("has half of a surrogate pair, which is no character", "write the character itself")
    _check_count(len(values), vm)
    return text


_MULTIPLICITY: Final = re.compile(r"([0-9]+)(?:-([0-9]*)(n?))?")


def _check_count(count: int, vm: str) -> None:
    """Whether a VM allows so many values; none are always allowed, as the Type isn't known here (PS3.5 6.4, 7.4)."""
    if not count or not vm:
        return
    found = _MULTIPLICITY.fullmatch(vm)
    if not found:
        raise ValueError("no Value Multiplicity")
    least = int(found[1])
    step = int(found[2] or 1) if found[3] else 1
    most = count if found[3] else int(found[2] or least)
    if not least <= count <= most or (count - least) % step:
        raise ValueProblem(f"has another number of values than its VM of {vm}", "part values by single backslashes")


# --------------------------------------------------------------------------------------------------------- sequences


def _items(given: object, resolve: Resolve, depth: int) -> tuple[Item, ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        raise ValueProblem("is no list, and its VR is SQ", "write a list of Items, [] for an empty sequence")
    if depth >= _DEEPEST:
        raise ValueProblem(f"has more than {_DEEPEST} sequences in one another", "write fewer")
    return tuple(_item(number, item, resolve, depth + 1) for number, item in enumerate(given))


def _item(number: int, given: object, resolve: Resolve, depth: int) -> Item:
    if not isinstance(given, dict):
        raise ValueProblem("is no Item", "write a mapping from attributes to values").inside(number)
    members: dict[int, Member] = {}
    for name, inner in given.items():
        tag = 0
        try:
            if not isinstance(name, str):
                raise ValueProblem("has a name that is no text", "quote it")
            named = resolve(name)
            tag = named.tag
            if _out_of_place(tag):
                raise ValueProblem("can't stand in a new Item", "write standard attributes there")
            if tag in members:
                raise ValueProblem("is given twice", "give it once")
            value = _parse(named.vr, named.vm, inner, resolve, depth)
            if value.mime_type and tag != ENCAPSULATED_DOCUMENT:
                raise ValueProblem("is no place for a document", f"write data:{_OCTETS};base64,...")
        except ValueProblem as bad:
            raise bad.inside(number, tag) from None
        members[tag] = Member(tag, value)
    item = tuple(members[tag] for tag in sorted(members))
    if _character_set(item):
        _check_character_set(number, item)
    return item


def _out_of_place(tag: int) -> bool:
    """A private element, which would need its creator, and what is none of a data set's attributes."""
    group = tag >> 16
    return bool(group & 1) or group in (0x0000, 0x0002, 0x0004, 0xFFFE) or not tag & 0xFFFF


def _character_set(item: Item) -> str:
    """The Specific Character Set that an Item brings with it; "" where it follows what is around it."""
    return next((member.value.text or "" for member in item if member.tag == SPECIFIC_CHARACTER_SET), "")


def _check_character_set(number: int, item: Item) -> None:
    """Text of an Item with a character set of its own is the same wherever it stands: so it is tried now."""
    try:
        _encoded_item(item, EXPLICIT_LITTLE, "")
    except charset.Unencodable:
        problem = ValueProblem("has text that its Specific Character Set can't express", "write ISO_IR 192")
        raise problem.inside(number) from None


# ---------------------------------------------------------------------------------------------------------- encoding


def encoded(value: Value, encoding: Encoding, specific_character_set: str) -> bytes:
    """A value as it stands in an element, not padded.

    Args:
      specific_character_set: what holds where the element stands, as decoded text; "" for the default repertoire.

    Raises:
      charset.Unencodable: the text has a character that the character set doesn't.
    """
    if value.raw is not None:
        return value.raw[encoding.index]
    if value.items is not None:
        return b"".join(_encoded_item(item, encoding, specific_character_set) for item in value.items)
    governing = specific_character_set if value.vr in charset.VRS else ""
    return charset.encode(value.text or "", governing, value.vr == "PN")


def _encoded_item(item: Item, encoding: Encoding, specific_character_set: str) -> bytes:
    governing = _character_set(item) or specific_character_set
    content = b"".join(
        encoding.element(member.tag, member.value.vr, encoded(member.value, encoding, governing)) for member in item
    )
    return encoding.item.pack(*_ITEM, len(content)) + content
