"""What engines are told in numbers, against what the audit says."""

from collections import Counter
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.metrics.metric import MetricsFilter
from click.testing import CliRunner

from dicomveil.testing import write_demo_study
from pipelines.cli import cli
from tests.corpora import KEY
from tests.pipelines.test_anonymize import table
from transforms.metrics import COUNTERS, DISTRIBUTIONS, NAMESPACE

DOC = Path(__file__).parents[2] / "docs" / "flink.md"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_counters_agree_with_the_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str) -> None:
    """By outcome, reason and action; and of all that was written its bytes, each instance once."""
    write_demo_study(tmp_path / "in")
    (tmp_path / "in" / "letter.txt").write_text("a letter")
    (tmp_path / "in" / "cut.dcm").write_bytes(next((tmp_path / "in").rglob("CT*.dcm")).read_bytes()[:-3])
    results: list[Any] = []
    whole = beam.Pipeline.run
    monkeypatch.setattr(
        beam.Pipeline, "run", lambda pipeline, *more: (results.append(whole(pipeline, *more)), results[-1])[1]
    )
    words = ["anonymize", "--input", tmp_path / "in", "--output", tmp_path / "out", "--key", "env:METERED"]
    done = CliRunner().invoke(cli, [*map(str, words), "--workers", workers], env={"METERED": KEY.hex()})
    assert done.exit_code == 3, done.output
    counted: Counter[str] = Counter()
    amounts: dict[str, Any] = {}
    for result in results:
        told = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))
        counted.update({it.key.metric.name: it.committed for it in told["counters"]})
        amounts |= {it.key.metric.name: it.committed for it in told["distributions"]}
    rows = table(tmp_path / "out-audit", "instances")
    expected = Counter(f"outcome_{row['outcome']}" for row in rows)
    expected += Counter(f"reason_{row['reason']}" for row in rows if row["reason"])
    expected += Counter(f"action_{change['action']}" for row in rows for change in row["changes"])
    assert counted == expected + Counter(scanned=len(rows))
    written = [row["bytes"] for row in rows if row["name"]]
    told = amounts["bytes_written"]
    assert (told.sum, told.count, told.min, told.max) == (sum(written), len(written), min(written), max(written))
    assert amounts["rewrite_milliseconds"].count == amounts["bytes_read"].count == len(written)
    assert amounts["scan_milliseconds"].count == len(rows)
    stems = {name.split("_")[0] + "_*" if name.split("_")[0] + "_*" in COUNTERS else name for name in counted}
    assert stems == set(COUNTERS) and set(amounts) == set(DISTRIBUTIONS)


def test_every_metric_is_documented() -> None:
    for name, meaning in {**COUNTERS, **DISTRIBUTIONS}.items():
        assert f"| `{name}` | {meaning} |" in DOC.read_text()
