"""THE recursive walk: decide on each element, act, and leave the rest alone.

The walk writes nothing. It lists edits (from, to, replacement), and the output is the source with the edits applied:
what isn't changed can't be changed, no bulk value is held, and an error leaves nothing half-written. Which decisions
there are, and what becomes of the edits, is not known here.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from dicomveil.decision import LOOK, NOBODYS, PROBE, REMOVED, Decision, Element, Node, PrivateRule
from dicomveil.errors import InvalidInstance
from dicomveil.outline import CONTENT_SEQUENCE, MODIFIERS, Outline
from dicomveil.stream import (
    ITEM,
    MAX_DEPTH,
    NEVER,
    PIXEL_DATA,
    Encoding,
    Path,
    Window,
    holds_items,
    inner,
    item_end,
    items,
    skip,
    tag_text,
)

_NEVER_EMPTY: Final = (CONTENT_SEQUENCE, MODIFIERS)
"""Sequences of Items that may be removed, and which go when none is left: of Type 1C and 3 with one Item or more."""
_REMEMBERED: Final = 100_000
_SHORT: Final = 256
_LONGEST_CREATOR: Final = 256


class Mask(NamedTuple):
    """A pattern that repeats over bytes of the source: where it has a 0 the bit is cleared."""

    pattern: bytes


class Edit(NamedTuple):
    """Bytes that take the place of the source's, and the element that was changed by it.

    Attributes:
      start, stop: what is replaced, in the source; both the same for an insertion.
      decision: None where no element is changed, but a length around one that is.
    """

    start: int
    stop: int
    new: bytes | Mask
    parent: Path | None = None
    tag: int = 0
    vr: bytes = b""
    decision: Decision | None = None


class Mapping:
    """New values, remembered by the encoded value they take the place of.

    Args:
      new: gives the value that takes the place of one original, or the original itself where it stays.
    """

    def __init__(self, new: Callable[[str], str]) -> None:
        self.new = new
        self._known: dict[bytes, bytes | None] = {}

    def text(self, value: str) -> str:
        """The new value of one original, as text."""
        new = self.encoded(value.encode("latin-1"))
        return value if new is None else new.decode("latin-1")

    def encoded(self, raw: bytes) -> bytes | None:
        """The new value of an element, value by value, not yet padded; None where it stays as it is."""
        try:
            return self._known[raw]
        except KeyError:
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            olds = [value.strip(" \0") for value in raw.decode("latin-1").split("\\")]
            news = [self.new(old) if old else old for old in olds]
            self._known[raw] = new = "\\".join(news).encode("latin-1") if news != olds else None
            return new


class Facts(NamedTuple):
    """What a walk writes that no table knows: the study's values.

    Attributes:
      uids: the new UIDs, whatever role an attribute gives them.
      of_role: the new UIDs of attributes of one role, where the request treats roles unlike.
      patient: the new Patient ID; "" for objects that are no patient's.
      name: the new Patient's Name, likewise.
      pseudonym: gives the new Patient ID of one that stands in an Item, and of its issuer.
      issuers: whether the issuer counts.
      days: by which the study's dates are moved.
      identifies: whether a word is one of those by which the study's people could be known.
      number: gives the pseudonym of a number, by the label of its attribute and the number.
      external: whether a UID is one that nobody knows.
    """

    uids: Mapping
    of_role: Callable[[str], Mapping]
    patient: str
    name: str
    pseudonym: Callable[[str, str], str]
    issuers: bool
    days: int
    identifies: Callable[[str], bool]
    number: Callable[[str, str], str]
    external: Callable[[str], bool]


class Going(NamedTuple):
    """What becomes of references that lead to nothing, where the request has them go.

    Attributes:
      items: where the content starts of Items that are removed.
      needed: the tags of such references in Items that stay all the same, likewise.
      sequences: what becomes of those of which no Item is left, by where the value starts.
    """

    items: set[int]
    needed: dict[int, tuple[int, ...]]
    sequences: dict[int, Decision]


class Block(NamedTuple):
    """A private block's creator element: where it stands, and its name."""

    tag: int
    vr: bytes
    start: int
    stop: int
    creator: str


class Walk:
    """One pass over one data set.

    Attributes:
      window: the view of the source.
      facts: the study's values.
      utf8: whether text is written in UTF-8, whatever character set it is read in.
      uids: the new UIDs.
      character_sets: Specific Character Set by the Item that holds it; None for the top level.
      edits: what to change, not in order; plain tuples of `Edit`'s fields, which are quicker to make.
      mapped: the encoded values of UI elements met.
      notes: (tag, VR, start, value, stop, undefined, raw) of top-level elements to look at when the walk is done; `raw`
        is the value of a short one, and else b"".
      scheme: the Item that last held a Coding Scheme Designator, and the designator.
      marks: what the current data set or Item must still hold; the last one first.
      blocks: the private blocks of the current one, by group and block.
      used: those of them that keep an element.
      frozen: (parent, tag, how many original UIDs stay) of sequences that the request keeps as they are.
      originals: how many original UIDs were kept in those so far.
      outline: of the content items read ahead; None where none were.
      going: what becomes of references that lead to nothing; None where they stay.
    """

    __slots__ = (
        "_growth",
        "_sound",
        "blocks",
        "character_sets",
        "edits",
        "facts",
        "frozen",
        "going",
        "mapped",
        "marks",
        "notes",
        "originals",
        "outline",
        "scheme",
        "uids",
        "used",
        "utf8",
        "window",
    )

    def __init__(self, window: Window, facts: Facts, utf8: bool = False) -> None:
        self.window, self.facts, self.uids, self.utf8 = window, facts, facts.uids, utf8
        self.character_sets: dict[Path | None, str] = {}
        self.edits: list[Edit] = []
        self.mapped: list[bytes] = []
        self.notes: list[tuple[int, bytes, int, int, int, bool, bytes]] = []
        self.scheme: tuple[Path | None, bytes] = None, b""
        self.marks: list[Decision] = []
        self.blocks: dict[int, Block] = {}
        self.used: set[int] = set()
        self.frozen: list[tuple[Path | None, int, int]] = []
        self.originals = 0
        self.outline: Outline | None = None
        self.going: Going | None = None
        self._growth = [0]  # of all edits up to each
        self._sound = 0  # the position up to which private Items of unknown VR are known to read

    def run(self, begin: int, encoding: Encoding, node: Node) -> int:
        """Walk a whole data set, add the marks it lacks, and return where its last element ends.

        Raises:
          InvalidInstance: whatever is wrong with the encoding, with the path of where.
        """
        return self._data_set(begin, self.window.size, False, encoding, node, None, 0)

    def character_set(self, parent: Path | None) -> str:
        """The Specific Character Set that holds in an Item: its own, or the nearest around it."""
        while parent is not None and parent not in self.character_sets:
            parent = parent.parent
        return self.character_sets.get(parent, "")

    def _data_set(
        self, position: int, end: int, delimited: bool, encoding: Encoding, node: Node, parent: Path | None, depth: int
    ) -> int:
        window, index, edits, private = self.window, encoding.index, self.edits, node.private
        add = edits.append
        marks = self.marks = list(node.marks)
        due = window.due = marks[-1].tag if marks else NEVER
        if private is not None:
            self.blocks, self.used = {}, set()
        blocks, used = self.blocks, self.used
        for tag, vr, start, value, stop in encoding.elements(window, position, end, delimited, node.kept):
            if tag >= due:
                due = window.due = self._mark(tag, start, encoding, parent)
            if tag & 0x10000:
                if private is None and stop >= 0:
                    add((start, stop, b"", parent, tag, vr, REMOVED))  # type: ignore[arg-type]
                    continue
                decision = self._private(private, tag, vr, start, value, stop, end, encoding) if private else REMOVED
                if decision is None:
                    continue
            else:
                decision = node[tag]
                if decision is None:
                    if stop >= 0 and vr != b"SQ":
                        continue
                    if tag == PIXEL_DATA and vr in (b"OB", b"OW"):
                        window.after = skip(window, value, end, encoding, vr, tag)
                        continue
                    if vr not in (b"SQ", b"UN"):
                        raise InvalidInstance("undefined-length", tag_text(tag), start)
            if decision is not None:
                literal = decision.literal
                if literal is not None:
                    if stop < 0:
                        window.after = stop = skip(window, value, end, encoding, vr, tag)
                    if stop != value or decision.action != "Z":
                        add((start, stop, literal[index], parent, tag, vr, decision))  # type: ignore[arg-type]
                    if decision.noted:
                        self._note(tag, vr, start, value, stop, False)
                    continue
                if decision.act is not None or decision.noted:
                    undefined = stop < 0
                    if undefined or vr == b"SQ":
                        encapsulated = tag == PIXEL_DATA and vr in (b"OB", b"OW")
                        if not (decision.over or encapsulated):
                            raise InvalidInstance("sequence-vr", tag_text(tag), start)  # Items that nobody would enter
                    if undefined:
                        window.after = stop = skip(window, value, end, encoding, vr, tag)
                    if decision.noted:
                        self._note(tag, vr, start, value, stop, undefined)
                        continue
                    assert decision.act is not None
                    new = decision.act(self, decision, encoding, Element(start, value, stop, parent, vr))
                    if new != b"" and tag & 0x10000:
                        used.add(tag >> 8)
                    if new is not None:
                        add((start, stop, new, parent, tag, vr, decision))  # type: ignore[arg-type]
                    continue
                if vr not in (b"SQ", b"UN", b"") and (stop != value or decision.items):
                    raise InvalidInstance("sequence-vr", tag_text(tag), start)

            # A sequence that stays: its Items are walked, and lengths around what changed are written again.
            if depth >= MAX_DEPTH:
                raise InvalidInstance("nesting", tag_text(tag), start)
            child = node.child(tag, self.creator(tag) if tag & 0x10000 else "")
            inside, number, before, taken = inner(encoding, vr), 0, len(edits), 0
            behind_last, originals, choose = value, self.originals, child.choose
            for item, content, behind in items(window, value, stop, end, inside, tag):
                limit = behind if behind >= 0 else stop if stop >= 0 else end
                first, here = len(edits), Path(parent, tag, number)
                try:
                    chosen = choose(self, inside, content, limit, behind < 0, number) if choose else child
                    if choose and isinstance(chosen, Decision):
                        window.after = item_end(window, content, limit, behind, inside)
                        add((item, window.after, b"", here, ITEM, b"", chosen))  # type: ignore[arg-type]
                        taken += 1
                    else:
                        self._data_set(content, limit, behind < 0, inside, chosen, here, depth + 1)  # type: ignore[arg-type]
                        if behind >= 0 and len(edits) > first:
                            self._relength(item + 4, inside, behind - content, first)
                except InvalidInstance as bad:
                    raise bad.inside(tag_text(tag), number) from None
                number, behind_last = number + 1, behind if behind >= 0 else window.after
            if decision is not None and decision.items is not None:
                add((behind_last, behind_last, decision.items[inside.index], parent, tag, vr, decision))  # type: ignore[arg-type]
            if node.whole and len(edits) > before and (instead := node.whole(tag, edits[before:])):
                self._forget(before)
                assert instead.literal is not None
                behind_last = stop if stop >= 0 else window.after
                add((start, behind_last, instead.literal[index], parent, tag, vr, instead))  # type: ignore[arg-type]
            elif taken and taken == number and tag in _NEVER_EMPTY:
                why = edits[before][6]
                self._forget(before)
                behind_last = stop if stop >= 0 else window.after
                add((start, behind_last, b"", parent, tag, vr, why))  # type: ignore[arg-type]
            elif taken and self.going and value in self.going.sequences:
                self._bare(self.going.sequences[value], encoding, Element(start, value, stop, parent, vr), behind_last)
            elif stop >= 0 and len(edits) > before:
                self._relength(value - 4, encoding, stop - value, before)
            if decision is not None and decision.frozen:
                self.frozen.append((parent, tag, self.originals - originals))
            window.due, self.marks = due, marks
            if private is not None:
                self.blocks, self.used = blocks, used
        done = window.after
        if marks:
            self._mark(NEVER, done - 8 if delimited else done, encoding, parent)
        if private is not None:
            for key, block in blocks.items():
                if key not in used:
                    add((block.start, block.stop, b"", parent, block.tag, block.vr, REMOVED))  # type: ignore[arg-type]
        window.after = done
        return done

    def _private(
        self,
        private: PrivateRule,
        tag: int,
        vr: bytes,
        start: int,
        value: int,
        stop: int,
        end: int,
        encoding: Encoding,
    ) -> Decision | None:
        """What becomes of a private element where some may stay; None leaves it, or its Private Creator for now."""
        reserves = not tag & 0xFF00
        if reserves and tag & 0xFFFF >= 0x10 and 0 <= stop - value <= _LONGEST_CREATOR:
            self._block(private, tag, vr, start, value, stop)
            return None
        decision = private(tag, vr, NOBODYS if reserves else self.creator(tag))
        if decision is PROBE or decision is LOOK:
            decision = self._probed(decision, value, stop, end, inner(encoding, vr))
        if decision is None or (decision is not REMOVED and decision.act is None):
            self.used.add(tag >> 8)
        if decision is None and stop < 0:
            if vr not in (b"UN", b""):
                raise InvalidInstance("undefined-length", tag_text(tag), start)
            return PROBE  # Items under a VR that has none: they are entered, whatever the dictionary says
        return decision

    def creator(self, tag: int) -> str:
        """The Private Creator that holds a private element's block; "" where none does."""
        block = self.blocks.get(tag >> 8)
        return block.creator if block else ""

    def owe(self, mark: Decision) -> None:
        """Have the current data set or Item hold one more mark, whose tag is still to come."""
        at = next((at for at, other in enumerate(self.marks) if other.tag <= mark.tag), len(self.marks))
        self.marks.insert(at, mark)

    def _block(self, private: PrivateRule, tag: int, vr: bytes, start: int, value: int, stop: int) -> None:
        """Remember a Private Creator, which stays if an element of its block does."""
        name = self.window.slice(value, stop).decode("latin-1").strip(" \0")
        key = (tag >> 16) << 8 | tag & 0xFF
        self.blocks[key] = Block(tag, vr, start, stop, name)
        if private(tag, vr, name) is not REMOVED:
            self.used.add(key)

    def _probed(self, asked: Decision, value: int, stop: int, end: int, inside: Encoding) -> Decision | None:
        """What becomes of a private element of unknown VR that is kept: entered, left as it is, or removed."""
        if stop < 0 and value < self._sound:
            return PROBE  # what is around it was read, and it with it: not once more for each level
        found = holds_items(self.window, value, stop, end, inside)
        if found:
            self._sound = max(self._sound, stop if stop >= 0 else self.window.after)
        return None if found is None else PROBE if found else REMOVED if asked is PROBE else None

    def _note(self, tag: int, vr: bytes, start: int, value: int, stop: int, undefined: bool) -> None:
        """Have a top-level element looked at when the walk is done."""
        raw = self.window.slice(value, stop) if stop - value <= _SHORT and not undefined else b""
        self.notes.append((tag, vr, start, value, stop, undefined, raw))

    def _relength(self, position: int, encoding: Encoding, length: int, first: int) -> None:
        """Write a length again that stands around the edits from the `first` on. Each edit is summed once."""
        growth = self._growth
        for start, stop, new, *_ in self.edits[len(growth) - 1 :]:
            growth.append(growth[-1] + len(new) + start - stop)
        if growth[-1] != growth[first]:
            new = encoding.u32.pack(length + growth[-1] - growth[first])
            self.edits.append((position, position + 4, new, None, 0, b"", None))  # type: ignore[arg-type]

    def _bare(self, decision: Decision, encoding: Encoding, element: Element, behind_last: int) -> None:
        """Write what becomes of a sequence around its Items, each of which is removed."""
        start, value, stop, parent, vr = element
        assert decision.literal is not None
        self.edits.append(Edit(start, value, decision.literal[encoding.index], parent, decision.tag, vr, decision))
        end = stop if stop >= 0 else self.window.after
        if behind_last < end:
            self.edits.append(Edit(behind_last, end, b""))

    def _forget(self, first: int) -> None:
        """Take back the edits from the `first` on."""
        del self.edits[first:], self._growth[first + 1 :]

    def _mark(self, tag: int, position: int, encoding: Encoding, parent: Path | None) -> int:
        """Insert the marks that should have come before `tag`, and return the tag of the next one.

        One that stands at `tag` itself is there already: its own decision acts on it.
        """
        marks = self.marks
        while marks and marks[-1].tag < tag:
            mark = marks.pop()
            new = mark.supply(self, mark, encoding, parent) if mark.supply else b""
            if new:
                self.edits.append(Edit(position, position, new, parent, mark.tag, b"", mark))
        if marks and marks[-1].tag == tag:
            marks.pop()
        return marks[-1].tag if marks else NEVER
