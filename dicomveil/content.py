"""Content items of structured reports, and what becomes of their values under Clean Structured Content (E.3.4).

Which concept is treated how stands in `concepts` and `outline`; here it becomes decisions on the attributes that hold
the value of an item.
"""

from typing import Final

from dicomveil import actions, ages, dummies, options
from dicomveil.concepts import VALUE_ATTRIBUTES, Concepts, concept
from dicomveil.decision import ENTER, Act, Decision, Element
from dicomveil.outline import (
    CONTENT_SEQUENCE,
    CONTENT_SEQUENCES,
    REFERENCED_CONTENT_ITEM_IDENTIFIER,
    Head,
    Outline,
    read_head,
    read_measured,
    read_outline,
    treatment_of,
)
from dicomveil.request import Request
from dicomveil.rules import Place
from dicomveil.stream import Encoding
from dicomveil.vocabulary import Vocabulary
from dicomveil.walk import Walk

CONTENT: Final = CONTENT_SEQUENCES
_MEASURED: Final = 0x0040A300
_VALUE_TYPES: Final = {tag: value_type for value_type, tags in VALUE_ATTRIBUTES.items() for tag in tags}
_RULE: Final = "E.3.4-1"
_NINETY: Final = actions.sequence(
    _MEASURED,
    actions.encoded_items(
        (
            (
                dummies.Node(0x004008EA, "SQ", (dummies.code("a", "UCUM", "year"),)),
                dummies.Node(0x0040A30A, "DS", b"90"),
            ),
        )
    ),
)
"""What every age over 89 becomes, whatever unit it was told in."""


class Contents:
    """Decides on content items and their values for one request."""

    def __init__(self, request: Request, vocabulary: Vocabulary | None) -> None:
        self._concepts = Concepts(request.dicom_version, frozenset(request.options))
        self._options, self._vocabulary, self._caps = request.options, vocabulary, request.cap_ages

    def treatment(self, walk: Walk, encoding: Encoding, content: int, limit: int, delimited: bool, tag: int) -> str:
        """How the content item that begins at `content` is treated, after its Value Type: "TEXT clean".

        "remove" takes it out with all below it, and so does "unknown", for what it refers to. A document is read
        ahead when its first item is met.
        """
        outline = walk.outline
        if tag == CONTENT_SEQUENCE and (outline is None or content not in outline.treatments):
            outline = self._read(walk, encoding, content)
        if outline is not None and content in outline.unknown:
            return "unknown"
        if outline is not None and content in outline.treatments:
            head, treatment = outline.heads[content], outline.treatments[content]
        else:
            head = read_head(walk.window, encoding, content, limit, delimited)
            treatment = treatment_of(head, tag, self._concepts)
        if treatment == "keep" and self._caps and _is_old(walk, encoding, content, limit, delimited, head):
            treatment = "cap"
        return treatment if treatment == "remove" else f"{head.value_type} {treatment}"

    def read_ahead(
        self, walk: Walk, encoding: Encoding, content: int, unknown: frozenset[int], needed: bool
    ) -> frozenset[int]:
        """Read a document before it is walked, as what it refers to decides on more than itself.

        Args:
          content: where the content of its first item starts.
          unknown: where the content starts of items that refer to what nobody knows.
          needed: whether the document is nothing without a reference; then it keeps them where it has no other.

        Returns:
          Where the content starts of items that are removed.
        """
        outline = read_outline(walk.window, encoding, content, self._concepts, unknown)
        if needed and outline.unknown and not outline.refers():
            outline = read_outline(walk.window, encoding, content, self._concepts)
        walk.outline = outline
        return frozenset(content for content, treatment in outline.treatments.items() if treatment == "remove")

    def _read(self, walk: Walk, encoding: Encoding, content: int) -> Outline:
        """Read a document ahead; what was read before stays, as another tree may stand inside an item of the first."""
        outline = read_outline(walk.window, encoding, content, self._concepts)
        if walk.outline is None:
            walk.outline = outline
        else:
            walk.outline.heads.update(outline.heads)
            walk.outline.treatments.update(outline.treatments)
            walk.outline.references.update(outline.references)
        return walk.outline

    def holds_value(self, tag: int) -> bool:
        """Whether an attribute holds the value of a content item, or points to another one."""
        return tag in _VALUE_TYPES or tag == REFERENCED_CONTENT_ITEM_IDENTIFIER

    def decision(self, place: Place, tag: int, keyword: str, vr: str) -> Decision | None:
        """What becomes of an attribute that holds the value of an item at a place.

        One that doesn't belong to the item's Value Type is treated as an item that it does belong to, of no concept.
        """
        if tag == REFERENCED_CONTENT_ITEM_IDENTIFIER:
            return Decision(tag, keyword, vr, "K", _RULE, act=_renumber)
        value_type, treatment = place.treatment.split(" ")
        if _VALUE_TYPES[tag] != value_type:
            treatment = self._concepts.treatment(_VALUE_TYPES[tag], "", "")
        if treatment == "cap" and tag == _MEASURED:
            return Decision(tag, keyword, vr, "C", "CapAges", literal=_NINETY)
        act = self._act(place, treatment, tag, keyword, vr)
        if act is not None:
            return Decision(tag, keyword, vr, "U" if vr == "UI" else "C", _RULE, act=act)
        if treatment == "keep" or (treatment == "date" and self._dates_stay()):
            return ENTER if vr == "SQ" else None
        literal = actions.emptied(tag, vr) if tag == _MEASURED else actions.dummy(tag, vr)
        return Decision(tag, keyword, vr, "Z" if tag == _MEASURED else "D", _RULE, literal=literal)

    def _act(self, place: Place, treatment: str, tag: int, keyword: str, vr: str) -> Act | None:
        if treatment == "uid":
            return actions.map_uid
        if treatment == "clean" and self._vocabulary is not None:
            target = actions.UTF_8 if place.utf8 else ""
            return actions.clean_text(self._vocabulary, actions.dummy(tag, vr), target)
        if treatment == "date" and options.MODIFIED in self._options:
            stranded = actions.unshiftable(tag, keyword, vr, _RULE, needed=True)
            return actions.shift_dates(actions.dummy(tag, vr), stranded)
        return None

    def _dates_stay(self) -> bool:
        """Whether a date that is only looked at may stay: times of day beside moved dates, and dates retained."""
        return options.FULL in self._options or options.MODIFIED in self._options


def _is_old(walk: Walk, encoding: Encoding, content: int, limit: int, delimited: bool, head: Head) -> bool:
    """Whether a content item tells an age over 89."""
    if head.value_type != "NUM" or concept(head.scheme, head.code) not in ages.CONCEPTS:
        return False
    measured = read_measured(walk.window, encoding, content, limit, delimited)
    return any(ages.is_old(number, unit) for number, unit in measured)


def _renumber(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
    """Point a by-reference relationship to where its target is, now that items before it are gone."""
    new = walk.outline.references.get(element.value) if walk.outline else None
    return encoding.element(decision.tag, "UL", b"".join(map(encoding.u32.pack, new))) if new else None
