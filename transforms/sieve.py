"""Which keys are worth a shuffle: a small set of bits that lets every key pass that was put in, and few others.

An archive's facts and a crosswalk may hold millions of rows, of which one run concerns few. They are sieved before they
are grouped, so that only what may find a partner crosses the shuffle.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Final

import apache_beam as beam

_BITS: Final = 1 << 24
_PROBES: Final = (0, 3, 6, 9)


def places(key: str) -> list[int]:
    """The bits that stand for a key: four times 24 of its digest, the same in every process."""
    digest = hashlib.blake2b(key.encode(), digest_size=12).digest()
    return [int.from_bytes(digest[at : at + 3], "big") for at in _PROBES]


class Sieve(beam.PTransform):
    """All keys of a collection as one value of 2 MiB, for `Sieved`."""

    def expand(self, keys: beam.PCollection[str]) -> beam.PCollection[bytes]:
        return keys | "Put in" >> beam.CombineGlobally(_SieveFn()).without_defaults()


class _SieveFn(beam.CombineFn):
    def create_accumulator(self) -> bytearray:
        return bytearray()

    def add_input(self, bits: bytearray, key: str) -> bytearray:
        bits = bits or bytearray(_BITS // 8)
        for place in places(key):
            bits[place >> 3] |= 1 << (place & 7)
        return bits

    def merge_accumulators(self, several: Iterable[bytearray]) -> bytearray:
        whole = 0
        for bits in several:
            whole |= int.from_bytes(bits, "little")
        return bytearray(whole.to_bytes(_BITS // 8, "little")) if whole else bytearray()

    def extract_output(self, bits: bytearray) -> bytes:
        return bytes(bits)


class Sieved(beam.PTransform):
    """Of (key, value) pairs those whose key may be one of the keys put in: every one that is, and few that aren't."""

    def __init__(self, sieve: beam.PCollection[bytes]) -> None:
        super().__init__()
        self._sieve = sieve

    def expand(self, pairs: beam.PCollection[tuple[str, Any]]) -> beam.PCollection[tuple[str, Any]]:
        return pairs | "Let pass" >> beam.Filter(_passes, as_side_input(self._sieve))


class ReadSieved(beam.PTransform):
    """What a DoFn makes of the parts of a table, with a sieve beside: it is given each file, and which parts are in it.

    Args:
      listed: gives (path, part) of all that there are, wherever it is called.
      reader: of such, and the sieve.
      pair: what it makes.
    """

    def __init__(
        self,
        listed: Callable[[], Iterable[tuple[str, Any]]],
        reader: beam.DoFn,
        sieve: beam.PCollection[bytes],
        pair: Any = tuple[str, Any],
    ) -> None:
        super().__init__()
        self._listed, self._reader, self._sieve, self._pair = listed, reader, sieve, pair

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[Any]:
        # Readings that shared the list would be fused into one stage, which waits for sieves made of what it reads.
        return (
            pipeline
            | "Start" >> beam.Impulse()
            | "Parts" >> beam.FlatMap(_called, self._listed).with_output_types(tuple[str, Any])
            | "Spread" >> beam.GroupByKey()
            | "Read" >> beam.ParDo(self._reader, as_side_input(self._sieve)).with_output_types(self._pair)
        )


def _called(impulse: bytes, listed: Callable[[], Iterable[tuple[str, Any]]]) -> Iterable[tuple[str, Any]]:
    return listed()


def as_side_input(sieve: beam.PCollection[bytes]) -> beam.pvalue.AsSingleton:
    """The sieve for `passes`; b"" where no key was put in."""
    return beam.pvalue.AsSingleton(sieve, default_value=b"")


def passes(key: str, sieve: bytes) -> bool:
    """Whether a key may be one of those put in."""
    return bool(sieve) and all(sieve[place >> 3] >> (place & 7) & 1 for place in places(key))


def _passes(pair: tuple[str, Any], sieve: bytes) -> bool:
    return passes(pair[0], sieve)
