"""Numbers as keyed pseudonyms, and names by a template: what a request may ask for in the place of nothing."""

import base64
import io

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomveil import Deidentifier
from dicomveil.body import parse_request
from dicomveil.compile import compile_request
from dicomveil.errors import RequestError
from dicomveil.explain import told
from dicomveil.keys import Keys
from dicomveil.pseudonyms import FIELD, number_pseudonym, patient_name, patient_pseudonym
from dicomveil.rewrite import Rewriter
from dicomveil.scan import scan_instance
from dicomveil.standard import non_patient_sop_classes
from dicomveil.stream import BytesSource
from dicomveil.study import Identities, build_study_map
from dicomveil.testing import BIG, CT, EXPLICIT, IMPLICIT
from tests.corpora import KEY
from tests.oracles.naive_reading import MARKS, Naive, Plan, instance, mismatches, read

KEYS = Keys(KEY)
ACCESSION, STUDY_ID, REQUEST, DEEP = 0x00080050, 0x00200010, 0x00400275, 0x00081115
PALETTE = "1.2.840.10008.5.1.4.39.1"
BOTH = "Pseudonyms: [AccessionNumber, StudyID]\n"
SHORT = st.text(st.characters(codec="latin-1", exclude_categories=("Cc",), exclude_characters="\\"), max_size=16)


def deidentified(text: str, plan: Plan, key: bytes = KEY, uid: str = EXPLICIT, sop_class: str = CT) -> pydicom.Dataset:
    data = instance({0x00080005: ("CS", "ISO_IR 100"), 0x00100020: ("LO", "4711"), **plan}, sop_class, uid)
    return pydicom.dcmread(io.BytesIO(Deidentifier(parse_request(text), key=key).rewrite(data)))


# ---------------------------------------------------------------------------------------------------------- numbers


@settings(max_examples=60, deadline=None)
@given(st.lists(SHORT, min_size=4, max_size=4), st.sampled_from([EXPLICIT, IMPLICIT, BIG]))
def test_numbers_become_keyed_pseudonyms_at_every_depth(numbers: list[str], uid: str) -> None:
    """For every number, at the top and in Items: 16 legal characters where there was anything, and the same again."""
    encoded = [number.encode("latin-1") for number in numbers]
    padded = [number + b" " * (len(number) % 2) for number in encoded]
    inside: Plan = {ACCESSION: ("SH", padded[2]), STUDY_ID: ("SH", padded[3])}
    plan: Plan = {
        0x00080005: ("CS", "ISO_IR 100"), ACCESSION: ("SH", padded[0]), STUDY_ID: ("SH", padded[1]),
        DEEP: [{0x00081199: [inside], **inside}],
    }  # fmt: skip
    data = instance(plan, CT, uid)
    out = read(Deidentifier(parse_request(BOTH), key=KEY).rewrite(data))
    for mark in MARKS:
        out.pop(mark, None)
    assert list(mismatches(Naive(pseudonyms=(ACCESSION, STUDY_ID)).expected(read(data)), out)) == []
    for tag, number in ((ACCESSION, numbers[0]), (STUDY_ID, numbers[1])):
        assert len(out[tag].text) == (16 if number.strip(" ") else 0)


@given(st.text(), st.text(), st.sampled_from(["accession", "study-id"]))
def test_equal_numbers_stay_equal_and_others_dont(one: str, other: str, label: str) -> None:
    """Blanks around it aside a number is its pseudonym's only source; nothing shows that two attributes hold the same."""
    new = number_pseudonym(KEYS, label, one)
    assert new == number_pseudonym(Keys(KEY), label, f" {one}\0 ") or not one.strip(" \0")
    assert (new == number_pseudonym(KEYS, label, other)) is (one.strip(" \0") == other.strip(" \0"))
    if one.strip(" \0"):
        assert len(base64.b32decode(new)) == 10
        assert new != number_pseudonym(Keys(bytes(range(32))), label, one)
        assert number_pseudonym(KEYS, "accession", one) != number_pseudonym(KEYS, "study-id", one)


def test_only_what_is_asked_for_becomes_a_pseudonym() -> None:
    """Without the member, and beside it, numbers are emptied as the table says; an empty one stays empty."""
    plan: Plan = {ACCESSION: ("SH", "A 815"), STUDY_ID: ("SH", "7"), REQUEST: [{ACCESSION: ("SH", "A 815")}]}
    ds = deidentified("Pseudonyms: [StudyID]", plan)
    assert (ds.AccessionNumber, ds.StudyID) == ("", number_pseudonym(KEYS, "study-id", "7"))
    both = deidentified("{Pseudonyms: [AccessionNumber], Options: [CleanDescriptors]}", {**plan, STUDY_ID: ("SH", " ")})
    assert both.AccessionNumber == number_pseudonym(KEYS, "accession", "A 815") and both.StudyID == ""
    assert deidentified("{}", plan).AccessionNumber == ""


def test_a_pseudonym_is_recorded_and_the_profile_still_claimed() -> None:
    """Z allows a dummy (PS3.15 Table E.1-1a): the audit says D and what asked for it, the output claims the profile."""
    data = instance({ACCESSION: ("SH", "A 815"), DEEP: [{STUDY_ID: ("SH", "")}, {STUDY_ID: ("SH", "7")}]})
    request = parse_request(BOTH)
    source = BytesSource(data)
    scan = scan_instance(source)
    rewritten = Rewriter(compile_request(request), KEYS).rewrite(
        source, scan, build_study_map([scan], Identities(KEYS, request))
    )
    changes = [(it.path, it.keyword, it.vr, it.action) for it in rewritten.changes if it.rule == "Pseudonyms"]
    assert changes == [
        ("(0008,0050)", "AccessionNumber", "SH", "D"), ("(0008,1115)[1].(0020,0010)", "StudyID", "SH", "D"),
    ]  # fmt: skip
    ds = pydicom.dcmread(io.BytesIO(rewritten.to_bytes()))
    assert [item.CodeValue for item in ds.DeidentificationMethodCodeSequence] == ["113100"]
    becomes = {it.keyword: (it.becomes, it.rule) for it in told(request)}
    assert becomes["StudyID"] == ("replaced by a keyed pseudonym; empty stays empty", "Pseudonyms")


def test_a_path_wins_in_its_items() -> None:
    """What the request says of an Item by a path is what happens there."""
    plan: Plan = {ACCESSION: ("SH", "A 815"), DEEP: [{ACCESSION: ("SH", "A 815")}, {ACCESSION: ("SH", "A 815")}]}
    sequence = "ReferencedSeriesSequence"
    text = BOTH + f"Keep: ['{sequence}[0].AccessionNumber']\nRemove: ['{sequence}[1].AccessionNumber']"
    ds = deidentified(text, plan)
    kept, removed = ds.ReferencedSeriesSequence
    assert kept.AccessionNumber == "A 815" and "AccessionNumber" not in removed
    assert ds.AccessionNumber == number_pseudonym(KEYS, "accession", "A 815")
    frozen = deidentified(BOTH + f"Keep: [{sequence}]", plan).ReferencedSeriesSequence
    assert [item.AccessionNumber for item in frozen] == ["A 815", "A 815"]


def test_a_number_is_read_in_its_character_set() -> None:
    """The same text in two character sets is the same number."""
    one = deidentified(BOTH, {0x00080005: ("CS", "ISO_IR 192"), ACCESSION: ("SH", "Ä815".encode() + b" ")})
    other = deidentified(BOTH, {0x00080005: ("CS", "ISO_IR 100"), ACCESSION: ("SH", "Ä815".encode("latin-1"))})
    assert one.AccessionNumber == other.AccessionNumber == number_pseudonym(KEYS, "accession", "Ä815")


# ------------------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{PatientID}", "{}"),
        ("Subject^{PatientID}", "Subject^{}"),
        ("{PatientID}^{PatientID}", "{0}^{0}"),
        ("Somebody", "Somebody"),
        ("Pröband^{PatientID}", "Pröband^{}"),
        ("Πρό^{PatientID}", "Πρό^{}"),
        ("Yamada^{PatientID}=山田^太郎", "Yamada^{}=山田^太郎"),
    ],
)
@pytest.mark.parametrize("uid", [EXPLICIT, IMPLICIT, BIG])
def test_a_name_follows_its_template(template: str, name: str, uid: str) -> None:
    """The patient's pseudonym takes the field's place, at the top level alone; text that the data set's character set
    lacks makes it UTF-8."""
    plan: Plan = {0x00100010: ("PN", "Bodox^Kalex"), DEEP: [{0x00100010: ("PN", "Bodox^Kalex")}]}
    ds = deidentified(f"PatientNameTemplate: '{template}'", plan, uid=uid)
    pseudonym = patient_pseudonym(KEYS, "4711")
    assert str(ds.PatientName) == name.format(pseudonym) and ds.PatientID == pseudonym
    assert str(ds.ReferencedSeriesSequence[0].PatientName) == ""
    assert ds.SpecificCharacterSet == ("ISO_IR 100" if template.isascii() or "ö" in template else "ISO_IR 192")


def test_the_default_template_changes_nothing() -> None:
    """Who says nothing of names gets the pseudonym, also where the request gives the Patient ID."""
    plan: Plan = {0x00100010: ("PN", "Bodox^Kalex")}
    for more in ("", "\nForce: true\nReplace: {PatientID: T1}", "\nForce: true\nKeep: [PatientID]"):
        one, other = (deidentified(f"{text}{more}", plan) for text in ("{}"[:0], f"PatientNameTemplate: '{FIELD}'"))
        assert one == other and str(one.PatientName) == patient_pseudonym(KEYS, "4711")


def test_what_is_no_patients_gets_no_name() -> None:
    """An object without a patient has none to be named by."""
    assert patient_name("Subject^{PatientID}", "") == ""
    assert patient_name("Subject^{PatientID}", "x" * 60) == "x" * 60
    assert PALETTE in non_patient_sop_classes()
    ds = deidentified("PatientNameTemplate: Subject", {0x00100010: ("PN", "Bodox")}, sop_class=PALETTE)
    assert str(ds.PatientName) == ""


def test_explain_tells_of_a_template() -> None:
    """The statement says where the name comes from."""
    for template, becomes in ((FIELD, "the patient's pseudonym"), ("A^{PatientID}", "the request's template")):
        names = {it.keyword: it.becomes for it in told(parse_request(f"PatientNameTemplate: '{template}'"))}
        assert names["PatientName"] == f"replaced by {becomes}"


LONG = "x" * 46
MISTAKES = {
    "another field": ("PatientNameTemplate: '{StudyID}'", "write {PatientID}"),
    "a conversion": ("PatientNameTemplate: '{PatientID!r}'", "write {PatientID}"),
    "an attribute of a field": ("PatientNameTemplate: '{PatientID.__class__}'", "write {PatientID}"),
    "an open brace": ("PatientNameTemplate: 'A{'", "write {PatientID}"),
    "doubled braces": ("PatientNameTemplate: '{{PatientID}}'", "write {PatientID}"),
    "nothing": ("PatientNameTemplate: ''", "leave it out"),
    "blanks": ("PatientNameTemplate: '  '", "leave it out"),
    "two names": ("PatientNameTemplate: 'A\\B'", ""),
    "four groups": ("PatientNameTemplate: 'A=B=C=D'", ""),
    "a line": ('PatientNameTemplate: "A\\nB"', ""),
    "too long with the longest Patient ID": (f"PatientNameTemplate: '{LONG}x{{PatientID}}'", ""),
    "a mapping": ("PatientNameTemplate: {PatientID}", "write text"),
    "a name that is replaced": ("PatientNameTemplate: 'A'\nReplace: {PatientName: B}", "leave one of them out"),
    "a name that is kept": ("PatientNameTemplate: 'A'\nKeep: [PatientName]", "leave one of them out"),
    "a name that is removed": ("PatientNameTemplate: 'A'\nRemove: ['0010,00xx']", "leave one of them out"),
    "a number that is kept": (BOTH + "Keep: [AccessionNumber]", "leave one of them out"),
    "a number that is replaced": (BOTH + "Replace: {StudyID: '1'}", "leave one of them out"),
    "a number that is replaced everywhere": (BOTH + "Replace: {'**.StudyID': '1'}", "leave one of them out"),
    "a number that is removed": (BOTH + "Remove: ['0020,0010']", "leave one of them out"),
    "another number": ("Pseudonyms: [AdmissionID]", "write one of AccessionNumber, StudyID"),
    "a number twice": ("Pseudonyms: [StudyID, StudyID]", "keep one of them"),
}


@pytest.mark.parametrize(("text", "remedy"), MISTAKES.values(), ids=MISTAKES)
def test_what_cant_be_a_name_or_a_pseudonym_is_told(text: str, remedy: str) -> None:
    """A template that could give an illegal name, and members that undo each other, are mistakes before anything runs."""
    with pytest.raises(RequestError) as refused:
        parse_request(text)
    assert any(remedy in it.remedy for it in refused.value.problems)
    assert "xxx" not in str(refused.value)


def test_the_longest_template_is_one_that_just_fits() -> None:
    """64 characters are what a component group of PN may hold (PS3.5 6.2)."""
    ds = deidentified(f"PatientNameTemplate: '{LONG}{FIELD}'", {0x00100010: ("PN", "Bodox")})
    assert len(str(ds.PatientName)) == 64


def test_members_survive_being_written_down() -> None:
    """A request written out in full is the same request; one default beside a rule of the request is no mistake."""
    texts = ("Replace: {PatientName: A}", BOTH, "PatientNameTemplate: A", "CapAges: true", "Pseudonyms: [StudyID]")
    requests = [parse_request(text) for text in texts]
    assert [parse_request(str(request.members())) for request in requests] == requests
    assert len({request.fingerprint for request in requests}) == len(requests)
    assert parse_request("Pseudonyms: [StudyID, AccessionNumber]") == parse_request(BOTH)
