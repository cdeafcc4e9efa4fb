"""How a request names attributes: a keyword, a tag, a mask of tags, or a private element by its creator.

Only what is meant by one name stands here; where in a data set it is meant, `paths` says.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from pydicom._dicom_dict import RepeatersDictionary

from dicomveil import standard
from dicomveil.stream import tag_text

WHOLE: Final = 0xFFFFFFFF
_LOW: Final = 0xFFFF00FF

_KEYWORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TAG: Final = re.compile(r"([0-9A-Fa-fXx]{4})\s*[,-]?\s*([0-9A-Fa-fXx]{4})")
_PRIVATE: Final = re.compile(r"([0-9A-Fa-f]{4})\s*,\s*\[([^\]]*)\]\s*,\s*(?:xx)?([0-9A-Fa-f]{2})")
_CREATOR: Final = re.compile(r"[^\\\x00-\x1f\x7f-\x9f\ud800-\udfff]{0,64}")


class NameProblem(ValueError):
    """A name that means no attribute: `what` is wrong with it, and the `remedy`."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


@dataclass(frozen=True)
class Attribute:
    """What one name means.

    Attributes:
      tag: the tag's fixed digits, the others 0; of a private element named by its creator, group and low byte.
      mask: which bits of a tag are compared.
      creator: the Private Creator that must hold the element's block; "" where any may, or none is needed.
    """

    tag: int
    mask: int = WHOLE
    creator: str = ""

    @property
    def exact(self) -> bool:
        """Whether it names one tag, and not several or a private element whose block is open."""
        return self.mask == WHOLE

    @property
    def private(self) -> bool:
        return bool(self.tag & 0x10000) and bool(self.mask & 0x10000)

    def matches(self, tag: int, creator: str = "") -> bool:
        """Whether an element with this tag is meant, its block held by that Private Creator."""
        return tag & self.mask == self.tag and (not self.creator or (self.creator == creator and bool(tag & 0xFF00)))

    def text(self) -> str:
        """As the Standard writes it: "(0008,0018)", "(60xx,3000)", "(7053,[Creator],00)"."""
        if self.creator:
            return f"({self.tag >> 16:04X},[{self.creator}],{self.tag & 0xFF:02X})"
        digits = f"{self.tag:08X}"
        masked = "".join(digit if self.mask >> 4 * (7 - at) & 0xF else "x" for at, digit in enumerate(digits))
        return f"({masked[:4]},{masked[4:]})"


@dataclass(frozen=True)
class PrivateEntry:
    """What a request's PrivateDictionary says of an element."""

    attribute: Attribute
    vr: str
    vm: str


@cache
def _keywords() -> dict[str, int]:
    return {element.keyword: tag for tag, element in standard.dictionary().items() if element.keyword}


@cache
def _repeating() -> dict[str, str]:
    """Keywords of repeating groups, and their masks: "60xx3000"."""
    return {entry[4]: mask for mask, entry in RepeatersDictionary.items() if entry[4]}


def parse_attribute(name: str, private: Mapping[str, PrivateEntry] | None = None) -> Attribute:
    """What a name means.

    Args:
      name: a keyword of PS3.6, `gggg,eeee`, `gggg-eeee`, `ggggeeee`, with x for any digit, or `gggg,[Creator],ee`;
        each in parentheses or not, blanks around it ignored.
      private: the request's own names of private elements.

    Raises:
      NameProblem: it means nothing, several things, or what no request may touch.
    """
    inner = name.strip()
    if inner.startswith("(") and inner.endswith(")"):
        inner = inner[1:-1].strip()
    if private and inner in private:
        return private[inner].attribute
    if found := _PRIVATE.fullmatch(inner):
        return _by_creator(*found.groups())
    if found := _TAG.fullmatch(inner):
        return _checked(_masked(found[1] + found[2]))
    if not _KEYWORD.fullmatch(inner):
        raise NameProblem("is no tag", "write a keyword, gggg,eeee with four hexadecimal digits each, or a path")
    if inner in _keywords():
        return _checked(Attribute(_keywords()[inner]))
    if inner in _repeating():
        return _checked(_masked(_repeating()[inner]))
    close = difflib.get_close_matches(inner, [*_keywords(), *_repeating(), *(private or ())], 1, 0.7)
    raise NameProblem(
        "is no keyword of PS3.6", f"did you mean {close[0]}?" if close else "write it as PS3.6 does, or as gggg,eeee"
    )


def _by_creator(group: str, creator: str, low: str) -> Attribute:
    number, name = int(group, 16), creator.strip()
    if not number & 1:
        raise NameProblem("has a Private Creator in an even group", "private groups are odd")
    if not name:
        raise NameProblem("has an empty Private Creator", "write it as in (7053,[Philips PET Private Group],00)")
    check_creator(name)
    return Attribute(number << 16 | int(low, 16), _LOW, name)


def check_creator(name: str) -> None:
    """Whether a Private Creator is what its VR of LO allows.

    Raises:
      NameProblem: it is too long, or holds a backslash or a control character.
    """
    if not _CREATOR.fullmatch(name):
        raise NameProblem("has a Private Creator that is no LO", "write up to 64 characters, without backslash")


def _masked(digits: str) -> Attribute:
    tag = int(re.sub("[Xx]", "0", digits), 16)
    mask = int("".join("0" if digit in "xX" else "F" for digit in digits), 16)
    return Attribute(tag, mask)


def _checked(attribute: Attribute) -> Attribute:
    """The attribute, if a request may name it."""
    group = attribute.tag >> 16
    if attribute.mask >> 16 != 0xFFFF:
        if attribute.mask >> 16 != 0xFF00 or group not in (0x5000, 0x6000):
            raise NameProblem("masks too much", "x stands for digits of the element, or in 50xx and 60xx")
        return attribute
    if group in (0x0000, 0x0002, 0x0004):
        raise NameProblem(f"is in group {group:04X}, which the output gets anew", "leave it out")
    if group == 0xFFFE:
        raise NameProblem("is a delimiter and no attribute", "leave it out")
    if attribute.exact and not attribute.tag & 0xFFFF:
        raise NameProblem("is a group length, which the output doesn't have", "leave it out")
    known = attribute.private or group & 0xFF01 in (0x5000, 0x6000) or attribute.tag in standard.dictionary()
    if attribute.exact and not known:
        raise NameProblem("stands in no dictionary", "write a tag of PS3.6, or a private one")
    return attribute


def vr_of(tag: int) -> str:
    """The VR that PS3.6 gives a tag, the first of several; "" where it lists none."""
    element = standard.dictionary().get(tag)
    return element.vr.split(" ")[0] if element else ""


def keyword_of(tag: int) -> str:
    """The keyword that PS3.6 gives a tag; "" where it lists none."""
    element = standard.dictionary().get(tag)
    return element.keyword if element else ""


def name_of(tag: int) -> str:
    """The keyword, or the tag where there is none."""
    element = standard.dictionary().get(tag)
    return element.keyword if element else tag_text(tag)
