"""What takes a value's place is legal where it stands, and says nothing."""

import io
import re
from collections.abc import Iterator

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR
from pydicom.valuerep import validate_value

from dicomveil import Deidentifier, dummies, standard
from dicomveil.dummies import Node
from dicomveil.testing import BIG, DEFLATED, EXPLICIT, IMPLICIT, Syntax, minimal, part10
from tests.corpora import KEY

PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
GRAPHIC_ANNOTATIONS, GRAPHIC_LAYER = 0x00700001, 0x00700002
WIDTHS = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "UV": 8, "SV": 8, "FL": 4, "FD": 8, "AT": 4}
WIDTHS |= {"OB": 2, "OW": 2, "UN": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
TEXTS = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
SEQUENCES = [tag for tag, element in standard.dictionary().items() if element.vr == "SQ"]


@pytest.mark.parametrize("uid", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
def test_numbers_in_dummy_items_are_in_the_data_sets_byte_order(uid: str) -> None:
    """A dummy annotation is one point in two dimensions in every transfer syntax (PS3.3 C.10.5, PS3.5 7.3)."""
    e = Syntax(uid)
    annotations = e.sequence(GRAPHIC_ANNOTATIONS, [e.element(GRAPHIC_LAYER, "CS", "LAYER")])
    own = (0x00080016, e.element(0x00080016, "UI", PRESENTATION_STATE))
    data = part10(minimal(e, own, (GRAPHIC_ANNOTATIONS, annotations)), uid, PRESENTATION_STATE)
    ds = pydicom.dcmread(io.BytesIO(Deidentifier(key=KEY).rewrite(data)))
    point = ds.GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    assert (point.GraphicDimensions, point.NumberOfGraphicPoints, list(point.GraphicData)) == (2, 1, [0, 0])


@pytest.mark.parametrize("vr", sorted(TEXTS))
def test_dummy_text_is_legal(vr: str) -> None:
    """A dummy is one value that its VR allows, of non-zero length (PS3.15 Table E.1-1a, D)."""
    dummy = dummies.dummy_bytes(0x00100010, vr).decode("ascii")
    assert dummy and "\\" not in dummy
    validate_value(vr, dummy, 2)


@pytest.mark.parametrize("vr", sorted(WIDTHS))
@pytest.mark.parametrize("big_endian", [False, True])
def test_dummy_numbers_are_legal(vr: str, big_endian: bool) -> None:
    """A dummy of a binary VR is one value of zero."""
    assert dummies.dummy_bytes(0x00100010, vr, big_endian) == bytes(WIDTHS[vr])


def test_every_vr_has_a_dummy() -> None:
    """Whatever the dictionary holds can be replaced."""
    vrs = {vr for element in standard.dictionary().values() for vr in re.findall(r"\b[A-Z]{2}\b", element.vr)} - {"SQ"}
    assert vrs <= TEXTS | WIDTHS.keys()


def test_a_sequence_has_no_dummy_value() -> None:
    """What replaces a sequence is an Item."""
    with pytest.raises(KeyError):
        dummies.dummy_bytes(0x0040A730, "SQ")


def test_a_defined_term_where_the_standard_asks_for_one() -> None:
    """Reason for the Attribute Modification is one of PS3.3 C.12.1.1.9's terms."""
    assert dummies.dummy_bytes(0x04000565, "CS") == b"COERCE"


def elements(item: tuple[Node, ...]) -> Iterator[Node]:
    """Every element of an Item, at every depth."""
    for node in item:
        yield node
        if not isinstance(node.value, bytes):
            for inner in node.value:
                yield from elements(inner)


@given(st.sampled_from(SEQUENCES))
def test_dummy_items_are_legal(tag: int) -> None:
    """Each element of a dummy Item has the VR of its attribute and a value that VR allows; no Item is empty."""
    item = dummies.dummy_item(tag)
    assert item and len({node.tag for node in item}) == len(item)
    for node in elements(item):
        assert node.vr == dictionary_VR(node.tag)
        if isinstance(node.value, bytes) and node.vr in TEXTS:
            validate_value(node.vr, node.value.decode("ascii"), 2)
        elif isinstance(node.value, bytes):
            assert node.value and len(node.value) % WIDTHS[node.vr] == 0


@pytest.mark.parametrize(
    ("keyword", "required"),
    [
        ("InstitutionCodeSequence", "CodeValue CodingSchemeDesignator CodeMeaning"),
        ("PersonIdentificationCodeSequence", "CodeValue CodingSchemeDesignator CodeMeaning"),
        ("OperatorIdentificationSequence", "PersonIdentificationCodeSequence ObserverType InstitutionName"),
        ("ReferencedStudySequence", "StudyInstanceUID"),
        ("ReferencedPerformedProcedureStepSequence", "ReferencedSOPClassUID ReferencedSOPInstanceUID"),
        ("FlowIdentifierSequence", "FlowIdentifier FlowTransferSyntaxUID FlowRTPSamplingRate"),
        ("VerifyingObserverSequence", "VerifyingOrganization VerificationDateTime VerifyingObserverName"),
        ("ContentSequence", "RelationshipType ValueType ConceptNameCodeSequence TextValue"),
        ("WaveformAnnotationSequence", "UnformattedTextValue ReferencedWaveformChannels"),
        ("GraphicAnnotationSequence", "GraphicLayer GraphicObjectSequence"),
    ],
)
def test_dummy_items_hold_what_their_iods_demand(keyword: str, required: str) -> None:
    """Where an IOD demands an Item, the dummy has that Item's Type 1 attributes (PS3.3)."""
    (tag,) = [tag for tag, element in standard.dictionary().items() if element.keyword == keyword]
    held = {standard.dictionary()[node.tag].keyword for node in dummies.dummy_item(tag)}
    assert set(required.split()) <= held


def test_no_dummy_item_names_an_instance() -> None:
    """The UIDs of dummy Items are registered ones and the nil UUID: they lead to nobody, and nobody's to them."""
    for tag in SEQUENCES:
        uids = {bytes(node.value).decode() for node in elements(dummies.dummy_item(tag)) if node.vr == "UI"}
        assert uids - {"2.25.0"} <= standard.registered_uids()


def test_dummy_codes_are_of_registered_schemes() -> None:
    """De-identified once more, a dummy code stays as it is."""
    for tag in SEQUENCES:
        schemes = {bytes(node.value).decode() for node in elements(dummies.dummy_item(tag)) if node.tag == 0x00080102}
        assert schemes <= standard.coding_schemes()


@pytest.mark.parametrize(
    ("mime_type", "start"),
    [
        ("application/pdf", b"%PDF-"),
        ("text/XML", b"<?xml "),
        ("model/stl", bytes(84)),
        ("model/obj", b"#"),
        ("model/mtl", b"#"),
        ("", b"\0\0"),
    ],
)
def test_documents_are_of_their_type(mime_type: str, start: bytes) -> None:
    """An Encapsulated Document is replaced by one of the type that stands beside it, of even length."""
    document = dummies.document_dummy(mime_type)
    assert document.startswith(start) and len(document) % 2 == 0


def test_the_pdf_can_be_found_its_way_in() -> None:
    """Every offset of the cross-reference table, and the one to it, leads to what it names (ISO 32000-1, 7.5)."""
    pdf = dummies.document_dummy("application/pdf")
    offsets = [int(offset) for offset in re.findall(rb"(\d{10}) 00000 n", pdf)]
    assert [pdf[offset:].split(b" ", 1)[0] for offset in offsets] == [b"1", b"2", b"3"]
    start = re.search(rb"startxref\n(\d+)\n", pdf)
    assert start and pdf[int(start[1]) :].startswith(b"xref\n")
