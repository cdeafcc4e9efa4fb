"""References to what nobody knows, read ahead of the walk: which Items go, and which must stay for their Type's sake.

Which UIDs nobody knows is the study map's to say, and what is written instead is the walk's. Content Items are judged
in `outline`; here only what they refer to is taken up.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Final, NamedTuple

from dicomveil import standard
from dicomveil.decision import Decision, Node
from dicomveil.errors import InvalidInstance
from dicomveil.outline import CONTENT_SEQUENCE, CONTENT_SEQUENCES
from dicomveil.stream import LONGEST_UIDS, MAX_DEPTH, PIXEL_DATA, Encoding, Window, inner, items, skip, tag_text

EVIDENCE: Final = 0x0040A375
REFERENCED_SOP: Final = 0x00081199
REFERENCED_SOP_INSTANCE: Final = 0x00081155
STUDY_INSTANCE: Final = 0x0020000D
SERIES_INSTANCE: Final = 0x0020000E
_OWN: Final = (REFERENCED_SOP_INSTANCE, STUDY_INSTANCE, SERIES_INSTANCE)

HIERARCHICAL: Final = frozenset((
    0x00081115, 0x0008113A, 0x00081200, 0x00081250, 0x00083001, 0x00089092, 0x00089121, 0x00089154, 0x00089237,
    0x00101100, 0x00209529, 0x0040A360, 0x0040A375, 0x0040A385, 0x0040A525, 0x00700404, 0x30060012, 0x30060014,
))  # fmt: skip
"""Sequences whose Items name a study or series and, in sequences of their own, instances of it (PS3.3 10.3, 10.4,
10.13, C.8.8.5, C.17.2): an Item that leads to nothing is of no use."""
_CONDITIONAL: Final = (0x00081115, 0x00081200, EVIDENCE, 0x0040A385)
_LISTS: Final = (*_CONDITIONAL, 0x00089092, 0x00089154)
"""Top-level sequences that list what the rest of the data set refers to (PS3.3 C.12.2, C.17.2.3, C.8.13.2). The last
two are demanded even where the sequences that they list for are empty; the others on condition of something to list."""


class References(NamedTuple):
    """What becomes of the external references of one data set.

    Attributes:
      gone: where the content starts of Items that go.
      needed: the tags of external UIDs in Items that stay, likewise.
      left: what becomes of sequences of which all Items go, by where the value starts: tag, and X or Z.
    """

    gone: set[int]
    needed: dict[int, tuple[int, ...]]
    left: dict[int, tuple[int, str]]


@dataclass(slots=True)
class _Item:
    """An Item that refers to something, or holds one that does.

    Attributes:
      tags: of the UIDs in it that nobody knows.
      instances: those of them that name instances.
      refers: whether it names an instance at all.
      nowhere: whether it leads to nothing, once that was asked.
    """

    content: int
    tags: tuple[int, ...] = ()
    instances: frozenset[str] = frozenset()
    refers: bool = False
    nowhere: bool = False
    held: "list[_Sequence]" = field(default_factory=list)


@dataclass(slots=True)
class _Sequence:
    """A sequence in which references stand.

    Attributes:
      value: where its value starts.
      count: of all its Items.
      items: those that matter.
    """

    tag: int
    value: int
    encoding: Encoding
    count: int = 0
    items: list[_Item] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.items)


class Ahead:
    """A data set's references, read before it is walked.

    Args:
      node: the decisions for the data set: what doesn't stay, or stays as it is, isn't looked into.
      external: whether nobody knows a UID.

    Raises:
      InvalidInstance: as the walk does.
    """

    def __init__(
        self, window: Window, begin: int, encoding: Encoding, node: Node, external: Callable[[str], bool]
    ) -> None:
        self._window, self._external = window, external
        window.due = PIXEL_DATA
        self._top = self._data_set(_Item(-1), begin, window.size, False, encoding, node, 0)

    @property
    def unknown(self) -> frozenset[int]:
        """Where the content starts of Content Items whose value is a reference, and nobody knows to what."""
        return frozenset(
            item.content
            for sequence in _flat(self._top.held)
            if sequence.tag in CONTENT_SEQUENCES
            for item in sequence.items
            if _refers_to_nothing(item)
        )

    @property
    def document(self) -> tuple[Encoding, int] | None:
        """The encoding of the data set's own Content Sequence, and where its first Item's content starts.

        None where nothing in it refers to anything.
        """
        return next(((it.encoding, it.value + 8) for it in self._top.held if it.tag == CONTENT_SEQUENCE), None)

    def settle(self, sop_class_uid: str, gone: frozenset[int] = frozenset()) -> References:
        """Decide on all Items.

        Args:
          gone: where the content starts of Content Items that go.
        """
        settling = _Settling(sop_class_uid, gone)
        for listing in (False, True):
            settling.settle([it for it in self._top.held if (it.tag in _LISTS) == listing])
        return settling.found

    def _data_set(
        self, item: _Item, position: int, end: int, delimited: bool, encoding: Encoding, node: Node, depth: int
    ) -> _Item:
        """Note what one data set or Item refers to."""
        window = self._window
        for tag, vr, start, value, stop in encoding.elements(window, position, end, delimited, _quiet(), True):
            if depth == 0 and tag >= PIXEL_DATA:
                break
            if tag in _OWN and stop >= 0:
                if depth:
                    self._name(item, tag, start, value, stop)
                continue
            if vr not in (b"SQ", b"UN", b"") or tag not in standard.sequences() or not _entered(node[tag]):
                if stop < 0:
                    window.after = skip(window, value, end, encoding, vr, tag, depth)
                continue
            if depth >= MAX_DEPTH:
                raise InvalidInstance("nesting", tag_text(tag), start)
            sequence, child = _Sequence(tag, value, inner(encoding, vr)), node.child(tag)
            for _, content, behind in items(window, value, stop, end, sequence.encoding, tag):
                limit = behind if behind >= 0 else stop if stop >= 0 else end
                try:
                    found = self._data_set(
                        _Item(content), content, limit, behind < 0, sequence.encoding, child, depth + 1
                    )
                except InvalidInstance as bad:
                    raise bad.inside(tag_text(tag), sequence.count) from None
                sequence.count += 1
                if found.tags or found.refers or found.held:
                    sequence.items.append(found)
            if sequence:
                item.held.append(sequence)
        return item

    def _name(self, item: _Item, tag: int, start: int, value: int, stop: int) -> None:
        """Note what an Item names itself; nobody knows it only if nobody knows any of its values."""
        if stop - value > LONGEST_UIDS:
            raise InvalidInstance("length", tag_text(tag), start)
        raw = self._window.slice(value, stop).decode("latin-1").split("\\")
        uids = frozenset(uid for text in raw if (uid := text.strip(" \0")))
        unknown = bool(uids) and all(map(self._external, uids))
        if tag == REFERENCED_SOP_INSTANCE:
            item.refers = True
            item.instances = uids if unknown else frozenset()
        if unknown:
            item.tags = (*item.tags, tag)


@cache
def _quiet() -> frozenset[int]:
    """Plain elements that say nothing here."""
    return frozenset(standard.dictionary().keys() - standard.sequences() - set(_OWN))


def _entered(decision: Decision | None) -> bool:
    """Whether the Items of a sequence are decided on one by one."""
    if decision is None:
        return True
    changed = decision.literal is not None or decision.act is not None or decision.items is not None
    return not (changed or decision.frozen)


class _Settling:
    """Decides on sequences, those around before those inside; the lists last, which keep what the rest refers to.

    Attributes:
      found: what was decided so far.
    """

    def __init__(self, sop_class_uid: str, gone: frozenset[int]) -> None:
        self._sop_class_uid, self._types = sop_class_uid, standard.reference_types()
        self._content_gone = gone
        self._stay: set[str] = set()
        self.found = References(set(), {}, {})

    def settle(self, sequences: list[_Sequence]) -> None:
        """Decide on top-level sequences; all lists together, after the rest."""
        for sequence in reversed(_flat(sequences)):
            for item in sequence.items:
                item.nowhere = self._leads_nowhere(item, sequence.tag)
        left: list[tuple[_Sequence, tuple[int, ...]]] = [(it, ()) for it in sequences]
        while left:
            sequence, around = left.pop()
            path = (*around, sequence.tag)
            for item in self._staying(sequence, path):
                self._stays(item, path)
                left.extend((held, path) for held in item.held)

    def _staying(self, sequence: _Sequence, path: tuple[int, ...]) -> list[_Item]:
        """The Items that stay; what becomes of the others, and of the sequence, is noted."""
        if sequence.tag in CONTENT_SEQUENCES:
            return [it for it in sequence.items if it.content not in self._content_gone]
        if len(path) > 1 and path[-2] in CONTENT_SEQUENCES:
            return sequence.items  # the value of a Content Item that stays
        going = [it.content for it in sequence.items if it.nowhere]
        if len(going) == sequence.count:
            if self._must_stay(path):
                return sequence.items
            action = "Z" if self._types.type(path, self._sop_class_uid).startswith("2") else "X"
            self.found.left[sequence.value] = sequence.tag, action
        self.found.gone.update(going)
        return [it for it in sequence.items if not it.nowhere]

    def _stays(self, item: _Item, path: tuple[int, ...]) -> None:
        hierarchical = path[-1] in HIERARCHICAL
        if tags := tuple(tag for tag in item.tags if hierarchical or tag == REFERENCED_SOP_INSTANCE):
            self.found.needed[item.content] = tags
        if path[0] not in _LISTS:
            self._stay.update(item.instances)

    def _must_stay(self, path: tuple[int, ...]) -> bool:
        """Whether a sequence needs an Item."""
        kind = self._types.type(path, self._sop_class_uid)
        return kind.startswith("1") and not (kind == "1C" and len(path) == 1 and path[0] in _CONDITIONAL)

    def _leads_nowhere(self, item: _Item, sequence: int) -> bool:
        """Whether an Item refers to nothing that anybody knows, or that stays elsewhere; what is in it comes before."""
        if sequence in HIERARCHICAL and item.held:
            return all(len(it.items) == it.count and all(one.nowhere for one in it.items) for it in item.held)
        if item.instances & self._stay:
            return False
        return REFERENCED_SOP_INSTANCE in item.tags or (sequence in HIERARCHICAL and bool(item.tags))


def _flat(sequences: list[_Sequence]) -> list[_Sequence]:
    """The same and all in them, those around before those inside; without recursion, as data sets may be deep."""
    found = list(sequences)
    for sequence in found:
        found.extend(held for item in sequence.items for held in item.held)
    return found


def _refers_to_nothing(item: _Item) -> bool:
    """Whether the value of a Content Item is a reference, and nobody knows to what."""
    values = [it for held in item.held if held.tag == REFERENCED_SOP for it in held.items]
    return bool(values) and all(it.instances for it in values)
