"""What `make run` shows and prints, done as its reader would."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import demo


def test_what_the_demo_prints_last_can_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(demo.__file__).parents[1]))
    monkeypatch.setattr(sys, "argv", ["demo"])
    monkeypatch.chdir(tmp_path)
    assert demo.main() == 0
    asked = re.search(r'^  \.venv/bin/python -c "(.*)"$', capfd.readouterr().out, re.DOTALL | re.MULTILINE)
    assert asked
    done = subprocess.run([sys.executable, "-c", asked[1]], capture_output=True, text=True, check=False)
    assert "('PatientName', " in done.stdout, done.stderr
