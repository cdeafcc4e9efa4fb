"""Whether a Patient ID that is given to somebody belongs to somebody else already: what the two say of themselves."""

import json
from collections.abc import Iterator
from typing import Final

import apache_beam as beam

from dicomveil.request import Request
from dicomveil.scan import DESCRIBING, InstanceScan
from transforms.bundles import SeldomTwiceFn
from transforms.locations import Location
from transforms.notes import WriteListNote
from transforms.records import Planned
from transforms.secrets import KeyReference

THERE, COMING = "there", "coming"
Said = tuple[str, str, str]
"""(who, keyword, token of what is said): by those who have the Patient ID, or by those who get it."""
_MOST: Final = 10_000


class ComparePatients(beam.PTransform):
    """Note what those say who have the Patient ID that the request gives, and those who get it.

    Args:
      said: where it is noted, in the restricted zone.
    """

    def __init__(self, said: Location, key: KeyReference, request: Request) -> None:
        super().__init__()
        self._said, self._describer = said, _DescribeFn(key, request)

    def expand(self, marked: beam.PCollection[Planned]) -> beam.PCollection:
        return (
            marked
            | "Describe" >> beam.ParDo(self._describer).with_output_types(Said)
            | "By attribute" >> beam.MapTuple(_keyed)
            | "Each once" >> beam.Distinct()
            | "The first" >> beam.combiners.Top.SmallestPerKey(_MOST)
            | "As said" >> beam.FlatMapTuple(_unkeyed)
            | "Note" >> WriteListNote(self._said)
        )


def _keyed(who: str, keyword: str, token: str) -> tuple[tuple[str, str], str]:
    return (who, keyword), token


def _unkeyed(key: tuple[str, str], tokens: list[str]) -> Iterator[Said]:
    yield from ((*key, token) for token in tokens)


class _DescribeFn(SeldomTwiceFn):
    def __init__(self, key: KeyReference, request: Request) -> None:
        self._key, self._patient = key, request.given.get("patient", "")
        self._replaced = {it.path.attribute.tag: it.value.text or "" for it in request.replace if not it.path.steps}
        self._removed = [path.attribute for path in request.remove if not path.steps]

    def setup(self) -> None:
        self._keys = self._key.keys()

    def process(self, planned: Planned) -> Iterator[Said]:
        if not planned.scan:
            return
        scan = InstanceScan.decode(planned.scan)
        if not scan.composite or not (planned.selected or scan.patient_id == self._patient):
            return
        own = dict(scan.described)
        for tag, keyword in DESCRIBING.items():
            text = self._coming(tag, own.get(keyword, "")) if planned.selected else own.get(keyword, "")
            said = (COMING if planned.selected else THERE), keyword, self._keys.token("described", text.encode())
            if self.is_new(said):
                yield said

    def _coming(self, tag: int, own: str) -> str:
        """What an attribute will say of somebody who gets the Patient ID."""
        if tag in self._replaced:
            return self._replaced[tag].strip(" ^=\0")
        return "" if any(attribute.matches(tag) for attribute in self._removed) else own


def contradictions(said: Location) -> list[str]:
    """The keywords of what those who get a Patient ID say unlike those who have it; none where nobody has it."""
    told: dict[str, dict[str, set[str]]] = {THERE: {}, COMING: {}}
    for who, keyword, token in json.loads(said.read_bytes()):
        told[who].setdefault(keyword, set()).add(token)
    there, coming = told[THERE], told[COMING]
    return sorted(keyword for keyword in there if coming.get(keyword, set()) - there[keyword])
