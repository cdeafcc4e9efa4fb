"""From planned instances to the maps of their studies where nothing is de-identified: which of their UIDs change, and
which of those that they refer to.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import apache_beam as beam
import pyarrow.parquet as pq

from dicomveil.alterations import Alteration, altered, settled
from dicomveil.request import Request
from dicomveil.scan import InstanceScan
from dicomveil.study_map import StudyMap, lettered
from dicomveil.uids import uid_token
from transforms.locations import locate, table_file
from transforms.records import Planned, PlannedStudy
from transforms.secrets import KeyReference
from transforms.study_groups import GroupByStudy

_ASKED, _CHANGED = "asked", "changed"
_MOVED: Final = ("study", "series", "instance")
_PAIR: Final = tuple[str, Any]


class BuildAlterations(beam.PTransform):
    """Group by study, and settle which UIDs change.

    A study whose map can't be built for a reason that nobody foresaw is set aside whole.

    Args:
      earlier: crosswalks of UIDs that runs of the same request have left in the same output: what they changed may be
        gone from the inputs, and references to it follow all the same.
    """

    def __init__(self, key: KeyReference, request: Request, earlier: list[str]) -> None:
        super().__init__()
        self._key, self._request, self._earlier = key, request, earlier

    def expand(self, planned: beam.PCollection[Planned]) -> beam.PCollection[PlannedStudy]:
        gathered = (
            planned
            | "Of each study" >> GroupByStudy()
            | "Gather" >> beam.ParDo(_GatherFn(self._key, self._request)).with_output_types(_PAIR)
        )
        earlier = planned.pipeline | "Crosswalks" >> beam.Create(self._earlier, reshuffle=False).with_output_types(str)
        changed = (
            gathered | "Changed here" >> beam.FlatMapTuple(_changed).with_output_types(_PAIR),
            earlier | "Changed earlier" >> beam.ParDo(_EarlierFn(self._key)).with_output_types(_PAIR),
        )
        told = {
            _ASKED: gathered | "Ask" >> beam.FlatMapTuple(_asked).with_output_types(_PAIR),
            _CHANGED: changed | "All changed" >> beam.Flatten(),
        }
        answers = (
            told | "Join" >> beam.CoGroupByKey() | "Answer" >> beam.FlatMapTuple(_answered).with_output_types(_PAIR)
        )
        return (
            (gathered, answers)
            | "With answers" >> beam.CoGroupByKey()
            | "Settle" >> beam.MapTuple(_settled).with_output_types(PlannedStudy)
        )


class _GatherFn(beam.DoFn):
    def __init__(self, key: KeyReference, request: Request) -> None:
        self._key, self._request = key, request

    def setup(self) -> None:
        self._keys = self._key.keys()

    def process(self, study: tuple[str, Iterable[Planned]]) -> Iterator[tuple[str, Alteration | None]]:
        token, instances = study
        try:
            scans = ((InstanceScan.decode(it.scan), it.selected) for it in instances)
            yield token, altered(scans, self._request, self._keys)
        except Exception:
            yield token, None


def _asked(token: str, alteration: Alteration | None) -> Iterator[tuple[str, str]]:
    for uid in alteration.referred if alteration else ():
        yield uid.hex(), token


def _changed(token: str, alteration: Alteration | None) -> Iterator[tuple[str, tuple[str, bool]]]:
    if alteration:
        for role, uid in lettered(alteration.changed):
            yield uid.hex(), (role, False)
        for role, uid in lettered(alteration.torn):
            yield uid.hex(), (role, True)


class _EarlierFn(beam.DoFn):
    """What an earlier run has changed, in the form of `_changed`: of a study or series a part may have stayed."""

    def __init__(self, key: KeyReference) -> None:
        self._key = key

    def setup(self) -> None:
        self._keys = self._key.keys()

    def process(self, crosswalk: str) -> Iterator[tuple[str, tuple[str, bool]]]:
        rows = pq.read_table(table_file(locate(crosswalk)), columns=["role", "original", "inside"], partitioning=None)
        for row in rows.to_pylist():
            if row["inside"] and row["role"] in _MOVED:
                yield uid_token(self._keys, row["original"]).hex(), (row["role"], row["role"] != "instance")


def _answered(uid: str, told: dict[str, Iterable[Any]]) -> Iterator[tuple[str, tuple[str, str, bool]]]:
    """(study token, (UID token, role, whether it is torn)) of what each study that refers to a UID hears of it."""
    roles = sorted(set(told[_CHANGED]))
    for study in set(told[_ASKED]) if roles else ():
        yield study, (uid, *roles[0])


def _settled(token: str, told: tuple[Iterable[Alteration | None], Iterable[tuple[str, str, bool]]]) -> PlannedStudy:
    gathered, answers = told
    alteration = next(iter(gathered))
    if alteration is None:
        return PlannedStudy(token, StudyMap(token, conflict="internal").encode())
    elsewhere = [(bytes.fromhex(uid), role, torn) for uid, role, torn in answers]
    return PlannedStudy(token, settled(token, alteration, elsewhere).encode(), elsewhere=len(elsewhere))
