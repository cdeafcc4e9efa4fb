"""What each action does to one element: X Z D as constants, U and the few that look at a value as functions.

A constant is encoded once, for each encoding. A function gets the walk (for the study's values and the window), its
decision, the encoding and the element, and returns the bytes that take the element's place: b"" removes it, None
leaves it.
"""

from collections.abc import Callable, Sequence
from typing import Final

from dicomveil import charset, dummies, standard
from dicomveil.decision import NOTHING, Act, Decision, Element, Literal, Supply
from dicomveil.errors import InvalidInstance
from dicomveil.stream import ENCODINGS, LONGEST_UIDS, Encoding, tag_text
from dicomveil.walk import Walk

_NUMBER_SIZES: Final = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8}  # in bytes; swapped in big endian

# ------------------------------------------------------------------------------------------------------- constants


def _in_each(encode: Callable[[Encoding], bytes]) -> Literal:
    """What is encoded once, for every encoding there is."""
    explicit, implicit, big = map(encode, ENCODINGS)
    return explicit, implicit, big


def removed(tag: int, vr: str) -> Literal:
    """X: nothing in its place."""
    return NOTHING


def emptied(tag: int, vr: str) -> Literal:
    """Z: a value of zero length; for a sequence, no Items."""
    return _in_each(lambda encoding: encoding.header(tag, vr, 0))


def dummy(tag: int, vr: str) -> Literal:
    """D: a value of the VR that identifies nobody; for a sequence, one Item that its IODs allow."""
    return _in_each(lambda encoding: _dummy(encoding, tag, vr))


def _dummy(encoding: Encoding, tag: int, vr: str) -> bytes:
    if vr == "SQ":
        return encoding.element(tag, vr, encoded_item(encoding, dummies.dummy_item(tag)))
    return encoding.element(tag, vr, dummies.dummy_bytes(tag, vr, encoding.big))


def encoded_item(encoding: Encoding, nodes: Sequence[dummies.Node]) -> bytes:
    """One Item of defined length that holds the given elements, in the order of their tags."""
    content = b"".join(encoding.element(node.tag, node.vr, _encoded_value(encoding, node)) for node in sorted(nodes))
    return encoding.item.pack(0xFFFE, 0xE000, len(content)) + content


def _encoded_value(encoding: Encoding, node: dummies.Node) -> bytes:
    if not isinstance(node.value, bytes):
        return b"".join(encoded_item(encoding, item) for item in node.value)
    size = _NUMBER_SIZES.get(node.vr, 1) if encoding.big else 1
    return (
        b"".join(node.value[at : at + size][::-1] for at in range(0, len(node.value), size)) if size > 1 else node.value
    )


# ------------------------------------------------------------------------------------------------------- functions


def map_uid(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
    """U: the UIDs that stand for the ones there, value by value; registered UIDs and empty values stay."""
    if element.stop - element.value > LONGEST_UIDS:
        raise InvalidInstance("length", tag_text(decision.tag), element.start)
    raw = walk.window.slice(element.value, element.stop)
    walk.mapped.append(raw)
    new = walk.uids.encoded(raw)
    return None if new is None else encoding.element(decision.tag, "UI", new)


def patient(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
    """The pseudonym of the study's patient, as Patient ID and as Patient's Name, also where the original is empty."""
    return supply_patient(walk, decision, encoding) or encoding.header(decision.tag, decision.vr, 0)


def supply_patient(walk: Walk, decision: Decision, encoding: Encoding) -> bytes:
    """The same where the data set lacks it: an instance without Patient ID takes its study's."""
    return encoding.element(decision.tag, decision.vr, walk.patient.encode()) if walk.patient else b""


def nested_patient_id(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
    """The pseudonym of the Patient ID that stands in an Item, which may be another patient's."""
    text = charset.decode(walk.window.slice(element.value, element.stop), walk.character_set(element.parent))
    return encoding.element(decision.tag, decision.vr, walk.pseudonym(text).encode())


def note_character_set(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
    """Keep the character set, for text that must be read in this data set or Item."""
    walk.character_sets[element.parent] = walk.window.slice(element.value, element.stop).decode("latin-1").strip(" \0")
    return None


def note_scheme(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
    """Keep a Coding Scheme Designator, for the Code Meaning that follows in the same Item."""
    walk.scheme = element.parent, walk.window.slice(element.value, element.stop).strip(b" \0")
    return None


def code_meaning(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
    """Keep the meaning of a code of a registered scheme; one that somebody made up may say anything."""
    item, scheme = walk.scheme
    if item is element.parent and scheme.decode("latin-1") in standard.coding_schemes():
        return None
    return _dummy(encoding, decision.tag, decision.vr)


def add_value(text: str) -> Act:
    """An action that adds a value to the ones that are there, once."""
    ours = text.encode()

    def add(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
        there = walk.window.slice(element.value, element.stop).rstrip(b" \0")
        values = there.split(b"\\") if there else []
        if ours in (value.strip(b" ") for value in values):
            return None
        return encoding.element(decision.tag, decision.vr, b"\\".join([*values, ours]))

    return add


def constant(tag: int, vr: str, value: str) -> Literal:
    """A mark: the same value wherever it stands or is missing."""
    return _in_each(lambda encoding: encoding.element(tag, vr, value.encode()))


def encoded_items(items: Sequence[Sequence[dummies.Node]]) -> Literal:
    """Items to append to a sequence."""
    return _in_each(lambda encoding: b"".join(encoded_item(encoding, item) for item in items))


def sequence(tag: int, items: Literal) -> Literal:
    """A sequence of encoded Items."""
    return _in_each(lambda encoding: encoding.element(tag, "SQ", items[encoding.index]))


def supply_literal(literal: Literal) -> Supply:
    """Where the data set lacks the element, it is inserted as this."""
    return lambda walk, decision, encoding: literal[encoding.index]
