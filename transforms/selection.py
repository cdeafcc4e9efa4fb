"""Which instances a request means: those of the patients, studies, series and instances that it names.

What is named are originals: workers read it in a file of the run, and the graph carries only its place.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

import apache_beam as beam

from dicomveil import orthanc_ids
from dicomveil.request import Request
from dicomveil.scan import InstanceScan
from dicomveil.study import borne
from transforms import stores
from transforms.bundles import SeldomTwiceFn
from transforms.locations import Location, locate
from transforms.notes import WriteListNote
from transforms.patients import ComparePatients
from transforms.records import Planned
from transforms.secrets import KeyReference

THE_STUDY: Final = -1
"""The number of the study that is split or merged into, among the resources."""
HAS, GETS = {"study": -2, "series": -3, "instance": -4}, {"study": -12, "series": -13, "instance": -14}
"""Likewise of what isn't selected and has the UID that the request gives, and of what is and gets it, by role."""
Hit = tuple[int, str]
"""The number of a resource, and the token of a study in which it was found; "" where that doesn't matter."""
_LEVELS: Final = ("patient", "study", "series", "instance")
_HITS: Final = "hits"


def write_selection(file: Location, request: Request) -> None:
    """Note for the workers what a request selects."""
    named = [(number, it.role, it.id, it.orthanc) for number, it in enumerate(request.resources)]
    study = [(THE_STUDY, it.role, it.id, it.orthanc) for it in (request.study,) if it]
    stores.create_restricted(file, json.dumps([*named, *study]).encode())


class Selection:
    """What a request selects, as it is looked up instance by instance.

    Args:
      patients: whether Orthanc's identifiers may be of patients.
    """

    def __init__(self, file: str, patients: bool = True) -> None:
        self._first = 0 if patients else 1
        self._numbers: dict[tuple[bool, str, str], set[int]] = {}
        for number, role, text, orthanc in json.loads(locate(file).read_bytes()):
            self._numbers.setdefault((orthanc, role, text), set()).add(number)
        self._hashed = any(orthanc for orthanc, _, _ in self._numbers)

    def numbers(self, scan: InstanceScan) -> set[int]:
        """The numbers of the resources that an instance is of."""
        uids = (scan.study_instance_uid, scan.series_instance_uid, scan.sop_instance_uid)
        names = [(False, role, text) for role, text in zip(_LEVELS, (scan.patient_id, *uids), strict=True)]
        if self._hashed:
            for depth, role in list(enumerate(_LEVELS))[self._first :]:
                text = orthanc_ids.resource_id(scan.patient_id, *uids[:depth])
                names += [(True, role, text), (True, "", text)]
        return {number for name in names for number in self._numbers.get(name, ())}


class SelectResources(beam.PTransform):
    """Mark what a request means, and set aside what it has nothing to do with.

    De-identified is what is selected alone. Of a study that is modified, split or merged into, in part, the rest stays
    in: its references follow.

    Args:
      file: of `write_selection`.
      found: where it is noted which resources there are, in the restricted zone.
      described: where `ComparePatients` notes what it sees, likewise; None where there is nothing to compare.
    """

    def __init__(
        self, file: Location, found: Location, described: Location | None, key: KeyReference, request: Request
    ) -> None:
        super().__init__()
        self._file, self._found, self._request = str(file), found, request
        self._compare = ComparePatients(described, key, request) if described else None

    def expand(self, scanned: beam.PCollection[Planned]) -> beam.PCollection[Planned]:
        marker = _MarkFn(self._file, self._request)
        marked = scanned | "Mark" >> beam.ParDo(marker).with_outputs(_HITS, main="marked")
        marked[_HITS] | "Each once" >> beam.Distinct() | "Note" >> WriteListNote(self._found)
        if self._compare:
            marked["marked"] | "Marked ones" >> beam.MapTuple(_planned) | "Compare patients" >> self._compare
        return (
            marked["marked"]
            | "Group by study" >> beam.GroupByKey()
            | "Tell" >> beam.FlatMap(_told, self._request.alters).with_output_types(Planned)
        )


class _MarkFn(SeldomTwiceFn):
    """(study token, (planned, whether its study is one that something becomes of)), and hits."""

    def __init__(self, file: str, request: Request) -> None:
        command = request.command
        self._file, self._of_studies, self._patients = file, command in ("split", "merge"), command != "merge"
        self._given = [(role, uid) for role, uid in request.given.items() if role in HAS and request.alters]

    def setup(self) -> None:
        self._selection = Selection(self._file, self._patients)

    def process(self, planned: Planned) -> Iterator[Any]:
        scan = InstanceScan.decode(planned.scan) if planned.scan else None
        numbers = self._selection.numbers(scan) if scan else set()
        selected = bool(numbers - {THE_STUDY})
        told = replace(planned, selected=selected), bool(numbers)
        yield planned.study_token or planned.token, told
        bears = dict(borne(scan)) if scan and self._given else {}
        numbers.update(
            (GETS if selected else HAS)[role]
            for role, uid in self._given
            if role in bears and (bears[role] == uid) is not selected
        )
        for number in sorted(numbers):
            hit = number, planned.study_token if self._of_studies else ""
            if self.is_new(hit):
                yield beam.pvalue.TaggedOutput(_HITS, hit)


def read_found(found: Location) -> list[Hit]:
    """What `SelectResources` has noted."""
    return [(number, study) for number, study in json.loads(found.read_bytes())]


def _planned(token: str, told: tuple[Planned, bool]) -> Planned:
    return told[0]


def _told(group: tuple[str, Iterable[tuple[Planned, bool]]], alters: bool) -> Iterator[Planned]:
    study = group[1]
    concerned = any(it for _, it in study)
    for planned, _ in study:
        if not planned.scan or (concerned and (planned.selected or alters)):
            yield planned
        elif concerned:
            yield replace(planned, reason="not-selected")
        else:
            yield replace(planned, reason="not-selected", scan=b"", study_token="", sop_token="", series_token="")
