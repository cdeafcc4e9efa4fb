"""The lines of a request that concern one place in a data set: Keep, Replace and Remove, and which of them wins.

At the top level Keep wins over Replace and Replace over Remove; for one path to an Item's attribute it is Replace over
Remove over Keep, because a path is what somebody meant exactly. Where data sets are de-identified, what names a tag
alone is obeyed at every depth, except by Replace; else at the top level.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal, NamedTuple

from dicomveil.paths import EVERY, AttributePath
from dicomveil.request import Replacement, Request

Verdict = Replacement | Literal["keep", "remove", ""]
_TOP: Final = ("keep", "replace", "remove")
_IN_ITEMS: Final = ("replace", "remove", "keep")


class Line(NamedTuple):
    """One entry of Keep, Replace or Remove.

    Attributes:
      kind: keep, replace or remove.
      passed: how many steps of its path lead to the place.
      replacement: of Replace.
    """

    kind: str
    path: AttributePath
    passed: int = 0
    replacement: Replacement | None = None

    @property
    def ends(self) -> bool:
        """Whether its last tag is meant at the place."""
        return self.passed == len(self.path.steps)


@dataclass(frozen=True)
class Rules:
    """What a request says of one place and of what lies below it.

    Attributes:
      lines: whose path led here.
      general: that name a tag alone, and so concern Items too; none inside what is kept whole.
      top: whether this is the top level.
    """

    lines: tuple[Line, ...] = ()
    general: tuple[Line, ...] = ()
    top: bool = True

    @classmethod
    def of(cls, request: Request) -> "Rules":
        """A request's rules for the top level."""
        lines = (
            *(Line("keep", path) for path in request.keep),
            *(Line("replace", it.path, replacement=it) for it in request.replace),
            *(Line("remove", path) for path in request.remove),
        )
        lines = tuple(sorted(lines, key=_vagueness))
        deep = () if request.alters else ("keep", "remove")
        general = tuple(line for line in lines if not line.path.steps and (line.path.anywhere or line.kind in deep))
        return cls(lines, general)

    def __bool__(self) -> bool:
        return bool(self.lines or self.general)

    @cached_property
    def private(self) -> bool:
        """Whether any line names a private element, here or below."""
        every = (*self.lines, *self.general)
        return any(
            line.path.attribute.private or any(step.sequence.private for step in line.path.steps) for line in every
        )

    @cached_property
    def written(self) -> tuple[Replacement, ...]:
        """What the place must hold: Replace inserts what is missing, unless asked for everywhere, or Keep wins."""
        asked = (line for line in self.lines if line.replacement and line.ends and not line.path.anywhere)
        return tuple(line.replacement for line in asked if line.replacement and self._wins(line.replacement))

    def _wins(self, replacement: Replacement) -> bool:
        attribute = replacement.path.attribute
        return not attribute.exact or self.verdict(attribute.tag) is replacement

    def verdict(self, tag: int, creator: str = "") -> Verdict:
        """What is asked of an attribute at the place; "" for nothing."""
        found = _first(self.lines, tag, creator, _TOP if self.top else _IN_ITEMS)
        return found or ("" if self.top else _first(self.general, tag, creator, _TOP))

    def numbers(self, tag: int, creator: str = "") -> frozenset[int]:
        """The Items of a sequence that are named by number."""
        steps = (line.path.steps[line.passed] for line in self.lines if not line.ends)
        return frozenset(step.item for step in steps if step.item != EVERY and step.sequence.matches(tag, creator))

    def below(self, tag: int, creator: str, item: int, frozen: bool) -> "Rules":
        """The rules for an Item of a sequence at the place; `item` is `EVERY` for those not named by number."""
        lines = tuple(
            line._replace(passed=line.passed + 1)
            for line in self.lines
            if not line.ends
            and line.path.steps[line.passed].sequence.matches(tag, creator)
            and line.path.steps[line.passed].item in (EVERY, item)
        )
        return Rules(lines, () if frozen else self.general, top=False)


def _vagueness(line: Line) -> tuple[bool, list[bool], bool, str]:
    """Of several lines that replace one attribute the one that says where most exactly comes first, however a body
    orders them."""
    path = line.path
    return path.anywhere, [step.item == EVERY for step in path.steps], not path.attribute.creator, path.text()


def _first(lines: tuple[Line, ...], tag: int, creator: str, order: tuple[str, ...]) -> Verdict:
    asked = {line.kind: line for line in reversed(lines) if line.ends and line.path.attribute.matches(tag, creator)}
    for kind in order:
        if kind in asked:
            line = asked[kind]
            return line.replacement or ("keep" if kind == "keep" else "remove")
    return ""


@dataclass(frozen=True)
class Place:
    """A data set or Item, as far as decisions depend on where it stands.

    Attributes:
      sop_class_uid: "" where its Types aren't known.
      path: the sequences around it; (0,) where no Type is known any deeper, () at the top level.
      frozen: whether it lies in a sequence that the request keeps whole.
      utf8: whether the data set is switched to UTF-8.
      of_study: whether a SOP Instance UID in it names a study (PS3.3 C.8.8.5: RT Referenced Study Sequence).
      listed: whether it lies in a sequence that names studies and series, and was regrouped.
      treatment: how a content item's value is cleaned; "" where it is none.
      external: the tags of references in it that lead to nothing, and are mapped because it must stay.
    """

    sop_class_uid: str
    path: tuple[int, ...]
    rules: Rules
    frozen: bool = False
    utf8: bool = False
    of_study: bool = False
    listed: bool = False
    treatment: str = ""
    external: tuple[int, ...] = ()

    def treated(self, treatment: str) -> "Place":
        """The same, as a content item whose value is cleaned in some way."""
        return replace(self, treatment=treatment)
