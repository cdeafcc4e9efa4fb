"""What the campaign measures at full size runs here at a fraction of it."""

import pytest

from benchmarks.object_storage import measure


@pytest.mark.long
def test_an_archive_in_a_store_comes_out_whole() -> None:
    """Every instance of many studies is listed, scanned and rewritten, and the same again finds nothing new."""
    measured = measure(2_000, workers=2)
    assert measured["objects"] == 2_000 and set(measured["peak_mib"]) == {"start", "plan", "execute"}
