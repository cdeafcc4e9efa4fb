"""A request says exactly what is done; whatever is wrong with it is told at once, with its line, before anything runs."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomveil.body import parse_request
from dicomveil.errors import RequestError
from dicomveil.request import Request
from tests.recipients import recipient

CHANGED = {"supplement": False, "reference_sequences": "by-type", "private_sop_class": "strip", "conflicts": "distinct"}
OTHERS = Request(**CHANGED)


def problems(text: str, name: str = "r.yaml") -> list[tuple[str, str]]:
    """Where each mistake stands, and its remedy."""
    with pytest.raises(RequestError) as refused:
        parse_request(text, name)
    return [(problem.where, problem.remedy) for problem in refused.value.problems]


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "{}", "---\n"])
def test_an_empty_request_is_the_basic_profile(text: str) -> None:
    """Who asks for nothing in particular gets the Basic Profile of the newest edition."""
    assert parse_request(text) == Request()


FORMS = {
    "YAML": "Supplement: false\nReferenceSequences: by-type\nPrivateSOPClass: strip\nConflicts: distinct\n",
    "JSON": '{"Supplement": false, "ReferenceSequences": "by-type",\n "PrivateSOPClass": "strip", "Conflicts": "distinct"}',
    "JSON with tabs": '{\n\t"Supplement": false,\n\t"ReferenceSequences": "by-type",\n\t"PrivateSOPClass": "strip",\n'
    '\t"Conflicts": "distinct"\n}',
    "byte order mark": '\ufeff{"Supplement": false, "ReferenceSequences": "by-type", "PrivateSOPClass": "strip", '
    '"Conflicts": "distinct"}',
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_yaml_and_json_say_the_same(text: str) -> None:
    """A request means the same in either notation, and has one fingerprint."""
    assert parse_request(text) == OTHERS
    assert parse_request(text).fingerprint == OTHERS.fingerprint


def test_all_mistakes_are_told_at_once_in_the_order_of_lines() -> None:
    """Nobody has to try again and again: file, line and member of every mistake come together."""
    text = "Supplement: maybe\n\nKeep: [StudyDay]\nDicomVersion: 2023z\nConflict: distinct\n"
    assert problems(text) == [
        ("r.yaml:1 Supplement", "write true or false"),
        ("r.yaml:3 Keep[0]", "did you mean StudyDate?"),
        ("r.yaml:4 DicomVersion", "did you mean 2023b?"),
        ("r.yaml:5 Conflict", "did you mean Conflicts?"),
    ]


@pytest.mark.parametrize("text", ["DicomVersion: 2008", "DicomVersion: '2008'", '{"DicomVersion": 2008}'])
def test_an_edition_named_by_its_year_alone_may_be_a_number(text: str) -> None:
    """YAML takes 2008 for a number; the edition is meant all the same."""
    assert parse_request(text).dicom_version == "2008"


def test_a_value_of_a_form_is_told_its_form_also_where_it_is_too_long() -> None:
    """A date with dashes is told how a date is written, not that it should lose two characters."""
    assert problems("Replace: {StudyDate: 2024-01-01, StudyID: 12345678901234567}") == [
        ("r.yaml:1 Replace StudyDate", "write YYYYMMDD, a day of the calendar"),
        ("r.yaml:1 Replace StudyID", "write up to 16 characters"),
    ]


def test_a_member_given_twice_is_a_mistake() -> None:
    """Of two values neither wins in silence."""
    assert problems("Supplement: true\nSupplement: false\n") == [("r.yaml:2 Supplement", "keep one of them")]


BROKEN = {
    "another document": ("a: 1\n---\nb: 2\n", "my request.yaml:2"),
    "unclosed": ("Supplement: [\n", "my request.yaml:2"),
    "a tag": ("\nSupplement: !!python/name:os.system ''\n", "my request.yaml:2"),
    "a list for a name": ("? [a, b]\n: 1\n", "my request.yaml:1"),
    "a list": ("- Supplement\n", "my request.yaml:1"),
    "a word": ("Supplement\n", "my request.yaml:1"),
    "no text": ("\0", "my request.yaml"),
    "no number": ("Supplement: !!int x\n", "my request.yaml"),
    "a date": ("DicomVersion: 2026-13-45\n", "my request.yaml:1 DicomVersion"),
    "nested without end": ("Supplement: " + "[" * 5000, "my request.yaml"),
}


@pytest.mark.parametrize(("text", "where"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_request_is_refused_with_its_line(text: str, where: str) -> None:
    """Text that can't be read as a request gets one message, and never a traceback; its name may hold blanks."""
    assert [place for place, _ in problems(text, "my request.yaml")] == [where]


@given(st.text(max_size=60))
def test_any_text_is_a_request_or_refused(text: str) -> None:
    """Whatever stands in the file, nothing but RequestError comes out."""
    try:
        parse_request(text)
    except RequestError as refused:
        assert refused.problems


def test_values_are_not_repeated_in_messages() -> None:
    """A message names the member and what it may be, not what was written."""
    with pytest.raises(RequestError) as refused:
        parse_request("DicomVersion: Zubikax\nSupplement: Wolemix\n")
    assert "Zubikax" not in str(refused.value) and "Wolemix" not in str(refused.value)


def test_a_fingerprint_tells_requests_apart() -> None:
    """Two requests that ask for different things never share a fingerprint; how they are written doesn't matter."""
    ways = [Request(), *(Request(**{name: value}) for name, value in CHANGED.items())]
    assert len({request.fingerprint for request in ways}) == len(ways)
    assert parse_request("Supplement: true").fingerprint == Request().fingerprint
    assert parse_request(str(OTHERS.members())) == OTHERS


MISTAKES = {
    "a VM that there isn't": ('PrivateDictionary: {"0009,01": [LO, Foo, abc, X]}\nReplace: {Foo: v}', 1),
    "a keyword of PS3.6 for a private element": ('PrivateDictionary: {"0009,01": [LO, PatientName, 1, X]}', 1),
    "an endless number": ("Force: false\nUserData: 0x" + "f" * 5000, 2),
    "no number": ("UserData: [1,\n .nan]", 2),
    "an alias": ("Keep: &it [StudyDate]\nRemove: *it", 2),
    "aliases of aliases": ("UserData:\n- &a [x, x]\n- &b [*a, *a]\n- [*b, *b]", 3),
    "a Private Creator with a backslash": ('{"PrivateCreator": "A\\\\B"}', 1),
    "a Private Creator that is too long": ("Keep:\n- (0009,[" + "x" * 65 + "],01)", 2),
}


@pytest.mark.parametrize(("text", "line"), MISTAKES.values(), ids=MISTAKES)
def test_what_no_request_can_hold_is_told_with_its_line(text: str, line: int) -> None:
    """Nothing but a mistake with its line comes of what can't be obeyed, be it endless."""
    where = problems(text)[0][0]
    assert where.partition(" ")[0].strip(":") == f"r.yaml:{line}"


SECRETS = [
    "Replace: {PatientName: *Doe}",
    "Replace: {FrameIncrementPointer: Doe^John}",
    "Replace: {ReferencedImageSequence: [{Doe^John: x}]}",
    "Replace: {StudyDate: Doe, PatientSex: doe}",
    'Replace: {PatientName: "\\Doe"}',
]


@pytest.mark.parametrize("text", SECRETS)
def test_no_value_of_a_body_is_told(text: str) -> None:
    """A value may be somebody's, and messages end up in logs."""
    with pytest.raises(RequestError) as refused:
        parse_request(text)
    assert "doe" not in str(refused.value).lower()


def test_a_character_that_json_writes_as_two_escapes_is_one() -> None:
    """Bodies that other programs write hold characters beyond FFFF as surrogate pairs (RFC 8259)."""
    text = json.dumps({"Replace": {"PatientName": "\U00020bb7野", "AdditionalPatientHistory": "\\\\ud842"}})
    assert [it.value.text for it in parse_request(text).replace] == ["\U00020bb7野", "\\\\ud842"]


def test_mistakes_in_safe_private_come_with_the_others() -> None:
    """Members whose names begin alike don't hide each other's mistakes, and the last is told with the first."""
    text = "KeepPrivateTags: 3\nKeep: [Foo]\nSafePrivate: [Bar]"
    assert [where for where, _ in problems(text)] == [
        "r.yaml:1 KeepPrivateTags",
        "r.yaml:2 Keep[0]",
        "r.yaml:3 SafePrivate[0]",
    ]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, True),
        ({"EncryptAttributes": ["0008,0018"]}, True),
        ({"EncryptAttributes": ["PatientName"]}, False),
        ({"Transcode": "RLELossless"}, False),
        ({"Force": True}, False),
    ],
)
def test_lossy_pixels_never_get_their_sop_instance_uid_back(more: dict[str, Any], told: bool) -> None:
    """Who is given the way back would else have other pixels under the original's UID (PS3.3 C.7.6.1.1.5)."""
    text = json.dumps({"EncryptFor": [recipient().pem], "Transcode": "JPEG2000"} | more)
    if told:
        assert problems(text) == [
            ("r.yaml:1 Transcode", "name in EncryptAttributes what else is encrypted, or add Force: true")
        ]
    else:
        parse_request(text)
