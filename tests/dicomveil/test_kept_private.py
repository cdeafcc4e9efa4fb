"""Private elements where nothing is de-identified: modify, split and merge leave them, and their references follow."""

import io

import pydicom
import pytest

from dicomveil.testing import CT, EXPLICIT, IMPLICIT, Syntax, minimal, part10
from tests.oracles.altered_in_process import Body, alter

SERIES = "1.2.3.4.1"
WHOLE: Body = {"Level": "Series"}


def modified(*elements: tuple[int, bytes], body: Body = WHOLE, syntax: str = EXPLICIT) -> bytes:
    """A small CT image with these elements, after modify."""
    content = part10(minimal(Syntax(syntax), *elements), syntax)
    return alter("modify", body, {"": content}).outputs[""]


def read(content: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(content))


@pytest.mark.parametrize(
    "tag", [0x00110001, 0x0011000F, 0x00110010], ids=["lowest", "highest", "a creator longer than any"]
)
def test_what_stands_where_no_private_element_can_stays(tag: int) -> None:
    """PS3.5 7.8.1 knows no elements below (gggg,0010), nor creators of 300 characters; who modifies keeps them."""
    element = Syntax().element(tag, "LO", "X" * (300 if tag & 0xF0 else 4))
    assert element in modified((tag, element))
    assert tag not in read(modified((tag, element), body=WHOLE | {"RemovePrivateTags": True}))


@pytest.mark.parametrize("uid", [EXPLICIT, IMPLICIT])
def test_references_in_private_items_of_unknown_vr_follow(uid: str) -> None:
    """Items are entered whatever VR they stand under, as far as they are Items."""
    syntax, implicit = Syntax(uid), Syntax(IMPLICIT)
    reference = implicit.element(0x00081150, "UI", CT) + implicit.element(0x00081155, "UI", SERIES)
    block = (0x00290010, syntax.element(0x00290010, "LO", "NOBODY KNOWS"))
    for undefined in (False, True):
        sequence = syntax.sequence(0x00291001, [implicit.item(reference)], undefined, vr="UN")
        content = modified(block, (0x00291001, sequence), syntax=uid)
        assert content.count(read(content).SeriesInstanceUID.encode()) == 2


def test_what_only_looks_like_items_stays() -> None:
    """A private value of unknown VR that begins like an Item and isn't one stays byte for byte."""
    element = Syntax().element(0x00291001, "UN", Syntax().item(b"no element at all "))
    assert element in modified((0x00291001, element))


@pytest.mark.parametrize("undefined", [False, True])
def test_another_study_is_followed_from_private_items_of_unknown_vr(undefined: bool) -> None:
    """A study is told which of the UIDs in such Items another one bears and changes."""
    implicit, other = Syntax(IMPLICIT), "1.2.3.5"
    item = implicit.item(implicit.element(0x0020000D, "UI", other))
    block = Syntax().element(0x00290010, "LO", "NOBODY KNOWS") + Syntax().sequence(0x00291001, [item], undefined, "UN")
    renamed = [(tag, Syntax().element(tag, "UI", uid)) for tag, uid in ((0x0020000D, other), (0x0020000E, "1.2.3.5.1"))]
    files = {
        "here": part10(minimal(Syntax(), (0x00290010, block))),
        "there": part10(minimal(Syntax(), *renamed, (0x00080018, Syntax().element(0x00080018, "UI", "1.2.3.5.1.1")))),
    }
    done = alter("modify", {"Level": "Study"}, files).outputs
    assert read(done["there"]).StudyInstanceUID.encode() in done["here"]
