"""What a run takes of its stores, told from its plan: requests and bytes, and what providers charge beside them.

Quantities alone: prices are the provider's, and change with region and contract.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

from transforms.object_stores import scheme_of
from transforms.ranged import LARGEST_WINDOW, WINDOW
from transforms.records import Planned

LOCAL: Final = "file"
PAGE: Final = 1000
"""How many objects an answer lists."""
_UNOPENED: Final = ("not-a-file", "not-restored", "empty-file")


class Charged(NamedTuple):
    """What a storage class charges for beside space and requests.

    Attributes:
      retrieval: whether each byte that is read is.
      days: how long an object counts as stored, also where it is deleted or replaced before.
    """

    retrieval: bool
    days: int


CLASSES: Final = {
    "gs": {
        "NEARLINE": Charged(True, 30),
        "COLDLINE": Charged(True, 90),
        "ARCHIVE": Charged(True, 365),
    },
    "s3": {
        "STANDARD_IA": Charged(True, 30),
        "ONEZONE_IA": Charged(True, 30),
        "GLACIER_IR": Charged(True, 90),
        "GLACIER": Charged(True, 90),
        "DEEP_ARCHIVE": Charged(True, 180),
    },
    "az": {
        "Cool": Charged(True, 30),
        "Cold": Charged(True, 90),
        "Archive": Charged(True, 180),
    },
}
"""By scheme, those that charge for more.

Source: cloud.google.com/storage/docs/storage-classes; docs.aws.amazon.com/AmazonS3/latest/userguide,
storage-class-intro; learn.microsoft.com/azure/storage/blobs/access-tiers-overview.
"""


class Met(NamedTuple):
    """What the plan met in one storage class of one scheme.

    Attributes:
      objects: that were listed; `bytes` of them.
      scans: requests that look at them; `scan_bytes` is what those read at the most.
      rewritten: objects that are read whole and written; `rewritten_bytes` of them.
      reads: requests for that.
      writes: requests that create what becomes of them.
    """

    objects: int = 0
    bytes: int = 0
    scans: int = 0
    scan_bytes: int = 0
    rewritten: int = 0
    rewritten_bytes: int = 0
    reads: int = 0
    writes: int = 0

    def plus(self, other: "Met") -> "Met":
        return Met(*(mine + more for mine, more in zip(self, other, strict=True)))


def meet(instances: Iterable[Planned], met: dict[str, Met], taken: bool = True) -> None:
    """Add what a plan says of some instances, by scheme and storage class ("gs NEARLINE").

    Args:
      taken: whether they are rewritten, too, where nothing speaks against it.
    """
    for planned in instances:
        kind = f"{scheme_of(planned.uri) or LOCAL} {planned.storage_class}"
        met[kind] = met.get(kind, Met()).plus(_of(planned, taken))


def _of(planned: Planned, taken: bool) -> Met:
    size, looks = planned.size, 1 if planned.size <= WINDOW else 2
    if planned.reason in _UNOPENED:
        return Met(1, size)
    looked = Met(1, size, looks, min(size, looks * WINDOW))
    if planned.reason or not taken:
        return looked
    windows = max(1, math.ceil(size / LARGEST_WINDOW))
    return looked.plus(Met(0, 0, 0, 0, 1, size, windows, windows if windows == 1 else windows + 2))


class Needed(NamedTuple):
    """What a run takes of one place; every count is about right, and none is a bill.

    Attributes:
      place: by its option.
      scheme: "file" for a folder, of which no requests are counted.
      read: bytes that come from it; `written` bytes that go to it.
    """

    place: str
    scheme: str
    lists: int = 0
    heads: int = 0
    reads: int = 0
    creates: int = 0
    read: int = 0
    written: int = 0


def needs(
    met: dict[str, Met], inputs: Iterable[str], passed: int, output: str, restricted: str, audit: str, records: int
) -> Iterator[Needed]:
    """What a run takes, place by place.

    Args:
      passed: how many objects are listed beside those that were met: unchanged ones.
      records: how many parts of tables and plan it writes, and reads once.
    """
    by_scheme = {scheme_of(root) or LOCAL: Met() for root in inputs}
    for kind, some in met.items():
        scheme = kind.split(" ")[0]
        by_scheme[scheme] = by_scheme.get(scheme, Met()).plus(some)
    for scheme, all_of_it in sorted(by_scheme.items()):
        yield Needed(
            "--input",
            scheme,
            lists=max(1, math.ceil((all_of_it.objects + passed) / PAGE)),
            reads=all_of_it.scans + all_of_it.reads,
            read=all_of_it.scan_bytes + all_of_it.rewritten_bytes,
        )
    total = Met()
    for some in met.values():
        total = total.plus(some)
    yield Needed(
        "--output",
        scheme_of(output) or LOCAL,
        heads=total.rewritten,
        creates=total.writes,
        written=total.rewritten_bytes,
    )
    for place, root in (("--restricted", restricted), ("--audit", audit)):
        if scheme := scheme_of(root):
            yield Needed(place, scheme, lists=1, reads=records, creates=records)


def notes(met: dict[str, Met], output: str) -> Iterator[str]:
    """What is charged beside requests, as sentences."""
    target = scheme_of(output) or LOCAL
    for kind, some in sorted(met.items()):
        scheme, _, storage_class = kind.partition(" ")
        charged = CLASSES.get(scheme, {}).get(storage_class)
        if charged and charged.retrieval and some.scans:
            read = some.scan_bytes + some.rewritten_bytes
            yield f"{scheme}:// {storage_class}: {read:,} bytes are retrieved, each of which is charged."
        elif scheme != LOCAL and not storage_class:
            yield f"{scheme}://: the store tells no storage class; retrieval from a cool one is charged by the byte."
    left: dict[str, int] = {}
    for kind, some in met.items():
        scheme = kind.split(" ")[0]
        left[scheme] = left.get(scheme, 0) + some.scan_bytes + some.rewritten_bytes
    for scheme, size in sorted(left.items()):
        if scheme != LOCAL and size:
            yield f"{scheme}://: {size:,} bytes {_leaving(scheme, target)}."
    if target != LOCAL:
        days = ", ".join(f"{name} {charged.days}" for name, charged in CLASSES[target].items())
        yield f"{target}://: an output that is replaced or retired early is charged for its class's days ({days})."


def _leaving(scheme: str, target: str) -> str:
    """What becomes of bytes that are read, and when that is charged as egress."""
    if target == scheme:
        return "are read: egress is charged where this machine or the output's bucket is in another region"
    if target == LOCAL:
        return "come to this machine: egress is charged where that is outside the bucket's region"
    return f"leave for {target}://, which is charged as egress"


def tell(console: Console, needed: Iterable[Needed], told: Iterable[str]) -> None:
    """Tell a person."""
    table = Table("It takes about", "list", "head", "read", "create", "bytes read", "bytes written", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for it in needed:
        requests = ["-"] * 4 if it.scheme == LOCAL else [f"{count:,}" for count in it[2:6]]
        place = it.place if it.scheme == LOCAL else f"{it.place} {it.scheme}://"
        table.add_row(place, *requests, f"{it.read:,}", f"{it.written:,}")
    console.print(table, highlight=False)
    for sentence in told:
        console.print(sentence, soft_wrap=True, highlight=False)
