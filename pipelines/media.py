"""A File-set for media, made of instances as they are: copies under legal File IDs, and the DICOMDIR that names them.

What the directory says of an instance is settled in the engine. The DICOMDIR is written last: without it there is no
File-set.
"""

import itertools
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from pydicom.config import disable_value_validation
from rich.console import Console

from dicomveil.errors import REASONS, DicomveilError, InvalidInstance, Unsuitable
from dicomveil.media import DICOMDIR, SYNTAXES, Directory, NotOnMedia, Numbers, encoded, records
from dicomveil.media import REASONS as MEDIA_REASONS
from dicomveil.scan import scan_instance
from dicomveil.stream import LARGEST_CHUNK, Source
from pipelines.places import not_empty, resolve_unrecorded
from pipelines.tally import any_failed, tally
from transforms import inputs, listing, stores
from transforms.locations import Location
from transforms.source_file import SourceFile

_FILE_SET_ID: Final = re.compile(r"[A-Z0-9_ ]{0,16}")
_LONGEST: Final = 1 << 20  # bytes of a value that is read for a record
_MOST_NAMED: Final = 20


class MediaRefused(DicomveilError):
    """What the user gave can't be used; the message names the option and what to do."""


class _Found(NamedTuple):
    """One instance that goes on the medium, in the order that it has there."""

    patient: str
    study: str
    series: str
    sop_instance_uid: str
    uri: str
    version: str
    size: int


@dataclass
class Written:
    """What became of the files.

    Attributes:
      instances: how many are in the File-set, of how many `bytes`.
      left: names of those that aren't in it, by reason, the first of each.
      counts: how many these are.
    """

    instances: int = 0
    bytes: int = 0
    left: dict[str, list[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def leave(self, uri: str, reason: str) -> None:
        """Note a file that isn't in the File-set."""
        self.counts[reason] += 1
        if self.counts[reason] <= _MOST_NAMED:
            self.left.setdefault(reason, []).append(uri)

    @property
    def exit_status(self) -> int:
        """0 where every instance is in it, else 3."""
        return 3 if any_failed(self.counts) or not self.instances else 0

    def print(self, console: Console) -> None:
        """Tell a person how many, and which were left out and why."""
        console.print(f"{self.instances:,} instances in the File-set, {self.bytes:,} bytes", highlight=False)
        table = tally()
        for reason, count in sorted(self.counts.items()):
            meaning, remedy = MEDIA_REASONS.get(reason) or REASONS[reason][1:]
            table.add_row(f"{count:,}", f"left out: {reason}", f"{meaning} {remedy}")
        if self.counts:
            console.print(table)
        for reason, uris in sorted(self.left.items()):
            for uri in uris:
                console.print(f"{reason}: {uri}", soft_wrap=True, highlight=False, markup=False)


def places(given: tuple[str, ...], output: str) -> tuple[tuple[str, ...], Location]:
    """The inputs by their one names, and where the File-set goes: new or empty, and apart from them.

    Raises:
      RunRefused: they can't be used.
    """
    return resolve_unrecorded(given, output, lambda real: not_empty("--output", real["--output"]))


def check_id(file_set_id: str) -> None:
    """Refuse a File-set ID that is none.

    Raises:
      MediaRefused: it isn't.
    """
    if not _FILE_SET_ID.fullmatch(file_set_id):
        raise MediaRefused("--id: is no File-set ID; write at most 16 capital letters, digits, blanks or _")


def write(
    given: Iterable[str], output: Location, file_set_id: str, told: Callable[[int], None], kms_key: str = ""
) -> Written:
    """Copy every instance of some inputs into a File-set, and write its DICOMDIR.

    About a kilobyte an instance is held, for their order; each is copied in pieces.

    Args:
      told: hears how many files were looked at.
      kms_key: name of the store's key that encrypts it; "" where its bucket decides.

    Raises:
      MediaRefused: something else is written there.
      StoreFailed: the output can't be written.
    """
    written = Written()
    with tempfile.TemporaryFile() as aside, disable_value_validation():  # pydicom would log values
        directory = Directory(aside)
        for numbers, found in _numbered(sorted(_instances(given, written, told))):
            try:
                _add(directory, output, numbers, found, kms_key)
            except (NotOnMedia, Unsuitable) as unsuitable:
                written.leave(found.uri, unsuitable.reason)
                continue
            written.instances, written.bytes = written.instances + 1, written.bytes + found.size
        if written.instances:
            _create(output / DICOMDIR, directory.chunks(file_set_id), kms_key)
    return written


def _instances(given: Iterable[str], written: Written, told: Callable[[int], None]) -> Iterator[_Found]:
    """What can be on media, each SOP Instance once."""
    seen, files, count = set[bytes](), set[tuple[str, str]](), 0
    for listed in itertools.chain.from_iterable(map(inputs.listed, given)):
        name = listed.uri, listed.version
        if name in files:
            continue
        files.add(name)
        told(count := count + 1)
        try:
            found = _looked_at(listed)
            if (uid := found.sop_instance_uid.encode()) in seen:
                raise NotOnMedia("media-twice")
        except (NotOnMedia, Unsuitable) as unsuitable:
            written.leave(listed.uri, unsuitable.reason)
            continue
        seen.add(uid)
        yield found


def _looked_at(listed: listing.Listed) -> _Found:
    if listed.reason:
        raise Unsuitable(listed.reason)
    with stores.open_version(listed.uri, listed.version, listed.size) as source:
        scan = scan_instance(source)
        if source.read(128, 4) != b"DICM":
            raise NotOnMedia("media-file")
        if scan.transfer_syntax_uid not in SYNTAXES:
            raise NotOnMedia("media-syntax")
    patient = scan.patient_id or scan.study_instance_uid
    above = (patient, scan.study_instance_uid, scan.series_instance_uid) if scan.composite else ("", "", "")
    return _Found(*above, scan.sop_instance_uid, listed.uri, listed.version, listed.size)


def _numbered(found: list[_Found]) -> Iterator[tuple[Numbers, _Found]]:
    """Each with its numbers."""
    numbers = [-1, 0, 0, 0]
    before: tuple[str, ...] = ()
    for it in found:
        above = it[:3]
        same = next((level for level in range(3) if before[level : level + 1] != above[level : level + 1]), 3)
        numbers[same:] = [numbers[same] + 1] + [0] * (3 - same)
        before = above
        yield Numbers(*numbers), it


def _add(directory: Directory, output: Location, numbers: Numbers, found: _Found, kms_key: str) -> None:
    with ExitStack() as opened:
        source = opened.enter_context(stores.open_version(found.uri, found.version, found.size, whole=True))
        chain = [encoded(record) for record in records(_header(source), numbers)]
        chunks = (source.read(offset, LARGEST_CHUNK) for offset in range(0, source.size, LARGEST_CHUNK))
        _create(output / "/".join(numbers.file_id), stores.made_of(opened, chunks), kms_key)
    directory.add(chain, numbers, found.sop_instance_uid)


def _create(target: Location, chunks: Iterable[bytes], kms_key: str) -> None:
    if not stores.create_new(target, chunks, encryption_key=kms_key):
        raise MediaRefused("something else was written where the File-set goes: name a new folder, and start again")


def _header(source: Source) -> Any:
    """An instance as pydicom reads it, long values and pixels left out.

    Raises:
      NotOnMedia: it can't read it.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        return dcmread(SourceFile(source), stop_before_pixels=True, defer_size=_LONGEST)
    except (InvalidDicomError, InvalidInstance):
        raise
    except Exception:
        raise NotOnMedia("media-file") from None
