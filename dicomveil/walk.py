"""THE recursive walk: decide on each element, act, and leave the rest alone.

The walk writes nothing. It lists edits (from, to, replacement), and the output is the source with the edits applied:
what isn't changed can't be changed, no bulk value is held, and an error leaves nothing half-written. Which decisions
there are, and what becomes of the edits, is not known here.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from dicomveil.decision import Decision, Element, Node
from dicomveil.errors import InvalidInstance
from dicomveil.stream import MAX_DEPTH, NEVER, PIXEL_DATA, Encoding, Path, Window, inner, items, skip, tag_text

_REMEMBERED: Final = 100_000
_SHORT: Final = 64
PRIVATE: Final = Decision(0, "", "UN", "X", "E.1-1 (gggg,eeee)", literal=(b"", b"", b""))


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


class Walk:
    """One pass over one data set.

    Attributes:
      window: the view of the source.
      uids: the new UIDs.
      patient: the pseudonym of the study's patient; "" for objects that are no patient's.
      pseudonym: gives that of a Patient ID in an Item.
      character_sets: Specific Character Set by the Item that holds it; None for the top level.
      edits: what to change, not in order; plain tuples of `Edit`'s fields, which are quicker to make.
      mapped: the encoded values of UI elements met.
      notes: (tag, VR, start, value, stop, undefined, raw) of top-level elements to look at when the walk is done; `raw`
        is the value of a short one, and else b"".
      scheme: the Item that last held a Coding Scheme Designator, and the designator.
    """

    __slots__ = (
        "_growth",
        "_marks",
        "character_sets",
        "edits",
        "mapped",
        "notes",
        "patient",
        "pseudonym",
        "scheme",
        "uids",
        "window",
    )

    def __init__(
        self, window: Window, uids: Mapping, patient: str, pseudonym: Callable[[str], str], marks: Sequence[Decision]
    ) -> None:
        self.window, self.uids, self.patient, self.pseudonym = window, uids, patient, pseudonym
        self.character_sets: dict[Path | None, str] = {}
        self.edits: list[Edit] = []
        self.mapped: list[bytes] = []
        self.notes: list[tuple[int, bytes, int, int, int, bool, bytes]] = []
        self.scheme: tuple[Path | None, bytes] = None, b""
        self._marks = list(marks)
        self._growth = [0]  # of all edits up to each

    def run(self, begin: int, encoding: Encoding, node: Node) -> int:
        """Walk a whole data set, add the marks it lacks, and return where its last element ends.

        Raises:
          InvalidInstance: whatever is wrong with the encoding, with the path of where.
        """
        self.window.due = self._due()
        end = self._data_set(begin, self.window.size, False, encoding, node, None, 0)
        self._mark(NEVER, end, encoding)
        return end

    def character_set(self, parent: Path | None) -> str:
        """The Specific Character Set that holds in an Item: its own, or the nearest around it."""
        while parent is not None and parent not in self.character_sets:
            parent = parent.parent
        return self.character_sets.get(parent, "")

    def _data_set(
        self, position: int, end: int, delimited: bool, encoding: Encoding, node: Node, parent: Path | None, depth: int
    ) -> int:
        window, index, edits = self.window, encoding.index, self.edits
        add = edits.append
        due = window.due = NEVER if depth else window.due
        for tag, vr, start, value, stop in encoding.elements(window, position, end, delimited, node.kept):
            if tag >= due:
                due = window.due = self._mark(tag, start, encoding)
            if tag & 0x10000:
                if stop >= 0:
                    add((start, stop, b"", parent, tag, vr, PRIVATE))  # type: ignore[arg-type]
                    continue
                decision: Decision | None = PRIVATE
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
                    if vr == b"SQ" or (undefined and (tag != PIXEL_DATA or vr not in (b"OB", b"OW"))):
                        raise InvalidInstance("sequence-vr", tag_text(tag), start)  # Items that nobody would enter
                    if undefined:
                        window.after = stop = skip(window, value, end, encoding, vr, tag)
                    if decision.noted:
                        self._note(tag, vr, start, value, stop, undefined)
                        continue
                    assert decision.act is not None
                    new = decision.act(self, decision, encoding, Element(start, value, stop, parent))
                    if new is not None:
                        add((start, stop, new, parent, tag, vr, decision))  # type: ignore[arg-type]
                    continue
                if vr not in (b"SQ", b"UN", b"") and (stop != value or decision.items):
                    raise InvalidInstance("sequence-vr", tag_text(tag), start)

            # A sequence that stays: its Items are walked, and lengths around what changed are written again.
            if depth >= MAX_DEPTH:
                raise InvalidInstance("nesting", tag_text(tag), start)
            inside, child, number, before = inner(encoding, vr), node.child(tag), 0, len(edits)
            behind_last = value
            for item, content, behind in items(window, value, stop, end, inside, tag):
                limit = behind if behind >= 0 else stop if stop >= 0 else end
                first = len(edits)
                try:
                    self._data_set(content, limit, behind < 0, inside, child, Path(parent, tag, number), depth + 1)
                except InvalidInstance as bad:
                    raise bad.inside(tag_text(tag), number) from None
                if behind >= 0 and len(edits) > first:
                    self._relength(item + 4, inside, behind - content, first)
                number, behind_last = number + 1, behind if behind >= 0 else window.after
            if decision is not None and decision.items is not None:
                add((behind_last, behind_last, decision.items[inside.index], parent, tag, vr, decision))  # type: ignore[arg-type]
            if stop >= 0 and len(edits) > before:
                self._relength(value - 4, encoding, stop - value, before)
            window.due = due
        return window.after

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

    def _due(self) -> int:
        """The tag of the next mark that the data set must hold."""
        return self._marks[-1].tag if self._marks else NEVER

    def _mark(self, tag: int, position: int, encoding: Encoding) -> int:
        """Insert the marks that should have come before `tag`, and say which is due next.

        One that stands at `tag` itself is there already: its own decision acts on it.
        """
        while self._marks and self._marks[-1].tag < tag:
            mark = self._marks.pop()
            new = mark.supply(self, mark, encoding) if mark.supply else b""
            if new:
                self.edits.append(Edit(position, position, new, None, mark.tag, b"", mark))
        if self._marks and self._marks[-1].tag == tag:
            self._marks.pop()
        return self._due()
