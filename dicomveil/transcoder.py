"""A stored instance in another transfer syntax: its data set re-encoded, its pixels frame by frame through a codec.

The instance has been de-identified or modified before, and its new SOP Instance UID stands in it. Nothing is left as it
was in silence: what the target can't hold raises. Memory doesn't grow with the number of frames.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from dicomveil import compression, syntaxes
from dicomveil.errors import InvalidInstance
from dicomveil.frames import (
    EXTENDED_LENGTHS,
    EXTENDED_OFFSETS,
    OF_PIXELS,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    Array,
    EncapsulatedFrames,
    Image,
    NativeFrames,
    failed,
    native_bytes,
    unsupported,
)
from dicomveil.part10 import (
    BIG_ENDIAN_UID,
    DEFLATED_UIDS,
    EXPLICIT_UID,
    GE_PRIVATE_UID,
    IMPLICIT_UID,
    UNCOMPRESSED_UIDS,
    Instance,
    open_instance,
)
from dicomveil.pixels import BITS_ALLOCATED, DOUBLE_FLOAT_PIXEL_DATA, FLOAT_PIXEL_DATA, IMAGE_TYPE
from dicomveil.rewrite import Change, head, stored
from dicomveil.stream import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    ITEM,
    LARGEST_CHUNK,
    PIXEL_DATA,
    UNDEFINED,
    BytesSource,
    FileSource,
    Source,
    Window,
    skip,
    tag_text,
)
from dicomveil.tags import keyword_of
from dicomveil.transcoding import (
    PIXEL_REPRESENTATION,
    Place,
    Terms,
    holds_encapsulated,
    is_undefined,
    known_vr,
    resolved_vr,
    swapped,
    transcoded,
    word_size,
)

RULE: Final = "Transcode"
QUALITY: Final = 90
_SOP_CLASS: Final = 0x00080016
_SOP_INSTANCE: Final = 0x00080018
_LOSSY: Final = 0x00282110
_RATIO: Final = 0x00282112
_METHOD: Final = 0x00282114
_ENCAPSULATED_LENGTH: Final = 0x7FE00003
_DELIMITER: Final = 0xFFFEE0DD
_PIXELS: Final = (FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA, PIXEL_DATA)
_OF_ENCAPSULATION: Final = (EXTENDED_OFFSETS, EXTENDED_LENGTHS, _ENCAPSULATED_LENGTH)
_READ: Final = frozenset((*OF_PIXELS, _SOP_CLASS, _SOP_INSTANCE, IMAGE_TYPE, _LOSSY, _RATIO, _METHOD))
_VRS: Final = {PHOTOMETRIC_INTERPRETATION: "CS", PLANAR_CONFIGURATION: "US", IMAGE_TYPE: "CS", _LOSSY: "CS",
               _RATIO: "DS", _METHOD: "CS", EXTENDED_OFFSETS: "OV", EXTENDED_LENGTHS: "OV"}  # fmt: skip
_LONGEST_VALUE: Final = 1 << 16
_IN_MEMORY: Final = 1 << 22
_RATIO_WIDTH: Final = 10
"""Characters for a ratio that is only known when all frames are written: padded with blanks, as DS allows."""
_LARGE: Final = 1 << 31
"""Bytes of native pixels from which on an Extended Offset Table is written: a Basic one holds 32 bits."""
_ROOM: Final = 6
"""Times the bytes of a frame that decoding, encoding and comparing it take."""


@dataclass(frozen=True)
class Transcoded:
    """What became of an instance.

    Attributes:
      transfer_syntax_uid: the one it was written in: the one asked for, or Explicit VR Little Endian where a compressed
        one was, and there are no pixels.
      lossy: whether pixels were compressed with loss.
      ratio: bytes of the pixels to bytes of their bitstreams; 0 where nothing was compressed.
      changes: what changed besides the encoding, in the order of the data set; of bulk values that only moved from
        one encoding to another, nothing.
    """

    transfer_syntax_uid: str
    lossy: bool = False
    ratio: float = 0.0
    changes: list[Change] = field(default_factory=list)


def transcode(source_path: str, target_path: str, transfer_syntax_uid: str, quality: int = QUALITY) -> Transcoded:
    """Write an instance in another transfer syntax.

    The same source, target, quality and codecs give the same bytes. What stands at the target path is overwritten; what
    is left there when this raises is of no use.

    Args:
      transfer_syntax_uid: one of `syntaxes.produced()`.
      quality: 1 to 100, for lossy ones: JPEG's own scale, `compression.near_of` of JPEG-LS, `decibels_of` of JPEG 2000.

    Raises:
      InvalidInstance: "transcode-unsupported" with the attribute that the target can't hold, "transcode-failed", or
        what is wrong with the encoding.
      MemoryError: it needs more than there may be.
      OSError: the source can't be read, or the target not written.
    """
    with _opened(source_path) as source:
        instance = open_instance(source)
        target = syntaxes.produced()[transfer_syntax_uid]
        with open(target_path, "wb") as output:
            if instance.transfer_syntax_uid == target.uid:
                for piece in _copied(source, 0, source.size):
                    output.write(piece)
                return Transcoded(target.uid)
            writer = _Writer(instance, target, quality)
            for piece in writer.file():
                output.write(piece)
            for position, data in writer.patches:
                output.seek(position)
                output.write(data)
            return writer.transcoded


@contextmanager
def _opened(path: str) -> Iterator[Source]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        yield BytesSource(os.pread(descriptor, size, 0)) if size <= _IN_MEMORY else FileSource(descriptor, size)
    finally:
        os.close(descriptor)


def _copied(source: Source, start: int, stop: int) -> Iterator[bytes]:
    for at in range(start, stop, LARGEST_CHUNK):
        piece = source.read(at, min(LARGEST_CHUNK, stop - at))
        if len(piece) != min(LARGEST_CHUNK, stop - at):
            raise InvalidInstance("truncated", "", at)
        yield piece


class _Writer:
    """One instance on its way into another transfer syntax.

    Attributes:
      patches: (position in the file, bytes) to be written over what stood in for them, once all else is written.
      transcoded: what became of it, known then.
    """

    def __init__(self, instance: Instance, target: syntaxes.TransferSyntax, quality: int) -> None:
        self._source, self._begin, self._from = instance.source, instance.begin, instance.encoding
        self._uid, self._quality = instance.transfer_syntax_uid, quality
        self._window = Window(instance.source)
        self._native = self._uid in UNCOMPRESSED_UIDS or self._uid in DEFLATED_UIDS
        self._places: list[Place] = []
        self._values: dict[int, bytes] = {}
        self._scan()
        if target.encapsulated and not any(tag in _PIXELS for tag, *_ in self._places):
            target = syntaxes.produced()[EXPLICIT_UID]
        self._target = target
        self._to = {IMPLICIT_UID: IMPLICIT_LITTLE, BIG_ENDIAN_UID: EXPLICIT_BIG}.get(target.uid, EXPLICIT_LITTLE)
        signed = self._values.get(PIXEL_REPRESENTATION, b"").strip(b"\0") != b""
        self._terms = Terms(signed, None if self._native else self._decoded_icon, strict=True)
        self._new: dict[int, bytes] = {}
        self._gone: set[int] = set()
        self._pieces: Callable[[Place], Iterator[bytes]] | None = None
        self._table_at: dict[int, int] = {}
        self._ratio_at, self._at = -1, 0
        self.patches: list[tuple[int, bytes]] = []
        self.transcoded = Transcoded(target.uid)
        self._changed: list[Change] = []
        self._settle_pixels()

    def _scan(self) -> None:
        window, last = self._window, -1
        for tag, vr, start, value, stop in self._from.elements(window, self._begin, window.size, False):
            if stop < 0:
                stop = skip(window, value, window.size, self._from, vr, tag)
            self._places.append((tag, vr, start, value, stop))
            if tag in _READ and stop - value <= _LONGEST_VALUE:
                self._values[tag] = window.slice(value, stop)
            if tag in _PIXELS and tag == last:
                raise failed(tag)
            last, window.after = tag, stop

    # ------------------------------------------------------------------------------------- what becomes of the pixels

    def _settle_pixels(self) -> None:
        """Decide how Pixel Data is written, and which attributes say so (PS3.5 8.2, PS3.3 C.7.6.3)."""
        found = {place[0]: place for place in self._places if place[0] in _PIXELS}
        if not found:
            return
        if PIXEL_DATA not in found:
            if self._target.encapsulated:
                raise unsupported(next(iter(found)))
            return
        place = found[PIXEL_DATA]
        if self._native:
            self._settle_native(place)
        else:
            self._settle_encapsulated(place)

    def _settle_native(self, place: Place) -> None:
        if is_undefined(self._window, place):
            raise failed()
        _, vr, _, value, stop = place
        swaps = self._from.big or self._uid == GE_PRIVATE_UID
        frames = NativeFrames(self._source, value, stop, self._word(vr.decode() or "OW") if swaps else 1)
        if not self._target.encapsulated:
            self._pieces = lambda place: self._native_to_native(frames, vr.decode())
            return
        image = Image.of(self._values, self._from)
        self._compress(image, lambda index: frames.frame(image, index), image.frames * image.frame_length)

    def _settle_encapsulated(self, place: Place) -> None:
        if not is_undefined(self._window, place):
            raise failed()
        image = Image.of(self._values, self._from)
        plain = compression.decoded(image, self._uid)
        frames = EncapsulatedFrames(self._source, place, self._from, image.frames)
        _check_room(image)
        self._gone.update(_OF_ENCAPSULATION)

        def frame(index: int) -> Array:
            return compression.decode(self._uid, frames.frame(index), image)

        native = image.frames * image.pixels * image.allocated // 8
        if self._uid in (syntaxes.JPEG_BASELINE, syntaxes.JPEG_EXTENDED):
            method = syntaxes.produced()[self._uid].method
            self._mark_lossy(method, f"{native / max(frames.length, 1):.2f}", again=False)
        if self._target.encapsulated:
            self._compress(plain, frame, native)
            return
        if native > UNDEFINED - 2:
            raise unsupported(PIXEL_DATA)
        self._describe(image, plain)
        self._change(PIXEL_DATA, "OB" if image.allocated <= 8 else "OW")
        self._pieces = lambda place: self._decoded(plain, frame, native)

    def _compress(self, image: Image, frame: Callable[[int], Array], native: int) -> None:
        described = compression.encoded(image, self._target.uid)
        _check_room(image)
        self._gone.update(_OF_ENCAPSULATION)
        self._describe(Image.of(self._values, self._from), described)
        if self._target.lossy:
            self._mark_derived()
            self._mark_lossy(self._target.method, " " * _RATIO_WIDTH, again=True)
        if native >= _LARGE:
            for tag in (EXTENDED_OFFSETS, EXTENDED_LENGTHS):
                self._set(tag, bytes(8 * image.frames))
        self._change(PIXEL_DATA, "OB")
        self._pieces = lambda place: self._encapsulated(image, frame, native)

    def _describe(self, before: Image, after: Image) -> None:
        if after.photometric != before.photometric:
            self._set(PHOTOMETRIC_INTERPRETATION, after.photometric.encode())
        if after.samples > 1 and (after.planar != before.planar or PLANAR_CONFIGURATION not in self._values):
            self._set(PLANAR_CONFIGURATION, self._to.u16.pack(after.planar))

    def _mark_derived(self) -> None:
        """A compressed version of an image is derived (PS3.3 C.7.6.1.1.5)."""
        values = self._values.get(IMAGE_TYPE, b"").split(b"\\")
        if values[0].strip(b" \0") not in (b"", b"DERIVED"):
            self._set(IMAGE_TYPE, b"\\".join([b"DERIVED", *values[1:]]).rstrip(b" \0"))

    def _mark_lossy(self, method: str, ratio: str, again: bool) -> None:
        """Say that pixels were compressed with loss, by which method and how much, after what is said of it already.

        Args:
          again: whether it is done now; else only what isn't said yet is added.
        """
        if self._values.get(_LOSSY, b"").strip(b" \0") != b"01":
            self._set(_LOSSY, b"01")
        elif not again:
            return
        ratios, methods = (_values_of(self._new.get(tag, self._values.get(tag, b""))) for tag in (_RATIO, _METHOD))
        length = max(len(ratios), len(methods))  # they go together, value for value
        ratios += [b""] * (length - len(ratios))
        methods += [b""] * (length - len(methods))
        self._set(_RATIO, b"\\".join([*ratios, ratio.encode()]))
        self._set(_METHOD, b"\\".join([*methods, method.encode()]))

    def _set(self, tag: int, value: bytes) -> None:
        self._new[tag] = value
        self._change(tag, _VRS[tag])

    def _change(self, tag: int, vr: str) -> None:
        change = Change(tag_text(tag), keyword_of(tag), vr, "C" if tag == PIXEL_DATA else "D", RULE)
        if change not in self._changed:
            self._changed.append(change)

    # ------------------------------------------------------------------------------------------------ what is written

    def file(self) -> Iterator[bytes]:
        """The file in order, in pieces of at most about 1 MiB, but for a compressed frame that is larger."""
        sop_class_uid, sop_instance_uid = (
            self._values.get(tag, b"").decode("latin-1").strip(" \0") for tag in (_SOP_CLASS, _SOP_INSTANCE)
        )
        before = head(sop_class_uid, self._target.uid, sop_instance_uid)
        self._at = len(before)
        yield before
        yield from stored(self._counted(), self._target.uid)
        gone = [
            Change(tag_text(place[0]), keyword_of(place[0]), resolved_vr(place[0], place[1]), "X", RULE)
            for place in self._places
            if place[0] in self._gone and place[0] not in self._new
        ]
        changes = sorted([*self._changed, *gone], key=lambda change: change.path)
        self.transcoded = replace(self.transcoded, changes=changes)

    def _counted(self) -> Iterator[bytes]:
        for piece in self._elements():
            self._at += len(piece)
            yield piece

    def _elements(self) -> Iterator[bytes]:
        touched = {tag >> 16 for tag in (*self._new, *self._gone)}
        if self._pieces is not None:
            touched.add(PIXEL_DATA >> 16)
        new, run = dict(self._new), (0, 0)
        same = self._from is self._to
        for place in self._places:
            tag, _, start, _, stop = place
            inserted = sorted(other for other in new if other <= tag)
            pixels = tag == PIXEL_DATA and self._pieces is not None
            gone = tag in inserted or tag in self._gone or (not tag & 0xFFFF and (not same or tag >> 16 in touched))
            if same and not (inserted or pixels or gone or self._to_be_decoded(place)):
                if run[1] != start:
                    yield from _copied(self._source, *run)
                    run = start, start
                run = run[0], stop
                continue
            yield from _copied(self._source, *run)
            run = stop, stop
            for other in inserted:
                yield from self._inserted(other, new.pop(other))
            if pixels and self._pieces is not None:
                yield from self._pieces(place)
            elif not gone:
                yield from self._element(place)
        yield from _copied(self._source, *run)
        for other in sorted(new):
            yield from self._inserted(other, new[other])

    def _inserted(self, tag: int, value: bytes) -> Iterator[bytes]:
        if tag == _RATIO and value.endswith(b" " * _RATIO_WIDTH):
            value += b" " * (len(value) % 2)
            self._ratio_at = self._at + 8 + value.rindex(b"\\") + 1 if b"\\" in value else self._at + 8
        if tag in (EXTENDED_OFFSETS, EXTENDED_LENGTHS):
            self._table_at[tag] = self._at + 12
        yield self._to.element(tag, _VRS[tag], value)

    def _to_be_decoded(self, place: Place) -> bool:
        """Whether a sequence holds Pixel Data in the syntax that is left, such as an icon's."""
        if self._native or resolved_vr(place[0], place[1]) != "SQ":
            return False
        return holds_encapsulated(Window(self._source), place, self._from)

    def _element(self, place: Place) -> Iterator[bytes]:
        tag, encoded_vr, _, value, stop = place
        vr = resolved_vr(tag, encoded_vr, self._terms.signed)
        if vr == "UN" and self._from.big != self._to.big:
            vr = known_vr(self._window, place, self._terms)
        if vr == "SQ" or is_undefined(self._window, place):
            yield transcoded(self._window, place, self._from, self._to, UNDEFINED, terms=self._terms)
            return
        word = word_size(vr) if self._from.big != self._to.big else 1
        if (stop - value) % word:
            word = 1
        yield self._to.header(tag, vr, stop - value)
        for piece in _copied(self._source, value, stop):
            yield swapped(piece, word)

    def _decoded_icon(self, window: Window, place: Place, values: dict[int, bytes]) -> dict[int, bytes]:
        """Encapsulated Pixel Data of an Item as native, with what describes it."""
        image = Image.of(values, self._from)
        plain = compression.decoded(image, self._uid)
        _check_room(image)
        frames = EncapsulatedFrames(self._source, place, self._from, image.frames)
        parts = [
            native_bytes(compression.decode(self._uid, frames.frame(index), image), plain)
            for index in range(image.frames)
        ]
        vr = "OW" if self._to.implicit or image.allocated > 8 else "OB"
        data = b"".join(parts)
        if self._to.big:
            data = swapped(data, image.allocated // 8)
        made = {PIXEL_DATA: self._to.element(PIXEL_DATA, vr, data + bytes(len(data) % 2))}
        if plain.photometric != image.photometric:
            made[PHOTOMETRIC_INTERPRETATION] = self._to.element(
                PHOTOMETRIC_INTERPRETATION, "CS", plain.photometric.encode()
            )
        if plain.planar != image.planar:
            made[PLANAR_CONFIGURATION] = self._to.element(PLANAR_CONFIGURATION, "US", self._to.u16.pack(plain.planar))
        return made

    # ----------------------------------------------------------------------------------------------------- Pixel Data

    def _word(self, vr: str) -> int:
        """Bytes of native pixels that are swapped together between byte orders (PS3.5 7.3, 8.1.1, annex D)."""
        allocated = self._bits_allocated()
        if allocated > 8:
            return allocated // 8
        return 2 if vr == "OW" else 1

    def _bits_allocated(self) -> int:
        raw = self._values.get(BITS_ALLOCATED, b"")
        if len(raw) != 2:
            raise failed(BITS_ALLOCATED)
        return int(self._from.u16.unpack(raw)[0])

    def _native_to_native(self, frames: NativeFrames, vr: str) -> Iterator[bytes]:
        if self._to.implicit:
            vr = "OW"
        elif not vr:
            vr = "OB" if BITS_ALLOCATED in self._values and self._bits_allocated() <= 8 else "OW"
        word = self._word(vr) if self._to.big else 1
        yield self._to.header(PIXEL_DATA, vr, frames.length + frames.length % 2)
        for piece in frames.pieces():
            yield swapped(piece + bytes(len(piece) % 2), word)

    def _decoded(self, image: Image, frame: Callable[[int], Array], length: int) -> Iterator[bytes]:
        vr = "OW" if self._to.implicit or image.allocated > 8 else "OB"
        word = self._word(vr) if self._to.big else 1
        yield self._to.header(PIXEL_DATA, vr, length + length % 2)
        for index in range(image.frames):
            data = native_bytes(frame(index), image)
            yield swapped(data, word)
        yield bytes(length % 2)

    def _encapsulated(self, image: Image, frame: Callable[[int], Array], native: int) -> Iterator[bytes]:
        """Frame after frame, a fragment each, behind an offset table that is filled in when all are known."""
        item, offsets, lengths = self._to.item, [], []
        large = EXTENDED_OFFSETS in self._new
        table = b"" if large else bytes(4 * image.frames)
        yield self._to.header(PIXEL_DATA, "OB", -1) + item.pack(ITEM >> 16, ITEM & 0xFFFF, len(table)) + table
        first = self._at
        for index in range(image.frames):
            data = compression.encode(self._target.uid, frame(index), image, self._quality)
            offsets.append(self._at - first)
            lengths.append(len(data))
            data += bytes(len(data) % 2)
            yield item.pack(ITEM >> 16, ITEM & 0xFFFF, len(data)) + data
        yield item.pack(_DELIMITER >> 16, _DELIMITER & 0xFFFF, 0)
        if large:
            for tag, numbers in ((EXTENDED_OFFSETS, offsets), (EXTENDED_LENGTHS, lengths)):
                self.patches.append((self._table_at[tag], np.array(numbers, "<u8").tobytes()))
        else:
            self.patches.append((first - len(table), np.array(offsets, "<u4").tobytes()))
        ratio = native / max(sum(lengths), 1)
        if self._target.lossy:
            self.patches.append((self._ratio_at, f"{ratio:.2f}"[:_RATIO_WIDTH].encode()))
        self.transcoded = replace(self.transcoded, lossy=self._target.lossy, ratio=ratio)


def _values_of(raw: bytes) -> list[bytes]:
    values = [value.strip(b" \0") for value in raw.split(b"\\")]
    return values if any(values) else []


def _check_room(image: Image) -> None:
    """Ask for the memory that a frame takes before a codec does, which may answer a lack of it by ending the process.

    Raises:
      MemoryError: there isn't enough.
    """
    np.empty(_ROOM * max(image.pixels * image.allocated // 8, 1), np.uint8)
