"""What a run has written, as Orthanc's jobs answer it: its identifiers, its paths, its order.

All values are new ones. What else a summary says isn't known here.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dicomveil import orthanc_ids
from dicomveil.request import Request
from dicomveil.rewrite import Place
from dicomveil.schema import IDENTIFIERS
from transforms.locations import Location, table_file
from transforms.records import DEIDENTIFIED, MODIFIED
from transforms.token_sort import TOKEN, TokenSort, token_halves

MOST_RESOURCES: Final = 10_000
"""How many of each level are named."""
LEVELS: Final = tuple(orthanc_ids.ROUTES)
"""From the top: Patient, Study, Series, Instance."""
_COLUMNS: Final = ("patient_id", "study_instance_uid", "series_instance_uid", "sop_instance_uid", "name", "outcome")
_ROWS: Final = 1 << 16
_SCHEMA: Final = pa.schema([("token", TOKEN)])
_LAST: Final = b"\xff" * 20
_SPILLED: Final = 64


class Written(NamedTuple):
    """An instance in the output.

    Attributes:
      name: of its file, below the output root.
    """

    place: Place
    name: str


def written(parts: Iterable[Location]) -> Iterator[Written]:
    """What the instances' parts of the audit say was made, a batch of rows in memory at a time.

    What was copied is none of it: it isn't what the request is about, and Orthanc doesn't answer it.
    """
    for part in parts:
        with pq.ParquetFile(table_file(part)) as file:
            for batch in file.iter_batches(_ROWS, columns=list(_COLUMNS)):
                columns = [batch.column(name).to_pylist() for name in _COLUMNS]
                for *identifiers, name, outcome in zip(*columns, strict=True):
                    if outcome in (DEIDENTIFIED, MODIFIED):
                        yield Written(Place(*identifiers), name)


class Resources:
    """The patients, studies, series and instances that Orthanc would see in an output.

    Memory is bounded, however many there are: of each level the first in the order of Orthanc's identifiers are held,
    and all are counted on disk. What has no study, which Orthanc doesn't take, is none of them.

    Args:
      folder: of its own, for what doesn't fit in memory; made when it is needed.
      most: how many of each level are named.
      held: how many tokens of each level are kept in memory.
    """

    def __init__(
        self, folder: Path, instances: Iterable[Written], most: int = MOST_RESOURCES, held: int = 1 << 16
    ) -> None:
        self._levels = {level: _Level(folder / level, most, held) for level in LEVELS}
        before: Place | None = None
        for instance in instances:
            place = instance.place
            if not place.study_instance_uid:
                continue
            # Series mostly come together, and what they lie in is the same then.
            depth = 3 if before and before[:3] == place[:3] else 0
            for level, last in zip(LEVELS[depth:], range(depth, 4), strict=True):
                if all(place[1 : last + 1]):
                    self._levels[level].add(orthanc_ids.resource_digest(*place[: last + 1]), instance)
            before = place

    def counts(self) -> dict[str, int]:
        """How many there are of each level, in Orthanc's order: instances first."""
        return {level: self._levels[level].count for level in reversed(LEVELS)}

    def entries(self) -> list[dict[str, Any]]:
        """Type, ID and Path as Orthanc gives them and in its order; and where it is in the output, and who it is."""
        return [
            _entry(level, digest, instance)
            for level in reversed(LEVELS)
            for digest, instance in self._levels[level].first()
        ]

    def only(self, level: str) -> Written | None:
        """An instance of the one resource of a level; None where there are several, or none."""
        found = self._levels[level]
        return found.first()[0][1] if found.count == 1 else None


class _Level:
    """The resources of one level: the first of them, and how many there are."""

    def __init__(self, folder: Path, most: int, held: int) -> None:
        self._most, self._held = most, held
        self._first: dict[bytes, Written] = {}
        self._last = _LAST
        self._tokens: set[bytes] = set()
        self._sort = TokenSort(folder, _SCHEMA, _SPILLED * held)
        self._count: int | None = None

    def add(self, digest: bytes, instance: Written) -> None:
        """Take in a resource, however often."""
        if digest <= self._last:
            self._first.setdefault(digest, instance)
            if len(self._first) > 2 * self._most:
                self._first = dict(self.first())
                self._last = max(self._first)
        self._tokens.add(digest[:16])
        if len(self._tokens) >= self._held:
            self._pass_on()

    def first(self) -> list[tuple[bytes, Written]]:
        """The first of them by digest, no more than are named."""
        return sorted(self._first.items(), key=lambda item: item[0])[: self._most]

    @property
    def count(self) -> int:
        """How many there are, once all have been taken in."""
        if self._count is None:
            if self._sort.empty:
                self._count = len(self._tokens)
            else:
                self._pass_on()
                self._count = sum(map(_distinct, self._sort.sorted()))
        return self._count

    def _pass_on(self) -> None:
        self._sort.add(pa.table({"token": pa.array(list(self._tokens), TOKEN)}, _SCHEMA))
        self._tokens.clear()


def _distinct(rows: pa.Table) -> int:
    """How many tokens there are in rows that are sorted by them."""
    halves = token_halves(rows.column("token").combine_chunks())
    return 1 + int(np.any(halves[1:] != halves[:-1], axis=1).sum())


def _entry(level: str, digest: bytes, instance: Written) -> dict[str, Any]:
    depth = LEVELS.index(level) + 1
    return _named(level, orthanc_ids.written(digest)) | {
        "Output": "/".join(instance.name.split("/")[:depth]),
        "Identifiers": dict(zip(IDENTIFIERS[:depth], instance.place, strict=False)),
    }


def _named(level: str, identifier: str) -> dict[str, Any]:
    return {"Type": level, "ID": identifier, "Path": orthanc_ids.path(level, identifier)}


def answer(request: Request, resources: Resources, instances: int, failed: int) -> dict[str, Any]:
    """The members of Orthanc's answer, those of one resource and of many.

    Args:
      instances: how many were tried; failed: how many of those have no output.
    """
    moved = request.command in ("split", "merge")
    return {
        "Description": f"dicomveil {request.command}",
        "InstancesCount": instances,
        "FailedInstancesCount": failed,
        "IsAnonymization": not request.alters,
        **(_target(resources) if moved else _top(request, resources)),
        # Orthanc names the sources. Its identifiers are plain hashes of the originals, by which patients are found.
        "ParentResources": [],
        "Resources": resources.entries(),
        "ResourcesCount": resources.counts(),
    }


def _top(request: Request, resources: Resources) -> dict[str, Any]:
    """What Orthanc answers of a single resource: itself, and its patient's identifier under the name of PatientID."""
    for level in _levels(request):
        if found := resources.only(level):
            identifier = orthanc_ids.resource_id(*found.place[: LEVELS.index(level) + 1])
            return _named(level, identifier) | {"PatientID": orthanc_ids.patient_id(found.place.patient_id)}
    return {}


def _levels(request: Request) -> tuple[str, ...]:
    """Of which level a single resource may be: modify's; that of what alone is named; else a study, or a patient."""
    if request.command == "modify":
        return (request.level,)
    named = {it.role.capitalize() for it in request.resources} if len(request.resources) == 1 else set()
    return tuple(named & set(LEVELS)) or ("Study", "Patient")


def _target(resources: Resources) -> dict[str, Any]:
    """What Orthanc answers of split and merge, which put all that they make into one study."""
    found = resources.only("Study")
    if not found:
        return {}
    study_id = orthanc_ids.study_id(found.place.patient_id, found.place.study_instance_uid)
    return {"TargetStudy": study_id, "TargetStudyUID": found.place.study_instance_uid}
