"""What `explain` tells is what the decision table does."""

import re
from collections import Counter

import pytest

from dicomveil import standard
from dicomveil.body import parse_request
from dicomveil.compile import compile_request
from dicomveil.explain import difference, explain
from dicomveil.request import Request
from dicomveil.schema import OPTIONS

LINE = re.compile(r"\| (\([0-9A-F]{4},[0-9A-F]{4}\)) \| (\w+) \| (.+) \| (.+) \|")
OUTSIDE_DATA_SETS = ("(0000,", "(0002,", "(0004,")


def told(request: Request) -> dict[str, tuple[str, str, str]]:
    """(keyword, what becomes of it, rule), by tag; each tag is told once."""
    lines = [match.groups() for match in map(LINE.fullmatch, explain(request).splitlines()) if match]
    assert [tag for tag, count in Counter(tag for tag, *_ in lines).items() if count > 1] == []
    return {tag: (keyword, becomes, rule) for tag, keyword, becomes, rule in lines}


def test_every_row_of_the_standard_is_told() -> None:
    """Each attribute that Table E.1-1 names is told under its own name, and the table named as what says so."""
    found = told(Request())
    for row in standard.rows("2026d"):
        if re.fullmatch(r"\([0-9A-F]{4},[0-9A-F]{4}\)", row.tag) and not row.tag.startswith(OUTSIDE_DATA_SETS):
            keyword, _, rule = found[row.tag]
            assert keyword == row.keyword
            assert rule.startswith(("E.1-1 2026d", "mark")) or row.keyword == "DeidentificationMethod"


def test_what_depends_on_the_sop_class_says_so() -> None:
    """A compound code is told as one, since what becomes of the attribute depends on its Type in the IOD (E.1.1)."""
    found = told(Request())
    codes = {row.tag: row.basic for row in standard.rows("2026d")}
    for keyword, tag in {"SeriesDate": "(0008,0021)", "ContentDate": "(0008,0023)"}.items():
        assert found[tag][0] == keyword
        assert codes[tag] in found[tag][1]


@pytest.mark.parametrize("request_", [Request(), Request(supplement=False)], ids=["default", "no supplement"])
def test_it_agrees_with_the_decision_table(request_: Request) -> None:
    """What is told as removed, emptied or mapped is decided so where no Type is known."""
    node = compile_request(request_).node("")
    for tag, (_, becomes, rule) in told(request_).items():
        decision = node[standard.tag_number(tag)]
        action = {"removed": "X", "emptied": "Z", "UIDs mapped": "U"}.get(becomes)
        if action:
            assert decision is not None and (decision.action, decision.rule) == (action, rule)


def test_without_the_supplement_only_the_standard_decides() -> None:
    """`Supplement: false` leaves no decision of ours."""
    assert "| supplement" not in explain(Request(supplement=False))
    assert "supplement |" not in explain(Request(supplement=False))
    assert any(rule == "supplement" for _, _, rule in told(Request()).values())


def test_it_is_sorted_and_the_same_each_time() -> None:
    """Two explanations can be compared line by line."""
    assert list(told(Request())) == sorted(told(Request()))
    assert explain(Request()) == explain(Request())


DEMANDED = {
    "removed and replaced attributes": "## Attributes",
    "how dummies are made": "## Dummies",
    "scope of referential integrity": "## How far references hold",
    "what is inserted": "## What is inserted",
    "encryption": "Nothing is encrypted",
    "restrictions": "## Restrictions",
    "claims": "## What is claimed",
}


@pytest.mark.parametrize("heading", DEMANDED.values(), ids=DEMANDED)
def test_the_statement_says_what_the_standard_demands(heading: str) -> None:
    """Each thing that PS3.15 E.1.3 wants described has its place in the Conformance Statement."""
    assert heading in explain(Request())


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_is_described(option: str) -> None:
    """An Option that is chosen is claimed by its code, and the manner in which it is carried out is told (E.3)."""
    statement = explain(Request(options=(option,)))
    assert f"- {option}: " in statement
    assert f"- {standard.profile_codes()[option].value} {standard.profile_codes()[option].meaning}" in statement


def test_site_rules_name_what_breaks_the_profile() -> None:
    """Without a claim each line of the request that leaves something unprotected is named with the row it breaks."""
    statement = explain(parse_request("Keep: [StudyDescription]"))
    assert "- Keep (0008,1030): (0008,1030) Study Description X" in statement
    assert "113100" not in statement


def test_safe_private_elements_are_listed() -> None:
    """The private elements that stay are listed one by one (E.3.10)."""
    statement = explain(
        parse_request('{"Options": ["RetainSafePrivate"], "SafePrivate": ["(7053,[Philips PET Private Group],01)"]}')
    )
    assert "| 7053 | Philips PET Private Group | xx00 | DS |" in statement
    assert "| 7053 | Philips PET Private Group | xx01 |" in statement


def test_a_difference_tells_what_is_treated_unlike() -> None:
    """Two editions or requests are told apart attribute by attribute; two that ask for the same are told to be alike."""
    assert difference(Request(), Request(), ("a", "b")) == "The two treat every attribute alike."
    lines = difference(Request(dicom_version="2017c"), Request(), ("2017c", "2026d")).splitlines()
    assert "| (0012,0040) | ClinicalTrialSubjectID | kept | replaced by a dummy |" in lines
    assert not any("(0010,0010)" in line for line in lines)


@pytest.mark.parametrize(
    ("edition", "becomes"), [("2021b", "kept"), ("2023b", "replaced by an empty one of their type")]
)
def test_what_becomes_of_documents_is_told_by_the_edition(edition: str, becomes: str) -> None:
    """Editions before 2023b don't name Encapsulated Document, and nobody is told that it went."""
    assert f"Encapsulated documents: {becomes}." in explain(Request(dicom_version=edition))


@pytest.mark.parametrize("edition", standard.EDITIONS)
def test_an_older_edition_says_that_it_leaves_more(edition: str) -> None:
    """Whoever names an edition hears how many attributes the newest protects that it doesn't name."""
    named = {row.tag for row in standard.rows(edition)}
    more = [row for row in standard.rows(standard.NEWEST) if row.tag not in named]
    assert (f"protects {len(more)} attributes" in explain(Request(dicom_version=edition))) == bool(more)


def test_identifiers_that_are_not_derived_are_named() -> None:
    """UIDs that stay and a Patient ID that is given aren't told to be derived under the key (E.1.3)."""
    statement = explain(parse_request("{Options: [RetainUIDs], Replace: {PatientID: P-1}, Force: true}"))
    assert "stay as they are, in references too: frame-of-reference, instance, series, study." in statement
    assert "become the request's value, in references too: patient." in statement
    assert "in references too" not in explain(Request())
