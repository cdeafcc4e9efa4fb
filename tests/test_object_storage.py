"""What the campaign measures at full size runs here at a fraction of it."""

import pytest

from benchmarks.object_storage import measure

MOST = 1_200
"""MiB of three processes: some 800 are seen, and twice as much where a plan is held in memory."""


@pytest.mark.long
def test_an_archive_in_a_store_comes_out_whole() -> None:
    """Every instance of many studies is listed, scanned and rewritten, in memory that doesn't grow with them."""
    measured = measure(20_000, workers=2)
    assert measured["objects"] == 20_000
    assert max(measured["peak_mib"].values()) < MOST
