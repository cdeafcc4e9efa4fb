"""Beam's local runner, with what lies between two stages on disk instead of in memory.

As it comes, it holds all of that, several times over, and hands each worker its whole share as one bundle, so that a
machine's memory bounds the archive. Here each stage is worked off in bundles of bounded size, and what exceeds one is
kept in a file without a name, which goes with the process whatever becomes of that.
"""

import hashlib
import itertools
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from functools import reduce
from pathlib import Path
from typing import Any, Final

from apache_beam.coders.coder_impl import create_InputStream
from apache_beam.metrics import monitoring_infos
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.fn_api_runner.execution import GroupingBuffer, ListBuffer
from apache_beam.utils import thread_pool_executor

from transforms import store_failures

BUNDLE: Final = 1 << 19
"""Bytes that a worker is given at once, and of a collection that stay in memory: decoded they take ten times that."""
_GROUPS: Final = 1 << 8
_WAITING: Final = 1 << 14
_Piece = tuple[int, int]


class SpillingRunner(fn_runner.FnApiRunner):
    """The local runner.

    Args:
      folder: in the restricted zone or of this user alone, for what lies between stages.
      bundle: `BUNDLE`, or another size.
    """

    def __init__(self, folder: Path, bundle: int = BUNDLE, **more: Any) -> None:
        super().__init__(**more)
        self._folder, self._bundle = folder, bundle

    def _get_bundle_manager(self, bundle_context_manager: Any) -> "_Stage":
        tokens = self.get_cache_token_generator(static=False)
        return _Stage(self._folder, self._bundle, bundle_context_manager, self._progress_frequency, tokens)


class _Stage(fn_runner.BundleManager):
    """Works one stage off, bundle by bundle, each worker with one at a time."""

    def __init__(self, folder: Path, bundle: int, *beams: Any) -> None:
        super().__init__(*beams)
        self._folder, self._bundle = folder, bundle

    def process_bundle(
        self,
        inputs: Mapping[str, Any],
        expected_outputs: Mapping[str, bytes],
        fired_timers: Mapping[Any, Any],
        expected_output_timers: Mapping[Any, Any],
        dry_run: bool = False,
    ) -> tuple[beam_fn_api_pb2.InstructionResponse, list[Any]]:
        context = self.bundle_context_manager
        self._spill(expected_outputs)
        handlers = context.worker_handlers
        bundles = deque(self._bundles(inputs, fired_timers, len(handlers)))

        def work(handler: Any) -> list[tuple[Any, list[Any]]]:
            own, results = copy(context), []
            own._worker_handlers = [handler]
            while (given := _next(bundles)) is not None:
                manager = fn_runner.BundleManager(own, self._progress_frequency, self._cache_token_generator)
                read, timers = given
                try:
                    results.append(
                        manager.process_bundle(read, expected_outputs, timers, expected_output_timers, dry_run)
                    )
                except BaseException:
                    bundles.clear()  # the stage has failed, so the others needn't go on
                    raise
            return results

        with thread_pool_executor.shared_unbounded_instance() as executor:
            each = executor.map(work, handlers) if len(handlers) > 1 else map(work, handlers)
            results = list(itertools.chain.from_iterable(each))
        splits = [split for _, more in results for split in more]
        return reduce(_merged, (result for result, _ in results)), splits

    def _spill(self, expected_outputs: Mapping[str, bytes]) -> None:
        """Lay out buffers for what comes of the stage, in place of those that Beam would."""
        context = self.bundle_context_manager
        buffers = context.execution_context.pcoll_buffers
        for transform, of in expected_outputs.items():
            made = context.get_buffer(of, transform)
            if type(made) is ListBuffer:
                buffers[of] = _List(made, self._folder, self._bundle)
            elif type(made) is GroupingBuffer:
                buffers[of] = _Groups(made, self._folder, self._bundle)

    def _bundles(
        self, inputs: Mapping[str, Any], timers: Mapping[Any, Any], workers: int
    ) -> Iterator[tuple[dict[str, Iterable[bytes]], Mapping[Any, Any]]]:
        """What each bundle reads, by transform, and its timers: as many as there are workers, or more."""
        if self.bundle_context_manager.stage.is_stateful():
            yield {name: list(buffer) for name, buffer in inputs.items()}, timers  # the runner keeps state by worker
            return
        shares = {name: buffer.partition(max(workers, self._share(buffer))) for name, buffer in inputs.items()}
        for at in range(max(map(len, shares.values()), default=workers)):
            read = {name: share[at] if at < len(share) else [] for name, share in shares.items()}
            yield read, {} if at else timers

    def _share(self, buffer: Any) -> int:
        """How many bundles it takes, as far as it can be divided."""
        return min(buffer.most, -(-buffer.size // self._bundle)) if isinstance(buffer, _List | _Groups) else 0


def _next(bundles: deque[Any]) -> Any:
    """The next one that no worker has yet; None where there is none."""
    with suppress(IndexError):
        return bundles.popleft()
    return None


def _merged(one: Any, other: Any) -> Any:
    """What two bundles of a stage tell, as one."""
    infos = monitoring_infos.consolidate(
        itertools.chain(one.process_bundle.monitoring_infos, other.process_bundle.monitoring_infos)
    )
    return beam_fn_api_pb2.InstructionResponse(
        process_bundle=beam_fn_api_pb2.ProcessBundleResponse(monitoring_infos=infos), error=one.error or other.error
    )


class _File:
    """A file without a name, which is only ever added to."""

    def __init__(self, folder: Path) -> None:
        with store_failures.writing():
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # it lives as long as this
        self._end = 0

    def add(self, data: bytes | bytearray) -> _Piece:
        """Where it is from now on.

        Raises:
          StoreFailed: it can't be written, StoreFull for want of space.
        """
        begin, rest = self._end, memoryview(data)
        with store_failures.writing():
            while rest:
                written = os.pwrite(self._file.fileno(), rest, self._end)
                rest, self._end = rest[written:], self._end + written
        return begin, len(data)

    def read(self, piece: _Piece) -> bytes:
        return os.pread(self._file.fileno(), piece[1], piece[0])


class _Pieces:
    """A list of bytes, in memory as long as they are few."""

    def __init__(self, folder: Path, kept: int) -> None:
        self._folder, self._kept = folder, kept
        self._pieces: list[bytes | _Piece] = []
        self._file: _File | None = None
        self.size = 0

    def append(self, data: bytes) -> None:
        self.size += len(data)
        if self._file is None and self.size > self._kept:
            self._file = _File(self._folder)
            self._pieces = [self._file.add(piece) for piece in self]
        self._pieces.append(self._file.add(data) if self._file else data)

    def extend(self, more: Iterable[bytes]) -> None:
        for data in more:
            self.append(data)

    def __len__(self) -> int:
        return len(self._pieces)

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            yield piece if isinstance(piece, bytes) else self._file.read(piece)  # type: ignore[union-attr]  # is there

    def __getitem__(self, which: slice) -> "_Pieces":
        some = copy(self)
        some._pieces = self._pieces[which]
        return some


class _List(ListBuffer):
    """What a stage put out, as it was put out."""

    def __init__(self, made: ListBuffer, folder: Path, kept: int) -> None:
        super().__init__(made._coder_impl)
        self._inputs = _Pieces(folder, kept)
        self._inputs.extend(made._inputs)

    @property
    def size(self) -> int:
        """In bytes."""
        return self._inputs.size if isinstance(self._inputs, _Pieces) else 0

    @property
    def most(self) -> int:
        """How many shares can be made of it without taking it apart."""
        return len(self._inputs)

    def copy(self) -> "_List":
        new = copy(self)
        new._inputs = self._inputs[:]
        return new


class _Groups:
    """What a stage put out, to be grouped by key: a share is grouped when it is asked for.

    Args:
      made: an empty one that does so in memory.
    """

    cleared = False
    most = _GROUPS

    def __init__(self, made: GroupingBuffer, folder: Path, kept: int) -> None:
        self._how = made._pre_grouped_coder, made._post_grouped_coder, made._windowing
        self._folder, self._kept = folder, kept
        self._whole: list[bytes] = []
        self._file: _File | None = None
        self._waiting = [bytearray() for _ in range(_GROUPS)]
        self._pieces: list[list[_Piece]] = [[] for _ in range(_GROUPS)]
        self._shares: list[list[bytes]] | None = None
        self.size = 0

    def append(self, data: bytes) -> None:
        assert self._shares is None
        self.size += len(data)
        self._whole.append(data)
        if self._file is None and self.size > self._kept:
            self._file = _File(self._folder)
        if self._file is not None:
            for whole in self._whole:
                self._divide(whole)
            self._whole = []

    def _divide(self, data: bytes) -> None:
        """Put each element where all of its key are."""
        coder, keys = self._how[0].get_impl(), self._how[0].key_coder().get_impl()
        stream, end = create_InputStream(data), len(data)
        begin = 0
        while stream.size() > 0:
            key, _ = coder.decode_from_stream(stream, True).value
            here = end - stream.size()
            self._put(_group(keys.encode(key)), data[begin:here])
            begin = here

    def _put(self, group: int, data: bytes) -> None:
        waiting = self._waiting[group]
        waiting += data
        if len(waiting) > _WAITING:
            self._pieces[group].append(self._file.add(waiting))  # type: ignore[union-attr]  # is there
            waiting.clear()

    def extend(self, other: Any) -> None:
        """Add what another stage put out for the same."""
        if isinstance(other, ListBuffer):
            return  # of a stage that put out nothing
        for data in other._whole:
            self.append(data)
        for group in range(_GROUPS):
            for data in other._raw(group):
                if self._file is None:
                    self.append(data)
                else:
                    self.size += len(data)
                    self._put(group, data)

    def _raw(self, group: int) -> Iterator[bytes]:
        for piece in self._pieces[group]:
            yield self._file.read(piece)  # type: ignore[union-attr]  # is there
        if self._waiting[group]:
            yield bytes(self._waiting[group])

    def partition(self, shares: int) -> list[Any]:
        """So many shares, which hold each key once; what of it is on disk is read when a share is."""
        if self._file is not None:
            return [_Share(self, range(at, _GROUPS, shares)) for at in range(shares)]
        if self._shares is None:
            self._shares = self._grouped(self._whole).partition(shares)
            self._whole = []
        return self._shares

    def _grouped(self, several: Iterable[bytes]) -> GroupingBuffer:
        grouped = GroupingBuffer(*self._how)
        for data in several:
            grouped.append(data)
        return grouped

    def share(self, groups: range) -> Iterator[bytes]:
        """Some of the groups, encoded."""
        for group in groups:
            yield from itertools.chain.from_iterable(self._grouped(self._raw(group)).partition(1))

    def __iter__(self) -> Iterator[bytes]:
        return itertools.chain.from_iterable(self.partition(1))

    def copy(self) -> "_Groups":
        return self

    def clear(self) -> None:
        """Nothing: as Beam's own."""

    reset = clear


def _group(key: bytes) -> int:
    """Where an encoded key's elements go together: a byte of its digest."""
    return hashlib.blake2b(key, digest_size=1).digest()[0]


class _Share:
    """Some of the groups, to be read whenever they are sent."""

    def __init__(self, of: _Groups, groups: range) -> None:
        self._of, self._groups = of, groups

    def __iter__(self) -> Iterator[bytes]:
        return self._of.share(self._groups)
