"""From listed objects to what the plan must know of each; what can't be scanned is settled here, with its reason."""

from collections.abc import Iterator

import apache_beam as beam

from dicomveil.errors import Unsuitable
from dicomveil.scan import scan_instance
from dicomveil.study import study_token
from transforms import stores
from transforms.progress import Progress
from transforms.records import Planned, SourceObject
from transforms.secrets import KeyReference


class ScanInstances(beam.PTransform):
    """Scan each object once, spread over all workers.

    Args:
      listening: whether to gather what is said of people, for text to be cleaned of it.
    """

    def __init__(self, key: KeyReference, progress: str, listening: bool) -> None:
        super().__init__()
        self._arguments = key, progress, listening

    def expand(self, sources: beam.PCollection[SourceObject]) -> beam.PCollection[Planned]:
        return (
            sources
            | "Spread" >> beam.Reshuffle()
            | "Scan" >> beam.ParDo(_ScanFn(*self._arguments)).with_output_types(Planned)
        )


class _ScanFn(beam.DoFn):
    def __init__(self, key: KeyReference, progress: str, listening: bool) -> None:
        self._key, self._progress, self._listening = key, Progress(progress), listening

    def setup(self) -> None:
        self._keys = self._key.keys()

    def process(self, source: SourceObject) -> Iterator[Planned]:
        yield self._scanned(source)
        self._progress.count()

    def finish_bundle(self) -> None:
        self._progress.flush()

    def _scanned(self, source: SourceObject) -> Planned:
        known = (source.token, source.uri, source.size, source.version)
        if source.reason:
            return Planned(*known, reason=source.reason)
        try:
            with stores.open_version(source.uri, source.version) as content:
                scan = scan_instance(content, self._listening)
            sop_token = self._keys.token("sop", scan.sop_instance_uid.encode())
            return Planned(*known, study_token(scan, self._keys), sop_token, scan.encode())
        except Unsuitable as unsuitable:
            return Planned(*known, reason=unsuitable.reason, path=unsuitable.path)
        except Exception as unforeseen:
            return Planned(*known, reason="internal", path=type(unforeseen).__name__)
