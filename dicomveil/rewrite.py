"""One instance, de-identified: the walk over its data set, what is settled after it, and the file that results.

The result is the source's bytes with edits, and a preamble and File Meta Information of our own; it is written in
order and in bounded memory, so that bulk values go from source to output without being held.
"""

import zlib
from collections import Counter
from collections.abc import Iterator
from functools import cached_property, partial
from operator import itemgetter
from typing import Final, NamedTuple

from dicomveil import marks, standard
from dicomveil.compile import DecisionTable
from dicomveil.documents import DOCUMENT, settle_documents
from dicomveil.errors import InvalidInstance
from dicomveil.keys import Keys
from dicomveil.part10 import DEFLATED_UIDS, Instance, open_instance
from dicomveil.pixels import settle_pixels
from dicomveil.pseudonyms import known_patient_id, patient_pseudonym
from dicomveil.scan import PATIENT_ID, SOP_CLASS, InstanceScan, read_sequence, scan_opened
from dicomveil.stream import EXPLICIT_LITTLE, LARGEST_CHUNK, BytesSource, Source, Window, path_text, tag_text
from dicomveil.study import StudyMap
from dicomveil.uids import new_uid
from dicomveil.walk import Edit, Mapping, Mask, Walk

NON_PATIENT_FOLDER: Final = "non-patient"
_SEQUENCE_HEADER: Final = 12
_PREAMBLE: Final = bytes(128) + b"DICM"
_FILE_META_VERSION: Final = b"\0\1"


class Change(NamedTuple):
    """One element that was changed, for the audit.

    Attributes:
      path: "(0008,1140)[0].(0008,1155)".
      keyword: of PS3.6; "" for private and unknown ones.
      vr: as PS3.6 gives it; as written for private ones.
      action: D, Z, X, U, or C for Pixel Data that lost what is no pixel.
      rule: what says so, such as "E.1-1 2026d", "supplement" or "mark".
    """

    path: str
    keyword: str
    vr: str
    action: str
    rule: str


class Rewritten:
    """A de-identified instance, ready to be written.

    Attributes:
      sop_instance_uid, series_instance_uid, study_instance_uid, patient_id: the new values, "" for what it lacks.
    """

    def __init__(
        self, instance: Instance, scan: InstanceScan, study_map: StudyMap, walk: Walk, end: int, uids: Mapping
    ) -> None:
        self.sop_class_uid, self.transfer_syntax_uid = scan.sop_class_uid, instance.transfer_syntax_uid
        self.sop_instance_uid = uids.text(scan.sop_instance_uid)
        self.series_instance_uid = uids.text(scan.series_instance_uid) if scan.series_instance_uid else ""
        self.study_instance_uid, self.patient_id = study_map.study_instance_uid, study_map.patient
        self._instance, self._scan, self._walk, self._end, self._uids = instance, scan, walk, end, uids
        walk.edits.sort(key=itemgetter(0))

    @property
    def name(self) -> str:
        """Where it belongs in the output: patient, study, series and instance, all of them new values."""
        if not self.study_instance_uid:
            return f"{NON_PATIENT_FOLDER}/{self.sop_instance_uid}.dcm"
        return f"{self.patient_id}/{self.study_instance_uid}/{self.series_instance_uid}/{self.sop_instance_uid}.dcm"

    @cached_property
    def changes(self) -> list[Change]:
        """What was changed, in the order of the data set."""
        return [
            Change(
                path_text(parent, tag), it.keyword, vr.decode("latin-1") if it.vr == "UN" else it.vr, it.action, it.rule
            )
            for _, _, _, parent, tag, vr, it in self._walk.edits
            if it
        ]

    def read_removed(self) -> None:
        """Read what the walk passed over and a full scan would have read, after a scan that only identified.

        Raises:
          InvalidInstance: a lie inside a sequence that was removed, or one that only a full scan can tell.
        """
        whole = self._walk.window.descends
        for start, stop, _, parent, _, _, decision in self._walk.edits:
            if stop - start > _SEQUENCE_HEADER and decision is not None and decision.vr == "SQ":
                if parent is None:
                    read_sequence(self._instance, start, stop)
                else:
                    whole = True
        if whole:
            scan_opened(self._instance, self._scan.size)

    @property
    def counts(self) -> dict[str, int]:
        """How many elements each action changed."""
        return dict(Counter(edit[6].action for edit in self._walk.edits if edit[6]))

    @property
    def late_uids(self) -> list[tuple[str, str, str]]:
        """(role, original, new) of UIDs that the scan didn't see."""
        scanned = {uid for _, uid in self._scan.uids}
        mapped = {value.strip(" \0") for raw in set(self._walk.mapped) for value in raw.decode("latin-1").split("\\")}
        late = ((uid, self._uids.new(uid)) for uid in sorted(mapped - scanned) if uid)
        return [("other", uid, new) for uid, new in late if uid != new]

    def to_bytes(self) -> bytes:
        """The whole file in memory, for one that is small."""
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """The file in order, in pieces of at most about 1 MiB."""
        yield self._head()
        if self.transfer_syntax_uid not in DEFLATED_UIDS:
            yield from self._data_set()
            return
        deflater = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        length = 0
        for piece in self._data_set():
            if packed := deflater.compress(piece):
                length += len(packed)
                yield packed
        packed = deflater.flush()
        yield packed + b"\0" * (length + len(packed) & 1)

    def _head(self) -> bytes:
        element = EXPLICIT_LITTLE.element
        meta = b"".join(
            (
                element(0x00020001, "OB", _FILE_META_VERSION),
                element(0x00020002, "UI", self.sop_class_uid.encode()),
                element(0x00020003, "UI", self.sop_instance_uid.encode()),
                element(0x00020010, "UI", self.transfer_syntax_uid.encode()),
                element(0x00020012, "UI", marks.IMPLEMENTATION_CLASS_UID.encode()),
                element(0x00020013, "SH", marks.IMPLEMENTATION_VERSION_NAME.encode()),
            )
        )
        return _PREAMBLE + element(0x00020000, "UL", EXPLICIT_LITTLE.u32.pack(len(meta))) + meta

    def _data_set(self) -> Iterator[bytes]:
        return edited(self._instance.source, self._instance.begin, self._end, self._walk.edits)


def edited(source: Source, begin: int, end: int, edits: list[Edit]) -> Iterator[bytes]:
    """The bytes of a source from `begin` to `end` with the sorted edits applied, in pieces of at most about 1 MiB."""
    if isinstance(source, BytesSource):
        yield b"".join(_parts(source.data, begin, end, edits))
        return
    pieces = _applied(begin, end, edits)
    held: list[bytes] = []
    size = 0
    for start, stop, new in pieces:
        if isinstance(new, bytes):
            held.append(new)
            size += len(new)
            continue
        first = start
        while start < stop:
            length = min(stop - start, LARGEST_CHUNK - size) if size < LARGEST_CHUNK else 0
            part = source.read(start, length)
            if len(part) != length:
                raise InvalidInstance("truncated", "", start)
            held.append(_masked(part, new, start - first))
            start, size = start + length, size + length
            if size >= LARGEST_CHUNK:
                yield b"".join(held)
                held, size = [], 0
    if held:
        yield b"".join(held)


def _applied(begin: int, end: int, edits: list[Edit]) -> Iterator[tuple[int, int, bytes | Mask | None]]:
    """The output's pieces in order: new bytes, or a span of the source, copied (None) or masked."""
    at = begin
    for start, stop, new, *_ in edits:
        if at < start:
            yield at, start, None
        elif start < at:
            raise InvalidInstance("internal", "", start)
        if new:
            yield start, stop, new
        at = stop
    if at < end:
        yield at, end, None


def _parts(data: bytes, begin: int, end: int, edits: list[Edit]) -> list[bytes]:
    """The same of bytes in memory, without the detour through positions."""
    parts: list[bytes] = []
    add, at = parts.append, begin
    for edit in edits:
        start, stop, new = edit[:3]
        if at < start:
            add(data[at:start])
        elif start < at:
            raise InvalidInstance("internal", "", start)
        if new:
            add(new if isinstance(new, bytes) else _masked(data[start:stop], new))
        at = stop
    add(data[at:end])
    return parts


def _masked(part: bytes, mask: Mask | None, begin: int = 0) -> bytes:
    """A part of a span, `begin` bytes into it, its masked bits cleared."""
    if mask is None:
        return part
    phase, width = begin % len(mask.pattern), len(mask.pattern)
    pattern = (mask.pattern * (len(part) // width + 2))[phase : phase + len(part)]
    return (int.from_bytes(part, "big") & int.from_bytes(pattern, "big")).to_bytes(len(part), "big")


class Rewriter:
    """Rewrites instances by one decision table under one key; made once a process."""

    def __init__(self, table: DecisionTable, keys: Keys) -> None:
        self._table, self._keys = table, keys
        self._document = table.decision(DOCUMENT)
        self._uids = Mapping(partial(new_uid, keys))

    def rewrite(self, source: Source, scan: InstanceScan, study_map: StudyMap, sop_instance_uid: str = "") -> Rewritten:
        """De-identify one instance.

        Args:
          source: the very version that was scanned.
          scan: what the plan saw of it.
          study_map: what its study settles.
          sop_instance_uid: the new one, where it isn't derived from the original's value alone.

        Raises:
          InvalidInstance: it can't be done safely; nothing was written.
        """
        return self.rewrite_opened(open_instance(source), scan, study_map, sop_instance_uid)

    def rewrite_opened(
        self, instance: Instance, scan: InstanceScan, study_map: StudyMap, sop_instance_uid: str = ""
    ) -> Rewritten:
        """The same for an instance that is open."""
        if study_map.conflict:
            raise InvalidInstance(study_map.conflict)
        if scan.sop_class_uid not in standard.registered_uids():
            self._check_private_sop_class()
        uids = _OneGiven(self._uids, scan.sop_instance_uid, sop_instance_uid) if sop_instance_uid else self._uids
        marks = self._table.marks if scan.composite else [mark for mark in self._table.marks if mark.tag != PATIENT_ID]
        walk = Walk(Window(instance.source), uids, study_map.patient, self._pseudonym, marks)
        end = walk.run(instance.begin, instance.encoding, self._table.node(scan.sop_class_uid))
        settle_pixels(walk, instance.encoding, instance.transfer_syntax_uid)
        if any(note[0] == DOCUMENT for note in walk.notes):
            settle_documents(walk, instance.encoding, self._document)
        return Rewritten(instance, scan, study_map, walk, end, uids)

    def _check_private_sop_class(self) -> None:
        if self._table.request.private_sop_class == "quarantine":
            raise InvalidInstance("private-sop-class", tag_text(SOP_CLASS))

    def _pseudonym(self, patient_id: str) -> str:
        return patient_pseudonym(self._keys, patient_id) if known_patient_id(patient_id) else ""


class _OneGiven(Mapping):
    """The new UIDs, but for one SOP Instance UID whose new value was settled by the plan."""

    def __init__(self, uids: Mapping, original: str, given: str) -> None:
        super().__init__(lambda uid: given if uid == original else uids.new(uid))
