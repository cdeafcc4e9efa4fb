"""What a line of a request may not do to an attribute, and which values it may not write.

Each check gives (what is wrong, what to do instead), as many as there are.
"""

from collections.abc import Iterator
from typing import Final

from dicomveil import standard
from dicomveil.paths import AttributePath
from dicomveil.request import IDENTIFIERS, ROLES
from dicomveil.tags import name_of
from dicomveil.values import ENCAPSULATED_DOCUMENT, Value

_CHARACTER_SET: Final = 0x00080005
_ENCRYPTED: Final = 0x04000500
_MARKS: Final = (0x00120062, 0x00120064, 0x00280303)
_METHOD: Final = 0x00120063
_PIXELS: Final = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_SOP_CLASS: Final = 0x00080016
_UTF_8: Final = "ISO_IR 192"


def forbidden(path: AttributePath, member: str, force: bool, command: str) -> Iterator[tuple[str, str]]:
    """What a rule may not do to the attributes that everything hangs on."""
    if path.steps:
        return
    for tag in ROLES:
        if path.attribute.matches(tag):
            if not path.attribute.exact and member != "Remove":
                yield f"covers {name_of(tag)}, which everything hangs on", "name each tag alone"
            elif tag not in IDENTIFIERS:
                continue
            elif member == "Remove":
                yield "would remove an identifier", "leave it out: identifiers are replaced"
            elif not force:
                yield "is an identifier", "add Force: true"
    marks = _MARKS if command == "anonymize" else ()
    if any(path.attribute.matches(tag) for tag in marks) and member != "Keep":
        yield "says what was done, and is written by what was done", "leave it out"
    if path.attribute.tag in marks[:1] and member == "Keep":
        yield "says what was done, and is written by what was done", "leave it out"
    if member == "Remove" and path.attribute.private and path.attribute.exact and not path.attribute.tag & 0xFF00:
        yield "is a Private Creator, which goes with its elements", "remove these"
    if member == "Remove" and any(path.attribute.matches(tag) for tag in (_CHARACTER_SET, _SOP_CLASS)):
        yield "is what the rest can't be read without", "leave it out"


def not_encrypted(path: AttributePath) -> Iterator[tuple[str, str]]:
    """What can't be sealed and put back as one attribute of the top level."""
    attribute = path.attribute
    if path.steps or path.anywhere:
        yield "is a path, and what is restored stands at the top level", "name the sequence at the top"
    elif not attribute.exact or attribute.private:
        yield "is a mask or a private element", "name attributes of PS3.6, one each"
    elif attribute.tag in (*_MARKS, _METHOD, _CHARACTER_SET, _ENCRYPTED):
        yield "says what was done or how to read the rest", "leave it out"
    elif attribute.tag in (*_PIXELS, ENCAPSULATED_DOCUMENT):
        yield "is too large to be encrypted", "leave it out"


def unreplaceable(path: AttributePath) -> Iterator[tuple[str, str]]:
    attribute = path.attribute
    if not attribute.exact and not attribute.creator:
        yield "is a mask, which has no one place to be written", "name each tag"
    if attribute.exact and attribute.private and attribute.tag & 0xFFFF < 0x1000:
        yield "is a Private Creator, which is written with its elements", "leave it out"
    if attribute.tag in _PIXELS:
        yield "is Pixel Data, which is never replaced", "leave it out"
    if attribute.exact and attribute.tag & 0xFF010000 in (0x50000000, 0x60000000):
        yield "is a curve or an overlay", "keep or remove it"


def refused(path: AttributePath, value: Value) -> Iterator[tuple[str, str]]:
    """Values that would make nonsense of the rest."""
    tag = path.attribute.tag
    empty = not (value.text or (value.raw and value.raw[0]) or value.items)
    if value.mime_type and tag != ENCAPSULATED_DOCUMENT:
        yield "is no place for a document", "write data:application/octet-stream;base64,..."
    if not path.steps and tag in ROLES and empty:
        yield "is an identifier, and is never emptied", "give a value"
    if not path.steps and tag in ROLES and value.text and "\\" in value.text:
        yield "is an identifier, and has one value", "give one"
    if tag == _CHARACTER_SET and value.text != _UTF_8:
        yield "says how text is encoded, and all text would have to follow", f"write {_UTF_8}, or leave it out"
    if tag == _SOP_CLASS and not path.steps and value.text not in standard.registered_uids():
        yield "is no SOP Class that PS3.6 registers", "give one, or leave it out"
