"""What is said within one bundle of elements, of which many say the same."""

from collections.abc import Hashable

import apache_beam as beam


class SeldomTwiceFn(beam.DoFn):
    """A DoFn that need not say a thing again in one bundle: in the next one it may, so what comes in is grouped."""

    def start_bundle(self) -> None:
        self._said: set[Hashable] = set()

    def is_new(self, thing: Hashable) -> bool:
        """Whether this bundle hasn't said it yet."""
        if thing in self._said:
            return False
        self._said.add(thing)
        return True
