"""The instances of each study together, as far as they could be scanned.

What is together must fit a worker, and what the engine holds on the way there.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import apache_beam as beam

from transforms.records import Planned

LARGEST: Final = 512 << 20
"""Bytes of all encoded scans of one study."""


class GroupByStudy(beam.PTransform):
    """(study token, all its instances); what couldn't be scanned is of no study."""

    def expand(self, planned: beam.PCollection[Planned]) -> beam.PCollection:
        return (
            planned
            | "Scanned ones" >> beam.Filter(_has_study)
            | "Key by study" >> beam.WithKeys(_study_token).with_output_types(tuple[str, Planned])
            | "Group by study" >> beam.GroupByKey()
        )


def _has_study(planned: Planned) -> bool:
    return bool(planned.scan)


def _study_token(planned: Planned) -> str:
    return planned.study_token


class SetLargeStudiesAside(beam.PTransform):
    """Let no study pass of which more is known than `LARGEST` (`study-too-large`); what is known of it goes.

    Args:
      scanned: what is measured: all instances, as the scan leaves them.
    """

    def __init__(self, scanned: beam.PCollection[Planned]) -> None:
        super().__init__()
        self._scanned = scanned

    def expand(self, planned: beam.PCollection[Planned]) -> beam.PCollection[Planned]:
        large = (
            self._scanned
            | "Measure" >> beam.FlatMap(_size).with_output_types(tuple[str, int])
            | "Add up" >> beam.CombinePerKey(sum)
            | "Too large" >> beam.Filter(_is_too_large, LARGEST)
        )
        return planned | "Set aside" >> beam.Map(_fitting, beam.pvalue.AsDict(large)).with_output_types(Planned)


def _size(planned: Planned) -> Iterator[tuple[str, int]]:
    if planned.scan:
        yield planned.study_token, len(planned.scan)


def _is_too_large(study: tuple[str, int], largest: int) -> bool:
    return study[1] > largest


def _fitting(planned: Planned, large: dict[str, int]) -> Planned:
    if planned.study_token not in large:
        return planned
    return replace(planned, scan=b"", reason=planned.reason or "study-too-large")
