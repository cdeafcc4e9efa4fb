"""What a request may write, and how it is encoded (PS3.5 6.2, 6.4; `tests/cases/values.yaml`)."""

import datetime
import io
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset
from pydicom.valuerep import validate_value

from dicomveil import charset, standard, values
from dicomveil.stream import ENCODINGS, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Encoding
from dicomveil.values import Named, Value, ValueProblem, encoded, parse_value

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "values.yaml").read_text(encoding="utf-8"))
BY_KEYWORD = {element.keyword: (tag, element) for tag, element in standard.dictionary().items()}
PDF = "data:application/pdf;base64,JVBERi0xLjQKJSVFT0YK"
CODE = {"CodeValue": "T-1", "CodingSchemeDesignator": "99X", "CodeMeaning": "Müller"}


def resolve(name: str) -> Named:
    if name not in BY_KEYWORD:
        raise ValueProblem("is no keyword of PS3.6", "write one")
    tag, element = BY_KEYWORD[name]
    return Named(tag, element.vr, element.vm)


def parsed(vr: str, value: object, vm: str = "") -> Value:
    return parse_value(vr, vm, value, resolve)


def refusal(vr: str, value: object, vm: str = "") -> ValueProblem:
    with pytest.raises(ValueProblem) as caught:
        parsed(vr, value, vm)
    return caught.value


def each(member: str) -> Iterator[Any]:
    for number, case in enumerate(CASES):
        for entry in case.get(member, ()):
            value, expected = (entry, None) if member == "good" else (entry, case["bad"][entry])
            yield pytest.param(case["vr"], case.get("vm", "1"), value, expected, id=f"{number}-{case['vr']}-{value!a}")


def writes() -> Iterator[Any]:
    for case in CASES:
        for value, little, *big in case.get("writes", ()):
            yield pytest.param(
                case["vr"], case.get("vm", "1"), value, little, *(big or [None]), id=f"{case['vr']}-{value}"
            )


# ------------------------------------------------------------------------------------------------------------- cases


@pytest.mark.parametrize(("vr", "vm", "value", "_"), each("good"))
def test_text_that_its_vr_allows_is_written_as_it_is(vr: str, vm: str, value: str, _: None) -> None:
    """Text of the form that PS3.5 6.2 gives its VR stays character for character, and pydicom agrees that it may."""
    assert parsed(vr, value, vm) == Value(vr, text=value)
    assert encoded(parsed(vr, value, vm), EXPLICIT_LITTLE, "ISO_IR 192") == value.encode()
    if vr in ("LO", "SH", "PN", "UC", "LT", "ST", "UT"):
        return
    for one in value.split("\\"):
        validate_value(vr, one.rstrip(" "), 2)


@pytest.mark.parametrize(("vr", "vm", "value", "what"), each("bad"))
def test_a_value_that_its_vr_forbids_is_refused(vr: str, vm: str, value: str, what: str) -> None:
    """A value that PS3.5 6.2 or its VM forbids is refused with a remedy, and never quoted."""
    problem = refusal(vr, value, vm)
    assert what in problem.what and problem.remedy
    assert problem.what in str(problem) and problem.remedy in str(problem)
    if len(value) > 5:
        assert value not in str(problem)


@pytest.mark.parametrize(("vr", "vm", "value", "little", "big"), writes())
def test_a_value_is_encoded_in_each_byte_order(vr: str, vm: str, value: object, little: str, big: str | None) -> None:
    """Numbers, tags and bytes stand as PS3.5 7.3 orders them, in little and in big endian."""
    value = parsed(vr, value, vm)
    assert encoded(value, EXPLICIT_LITTLE, "ISO_IR 100").hex().upper() == little
    assert encoded(value, IMPLICIT_LITTLE, "ISO_IR 100").hex().upper() == little
    assert big is None or encoded(value, EXPLICIT_BIG, "ISO_IR 100").hex().upper() == big


@pytest.mark.parametrize("vr", sorted({*values._FORMS, *values._SIZES, "SQ"}))
def test_null_empties_any_element(vr: str) -> None:
    """null is an empty value of every VR, whatever the VM."""
    assert encoded(parsed(vr, None, "2"), EXPLICIT_LITTLE, "") == b""


@pytest.mark.parametrize(
    ("vr", "value", "what"),
    [
        ("LO", True, "true or false"),
        ("US", False, "true or false"),
        ("LO", 5, "is a number"),
        ("DA", 20240101, "is a number"),
        ("AT", 1048592, "is a number"),
        ("OB", 1, "is a number"),
        ("LO", ["a"], "isn't SQ"),
        ("US", [1, 2], "isn't SQ"),
        ("LO", {"a": 1}, "isn't SQ"),
        ("DA", datetime.date(2024, 1, 1), "date of YAML"),
        ("DT", datetime.datetime(2024, 1, 1), "date of YAML"),
        ("LO", b"a", "is no text"),
        ("SQ", "", "is no list"),
        ("SQ", {}, "is no list"),
        ("SQ", ["a"], "is no Item"),
        ("SQ", [[]], "is no Item"),
        ("SQ", [{1048592: "a"}], "no text"),
        ("IS", 1.5, "is no IS"),
        ("DS", 0.1 + 0.2, "longer"),
        ("DS", float("inf"), "is no DS"),
        ("FD", float("nan"), "is no number"),
    ],
)
def test_what_json_or_yaml_made_of_it_is_told(vr: str, value: object, what: str) -> None:
    """A boolean, a number for text, a date of YAML's or a list is refused and not guessed at."""
    assert what in refusal(vr, value).what


def test_an_unknown_multiplicity_is_a_mistake_of_ours() -> None:
    """A VM that PS3.6 doesn't write isn't taken for any."""
    with pytest.raises(ValueError, match="Multiplicity"):
        parsed("LO", "a", "many")


# --------------------------------------------------------------------------------------------------------- sequences


def read(content: bytes, encoding: Encoding) -> pydicom.Dataset:
    return read_dataset(io.BytesIO(content), encoding.implicit, not encoding.big)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.name)
def test_items_are_what_the_request_says(encoding: Encoding) -> None:
    """Items are read by pydicom with the values given, in the data set's encoding and character set."""
    item = {**CODE, "ContentSequence": [{"Rows": 258, "ReferencedFrameNumber": "1\\2"}, {}], "PatientName": None}
    value = parsed("SQ", [item, {}])
    element = encoding.element(0x00081140, "SQ", encoded(value, encoding, "ISO_IR 100"))
    charset_element = encoding.element(0x00080005, "CS", b"ISO_IR 100")
    first, second = read(charset_element + element, encoding).ReferencedImageSequence
    assert (first.CodeValue, first.CodeMeaning, first.PatientName) == ("T-1", "Müller", "")
    assert (first.ContentSequence[0].Rows, first.ContentSequence[0].ReferencedFrameNumber) == (258, [1, 2])
    assert len(first.ContentSequence[1]) == len(second) == 0
    assert [member.tag for member in value.items[0]] == sorted(member.tag for member in value.items[0])


def test_an_empty_list_is_an_empty_sequence() -> None:
    """[] writes a sequence of no Items, [{}] one empty Item."""
    assert encoded(parsed("SQ", []), EXPLICIT_LITTLE, "") == b""
    assert encoded(parsed("SQ", [{}]), EXPLICIT_LITTLE, "").hex() == "feff00e000000000"


def test_a_mistake_in_an_item_is_told_with_its_place() -> None:
    """A mistake deep in a sequence is told with the path of tags that leads there."""
    problem = refusal("SQ", [{}, {"ConceptNameCodeSequence": [{"CodeValue": "12345678901234567"}]}])
    assert problem.what == "[1].(0040,A043)[0].(0008,0100) is longer than SH allows"
    assert refusal("SQ", [{"NoSuchKeyword": 1}]).what == "[0] is no keyword of PS3.6"
    assert pickle.loads(pickle.dumps(problem)).what == problem.what


@pytest.mark.parametrize("tag", [0x00091001, 0x00020010, 0xFFFEE000, 0x00100000, 0x00041130])
def test_what_is_no_attribute_of_an_item_is_refused(tag: int) -> None:
    """Private elements, delimiters, group lengths and meta information don't go into new Items."""
    with pytest.raises(ValueProblem, match="new Item"):
        parse_value("SQ", "1", [{"x": "a"}], lambda name: Named(tag, "LO", "1"))


def test_a_member_given_twice_is_refused() -> None:
    """A keyword and a tag of the same attribute don't silently win over one another."""
    with pytest.raises(ValueProblem, match="twice"):
        parse_value("SQ", "1", [{"a": "1", "b": "2"}], lambda name: Named(0x00100020, "LO", "1"))


def test_a_sequence_that_holds_itself_is_refused() -> None:
    """A YAML alias may hold itself, and ends as a mistake of the request."""
    item: dict[str, Any] = {}
    item["ContentSequence"] = [item]
    assert "in one another" in refusal("SQ", [item]).what


def test_an_item_with_a_character_set_of_its_own_is_encoded_in_it() -> None:
    """Text in an Item follows the Specific Character Set that the Item brings (PS3.5 7.5.3)."""
    value = parsed("SQ", [{**CODE, "SpecificCharacterSet": "ISO_IR 192"}])
    assert value.plain
    assert "Müller".encode() in encoded(value, EXPLICIT_LITTLE, "ISO_IR 100")
    assert "can't express" in refusal("SQ", [{**CODE, "SpecificCharacterSet": "ISO_IR 144"}]).what
    assert "can't express" in refusal("SQ", [{**CODE, "SpecificCharacterSet": "NO SUCH SET"}]).what


# --------------------------------------------------------------------------------------------------- documents, text


@pytest.mark.parametrize(
    ("uri", "mime_type"),
    [
        (PDF, "application/pdf"),
        ("data:text/xml;base64,PENsaW5pY2FsRG9jdW1lbnQvPg==", "text/xml"),
        ("data:model/stl;base64," + "A" * 112, "model/stl"),
        ("data:model/obj;base64,diAwIDAgMA==", "model/obj"),
        ("data:model/mtl;base64,bmV3bXRsIGE=", "model/mtl"),
        ("data:application/octet-stream;base64,AQID", ""),
    ],
)
def test_a_document_is_told_by_its_mime_type(uri: str, mime_type: str) -> None:
    """An Encapsulated Document comes with the MIME type of (0042,0012), checked against its first bytes."""
    assert parsed("OB", uri).mime_type == mime_type


def test_a_document_stands_in_encapsulated_document_only() -> None:
    """A member of an Item takes a document's bytes only where documents are."""
    assert "no place" in refusal("SQ", [{"ICCProfile": PDF}]).what
    assert parsed("SQ", [{"EncapsulatedDocument": PDF}]).items[0][0].value.mime_type == "application/pdf"


def test_text_is_the_same_everywhere_or_not() -> None:
    """What is ASCII is encoded alike under every character set; what isn't must ask for it."""
    assert parsed("LO", "Muller").plain and parsed("US", "1").plain and parsed("SQ", [{"CodeMeaning": "a"}]).plain
    assert not parsed("LO", "Müller").plain and not parsed("SQ", [CODE]).plain
    with pytest.raises(charset.Unencodable):
        encoded(parsed("LO", "漢"), EXPLICIT_LITTLE, "ISO_IR 100")


def test_a_value_is_never_shown() -> None:
    """The repr of a value tells its VR and nothing else: it may be a patient's name."""
    for value in (parsed("PN", "Bodox^Zelda"), parsed("SQ", [{"PatientName": "Bodox"}]), parsed("OF", "4711")):
        assert "Bodox" not in repr(value) and "4711" not in repr(value)


# --------------------------------------------------------------------------------------------------------- properties

TEXTS = st.text(st.characters(codec="utf-8"), max_size=70)


@given(st.sampled_from(sorted(values._FORMS)), TEXTS | st.text("0123456789.+-ABCYM^=\\ ", max_size=30))
def test_text_is_written_as_it_is_or_refused(vr: str, text: str) -> None:
    """For every text: it is written character for character, or refused; never shortened or mended."""
    try:
        value = parsed(vr, text)
    except ValueProblem:
        return
    raw = encoded(value, EXPLICIT_LITTLE, "ISO_IR 192")
    if not text.lower().startswith("data:"):
        assert raw.decode() == text
    if vr not in charset.VRS:
        assert raw.isascii()
        for one in [text] if vr == "UR" else text.split("\\"):
            validate_value(vr, one.rstrip(" ") or one, 2)


@given(st.data())
def test_numbers_are_read_back(data: st.DataObject) -> None:
    """For every number of a VR's range: pydicom reads the same in each encoding."""
    limits = {"US": (0, 2**16), "SS": (-(2**15), 2**15), "UL": (0, 2**32), "SL": (-(2**31), 2**31)}
    tags = {"US": 0x00280010, "SS": 0x00189219, "UL": 0x00081161, "SL": 0x00186020}
    vr = data.draw(st.sampled_from(sorted(limits)))
    low, high = limits[vr]
    number = data.draw(st.integers(low, high - 1))
    for encoding in ENCODINGS:
        raw = encoded(parsed(vr, str(number)), encoding, "")
        assert read(encoding.element(tags[vr], vr, raw), encoding)[tags[vr]].value == number
    assert "beyond" in refusal(vr, str(data.draw(st.sampled_from([low - 1, high])))).what


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_read_back(number: float) -> None:
    """For every finite number: FD holds it exactly, given as a number or as text."""
    for form in (number, repr(number)):
        assert struct.unpack("<d", encoded(parsed("FD", form), EXPLICIT_LITTLE, ""))[0] == number


@given(st.integers(0, 12), st.sampled_from(["1", "1-2", "1-n", "2-n", "2-2n", "3-3n", "6", "1-99", "", "4-5"]))
def test_values_are_counted(count: int, vm: str) -> None:
    """For every VM: as many values are taken as PS3.5 6.4 means by it, and none always."""
    allowed = {
        "1": {1},
        "1-2": {1, 2},
        "1-n": set(range(1, 13)),
        "2-n": set(range(2, 13)),
        "2-2n": {2, 4, 6, 8, 10, 12},
        "3-3n": {3, 6, 9, 12},
        "6": {6},
        "1-99": set(range(1, 13)),
        "": set(range(13)),
        "4-5": {4, 5},
    }
    text = "\\".join(["1"] * count)
    for vr in ("US", "IS"):
        if count in allowed[vm] | {0}:
            assert parsed(vr, text, vm).vr == vr
        else:
            assert "number of values" in refusal(vr, text, vm).what
