"""What earlier runs have settled, read from their tables: the studies, the instances, and what crosswalks gave.

Where these tables are is told in a file of the run; the graph carries only its place. A table may hold millions of rows
of which a run concerns few, so each reading passes a sieve before anything crosses a shuffle.
"""

import json
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import apache_beam as beam

from dicomveil.identities import Given
from dicomveil.study import NO_LISTS, Lists
from transforms.locations import locate
from transforms.manifests import read_rows
from transforms.sieve import ReadSieved, passes

STUDIES, INSTANCES, CONFLICTS, GIVEN = "studies", "instances", "conflicts", "given"
GONE: Final = "gone"
NOW: Final = "~"
"""The run at work: it comes after all others."""
_ROWS: Final = 4096
_COLUMNS: Final = {
    STUDIES: ["study_token", "facts", "map_token"],
    INSTANCES: [
        "sop_token", "study_token", "source_uri", "source_version", "source_size", "sop_instance_uid", "name",
        "source_sha256",
    ],
    CONFLICTS: ["sop_token", "reason"],
    GIVEN: ["token", "new", "days", "anchor"],
    GONE: ["outcome", "sop_token", "study_token", "source_uri", "name"],
}  # fmt: skip


class Part(NamedTuple):
    """One part of a table of an earlier run.

    Attributes:
      here: whether that wrote into this run's output.
      begin, end: which rows of the file are meant, as in `manifests.Slice`.
    """

    path: str
    run: str
    here: bool
    begin: int = 0
    end: int = -1


class Known(NamedTuple):
    """What is known before a run: a graph reads nothing of what there is none of.

    Attributes:
      file: that tells the `Part`s, by kind.
      kinds: of facts of which there is any part.
      lists: what there is a crosswalk of.
      anew: whether conflicts that earlier runs met don't count.
      since: the last run of which that held; conflicts before it don't count in what it saw.
    """

    file: str
    kinds: frozenset[str] = frozenset()
    lists: Lists = NO_LISTS
    anew: bool = False
    since: str = ""

    def forgets_before(self, runs: Iterable[str]) -> str:
        """The run before which conflicts no longer count in what these runs have seen; "" for none."""
        return self.since if self.anew or any(run >= self.since for run in runs) else ""


NOTHING_KNOWN: Final = Known("")


_FIELDS: Final = {"source_uri": "uri", "source_version": "version", "source_size": "size"}


@dataclass(frozen=True, repr=False)
class KnownStudy:
    """What an earlier run has settled of a study.

    Attributes:
      run: which; later ones compare greater.
      facts: encoded `StudyFacts`.
      map_token: stands for all of its map that decides on outputs.
      here: whether it wrote into this run's output.
    """

    run: str
    facts: bytes
    map_token: str
    here: bool


@dataclass(frozen=True, repr=False)
class KnownInstance:
    """An instance that an earlier run has de-identified.

    Attributes:
      name: of its output, below the root.
      here: whether that is the output of this run too.
      source_sha256: of what it was made of.
    """

    run: str
    here: bool
    sop_token: str
    study_token: str
    uri: str
    version: str
    size: int
    sop_instance_uid: str
    name: str
    source_sha256: str


class Retired(NamedTuple):
    """An instance whose output stands for it no more, since its source is gone, or another version.

    Attributes:
      name: of the output.
      run: that found it so, NOW for the one at work; what that has written, or later ones, isn't meant.
    """

    sop_token: str
    study_token: str
    uri: str
    name: str
    run: str


def without_retired(
    instances: Iterable[KnownInstance], retired: Iterable[Retired], present: Container[str] = ()
) -> list[KnownInstance]:
    """What still stands of what earlier runs have written into this run's output, and all of what is in others.

    Args:
      present: URIs of sources that are looked at now, whose former versions count until they are written again.
    """
    over: dict[tuple[str, str], str] = {}
    for it in retired:
        if not (it.run == NOW and it.uri in present):
            over[it.uri, it.name] = max(it.run, over.get((it.uri, it.name), ""))
    return [it for it in instances if not it.here or it.run > over.get((it.uri, it.name), "")]


_Keyed = Callable[[str, Any], Iterable[tuple[str, Any]]]


def _as_it_is(key: str, fact: Any) -> Iterator[tuple[str, Any]]:
    """A fact by its own key."""
    yield key, fact


class Facts:
    """What is known, for the parts of a graph in the making.

    Attributes:
      told: what is known, as the workers are told it.
      kinds, lists: as that has them.
      superseded: what this run finds to be over (`Retired`); None where it doesn't look.
    """

    def __init__(
        self, pipeline: beam.Pipeline, known: Known, superseded: "beam.PCollection[Retired] | None" = None
    ) -> None:
        self.told, self.kinds, self.lists, self.superseded = known, known.kinds, known.lists, superseded
        self._pipeline = pipeline

    def read(
        self, label: str, kind: str, sieve: beam.PCollection[bytes], keyed: _Keyed = _as_it_is
    ) -> beam.PCollection[tuple[str, Any]]:
        """(key, value) of one kind of facts: of studies by study token, of instances by the SOP Instance UID's token,
        of conflicts likewise (the reason), of what is gone likewise (`Retired`), of crosswalks by pseudonym or UID
        token (`Given`).

        Args:
          kind: STUDIES, INSTANCES, CONFLICTS, GIVEN or GONE; one of `kinds`.
          sieve: of the keys that are asked for.
          keyed: the pairs to be made of a fact, where it isn't asked for by its own key.
        """
        listed = partial(_parts, self.told.file, kind)
        return self._pipeline | label >> ReadSieved(listed, _ReadFn(kind, keyed), sieve)


def _parts(file: str, kind: str) -> list[tuple[str, Part]]:
    """Each part of a table, by its path."""
    return [(part[0], Part(*part)) for part in json.loads(locate(file).read_bytes())[kind]]


class _ReadFn(beam.DoFn):
    def __init__(self, kind: str, keyed: _Keyed) -> None:
        self._kind, self._keyed = kind, keyed

    def process(self, listed: tuple[str, Iterable[Part]], sieve: bytes) -> Iterator[tuple[str, Any]]:
        if not sieve:
            return
        path, parts = listed
        wanted = [(part.begin, part.end, part) for part in parts]
        for part, batch in read_rows(locate(path), wanted, _COLUMNS[self._kind], _ROWS):
            for row in batch.to_pylist():
                for key, fact in self._fact(row, part):
                    yield from (pair for pair in self._keyed(key, fact) if passes(pair[0], sieve))

    def _fact(self, row: dict[str, Any], part: Part) -> Iterator[tuple[str, Any]]:
        if self._kind == STUDIES:
            yield row["study_token"], KnownStudy(part.run, row["facts"], row["map_token"], part.here)
        elif self._kind in (INSTANCES, CONFLICTS, GONE) and not row.get("sop_token"):
            return  # of a run before these columns were, or nothing was known of the input
        elif self._kind == INSTANCES:
            told = {_FIELDS.get(column, column): value for column, value in row.items()}
            yield row["sop_token"], KnownInstance(run=part.run, here=part.here, **told)
        elif self._kind == CONFLICTS:
            if row["reason"] == "sop-uid-conflict":
                yield row["sop_token"], row["reason"]
        elif self._kind == GONE:
            if part.here and row["outcome"] == "retired":
                of_instance = row["sop_token"], row["study_token"], row["source_uri"], row["name"]
                yield row["sop_token"], Retired(*of_instance, part.run)
        else:
            yield row["token"], Given(row["new"], row["days"], row["anchor"] or "")
