"""Work on several elements of a bundle at once, since most of it is waiting for a store to answer."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

AT_ONCE: Final = 8
"""How many elements one worker has at work; each may hold what a large instance needs, some 24 MiB."""


class OverlappingFn(beam.DoFn):
    """A DoFn of one result an element, in their order; what waits for a store is done in threads.

    In batch alone: results at the end of a bundle are of the global window.
    """

    def work(self, element: Any) -> Any:
        """The result of one element; called in several threads."""
        raise NotImplementedError

    def waits(self, element: Any) -> bool:
        """Whether its work waits for a store: files are read faster one after the other."""
        raise NotImplementedError

    def worked(self, element: Any, result: Any, seconds: float) -> None:
        """Hear of a result and how long it took, in the worker's own thread."""

    def setup(self) -> None:
        self._pool = ThreadPoolExecutor(AT_ONCE)

    def teardown(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def start_bundle(self) -> None:
        self._pending: deque[tuple[Any, Future[Any]]] = deque()

    def process(self, element: Any) -> Iterator[Any]:
        if self.waits(element):
            self._pending.append((element, self._pool.submit(self._timed, element)))
            while len(self._pending) > AT_ONCE or (self._pending and self._pending[0][1].done()):
                yield self._oldest()
        else:
            result, seconds = self._timed(element)
            self.worked(element, result, seconds)
            yield result

    def finish_bundle(self) -> Iterator[WindowedValue]:
        while self._pending:
            yield WindowedValue(self._oldest(), GlobalWindow().max_timestamp(), [GlobalWindow()])

    def _oldest(self) -> Any:
        element, future = self._pending.popleft()
        result, seconds = future.result()
        self.worked(element, result, seconds)
        return result

    def _timed(self, element: Any) -> tuple[Any, float]:
        begun = time.monotonic()
        return self.work(element), time.monotonic() - begun
