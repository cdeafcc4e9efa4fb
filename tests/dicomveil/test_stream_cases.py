"""The cases of `tests/cases/stream.yaml`, laid out byte by byte and carried through the engine."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from pydicom.dataset import Dataset

from dicomveil import Deidentifier
from dicomveil.errors import Filtered, InvalidInstance
from dicomveil.keys import Keys
from dicomveil.part10 import open_instance
from dicomveil.stream import BytesSource
from dicomveil.testing import BIG, CT, DEFLATED, EXPLICIT, IMPLICIT, JPEG, UNDEFINED, Syntax, minimal, part10
from dicomveil.uids import new_uid
from tests.corpora import KEY

ENGINE = Deidentifier(key=KEY)
CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "stream.yaml").read_text(encoding="utf-8"))
SYNTAXES = {"explicit": EXPLICIT, "implicit": IMPLICIT, "big": BIG, "deflated": DEFLATED, "jpeg": JPEG}
PIXELS = b"\1\2\3\4\5\6\7\x08"
HEADS = {
    "none": lambda data: data[144 + int.from_bytes(data[140:144], "little") :],
    "dicm": lambda data: data[128:],
    "no-group-length": lambda data: data[:132] + data[144:],
    "wrong-group-length": lambda data: data[:140] + b"\7\0\0\0" + data[144:],
    "no-meta": lambda data: data[:132] + HEADS["none"](data),
}


def number(tag: str) -> int:
    return int(tag[1:5] + tag[6:10], 16)


def raw(text: str) -> bytes:
    return bytes.fromhex(text[4:]) if text.startswith("hex:") else text.encode()


class Layout:
    """Lays out the elements of a case.

    Args:
      name: of the syntax.
    """

    def __init__(self, name: str) -> None:
        self.name, self.syntax = name, Syntax(SYNTAXES[name])

    def element(self, tag: str, vr: str, value: Any, how: dict[str, Any] | None = None) -> bytes:
        how = dict(how or {})
        inner = Layout(how.get("as", self.name))
        head = inner if vr not in ("SQ", "UN") else self
        if isinstance(value, list):
            made = inner.content(value, how)
            for _ in range(how.get("deep", 1) - 1):
                made = inner.items([head.laid_out(number(tag), vr, made, how)], how)
            value = made
        elif not isinstance(value, int):
            value = raw(value) if value.startswith("hex:") else value
        return head.laid_out(number(tag), vr, value, how) * how.get("times", 1)

    def laid_out(self, tag: int, vr: str, value: bytes | str | int, how: dict[str, Any]) -> bytes:
        return self.syntax.element(tag, vr, value, UNDEFINED if how.get("undefined") else how.get("length"))

    def content(self, value: list[Any], how: dict[str, Any]) -> bytes:
        return self.items([raw(item) if isinstance(item, str) else self.item(item) for item in value], how)

    def item(self, elements: list[list[Any]]) -> bytes:
        return b"".join(self.element(*element) for element in elements)

    def items(self, items: list[bytes], how: dict[str, Any]) -> bytes:
        """Items, and the delimiter of their sequence where it has one; fragments are never undefined but on demand."""
        undefined = how.get("items") == "undefined"
        delimiter = self.syntax.tag(0xFFFEE0DD) + bytes(4) if how.get("undefined") or how.get("end") else b""
        return b"".join(self.syntax.item(item, undefined and bool(item)) for item in items) + delimiter


def built(case: dict[str, Any]) -> bytes:
    """The file of a case."""
    name, file = case.get("syntax", "explicit"), case.get("file", {})
    if "bytes" in file:
        return raw(file["bytes"])
    layout, put = Layout(name), {}
    for tag, vr, value, *how in case.get("put", []):
        place = number(how[0].get("at", tag) if how else tag)
        put[place] = b"" if value is None else layout.element(tag, vr, value, *how)
    data_set = minimal(layout.syntax, *put.items())
    declared = file.get("syntax", SYNTAXES[name])
    data = part10(data_set, SYNTAXES[name], file.get("class", CT))
    if declared != SYNTAXES[name]:
        data = part10(b"", declared) if declared != DEFLATED else part10(b"", DEFLATED)[:-2]
        data += data_set
    if file.get("cut") == "all":
        data = part10(b"", SYNTAXES[name])
    data = HEADS.get(file.get("head", ""), bytes)(data)
    behind = {"itself": data, "data set": data_set}.get(file.get("behind", ""), raw(file.get("behind", "")))
    return data[: len(data) - (file.get("cut", 0) if file.get("cut") != "all" else 0)] + behind


def found(ds: Dataset, path: str) -> Iterator[Any]:
    """The element or Item at a path, or nothing."""
    steps = re.findall(r"(\([0-9A-F,]+\))(?:\[(\d+)\])?", path)
    at: Any = ds
    for tag, item in steps:
        if number(tag) not in at:
            return
        at = at[number(tag)]
        if item:
            if at.value is None or len(at.value) <= int(item):
                return
            at = at.value[int(item)]
    yield at


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_each_form_and_lie_has_its_treatment(case: dict[str, Any]) -> None:
    """What is clear is de-identified, what isn't is set aside with its reason and place; nothing in between."""
    data = built(case)
    if "quarantined" in case or "filtered" in case:
        with pytest.raises(InvalidInstance if "quarantined" in case else Filtered) as caught:
            ENGINE.rewrite(data)
        assert caught.value.reason == (case.get("quarantined") or case["filtered"])
        assert caught.value.path == case.get("at", caught.value.path)
        return
    out = ENGINE.rewrite(data)
    opened = open_instance(BytesSource(out))
    assert b"bodox" not in opened.source.read(opened.begin, opened.source.size).lower() + out.lower()
    assert ENGINE.rewrite(out)
    if "unread" in case:
        assert out.count(new_uid(Keys(KEY), "1.2.3.4.5").encode()) == 3
        return
    ds = pydicom.dcmread(io.BytesIO(out))
    assert [path for path in case.get("stays", []) if not list(found(ds, path))] == []
    assert [path for path in case.get("goes", []) if list(found(ds, path))] == []
    for path in case.get("mapped", []):
        assert [element.value for element in found(ds, path)] == [ds.SOPInstanceUID]
        assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID
    before = pydicom.dcmread(io.BytesIO(data), force=True) if "same" in case else ds
    for path in case.get("same", []):
        assert [it.value for it in found(ds, path)] == [it.value for it in found(before, path)] != []
    assert ds.file_meta.TransferSyntaxUID == SYNTAXES[case.get("as", case.get("syntax", "explicit"))]
    assert_pixels(case, ds)


def assert_pixels(case: dict[str, Any], ds: Dataset) -> None:
    pixels = case.get("pixels", len(PIXELS))
    if isinstance(pixels, str):
        assert ds.PixelData == raw(pixels)
    elif case.get("syntax") != "jpeg":
        assert ds.PixelData[: len(PIXELS)] == PIXELS
        assert len(ds.PixelData) == pixels
    else:
        assert ds.PixelData.count(b"\xfe\xff\x00\xe0") == len(case["put"][-1][2])
