"""What modify, split and merge have made of which identifiers: the crosswalk and the studies of a run of theirs."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from dicomveil.alterations import Successors
from dicomveil.request import Request
from dicomveil.scan import InstanceScan
from dicomveil.study import borne
from dicomveil.study_map import StudyMap
from transforms import plans, tables
from transforms.outcomes import Part
from transforms.records import Planned
from transforms.rewrite import with_target
from transforms.secrets import KeyReference

_Row = dict[str, Any]


class WriteSuccessors(beam.PTransform):
    """Write what a slice's buckets know of studies, patients and UIDs: from the plan, not from what was rewritten.

    What is selected in part has two values from then on, of which the crosswalk tells the new one.
    """

    def __init__(
        self, folder: str, audit: str, restricted: str, run: str, key: KeyReference, request: Request, target: str
    ) -> None:
        super().__init__()
        self._writer = _WriteSuccessorsFn(folder, audit, restricted, run, key, request, target)

    def expand(self, buckets: beam.PCollection[int]) -> beam.PCollection[Part]:
        return (
            buckets
            | "Spread buckets" >> beam.Reshuffle()
            | "Write successors" >> beam.ParDo(self._writer).with_output_types(Part)
        )


class _WriteSuccessorsFn(beam.DoFn):
    def __init__(
        self, folder: str, audit: str, restricted: str, run: str, key: KeyReference, request: Request, target: str
    ) -> None:
        self._folder, self._run, self._key, self._request, self._target = folder, run, key, request, target
        self._roots = {"audit": audit, "restricted": restricted}

    def setup(self) -> None:
        self._successors = Successors(self._key.keys(), with_target(self._request, self._target))

    def process(self, bucket: int) -> Iterator[Part]:
        maps = {it.study_token: StudyMap.decode(it.study_map) for it in plans.read_studies(self._folder, bucket)}
        gathered = _Gathered(self._successors)
        for planned in plans.read_instances(self._folder, bucket):
            study_map = maps.get(planned.study_token)
            if planned.scan and not planned.reason and study_map and not study_map.conflict:
                gathered.add(planned, InstanceScan.decode(planned.scan), study_map)
        for zone, schema, rows in (
            ("restricted", tables.CROSSWALK_UIDS, list(gathered.uids())),
            ("restricted", tables.CROSSWALK_PATIENTS, list(gathered.patients())),
            ("audit", tables.STUDIES, list(gathered.studies())),
        ):
            name, count = tables.write_part(self._roots[zone], self._run, schema, f"bucket-{bucket:03}", rows)
            if count:
                yield zone, name, count


class _Gathered:
    """What the instances of some studies add up to."""

    def __init__(self, successors: Successors) -> None:
        self._successors = successors
        self._uids: dict[str, tuple[str, str, bool]] = {}
        self._patients: set[tuple[str, str, str, str]] = set()
        self._studies: defaultdict[tuple[str, str], _Study] = defaultdict(_Study)

    def add(self, planned: Planned, scan: InstanceScan, study_map: StudyMap) -> None:
        """Count one instance in."""
        successors, selected = self._successors, planned.selected
        bears = {uid: role for role, uid in borne(scan)}
        mentioned = {uid: role for role, uid in scan.uids} | bears
        news = {uid: successors.uid(study_map, role, selected, uid) for uid, role in mentioned.items()}
        changed = {uid: new for uid, new in news.items() if new != uid}
        for uid, new in changed.items():
            self._uids[uid] = mentioned[uid], new, uid in bears or self._uids.get(uid, ("", "", False))[2]
        patient = successors.patient(scan, selected)
        study = news.get(scan.study_instance_uid, "")
        if patient != scan.patient_id:
            self._patients.add((scan.patient_id, scan.issuer, patient, study))
        told = self._studies[study if scan.composite else "", patient if scan.composite else ""]
        told.instances += 1
        told.series.add(news.get(scan.series_instance_uid, ""))
        told.frames.add(scan.frame_of_reference_uid)
        told.inside.update(bears)
        told.mentioned.update(mentioned)

    def uids(self) -> Iterator[_Row]:
        """Rows of the crosswalk of UIDs: those that changed."""
        for uid, (role, new, inside) in sorted(self._uids.items()):
            yield {"role": role, "original": uid, "new": new, "inside": inside, "late": False}

    def patients(self) -> Iterator[_Row]:
        """Rows of the crosswalk of patients: those who got another ID."""
        for original, issuer, new, study in sorted(self._patients):
            yield {"original": original, "issuer": issuer, "new": new, "study_instance_uid": study, "days": 0}

    def studies(self) -> Iterator[_Row]:
        """Rows of the audit's studies, as they are now."""
        for (study, patient), told in sorted(self._studies.items()):
            yield {
                "study_instance_uid": study,
                "patient_id": patient,
                "instances": told.instances,
                "series": len(told.series - {""}),
                "frames_of_reference": len(told.frames - {""}),
                "uids_inside": len(told.inside),
                "uids_outside": len(told.mentioned - told.inside),
                "reason": "",
                "uids_elsewhere": 0,
                "uids_known": 0,
                "uids_external": 0,
            }


class _Study:
    """What is counted of one study."""

    def __init__(self) -> None:
        self.instances = 0
        self.series: set[str] = set()
        self.frames: set[str] = set()
        self.inside: set[str] = set()
        self.mentioned: set[str] = set()
