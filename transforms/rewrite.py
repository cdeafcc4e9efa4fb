"""From (instance, study map) to an object of the output and its outcome: reads again, streams, writes atomically."""

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import apache_beam as beam

from dicomveil import merging
from dicomveil.compile import compile_request
from dicomveil.errors import REASONS, InvalidInstance, Unsuitable
from dicomveil.keys import Keys
from dicomveil.modifier import Modifier
from dicomveil.request import Request
from dicomveil.rewrite import Rewriter, Rewritten
from dicomveil.scan import InstanceScan
from dicomveil.stream import Source
from dicomveil.study_map import StudyMap
from dicomveil.transcoder import Transcoded
from transforms import store_failures, stores
from transforms.children import ChildrenUnable
from transforms.locations import ObjectLocation, locate
from transforms.metrics import count_settled
from transforms.object_stores import scheme_of
from transforms.only_copies import is_only_copy, leave
from transforms.outputs import Outputs
from transforms.overlapping import OverlappingFn
from transforms.progress import Progress
from transforms.records import COPIED, DEIDENTIFIED, MODIFIED, Changed, Frozen, LateUID, Outcome, Planned
from transforms.secrets import KeyReference
from transforms.transcoding import Transcoding

_MAPS_HELD: Final = 64
_SECONDS: Final = 0.5
NOT_PERMISSIVE: Final = "stopped at the first failure "


class NotPermissive(Exception):
    """An instance can't be de-identified, and the request asks to stop at the first; its text holds the reason's code.

    Beam makes another exception of it, with more text: only the text comes through.
    """


def with_target(request: Request, target: str) -> Request:
    """The request with what the study says that others are merged into; as it is for any other command.

    Args:
      target: where that stands.
    """
    return merging.into(request, locate(target).read_bytes()) if request.command == "merge" else request


class Rewriting:
    """What a request of any command makes of planned instances.

    Args:
      target: where it stands what the study says of itself that others are merged into; read by merge alone.
    """

    def __init__(self, request: Request, target: str, keys: Keys) -> None:
        self.request = request = with_target(request, target)
        self._rewriter = None if request.alters else Rewriter(compile_request(request), keys)
        self._modifier = Modifier(request, keys) if request.alters else None

    def rewrite(self, source: Source, planned: Planned, scan: InstanceScan, study_map: StudyMap) -> Rewritten:
        """The instance as it comes out, not yet written.

        Raises:
          InvalidInstance: it can't be done; nothing was written.
        """
        if self._modifier:
            return self._modifier.rewrite(source, scan, study_map, planned.selected)
        assert self._rewriter
        return self._rewriter.rewrite(source, scan, study_map, planned.sop_instance_uid)

    def name(self, planned: Planned, scan: InstanceScan, study_map: StudyMap) -> str:
        """The name that it gets, where it doesn't fail.

        Raises:
          InvalidInstance: it surely does.
        """
        if self._modifier:
            return self._modifier.name(scan, study_map, planned.selected)
        assert self._rewriter
        return self._rewriter.name(scan, study_map, planned.sop_instance_uid)


class Destination(NamedTuple):
    """Where instances are written, and how.

    Attributes:
      output: root of the output.
      restricted: root of the restricted zone.
      temporary: folder of this machine for what is being written; on the same file system, if the output is a folder.
      progress: folder for the workers' counts.
      stop: what is there once no more is to be attempted; "" where that never happens.
      kms_key: name of the store's key that encrypts the outputs; "" where their bucket decides.
    """

    output: str
    restricted: str
    temporary: str
    progress: str
    stop: str = ""
    kms_key: str = ""


class RewriteInstances(beam.PTransform):
    """Write what becomes of each planned instance; what the plan set aside passes through with its reason.

    Args:
      request: what to do.
      target: as `Rewriting` has it.
    """

    def __init__(self, request: Request, target: str, key: KeyReference, destination: Destination) -> None:
        super().__init__()
        self._arguments = request, target, key, destination

    def expand(self, pairs: beam.PCollection[tuple[Planned, bytes]]) -> beam.PCollection[Outcome]:
        return pairs | "Rewrite" >> beam.ParDo(_RewriteFn(*self._arguments)).with_output_types(Outcome)


class _RewriteFn(OverlappingFn):
    def __init__(self, request: Request, target: str, key: KeyReference, destination: Destination) -> None:
        self._request, self._target, self._key, self._to = request, target, key, destination
        self._progress = Progress(destination.progress)
        self._stopped, self._looked = False, 0.0

    def setup(self) -> None:
        super().setup()
        self._own = threading.local()
        asked = self._request
        self._root, self._restricted = locate(self._to.output), locate(self._to.restricted)
        self._outputs = Outputs(self._key.keys(), asked, self._restricted, self._to.kms_key)
        Path(self._to.temporary).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._transcoding = Transcoding(asked.transcode, asked.lossy_quality) if asked.transcode else None

    def teardown(self) -> None:
        super().teardown()
        if self._transcoding:
            self._transcoding.close()

    def waits(self, pair: tuple[Planned, bytes]) -> bool:
        """There is one child that transcodes, so nothing is gained where that is done."""
        stored = isinstance(self._root, ObjectLocation) or scheme_of(pair[0].uri)
        return bool(stored and not pair[0].reason and not self._transcoding)

    def work(self, pair: tuple[Planned, bytes]) -> Outcome:
        planned, encoded = pair
        if planned.reason:
            return set_aside(planned, planned.reason, planned.path, "plan")
        if self._is_stopped():
            return set_aside(planned, "stopped", "", "rewrite")
        return self._outcome(planned, encoded)

    def worked(self, pair: tuple[Planned, bytes], outcome: Outcome, seconds: float) -> None:
        count_settled(outcome, seconds)
        self._progress.count(failed=outcome.outcome == "quarantined" and not pair[0].reason)

    def _is_stopped(self) -> bool:
        """Whether no more is to be attempted; looked at now and then."""
        if self._to.stop and not self._stopped and time.monotonic() - self._looked > _SECONDS:
            self._stopped, self._looked = locate(self._to.stop).exists(), time.monotonic()
        return self._stopped

    def finish_bundle(self) -> Iterator[Any]:
        yield from super().finish_bundle()
        self._progress.flush()

    def _outcome(self, planned: Planned, encoded: bytes) -> Outcome:
        try:
            return self._rewrite(planned, InstanceScan.decode(planned.scan), encoded)
        except Unsuitable as unsuitable:
            if not self._request.permissive and REASONS[unsuitable.reason].outcome == "quarantined":
                raise NotPermissive(f"{NOT_PERMISSIVE}<{unsuitable.reason}>") from None
            return set_aside(planned, unsuitable.reason, unsuitable.path, "rewrite")
        except (store_failures.StoreFailed, ChildrenUnable):
            raise
        except Exception as unforeseen:
            return set_aside(planned, "internal", type(unforeseen).__name__, "rewrite")

    def _outcome_of(self, planned: Planned) -> str:
        """What an instance is called of which there is an output."""
        if not self._request.alters:
            return DEIDENTIFIED
        return MODIFIED if planned.selected else COPIED

    def _aside(self, planned: Planned) -> Path:
        return Path(self._to.temporary) / f"{planned.token}-{secrets.token_hex(8)}"

    @contextmanager
    def _finished(
        self, planned: Planned, rewritten: Rewritten, aside: Path
    ) -> Iterator[tuple[Iterator[bytes], Transcoded | None]]:
        """The file as it is stored, in the transfer syntax that the request names."""
        if self._transcoding is None or not planned.selected:
            yield rewritten.chunks(), None
            return
        with self._transcoding.written(rewritten.chunks(), aside) as finished:
            yield finished

    @property
    def _mine(self) -> "_Own":
        """What this thread has for itself."""
        own: _Own | None = getattr(self._own, "held", None)
        if own is None:
            own = self._own.held = _Own(Rewriting(self._request, self._target, self._key.keys()))
        return own

    def _create(
        self, planned: Planned, encoded: bytes, name: str, aside: Path, written: "_Digest", chunks: Iterable[bytes]
    ) -> None:
        """Write an output, but never another one over the only copy of something, nor over another source's.

        Raises:
          InvalidInstance: that stands there, or the store can't take it.
          StoreFailed: it can't be written.
        """
        if isinstance(self._root, ObjectLocation):
            return self._outputs.put(self._root, name, planned, encoded, written.through(chunks))
        if is_only_copy(self._root, name, self._restricted):
            return leave(self._root / name, written.through(chunks))
        return stores.create(self._root / name, aside, written.through(chunks))

    def _rewrite(self, planned: Planned, scan: InstanceScan, encoded: bytes) -> Outcome:
        written, mine = _Digest(), self._mine
        study_map = mine.study_map(encoded)
        with stores.open_version(planned.uri, planned.version, planned.size, whole=True) as source:
            rewritten = mine.rewriting.rewrite(source, planned, scan, study_map)
            name, aside = rewritten.place.name, self._aside(planned)
            if planned.former not in ("", name) and is_only_copy(self._root, planned.former, self._restricted):
                raise InvalidInstance("only-copy")
            with self._finished(planned, rewritten, aside) as (chunks, transcoded):
                self._create(planned, encoded, name, aside, written, _as_listed(planned, chunks))
            source_sha256 = stores.sha256_of(source)
        if planned.former and planned.former != rewritten.place.name:
            stores.remove(self._root, planned.former)
        return Outcome(
            token=planned.token,
            uri=planned.uri,
            version=planned.version,
            source_size=planned.size,
            outcome=self._outcome_of(planned),
            reason="",
            stage="rewrite",
            name=rewritten.place.name,
            **rewritten.place._asdict(),
            sop_class_uid=rewritten.sop_class_uid,
            transfer_syntax_uid=transcoded.transfer_syntax_uid if transcoded else rewritten.transfer_syntax_uid,
            original_sop_instance_uid=scan.sop_instance_uid,
            original_series_instance_uid=scan.series_instance_uid,
            original_study_instance_uid=scan.study_instance_uid,
            size=written.size,
            sha256=written.sha256.hexdigest(),
            changes=[Changed(*change) for change in [*rewritten.changes, *(transcoded.changes if transcoded else ())]],
            late_uids=[LateUID(*late) for late in rewritten.late_uids],
            risk=rewritten.risk,
            frozen=[Frozen(*kept) for kept in rewritten.frozen],
            study_token=planned.study_token,
            sop_token=planned.sop_token,
            source_sha256=source_sha256,
        )


class _Own:
    """What one thread rewrites by: what a request makes of instances, and the maps of studies that it met last."""

    def __init__(self, rewriting: Rewriting) -> None:
        self.rewriting = rewriting
        self._maps: OrderedDict[bytes, StudyMap] = OrderedDict()

    def study_map(self, encoded: bytes) -> StudyMap:
        """The study's map, decoded once as long as its instances come together."""
        study_map = self._maps.get(encoded)
        if study_map is None:
            study_map = self._maps[encoded] = StudyMap.decode(encoded)
            if len(self._maps) > _MAPS_HELD:
                self._maps.popitem(last=False)
        return study_map


def _as_listed(planned: Planned, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """What is made of a source; at its end, before it counts, the source must still be what was listed.

    A store answers for the version with every read, a file of this machine doesn't.

    Raises:
      InvalidInstance: "changed-during-run".
    """
    yield from chunks
    if not scheme_of(planned.uri) and not stores.unchanged(planned.uri, planned.version):
        raise InvalidInstance("changed-during-run")


class _Digest:
    """Size and SHA-256 of what is written, taken as it passes."""

    def __init__(self) -> None:
        self.size, self.sha256 = 0, hashlib.sha256()

    def through(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
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
