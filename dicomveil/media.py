"""The directory of a File-set, DICOMDIR: what its records say of instances, and how they are chained.

Instances are described and never changed; where they lie, and how they get there, is settled elsewhere.

Source: PS3.10 8; PS3.3 F; PS3.11 D, H, J, N.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, Final, NamedTuple

from dicomveil import syntaxes
from dicomveil.errors import DicomveilError
from dicomveil.marks import IMPLEMENTATION_CLASS_UID
from dicomveil.part10 import DICOMDIR_CLASS, EXPLICIT_UID
from dicomveil.stream import EXPLICIT_LITTLE, LARGEST_CHUNK

DICOMDIR: Final = "DICOMDIR"
SYNTAXES: Final = frozenset(
    (
        EXPLICIT_UID,
        syntaxes.JPEG_BASELINE,
        syntaxes.JPEG_EXTENDED,
        syntaxes.JPEG_LOSSLESS_SV1,
        syntaxes.JPEG_2000_LOSSLESS,
        syntaxes.JPEG_2000,
        *(f"1.2.840.10008.1.2.4.{number}" for number in range(100, 107)),  # MPEG-2 and MPEG-4
    )
)
"""Those that a profile for general purpose allows on CD, DVD, BD, or USB and flash memory."""

REASONS: Final[dict[str, tuple[str, str]]] = {
    "media-syntax": (
        "A transfer syntax that no profile for general purpose allows on media.",
        "Transcode it, such as to ExplicitVRLittleEndian.",
    ),
    "media-file": ("No DICOM file with preamble and meta group, as media need.", "De-identify it, which writes one."),
    "media-record": ("A value is missing that its record must have (PS3.3 F.5).", "Add it to the instance."),
    "media-twice": ("Another file holds the same SOP Instance UID.", "Nothing to do, or tell which is right."),
}
"""Why an instance is left out: what was found, and what its owner can do."""

_NEXT_AT: Final = 8  # in a record: the value of Offset of the Next Directory Record, its first element
_LOWER_AT: Final = 30  # the value of Offset of Referenced Lower-Level Directory Entity, its third
_ITEM: Final = 8
_INVENTED: Final = {"PatientID": "PT{:06}", "StudyDate": "19000101", "StudyTime": "000000", "StudyID": "{}",
                    "SeriesNumber": "{}", "InstanceNumber": "{}", "Modality": "OT"}  # fmt: skip
"""What a record must have and an instance needn't: made up where it is empty, as PS3.3 F.5 lets a creator do."""


class NotOnMedia(DicomveilError):
    """An instance that can't be in a File-set; `reason` is a key of `REASONS`."""

    def __init__(self, reason: str) -> None:
        meaning, remedy = REASONS[reason]
        super().__init__(f"{reason}: {meaning} {remedy}")
        self.reason = reason


class Numbers(NamedTuple):
    """Where an instance stands in a File-set: numbers from 0 on, each within what is above."""

    patient: int
    study: int
    series: int
    instance: int

    @property
    def file_id(self) -> tuple[str, ...]:
        """Its components: at most eight capital letters and digits each (PS3.10 8.2, 8.5)."""
        pairs = zip(("PT", "ST", "SE", "IM"), self, strict=True)
        return tuple(f"{prefix}{number:06}" for prefix, number in pairs)


def records(header: Any, numbers: Numbers) -> list[Any]:
    """The directory records of an instance, from the patient's down; the last refers to it.

    Args:
      header: a pydicom data set with its file meta; attributes of bulk may be left out.

    Raises:
      NotOnMedia: "media-record".
    """
    from pydicom.fileset import FileSet

    described = header.copy()
    for (keyword, value), number in zip(_INVENTED.items(), (0, 1, 1, 1, 2, 3, 2), strict=True):
        if keyword not in described or described[keyword].is_empty:
            setattr(described, keyword, value.format(numbers[number] + 1))
    try:
        # Not by FileSet.add: that looks at every instance before it, and stores a copy of each aside.
        found = list(FileSet()._recordify(described))
    except ValueError:
        raise NotOnMedia("media-record") from None
    found[-1].ReferencedFileID = list(numbers.file_id)
    return found


def encoded(record: Any) -> bytes:
    """A record as it stands in the directory, behind its Item's head."""
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    write_dataset(out, record)
    return bytes(out.getvalue())


class Directory:
    """The records of a File-set in their order, each behind the one above it; their bytes are kept in a file.

    Args:
      aside: an empty file, open for reading and writing.
    """

    def __init__(self, aside: IO[bytes]) -> None:
        self._aside, self._uids = aside, hashlib.sha256()
        self._lengths, self._levels = array("L"), array("B")
        self._last: tuple[int, ...] = ()

    def add(self, chain: Sequence[bytes], numbers: Numbers, sop_instance_uid: str) -> None:
        """Add what `records` tells of an instance, encoded; of levels that the one before has told already only the
        rest. Those of one patient, study or series must come together."""
        known = 0
        if len(chain) > 1:
            pairs = zip(numbers[:-1], self._last, strict=False)
            known = next((level for level, (one, other) in enumerate(pairs) if one != other), len(self._last))
        for level in range(known, len(chain)):
            self._aside.write(chain[level])
            self._lengths.append(len(chain[level]))
            self._levels.append(level)
        self._last = numbers[:-1] if len(chain) > 1 else ()
        self._uids.update(f"{sop_instance_uid}\n".encode())

    def __len__(self) -> int:
        return len(self._lengths)

    def chunks(self, file_set_id: str = "") -> Iterator[bytes]:
        """The whole DICOMDIR, in pieces. Its UID is made of those of its instances.

        Args:
          file_set_id: what the medium is called, at most 16 characters of a CS.
        """
        element = EXPLICIT_LITTLE.element
        uid = f"2.25.{int.from_bytes(self._uids.digest()[:16], 'big')}"
        head = _file_meta(uid) + element(0x00041130, "CS", file_set_id.encode())
        size = sum(self._lengths) + _ITEM * len(self)
        begin = len(head) + 3 * 12 - 2 + 12  # behind two offsets, the flag and the head of the sequence
        offsets, first, last = self._chained(begin)
        head += element(0x00041200, "UL", first.to_bytes(4, "little"))
        head += element(0x00041202, "UL", last.to_bytes(4, "little"))
        head += element(0x00041212, "US", bytes(2))
        yield head + EXPLICIT_LITTLE.header(0x00041220, "SQ", size)
        self._aside.seek(0)
        piece = bytearray()
        for length, (following, lower) in zip(self._lengths, offsets, strict=True):
            record = bytearray(self._aside.read(length))
            record[_NEXT_AT : _NEXT_AT + 4] = following.to_bytes(4, "little")
            record[_LOWER_AT : _LOWER_AT + 4] = lower.to_bytes(4, "little")
            piece += EXPLICIT_LITTLE.item.pack(0xFFFE, 0xE000, length) + record
            if len(piece) >= LARGEST_CHUNK:
                yield bytes(piece)
                piece.clear()
        yield bytes(piece)

    def _chained(self, begin: int) -> tuple[Iterable[tuple[int, int]], int, int]:
        """Of each record where the next one of its level and the first one below it stand, 0 for none; and where the
        first and the last one of the root do."""
        at = begin + sum(self._lengths) + _ITEM * len(self)
        following, lower = array("L", bytes(self._lengths.itemsize * len(self))), array("L", self._lengths)
        seen, last = [0] * 5, 0
        for number in reversed(range(len(self))):
            at -= self._lengths[number] + _ITEM
            level = self._levels[number]
            following[number], lower[number] = seen[level], seen[level + 1]
            seen[level:] = [at] + [0] * (4 - level)
            if not level and not last:
                last = at
        return zip(following, lower, strict=True), seen[0], last


def _file_meta(uid: str) -> bytes:
    element = EXPLICIT_LITTLE.element
    meta = element(0x00020001, "OB", b"\0\1") + element(0x00020002, "UI", DICOMDIR_CLASS.encode())
    meta += element(0x00020003, "UI", uid.encode()) + element(0x00020010, "UI", EXPLICIT_UID.encode())
    meta += element(0x00020012, "UI", IMPLEMENTATION_CLASS_UID.encode())
    return bytes(128) + b"DICM" + element(0x00020000, "UL", len(meta).to_bytes(4, "little")) + meta
