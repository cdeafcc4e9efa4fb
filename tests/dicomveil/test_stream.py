"""Every form that an encoded data set can take, and every lie that it can tell (PS3.5 chapter 7, PS3.10 chapter 7)."""

import io
import zlib

import pydicom
import pytest

from dicomveil import Deidentifier
from dicomveil.errors import InvalidInstance, Unsuitable
from dicomveil.scan import scan_instance
from dicomveil.stream import BytesSource, InflatedSource
from dicomveil.testing import BIG, CT, DEFLATED, EXPLICIT, IMPLICIT, JPEG, UNDEFINED, Syntax, minimal, part10
from tests.corpora import KEY

ENGINE = Deidentifier(key=KEY)
SYNTAXES = {"explicit": EXPLICIT, "implicit": IMPLICIT, "big endian": BIG, "deflated": DEFLATED}
E, I, B = Syntax(EXPLICIT), Syntax(IMPLICIT), Syntax(BIG)
REFERENCES, REFERENCED_UID, CLASS_UID = 0x00081140, 0x00081155, 0x00081150


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def rewrite(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(ENGINE.rewrite(data)))


def reference(syntax: Syntax) -> bytes:
    return syntax.element(CLASS_UID, "UI", CT) + syntax.element(REFERENCED_UID, "UI", "1.2.3.4.5")


@pytest.mark.parametrize("uid", SYNTAXES.values(), ids=SYNTAXES)
@pytest.mark.parametrize("undefined", [False, True], ids=["defined", "undefined"])
@pytest.mark.parametrize("item_undefined", [False, True], ids=["Item defined", "Item undefined"])
def test_references_follow_in_every_encoding(uid: str, undefined: bool, item_undefined: bool) -> None:
    """A reference inside a sequence names the instance's new UID, however syntax and lengths are written."""
    syntax = Syntax(uid)
    sequence = syntax.sequence(REFERENCES, [reference(syntax)] * 2, undefined, item_undefined=item_undefined)
    ds = rewrite(part10(minimal(syntax, (REFERENCES, sequence)), uid))
    assert [item.ReferencedSOPInstanceUID for item in ds.ReferencedImageSequence] == [ds.SOPInstanceUID] * 2
    assert ds.file_meta.TransferSyntaxUID == uid
    assert ds.PixelData == b"\1\2\3\4\5\6\7\x08"


@pytest.mark.parametrize("outer", [E, B], ids=["explicit", "big endian"])
@pytest.mark.parametrize("undefined", [False, True], ids=["defined", "undefined"])
def test_sequences_under_un_are_entered(outer: Syntax, undefined: bool) -> None:
    """A sequence written as UN holds implicit little endian Items, also in a big endian file (PS3.5 6.2.2, CP-246)."""
    sequence = outer.sequence(REFERENCES, [I.item(reference(I))], undefined, "UN")
    out = ENGINE.rewrite(part10(minimal(outer, (REFERENCES, sequence)), outer.uid))
    uid = scan_instance(BytesSource(out)).sop_instance_uid.encode()
    assert out.count(uid) == 3  # in the file meta, as SOP Instance UID, and in the Item
    assert b"1.2.3.4.5" not in out


HEADS = {
    "preamble": lambda data: data,
    "no preamble": lambda data: data[132:],
    "no preamble, but DICM": lambda data: data[128:],
    "no meta group length": lambda data: data[:132] + data[144:],
    "wrong meta group length": lambda data: data[:140] + b"\xff\0\0\0" + data[144:],
    "no meta group": lambda data: data[:132] + minimal(E),
    "bare data set": lambda data: minimal(E),
    "bare implicit data set": lambda data: minimal(I),
    "wrong transfer syntax": lambda data: part10(minimal(I), EXPLICIT),
    "big endian called little": lambda data: part10(minimal(B), EXPLICIT),
    "not deflated after all": lambda data: part10(minimal(E), EXPLICIT).replace(
        b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0"
    ),
    "padded with zeros": lambda data: data + bytes(100),
    "padded with a few zeros": lambda data: data + bytes(3),
}


@pytest.mark.parametrize("change", HEADS.values(), ids=HEADS)
def test_the_data_set_is_found(change) -> None:
    """An instance is de-identified with or without preamble, meta group and the right transfer syntax."""
    ds = rewrite(change(part10(minimal(E))))
    assert ds.PatientIdentityRemoved == "YES"
    assert ds.PixelData == b"\1\2\3\4\5\6\7\x08"
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID


def with_elements(*more: tuple[int, bytes], syntax: Syntax = E) -> bytes:
    return part10(minimal(syntax, *more), syntax.uid)


def nested(depth: int) -> bytes:
    content = reference(E)
    for _ in range(depth):
        content = E.sequence(REFERENCES, [content], True, item_undefined=True)
    return content


def test_512_levels_are_entered() -> None:
    """Sequences are followed to the deepest level that any reader must reach, and UIDs mapped there."""
    assert b"1.2.3.4.5\0" not in ENGINE.rewrite(with_elements((REFERENCES, nested(512))))


ENCAPSULATED = E.element(
    0x7FE00010, "OB", E.item(bytes(4)) + E.item(b"\xff\xd8\xff\xd9") + E.tag(0xFFFEE0DD) + bytes(4), UNDEFINED
)
TREATED = {
    "encapsulated Pixel Data": (part10(minimal(E, (0x7FE00010, ENCAPSULATED)), JPEG), 0x7FE00010, True),
    "private sequence": (with_elements((0x00291020, E.sequence(0x00291020, [E.element(0x00100010, "PN", "A^B")]))), 0x00291020, False),
    "private sequence of undefined length": (
        with_elements((0x00291020, E.sequence(0x00291020, [E.element(0x00100010, "PN", "A^B")], True))), 0x00291020, False,
    ),
    "private UN of undefined length": (
        with_elements((0x00291020, E.sequence(0x00291020, [I.item(I.element(0x00100010, "PN", "A^B"), True)], True, "UN"))), 0x00291020, False,
    ),
    "private implicit sequence": (
        with_elements((0x00291020, I.sequence(0x00291020, [I.element(0x00100010, "PN", "A^B")], True)), syntax=I), 0x00291020, False,
    ),
    "group length": (with_elements((0x00080000, E.element(0x00080000, "UL", 999))), 0x00080000, False),
    "trailing padding": (with_elements((0xFFFCFFFC, E.element(0xFFFCFFFC, "OB", bytes(10)))), 0xFFFCFFFC, False),
    "command group": (with_elements((0x00000110, E.element(0x00000110, "US", 1))), 0x00000110, False),
    "meta group in the data set": (with_elements((0x00041130, E.element(0x00041130, "CS", "PATIENTX"))), 0x00041130, False),
    "odd length": (with_elements((0x00181030, E.element(0x00181020, "LO", b"abc"))), 0x00181020, True),
    "private block without creator": (with_elements((0x00291020, E.element(0x00291020, "LO", "A"))), 0x00291020, False),
    "unknown element of an even group": (with_elements((0x00080EEE, E.element(0x00080EEE, "LO", "A"))), 0x00080EEE, False),
    "curve": (with_elements((0x50003000, E.element(0x50003000, "OW", bytes(4)))), 0x50003000, False),
    "overlay": (with_elements((0x60023000, E.element(0x60023000, "OW", bytes(4)))), 0x60023000, False),
    "overlay label": (with_elements((0x60021500, E.element(0x60021500, "LO", "A^B "))), 0x60021500, False),
    "tag twice": (with_elements((0x00081010, E.element(0x00081010, "SH", "A") * 2)), 0x00081010, False),
    "descending tags": (with_elements((0x00280003, E.element(0x00081010, "SH", "A"))), 0x00081010, False),
    "element known as text, written as UN": (with_elements((0x00080080, E.element(0x00080080, "UN", b"Hospital"))), 0x00080080, False),
    "element known as text, written as a sequence": (
        with_elements((0x00081010, E.sequence(0x00081010, [E.element(0x00100010, "PN", "A^B")]))), 0x00081010, False,
    ),
    "gzip trailer": (
        part10(b"", DEFLATED) [:-2] + (lambda raw: (lambda packed: packed + zlib.crc32(raw).to_bytes(4, "little") + len(raw).to_bytes(4, "little"))(
            deflated(raw)))(minimal(E)), 0x00080018, True,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "tag", "stays"), TREATED.values(), ids=TREATED)
def test_odd_forms_have_a_stated_treatment(data: bytes, tag: int, stays: bool) -> None:
    """What is odd but clear is de-identified: the element goes, or stays and is entered."""
    assert (tag in rewrite(data)) == stays


def cut(data: bytes, behind: int) -> bytes:
    return data[: len(data) - behind]


LIES = {
    "length past the end": (with_elements((0x00080060, E.element(0x00080060, "CS", "CT", 5000))), "truncated"),
    "long length past the end": (part10(minimal(E, (0x7FE00010, E.element(0x7FE00010, "OW", b"12", 1 << 30)))), "truncated"),
    "length past the end of its Item": (
        with_elements((REFERENCES, E.sequence(REFERENCES, [E.element(CLASS_UID, "UI", CT, 200)]))), "length",
    ),
    "Item past the end of its sequence": (
        with_elements((REFERENCES, E.element(REFERENCES, "SQ", E.tag(0xFFFEE000) + b"\xff\0\0\0"))), "length",
    ),
    "Item outside a sequence": (with_elements((0x00080060, E.item(b""))), "item"),
    "delimiter outside a sequence": (with_elements((0x00080060, E.tag(0xFFFEE0DD) + bytes(4))), "item"),
    "no Item in a sequence": (with_elements((REFERENCES, E.element(REFERENCES, "SQ", reference(E)))), "item"),
    "nested deeper than 512": (with_elements((REFERENCES, nested(513))), "nesting"),
    "private nesting deeper than 512": (
        with_elements((0x00291020, nested(600).replace(E.tag(REFERENCES), E.tag(0x00291020)))), "nesting",
    ),
    "implicit nesting deeper than 512": (
        part10(minimal(I, (REFERENCES, I.tag(REFERENCES) + b"\xff\xff\xff\xff" + (I.tag(0xFFFEE000) + b"\xff\xff\xff\xff" + I.tag(REFERENCES) + b"\xff\xff\xff\xff") * 3000)), IMPLICIT),
        "nesting",
    ),
    "no delimiter": (cut(with_elements((0x7FE00010, E.sequence(REFERENCES, [reference(E)], True))), 8), "truncated"),
    "study twice": (with_elements((0x0020000D, E.element(0x0020000D, "UI", "1.2.3.4") + E.element(0x0020000D, "UI", "1.2.3.5"))), "identifier-twice"),
    "patient twice": (with_elements((0x00100020, E.element(0x00100020, "LO", "A") + E.element(0x00100020, "LO", "B"))), "identifier-twice"),
    "two studies in one element": (with_elements((0x0020000D, E.element(0x0020000D, "UI", "1.2.3\\1.2.4"))), "several-values"),
    "two instances in one element": (with_elements((0x00080018, E.element(0x00080018, "UI", "1.2.3\\1.2.4"))), "several-values"),
    "no study": (with_elements((0x0020000D, b"")), "missing-identifier"),
    "empty series": (with_elements((0x0020000E, E.element(0x0020000E, "UI", ""))), "missing-identifier"),
    "sequence written as text": (with_elements((REFERENCES, E.element(REFERENCES, "LO", "Bodox^Kalex "))), "sequence-vr"),
    "undefined length of text": (with_elements((0x00080060, E.element(0x00080060, "UT", "CT", UNDEFINED))), "undefined-length"),
    "undefined length of native Pixel Data": (part10(minimal(E, (0x7FE00010, ENCAPSULATED))), "undefined-length"),
    "no VR": (with_elements((0x00080060, E.tag(0x00080060) + b"??\2\0CT")), "vr"),
    "text behind the last element": (part10(minimal(E)) + b"Bodox was here, and here", "trailing-data"),
    "a second file behind": (part10(minimal(E)) * 2, "trailing-data"),
    "a second data set behind": (part10(minimal(E)) + minimal(E), "trailing-data"),
    "unknown transfer syntax": (part10(minimal(E), "1.2.3.4.5.6"), "transfer-syntax"),
    "compressed pixels of unknown syntax": (part10(minimal(E, (0x7FE00010, ENCAPSULATED)))[:132] + minimal(E, (0x7FE00010, ENCAPSULATED)), "transfer-syntax"),
    "deflated and cut": (cut(part10(minimal(E), DEFLATED), 4), "truncated"),
    "broken deflation": (part10(b"", DEFLATED)[:-2] + b"\xff" * 50, "deflate"),
    "more behind a deflated data set": (part10(minimal(E), DEFLATED) + b"Bodox", "trailing-data"),
    "private SOP Class": (with_elements((0x00080016, E.element(0x00080016, "UI", "1.2.3.4.5.6"))), "private-sop-class"),
    "nothing behind the meta group": (part10(b""), "truncated"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "reason"), LIES.values(), ids=LIES)
def test_lies_are_caught(data: bytes, reason: str) -> None:
    """What can't be read safely is set aside with its reason, and nothing of it is written."""
    with pytest.raises(InvalidInstance) as caught:
        ENGINE.rewrite(data)
    assert caught.value.reason == reason
    assert "Bodox" not in str(caught.value) + repr(caught.value)


NO_DICOM = {
    "empty": b"",
    "text": b"Bodox was here",
    "JPEG": b"\xff\xd8\xff\xe0" + bytes(200),
    "zeros": bytes(4096),
    "zip": b"PK\3\4" + bytes(300),
}


@pytest.mark.parametrize("data", NO_DICOM.values(), ids=NO_DICOM)
def test_what_is_no_dicom_is_filtered(data: bytes) -> None:
    """A file that is no DICOM is nothing to de-identify, and no failure."""
    with pytest.raises(Unsuitable) as caught:
        ENGINE.rewrite(data)
    assert caught.value.reason in ("empty-file", "not-dicom", "zip-not-opened")


def test_the_path_of_a_lie_is_told() -> None:
    """An error names the sequence, Item and element it is about."""
    inner = E.sequence(REFERENCES, [b"", E.element(CLASS_UID, "UI", CT, 200)])
    with pytest.raises(InvalidInstance) as caught:
        ENGINE.rewrite(with_elements((REFERENCES, E.sequence(REFERENCES, [inner]))))
    assert caught.value.path == "(0008,1140)[0].(0008,1140)[1].(0008,1150)"
    assert caught.value.offset > 132


@pytest.mark.parametrize("syntax", [E, I, B], ids=["explicit", "implicit", "big endian"])
def test_a_file_cut_anywhere_is_set_aside_or_whole(syntax: Syntax) -> None:
    """A file that ends too early is quarantined, or what is left of it is a whole instance; it never leaks or crashes."""
    sequence = syntax.sequence(REFERENCES, [reference(syntax)], True, item_undefined=True)
    data = part10(
        minimal(syntax, (REFERENCES, sequence), (0x00080080, syntax.element(0x00080080, "LO", "Bodox Hospital"))),
        syntax.uid,
    )
    for length in range(len(data)):
        try:
            out = ENGINE.rewrite(data[:length])
        except Unsuitable:
            continue
        assert b"Bodox" not in out


def test_a_deflated_bomb_is_refused() -> None:
    """A deflated data set that expands past the limit is refused without being held."""
    bomb = deflated(bytes(1 << 24))
    with pytest.raises(InvalidInstance) as caught:
        InflatedSource(BytesSource(bomb), 0, limit=1 << 20)
    assert caught.value.reason == "deflate"
