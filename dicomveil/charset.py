"""Text as a data set encodes it (PS3.5 6.1, PS3.3 C.12.1.1.2), where it must be read or written.

What a VR makes of the text, and how long it may be, is said in `values`.
"""

import re
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.valuerep import TEXT_VR_DELIMS

# Those that Specific Character Set governs (PS3.5 6.1.2.3).
VRS: Final = frozenset(["LO", "LT", "PN", "SH", "ST", "UC", "UT"])
# Those where a backslash is a character like any other (PS3.5 6.2).
ONE_VALUE_VRS: Final = frozenset(["LT", "ST", "UR", "UT"])


class Undecodable(ValueError):
    """Bytes that are no text under their Specific Character Set, or one that the Standard doesn't have."""


class Unencodable(ValueError):
    """A character that a Specific Character Set can't express, or one that the Standard doesn't have."""


# --------------------------------------------------------------------------------------------------- character sets


class _Repertoire(NamedTuple):
    """A character set in one half of the code table (PS3.3 Tables C.12-3 and C.12-4).

    Attributes:
      escape: the bytes that designate it.
      upper: whether it stands in G1, at A0H and above; else in G0, below 7FH.
      codec: Python's encoding that holds it, in the upper half unless it is ASCII.
      size: bytes of a character.
      prefix: what Python's encoding wants before each.
    """

    escape: bytes
    upper: bool
    codec: str
    size: int = 1
    prefix: bytes = b""

    def decode(self, run: bytes) -> str:
        """The characters of a run of bytes from one half of the code table.

        They are read one by one: Python's encodings join some of them, and know others than the set has.

        Raises:
          UnicodeDecodeError: it isn't made of this set's characters.
        """
        if self.size == 2 and not self.upper:
            run = bytes(byte | 0x80 for byte in run)
        if self.codec == "ascii":
            return run.decode("ascii")
        size, prefix, codec = self.size, self.prefix, self.codec
        return "".join([(prefix + run[at : at + size]).decode(codec) for at in range(0, len(run), size)])

    def encode(self, character: str) -> bytes:
        """The bytes of one character, empty where the set doesn't have it."""
        try:
            raw = character.encode(self.codec)
        except UnicodeEncodeError:
            return b""
        if not raw.startswith(self.prefix):
            return b""
        raw = raw[len(self.prefix) :]
        if len(raw) != self.size or min(raw) < (0x20 if self.codec == "ascii" else 0xA0):
            return b""
        return raw if self.upper or self.size == 1 else bytes(byte & 0x7F for byte in raw)


_ASCII: Final = _Repertoire(b"\x1b(B", False, "ascii")
_ROMAJI: Final = _Repertoire(b"\x1b(J", False, "ascii")  # the yen sign at 5CH is the Standard's backslash
_SINGLE: Final = {
    "13": _Repertoire(b"\x1b)I", True, "shift_jis"),
    "100": _Repertoire(b"\x1b-A", True, "iso8859_1"),
    "101": _Repertoire(b"\x1b-B", True, "iso8859_2"),
    "109": _Repertoire(b"\x1b-C", True, "iso8859_3"),
    "110": _Repertoire(b"\x1b-D", True, "iso8859_4"),
    "126": _Repertoire(b"\x1b-F", True, "iso8859_7"),
    "127": _Repertoire(b"\x1b-G", True, "iso8859_6"),
    "138": _Repertoire(b"\x1b-H", True, "iso8859_8"),
    "144": _Repertoire(b"\x1b-L", True, "iso8859_5"),
    "148": _Repertoire(b"\x1b-M", True, "iso8859_9"),
    "166": _Repertoire(b"\x1b-T", True, "tis_620"),
    "203": _Repertoire(b"\x1b-b", True, "iso8859_15"),
}
_DOUBLE: Final = {
    "58": _Repertoire(b"\x1b$)A", True, "gb2312", 2),
    "87": _Repertoire(b"\x1b$B", False, "euc_jp", 2),
    "149": _Repertoire(b"\x1b$)C", True, "euc_kr", 2),
    "159": _Repertoire(b"\x1b$(D", False, "euc_jp", 2, b"\x8f"),
}
_ALONE: Final = {"ISO_IR 192": "utf_8", "GB18030": "gb18030", "GBK": "gbk"}

_TERM: Final = re.compile(r"(ISO_IR|ISO 2022 IR) ([0-9]+)")
_RUNS: Final = re.compile(rb"\x1b(?:\$[()]?|[()-])?[@-~]?|[\x80-\xff]+|[\x21-\x7e]+|[\0-\x1a\x1c-\x20\x7f]+")


class _Scheme(NamedTuple):
    """What a Specific Character Set comes to.

    Attributes:
      codec: Python's encoding of whole values; "" where they are made of the following.
      g0, g1: what holds at the beginning of a value.
      sets: what escape sequences may designate.
    """

    codec: str
    g0: _Repertoire = _ASCII
    g1: _Repertoire | None = None
    sets: tuple[_Repertoire, ...] = ()


@lru_cache(256)
def _scheme(specific_character_set: str) -> _Scheme | None:
    """None where the Standard doesn't have a term, or doesn't have it among others."""
    terms = [term.strip(" \0") for term in specific_character_set.split("\\")]
    if len(terms) == 1 and terms[0] in _ALONE:
        return _Scheme(_ALONE[terms[0]])
    extended = len(terms) > 1 or terms[0].startswith("ISO 2022")
    initial: list[tuple[_Repertoire, _Repertoire | None]] = []
    sets: list[_Repertoire] = [_ASCII]
    for position, term in enumerate(terms):
        found = _TERM.fullmatch(term or ("ISO_IR 6" if not position else ""))
        if not found:
            return None
        form, number = found.groups()
        g0, single = _ROMAJI if number == "13" else _ASCII, _SINGLE.get(number)
        double = _DOUBLE.get(number) if form == "ISO 2022 IR" else None
        if number != "6" and not single and not double:
            return None
        initial.append((g0, single))
        sets += [one for one in (g0, single, double) if one]
    g0, g1 = initial[0]
    return _Scheme("", g0, g1, tuple(sets) if extended else ())


def _delimiters(vr: str) -> bytes:
    """What ends the reach of an escape sequence, besides control characters (PS3.5 6.1.2.5.3)."""
    return b"" if vr in ONE_VALUE_VRS else b"\\^=" if vr == "PN" else b"\\"


# ---------------------------------------------------------------------------------------------------------- reading


def decode(raw: bytes, specific_character_set: str) -> str:
    """The text of one value, or of several with their backslashes.

    Args:
      specific_character_set: (0008,0005) as decoded text, "" for the default repertoire.

    Returns:
      The text; bytes that the character set doesn't know are read as ISO 8859-1, so that different bytes stay
      different text.
    """
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            encodings = convert_encodings([term.strip() for term in specific_character_set.split("\\")])
            return str(decode_bytes(raw, encodings, TEXT_VR_DELIMS))
    except (UserWarning, ValueError, LookupError):
        return raw.decode("latin-1")


def decode_strict(raw: bytes, specific_character_set: str, vr: str) -> str:
    """The text of an element, its backslashes included, where every byte must mean something.

    pydicom isn't asked: how it treats a byte that it doesn't know hangs on settings of the whole process, it keeps
    the escape sequences of ISO 2022 IR 58 as text, and it doesn't know ISO_IR 203.

    Args:
      specific_character_set: (0008,0005) as decoded text, "" for the default repertoire.
      vr: the element's, which says whether the character set applies, and what ends an escape sequence's reach.

    Raises:
      Undecodable: a byte or an escape sequence that the character set doesn't have; an unknown character set. What
        was found isn't told.
    """
    scheme = _scheme(specific_character_set) if vr in VRS else _Scheme("")
    if not scheme:
        raise Undecodable("a Specific Character Set that the Standard doesn't have")
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    try:
        if not scheme.codec:
            return "".join(_read(raw, scheme, _delimiters(vr)))
        if b"\x1b" not in raw:
            return raw.decode(scheme.codec)
    except UnicodeDecodeError:
        pass
    raise Undecodable("bytes that the Specific Character Set doesn't have")


def _read(raw: bytes, scheme: _Scheme, delimiters: bytes) -> Iterator[str]:
    """The text of each run of bytes from one half of the code table (ISO/IEC 2022, PS3.5 6.1.2.5)."""
    g0, g1 = scheme.g0, scheme.g1
    for run in _RUNS.findall(raw):
        if run[0] == 0x1B:
            designated = next((one for one in scheme.sets if one.escape == run), None)
            if not designated:
                raise Undecodable("an escape sequence that the Specific Character Set doesn't have")
            g0, g1 = (g0, designated) if designated.upper else (designated, g1)
        elif run[0] >= 0x80:
            if not g1 or min(run) < 0xA0:
                raise Undecodable("bytes that the Specific Character Set doesn't have")
            yield g1.decode(run)
        elif 0x21 <= run[0] <= 0x7E:
            yield g0.decode(run)
            if g0.size == 1 and any(byte in delimiters for byte in run):
                g0, g1 = scheme.g0, scheme.g1
        else:
            yield run.decode("ascii")
            if run.strip(b" "):
                g0, g1 = scheme.g0, scheme.g1


def split_values(raw: bytes, specific_character_set: str, vr: str = "LO") -> list[str]:
    """The values of an element, parted where a backslash is a character and not a byte of another.

    Returns:
      As many as there are, blanks kept; one where the VR has no more; none of an empty element.

    Raises:
      Undecodable: as from `decode_strict`.
    """
    text = decode_strict(raw, specific_character_set, vr)
    if not text:
        return []
    return [text] if vr in ONE_VALUE_VRS else text.split("\\")


# ---------------------------------------------------------------------------------------------------------- writing


def encode(text: str, specific_character_set: str, pn: bool = False) -> bytes:
    """The bytes of a text, one value or several with their backslashes, not padded.

    Args:
      specific_character_set: (0008,0005) as decoded text, "" for the default repertoire.
      pn: whether the text is of VR PN, where "^" and "=" end the reach of an escape sequence too.

    Raises:
      Unencodable: a character that the character set doesn't have; an unknown character set. The text isn't told.
    """
    scheme = _scheme(specific_character_set)
    if not scheme:
        raise Unencodable("a Specific Character Set that the Standard doesn't have")
    if text.isascii() and "\x1b" not in text:
        return text.encode("ascii")
    vr = "PN" if pn else "LO"
    try:
        raw = text.encode(scheme.codec) if scheme.codec else b"".join(_write(text, scheme, _delimiters(vr).decode()))
        same = decode_strict(raw, specific_character_set, vr) == text
    except (UnicodeEncodeError, Undecodable):
        same = False
    if not same:
        raise Unencodable("a character that the Specific Character Set doesn't have")
    return raw


def _write(text: str, scheme: _Scheme, delimiters: str) -> Iterator[bytes]:
    """The bytes of each character, and before them what designates its set.

    What holds at the beginning of a value is designated again before each delimiter and at the end, and a set is
    designated again after any other: many a reader takes every escape sequence to switch the whole table but ASCII.
    """
    initial = scheme.g0, scheme.g1
    (g0, g1), last = initial, None
    for character in text:
        if character < " " or character in delimiters:
            yield _switch(scheme, g0, g1)
            yield character.encode("ascii")
            (g0, g1), last = initial, None
            continue
        known = ((one, one.encode(character)) for one in (g0, g1, *initial, *scheme.sets) if one)
        found, raw = next((pair for pair in known if pair[1]), (None, b""))
        if not found:
            raise Undecodable
        if found not in (g0, g1) or (found.codec != "ascii" and last not in (None, found)):
            yield found.escape
            g0, g1, last = (g0, found, found) if found.upper else (found, g1, found)
        yield raw
    yield _switch(scheme, g0, g1)


def _switch(scheme: _Scheme, g0: _Repertoire, g1: _Repertoire | None) -> bytes:
    """Back to what holds at the beginning of a value."""
    back = scheme.g0.escape if g0 != scheme.g0 else b""
    return back + (scheme.g1.escape if scheme.g1 and g1 != scheme.g1 else b"")
