"""Real instances, de-identified for a recipient and restored: what was encrypted is what it was, element by element."""

import io
import json
import re
from pathlib import Path

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from dicomveil import Deidentifier, standard
from dicomveil.body import parse_request
from dicomveil.errors import Unsuitable
from dicomveil.reidentifier import restore
from dicomveil.stream import BytesSource, tag_text
from dicomveil.testing import BIG, DEFLATED
from tests.corpora import KEY, instances, label
from tests.recipients import recipient

BODY = {"EncryptFor": [recipient().pem], "BurnedIn": "pass"}
ENGINE = Deidentifier(parse_request(json.dumps(BODY)), key=KEY)
PLAIN = Deidentifier(parse_request(json.dumps({name: BODY[name] for name in BODY if name != "EncryptFor"})), key=KEY)
BULK = {"SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN"}
MARKS = {0x00120062, 0x00120063, 0x00120064, 0x00280303, 0x04000500}


def plain(ds: Dataset) -> dict[int, bytes | None]:
    """The encoded values, without padding, of top-level elements that come back by default: listed in PS3.6, and no
    sequences, bulk, marks or lengths."""
    raw = (ds.get_item(tag) for tag in sorted(ds.keys()))
    return {
        int(it.tag): (it.value or b"").rstrip(b" \0")
        for it in raw
        if isinstance(it, RawDataElement) and int(it.tag) not in MARKS and comes_back(int(it.tag), it.VR)
    }


def comes_back(tag: int, vr: str | None) -> bool:
    element = standard.dictionary().get(tag)
    vrs = {*element.vr.split(" "), vr} if element else BULK
    return bool(tag & 0xFFFF) and not BULK & vrs


def without_envelope(data: bytes) -> bytes:
    """A file in little endian, not deflated, without its Encrypted Attributes Sequence."""
    found = re.search(rb"\x00\x04\x00\x05(?:SQ\0\0)?(....)(?=\xfe\xff\x00\xe0....\x00\x04\x10\x05)", data, re.DOTALL)
    assert found
    return data[: found.start()] + data[found.end() + int.from_bytes(found[1], "little") :]


def read(data: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(data), force=True)


@pytest.mark.parametrize("path", instances(), ids=label)
def test_what_was_encrypted_is_what_it_was(path: Path) -> None:
    """Each top-level value that the profile changed stands there again, and without the envelope nothing is new."""
    data = path.read_bytes()
    try:
        out = ENGINE.rewrite(data)
    except Unsuitable:
        return  # it is set aside, and there is nothing to bring back
    before, sealed, after = read(data), read(out), read(restore(BytesSource(out), recipient().opener).to_bytes())
    assert (after.PatientIdentityRemoved, "EncryptedAttributesSequence" in after) == ("NO", False)
    if sealed.get("SpecificCharacterSet") == before.get("SpecificCharacterSet"):
        was, now = plain(before), plain(after)
        assert [tag_text(tag) for tag in was if now.get(tag) != was[tag]] == []
    if sealed.file_meta.TransferSyntaxUID not in (BIG, DEFLATED):
        assert without_envelope(out) == PLAIN.rewrite(data)
