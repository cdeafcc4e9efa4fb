"""What is measured at full size on paper and on clusters runs here at a fraction of it."""

import pytest

from benchmarks.scale.__main__ import measure
from transforms.maps import JOIN, SIDE_INPUT


@pytest.mark.long
@pytest.mark.parametrize("way", [JOIN, SIDE_INPUT])
def test_every_instance_of_an_archive_meets_the_map_of_its_study(way: str) -> None:
    """Through the plan and its slices, here in memory that is a few processes' own."""
    measured = measure(10_000, way, 2, [])
    assert measured["studies"] == 100 and measured["slices"] == 3
    assert sum(it["instances"] for it in measured["slices_measured"]) == 10_000
    assert 0 < measured["plan"]["peak_mib_of_a_worker"] < 600
