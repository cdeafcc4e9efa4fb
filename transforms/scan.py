"""From listed objects to what the plan must know of each; what can't be scanned is settled here, with its reason."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import apache_beam as beam

from dicomveil.errors import Unsuitable
from dicomveil.filters import Filter
from dicomveil.request import Request
from dicomveil.scan import scan_instance
from dicomveil.study import study_token
from dicomveil.uids import uid_token
from transforms import stores
from transforms.locations import locate
from transforms.metrics import count_scanned
from transforms.object_stores import scheme_of
from transforms.overlapping import OverlappingFn
from transforms.progress import Progress
from transforms.records import Planned, SourceObject
from transforms.secrets import KeyReference


class ScanInstances(beam.PTransform):
    """Scan each object once, spread over all workers.

    Args:
      request: tells what there is to look for.
      taking: file in the restricted zone that holds an encoded `Filter`, "" where everything is taken; the graph
        carries only its place.
    """

    def __init__(self, key: KeyReference, progress: str, request: Request, taking: str = "") -> None:
        super().__init__()
        self._arguments = key, progress, request, taking

    def expand(self, sources: beam.PCollection[SourceObject]) -> beam.PCollection[Planned]:
        return (
            sources
            | "Spread" >> beam.Reshuffle()
            | "Scan" >> beam.ParDo(_ScanFn(*self._arguments)).with_output_types(Planned)
        )


class _ScanFn(OverlappingFn):
    def __init__(self, key: KeyReference, progress: str, request: Request, taking: str = "") -> None:
        self._key, self._progress, self._request, self._file = key, Progress(progress), request, taking

    def setup(self) -> None:
        super().setup()
        self._keys = self._key.keys()
        self._taking = Filter.decode(locate(self._file).read_bytes()) if self._file else None

    def waits(self, source: SourceObject) -> bool:
        return bool(scheme_of(source.uri))

    def worked(self, source: SourceObject, planned: Planned, seconds: float) -> None:
        self._progress.count()
        count_scanned(seconds)

    def finish_bundle(self) -> Iterator[Any]:
        yield from super().finish_bundle()
        self._progress.flush()

    def work(self, source: SourceObject) -> Planned:
        known = Planned(
            source.token,
            source.uri,
            source.size,
            source.version,
            sop_instance_uid=source.sop_instance_uid,
            former=source.former,
            rejoins=bool(source.former),
            storage_class=source.storage_class,
        )
        if source.reason:
            return replace(known, reason=source.reason)
        try:
            with stores.open_version(source.uri, source.version, source.size) as content:
                asked = self._request
                taking = None if source.former else self._taking  # what rejoins was taken by an earlier run
                scan = scan_instance(content, asked.cleans_text, asked.keeps_private, asked.describes, taking)
            return replace(
                known,
                study_token=study_token(scan, self._keys),
                sop_token=self._keys.token("sop", scan.sop_instance_uid.encode()),
                series_token=uid_token(self._keys, scan.series_instance_uid).hex() if scan.composite else "",
                scan=scan.encode(),
            )
        except Unsuitable as unsuitable:
            return replace(known, reason=unsuitable.reason, path=unsuitable.path)
        except Exception as unforeseen:
            return replace(known, reason="internal", path=type(unforeseen).__name__)
