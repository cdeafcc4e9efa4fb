"""What is settled of each source, and what a run finds of it when it lists its inputs again.

The ledger is joined with the listing by tokens of URIs, row by row through a shuffle: it may hold every object that
there ever was. What became of objects that aren't there any more, or not as they were, is told by `transforms.formers`.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import apache_beam as beam
import pyarrow as pa

from dicomveil.keys import Keys
from transforms import zips
from transforms.globs import Pattern
from transforms.locations import Location, locate
from transforms.manifests import read_rows
from transforms.notes import WriteNote
from transforms.outcomes import TOKENS
from transforms.records import WRITTEN, Outcome, SourceObject
from transforms.secrets import KeyReference
from transforms.sieve import ReadSieved, Sieve, passes

UNSETTLED: Final = frozenset(
    ("unreadable", "changed-during-run", "internal", "not-restored", "not-selected", "stopped", "unwritten")
)
"""Reasons that say nothing of the object itself, or of this time only: the next run tries again by itself."""
BY_CROSSWALK: Final = frozenset(("unlisted", "no-anchor", "value-taken"))
"""Reasons that another crosswalk may remove."""
RETIRED: Final = "retired"
"""The outcome of an object that isn't there any more, whose output was removed or stands for another one."""
DUPLICATE: Final = "duplicate"
NOT_TAKEN: Final = "not-taken"
EVERYTHING, SET_ASIDE, OTHER_REQUEST = "all", "quarantined", "changed-request"
REPROCESS: Final = (EVERYTHING, SET_ASIDE, OTHER_REQUEST)
"""What may be processed although the ledger holds it as settled."""

_ROWS: Final = 1 << 14
_READ: Final = [
    "uri_token", "source_token", "source_uri", "outcome", "reason", "name", "sop_token",
    "request_fingerprint", "table_fingerprint",
]  # fmt: skip
_LISTED, _KEPT = "listed", "kept"
UNCHANGED, FORMER = "unchanged", "former"


def uri_token(keys: Keys, uri: str) -> str:
    """Stands for a stored object whatever its version."""
    return keys.token("source-uri", uri.encode())


# ------------------------------------------------------------------------------------------------- what enters it


class LedgerRows:
    """What outcomes leave in the ledger.

    Args:
      request, table: fingerprints of what they were made by.
      filter: token of what was taken; "" for everything.
    """

    def __init__(self, key: KeyReference, request: str, table: str, filter: str = "") -> None:
        self._key, self._request, self._table, self._filter = key, request, table, filter

    def rows(self, outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
        """One row each, but for those that aren't settled."""
        keys = self._key.keys()
        return [
            {
                "source_token": it.token,
                "uri_token": uri_token(keys, it.uri),
                "source_uri": it.uri,
                "source_version": it.version,
                "outcome": it.outcome,
                "reason": it.reason,
                "name": it.name,
                "study_token": it.study_token,
                "sop_token": it.sop_token,
                "request_fingerprint": _asked_for(self._request, self._filter, it.reason),
                "table_fingerprint": self._table,
            }
            for it in outcomes
            if it.reason not in UNSETTLED
        ]


def _asked_for(request: str, filter: str, reason: str) -> str:
    """What an outcome hangs on: what isn't taken on the filter too, so that under another it is looked at again."""
    return f"{request} {filter}" if reason == NOT_TAKEN else request


# ----------------------------------------------------------------------------------------------- what a run asks it


class LedgerPart(NamedTuple):
    """One part of the ledger, or of what is gone.

    Attributes:
      run: that wrote it.
      begin, end: which rows of the file are meant, as in `manifests.Slice`.
    """

    path: str
    run: str
    begin: int = 0
    end: int = -1


@dataclass(frozen=True)
class Question:
    """What a run asks the ledger; told to workers by a file of the run, since it holds URIs.

    Attributes:
      parts, gone: of the two tables, of runs that wrote into the same output.
      runs: those runs, the oldest first.
      other_crosswalk: those of them before which another crosswalk was in force.
      roots: the inputs; patterns: those that are patterns of names.
      request, table: fingerprints of what is asked for.
      reprocess: one of `REPROCESS`, or "".
      retries: whether what was quarantined is tried again in any case.
      moves: whether sources are to go, so that what is still there is processed again.
      follows: whether outputs hang on what crosswalks list, so that another one is another request.
      filter: token of what is taken; "" for everything.
    """

    parts: tuple[LedgerPart, ...]
    gone: tuple[LedgerPart, ...]
    runs: tuple[str, ...]
    other_crosswalk: tuple[str, ...]
    roots: tuple[str, ...]
    request: str
    table: str
    reprocess: str = ""
    retries: bool = False
    moves: bool = False
    follows: bool = False
    filter: str = ""
    patterns: tuple[str, ...] = ()

    def made_so(self, request: str, table: str, reason: str) -> bool:
        """Whether an outcome is one of the same request, edition, recipe and, where it hangs on that, filter."""
        return (request, table) == (_asked_for(self.request, self.filter, reason), self.table)

    def encode(self) -> bytes:
        """As bytes that `read` reads back from a file."""
        return json.dumps(vars(self)).encode()

    @classmethod
    def read(cls, file: str) -> "Question":
        told = json.loads(locate(file).read_bytes())
        told |= {name: tuple(LedgerPart(*it) for it in told[name]) for name in ("parts", "gone")}
        return cls(**told | {name: tuple(told[name]) for name in ("runs", "other_crosswalk", "roots", "patterns")})

    def settles(self, run: str, outcome: str, reason: str, same: bool) -> bool:
        """Whether an object that a run has settled so stays as it is.

        Args:
          same: whether that was by the same request, edition and recipe.
        """
        if self.reprocess == EVERYTHING:
            return False
        other_crosswalk = run in self.other_crosswalk
        if outcome in WRITTEN:
            again = self.moves or (self.reprocess == OTHER_REQUEST and not same)
            return not (again or (self.follows and other_crosswalk))
        if outcome == "quarantined" and (self.retries or self.reprocess == SET_ASIDE):
            return False
        return same and not (other_crosswalk and (self.follows or reason in BY_CROSSWALK))


# ------------------------------------------------------------------------------------------- the ledger's side of it


_IS_WRITTEN, _IS_RETIRED, _IS_SETTLED, _IS_DUPLICATE, _IS_OTHER = 1, 2, 4, 8, 16
_PACKED: Final = struct.Struct(">IB16s16s8s")


class Entry(NamedTuple):
    """What the ledger says of one version of an object.

    Attributes:
      order: later rows compare greater.
      flags: bits of what it is.
      token: of the version.
      sop_token: of its SOP Instance UID; zeros for none.
      name: digest of its output's name.
    """

    order: int
    flags: int
    token: bytes
    sop_token: bytes
    name: bytes

    @property
    def written(self) -> bool:
        """Whether there is an output of it."""
        return bool(self.flags & _IS_WRITTEN)

    @property
    def retired(self) -> bool:
        """Whether it says that this version is over."""
        return bool(self.flags & _IS_RETIRED)

    @property
    def settled(self) -> bool:
        """Whether this version needn't be looked at again."""
        return bool(self.flags & _IS_SETTLED)

    @property
    def duplicate(self) -> bool:
        """Whether another object's output stands for it."""
        return bool(self.flags & _IS_DUPLICATE)

    @property
    def by_other_request(self) -> bool:
        """Whether it was settled by another request, edition or recipe."""
        return bool(self.flags & _IS_OTHER)


def name_digest(name: str) -> bytes:
    """Stands for an output's name, in few bytes."""
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


class ReadEntries(beam.PTransform):
    """(token of the URI, packed `Entry`) of all that lies below the inputs, and of what links led to.

    Args:
      question: file of a `Question`.
      outside: sieve of the tokens of URIs that were listed, and lie outside the inputs.
    """

    def __init__(self, question: str, outside: beam.PCollection[bytes]) -> None:
        super().__init__()
        self._question, self._outside = question, outside

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[tuple[bytes, bytes]]:
        listed, reader = partial(parts_asked, self._question), _ReadFn(self._question)
        return pipeline | "Entries" >> ReadSieved(listed, reader, self._outside, tuple[bytes, bytes])


def parts_asked(question: str) -> list[tuple[str, "LedgerPart"]]:
    """Each part that a question means, by its path.

    Args:
      question: file of a `Question`.
    """
    asked = Question.read(question)
    return [(part.path, part) for part in (*asked.parts, *asked.gone)]


class LedgerFn(beam.DoFn):
    """A DoFn that goes by what the run asks."""

    def __init__(self, question: str) -> None:
        self._file = question

    def setup(self) -> None:
        self._question = Question.read(self._file)
        self._orders = {run: number for number, run in enumerate(self._question.runs)}
        self._covers = Covered(self._question.roots, self._question.patterns)


class _ReadFn(LedgerFn):
    def process(self, listed: tuple[str, Iterable[LedgerPart]], outside: bytes) -> Iterator[tuple[bytes, bytes]]:
        path, parts = listed
        wanted = [(part.begin, part.end, part.run) for part in parts]
        for run, batch in read_rows(locate(path), wanted, _READ, _ROWS):
            yield from self._entries(run, batch, outside)

    def _entries(self, run: str, batch: pa.RecordBatch, outside: bytes) -> Iterator[tuple[bytes, bytes]]:
        """What a run's rows come to: column by column, since there may be very many."""
        asked, order = self._question, 2 * self._orders[run]
        told, nothing = {name: batch.column(name).to_pylist() for name in batch.schema.names}, [""] * len(batch)
        for of_uri, token, uri, outcome, reason, name, sop_token, request, table in zip(
            *(told.get(name, nothing) for name in _READ), strict=True
        ):
            if not (self._covers(uri) or passes(of_uri, outside)):
                continue
            if outcome == RETIRED:
                flags, at = _IS_RETIRED, order
            elif request:
                same = asked.made_so(request, table, reason)
                flags = _IS_WRITTEN * (outcome in WRITTEN) | _IS_SETTLED * asked.settles(run, outcome, reason, same)
                flags |= _IS_DUPLICATE * (reason == DUPLICATE) | _IS_OTHER * (not same)
                at = order + 1
            else:
                continue  # told of as gone, and still standing
            sop = bytes.fromhex(sop_token) if sop_token else bytes(16)
            yield bytes.fromhex(of_uri), _PACKED.pack(at, flags, bytes.fromhex(token), sop, name_digest(name))


class Covered:
    """Whether a URI is one of some, or lies below one: in a folder, a prefix or a zip file; or is meant by a pattern.

    Those of a run's inputs tell that something isn't there, since its listing would have shown it.
    """

    def __init__(self, roots: Iterable[str], patterns: Iterable[str] = ()) -> None:
        self._roots = frozenset(roots)
        self._below = tuple(f"{root.rstrip('/')}{part}" for root in self._roots for part in ("/", zips.BETWEEN))
        self._patterns = [Pattern(text) for text in patterns]

    def __call__(self, uri: str) -> bool:
        if uri in self._roots or uri.startswith(self._below):
            return True
        file = uri.partition(zips.BETWEEN)[0]
        return any(pattern.matches(file) for pattern in self._patterns)


# ------------------------------------------------------------------------------------------------------ both sides


class Unchanged(NamedTuple):
    """An object that stays as it was settled.

    Attributes:
      token: of its version.
      sop_token: of its SOP Instance UID, zeros for none.
      name: digest of its output's name.
      written: whether it has an output.
      by_other_request: whether another request, edition or recipe has settled it.
      source: the object, where another's output stands for it.
    """

    token: bytes
    sop_token: bytes
    name: bytes
    written: bool
    by_other_request: bool
    source: SourceObject | None


class Lost(NamedTuple):
    """Versions of an object that aren't there any more, though something is known of them.

    Attributes:
      by: token of the version that is there instead; "" where none is.
      tokens: of those that aren't.
    """

    by: str
    tokens: tuple[str, ...]


class CompareWithLedger(beam.PTransform):
    """The listed objects that are new or changed; under UNCHANGED those that are as they were settled (`Unchanged`),
    and under FORMER (token of the URI, `Lost`) what was known of objects that are gone, or were another version.

    Args:
      question: file of a `Question`.
    """

    def __init__(self, question: str, key: KeyReference) -> None:
        super().__init__()
        self._question, self._key = question, key

    def expand(self, sources: beam.PCollection[SourceObject]) -> Any:
        listed = sources | "By URI" >> beam.ParDo(_ByURIFn(self._key)).with_output_types(tuple[bytes, SourceObject])
        outside = (
            listed
            | "Outside the inputs" >> beam.ParDo(_OutsideFn(self._question)).with_output_types(str)
            | "Sieve" >> Sieve()
        )
        kept = sources.pipeline | "Ledger" >> ReadEntries(self._question, outside)
        return (
            {_LISTED: listed, _KEPT: kept}
            | "Join" >> beam.CoGroupByKey()
            | "Compare" >> beam.ParDo(_CompareFn()).with_outputs(UNCHANGED, FORMER, main="due")
        )


class _ByURIFn(beam.DoFn):
    def __init__(self, key: KeyReference) -> None:
        self._key = key

    def setup(self) -> None:
        self._keys = self._key.keys()

    def process(self, source: SourceObject) -> Iterator[tuple[bytes, SourceObject]]:
        yield bytes.fromhex(uri_token(self._keys, source.uri)), source


class _OutsideFn(LedgerFn):
    def process(self, listed: tuple[bytes, SourceObject]) -> Iterator[str]:
        if not self._covers(listed[1].uri):
            yield listed[0].hex()


class _CompareFn(beam.DoFn):
    def process(self, group: tuple[bytes, dict[str, Iterable[Any]]]) -> Iterator[Any]:
        of_uri, told = group
        listed = list(told[_LISTED])
        entries = sorted(Entry(*_PACKED.unpack(packed)) for packed in told[_KEPT])
        over = {it.token: it.order for it in entries if it.retired}
        standing = [it for it in entries if not it.retired and it.order > over.get(it.token, -1)]
        latest = standing[-1] if standing else None
        outputs = {it.token: it for it in standing if it.written}
        if not listed:
            if latest:
                lost = outputs or {latest.token: latest}
                yield _former(of_uri, "", lost.values())
            return
        for source in listed:
            token = bytes.fromhex(source.token)
            if latest and latest.settled and latest.token == token:
                keeps = source if latest.duplicate else None
                unchanged = Unchanged(
                    token, latest.sop_token, latest.name, latest.written, latest.by_other_request, keeps
                )
                yield beam.pvalue.TaggedOutput(UNCHANGED, unchanged)
                lost_ones = [it for it in outputs.values() if latest.written and it.name != latest.name]
            else:
                yield source
                lost_ones = [it for it in outputs.values() if it.token != token or it.by_other_request]
            if lost_ones:
                yield _former(of_uri, source.token, lost_ones)


def _former(of_uri: bytes, by: str, lost: Iterable[Entry]) -> beam.pvalue.TaggedOutput:
    told = of_uri.hex(), Lost(by, tuple(it.token.hex() for it in lost))
    return beam.pvalue.TaggedOutput(FORMER, told)


# ------------------------------------------------------------------------------------------------------- counting


class CountUnchanged(beam.PTransform):
    """Note of `Unchanged` objects how many they are, the sum of their tokens, how many were set aside, and how many of
    the others another request, edition or recipe has settled.

    Args:
      target: of the note, in the restricted zone.
    """

    def __init__(self, target: Location) -> None:
        super().__init__()
        self._target = target

    def expand(self, unchanged: beam.PCollection[Unchanged]) -> beam.PCollection:
        return unchanged | "Sum" >> beam.CombineGlobally(_CountFn()) | "Note" >> WriteNote(self._target, json.dumps)


_Counts = tuple[int, int, int, int]


class _CountFn(beam.CombineFn):
    def create_accumulator(self) -> _Counts:
        return 0, 0, 0, 0

    def add_input(self, counts: _Counts, it: Unchanged) -> _Counts:
        count, tokens, aside, other = counts
        tokens = (tokens + int.from_bytes(it.token, "big")) % TOKENS
        return count + 1, tokens, aside + (not it.written), other + (it.written and it.by_other_request)

    def merge_accumulators(self, several: Iterable[_Counts]) -> _Counts:
        counts, tokens, aside, other = zip(*several, strict=True)
        return sum(counts), sum(tokens) % TOKENS, sum(aside), sum(other)

    def extract_output(self, counts: _Counts) -> _Counts:
        return counts
