"""A request names attributes in Orthanc's ways and ours; what could mean something else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomveil import standard
from dicomveil.paths import EVERY, AttributePath, Step, parse_path
from dicomveil.tags import WHOLE, Attribute, NameProblem, PrivateEntry

SEQUENCES = sorted(tag for tag, it in standard.dictionary().items() if it.vr == "SQ" and tag >> 16 not in (0, 2, 4))
TAGS = sorted(tag for tag in standard.dictionary() if tag >> 16 not in (0, 2, 4, 0xFFFE) and tag & 0xFFFF)

MEANT = {
    "PatientName": "(0010,0010)",
    " 0010,0010 ": "(0010,0010)",
    "(0010-0010)": "(0010,0010)",
    "00100010": "(0010,0010)",
    "50xx,xxxx": "(50xx,xxxx)",
    "OverlayData": "(60xx,3000)",
    "(7053,[Philips PET Private Group],00)": "(7053,[Philips PET Private Group],00)",
    "7053,[A.B (C)],xx09": "(7053,[A.B (C)],09)",
    "7053,1000": "(7053,1000)",
    "**.StudyDescription": "**.(0008,1030)",
    "ReferencedSeriesSequence[0].(0010,4000)": "(0008,1115)[0].(0010,4000)",
    " ReferencedSeriesSequence [ * ] . PatientComments ": "(0008,1115)[*].(0010,4000)",
    "PerFrameFunctionalGroupsSequence[*].2005,140f[1].SOPInstanceUID": "(5200,9230)[*].(2005,140F)[1].(0008,0018)",
    "(2005,[Philips MR Imaging DD 005],0f)[*].StudyDate": "(2005,[Philips MR Imaging DD 005],0F)[*].(0008,0020)",
}


@pytest.mark.parametrize("text", MEANT)
def test_every_spelling_has_one_meaning(text: str) -> None:
    """However an attribute and its place are written, they are told in the Standard's one way."""
    assert parse_path(text).text() == MEANT[text]


REFUSED = [
    "", ".", "patientname", "Patient's Name", "0010,40*", "10,4000", "0x0010,0x4000", "0010,0010,0010", "xxxx,0010",
    "0002,0010", "FFFE,E000", "0008,0000", "0010,9999", "(0010,0010", "0010,[A],10", "0011,[],10", "0011,[A],1000",
    "PatientName[0].CodeMeaning", "ReferencedSeriesSequence.PatientID", "ReferencedSeriesSequence[].PatientID",
    "ReferencedSeriesSequence[-1].PatientID", "ReferencedSeriesSequence[x].PatientID", "ReferencedSeriesSequence[0]",
    "ReferencedSeriesSequence[0].", "ReferencedSeriesSequence[0..1].PatientID", "**.**.PatientID", "**",
    "ReferencedSeriesSequence[99999999999].PatientID", "**.ReferencedSeriesSequence[0].PatientID",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_what_could_mean_something_else_is_refused(text: str) -> None:
    """A slip of the pen is an error with a remedy, and never another attribute (Orthanc reads 0010,40* as 0010,0040)."""
    with pytest.raises(NameProblem) as refused:
        parse_path(text)
    assert refused.value.what and refused.value.remedy


attributes = st.one_of(
    st.sampled_from(TAGS).map(Attribute),
    st.builds(lambda element: Attribute(0x00110000 | element), st.integers(0x1000, 0xFFFF)),
    st.builds(lambda low, creator: Attribute(0x00110000 | low, 0xFFFF00FF, creator), st.integers(0, 255),
              st.text("AB .()-_^", min_size=1).map(str.strip).filter(bool)),
)  # fmt: skip
steps = st.lists(st.builds(Step, st.sampled_from(SEQUENCES).map(Attribute), st.integers(EVERY, 99)), max_size=3)
paths = st.one_of(
    st.builds(lambda attribute, way: AttributePath(attribute, tuple(way)), attributes, steps),
    st.builds(lambda attribute: AttributePath(attribute, anywhere=True), attributes),
)


@given(paths)
def test_what_is_told_reads_back(path: AttributePath) -> None:
    """The spelling in which a path is told is one that a request may use, and means the same."""
    assert parse_path(path.text()) == path


@given(st.text(max_size=40))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    """Whatever is written, it names something or is refused with a remedy."""
    try:
        assert parse_path(parse_path(text).text()) == parse_path(text)
    except NameProblem as refused:
        assert refused.what


@given(st.sampled_from(TAGS), st.sampled_from(TAGS))
def test_a_tag_means_itself_alone(one: int, other: int) -> None:
    """An attribute named by its tag is that attribute and no other."""
    assert Attribute(one).matches(one) and Attribute(one).matches(other) == (one == other)


@given(st.integers(0x10, 0xFF), st.integers(0, 0xFF), st.integers(0, 0xFF))
def test_a_private_element_is_known_in_any_block(block: int, low: int, other: int) -> None:
    """Group, Private Creator and low byte name a private element, whatever block it stands in (PS3.5 7.8.1)."""
    attribute = Attribute(0x00110000 | low, 0xFFFF00FF, "MAKER")
    tag = 0x00110000 | block << 8 | other
    assert attribute.matches(tag, "MAKER") == (low == other)
    assert not attribute.matches(tag, "OTHER") and not attribute.matches(0x00110000 | low, "MAKER")


def test_a_request_may_name_private_elements_itself() -> None:
    """A keyword of the request's own dictionary means its private element."""
    entry = PrivateEntry(Attribute(0x00110010, 0xFFFF00FF, "MAKER"), "LO", "1")
    assert parse_path("Comment", {"Comment": entry}).attribute == entry.attribute
    assert WHOLE == 0xFFFFFFFF and not entry.attribute.exact
