"""What merge takes over from the study that others are merged into: all that its instances say of patient and study.

One instance of it tells, as a data set of its own; text is written in the character set of where it goes.
"""

from collections.abc import Iterator
from dataclasses import replace
from operator import itemgetter
from typing import Final

from dicomveil import charset, standard
from dicomveil.part10 import open_instance
from dicomveil.paths import AttributePath
from dicomveil.request import Replacement, Request
from dicomveil.scan import PATIENT_ID, SPECIFIC_CHARACTER_SET
from dicomveil.stream import EXPLICIT_LITTLE, BytesSource, Source, Window, items, skip
from dicomveil.tags import Attribute
from dicomveil.transcoding import ordered, transcoded
from dicomveil.values import Item, Member, Value

_MOST: Final = 16 << 20
_LAST_GROUP: Final = 0x0040
_CHARACTERS: Final = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"))
"""VRs of characters that the character set isn't about."""


def module_data_set(source: Source) -> bytes:
    """What one instance holds of the Patient and General Study Modules, as a data set in Explicit VR Little Endian.

    Raises:
      InvalidInstance: it can't be read, or they are more than 16 MiB.
    """
    instance = open_instance(source)
    window, encoding = Window(instance.source), instance.encoding
    found = []
    for tag, vr, start, value, stop in encoding.elements(window, instance.begin, window.size, False):
        if tag >> 16 > _LAST_GROUP:
            break
        if stop < 0:
            stop = window.after = skip(window, value, window.size, encoding, vr, tag)
        if tag == SPECIFIC_CHARACTER_SET or tag in standard.study_modules():
            found.append(transcoded(window, (tag, vr, start, value, stop), encoding, EXPLICIT_LITTLE, _MOST))
            window.after = stop
    return b"".join(found)


def into(request: Request, data_set: bytes) -> Request:
    """The request that makes an instance one of the study whose modules these are.

    What the study lacks is removed; a Patient ID that it lacks is emptied, since all its instances must agree.
    """
    values = dict(_read(Window(BytesSource(data_set)), 0, len(data_set), ""))
    values.pop(SPECIFIC_CHARACTER_SET, None)
    values.setdefault(PATIENT_ID, Value("LO", text=""))
    written = tuple(Replacement(_path(tag), value.vr, value) for tag, value in sorted(values.items()))
    gone = tuple(_path(tag) for tag in sorted(standard.study_modules() - values.keys()))
    return replace(request, replace=written, remove=gone)


def _path(tag: int) -> AttributePath:
    return AttributePath(Attribute(tag))


def _read(window: Window, begin: int, end: int, characters: str) -> Iterator[tuple[int, Value]]:
    """The elements of a data set or Item of ours as values to be written, without private ones."""
    for tag, encoded_vr, _, value, stop in EXPLICIT_LITTLE.elements(window, begin, end, False):
        vr = encoded_vr.decode("latin-1")
        if stop < 0:
            stop = window.after = skip(window, value, end, EXPLICIT_LITTLE, encoded_vr, tag)
            continue  # Items inside UN, whose meaning nobody knows
        raw = window.slice(value, stop)
        if tag == SPECIFIC_CHARACTER_SET:
            characters = raw.decode("latin-1").strip(" \0")
        if vr == "SQ":
            yield tag, Value("SQ", items=tuple(_items(window, value, stop, tag, characters)))
            window.after = stop
        elif not tag & 0x10000:
            yield tag, _value(vr, raw, characters)


def _items(window: Window, value: int, stop: int, tag: int, characters: str) -> Iterator[Item]:
    for _, content, behind in items(window, value, stop, stop, EXPLICIT_LITTLE, tag):
        members = _read(window, content, behind, characters)
        yield tuple(Member(number, it) for number, it in sorted(members, key=itemgetter(0)))


def _value(vr: str, raw: bytes, characters: str) -> Value:
    if vr in charset.VRS:
        return Value(vr, text=charset.decode(raw, characters).rstrip(" \0"))
    if vr in _CHARACTERS:
        return Value(vr, text=raw.decode("latin-1").rstrip(" \0"))
    return Value(vr, raw=(raw, raw, ordered(raw, vr, True)))
