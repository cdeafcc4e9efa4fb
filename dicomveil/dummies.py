"""Values that are legal for their VR and say nothing (PS3.15 E.1.1: action D; PS3.5 6.2).

They are constants: two patients get the same, so that a dummy links nobody to anybody.
"""

import struct
from typing import Final, NamedTuple

_TEXT: Final = {
    "AE": b"REMOVED",
    "AS": b"000Y",
    "CS": b"REMOVED",
    "DA": b"19000101",
    "DS": b"0",
    "DT": b"19000101000000",
    "IS": b"0",
    "LO": b"REMOVED",
    "LT": b"REMOVED",
    "PN": b"REMOVED",
    "SH": b"REMOVED",
    "ST": b"REMOVED",
    "TM": b"000000",
    "UC": b"REMOVED",
    "UI": b"2.25.0",
    "UR": b"urn:removed",
    "UT": b"REMOVED",
}
_NUMBERS: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_BYTES: Final = {"OB": 2, "OW": 2, "UN": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8, "AT": 4}

# Where the Standard lists what a value may be, or what it means.
_OF_ATTRIBUTE: Final = {
    0x04000565: b"COERCE",  # Reason for the Attribute Modification: a Defined Term
}

_PDF: Final = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\nxref\n0 4\n0000000000 65535 f \n0000000009 00000 n \n"
    b"0000000052 00000 n \n0000000101 00000 n \ntrailer<</Size 4/Root 1 0 R>>\nstartxref\n160\n%%EOF\n"
)
_DOCUMENTS: Final = {
    "application/pdf": _PDF,
    "text/xml": b'<?xml version="1.0"?><ClinicalDocument xmlns="urn:hl7-org:v3"/>\n',
    "model/stl": bytes(84),
    "model/obj": b"# removed\n",
    "model/mtl": b"# removed\n",
}


class Node(NamedTuple):
    """An element of an Item to be written.

    Attributes:
      value: its encoded value, numbers in little endian, or the Items of a sequence.
    """

    tag: int
    vr: str
    value: "bytes | tuple[tuple[Node, ...], ...]"


def dummy_bytes(tag: int, vr: str, big_endian: bool = False) -> bytes:
    """An encoded value of non-zero length, not yet padded.

    Raises:
      KeyError: no such VR, or SQ, whose dummies are Items.
    """
    if tag in _OF_ATTRIBUTE:
        return _OF_ATTRIBUTE[tag]
    if vr in _TEXT:
        return _TEXT[vr]
    if vr in _NUMBERS:
        return struct.pack((">" if big_endian else "<") + _NUMBERS[vr], 0)
    return bytes(_BYTES[vr])


def document_dummy(mime_type: str) -> bytes:
    """A document of the type that holds nothing, of even length; two zero bytes where the type is unknown."""
    document = _DOCUMENTS.get(mime_type.lower(), b"\0\0")
    return document + (b"\n" if document is _PDF or document[:1] == b"<" else b"\0")[: len(document) & 1]


def code(value: str, scheme: str, meaning: str) -> tuple[Node, ...]:
    """The Item of a code sequence (PS3.3 8.8)."""
    return (
        Node(0x00080100, "SH", value.encode()),
        Node(0x00080102, "SH", scheme.encode()),
        Node(0x00080104, "LO", meaning.encode()),
    )


_NOTHING: Final = code("261665006", "SCT", "Unknown")


def _text_item(concept: tuple[Node, ...]) -> tuple[Node, ...]:
    return (
        Node(0x0040A010, "CS", b"CONTAINS"),
        Node(0x0040A040, "CS", b"TEXT"),
        Node(0x0040A043, "SQ", (concept,)),
        Node(0x0040A160, "UT", b"REMOVED"),
    )


_NIL: Final = b"2.25.0"  # the nil UUID, where an Item must name an instance: the same for all, it links nobody
_PERSON: Final = (
    Node(0x0040A027, "LO", b"REMOVED"),
    Node(0x0040A030, "DT", b"19000101000000"),
    Node(0x0040A075, "PN", b"REMOVED"),
    Node(0x0040A088, "SQ", ()),
)
_ITEMS: Final = {
    0x0040A730: _text_item(code("121106", "DCM", "Comment")),
    0x0040A073: _PERSON,
    0x00081072: (
        Node(0x00080080, "LO", b"REMOVED"),
        Node(0x00080082, "SQ", ()),
        Node(0x00401101, "SQ", (_NOTHING,)),
        Node(0x0040A084, "CS", b"PSN"),
        Node(0x0040A123, "PN", b"REMOVED"),
    ),
    0x00081110: (Node(0x0020000D, "UI", _NIL),),
    0x00081111: (
        Node(0x00081150, "UI", b"1.2.840.10008.3.1.2.3.3"),  # Modality Performed Procedure Step
        Node(0x00081155, "UI", _NIL),
    ),
    0x00340001: (
        Node(0x00340002, "OB", bytes(2)),
        Node(0x00340003, "UI", b"1.2.840.10008.1.2.7.1"),  # SMPTE ST 2110-20, progressive
        Node(0x00340004, "UL", bytes(4)),
    ),
    0x00700001: (
        Node(0x00700002, "CS", b"REMOVED"),
        Node(
            0x00700009,
            "SQ",
            (
                (
                    Node(0x00700005, "CS", b"PIXEL"),
                    Node(0x00700020, "US", b"\x02\x00"),
                    Node(0x00700021, "US", b"\x01\x00"),
                    Node(0x00700022, "FL", bytes(8)),
                    Node(0x00700023, "CS", b"POINT"),
                ),
            ),
        ),
    ),
    0x0040B020: (
        Node(0x00700006, "ST", b"REMOVED"),
        Node(0x0040A0B0, "US", b"\x01\x00\x00\x00"),
    ),
}


def dummy_item(tag: int) -> tuple[Node, ...]:
    """The one Item of a sequence's dummy: what its IODs demand of it; of a code sequence, "Unknown"."""
    return _ITEMS.get(tag, _NOTHING)
