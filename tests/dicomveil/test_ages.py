"""CapAges: nobody is told apart by an age over 89, wherever it stands (`tests/cases/ages.yaml`)."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dicomveil import Deidentifier, ages, standard
from dicomveil.body import parse_request
from dicomveil.compile import compile_request
from dicomveil.decision import Decision
from dicomveil.errors import RequestError
from dicomveil.explain import told
from dicomveil.testing import BIG, CT, EXPLICIT, IMPLICIT
from tests.corpora import KEY
from tests.oracles.naive_reading import MARKS, Leaf, Line, Naive, Plan, Tree, instance, mismatches, read

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "ages.yaml").read_text(encoding="utf-8"))
SR = "1.2.840.10008.5.1.4.1.1.88.33"
AGE, BIRTH, ALTERNATIVE, SELECTOR = 0x00101010, 0x00100030, 0x00100033, 0x0072005F
STEP, SERIES, PRIVATE = 0x00400275, 0x00081115, "Zubikax Works"
CONTENT, MEASURED, NUMBER, UNITS = 0x0040A730, 0x0040A300, 0x0040A30A, 0x004008EA


@pytest.mark.parametrize(("before", "after"), CASES["values"].items(), ids=map(repr, CASES["values"]))
def test_an_age_over_89_becomes_one(before: str, after: str) -> None:
    """89 years stay, 90 and more are one age in whatever unit, and what is no age is nothing."""
    assert ages.capped(before) == (before if after == "as before" or after == before else after)


@pytest.mark.parametrize(("number", "unit", "old"), CASES["numbers"])
def test_a_measured_age_is_told_by_its_unit(number: str, unit: str, old: bool) -> None:
    """100 months are no age over 89; a unit that nobody knows is taken for years."""
    assert ages.is_old(number, unit) is old


@given(st.integers(0, 9999), st.sampled_from("DWMY"))
def test_no_legal_age_over_89_is_left(number: int, unit: str) -> None:
    """For every age: what comes out tells at most 90 years, is legal, and is the same when capped again."""
    new = ages.capped(f"{number:03}{unit}")
    years = int(new[:-1]) / {"D": 365.2425, "W": 52.1775, "M": 12, "Y": 1}[new[-1]]
    assert years <= 90 and re.fullmatch(r"\d{3,5}[DWMY]", new) and ages.capped(new) == new
    assert (new == f"{number:03}{unit}") or new == "090Y"


def everywhere(age: str) -> Plan:
    """An age at the top, in Items, in a sequence that is kept, in private elements; and a birth date."""
    inside: Plan = {AGE: ("AS", age), BIRTH: ("DA", "19240301"), SELECTOR: ("AS", f"045Y\\{age}")}
    private: Plan = {0x00290010: ("LO", PRIVATE), 0x00291001: ("AS", age), 0x00291003: ("SQ", b"")}
    return {
        **private, **inside, ALTERNATIVE: ("LO", "Zubikax 1924"), 0x00080020: ("DA", "20240315"), STEP: [inside],
        SERIES: [{**inside, **private, 0x00081199: [inside]}],
    }  # fmt: skip


KEPT = ("PatientAge", "RequestAttributesSequence", "0072,005F")


@pytest.mark.parametrize("age", ["091Y", "089Y", "1100M", "033000D", "ninety"])
@pytest.mark.parametrize("uid", [EXPLICIT, BIG])
@pytest.mark.parametrize("supplement", [True, False])
def test_ages_are_capped_wherever_they_stay(age: str, uid: str, supplement: bool) -> None:
    """At any depth, in sequences and private elements that are kept, by name and by Option; all else is as without."""
    body = {
        "CapAges": True, "KeepPrivateTags": True, "Keep": list(KEPT), "Supplement": supplement,
        "Options": ["RetainPatientCharacteristics"],
    }  # fmt: skip
    data = instance(everywhere(age), CT, uid)
    out = read(Deidentifier(parse_request(str(body)), key=KEY).rewrite(data))
    for mark in MARKS:
        out.pop(mark, None)
    lines = (Line("keep", "00101010"), Line("keep", "00400275"), Line("keep", "0072005F"))
    naive = Naive(
        options=("RetainPatientCharacteristics",), lines=lines, keep_private=True, ours=supplement, cap_ages=True
    )
    assert list(mismatches(naive.expected(read(data)), out)) == []
    assert (age in str(out)) == (age == "089Y")


def test_a_private_age_is_known_by_the_dictionary_where_the_encoding_is_silent() -> None:
    """In implicit VR a private AS is one that the request's dictionary calls so."""
    plan: Plan = {0x00290010: ("LO", PRIVATE), 0x00291001: ("AS", "095Y"), 0x00291002: ("AS", "045Y")}
    body = {
        "CapAges": True, "Keep": [f"(0029,[{PRIVATE}],01)", f"(0029,[{PRIVATE}],02)"],
        "PrivateDictionary": {"0029,01": ["AS", "One", "1", PRIVATE], "0029,02": ["AS", "Two", "1", PRIVATE]},
    }  # fmt: skip
    out = read(Deidentifier(parse_request(str(body)), key=KEY).rewrite(instance(plan, CT, IMPLICIT)))
    assert [out[tag].raw for tag in (0x00290010, 0x00291001, 0x00291002) if isinstance(out[tag], Leaf)] == [
        b"Zubikax Works ", b"090Y", b"045Y",
    ]  # fmt: skip


def age_item(concept: tuple[str, str], number: str, unit: str) -> Plan:
    """A NUM item: an age by its concept name."""
    return {
        0x0040A010: ("CS", "HAS OBS CONTEXT"), 0x0040A040: ("CS", "NUM"), 0x0040A043: [code(*concept)],
        MEASURED: [{UNITS: [code("UCUM", unit)], NUMBER: ("DS", number), 0x0040A161: ("FD", bytes(8))}],
    }  # fmt: skip


def code(scheme: str, value: str) -> Plan:
    return {0x00080100: ("SH", value), 0x00080102: ("SH", scheme), 0x00080104: ("LO", "Something")}


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("concept", sorted(ages.CONCEPTS))
@pytest.mark.parametrize(("number", "unit"), [("95", "a"), ("45", "a"), ("1200", "mo"), ("100", "mo"), ("34000", "d")])
def test_an_age_in_a_report_is_capped(concept: tuple[str, str], number: str, unit: str, undefined: bool) -> None:
    """A NUM item that is called an age tells 90 years at most; another number of the same size stays."""
    other = age_item(("SCT", "118565006"), "95", "a")
    data = instance({CONTENT: [age_item(concept, number, unit), other]}, SR, undefined=undefined)
    request = {"CapAges": True, "Options": ["CleanStructuredContent", "RetainPatientCharacteristics"]}
    out = read(Deidentifier(parse_request(str(request)), key=KEY).rewrite(data))
    first, second = out[CONTENT]
    assert measured(second) == ("95", "a")
    assert measured(first) == (("90", "a") if ages.is_old(number, unit) else (number, unit))
    assert (0x0040A161 in first[MEASURED][0]) is not ages.is_old(number, unit)


def measured(item: Tree) -> tuple[str, str]:
    """The number of a NUM item, and the code of its unit."""
    (value,) = item[MEASURED]
    return value[NUMBER].text, value[UNITS][0][0x00080100].text


@pytest.mark.parametrize(
    "line", ["PatientBirthDate", "0010,003x", "SourceImageSequence[*].PatientBirthDate", "0010,0033"]
)
def test_a_kept_birth_date_and_capped_ages_contradict_each_other(line: str) -> None:
    """A birth date tells the age that is to be capped: whoever asks for both hears of it."""
    with pytest.raises(RequestError, match="keeps a birth date") as refused:
        parse_request(f"CapAges: true\nKeep: [StudyDescription, '{line}']\n")
    assert [problem.where for problem in refused.value.problems] == ["request:2 Keep[1]"]
    assert parse_request(f"Keep: ['{line}']").keep


def test_only_ages_and_birth_dates_that_stay_get_another_decision() -> None:
    """With the member every other attribute is treated as without it, and without it ages that stay are copied."""
    plain, capped = (
        compile_request(parse_request(f"{{Keep: [PatientAge], CapAges: {switch}}}")).node(CT)
        for switch in ("false", "true")
    )
    unlike = [
        tag
        for tag in standard.dictionary()
        if tag >> 16 > 4 and _said(plain[tag]) != _said(capped[tag]) and tag not in MARKS
    ]
    assert unlike == [AGE] and plain[AGE] is None


def _said(decision: Decision | None) -> tuple[object, ...]:
    return (decision.action, decision.rule, decision.literal) if decision else ()


def test_explain_tells_what_is_capped() -> None:
    """The statement says of ages that stay what becomes of them."""
    becomes = {it.keyword: (it.becomes, it.rule) for it in told(parse_request("{Keep: [PatientAge], CapAges: true}"))}
    assert becomes["PatientAge"] == ("kept up to 89 years; above that 090Y", "CapAges")
