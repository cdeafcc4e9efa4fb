"""From outcomes to the tables: what may be shared on one side, what leads back to the originals on the other."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import apache_beam as beam

from dicomveil.identities import Identities
from dicomveil.regrouping import REFERENCE
from dicomveil.request import Request
from dicomveil.scan import InstanceScan
from dicomveil.study import StudyFacts, by_patient, patient_links, uid_links
from dicomveil.study_map import StudyMap
from transforms import plans, tables
from transforms.ledger import LedgerRows
from transforms.outcomes import Part, TokenSum
from transforms.records import WRITTEN, Outcome, PlannedStudy
from transforms.secrets import KeyReference


class WriteOutcomes(beam.PTransform):
    """Write instances, crosswalk and quarantine, a part a shard, and count what was settled.

    Args:
      part: prefix of the parts' names, different for each slice.
      shards: how many parts a table at most.
      ledger: what they leave there; None for nothing.
    """

    def __init__(
        self, audit: str, restricted: str, run: str, part: str, shards: int, request: str, ledger: LedgerRows | None
    ) -> None:
        super().__init__()
        self._shards, self._writer = shards, _WriteOutcomesFn(audit, restricted, run, part, request, ledger)

    def expand(self, outcomes: beam.PCollection[Outcome]) -> beam.PCollection[Part]:
        return (
            outcomes
            | "Key by shard" >> beam.WithKeys(_shard, self._shards).with_output_types(tuple[int, Outcome])
            | "Group by shard" >> beam.GroupByKey()
            | "Write" >> beam.ParDo(self._writer).with_output_types(Part)
        )


def _shard(outcome: Outcome, shards: int) -> int:
    return int(outcome.token[:8], 16) % shards


class _WriteOutcomesFn(beam.DoFn):
    def __init__(
        self, audit: str, restricted: str, run: str, part: str, request: str, ledger: LedgerRows | None
    ) -> None:
        self._roots = {"audit": audit, "restricted": restricted}
        self._run, self._part, self._request, self._ledger = run, part, request, ledger

    def process(self, shard: tuple[int, Iterable[Outcome]]) -> Iterator[Part]:
        number, outcomes = shard
        settled = sorted(outcomes, key=lambda outcome: outcome.token)
        part = f"{self._part}-{number:02}"
        done = [outcome for outcome in settled if outcome.outcome in WRITTEN]
        rest = [outcome for outcome in settled if outcome.outcome not in WRITTEN]
        for zone, schema, rows in (
            ("audit", tables.INSTANCES, [_audited(outcome, self._request) for outcome in settled]),
            ("restricted", tables.CROSSWALK_INSTANCES, [_crosswalk(outcome) for outcome in done]),
            ("restricted", tables.QUARANTINE, [_quarantined(outcome) for outcome in rest]),
            ("restricted", tables.CROSSWALK_UIDS, [row for outcome in done for row in _late(outcome)]),
            ("restricted", tables.LEDGER, self._ledger.rows(settled) if self._ledger else []),
        ):
            name, count = tables.write_part(self._roots[zone], self._run, schema, part, rows)
            if count:
                yield zone, name, count
        yield from _counts(settled)


def _audited(outcome: Outcome, request: str) -> dict[str, Any]:
    actions = Counter(change.action for change in outcome.changes)
    return {
        "source_token": outcome.token,
        "outcome": outcome.outcome,
        "reason": outcome.reason,
        "stage": outcome.stage,
        "patient_id": outcome.patient_id,
        "study_instance_uid": outcome.study_instance_uid,
        "series_instance_uid": outcome.series_instance_uid,
        "sop_instance_uid": outcome.sop_instance_uid,
        "sop_class_uid": outcome.sop_class_uid,
        "transfer_syntax_uid": outcome.transfer_syntax_uid,
        "name": outcome.name,
        "bytes": outcome.size,
        "sha256": outcome.sha256,
        "request_fingerprint": request,
        "removed": actions["X"],
        "emptied": actions["Z"],
        "replaced": actions["D"],
        "mapped": actions["U"],
        "late_uids": len(outcome.late_uids),
        "changes": [asdict(change) for change in outcome.changes],
        "cleaned": actions["C"],
        "risk": outcome.risk,
        "frozen": [asdict(kept) for kept in outcome.frozen],
        "followed": sum(change.rule == REFERENCE for change in outcome.changes),
    }


def _crosswalk(outcome: Outcome) -> dict[str, Any]:
    return {
        "source_token": outcome.token,
        "source_uri": outcome.uri,
        "source_version": outcome.version,
        "original_sop_instance_uid": outcome.original_sop_instance_uid,
        "sop_instance_uid": outcome.sop_instance_uid,
        "name": outcome.name,
        "source_size": outcome.source_size,
        "study_token": outcome.study_token,
        "sop_token": outcome.sop_token,
        "source_sha256": outcome.source_sha256,
        "original_series_instance_uid": outcome.original_series_instance_uid,
        "series_instance_uid": outcome.series_instance_uid,
        "original_study_instance_uid": outcome.original_study_instance_uid,
        "study_instance_uid": outcome.study_instance_uid,
    }


def _quarantined(outcome: Outcome) -> dict[str, Any]:
    return {
        "source_token": outcome.token,
        "source_uri": outcome.uri,
        "source_version": outcome.version,
        "outcome": outcome.outcome,
        "stage": outcome.stage,
        "reason": outcome.reason,
        "path": outcome.path,
        "study_token": outcome.study_token,
        "sop_token": outcome.sop_token,
    }


def _late(outcome: Outcome) -> Iterator[dict[str, Any]]:
    for late in outcome.late_uids:
        yield {"role": late.role, "original": late.original, "new": late.new, "inside": False, "late": True}


def _counts(settled: list[Outcome]) -> Iterator[Part]:
    """What the command sums: outcomes by reason, bytes in and out, studies, and the sum of tokens."""
    for (outcome, reason), count in sorted(Counter((it.outcome, it.reason) for it in settled).items()):
        yield "settled", f"{outcome} {reason}".strip(), count
    risks = Counter(it.risk for it in settled if it.risk)
    yield from (("risk", risk, count) for risk, count in sorted(risks.items()))
    yield "frozen", "instances", sum(1 for it in settled if it.frozen)
    yield "frozen", "original UIDs", sum(kept.original_uids for it in settled for kept in it.frozen)
    yield "settled", "bytes read", sum(it.source_size for it in settled if it.outcome in WRITTEN)
    yield "settled", "bytes written", sum(it.size for it in settled)
    sums = TokenSum()
    total = sums.create_accumulator()
    for it in settled:
        total = sums.add_input(total, it)
    yield "tokens", sums.extract_output(total)[1], len(settled)


class WriteCrosswalks(beam.PTransform):
    """Write what a slice's buckets know of studies, patients and UIDs: from the plan, not from what was rewritten."""

    def __init__(self, folder: str, audit: str, restricted: str, run: str, key: KeyReference, request: Request) -> None:
        super().__init__()
        self._writer = _WriteCrosswalksFn(folder, audit, restricted, run, key, request)

    def expand(self, buckets: beam.PCollection[int]) -> beam.PCollection[Part]:
        return (
            buckets
            | "Spread buckets" >> beam.Reshuffle()
            | "Write crosswalks" >> beam.ParDo(self._writer).with_output_types(Part)
        )


class _WriteCrosswalksFn(beam.DoFn):
    def __init__(self, folder: str, audit: str, restricted: str, run: str, key: KeyReference, request: Request) -> None:
        self._folder, self._run, self._key, self._request = folder, run, key, request
        self._roots = {"audit": audit, "restricted": restricted}

    def setup(self) -> None:
        self._identities = Identities(self._key.keys(), self._request)

    def process(self, bucket: int) -> Iterator[Part]:
        scans: dict[str, list[InstanceScan]] = {}
        for planned in plans.read_instances(self._folder, bucket):
            if planned.scan:
                scans.setdefault(planned.study_token, []).append(InstanceScan.decode(planned.scan))
        uids: list[dict[str, Any]] = []
        patients: list[dict[str, Any]] = []
        studies: list[dict[str, Any]] = []
        known: list[dict[str, Any]] = []
        for planned_study in plans.read_studies(self._folder, bucket):
            study_map, study = StudyMap.decode(planned_study.study_map), scans.get(planned_study.study_token, [])
            if study_map.conflict == "internal" or not study:
                continue  # what can't be built can't be linked either
            known.append(_known(planned_study, study_map))
            for own, scanned in by_patient(study, study_map, self._identities):
                links = list(uid_links(scanned, own, self._identities))
                uids.extend(
                    vars(link) | {"late": False}
                    for link in links
                    # Of a study of several patients each has another, and a crosswalk has one line for each original.
                    if not (own.conflict or (own.apart and link.inside and link.role in ("study", "series")))
                )
                patients.extend(vars(link) for link in patient_links(scanned, own, self._identities))
                studies.append(_study(planned_study, own, scanned, sum(link.inside for link in links), len(links)))
        for zone, schema, rows in (
            ("restricted", tables.CROSSWALK_UIDS, uids),
            ("restricted", tables.CROSSWALK_PATIENTS, patients),
            ("restricted", tables.CROSSWALK_STUDIES, known),
            ("audit", tables.STUDIES, studies),
        ):
            name, count = tables.write_part(self._roots[zone], self._run, schema, f"bucket-{bucket:03}", rows)
            if count:
                yield zone, name, count


def _known(planned: PlannedStudy, study_map: StudyMap) -> dict[str, Any]:
    return {
        "study_token": planned.study_token,
        "original": StudyFacts.decode(planned.facts).study_instance_uid,
        "new": study_map.study_instance_uid,
        "facts": planned.facts,
        "map_token": planned.map_token,
    }


def _study(
    planned: PlannedStudy, study_map: StudyMap, study: list[InstanceScan], inside: int, mentioned: int
) -> dict[str, Any]:
    return {
        "study_instance_uid": study_map.study_instance_uid,
        "patient_id": study_map.patient,
        "instances": len(study),
        "series": len({scan.series_instance_uid for scan in study if scan.series_instance_uid}),
        "frames_of_reference": len({scan.frame_of_reference_uid for scan in study if scan.frame_of_reference_uid}),
        "uids_inside": inside,
        "uids_outside": mentioned - inside,
        "reason": study_map.conflict,
        "uids_elsewhere": planned.elsewhere,
        "uids_known": planned.known,
        "uids_external": planned.external,
    }
