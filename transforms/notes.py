"""What a pipeline leaves for the command to read: one value in a file of the run, written whole."""

import json
from collections.abc import Callable
from typing import Any

import apache_beam as beam

from transforms import stores
from transforms.locations import Location, locate


class WriteNote(beam.PTransform):
    """Write the one element of a collection; no element, no file.

    Args:
      target: in the restricted zone.
      as_text: how the element is written.
    """

    def __init__(self, target: Location, as_text: Callable[[Any], str]) -> None:
        super().__init__()
        self._writer = _NoteFn(str(target), as_text)

    def expand(self, value: beam.PCollection) -> beam.PCollection:
        return value | "Note" >> beam.ParDo(self._writer)


class WriteListNote(beam.PTransform):
    """Write all elements of a small collection as one sorted JSON list, which may be empty.

    Args:
      target: in the restricted zone.
    """

    def __init__(self, target: Location) -> None:
        super().__init__()
        self._target = target

    def expand(self, values: beam.PCollection) -> beam.PCollection:
        return values | "To one" >> beam.combiners.ToList() | "List" >> WriteNote(self._target, _sorted_json)


def _sorted_json(values: list[Any]) -> str:
    return json.dumps(sorted(values))


class _NoteFn(beam.DoFn):
    def __init__(self, target: str, as_text: Callable[[Any], str]) -> None:
        self._target, self._as_text = target, as_text

    def process(self, value: Any) -> None:
        stores.create_restricted(locate(self._target), self._as_text(value).encode())
