"""The way back of one instance: what was encrypted for a recipient takes its old place, and the marks say so.

Only what stands in the instance's Encrypted Attributes Sequence is put back; the rest is copied byte for byte. Which
files there are, and who may read what comes out, is the caller's business.
"""

from collections.abc import Iterator
from operator import itemgetter
from typing import Final, NamedTuple

from dicomveil import charset, marks
from dicomveil.compile import ENCRYPTED_ATTRIBUTES, SPECIFIC_CHARACTER_SET
from dicomveil.envelopes import MOST, NEVER, Opener, modified_attributes, read_envelopes
from dicomveil.errors import DicomveilError, InvalidInstance
from dicomveil.marks import LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED as LONGITUDINAL
from dicomveil.part10 import EXPLICIT_UID, IMPLICIT_UID, Instance, open_instance
from dicomveil.rewrite import NON_PATIENT_FOLDER, edited, file_name, head, stored
from dicomveil.stream import (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    LONGEST_UIDS,
    BytesSource,
    Encoding,
    Source,
    Window,
    skip,
    tag_text,
)
from dicomveil.transcoding import Place, resolved_vr, transcoded
from dicomveil.walk import Edit

SOP_CLASS: Final = 0x00080016
SOP_INSTANCE: Final = 0x00080018
STUDY: Final = 0x0020000D
SERIES: Final = 0x0020000E
_IDENTIFIERS: Final = frozenset((SOP_CLASS, SOP_INSTANCE, STUDY, SERIES))
_METHODS: Final = (marks.DEIDENTIFICATION_METHOD, marks.DEIDENTIFICATION_METHOD_CODE_SEQUENCE)
_ENCODINGS: Final = {EXPLICIT_UID: EXPLICIT_LITTLE, IMPLICIT_UID: IMPLICIT_LITTLE}

NOT_RESTORED: Final = {
    "no-envelope": "They hold no Encrypted Attributes Sequence.",
    "other-recipient": "They were encrypted for other certificates.",
    "not-opened": "They name this certificate, and what they hold can't be opened or is no data set of originals.",
    "charset": "They hold restored text that their Specific Character Set can't express.",
    "name-taken": "Another file of that name is there, and nothing is overwritten.",
}
"""Why nothing is restored from a file, beside the reasons for which it can't be read."""


class NotRestored(DicomveilError):
    """A file from which nothing is restored; `reason` is a key of `NOT_RESTORED`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: {NOT_RESTORED[reason]}")
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.reason,)


class Restored:
    """An instance with its originals, ready to be written. It identifies a person, and so does its name.

    Attributes:
      count: how many attributes were put back.
      sop_class_uid, sop_instance_uid: as its File Meta Information will say.
      name: where it belongs in the output: study, series and instance.
    """

    def __init__(self, instance: Instance, end: int, edits: list[Edit], uids: dict[int, str], count: int) -> None:
        self._instance, self._end, self._edits = instance, end, edits
        self.count, self.sop_class_uid = count, uids.get(SOP_CLASS, "")
        self.sop_instance_uid = uids.get(SOP_INSTANCE, "")
        folders = [uids[STUDY], uids.get(SERIES, "")] if uids.get(STUDY) else [NON_PATIENT_FOLDER]
        self.name = "/".join(map(file_name, folders)) + f"/{file_name(self.sop_instance_uid)}.dcm"

    def __repr__(self) -> str:
        return f"Restored(count={self.count})"

    def chunks(self) -> Iterator[bytes]:
        """The file in order, in pieces of at most about 1 MiB."""
        instance = self._instance
        yield head(self.sop_class_uid, instance.transfer_syntax_uid, self.sop_instance_uid)
        data_set = edited(instance.source, instance.begin, self._end, self._edits)
        yield from stored(data_set, instance.transfer_syntax_uid)

    def to_bytes(self) -> bytes:
        """The whole file in memory, for one that is small."""
        return b"".join(self.chunks())


def restore(source: Source, opener: Opener) -> Restored:
    """Put back what is encrypted for the opener's certificate in one de-identified instance.

    The originals replace what stands at their tags; Patient Identity Removed becomes NO, De-identification Method and
    its Code Sequence go, and so does the Encrypted Attributes Sequence with what it holds for others. Longitudinal
    Temporal Information Modified becomes what the envelope says, and stays where it says nothing: then dates of Items
    are still changed.

    Raises:
      NotRestored: nothing here is for this certificate, or what is can't be put back.
      Filtered, InvalidInstance: it is no DICOM file, or can't be read.

    Source: PS3.15 2026d E.1.2.
    """
    instance = open_instance(source)
    sequences, where = _sealed(instance)
    if not sequences:
        raise NotRestored("no-envelope")
    new = _opened(instance, sequences, where, opener)
    if not new:
        raise NotRestored("not-opened")
    restored = len(new.keys() - {LONGITUDINAL})
    element = instance.encoding.element(marks.PATIENT_IDENTITY_REMOVED, "CS", b"NO")
    new |= {marks.PATIENT_IDENTITY_REMOVED: element, **dict.fromkeys((*_METHODS, ENCRYPTED_ATTRIBUTES), b"")}
    edits, end, uids = _edits(instance, new)
    return Restored(instance, end, edits, uids, restored)


def _places(instance: Instance, window: Window) -> Iterator[Place]:
    """The top-level elements of an instance; where the last one ended stands in `window.after`."""
    encoding = instance.encoding
    for tag, vr, start, value, stop in encoding.elements(window, instance.begin, window.size, False):
        end = skip(window, value, window.size, encoding, vr, tag) if stop < 0 else stop
        yield tag, vr, start, value, end
        window.after = end


def _sealed(instance: Instance) -> tuple[list[Place], str]:
    """Where envelopes stand, and the Specific Character Set of the instance."""
    window, sequences, where = Window(instance.source), [], ""
    for place in _places(instance, window):
        if place[0] == ENCRYPTED_ATTRIBUTES:
            sequences.append(place)
        elif place[0] == SPECIFIC_CHARACTER_SET:
            where = _text(window, place)
    return sequences, where


def _text(window: Window, place: Place) -> str:
    if place[4] - place[3] > LONGEST_UIDS:
        raise InvalidInstance("length", tag_text(place[0]), place[2])
    return window.slice(place[3], place[4]).decode("latin-1").strip(" \0")


# ---------------------------------------------------------------------------------------------------------- opening


def _opened(instance: Instance, sequences: list[Place], where: str, opener: Opener) -> dict[int, bytes]:
    """The originals of every envelope that opens, by tag, as the instance encodes them; of two the first."""
    window, found, addressed = Window(instance.source), dict[int, bytes](), False
    for sequence in sequences:
        for uid, envelope in read_envelopes(window, sequence, instance.encoding):
            if not opener.addressed(envelope):
                continue
            addressed = True
            content, encoding = opener.open(envelope), _ENCODINGS.get(uid)
            if content is None or encoding is None:
                raise NotRestored("not-opened")
            try:
                found = _originals(content, encoding, instance.encoding, where) | found
            except InvalidInstance:  # a key that doesn't fit gives bytes, and now and then their padding looks right
                raise NotRestored("not-opened") from None
    if not addressed:
        raise NotRestored("other-recipient")
    return found


class _Text(NamedTuple):
    """How restored text is encoded, and how the instance's is."""

    before: str
    after: str


def _originals(content: bytes, source: Encoding, target: Encoding, where: str) -> dict[int, bytes]:
    """The attributes of one envelope.

    Raises:
      InvalidInstance: it is no such data set, or holds what no data set of originals may.
    """
    window, places = modified_attributes(content, source)
    own = next((_text(window, place) for place in places if place[0] == SPECIFIC_CHARACTER_SET), "")
    text, found = _Text(own, where), dict[int, bytes]()
    for place in places:
        tag = place[0]
        if tag >> 16 <= 0x0004 or not tag & 0xFFFF:
            raise InvalidInstance("item", tag_text(tag))
        if tag not in NEVER or tag == LONGITUDINAL:
            found[tag] = _put_back(window, place, source, target, text)
    return found


def _put_back(window: Window, place: Place, source: Encoding, target: Encoding, text: _Text) -> bytes:
    """One original as the instance encodes it.

    Where the instance was switched to another character set, text follows it at the top level; Items of a sequence
    say their own instead.
    """
    tag, encoded_vr, _, value, stop = place
    vr = resolved_vr(tag, encoded_vr)
    if text.before == text.after or (vr not in charset.VRS and vr != "SQ"):
        return transcoded(window, place, source, target, MOST)
    if vr == "SQ":
        own = target.element(SPECIFIC_CHARACTER_SET, "CS", text.before.encode("latin-1")) if text.before else b""
        return transcoded(window, place, source, target, MOST, own)
    raw = window.slice(value, stop)
    if raw.isascii() and b"\x1b" not in raw:
        return transcoded(window, place, source, target, MOST)
    try:
        decoded = charset.decode_strict(raw, text.before, vr).rstrip(" \0")
        return target.element(tag, vr, charset.encode(decoded, text.after, vr == "PN"))
    except (charset.Undecodable, charset.Unencodable):
        raise NotRestored("charset") from None


# ------------------------------------------------------------------------------------------------------- putting back


def _edits(instance: Instance, new: dict[int, bytes]) -> tuple[list[Edit], int, dict[int, str]]:
    """What to write where, where the data set ends, and the identifiers that result.

    An attribute takes the place of the one at its tag, once; one that is missing goes before the first element of a
    higher tag.
    """
    window, edits, seen, uids = Window(instance.source), list[Edit](), set[int](), dict[int, str]()
    waiting, before = sorted(tag for tag, element in new.items() if element), dict[int, int]()
    for place in _places(instance, window):
        tag, _, start, _, stop = place
        while waiting and waiting[0] < tag:
            before[waiting.pop(0)] = start
        if tag in _IDENTIFIERS and tag not in new:
            uids.setdefault(tag, _text(window, place))
        if tag in new:
            edits.append(Edit(start, stop, b"" if tag in seen else new[tag], None, tag))
            seen.add(tag)
    end = window.after
    for tag, element in new.items():
        if element and tag not in seen:
            at = before.get(tag, end)
            edits.append(Edit(at, at, element, None, tag))
        if tag in _IDENTIFIERS:
            uids[tag] = _value(element, instance.encoding)
    edits.sort(key=itemgetter(0, 1, 4))
    return edits, end, uids


def _value(element: bytes, encoding: Encoding) -> str:
    """The value of one encoded element."""
    window = Window(BytesSource(element))
    return "".join(_text(window, place) for place in encoding.elements(window, 0, window.size, False))
