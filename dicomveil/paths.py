"""Where in a data set a request means an attribute: at the top level, in Items by number, or at every depth.

A path is what Orthanc's is, `Seq[0].Tag` and `Seq[*].Tag`, and `**.Tag` beside it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dicomveil.tags import Attribute, NameProblem, PrivateEntry, parse_attribute, vr_of

EVERY: Final = -1
"""Every Item of a sequence."""

_STEP: Final = re.compile(
    r"\s*(\((?:[^()\[\]]|\[[^\]]*\])*\)|[0-9A-Fa-f]{4}\s*,\s*\[[^\]]*\]\s*,\s*(?:xx)?[0-9A-Fa-f]{2}|[^.\[\]()]+?)\s*"
    r"(?:\[([^\]]*)\]\s*)?(\.|$)"
)
_ANYWHERE: Final = re.compile(r"\s*\*\*\s*\.(.*)", re.DOTALL)
_INDEX: Final = re.compile(r"\s*(\*|[0-9]{1,9})\s*")


@dataclass(frozen=True)
class Step:
    """One sequence on the way, and which of its Items: a number from 0 on, or `EVERY`."""

    sequence: Attribute
    item: int


@dataclass(frozen=True)
class AttributePath:
    """An attribute and where it is meant.

    Attributes:
      steps: the sequences around it, from the top level inwards; none for the top level.
      anywhere: whether it was asked for at every depth.
    """

    attribute: Attribute
    steps: tuple[Step, ...] = ()
    anywhere: bool = False

    def text(self) -> str:
        """In one spelling, however it was written: "(0008,1140)[*].(0008,1155)"."""
        way = "".join(f"{step.sequence.text()}[{'*' if step.item == EVERY else step.item}]." for step in self.steps)
        return f"{'**.' if self.anywhere else way}{self.attribute.text()}"


def parse_path(text: str, private: Mapping[str, PrivateEntry] | None = None) -> AttributePath:
    """What a path means; a tag alone is a path of one step.

    Raises:
      NameProblem: a step that names nothing, a sequence without an index, an index that is no number or `*`.
    """
    if found := _ANYWHERE.fullmatch(text):
        rest = parse_path(found[1], private)
        if rest.steps or rest.anywhere:
            raise NameProblem(
                "has more than a tag behind **", "write **.Tag, or a path with the index of each sequence"
            )
        return AttributePath(rest.attribute, anywhere=True)
    steps: list[Step] = []
    position = 0
    while True:
        found = _STEP.match(text, position)
        if not found:
            raise NameProblem("is no path", "write Sequence[0].Tag, Sequence[*].Tag or **.Tag")
        attribute = parse_attribute(found[1], private)
        position = found.end()
        if not found[3]:
            if found[2] is not None:
                raise NameProblem("ends in an index", "the last tag of a path has none")
            return AttributePath(attribute, tuple(steps))
        steps.append(_step(attribute, found[2]))


def _step(attribute: Attribute, index: str | None) -> Step:
    if index is None:
        raise NameProblem("has a sequence without an index", "write Sequence[0].Tag or Sequence[*].Tag")
    number = _INDEX.fullmatch(index)
    if not number:
        raise NameProblem("has an index that is no number", "count Items from 0, or write * for all")
    if not attribute.private and attribute.exact and vr_of(attribute.tag) not in ("SQ", "", "UN"):
        raise NameProblem(f"goes through {attribute.text()}, which is no sequence", "leave it out")
    return Step(attribute, EVERY if number[1] == "*" else int(number[1]))
