"""What a run takes of its stores, told before it begins."""

import io

from rich.console import Console

from pipelines.costs import Met, meet, needs, notes, tell
from transforms.records import Planned

MIB = 1 << 20


def planned(uri: str, size: int, storage_class: str = "", reason: str = "") -> Planned:
    return Planned("00", uri, size, "1", reason=reason, storage_class=storage_class)


def met(*instances: Planned) -> dict[str, Met]:
    found: dict[str, Met] = {}
    meet(instances, found)
    return found


def told(instances: dict[str, Met], output: str, restricted: str = "/r", audit: str = "/a", records: int = 3) -> str:
    """As a person reads it, on one line a row."""
    console = Console(width=200, file=io.StringIO(), record=True)
    tell(console, needs(instances, [], 0, output, restricted, audit, records), notes(instances, output))
    return console.export_text()


def test_requests_and_bytes_are_counted_by_place() -> None:
    """A look at each object, a second one where it is large; every 8 MiB a request, in and out, and parts of uploads."""
    small, large = planned("gs://b/1", 60_000), planned("gs://b/2", 40 * MIB)
    aside = planned("gs://b/3", 10 * MIB, reason="duplicate")
    rows = {it.place: it[1:] for it in needs(met(small, large, aside), ["gs://b"], 0, "s3://o", "gs://r", "/a", 7)}
    looked = 60_000 + 4 * 65536
    assert rows == {
        "--input": ("gs", 1, 0, 1 + 2 + 2 + 1 + 5, 0, looked + 60_000 + 40 * MIB, 0),
        "--output": ("s3", 0, 2, 0, 1 + 7, 0, 60_000 + 40 * MIB),
        "--restricted": ("gs", 1, 0, 7, 7, 0, 0),
    }


def test_a_listing_comes_in_pages() -> None:
    """A thousand objects an answer, also of those that haven't changed."""
    found = met(*(planned(f"gs://b/{n}", 10) for n in range(2001)))
    assert next(needs(found, ["gs://b"], 0, "/o", "/r", "/a", 0)).lists == 3
    assert next(needs({}, ["gs://b"], 5_000_000, "/o", "/r", "/a", 0)).lists == 5000


def test_what_must_be_restored_is_never_read() -> None:
    """It costs its place in the list, and nothing more."""
    (found,) = met(planned("s3://b/1", MIB, "GLACIER", "not-restored")).values()
    assert found == Met(1, MIB)


def test_retrieval_early_deletion_and_egress_are_named() -> None:
    """By storage class and bytes, without prices."""
    found = met(planned("gs://b/1", 1000, "STANDARD"), planned("gs://b/2", 2000, "NEARLINE"))
    text = told(found, "s3://o")
    assert "gs:// NEARLINE: 4,000 bytes are retrieved, each of which is charged." in text
    assert "STANDARD:" not in text
    assert "gs://: 6,000 bytes leave for s3://, which is charged as egress." in text
    assert "s3://: an output that is replaced or retired early is charged for its class's days (STANDARD_IA 30" in text


def test_egress_depends_on_where_the_bytes_go() -> None:
    """Out of one provider always; inside it, or to this machine, by region."""
    found = met(planned("gs://b/1", 1000, "STANDARD"))
    assert "gs://: 2,000 bytes are read: egress is charged where this machine or the output's bucket" in told(
        found, "gs://o"
    )
    assert "gs://: 2,000 bytes come to this machine: egress is charged where that is outside" in told(found, "/o")


def test_a_store_that_tells_no_storage_class_says_so() -> None:
    """Nobody is told that nothing is charged where nobody knows."""
    assert "s3://: the store tells no storage class" in told(met(planned("s3://b/1", 1000)), "s3://o")


def test_folders_cost_no_requests() -> None:
    """Of folders, bytes alone are told."""
    text = told(met(planned("/in/1", 1000)), "/o")
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["--input", "-", "-", "-", "-", "2,000", "0"],
        ["--output", "-", "-", "-", "-", "0", "1,000"],
    ]
