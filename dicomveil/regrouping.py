"""References by study and series where a study or series is torn: some of its instances move, and some stay.

An Item that names such a study or series, and instances on both sides of the tear, becomes two. What the Common
Instance Reference Module lists moves between the sequence for the instance's own study and the one for others (PS3.3
C.12.2). Everything else of the data set, the UIDs of instances too, is the walk's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Final, NamedTuple

from dicomveil import standard
from dicomveil.part10 import Instance
from dicomveil.references import HIERARCHICAL, REFERENCED_SOP_INSTANCE, SERIES_INSTANCE, STUDY_INSTANCE
from dicomveil.stream import BytesSource, Encoding, Source, Window, inner, items, skip

OF_STUDY: Final = (0x00081110, 0x30060012)
"""Sequences in which a SOP Instance UID names a study: Referenced Study and RT Referenced Study Sequence."""
REFERENCE: Final = "reference"
"""The rule by which a UID follows what it names."""
REGROUPED: Final = HIERARCHICAL | {0x00189506, 0x00700402, 0x00701B01, 0x00720422, 0x30060010, 0x300C0002}
"""The top-level sequences whose Items are regrouped: those that name studies or series, and those that hold such: of
contributing sources, blended images, image boxes, and RT."""
_SAME_STUDY: Final = 0x00081115
_OTHER_STUDIES: Final = 0x00081200
_REFERENCED_INSTANCES: Final = 0x0008114A
_ROLES: Final = {STUDY_INSTANCE: "study", SERIES_INSTANCE: "series"}


class Tear(NamedTuple):
    """What moves and what stays, as one instance sees it.

    Attributes:
      moves: whether the instance with a SOP Instance UID moves.
      new: gives the UID that a study or series has by now: (role, for those who move or those who stay, UID).
      study_instance_uid: of the instance itself, the original.
      own: whether it moves itself.
      kept: the sequences that the request keeps as they are.
    """

    moves: Callable[[str], bool]
    new: Callable[[str, bool, str], str]
    study_instance_uid: str
    own: bool
    kept: frozenset[int] = frozenset()


@dataclass(frozen=True)
class _Element:
    """An element of an Item: its bytes, or its Items where it is a sequence."""

    tag: int
    vr: bytes
    raw: bytes
    items: "tuple[_Item, ...] | None" = None

    @property
    def uid(self) -> str:
        """The UID that an element of one holds."""
        return self.raw.decode("latin-1").strip(" \0")


_Item = tuple[_Element, ...]


class Patch(NamedTuple):
    """Bytes that take the place of the source's from `start` to `stop`."""

    start: int
    stop: int
    new: bytes


class PatchedSource:
    """A source with some of its bytes replaced, read as if they had always been so."""

    def __init__(self, source: Source, patches: list[Patch]) -> None:
        self._source = source
        self._pieces: list[tuple[int, int, bytes | None]] = []  # (from where on, its place in the source, or its bytes)
        at = old = 0
        for start, stop, new in sorted(patches):
            if old < start:
                self._pieces.append((at, old, None))
                at += start - old
            self._pieces.append((at, start, new))
            at, old = at + len(new), stop
        self._pieces.append((at, old, None))
        self.size = at + source.size - old

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, or fewer where the source ends."""
        end, parts = min(offset + length, self.size), []
        ends = [after[0] for _, after in pairwise(self._pieces)] + [self.size]
        for (begin, old, new), stop in zip(self._pieces, ends, strict=True):
            first, last = max(offset, begin), min(end, stop)
            if first < last:
                inside = first - begin
                part = self._source.read(old + inside, last - first) if new is None else new[inside : last - begin]
                parts.append(part)
        return b"".join(parts)


def regrouped(instance: Instance, tear: Tear) -> tuple[Instance, list[int]]:
    """The instance with its references by study and series regrouped, and the tags of the sequences that changed.

    Raises:
      InvalidInstance: as the walk does.
    """
    patches = {tag: patch for tag, patch in _Regrouping(instance, tear).patches() if patch}
    if not patches:
        return instance, []
    source: Source = PatchedSource(instance.source, list(patches.values()))
    if isinstance(instance.source, BytesSource):
        source = BytesSource(source.read(0, source.size))
    return replace(instance, source=source), sorted(patches)


class _Regrouping:
    """One data set's sequences that name studies and series."""

    def __init__(self, instance: Instance, tear: Tear) -> None:
        self._encoding, self._tear = instance.encoding, tear
        self._window = Window(instance.source)
        self._found: dict[int, tuple[Patch, _Element]] = {}
        self._behind: dict[int, int] = {}
        for tag, vr, start, value, stop in instance.encoding.elements(
            self._window, instance.begin, self._window.size, False, _quiet(), True
        ):
            for wanted in (_SAME_STUDY, _OTHER_STUDIES):
                if tag > wanted:
                    self._behind.setdefault(wanted, start)
            if tag not in REGROUPED or vr not in (b"SQ", b"UN", b""):
                if stop < 0:
                    self._window.after = skip(self._window, value, self._window.size, self._encoding, vr, tag)
                continue
            found = tuple(self._items(tag, vr, value, stop, self._window.size, self._encoding))
            end = stop if stop >= 0 else self._window.after
            self._window.after = end
            self._found[tag] = Patch(start, end, b""), _Element(tag, vr, b"", found)

    def patches(self) -> Iterator[tuple[int, Patch | None]]:
        """What is to be written anew."""
        kept = self._tear.kept
        rebuilt = {tag: self._rebuilt(element) for tag, (_, element) in self._found.items() if tag not in kept}
        here, elsewhere = rebuilt.get(_SAME_STUDY), rebuilt.get(_OTHER_STUDIES)
        if not kept & {_SAME_STUDY, _OTHER_STUDIES} and (moved := self._relisted(here, elsewhere)):
            rebuilt[_SAME_STUDY], rebuilt[_OTHER_STUDIES] = moved
        for tag, element in rebuilt.items():
            yield tag, self._patch(tag, element)

    def _patch(self, tag: int, element: _Element) -> Patch | None:
        if tag not in self._found:
            at = self._behind.get(tag, -1)
            new = self._encoded(element, self._encoding) if element.items else b""
            return Patch(at, at, new) if new and at >= 0 else None
        (start, stop, _), before = self._found[tag]
        if before == element:
            return None
        return Patch(start, stop, self._encoded(element, self._encoding) if element.items else b"")

    # ------------------------------------------------------------------------------------------------------ reading

    def _items(self, tag: int, vr: bytes, value: int, stop: int, end: int, encoding: Encoding) -> Iterator[_Item]:
        window, inside = self._window, inner(encoding, vr)
        for _, content, behind in items(window, value, stop, end, inside, tag):
            limit = behind if behind >= 0 else stop if stop >= 0 else end
            yield tuple(self._elements(content, limit, behind < 0, inside))

    def _elements(self, begin: int, end: int, delimited: bool, encoding: Encoding) -> Iterator[_Element]:
        window = self._window
        for tag, vr, start, value, stop in encoding.elements(window, begin, end, delimited):
            if tag in standard.sequences() and vr in (b"SQ", b"UN", b""):
                found = tuple(self._items(tag, vr, value, stop, end, encoding))
                window.after = stop if stop >= 0 else window.after
                yield _Element(tag, vr, b"", found)
                continue
            if stop < 0:
                stop = window.after = skip(window, value, end, encoding, vr, tag)
                yield _Element(tag, vr, window.slice(start, stop))
            elif tag in _ROLES or tag == REFERENCED_SOP_INSTANCE:
                yield _Element(tag, b"UI", window.slice(value, stop))
            elif tag & 0xFFFF:
                yield _Element(tag, vr, window.slice(start, stop))
            window.after = stop

    def _encoded(self, element: _Element, encoding: Encoding) -> bytes:
        if element.items is None:
            plain = element.tag in _ROLES or element.tag == REFERENCED_SOP_INSTANCE
            return encoding.element(element.tag, "UI", element.raw) if plain else element.raw
        inside, content = inner(encoding, element.vr), []
        for item in element.items:
            encoded = b"".join(self._encoded(it, inside) for it in sorted(item, key=_tag))
            content.append(inside.item.pack(0xFFFE, 0xE000, len(encoded)) + encoded)
        return encoding.element(element.tag, element.vr.decode() or "SQ", b"".join(content))

    # ---------------------------------------------------------------------------------------------------- regrouping

    def _rebuilt(self, sequence: _Element) -> _Element:
        """A sequence with its Items divided, and the studies and series in them named as they are named then."""
        found: list[_Item] = []
        for item in sequence.items or ():
            if not self._torn(sequence.tag, item):
                found.append(tuple(self._rebuilt(it) if it.items is not None else it for it in item))
                continue
            sides = self._sides(sequence.tag, item) or {self._unsaid(item)}
            found.extend(self._sided(sequence.tag, item, side) for side in sorted(sides))
        return replace(sequence, items=tuple(found))

    def _named(self, sequence: int, item: _Item) -> Iterator[tuple[str, str]]:
        """(role, UID) of the study and the series that an Item names itself."""
        for it in item:
            role = "study" if it.tag == REFERENCED_SOP_INSTANCE and sequence in OF_STUDY else _ROLES.get(it.tag, "")
            if role and it.uid:
                yield role, it.uid

    def _torn(self, sequence: int, item: _Item) -> bool:
        new = self._tear.new
        return any(new(role, True, uid) != new(role, False, uid) for role, uid in self._named(sequence, item))

    def _sides(self, sequence: int, item: _Item) -> set[bool]:
        """On which sides of the tear the instances are to which an Item leads: all those of a series that moves as a
        whole move, also such as nobody knows."""
        if self._moves_whole(item):
            return {True}
        sides = {
            self._tear.moves(it.uid)
            for it in item
            if it.tag == REFERENCED_SOP_INSTANCE and sequence not in OF_STUDY and it.uid
        }
        held = ((it.tag, inside) for it in item for inside in it.items or ())
        return sides.union(*(self._sides(*one) for one in held if not self._names_study(*one)))

    def _moves_whole(self, item: _Item) -> bool:
        """Whether an Item names a series of which nothing stays."""
        named = (uid for role, uid in self._named(0, item) if role == "series")
        return any(self._tear.new("series", False, uid) != uid for uid in named)

    def _names_study(self, sequence: int, item: _Item) -> bool:
        """Whether an Item is about a study of its own, whatever is around it."""
        return any(role == "study" for role, _ in self._named(sequence, item))

    def _unsaid(self, item: _Item) -> bool:
        """On which side an Item is that leads to no instance: that of a series that is whole, else one's own."""
        new = self._tear.new
        for _, uid in (it for it in self._named(0, item) if it[0] == "series"):
            moved, stayed = new("series", True, uid), new("series", False, uid)
            if moved == stayed:
                return moved != uid
        return self._tear.own

    def _sided(self, sequence: int, item: _Item, side: bool) -> _Item:
        """An Item as far as it is about one side."""
        whole = self._moves_whole(item)
        return tuple(self._element_sided(sequence, it, side, whole) for it in item)

    def _element_sided(self, sequence: int, element: _Element, side: bool, whole: bool) -> _Element:
        if element.items is not None:
            if any(self._names_study(element.tag, it) for it in element.items):
                return self._rebuilt(element)
            kept = element.items if whole else [it for it in element.items if self._is_of(element.tag, it, side)]
            return replace(element, items=tuple(self._sided(element.tag, it, side) for it in kept))
        role = next((role for role, _ in self._named(sequence, (element,))), "")
        return replace(element, raw=self._tear.new(role, side, element.uid).encode()) if role else element

    def _is_of(self, sequence: int, item: _Item, side: bool) -> bool:
        sides = self._sides(sequence, item)
        return not sides or side in sides

    def _relisted(self, here: _Element | None, elsewhere: _Element | None) -> tuple[_Element, _Element] | None:
        """The two sequences of the Common Instance Reference Module, each series in the one that it belongs to by now;
        None where nothing changes its place."""
        own = self._tear.new("study", self._tear.own, self._tear.study_instance_uid)
        stays: list[_Item] = []
        goes: dict[str, list[_Item]] = {}
        others = list(elsewhere.items or ()) if elsewhere else []
        comes = [item for item in others if self._study_of(item) == own]
        for item in (here.items or ()) if here else ():
            listed = any(it.tag == _REFERENCED_INSTANCES for it in item)
            sides = self._sides(_SAME_STUDY, item)
            study = self._tear.new("study", next(iter(sides)), self._tear.study_instance_uid) if sides else own
            if listed and study != own:
                goes.setdefault(study, []).append(item)
            else:
                stays.append(item)
        if not goes and not comes:
            return None
        for it in (it for item in comes for it in item if it.tag == _SAME_STUDY):
            stays.extend(it.items or ())
        others = [item for item in others if self._study_of(item) != own]
        for study, series in goes.items():
            at = next((at for at, item in enumerate(others) if self._study_of(item) == study), len(others))
            there = others[at] if at < len(others) else (_Element(STUDY_INSTANCE, b"UI", study.encode()),)
            others[at : at + 1] = [_with_series(there, series)]
        return (
            _Element(_SAME_STUDY, here.vr if here else b"SQ", b"", tuple(stays)),
            _Element(_OTHER_STUDIES, elsewhere.vr if elsewhere else b"SQ", b"", tuple(others)),
        )

    def _study_of(self, item: _Item) -> str:
        """The study of an Item, as it is named by now."""
        return next((self._tear.new("study", False, it.uid) for it in item if it.tag == STUDY_INSTANCE), "")


def _with_series(item: _Item, series: list[_Item]) -> _Item:
    """An Item of Studies Containing Other Referenced Instances Sequence, and some more series in it."""
    there = next((it for it in item if it.tag == _SAME_STUDY), _Element(_SAME_STUDY, b"SQ", b"", ()))
    more = replace(there, items=(*(there.items or ()), *series))
    return (*(it for it in item if it.tag != _SAME_STUDY), more)


def _tag(element: _Element) -> int:
    return element.tag


@cache
def _quiet() -> frozenset[int]:
    """Plain elements that say nothing here; those that the two lists stand between are met one by one."""
    plain = standard.dictionary().keys() - standard.sequences()
    return frozenset(tag for tag in plain if tag < _SAME_STUDY or tag >> 16 > 0x0020)
