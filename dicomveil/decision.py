"""What becomes of one attribute, as a value; and the table that a data set or Item is decided by.

Only the types stand here: `compile` makes them, `actions` says what each does, `rewrite` obeys.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from dicomveil.stream import Encoding, Path
    from dicomveil.walk import Walk

# What a constant action writes, one element for each encoding, in the order of `stream.ENCODINGS`.
Literal = tuple[bytes, bytes, bytes]
NOTHING: Final[Literal] = (b"", b"", b"")


class Element(NamedTuple):
    """One element as the walk meets it, positions in bytes from the start of the data set's source.

    Attributes:
      parent: the Item it stands in; None at the top level.
      vr: as encoded; b"" where the encoding leaves it out.
    """

    start: int
    value: int
    stop: int
    parent: "Path | None"
    vr: bytes


# Returns the bytes that take the element's place, b"" to remove it, None to leave it as it is.
Act = Callable[["Walk", "Decision", "Encoding", Element], "bytes | None"]
# Returns the element to insert where a data set or Item lacks it, b"" for none.
Supply = Callable[["Walk", "Decision", "Encoding", "Path | None"], bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What becomes of an attribute that isn't simply kept.

    Attributes:
      tag: of the attribute; of private and unknown ones the group pattern's stand-in, 0.
      vr: the one PS3.6 gives, and the one a new value is written with.
      action: the code of PS3.15 Table E.1-1a that is carried out: X, Z, D, U; K for what is kept and looked at.
      rule: what says so, such as "E.1-1 2026d".
      literal: what is written in its place; None where `act` computes it.
      act: computes what is written in its place. A decision with neither enters a sequence.
      noted: whether the element is looked at when the walk is done; without `literal` or `act` it stays until then.
      items: encoded Items to append to a sequence that is entered.
      supply: makes the element where its data set or Item lacks it; None where it is never added.
      frozen: whether it is a sequence that the request keeps as it is, which is recorded.
      over: whether `act` takes the place of whatever stands there, Items too.
    """

    tag: int
    keyword: str
    vr: str
    action: str
    rule: str
    literal: Literal | None = None
    act: Act | None = None
    noted: bool = False
    items: Literal | None = None
    supply: Supply | None = None
    frozen: bool = False
    over: bool = False


ENTER: Final = Decision(0, "", "SQ", "K", "")
"""A sequence that is kept: each of its Items is decided on its own."""


REMOVED: Final = Decision(0, "", "UN", "X", "E.1-1 (gggg,eeee)", literal=NOTHING)
"""What becomes of a private element unless something keeps it."""
REMOVED_ITEM: Final = Decision(0, "", "UN", "X", "E.3.4-1", literal=NOTHING)
"""An Item that is taken out of its sequence."""
PROBE: Final = Decision(0, "", "UN", "K", "")
"""A private element that is kept and whose VR nobody knows: Items in it are entered, what only looks so is removed."""
LOOK: Final = Decision(0, "", "UN", "K", "")
"""The same where nothing is removed: what only looks like Items stays as it is."""
NOBODYS: Final = "\0"
"""In the place of a Private Creator, of an element that stands where none can: PS3.5 7.8.1 reserves (gggg,0010-00FF)
for creators, and knows no elements below."""

# What becomes of a private element, by tag, encoded VR and Private Creator ("" where its block has none).
PrivateRule = Callable[[int, bytes, str], Decision | None]
# The decisions for one Item, from what stands in it: (walk, encoding, content, limit, delimited, number); one decision
# alone removes the Item.
Choice = Callable[["Walk", "Encoding", int, int, bool, int], "Node | Decision"]


class Node(dict[int, Decision | None]):
    """The decisions for one data set or Item, by tag; None keeps the element byte for byte.

    Attributes:
      kept: the tags met so far that are kept byte for byte, other than sequences.
      marks: what the data set or Item must hold, inserted where it is missing; the last one first.
      private: decides on private elements; None removes them all.
      choose: picks another node for an Item; None where all Items are alike.
      whole: what becomes of a sequence for the edits in it, where it mayn't be changed in part; else None.

    It fills as tags are met. What no dictionary lists isn't remembered, so that a hostile file can't make it grow.
    """

    __slots__ = ("_children", "_decide", "_descend", "choose", "kept", "marks", "private", "whole")

    def __init__(
        self,
        decide: Callable[[int], tuple[Decision | None, bool]],
        descend: Callable[[int, str], "Node"],
        marks: tuple[Decision, ...] = (),
        private: PrivateRule | None = None,
        choose: Choice | None = None,
        whole: Callable[[int, list[Any]], Decision | None] | None = None,
    ) -> None:
        super().__init__()
        self._decide, self._descend = decide, descend
        self._children: dict[int, Node] = {}
        self.kept: set[int] = set()
        self.marks, self.private, self.choose, self.whole = marks, private, choose, whole

    def __missing__(self, tag: int) -> Decision | None:
        decision, lasting = self._decide(tag)
        if lasting:
            self[tag] = decision
            if decision is None:
                self.kept.add(tag)
        return decision

    def child(self, tag: int, creator: str = "") -> "Node":
        """The decisions for the Items of a sequence in this data set or Item; of a private one not remembered here."""
        if tag & 0x10000:
            return self._descend(tag, creator)
        node = self._children.get(tag)
        if node is None:
            node = self._children[tag] = self._descend(tag, "")
        return node
