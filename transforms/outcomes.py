"""Every object listed has exactly one outcome: what is counted, and the record a slice leaves of it."""

from collections.abc import Iterable
from typing import Final

import apache_beam as beam

from transforms.locations import locate
from transforms.notes import WriteListNote
from transforms.records import Outcome, Planned, SourceObject

TOKENS: Final = 1 << 128
"""Sums of tokens are taken modulo this."""

Part = tuple[str, str, int]
"""(zone, path below its root, rows) of a part of a table; or ("settled", outcome and reason, how many), or
("tokens", sum of their tokens, how many outcomes)."""


class TokenSum(beam.CombineFn):
    """(count, sum of tokens modulo `TOKENS`) of records that have a token."""

    def create_accumulator(self) -> tuple[int, int]:
        return 0, 0

    def add_input(self, total: tuple[int, int], record: SourceObject | Planned | Outcome) -> tuple[int, int]:
        return total[0] + 1, (total[1] + int(record.token, 16)) % TOKENS

    def merge_accumulators(self, totals: Iterable[tuple[int, int]]) -> tuple[int, int]:
        counts, sums = zip(*totals, strict=True)
        return sum(counts), sum(sums) % TOKENS

    def extract_output(self, total: tuple[int, int]) -> tuple[int, str]:
        return total[0], f"{total[1]:032x}"


class WriteSliceRecord(beam.PTransform):
    """Note a slice's parts and outcomes, atomically and last: where the note is, the slice is done."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self._target = target

    def expand(self, parts: beam.PCollection[Part]) -> beam.PCollection:
        return parts | "Note" >> WriteListNote(locate(self._target))
