"""How a Content Item begins and a whole tree of them hangs together, read ahead of the walk that treats it.

What becomes of an Item by its concept stands in `concepts`; here it is weighed against what a legal tree needs.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from dicomveil.concepts import BY_VALUE_TYPE, REFERENCES, VALUE_ATTRIBUTES, Concepts, concept, dummy_treatment
from dicomveil.errors import InvalidInstance
from dicomveil.stream import MAX_DEPTH, Encoding, Window, inner, items, skip, tag_text

CONTENT_SEQUENCE: Final = 0x0040A730
SPECIMEN_PREPARATION_STEP: Final = 0x00400612
MODIFIERS: Final = 0x00400441
REFERENCED_CONTENT_ITEM_IDENTIFIER: Final = 0x0040DB73
CONTENT_SEQUENCES: Final = frozenset((
    CONTENT_SEQUENCE, MODIFIERS, SPECIMEN_PREPARATION_STEP, 0x00400555, 0x0040B020, 0x00400440, 0x00400620, 0x00409220,
    0x00240325, 0x00440013, 0x00440019, 0x00741007, 0x00741210, 0x00741212, 0x30020110, 0x30020131, 0x30020135,
    0x30100027, 0x30100070, 0x30100081, 0x300A062D, 0x300A065A, 0x300A065B, 0x300A073E, 0x300A0793,
))  # fmt: skip
"""Sequences whose Items are Content Items (PS3.3 10.2, C.7.6.14, C.10.10, C.17.3): those that E.3.4 names, and others
that hold text under a concept name all the same. Specimen Preparation Sequence (0040,0610) holds its through the
steps' (0040,0612)."""


_RELATIONSHIP: Final = 0x0040A010
_VALUE_TYPE: Final = 0x0040A040
_CONCEPT_NAME: Final = 0x0040A043
_CODE_VALUES: Final = (0x00080100, 0x00080119, 0x00080120)
_SCHEME: Final = 0x00080102
_HEAD: Final = frozenset((_RELATIONSHIP, _VALUE_TYPE, REFERENCED_CONTENT_ITEM_IDENTIFIER))
_NAME: Final = frozenset((*_CODE_VALUES, _SCHEME))
_CARRIES: Final = {tag: kind for kind, tags in VALUE_ATTRIBUTES.items() for tag in tags} | {0x00081199: "COMPOSITE"}
_MEASURED: Final = 0x0040A300
_UNITS: Final = 0x004008EA
_NUMERIC_VALUE: Final = 0x0040A30A
_LONGEST: Final = 4 * (MAX_DEPTH + 1)  # of a head's element, in bytes; a longer one says nothing


class _Nested(NamedTuple):
    """A sequence of Content Items inside an Item: the encoding of its Items, and the arguments of `stream.items`."""

    encoding: Encoding
    tag: int
    vr: bytes
    value: int
    stop: int
    end: int


class Head(NamedTuple):
    """What says what a Content Item is.

    Attributes:
      relationship: to the Item around it; "" in Acquisition Context and the like.
      value_type: "" where the Item is but a reference to another, and where nobody can tell what it holds.
      scheme, code: of the Concept Name, "" where there is none.
      references: Referenced Content Item Identifier; empty where the Item refers to none.
    """

    relationship: str
    value_type: str
    scheme: str
    code: str
    references: tuple[int, ...]


_UNCLEAR: Final = Head("", "", "", "", ())


def read_head(window: Window, encoding: Encoding, content: int, limit: int, delimited: bool) -> Head:
    """Read what a Content Item is, and leave the window as it was.

    A Value Type that is missing is told by the attribute that holds the value: Waveform Annotations have none
    (PS3.3 C.10.10), and an Item that holds no value is taken for a CONTAINER. Where two say different things, nobody
    can tell what a reader makes of the Item, and its Value Type is "".

    Args:
      encoding: of the Item.
      content: where its first element starts.
      limit: where it ends, or what holds it where it is delimited.
      delimited: whether an Item Delimitation Item ends it.

    Raises:
      InvalidInstance: as `Encoding.elements` does.
    """
    state = window.buffer, window.base, window.after, window.descends
    reading = _read_head(window, encoding, content, limit, delimited)
    try:
        while True:
            nested = next(reading)
            if nested.stop < 0:
                window.after = skip(window, nested.value, nested.end, encoding, nested.vr, nested.tag)
    except StopIteration as done:
        head: Head = done.value[0]
        return head
    finally:
        window.buffer, window.base, window.after, window.descends = state


def _read_head(
    window: Window, encoding: Encoding, content: int, limit: int, delimited: bool
) -> Generator[_Nested, None, tuple[Head, int]]:
    """Read an Item up to its end, which then stands in `window.after`.

    Yields:
      Each sequence of Content Items in it; the consumer says in `window.after` where one of undefined length ended.

    Returns:
      Its head, and where its identifier of another Item starts; -1 where it has none.
    """
    values: dict[int, bytes] = {}
    carried: set[str] = set()
    scheme, code, clear, place = "", "", True, -1
    for tag, vr, _, value, stop in encoding.elements(window, content, limit, delimited):
        sequence = stop < 0 or vr in (b"SQ", b"UN", b"")
        if tag in _HEAD:
            clear = clear and tag not in values
            values[tag] = window.slice(value, stop) if 0 <= stop <= value + _LONGEST else b""
            place = value if tag == REFERENCED_CONTENT_ITEM_IDENTIFIER else place
        elif tag in _CARRIES:
            carried.add(_CARRIES[tag])
        if tag == _CONCEPT_NAME and sequence:
            clear = clear and not (scheme or code)
            scheme, code = _read_code(window, inner(encoding, vr), value, stop, limit)
        elif tag in CONTENT_SEQUENCES and sequence:
            yield _Nested(inner(encoding, vr), tag, vr, value, stop, limit)
        elif stop < 0:
            window.after = skip(window, value, limit, encoding, vr, tag)
    head = _head(encoding, values, carried, scheme, code) if clear else _UNCLEAR
    return head, place if head.references else -1


def _head(encoding: Encoding, values: Mapping[int, bytes], carried: set[str], scheme: str, code: str) -> Head:
    references = _identifier(encoding, values.get(REFERENCED_CONTENT_ITEM_IDENTIFIER, b""))
    value_type = _text(values.get(_VALUE_TYPE, b"")).upper()
    if not value_type and (carried or REFERENCED_CONTENT_ITEM_IDENTIFIER not in values):
        value_type = "CONTAINER" if not carried else min(carried) if len(carried) == 1 else ""
        if not value_type:
            return _UNCLEAR
    return Head(_text(values.get(_RELATIONSHIP, b"")), value_type, scheme, code, references)


def _text(raw: bytes) -> str:
    return raw.decode("latin-1").strip(" \0")


def _identifier(encoding: Encoding, raw: bytes) -> tuple[int, ...]:
    if len(raw) % 4:
        return ()
    return tuple(number for (number,) in encoding.u32.iter_unpack(raw))


def _read_code(window: Window, encoding: Encoding, value: int, stop: int, end: int) -> tuple[str, str]:
    """Scheme and code of the first Item of a Concept Name Code Sequence; "" where there is none."""
    first: dict[int, str] = {}
    number = 0
    for _, content, behind in items(window, value, stop, end, encoding, _CONCEPT_NAME):
        limit = behind if behind >= 0 else stop if stop >= 0 else end
        try:
            for tag, vr, _, start, after in encoding.elements(window, content, limit, behind < 0):
                if after < 0:
                    window.after = skip(window, start, limit, encoding, vr, tag)
                elif tag in _NAME and not number and after - start <= _LONGEST:
                    first[tag] = _text(window.slice(start, after))
        except InvalidInstance as bad:
            raise bad.inside(tag_text(_CONCEPT_NAME), number) from None
        number += 1
    return first.get(_SCHEME, ""), next(filter(None, (first.get(tag) for tag in _CODE_VALUES)), "")


def read_measured(
    window: Window, encoding: Encoding, content: int, limit: int, delimited: bool
) -> tuple[tuple[str, str], ...]:
    """Read the numbers of a NUM item and the code of their unit, "" for none of either, and leave the window as it was.

    Args: as of `read_head`.

    Raises:
      InvalidInstance: as `Encoding.elements` does.
    """
    state = window.buffer, window.base, window.after, window.descends
    found: list[tuple[str, str]] = []
    try:
        for tag, vr, _, value, stop in encoding.elements(window, content, limit, delimited):
            if tag == _MEASURED and (stop < 0 or vr in (b"SQ", b"UN", b"")):
                inside = inner(encoding, vr)
                for _, start, behind in items(window, value, stop, limit, inside, tag):
                    end = behind if behind >= 0 else stop if stop >= 0 else limit
                    found.extend(_read_number(window, inside, start, end, behind < 0))
            elif stop < 0:
                window.after = skip(window, value, limit, encoding, vr, tag)
    finally:
        window.buffer, window.base, window.after, window.descends = state
    return tuple(found)


def _read_number(
    window: Window, encoding: Encoding, content: int, limit: int, delimited: bool
) -> list[tuple[str, str]]:
    """The numbers of one Item of a Measured Value Sequence, each with the unit."""
    unit, numbers = "", [""]
    for tag, vr, _, value, stop in encoding.elements(window, content, limit, delimited):
        if tag == _UNITS and (stop < 0 or vr in (b"SQ", b"UN", b"")):
            _, unit = _read_code(window, inner(encoding, vr), value, stop, limit)
        elif stop < 0:
            window.after = skip(window, value, limit, encoding, vr, tag)
        elif tag == _NUMERIC_VALUE:
            numbers = _text(window.slice(value, stop)).split("\\")
    return [(number, unit) for number in numbers]


ROOT: Final = (1,)
"""The identifier of the root Content Item, which is the data set (PS3.3 C.17.3.2.5)."""
_SPECIMEN_IDENTIFIER: Final = ("DCM", "121041")


class Outline(NamedTuple):
    """What becomes of the Content Items of a tree.

    Attributes:
      heads: what they are, by where their content starts.
      treatments: as `Concepts.treatment` says and the tree allows, likewise.
      references: Referenced Content Item Identifiers to write instead of others, by where the value of those starts; as
        many numbers as before.
      unknown: where the content starts of Items that are removed only because nobody knows what they refer to.
    """

    heads: dict[int, Head]
    treatments: dict[int, str]
    references: dict[int, tuple[int, ...]]
    unknown: set[int]

    def refers(self) -> bool:
        """Whether any Item that refers to an instance stays."""
        return any(
            self.treatments[content] != "remove" and head.value_type in REFERENCES
            for content, head in self.heads.items()
        )


class _Item(NamedTuple):
    """A Content Item of a tree.

    Attributes:
      ordinal: among those of its sequence, from 1; 0 where none can point to it.
      parent: the number of the Item around it in the tree, -1 at the top.
      place: where the identifier of another Item starts in it, -1 where it has none.
    """

    content: int
    head: Head
    sequence: int
    ordinal: int
    parent: int
    place: int = -1


def read_outline(
    window: Window, encoding: Encoding, content: int, concepts: Concepts, unknown: frozenset[int] = frozenset()
) -> Outline:
    """Read a document's tree of Content Items from its first Item on, and decide on each.

    The window is left as it was. An Item stays whatever its treatment was, with a dummy, where a by-reference
    relationship points to it or to something in it: the reference would point nowhere, and the coordinates or the
    inference that hang on it would lose their source (PS3.3 C.17.3.2.5). One whose target isn't there, can't be told
    or is a by-reference relationship itself goes. For the rest see `treatment_of`.

    Args:
      encoding: of the Items.
      content: where the content starts of the first Item in the data set's own Content Sequence. Its siblings follow
        it without a gap; what comes after them is an element.
      concepts: the request's.
      unknown: where the content starts of Items that refer to what nobody knows: treated as if the table had X.

    Raises:
      InvalidInstance: as `Encoding.elements` does, and "nesting" past 512; by offset alone.
    """
    state = window.buffer, window.base, window.after, window.descends
    tree: list[_Item] = []
    try:
        _Reader(window, tree).read_document(encoding, content - 8)
    except InvalidInstance as bad:
        raise InvalidInstance(bad.reason, "", bad.offset) from None
    finally:
        window.buffer, window.base, window.after, window.descends = state
    return _decided(tree, concepts, unknown)


def treatment_of(head: Head, sequence: int, concepts: Concepts) -> str:
    """What becomes of a Content Item where it stands.

    What would make its tree illegal isn't removed but gets a dummy:

    * what its parent is SELECTED FROM: coordinates without image or waveform aren't allowed (PS3.3 A.35);
    * Specimen Identifier (121041, DCM) in a preparation step: mandatory in TID 8001, although the table has X.

    NUM without a value stays legal, because Measured Value Sequence is of Type 2; the document's title is the data
    set's own and no Item; and the observers, events and UIDs that Templates demand (TID 1003, 1500, 10003) have D in
    the table. What a by-reference relationship points to is known to `read_outline` alone, so outside a document,
    where there is nothing to point to, such a relationship goes.

    Args:
      sequence: the tag of what holds the Item.
    """
    treatment = concepts.treatment(head.value_type, head.scheme, head.code)
    if treatment == "remove" and head.value_type in BY_VALUE_TYPE and _needed(head, sequence):
        return dummy_treatment(head.value_type)
    return treatment


def _needed(head: Head, sequence: int) -> bool:
    in_step = sequence == SPECIMEN_PREPARATION_STEP and concept(head.scheme, head.code) == _SPECIMEN_IDENTIFIER
    return in_step or head.relationship == "SELECTED FROM"


class _Reader:
    """Reads a tree into a list, each Item before those in it; without recursion, because trees may be deep."""

    def __init__(self, window: Window, tree: list[_Item]) -> None:
        self._window, self._tree = window, tree
        self._around: list[int] = []  # the Items around what is read, by number in the tree

    def read_document(self, encoding: Encoding, position: int) -> None:
        """Read the Items from a position on, up to what is none."""
        reading = [self._sequence(encoding, CONTENT_SEQUENCE, self._siblings(encoding, position), self._window.size)]
        while reading:
            nested = next(reading[-1], None)
            if nested is None:
                reading.pop()
                continue
            if len(reading) >= MAX_DEPTH:
                raise InvalidInstance("nesting", "", nested.value)
            encoding, tag, _, value, stop, end = nested
            found = items(self._window, value, stop, end, encoding, tag)
            reading.append(self._sequence(encoding, tag, found, stop if stop >= 0 else end))

    def _siblings(self, encoding: Encoding, position: int) -> Iterator[tuple[int, int, int]]:
        """The Items from a position on, as `items` gives them, of a sequence whose end isn't known."""
        window, mark = self._window, encoding.item.pack(0xFFFE, 0xE000, 0)[:4]
        while position + 8 <= window.size and window.slice(position, position + 4) == mark:
            yield (item := next(items(window, position, -1, window.size, encoding, CONTENT_SEQUENCE)))
            position = item[2] if item[2] >= 0 else window.after

    def _sequence(
        self, encoding: Encoding, tag: int, found: Iterator[tuple[int, int, int]], bound: int
    ) -> Generator[_Nested, None, None]:
        tree, around, window = self._tree, self._around, self._window
        parent = around[-1] if around else -1
        addressed = tag == CONTENT_SEQUENCE and (parent < 0 or tree[parent].ordinal > 0)
        for number, (_, content, behind) in enumerate(found, 1):
            at = len(tree)
            item = _Item(content, _UNCLEAR, tag, number if addressed else 0, parent)
            tree.append(item)
            around.append(at)
            limit = behind if behind >= 0 else bound
            head, place = yield from _read_head(window, encoding, content, limit, behind < 0)
            tree[at] = item._replace(head=head, place=place)
            around.pop()


def _decided(tree: Sequence[_Item], concepts: Concepts, unknown: frozenset[int]) -> Outline:
    targets = _targets(tree)
    pointed, treatments, gone = _pointed(tree, targets), list[str](), set[int]()
    for number, item in enumerate(tree):
        around = treatments[item.parent] if item.parent >= 0 else ""
        treatment = "remove" if around == "remove" else _in_tree(item, number in pointed, concepts)
        if item.content in unknown and treatment != "remove" and _may_go(item, number in pointed):
            gone.add(item.content)
            treatment = "remove"
        treatments.append(treatment)
    for number in _dangling(tree, targets, treatments):
        treatments[number] = "remove"
    return Outline(
        {item.content: item.head for item in tree},
        {item.content: treatment for item, treatment in zip(tree, treatments, strict=True)},
        _renumbered(tree, targets, treatments),
        gone,
    )


def _targets(tree: Sequence[_Item]) -> dict[int, int]:
    """What Items point to, both by number in the tree: -1 for the root, -2 for what isn't there."""
    numbers = {(item.parent, item.ordinal): number for number, item in enumerate(tree) if item.ordinal}
    targets = {}
    for number, item in enumerate(tree):
        if item.head.references:
            at = -1 if item.head.references[:1] == ROOT else -2
            for ordinal in item.head.references[1:]:
                at = numbers.get((at, ordinal), -2)
            targets[number] = at
    return targets


def _pointed(tree: Sequence[_Item], targets: Mapping[int, int]) -> set[int]:
    """The Items that by-reference relationships point to, and those around them."""
    pointed: set[int] = set()
    for number in targets.values():
        while number >= 0 and number not in pointed:
            pointed.add(number)
            number = tree[number].parent
    return pointed


def _in_tree(item: _Item, pointed: bool, concepts: Concepts) -> str:
    """An Item's treatment in a document."""
    if _by_reference(item.head):
        return "keep"
    treatment = treatment_of(item.head, item.sequence, concepts)
    if treatment == "remove" and pointed and item.head.value_type in BY_VALUE_TYPE:
        return dummy_treatment(item.head.value_type)
    return treatment


def _may_go(item: _Item, pointed: bool) -> bool:
    """Whether nothing else in the tree needs an Item that refers to an instance."""
    return item.head.value_type in REFERENCES and not pointed and not _needed(item.head, item.sequence)


def _by_reference(head: Head) -> bool:
    return bool(head.references) and not head.value_type


def _dangling(tree: Sequence[_Item], targets: Mapping[int, int], treatments: Sequence[str]) -> list[int]:
    """The Items that point to what isn't there, goes, or is or stands below a by-reference relationship."""
    unfit: list[bool] = []
    for number, item in enumerate(tree):
        above = item.parent >= 0 and unfit[item.parent]
        unfit.append(above or _by_reference(item.head) or treatments[number] == "remove")
    return [number for number, target in targets.items() if target == -2 or (target >= 0 and unfit[target])]


def _renumbered(
    tree: Sequence[_Item], targets: Mapping[int, int], treatments: Sequence[str]
) -> dict[int, tuple[int, ...]]:
    """The identifiers that change, by where they start: each ordinal less the Items removed before it."""
    gone, ordinals = Counter[int](), list[int]()
    for item, treatment in zip(tree, treatments, strict=True):
        if item.ordinal and treatment == "remove":
            gone[item.parent] += 1
        ordinals.append(item.ordinal - gone[item.parent])
    new = {}
    for number, target in targets.items():
        if treatments[number] != "remove":
            identifier: list[int] = []
            while target >= 0:
                identifier.append(ordinals[target])
                target = tree[target].parent
            new[number] = (*ROOT, *reversed(identifier))
    return {tree[number].place: it for number, it in new.items() if it != tree[number].head.references}
