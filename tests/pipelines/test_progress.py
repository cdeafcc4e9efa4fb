"""What a person sees of a stage while it is at work."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.progress import Report
from transforms.progress import Progress


@pytest.mark.parametrize("terminal", [False, True], ids=["lines", "bar"])
@pytest.mark.parametrize("tasks", [None, (3, 9)], ids=["workers alone", "cluster"])
def test_a_stage_tells_how_far_it_is(
    tasks: tuple[int, int] | None, terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what workers have done of this stage, and by the tasks of a cluster that tells of them."""
    for name in ("_POLL", "_LINE_EVERY", "_TASKS_EVERY"):
        monkeypatch.setattr(f"pipelines.progress.{name}", 0.01)
    before, now = Progress(str(tmp_path)), Progress(str(tmp_path))
    before.count()
    told = io.StringIO()
    report = Report(Console(file=told, force_terminal=terminal, width=120), lambda: tasks)
    with report.stage("Planning", str(tmp_path), 5):
        now.count()
        now.flush()
        time.sleep(1)
    assert ("1/5" if terminal else ": 1 of 5") in told.getvalue()
    assert ("(3 of 9 tasks)" in told.getvalue()) == bool(tasks)
