"""From planned instances to the maps of their studies."""

from collections.abc import Iterable, Iterator

import apache_beam as beam

from dicomveil.request import Request
from dicomveil.scan import InstanceScan
from dicomveil.study import Identities, StudyMap, build_study_map
from transforms.records import Planned
from transforms.secrets import KeyReference


class BuildStudyMaps(beam.PTransform):
    """Group by study, and settle what its instances share: (study token, encoded StudyMap).

    What a quarantined instance says still counts: its study knows of it. A study whose map can't be built for a reason
    that nobody foresaw is set aside whole.
    """

    def __init__(self, key: KeyReference, request: Request) -> None:
        super().__init__()
        self._key, self._request = key, request

    def expand(self, planned: beam.PCollection[Planned]) -> beam.PCollection[tuple[str, bytes]]:
        return (
            planned
            | "Scanned ones" >> beam.Filter(_has_study)
            | "Key by study" >> beam.WithKeys(_study_token).with_output_types(tuple[str, Planned])
            | "Group by study" >> beam.GroupByKey()
            | "Build" >> beam.ParDo(_BuildFn(self._key, self._request)).with_output_types(tuple[str, bytes])
        )


def _has_study(planned: Planned) -> bool:
    return bool(planned.scan)


def _study_token(planned: Planned) -> str:
    return planned.study_token


class _BuildFn(beam.DoFn):
    def __init__(self, key: KeyReference, request: Request) -> None:
        self._key, self._request = key, request

    def setup(self) -> None:
        self._identities = Identities(self._key.keys(), self._request)

    def process(self, study: tuple[str, Iterable[Planned]]) -> Iterator[tuple[str, bytes]]:
        token, instances = study
        try:
            yield token, build_study_map((InstanceScan.decode(it.scan) for it in instances), self._identities).encode()
        except Exception:
            yield token, StudyMap(token, conflict="internal").encode()
