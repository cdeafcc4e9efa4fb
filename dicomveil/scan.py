"""What the plan must know of one instance: its identifiers, and every UID that it mentions.

The whole data set is read, long values skipped by their length, so that a lie about the encoding is found here,
before anything is written.
"""

import json
from dataclasses import dataclass
from functools import cache
from typing import Final

from dicomveil import charset, standard
from dicomveil.errors import Filtered, InvalidInstance
from dicomveil.filters import Filter
from dicomveil.identity import identifying
from dicomveil.part10 import DICOMDIR_CLASS, Instance, open_instance
from dicomveil.stream import (
    LONGEST_UIDS,
    MAX_DEPTH,
    PIXEL_DATA,
    Encoding,
    Source,
    Window,
    holds_items,
    inner,
    items,
    skip,
    tag_text,
)

SPECIFIC_CHARACTER_SET: Final = 0x00080005
SOP_CLASS: Final = 0x00080016
SOP_INSTANCE: Final = 0x00080018
STUDY_DATE: Final = 0x00080020
ACCESSION_NUMBER: Final = 0x00080050
MODALITY: Final = 0x00080060
PATIENT_ID: Final = 0x00100020
ISSUER: Final = 0x00100021
STUDY_INSTANCE: Final = 0x0020000D
SERIES_INSTANCE: Final = 0x0020000E
FRAME_OF_REFERENCE: Final = 0x00200052

_IDENTIFIERS: Final = {
    SPECIFIC_CHARACTER_SET: "",
    SOP_CLASS: "sop_class_uid",
    SOP_INSTANCE: "sop_instance_uid",
    MODALITY: "modality",
    PATIENT_ID: "patient_id",
    ISSUER: "issuer",
    STUDY_INSTANCE: "study_instance_uid",
    SERIES_INSTANCE: "series_instance_uid",
    FRAME_OF_REFERENCE: "frame_of_reference_uid",
}
_FILTERED: Final = {
    SOP_CLASS: "SOPClassUID",
    STUDY_DATE: "StudyDate",
    ACCESSION_NUMBER: "AccessionNumber",
    MODALITY: "Modality",
    STUDY_INSTANCE: "StudyInstanceUID",
}
"""What a filter may ask about, by keyword."""
_WITH_FILTERED: Final = _IDENTIFIERS | dict.fromkeys((STUDY_DATE, ACCESSION_NUMBER), "")
DESCRIBING: Final = {0x00100010: "PatientName", 0x00100030: "PatientBirthDate", 0x00100040: "PatientSex"}
"""By what people compare patients who share an ID."""
_SINGLE: Final = (SOP_CLASS, SOP_INSTANCE, STUDY_INSTANCE, SERIES_INSTANCE)
_TEXTS: Final = (PATIENT_ID, ISSUER)
_DECODED: Final = (*_TEXTS, ACCESSION_NUMBER)  # the only ones that the character set is about (PS3.5 6.1.2.3)
_LONGEST_IDENTIFIER: Final = 1 << 16
_LONGEST_SAID: Final = 1 << 12

_SEQUENCE: Final = ""  # in place of a role: what a tag is that must be a sequence


@dataclass(frozen=True, repr=False)
class InstanceScan:
    """One instance as the plan sees it; "" for what it lacks. Its repr tells nothing: it holds originals.

    Attributes:
      sop_class_uid: of the data set, not of the file meta.
      patient_id: decoded, as it stands, blanks around it dropped.
      issuer: of the Patient ID, likewise.
      transfer_syntax_uid: the one the data set is in, recovered where the file's own was missing or wrong.
      size: of the stored instance, in bytes.
      uids: (role, UID) of every instance-role UID mentioned at any depth that isn't registered, sorted, each once.
      composite: False for SOP Classes that are no patient's (palettes, hanging protocols, ...).
      said: (VR, text) of every value by which somebody could be known, where the request cleans text; else empty.
      patients: (Patient ID, issuer) of every Item that has a Patient ID, as they stand, sorted, each once.
      described: (keyword, text) of the patient's other attributes by which two are told apart, where the request gives
        another Patient ID; else empty.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    patient_id: str
    issuer: str
    modality: str
    transfer_syntax_uid: str
    size: int
    uids: tuple[tuple[str, str], ...]
    composite: bool
    said: tuple[tuple[str, str], ...] = ()
    patients: tuple[tuple[str, str], ...] = ()
    described: tuple[tuple[str, str], ...] = ()

    def encode(self) -> bytes:
        """As bytes that `decode` reads back; it holds originals, and stays in the restricted zone."""
        return json.dumps(list(vars(self).values()), separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> "InstanceScan":
        values = json.loads(data)
        for at in (-5, -3, -2, -1):
            values[at] = tuple((kind, value) for kind, value in values[at])
        return cls(*values)


def scan_instance(
    source: Source,
    listening: bool = False,
    private: bool = False,
    describing: bool = False,
    taking: Filter | None = None,
) -> InstanceScan:
    """Read one stored instance for the plan.

    Args:
      listening: whether to gather what is said of people, for text to be cleaned of it.
      private: whether to look into private elements too, where their encoding tells what they are.
      describing: whether to note by what patients are compared.
      taking: what is taken, None for everything. Where the instance says early that it isn't, no more of it is read.

    Raises:
      Filtered: there is nothing to de-identify, or it isn't taken.
      InvalidInstance: the encoding lies, an identifier is missing, given twice with different values, or has several.
    """
    return scan_opened(open_instance(source), source.size, listening, private, describing, taking)


def scan_opened(
    instance: Instance,
    size: int,
    listening: bool = False,
    private: bool = False,
    describing: bool = False,
    taking: Filter | None = None,
) -> InstanceScan:
    """The same for an instance that is open; `size` is the stored one's, in bytes."""
    found = _Scan(Window(instance.source), listening, private, describing, taking)
    try:
        found.data_set(instance.begin, instance.source.size, False, instance.encoding, 0, top=True)
    except InvalidInstance as bad:
        raise (
            InvalidInstance("trailing-data", "", bad.offset) if found.behind_pixels and "." not in bad.path else bad
        ) from None
    return found.scan(instance, size)


def identify(instance: Instance, size: int) -> InstanceScan:
    """Read no further than the identifiers of an instance whose tags ascend, for a rewrite that follows at once.

    What stands behind them isn't looked at, and no UID that is only mentioned is told: the rewrite reads the rest, and
    `Rewritten.read_removed` what it removed unread.
    """
    found = _Scan(Window(instance.source))
    found.identify(instance)
    return found.scan(instance, size)


def read_sequence(instance: Instance, start: int, stop: int) -> None:
    """Read a top-level sequence from its start to the next element's, for the lies in it.

    Raises:
      InvalidInstance: as `scan_instance` does.
    """
    _Scan(Window(instance.source)).data_set(start, stop, False, instance.encoding, 0)


@cache
def _watched() -> dict[int, str]:
    """What the scan looks at, by tag: the role of a UI attribute that is mapped, or that it is a sequence."""
    sequences = dict.fromkeys(standard.sequences(), _SEQUENCE)
    roles = {tag: uid.role for tag, uid in standard.uid_attributes().items() if uid.role != "definition"}
    return sequences | roles


@cache
def _quiet_in_items(listening: bool) -> frozenset[int]:
    """Plain elements of which the scan wants nothing."""
    quiet = standard.dictionary().keys() - _watched().keys() - {SPECIFIC_CHARACTER_SET, PATIENT_ID, ISSUER}
    return frozenset(quiet - identifying().keys() if listening else quiet)


@cache
def _quiet(listening: bool, describing: bool, filtering: bool) -> frozenset[int]:
    """The same at the top level, where identifiers are wanted, and to know what stands behind Pixel Data."""
    quiet = _quiet_in_items(listening) - (_WITH_FILTERED if filtering else _IDENTIFIERS).keys() - {PIXEL_DATA}
    return quiet - DESCRIBING.keys() if describing else quiet


@cache
def _quiet_identifiers() -> frozenset[int]:
    """Whatever is no identifier."""
    return frozenset(standard.dictionary().keys() - _IDENTIFIERS.keys())


class _Scan:
    """The walk of one scan, and what it gathers.

    Attributes:
      identifiers: top-level values by tag, decoded, blanks and padding around them dropped.
      mentioned: (role, encoded value) of UI elements, each once.
      patients: (Patient ID, issuer) of Items that have a Patient ID.
      said: (VR, text) of what identifies people, where it is listened to.
      described: by what the patient is compared, by keyword.
      behind_pixels: whether the top-level Pixel Data was passed.
    """

    def __init__(
        self,
        window: Window,
        listening: bool = False,
        private: bool = False,
        describing: bool = False,
        taking: Filter | None = None,
    ) -> None:
        self.window, self._listening, self._private, self._describing = window, listening, private, describing
        self._taking, self._wanted = taking, _WITH_FILTERED if taking else _IDENTIFIERS
        self.described: dict[str, str] = {}
        self._identifying = identifying() if listening else {}
        self.said: set[tuple[str, str]] = set()
        self.identifiers: dict[int, str] = {}
        self.mentioned: set[tuple[str, bytes]] = set()
        self.patients: list[tuple[str, str]] = []
        self.behind_pixels = False

    def uids(self) -> set[tuple[str, str]]:
        registered = standard.registered_uids()
        return {
            (role, uid)
            for role, raw in self.mentioned
            for value in raw.decode("latin-1").split("\\")
            if (uid := value.strip(" \0")) and uid not in registered
        }

    def data_set(
        self,
        position: int,
        end: int,
        delimited: bool,
        encoding: Encoding,
        depth: int,
        top: bool = False,
        characters: str = "",
    ) -> None:
        """Note what one data set or Item holds, sequences entered. One frame a level: 512 of them must fit."""
        window, watched = self.window, _watched()
        filtering, wanted = self._taking is not None, self._wanted
        quiet = _quiet(self._listening, self._describing, filtering) if top else _quiet_in_items(self._listening)
        patient = ""
        for tag, vr, start, value, stop in encoding.elements(
            window, position, end, delimited, quiet, not self._private
        ):
            if top:
                if tag in wanted:
                    self._identify(tag, start, value, stop)
                    if filtering and tag > STUDY_INSTANCE:
                        self._filter(False)
                elif tag in DESCRIBING and self._describing and 0 <= stop - value <= _LONGEST_SAID:
                    text = charset.decode(window.slice(value, stop), characters)
                    self.described[DESCRIBING[tag]] = text.strip(" ^=\0")
                if tag < PIXEL_DATA:
                    if self.behind_pixels:
                        raise InvalidInstance("trailing-data", tag_text(tag), start)
                elif tag == PIXEL_DATA:
                    if stop < 0:
                        window.after = skip(window, value, end, encoding, vr, tag)
                    self.behind_pixels, window.due = True, 0
                    continue
            if tag == SPECIFIC_CHARACTER_SET and 0 <= stop - value <= _LONGEST_IDENTIFIER:
                characters = window.slice(value, stop).decode("latin-1").strip(" \0")
            if tag in self._identifying and 0 <= stop - value <= _LONGEST_SAID:
                self._listen(tag, value, stop, characters)
            role = watched.get(tag)
            if self._private and tag & 0x10000 and vr == b"UI":
                role = "other"
            holds = vr == b"SQ" or (tag & 0x10000 and self._holds_items(vr, value, stop, end, encoding))
            if role is None and not holds and stop >= 0:
                if tag in _TEXTS and not top:
                    patient = self._name(tag, value, stop, patient, characters)
                continue
            if role and stop >= 0:
                if stop - value > LONGEST_UIDS:
                    raise InvalidInstance("length", tag_text(tag), start)
                if value < stop:
                    self.mentioned.add((role, window.slice(value, stop)))
                continue
            inside = inner(encoding, vr)
            unknown = tag & 0x10000 and not (self._private and holds)
            if unknown or tag == PIXEL_DATA or vr not in (b"SQ", b"UN", b""):
                if stop < 0:
                    window.after = skip(window, value, end, encoding, vr, tag, depth)
                continue
            if depth >= MAX_DEPTH:
                raise InvalidInstance("nesting", tag_text(tag), start)
            number = 0
            for _, content, behind in items(window, value, stop, end, inside, tag):
                limit = behind if behind >= 0 else stop if stop >= 0 else end
                try:
                    self.data_set(content, limit, behind < 0, inside, depth + 1, characters=characters)
                except InvalidInstance as bad:
                    raise bad.inside(tag_text(tag), number) from None
                number += 1

    def _holds_items(self, vr: bytes, value: int, stop: int, end: int, encoding: Encoding) -> bool:
        """Whether a private element of unknown VR holds Items, where such are looked into."""
        if not self._private or vr not in (b"UN", b""):
            return False
        return stop < 0 or bool(holds_items(self.window, value, stop, end, inner(encoding, vr)))

    def identify(self, instance: Instance) -> None:
        """Note the identifiers, up to the last tag that is one."""
        window, encoding = self.window, instance.encoding
        window.due = FRAME_OF_REFERENCE + 1
        for tag, vr, start, value, stop in encoding.elements(
            window, instance.begin, window.size, False, _quiet_identifiers(), True
        ):
            if tag > FRAME_OF_REFERENCE:
                return
            if tag in _IDENTIFIERS:
                self._identify(tag, start, value, stop)
            elif stop < 0:
                window.after = skip(window, value, window.size, encoding, vr, tag)

    def scan(self, instance: Instance, size: int) -> InstanceScan:
        """What was found, if it has the identifiers that it must have."""
        values = self.identifiers
        if values.get(SOP_CLASS) == DICOMDIR_CLASS:
            raise Filtered("dicomdir")
        self._filter(True)
        composite = values.get(SOP_CLASS) not in standard.non_patient_sop_classes()
        for tag in _SINGLE if composite else (SOP_CLASS, SOP_INSTANCE):
            if not values.get(tag):
                raise InvalidInstance("missing-identifier", tag_text(tag))
        return InstanceScan(
            **{name: values.get(tag, "") for tag, name in _IDENTIFIERS.items() if name},
            transfer_syntax_uid=instance.transfer_syntax_uid,
            size=size,
            uids=tuple(sorted(self.uids())),
            composite=composite,
            said=tuple(sorted(self.said)),
            patients=tuple(sorted(set(self.patients))),
            described=tuple(sorted(self.described.items())),
        )

    def _filter(self, whole: bool) -> None:
        """See whether the instance is taken; before the `whole` of it is read, only where it says all that is asked."""
        if self._taking is None:
            return
        said = {keyword: self.identifiers[tag] for tag, keyword in _FILTERED.items() if tag in self.identifiers}
        if (whole or self._taking.needs <= said.keys()) and not self._taking.takes(said):
            raise Filtered("not-taken")

    def _listen(self, tag: int, value: int, stop: int, characters: str) -> None:
        """Note what an attribute says of somebody."""
        text = charset.decode(self.window.slice(value, stop), characters)
        for word in text.split("\\"):
            if said := word.strip(" \0"):
                self.said.add((self._identifying[tag], said))

    def _name(self, tag: int, value: int, stop: int, patient: str, characters: str) -> str:
        """Note whom an Item names: its Patient ID, and then the issuer of that one."""
        if stop - value > _LONGEST_SAID:
            return ""
        text = charset.decode(self.window.slice(value, stop), characters).strip(" \0")
        if tag == ISSUER:
            if patient:
                self.patients[-1] = patient, text
            return ""
        if text:
            self.patients.append((text, ""))
        return text

    def _identify(self, tag: int, start: int, value: int, stop: int) -> None:
        """Note a top-level identifier; a second one must say the same."""
        if stop < 0 or stop - value > _LONGEST_IDENTIFIER:
            raise InvalidInstance("length", tag_text(tag), start)
        raw = self.window.slice(value, stop)
        if tag == SOP_CLASS and STUDY_INSTANCE in self.identifiers:
            raise InvalidInstance("trailing-data", tag_text(tag), start)  # a second data set begins
        text = raw.decode("latin-1")
        if tag in _DECODED:
            text = charset.decode(raw, self.identifiers.get(SPECIFIC_CHARACTER_SET, ""))
        text = text.strip(" \0")
        if tag in _SINGLE and "\\" in text:
            raise InvalidInstance("several-values", tag_text(tag), start)
        if self.identifiers.setdefault(tag, text) != text:
            raise InvalidInstance("identifier-twice", tag_text(tag), start)
