"""From (instance, study map) to a de-identified object and its outcome: reads again, streams, writes atomically."""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import apache_beam as beam

from dicomveil.compile import compile_request
from dicomveil.errors import REASONS, Unsuitable
from dicomveil.request import Request
from dicomveil.rewrite import Rewriter, Rewritten
from dicomveil.scan import InstanceScan
from dicomveil.study_map import StudyMap
from transforms import stores
from transforms.progress import Progress
from transforms.records import Changed, Frozen, LateUID, Outcome, Planned
from transforms.secrets import KeyReference

_MAPS_HELD: Final = 64
NOT_PERMISSIVE: Final = "stopped at the first failure "


class NotPermissive(Exception):
    """An instance can't be de-identified, and the request asks to stop at the first; its text holds the reason's code.

    Beam makes another exception of it, with more text: only the text comes through.
    """


class RewriteInstances(beam.PTransform):
    """De-identify each planned instance into the output; what the plan set aside passes through with its reason.

    Args:
      request: what to do.
      output: root of the output.
      temporary: folder on the same file system for what is being written.
      progress: folder for the workers' counts.
    """

    def __init__(self, request: Request, key: KeyReference, output: str, temporary: str, progress: str) -> None:
        super().__init__()
        self._arguments = request, key, output, temporary, progress

    def expand(self, pairs: beam.PCollection[tuple[Planned, bytes]]) -> beam.PCollection[Outcome]:
        return pairs | "Rewrite" >> beam.ParDo(_RewriteFn(*self._arguments)).with_output_types(Outcome)


class _RewriteFn(beam.DoFn):
    def __init__(self, request: Request, key: KeyReference, output: str, temporary: str, progress: str) -> None:
        self._request, self._key = request, key
        self._output, self._temporary, self._progress = output, temporary, Progress(progress)
        self._maps: OrderedDict[bytes, StudyMap] = OrderedDict()

    def setup(self) -> None:
        self._rewriter = Rewriter(compile_request(self._request), self._key.keys())

    def process(self, pair: tuple[Planned, bytes]) -> Iterator[Outcome]:
        planned, encoded = pair
        yield (
            set_aside(planned, planned.reason, planned.path, "plan")
            if planned.reason
            else self._outcome(planned, encoded)
        )
        self._progress.count()

    def finish_bundle(self) -> None:
        self._progress.flush()

    def _outcome(self, planned: Planned, encoded: bytes) -> Outcome:
        try:
            return self._rewrite(planned, InstanceScan.decode(planned.scan), self._map(encoded))
        except Unsuitable as unsuitable:
            if not self._request.permissive and REASONS[unsuitable.reason].outcome == "quarantined":
                raise NotPermissive(f"{NOT_PERMISSIVE}<{unsuitable.reason}>") from None
            return set_aside(planned, unsuitable.reason, unsuitable.path, "rewrite")
        except stores.StoreFailed:
            raise
        except Exception as unforeseen:
            return set_aside(planned, "internal", type(unforeseen).__name__, "rewrite")

    def _map(self, encoded: bytes) -> StudyMap:
        """The study's map, decoded once as long as its instances come together."""
        study_map = self._maps.get(encoded)
        if study_map is None:
            study_map = self._maps[encoded] = StudyMap.decode(encoded)
            if len(self._maps) > _MAPS_HELD:
                self._maps.popitem(last=False)
        return study_map

    def _rewrite(self, planned: Planned, scan: InstanceScan, study_map: StudyMap) -> Outcome:
        with stores.open_version(planned.uri, planned.version) as source:
            rewritten = self._rewriter.rewrite(source, scan, study_map, planned.sop_instance_uid)
            written = _Digest()
            temporary = Path(self._temporary) / f"{planned.token}-{os.getpid()}"
            stores.create(Path(self._output) / rewritten.place.name, temporary, written.through(rewritten))
            source_sha256 = stores.sha256_of(source)
        if planned.former and planned.former != rewritten.place.name:
            stores.remove(Path(self._output), planned.former)
        return Outcome(
            token=planned.token,
            uri=planned.uri,
            version=planned.version,
            source_size=planned.size,
            outcome="deidentified",
            reason="",
            stage="rewrite",
            name=rewritten.place.name,
            **rewritten.place._asdict(),
            sop_class_uid=rewritten.sop_class_uid,
            transfer_syntax_uid=rewritten.transfer_syntax_uid,
            original_sop_instance_uid=scan.sop_instance_uid,
            original_series_instance_uid=scan.series_instance_uid,
            original_study_instance_uid=scan.study_instance_uid,
            size=written.size,
            sha256=written.sha256.hexdigest(),
            changes=[Changed(*change) for change in rewritten.changes],
            late_uids=[LateUID(*late) for late in rewritten.late_uids],
            risk=rewritten.risk,
            frozen=[Frozen(*kept) for kept in rewritten.frozen],
            study_token=planned.study_token,
            sop_token=planned.sop_token,
            source_sha256=source_sha256,
        )


class _Digest:
    """Size and SHA-256 of what is written, taken as it passes."""

    def __init__(self) -> None:
        self.size, self.sha256 = 0, hashlib.sha256()

    def through(self, rewritten: Rewritten) -> Iterator[bytes]:
        for chunk in rewritten.chunks():
            self.size += len(chunk)
            self.sha256.update(chunk)
            yield chunk


def set_aside(planned: Planned, reason: str, path: str, stage: str) -> Outcome:
    """The outcome of an object that isn't de-identified, as its reason says."""
    return Outcome(
        token=planned.token,
        uri=planned.uri,
        version=planned.version,
        source_size=planned.size,
        outcome=REASONS[reason].outcome,
        reason=reason,
        stage=stage,
        path=path,
        study_token=planned.study_token,
        sop_token=planned.sop_token,
    )
