"""What is measured at full size on paper and on clusters runs here at a fraction of it."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import cluster, object_storage
from benchmarks.scale.__main__ import measure
from benchmarks.scale.fit import fitted, tables
from transforms.maps import JOIN, SIDE_INPUT

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "scale.md").read_text("utf-8")
FIGURES = re.findall("<!-- (docs/figures/.*) -->", TEXT)
LINES = {"object_storage": object_storage.table, "cluster": cluster.table, "scale_local": tables, "scale_flink": tables}


@pytest.mark.long
@pytest.mark.parametrize("way", [JOIN, SIDE_INPUT])
def test_every_instance_of_an_archive_meets_the_map_of_its_study(way: str) -> None:
    """Through the plan and its slices, here in memory that is a few processes' own."""
    measured = measure(10_000, way, 2, [])
    assert measured["studies"] == 100 and measured["slices"] == 3
    assert sum(it["instances"] for it in measured["slices_measured"]) == 10_000
    assert 0 < measured["plan"]["peak_mib_of_a_worker"] < 600


@pytest.mark.parametrize("figures", FIGURES)
def test_the_document_holds_the_figures(figures: str) -> None:
    """Between its marks what follows from the file of raw figures beside it."""
    held = TEXT.split(f"<!-- {figures} -->\n")[1].split("\n<!-- end -->")[0]
    measured = json.loads((ROOT / figures).read_bytes())["measured"]
    assert held.splitlines() == list(LINES[Path(figures).stem](measured))


def test_a_line_goes_through_what_lies_on_one() -> None:
    """And never says that nothing takes less than no time."""
    measured = [{"instances": million * 1_000_000, "took": 3 + 2 * million} for million in (1, 2, 5)]
    line = fitted(measured, lambda it: it["took"])
    assert line == pytest.approx((3, 2)) and line.at(100_000_000) == pytest.approx(203)
    assert fitted([{"instances": n, "took": n - 1} for n in (10, 20)], lambda it: it["took"]).base == 0
    with pytest.raises(ValueError, match="two sizes"):
        fitted(measured[:1], lambda it: it["took"])
