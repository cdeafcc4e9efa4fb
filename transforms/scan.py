"""From listed objects to what the plan must know of each; what can't be scanned is settled here, with its reason."""

from collections.abc import Iterator
from dataclasses import replace

import apache_beam as beam

from dicomveil.errors import Unsuitable
from dicomveil.request import Request
from dicomveil.scan import scan_instance
from dicomveil.study import study_token
from dicomveil.uids import uid_token
from transforms import stores
from transforms.progress import Progress
from transforms.records import Planned, SourceObject
from transforms.secrets import KeyReference


class ScanInstances(beam.PTransform):
    """Scan each object once, spread over all workers.

    Args:
      request: tells what there is to look for.
    """

    def __init__(self, key: KeyReference, progress: str, request: Request) -> None:
        super().__init__()
        self._arguments = key, progress, request

    def expand(self, sources: beam.PCollection[SourceObject]) -> beam.PCollection[Planned]:
        return (
            sources
            | "Spread" >> beam.Reshuffle()
            | "Scan" >> beam.ParDo(_ScanFn(*self._arguments)).with_output_types(Planned)
        )


class _ScanFn(beam.DoFn):
    def __init__(self, key: KeyReference, progress: str, request: Request) -> None:
        self._key, self._progress, self._request = key, Progress(progress), request

    def setup(self) -> None:
        self._keys = self._key.keys()

    def process(self, source: SourceObject) -> Iterator[Planned]:
        yield self._scanned(source)
        self._progress.count()

    def finish_bundle(self) -> None:
        self._progress.flush()

    def _scanned(self, source: SourceObject) -> Planned:
        known = Planned(
            source.token,
            source.uri,
            source.size,
            source.version,
            sop_instance_uid=source.sop_instance_uid,
            former=source.former,
            rejoins=bool(source.former),
        )
        if source.reason:
            return replace(known, reason=source.reason)
        try:
            with stores.open_version(source.uri, source.version) as content:
                asked = self._request
                scan = scan_instance(content, asked.cleans_text, asked.keeps_private, asked.describes)
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
