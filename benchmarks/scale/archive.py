"""Made-up scans of an archive as large as one likes, as the scan of real objects would leave them."""

from collections.abc import Iterator
from typing import Final

import apache_beam as beam

from dicomveil.keys import Keys
from dicomveil.scan import InstanceScan
from dicomveil.study import study_token
from dicomveil.uids import uid_token
from transforms.match import source_token
from transforms.records import Planned
from transforms.secrets import KeyReference

STUDY: Final = 100
GIANT: Final = 50_000
"""Instances of the first study, where the archive is twice as large."""
_CHUNK: Final = 10_000
_ROOT: Final = "1.2.826.0.1.3680043.8.498"
_CT: Final = "1.2.840.10008.5.1.4.1.1.2"
_EXPLICIT: Final = "1.2.840.10008.1.2.1"


class MakeScans(beam.PTransform):
    """So many planned instances, in studies of a hundred, each referring to its neighbour; one study may be a giant."""

    def __init__(self, instances: int, key: KeyReference) -> None:
        super().__init__()
        self._instances, self._key = instances, key

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[Planned]:
        chunks = range(-(-self._instances // _CHUNK))
        return (
            pipeline
            | "Chunks" >> beam.Create(chunks)
            | "Make" >> beam.ParDo(_MakeFn(self._instances, self._key)).with_output_types(Planned)
        )


class _MakeFn(beam.DoFn):
    def __init__(self, instances: int, key: KeyReference) -> None:
        self._instances, self._key = instances, key

    def setup(self) -> None:
        self._keys = self._key.keys()

    def process(self, chunk: int) -> Iterator[Planned]:
        giant = GIANT if self._instances >= 2 * GIANT else 0
        for number in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, self._instances)):
            yield _planned(number, 0 if number < giant else 1 + number // STUDY, self._keys)


def _planned(number: int, study: int, keys: Keys) -> Planned:
    scan = _scan(number, study)
    uri = f"gs://clinic-archive/dicom/{study % 1000:03}/{study:08}/{number:010}.dcm"
    return Planned(
        source_token(keys, uri, "1"), uri, scan.size, "1",
        study_token=study_token(scan, keys),
        sop_token=keys.token("sop", scan.sop_instance_uid.encode()),
        series_token=uid_token(keys, scan.series_instance_uid).hex(),
        scan=scan.encode(),
    )  # fmt: skip


def _scan(number: int, study: int) -> InstanceScan:
    above = f"{_ROOT}.{study:08}.1194734704"
    instance, neighbour = f"{above}.1.{number:010}", f"{above}.1.{number ^ 1:010}"
    uids = {"frame-of-reference": f"{above}.2", "series": f"{above}.1", "study": above}
    mentioned = [*uids.items(), ("instance", instance), ("instance", neighbour)]
    return InstanceScan(
        _CT, instance, above, uids["series"], uids["frame-of-reference"], f"P{study // 3:08}", "", "CT", _EXPLICIT,
        524_288, tuple(sorted(mentioned)), True,
    )  # fmt: skip
