"""What earlier runs have settled, read from their tables: the studies, the instances, and what crosswalks gave.

Where these tables are is told in a file of the run; the graph carries only its place.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import apache_beam as beam
import pyarrow.parquet as pq

from dicomveil.identities import Given, Identities
from dicomveil.request import Request
from dicomveil.study import NO_LISTS, Lists, StudyFacts
from dicomveil.uids import uid_token
from transforms.secrets import KeyReference

STUDIES, INSTANCES, CONFLICTS, GIVEN = "studies", "instances", "conflicts", "given"
_ROWS: Final = 4096
_COLUMNS: Final = {
    STUDIES: ["study_token", "facts", "map_token"],
    INSTANCES: [
        "sop_token", "study_token", "source_uri", "source_version", "source_size", "sop_instance_uid", "name", "sha256",
    ],
    CONFLICTS: ["sop_token", "reason"],
    GIVEN: ["kind", "original", "issuer", "new", "days", "anchor"],
}  # fmt: skip


class Known(NamedTuple):
    """What is known before a run: a graph reads nothing of what there is none of.

    Attributes:
      file: that tells the tables' parts, by kind: [path, run, whether its output is this run's, whether its request
        and tables are] each.
      kinds: of facts of which there is any part.
      lists: what there is a crosswalk of.
      anew: whether conflicts of earlier runs don't count.
    """

    file: str
    kinds: frozenset[str] = frozenset()
    lists: Lists = NO_LISTS
    anew: bool = False


NOTHING_KNOWN: Final = Known("")


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
      sha256: of its output; "" where another request or other tables made it.
    """

    run: str
    sop_token: str
    study_token: str
    uri: str
    version: str
    size: int
    sop_instance_uid: str
    name: str
    sha256: str
    here: bool


class ReadFacts(beam.PTransform):
    """(key, value) of one kind of facts: of studies by study token, of instances by the SOP Instance UID's token, of
    conflicts likewise (the reason), of crosswalks by pseudonym or UID token (`Given`).

    Args:
      kind: STUDIES, INSTANCES, CONFLICTS or GIVEN.
    """

    def __init__(self, known: Known, kind: str, key: KeyReference, request: Request) -> None:
        super().__init__()
        self._facts, self._kind, self._reader = known.file, kind, _ReadFn(kind, known.anew, key, request)

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[tuple[str, Any]]:
        return (
            pipeline
            | "Start" >> beam.Create([self._facts])
            | "Parts" >> beam.FlatMap(_parts, self._kind).with_output_types(tuple[str, str, bool, bool])
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(self._reader).with_output_types(tuple[str, Any])
        )


def _parts(facts: str, kind: str) -> list[tuple[str, str, bool, bool]]:
    return [tuple(part) for part in json.loads(Path(facts).read_bytes())[kind]]


class _ReadFn(beam.DoFn):
    def __init__(self, kind: str, anew: bool, key: KeyReference, request: Request) -> None:
        self._kind, self._anew, self._key, self._request = kind, anew, key, request
        self._quarantines = request.patient_conflicts == "quarantine"

    def setup(self) -> None:
        self._identities = Identities(self._key.keys(), self._request)

    def process(self, part: tuple[str, str, bool, bool]) -> Iterator[tuple[str, Any]]:
        path, run, here, same = part
        for batch in pq.ParquetFile(path).iter_batches(_ROWS, columns=_COLUMNS[self._kind]):
            for row in batch.to_pylist():
                yield from self._fact(row, run, here, same)

    def _fact(self, row: dict[str, Any], run: str, here: bool, same: bool) -> Iterator[tuple[str, Any]]:
        if self._kind == STUDIES:
            if not (self._anew and self._quarantines and StudyFacts.decode(row["facts"]).first > 1):
                yield row["study_token"], KnownStudy(run, row["facts"], row["map_token"], here)
        elif self._kind in (INSTANCES, CONFLICTS) and not row.get("sop_token"):
            return  # of a run before these columns were, or nothing was known of the input
        elif self._kind == INSTANCES:
            yield (
                row["sop_token"],
                KnownInstance(
                    run,
                    row["sop_token"],
                    row["study_token"],
                    row["source_uri"],
                    row["source_version"],
                    row["source_size"],
                    row["sop_instance_uid"],
                    row["name"],
                    row["sha256"] if same else "",
                    here,
                ),
            )
        elif self._kind == CONFLICTS:
            if row["reason"] == "sop-uid-conflict":
                yield row["sop_token"], row["reason"]
        else:
            yield self._given_key(row), Given(row["new"], row["days"], row["anchor"] or "")

    def _given_key(self, row: dict[str, Any]) -> str:
        """By what a mention of the patient or the UID finds the row."""
        if row["kind"] == "patient":
            return self._identities.pseudonym(self._identities.known(row["original"], row["issuer"] or ""))
        return uid_token(self._identities.keys, row["original"]).hex()
