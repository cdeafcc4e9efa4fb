"""Rows put in the order of their tokens, however many there are: sorted in runs on disk, then merged bucket by bucket.

What a token stands for, and what rows with one token mean, is the caller's business.
"""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms import stores

TOKEN: Final = pa.binary(16)
_BUCKETS: Final = 256
_COMPRESSED: Final = pa.ipc.IpcWriteOptions(compression="zstd")

Halves = npt.NDArray[np.uint64]


def token_halves(tokens: pa.Array) -> Halves:
    """Tokens as pairs of numbers in their order, one row each."""
    data = np.frombuffer(tokens.buffers()[1], ">u8", 2 * len(tokens), 16 * tokens.offset)
    return data.reshape(-1, 2).astype(np.uint64)


class TokenSort:
    """An external sort by the column `token`, 16 evenly spread bytes; rows with equal tokens stay as they came.

    Memory is bounded by `held` rows while they come, and by a 256th of all of them while they are read.

    Args:
      folder: of its own, for the runs; made when more rows come than are held, in files that only their owner may read.
      schema: of the rows, `token` among them.
      held: how many rows are kept in memory before they are written.
    """

    def __init__(self, folder: Path, schema: pa.Schema, held: int) -> None:
        self._folder, self._schema, self._held = folder, schema, held
        self._pending: list[pa.Table] = []
        self._rows = 0
        self._runs: list[Path] = []

    def add(self, rows: pa.Table) -> None:
        """Take rows in."""
        self._pending.append(rows)
        self._rows += len(rows)
        if self._rows >= self._held:
            self._spill()

    @property
    def empty(self) -> bool:
        """Whether no row has come."""
        return not (self._rows or self._runs)

    def sorted(self) -> Iterator[pa.Table]:
        """All rows, in tables of whole groups: rows with one token are never parted; then what was written is gone."""
        if not self._runs:
            if self._rows:
                yield self._taken()
            return
        self._spill()
        with ExitStack() as opened:
            files = [opened.enter_context(pa.OSFile(str(run))) for run in self._runs]
            runs = [opened.enter_context(pa.ipc.open_file(file)) for file in files]
            for bucket in range(_BUCKETS):
                batches = [run.get_batch(bucket) for run in runs]
                rows = pa.Table.from_batches(batches, self._schema).combine_chunks()
                if len(rows):
                    yield rows.take(pa.array(_order(_tokens(rows))))
        shutil.rmtree(self._folder)

    def _taken(self) -> pa.Table:
        rows = pa.concat_tables(self._pending).combine_chunks()
        self._pending, self._rows = [], 0
        return rows.take(pa.array(_order(_tokens(rows))))

    def _spill(self) -> None:
        """Write what is held as one run: a record batch a bucket, so that each can be read by itself."""
        if not self._rows:
            return
        rows = self._taken().combine_chunks()
        # The first byte of a token is its bucket.
        first = (_tokens(rows)[:, 0] >> np.uint64(56)).astype(np.int64)
        ends = np.searchsorted(first, np.arange(_BUCKETS), side="right")
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, self._schema, options=_COMPRESSED) as writer:
            begin = 0
            for end in ends.tolist():
                writer.write_batch(_one_batch(rows.slice(begin, end - begin), self._schema))
                begin = end
        path = self._folder / f"{len(self._runs):05}.arrow"
        stores.create_restricted(path, sink.getvalue())
        self._runs.append(path)


def _tokens(rows: pa.Table) -> Halves:
    column = rows.column("token")
    return token_halves(column.chunk(0) if column.num_chunks == 1 else column.combine_chunks())


def _order(tokens: Halves) -> npt.NDArray[np.intp]:
    """The stable order of tokens."""
    return np.lexsort((tokens[:, 1], tokens[:, 0]))


def _one_batch(rows: pa.Table, schema: pa.Schema) -> pa.RecordBatch:
    batches = rows.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=schema)
