"""A request says exactly what is done; whatever is wrong with it is told at once, with its line, before anything runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomveil.errors import RequestError
from dicomveil.request import NOT_BUILT, SCHEMA, Request, parse_request

OTHERS = Request(supplement=False, reference_sequences="by-type", private_sop_class="strip", conflicts="distinct")


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
    text = "Supplement: maybe\n\nKeep: [StudyDate]\nDicomVersion: 2023b\nConflict: distinct\n"
    assert problems(text) == [
        ("r.yaml:1 Supplement", "write a boolean"),
        ("r.yaml:3 Keep", "leave it out"),
        ("r.yaml:4 DicomVersion", "write one of 2026d"),
        ("r.yaml:5 Conflict", "did you mean Conflicts?"),
    ]


def test_a_member_given_twice_is_a_mistake() -> None:
    """Of two values neither wins in silence."""
    assert problems("Supplement: true\nSupplement: false\n") == [("r.yaml:2 Supplement", "keep one of them")]


@pytest.mark.parametrize("member", sorted(NOT_BUILT))
def test_what_is_not_built_is_refused(member: str) -> None:
    """A member of Orthanc's body that has no effect yet is an error: a request is never obeyed in part."""
    with pytest.raises(RequestError, match="not built yet"):
        parse_request(f"{member}: true\n")
    assert member not in SCHEMA["properties"]


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
    ways = [Request(), *(Request(**{name: value}) for name, value in vars(OTHERS).items() if name != "dicom_version")]
    assert len({request.fingerprint for request in ways}) == len(ways)
    assert parse_request("Supplement: true").fingerprint == Request().fingerprint
    assert parse_request(str(OTHERS.members())) == OTHERS
