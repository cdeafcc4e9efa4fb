"""Patterns of names: which objects they mean, and which folders needn't be listed for them."""

import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from transforms.globs import Pattern, escaped, is_pattern

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "globs.yaml").read_text("utf-8"))
NAMES = st.lists(st.text("ab.-[]*?!", min_size=1, max_size=4), min_size=1, max_size=4).map("/".join)
PATTERNS = st.lists(
    st.one_of(st.sampled_from(["**", "*", "?", "[ab]", "[!a]", "a*", "*b", "**a"]), st.text("ab.-", min_size=1, max_size=3)),
    min_size=1, max_size=4,
).map("/".join)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["pattern"])
def test_a_pattern_means_what_it_says(case: dict[str, Any]) -> None:
    pattern = Pattern(case["pattern"])
    assert pattern.prefix == case["prefix"]
    assert pattern.literal == case.get("literal", pattern.literal)
    assert [name for name in case["means"] if not pattern.matches(name)] == []
    assert [name for name in case["not"] if pattern.matches(name)] == []


@given(PATTERNS, NAMES)
def test_what_matches_lies_where_it_is_looked_for(text: str, name: str) -> None:
    """Whatever matches begins with the pattern's prefix, and every folder above it may hold it."""
    pattern = Pattern(text)
    if pattern.matches(name):
        assert name.startswith(pattern.prefix) and name.startswith(pattern.literal)
        levels = name.split("/")
        for depth in range(1, len(levels)):
            assert pattern.may_hold("/".join(levels[:depth]) + "/")


@given(NAMES, NAMES)
def test_an_escaped_name_means_itself_alone(name: str, other: str) -> None:
    """Folders may have names that would be patterns."""
    assert Pattern(escaped(name)).matches(name)
    assert name == other or not Pattern(escaped(name)).matches(other)
    assert is_pattern(name) == any(it in name for it in "*?[")


@given(st.text("ab*?[!]-", max_size=8), st.text("ab-", max_size=6))
def test_within_a_level_patterns_are_the_shells(pattern: str, name: str) -> None:
    """Where no level is crossed, a pattern means what the standard library's does."""
    if "**" not in pattern:
        assert Pattern(pattern).matches(name) == fnmatch.fnmatchcase(name, pattern)


@pytest.mark.parametrize(
    ("pattern", "folder", "may"),
    [
        ("/in/2024-*/x/*.dcm", "/in/2024-01/", True),
        ("/in/2024-*/x/*.dcm", "/in/2023-01/", False),
        ("/in/2024-*/x/*.dcm", "/in/2024-01/x/", True),
        ("/in/2024-*/x/*.dcm", "/in/2024-01/x/y/", False),
        ("/in/2024-*/**", "/in/2024-01/x/y/", True),
        ("/in/2024-*/", "/in/2024-01/x/y/", True),
        ("/in/2024-*/", "/in/2023-01/", False),
        ("/in/*", "/in/a/", False),
    ],
)
def test_folders_where_nothing_can_match_arent_entered(pattern: str, folder: str, may: bool) -> None:
    assert Pattern(pattern).may_hold(folder) is may
