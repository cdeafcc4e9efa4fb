"""What `explain` tells is what the decision table does."""

import re
from collections import Counter

import pytest

from dicomveil import standard
from dicomveil.compile import compile_request
from dicomveil.explain import explain
from dicomveil.request import Request

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
