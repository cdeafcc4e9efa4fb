"""What each action does to one element: X Z D as constants, U and the few that look at a value as functions.

A constant is encoded once, for each encoding. A function gets the walk (for the study's values and the window), its
decision, the encoding and the element, and returns the bytes that take the element's place: b"" removes it, None
leaves it.
"""

from collections.abc import Callable, Sequence
from typing import Final

from dicomveil import ages, charset, dummies, standard
from dicomveil.dates import UnshiftableDate, shift_values
from dicomveil.decision import NOTHING, Act, Decision, Element, Literal, Supply
from dicomveil.errors import InvalidInstance
from dicomveil.scan import ISSUER
from dicomveil.stream import ENCODINGS, LONG_VRS, LONGEST_UIDS, Encoding, Path, tag_text
from dicomveil.values import Value, encoded
from dicomveil.vocabulary import Vocabulary
from dicomveil.walk import Edit, Mapping, Walk

UTF_8: Final = "ISO_IR 192"
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


# ------------------------------------------------------------------------------------------------------ identifiers


def map_uid(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
    """U: the UIDs that stand for the ones there, value by value; registered UIDs and empty values stay."""
    return _mapped(walk, walk.uids, decision, encoding, element)


def map_uid_of(role: str) -> Act:
    """U where roles are treated unlike: the UIDs of an attribute whose values name a study, an instance, ..."""

    def map_uid_of_role(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
        return _mapped(walk, walk.facts.of_role(role), decision, encoding, element)

    return map_uid_of_role


def _mapped(walk: Walk, uids: Mapping, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
    raw = _uids(walk, decision, element)
    walk.mapped.append(raw)
    new = uids.encoded(raw)
    return None if new is None else encoding.element(decision.tag, "UI", new)


def count_uids(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
    """K of a UID that is somebody's, where the request keeps all around it: it is counted."""
    values = _uids(walk, decision, element).decode("latin-1").split("\\")
    known = standard.registered_uids()
    walk.originals += sum(1 for value in values if (uid := value.strip(" \0")) and uid not in known)
    return None


def _uids(walk: Walk, decision: Decision, element: Element) -> bytes:
    if element.stop - element.value > LONGEST_UIDS:
        raise InvalidInstance("length", tag_text(decision.tag), element.start)
    return walk.window.slice(element.value, element.stop)


def patient_id(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
    """The study's new Patient ID, also where the original is empty."""
    return supply_patient_id(walk, decision, encoding, None) or encoding.header(decision.tag, decision.vr, 0)


def supply_patient_id(walk: Walk, decision: Decision, encoding: Encoding, parent: Path | None) -> bytes:
    """The same where the data set lacks it: an instance without Patient ID takes its study's."""
    patient = walk.facts.patient
    return _text(walk, encoding, decision, patient, parent) if patient else b""


def patient_name(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
    """The new name of the study's patient, also where the original is empty."""
    return _text(walk, encoding, decision, walk.facts.name, element.parent)


def nested_patient_id(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
    """The new Patient ID of the one that stands in an Item, which may be another patient's."""
    text = charset.decode(walk.window.slice(element.value, element.stop), walk.character_set(element.parent))
    issuer = _issuer_behind(walk, encoding, element) if walk.facts.issuers else ""
    return _text(walk, encoding, decision, walk.facts.pseudonym(text, issuer), element.parent)


def _issuer_behind(walk: Walk, encoding: Encoding, element: Element) -> str:
    """The Issuer of Patient ID that follows on a Patient ID; "" where another element does."""
    header = walk.window.slice(element.stop, min(element.stop + 12, walk.window.size))
    if len(header) < 8:
        return ""
    group, number, length = encoding.item.unpack(header[:8])
    if group << 16 | number != ISSUER:
        return ""
    start = element.stop + 8
    if not encoding.implicit:
        long = header[4:6] in LONG_VRS
        length = int.from_bytes(header[8:] if long else header[6:8], "big" if encoding.big else "little")
        start += 4 * long
    raw = walk.window.slice(start, min(start + length, walk.window.size))
    return charset.decode(raw, walk.character_set(element.parent))


def number(label: str) -> Act:
    """A keyed pseudonym of a number that orders or studies go by; an empty one stays empty."""

    def pseudonym(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
        if element.value == element.stop:
            return None
        text = charset.decode(walk.window.slice(element.value, element.stop), walk.character_set(element.parent))
        return encoding.element(decision.tag, decision.vr, walk.facts.number(label, text).encode())

    return pseudonym


# ----------------------------------------------------------------------------------------------------- text and dates


def _text(walk: Walk, encoding: Encoding, decision: Decision, text: str, parent: Path | None) -> bytes:
    """An element of text in the character set that holds where it stands."""
    where = UTF_8 if walk.utf8 else walk.character_set(parent)
    value = text.encode() if text.isascii() else charset.encode(text, where, decision.vr == "PN")
    return encoding.element(decision.tag, decision.vr, value)


def replaced(tag: int, value: Value, instead: str = "") -> tuple[Literal | None, Act | None, Supply]:
    """What a request writes: the same for all, or encoded where it stands.

    Args:
      instead: the Specific Character Set that the data set gets; "" where it keeps its own.

    Returns:
      (literal, act, supply), one of the first two.
    """
    if value.plain:
        literal = _in_each(lambda encoding: encoding.element(tag, value.vr, encoded(value, encoding, "")))
        return literal, None, supply_literal(literal)

    def supply(walk: Walk, decision: Decision, encoding: Encoding, parent: Path | None) -> bytes:
        where = instead or walk.character_set(parent)
        return encoding.element(decision.tag, value.vr, encoded(value, encoding, where))

    def act(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
        return supply(walk, decision, encoding, element.parent)

    return None, act, supply


def clean_text(vocabulary: Vocabulary, otherwise: Literal, instead: str = "") -> Act:
    """C of text: what the vocabulary leaves of each value; where that is nothing, what the profile does."""

    def clean(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
        raw, where = walk.window.slice(element.value, element.stop), walk.character_set(element.parent)
        try:
            olds = [value.strip(" \0") for value in charset.split_values(raw, where, decision.vr)]
        except charset.Undecodable:
            return otherwise[encoding.index]
        news = [vocabulary.clean(value, walk.facts.identifies) for value in olds]
        if not any(news):
            return otherwise[encoding.index]
        if news == olds and not (instead and not raw.isascii()):
            return None
        new = charset.encode("\\".join(news), instead or where, False)
        return encoding.element(decision.tag, decision.vr, new)

    return clean


def shift_dates(
    otherwise: Literal, unshiftable: Decision, move: Callable[[str, bytes, int], bytes] = shift_values
) -> Act:
    """C of dates: moved by the patient's days.

    Args:
      otherwise: what the profile does, for dates that are no patient's.
      unshiftable: what becomes of a date that can't be moved, with a literal; it is recorded as this.
      move: how the value is read.
    """

    def shift(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
        if not walk.facts.days:
            return otherwise[encoding.index]
        raw = walk.window.slice(element.value, element.stop)
        try:
            new = move(decision.vr, raw, walk.facts.days)
        except UnshiftableDate:
            _obey_instead(walk, unshiftable, encoding, element)
            return None
        return None if new == raw else encoding.element(decision.tag, decision.vr, new)

    return shift


def unshiftable(tag: int, keyword: str, vr: str, rule: str, needed: bool) -> Decision:
    """What becomes of a date that can't be moved: emptied, or replaced by a dummy where a value is `needed`."""
    literal = dummy(tag, vr) if needed else emptied(tag, vr)
    return Decision(tag, keyword, vr, "D" if needed else "Z", f"{rule} unshiftable", literal=literal)


def _obey_instead(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> None:
    """Have another decision obeyed than the one that was asked, and recorded."""
    assert decision.literal is not None
    new = decision.literal[encoding.index]
    walk.edits.append(Edit(element.start, element.stop, new, element.parent, decision.tag, element.vr, decision))


def cap_age(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
    """Ages up to 89 years as they are, those above as one, and nothing of what is no age."""
    olds = walk.window.slice(element.value, element.stop).decode("latin-1").split("\\")
    news = [ages.capped(old) for old in olds]
    return None if news == olds else encoding.element(decision.tag, decision.vr, "\\".join(news).encode("latin-1"))


def to_utf8(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
    """Text that is kept in a data set that is switched to UTF-8."""
    raw = walk.window.slice(element.value, element.stop)
    if raw.isascii() and b"\x1b" not in raw:
        return None
    vr = element.vr.decode() if element.vr not in (b"", b"UN") else decision.vr
    return encoding.element(decision.tag, vr, _converted(walk, decision, element, raw, vr))


def _converted(walk: Walk, decision: Decision, element: Element, raw: bytes, vr: str) -> bytes:
    """Text in UTF-8, padding dropped."""
    try:
        text = charset.decode_strict(raw, walk.character_set(element.parent), vr)
    except charset.Undecodable:
        raise InvalidInstance("charset", tag_text(decision.tag), element.start) from None
    return text.rstrip(" \0").encode()


def in_utf8(act: Act) -> Act:
    """The same, and text that it would leave as it is switched to UTF-8."""

    def converted(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
        new = act(walk, decision, encoding, element)
        return to_utf8(walk, decision, encoding, element) if new is None else new

    return converted


def utf8_character_set(walk: Walk, decision: Decision, encoding: Encoding, element: Element) -> bytes | None:
    """ISO_IR 192 in the place of a character set, which is remembered for what must still be read."""
    note_character_set(walk, decision, encoding, element)
    return encoding.element(decision.tag, "CS", UTF_8.encode())


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
        if walk.utf8:
            there = _converted(walk, decision, element, there, decision.vr)
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
    return lambda walk, decision, encoding, parent: literal[encoding.index]
