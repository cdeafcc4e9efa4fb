"""Patient IDs that were seen under several issuers: of two hospitals' patients with one number, one may be another."""

from collections.abc import Iterable, Iterator

import apache_beam as beam

from dicomveil.pseudonyms import known_patient_id
from dicomveil.scan import InstanceScan
from transforms.bundles import SeldomTwiceFn
from transforms.locations import locate
from transforms.notes import WriteNote
from transforms.records import Planned
from transforms.secrets import KeyReference


class CountIssuers(beam.PTransform):
    """Note how many Patient IDs the run's instances name under several issuers, if any; instances that name none don't
    count.

    Args:
      folder: of the run, in the restricted zone.
    """

    def __init__(self, folder: str, key: KeyReference) -> None:
        super().__init__()
        self._folder, self._key = folder, key

    def expand(self, planned: beam.PCollection[Planned]) -> beam.PCollection:
        return (
            planned
            | "Issuers" >> beam.ParDo(_IssuerFn(self._key)).with_output_types(tuple[bytes, bytes])
            | "By patient" >> beam.GroupByKey()
            | "Several" >> beam.Filter(_several)
            | "Count" >> beam.CombineGlobally(beam.combiners.CountCombineFn()).without_defaults()
            | "Note" >> WriteNote(locate(self._folder) / "issuers", str)
        )


def _several(patient: tuple[bytes, Iterable[bytes]]) -> bool:
    return len(set(patient[1])) > 1


class _IssuerFn(SeldomTwiceFn):
    """Digests of a Patient ID and its issuer."""

    def __init__(self, key: KeyReference) -> None:
        self._key = key

    def setup(self) -> None:
        self._keys = self._key.keys()

    def process(self, planned: Planned) -> Iterator[tuple[bytes, bytes]]:
        scan = InstanceScan.decode(planned.scan) if planned.scan else None
        if not (scan and scan.issuer and (patient := known_patient_id(scan.patient_id))):
            return
        if self.is_new((patient, scan.issuer)):
            yield (
                self._keys.derive("issued", patient.encode())[:8],
                self._keys.derive("issuer", scan.issuer.encode())[:8],
            )
