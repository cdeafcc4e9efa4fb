"""One instance, de-identified: the walk over its data set, what is settled after it, and the file that results.

The result is the source's bytes with edits, and a preamble and File Meta Information of our own; it is written in
order and in bounded memory, so that bulk values go from source to output without being held.
"""

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, cached_property, lru_cache, partial
from operator import itemgetter
from typing import Final, NamedTuple
from urllib.parse import quote

from dicomveil import marks, standard
from dicomveil.charset import Unencodable
from dicomveil.compile import DecisionTable
from dicomveil.decision import REMOVED
from dicomveil.documents import DOCUMENT, settle_documents
from dicomveil.envelopes import Envelopes, settle_encrypted
from dicomveil.errors import InvalidInstance
from dicomveil.identities import Identities
from dicomveil.keys import Keys
from dicomveil.part10 import DEFLATED_UIDS, Instance, open_instance
from dicomveil.pixels import settle_overlays, settle_pixels, settle_risk
from dicomveil.pseudonyms import number_pseudonym, patient_name
from dicomveil.regrouping import REFERENCE
from dicomveil.scan import PATIENT_ID, SOP_CLASS, InstanceScan, read_sequence, scan_opened
from dicomveil.stream import EXPLICIT_LITTLE, ITEM, LARGEST_CHUNK, BytesSource, Source, Window, path_text, tag_text
from dicomveil.study_map import StudyMap
from dicomveil.tags import keyword_of
from dicomveil.walk import Edit, Facts, Mapping, Mask, Walk

NON_PATIENT_FOLDER: Final = "non-patient"
_SEQUENCE_HEADER: Final = 12
_LONGEST_NAME: Final = 200  # of 255 that file systems allow, in bytes
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


class Place(NamedTuple):
    """The new identifiers of an instance; "" for what it lacks."""

    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str

    @property
    def name(self) -> str:
        """Where it belongs in the output."""
        *folders, sop_instance_uid = map(file_name, self)
        return "/".join([*(folders if self.study_instance_uid else [NON_PATIENT_FOLDER]), f"{sop_instance_uid}.dcm"])


def _place(scan: InstanceScan, study_map: StudyMap, facts: Facts) -> Place:
    new = facts.of_role
    series = new("series").text(scan.series_instance_uid) if scan.series_instance_uid else ""
    return Place(study_map.patient, study_map.study_instance_uid, series, new("instance").text(scan.sop_instance_uid))


class Rewritten:
    """A de-identified instance, ready to be written.

    Attributes:
      place: its new identifiers.
      risk: why its pixels may speak, a kind of `burned_in.Risk`; "" where nothing says so.
    """

    def __init__(
        self,
        instance: Instance,
        scan: InstanceScan,
        place: Place,
        walk: Walk,
        end: int,
        sop_class_uid: str,
        risk: str = "",
        regrouped: Sequence[int] = (),
        private: str = REMOVED.rule,
    ) -> None:
        self.sop_class_uid = sop_class_uid or scan.sop_class_uid
        self.transfer_syntax_uid = instance.transfer_syntax_uid
        self.place = place
        self.risk, self._regrouped, self._private = risk, regrouped, private
        self._instance, self._scan, self._walk, self._end = instance, scan, walk, end
        walk.edits.sort(key=itemgetter(0))

    @property
    def frozen(self) -> list[tuple[str, str, int]]:
        """(path, keyword, how many original UIDs stay) of each sequence that the request keeps as it is."""
        return [(path_text(parent, tag), keyword_of(tag), count) for parent, tag, count in self._walk.frozen]

    @cached_property
    def changes(self) -> list[Change]:
        """What was changed, in the order of the data set; before it the sequences whose Items were regrouped."""
        regrouped = [Change(tag_text(tag), keyword_of(tag), "SQ", "U", REFERENCE) for tag in self._regrouped]
        return regrouped + [
            Change(
                parent.text() if tag == ITEM and parent else path_text(parent, tag),
                it.keyword,
                vr.decode("latin-1") if it.vr == "UN" else it.vr,
                it.action,
                self._private if it is REMOVED else it.rule,
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
        new = self._walk.facts.uids.new
        late = ((uid, new(uid)) for uid in sorted(mapped - scanned) if uid)
        return [("other", uid, new) for uid, new in late if uid != new]

    def to_bytes(self) -> bytes:
        """The whole file in memory, for one that is small."""
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """The file in order, in pieces of at most about 1 MiB."""
        yield head(self.sop_class_uid, self.transfer_syntax_uid, self.place.sop_instance_uid)
        data_set = edited(self._instance.source, self._instance.begin, self._end, self._walk.edits)
        yield from stored(data_set, self.transfer_syntax_uid)


def head(sop_class_uid: str, transfer_syntax_uid: str, sop_instance_uid: str) -> bytes:
    """The preamble and our own File Meta Information."""
    before, after = _meta(sop_class_uid, transfer_syntax_uid)
    meta = before + EXPLICIT_LITTLE.element(0x00020003, "UI", sop_instance_uid.encode()) + after
    return _PREAMBLE + EXPLICIT_LITTLE.element(0x00020000, "UL", EXPLICIT_LITTLE.u32.pack(len(meta))) + meta


def stored(data_set: Iterator[bytes], transfer_syntax_uid: str) -> Iterator[bytes]:
    """An encoded data set as a file holds it: deflated where the transfer syntax says so."""
    if transfer_syntax_uid not in DEFLATED_UIDS:
        yield from data_set
        return
    deflater = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    length = 0
    for piece in data_set:
        if packed := deflater.compress(piece):
            length += len(packed)
            yield packed
    packed = deflater.flush()
    yield packed + b"\0" * (length + len(packed) & 1)


@lru_cache(1000)
def _meta(sop_class_uid: str, transfer_syntax_uid: str) -> tuple[bytes, bytes]:
    """What stands in the File Meta Information before and after the SOP Instance UID."""
    element = EXPLICIT_LITTLE.element
    before = element(0x00020001, "OB", _FILE_META_VERSION) + element(0x00020002, "UI", sop_class_uid.encode())
    return before, b"".join(
        (
            element(0x00020010, "UI", transfer_syntax_uid.encode()),
            element(0x00020012, "UI", marks.IMPLEMENTATION_CLASS_UID.encode()),
            element(0x00020013, "SH", marks.IMPLEMENTATION_VERSION_NAME.encode()),
        )
    )


def file_name(value: str) -> str:
    """A value as the name of a file or folder: as it is where that is safe, else with escapes."""
    name = quote(value, safe=" ^,=+@~()[]")[:_LONGEST_NAME]
    return name if name.strip(". ") else "_"


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
        self._identities = Identities(keys, table.request)
        self._document = table.decision(DOCUMENT)
        self._uids = Mapping(self._identities.derived)
        self._utf8 = table.request.utf8
        certificates = table.request.encrypt_for
        self._envelopes = Envelopes(certificates) if certificates else None
        self._encrypted = frozenset(table.request.encrypt_attributes)
        self._study: tuple[StudyMap | None, Facts | None] = None, None

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
        study_map, facts = self._settled(scan, study_map, sop_instance_uid)
        if scan.sop_class_uid not in standard.registered_uids():
            self._check_private_sop_class()
        try:
            return self._rewritten(instance, scan, study_map, facts, utf8=self._utf8)
        except Unencodable:
            return self._rewritten(instance, scan, study_map, facts, utf8=True)

    def name(self, scan: InstanceScan, study_map: StudyMap, sop_instance_uid: str = "") -> str:
        """The name that `rewrite` of the same arguments gives, where it doesn't fail.

        Raises:
          InvalidInstance: it surely does.
        """
        return _place(scan, *self._settled(scan, study_map, sop_instance_uid)).name

    def _settled(self, scan: InstanceScan, study_map: StudyMap, sop_instance_uid: str) -> tuple[StudyMap, Facts]:
        study_map = self._map(scan, study_map)
        facts = self._facts(study_map)
        if sop_instance_uid:
            facts = _with_given(facts, scan.sop_instance_uid, sop_instance_uid)
        return study_map, facts

    def _rewritten(
        self, instance: Instance, scan: InstanceScan, study_map: StudyMap, facts: Facts, utf8: bool
    ) -> Rewritten:
        walk = Walk(Window(instance.source), facts, utf8)
        if self._table.drops and study_map.external:
            window = Window(instance.source)
            self._table.read_references(walk, instance.begin, instance.encoding, window, scan.sop_class_uid)
        end = walk.run(instance.begin, instance.encoding, self._table.node(scan.sop_class_uid, utf8))
        request = self._table.request
        settle_pixels(walk, instance, request.bitstream_comments)
        if "CleanGraphics" in request.options:
            settle_overlays(walk)
        if self._document is not None and any(note[0] == DOCUMENT for note in walk.notes):
            settle_documents(walk, instance.encoding, self._document)
        if self._envelopes is not None:
            settle_encrypted(walk, instance, self._envelopes, self._encrypted)
        risk = settle_risk(walk, scan.sop_class_uid, scan.modality, request.burned_in, self._document is None)
        return Rewritten(instance, scan, _place(scan, study_map, facts), walk, end, request.sop_class, risk)

    def _map(self, scan: InstanceScan, study_map: StudyMap) -> StudyMap:
        """The map that holds for an instance: its patient's, where several share the study.

        Raises:
          InvalidInstance: the study is in conflict, or the instance is of another patient than the study.
        """
        if study_map.parts or study_map.strict:
            pseudonym = self._identities.pseudonym(self._identities.patient_of(scan))
            if study_map.parts:
                part = study_map.of(pseudonym)
                if part is None:
                    raise InvalidInstance("patient-conflict", tag_text(PATIENT_ID))
                study_map = part
            elif pseudonym and pseudonym != study_map.pseudonym:
                raise InvalidInstance("patient-conflict", tag_text(PATIENT_ID))
        if study_map.conflict:
            raise InvalidInstance(study_map.conflict)
        return study_map

    def _check_private_sop_class(self) -> None:
        if self._table.request.private_sop_class == "quarantine":
            raise InvalidInstance("private-sop-class", tag_text(SOP_CLASS))

    def _facts(self, study_map: StudyMap) -> Facts:
        """What the study settles, made once as long as its instances come together."""
        known, facts = self._study
        if facts is None or known is not study_map:
            facts = self._made_facts(study_map)
            self._study = study_map, facts
        return facts

    def _made_facts(self, study_map: StudyMap) -> Facts:
        identities = self._identities
        by_value = identities.by_value(study_map)
        uids: dict[str, Mapping] = {}

        def of_role(role: str) -> Mapping:
            if by_value:
                return self._uids
            if role not in uids:
                uids[role] = Mapping(partial(identities.uid, study_map, role))
            return uids[role]

        return Facts(
            uids=of_role("other"),
            of_role=of_role,
            patient=study_map.patient,
            name=patient_name(self._table.request.patient_name_template, study_map.name),
            pseudonym=partial(identities.patient, study_map),
            issuers=identities.issuers,
            days=study_map.days,
            identifies=identities.identifies(study_map),
            number=partial(number_pseudonym, self._keys),
            external=identities.external(study_map),
        )


def _with_given(facts: Facts, original: str, given: str) -> Facts:
    """The same, but for one SOP Instance UID whose new value was settled by the plan."""

    def of_role(role: str) -> Mapping:
        uids = facts.of_role(role)
        return Mapping(lambda uid: given if uid == original else uids.new(uid))

    return facts._replace(uids=of_role("other"), of_role=cache(of_role))
