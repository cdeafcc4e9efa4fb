"""Patterns of names: `*` and `?` within a level, `**` across levels, `[...]` for one character of several.

A pattern names objects, never folders; one that ends in "/" means everything below the folders that it matches. What is
listed, and where a name is no pattern because it exists as it is, is settled elsewhere.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

_SPECIAL: Final = re.compile(r"[*?\[]")
_PARTS: Final = re.compile(r"(?<![^/])\*\*/|\*\*|\*|\?|\[(?P<not>[!^]?)(?P<among>\]?[^]/]*)\]|(?P<plain>.)", re.DOTALL)
_IN_CLASS: Final = re.compile(r"([\\^\[\]&~|])")
_BACKSLASHED: Final = r"\\\1"
_MEANS: Final = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}


@dataclass(frozen=True, repr=False)
class Pattern:
    """A pattern as a listing uses it. Its repr tells nothing: names may be a patient's.

    Attributes:
      text: as it was written.
    """

    text: str

    @cached_property
    def prefix(self) -> str:
        """What every name begins with that matches: up to the last "/" before the first special character."""
        return self.literal[: self.literal.rfind("/") + 1]

    @cached_property
    def literal(self) -> str:
        """What stands before the first special character."""
        found = _SPECIAL.search(self.text)
        return self.text[: found.start()] if found else self.text

    def matches(self, name: str) -> bool:
        """Whether it means an object of that name."""
        return bool(self._whole.fullmatch(name))

    def may_hold(self, folder: str) -> bool:
        """Whether anything in a folder, whose name ends in "/", may match: what can't needn't be listed."""
        levels, meant = folder.split("/")[:-1], self._meant.split("/")
        for level, part in zip(levels, meant, strict=False):
            if "**" in part:
                return True
            if not re.fullmatch(_translated(part), level, re.DOTALL):
                return False
        return len(levels) < len(meant)

    @cached_property
    def _meant(self) -> str:
        return self.text + "**" if self.text.endswith("/") else self.text

    @cached_property
    def _whole(self) -> re.Pattern[str]:
        return re.compile(_translated(self._meant), re.DOTALL)


def is_pattern(text: str) -> bool:
    """Whether a name holds a character that is special in patterns."""
    return bool(_SPECIAL.search(text))


def escaped(name: str) -> str:
    """A name as the pattern that means it alone."""
    return _SPECIAL.sub(lambda found: f"[{found[0]}]", name)


def _translated(pattern: str) -> str:
    """A pattern as a regular expression."""
    return "".join(_steps(pattern))


def _steps(pattern: str) -> Iterator[str]:
    for found in _PARTS.finditer(pattern):
        if found["plain"] is not None:
            yield re.escape(found["plain"])
        elif found["among"] is not None:
            yield _class(found[0], found["among"], bool(found["not"]))
        else:
            yield _MEANS[found[0]]


def _class(written: str, among: str, negated: bool) -> str:
    """One character of several, but for "/"; what is no such thing stands for itself."""
    means = f"(?!/)[{'^' if negated else ''}{_IN_CLASS.sub(_BACKSLASHED, among)}]"
    try:
        re.compile(means)
    except re.error:  # nothing in the brackets, or a range whose end is before its begin
        return re.escape(written)
    return means
