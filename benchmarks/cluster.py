"""The main job and modify on this machine and on a cluster: the same bytes, and how many instances a second.

    python -m benchmarks.cluster --instances 20000 [--json FILE] --runner=FlinkRunner ... (all but --parallelism)

Both share the machine, so what counts is the ratio: what the cluster adds.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import report
from benchmarks.object_storage import STUDY, instance

_MODIFY: Final = "Replace: {StudyDescription: corrected}\nForce: true\nLevel: Study\n"


def measure(instances: int, words: list[str]) -> list[dict[str, Any]]:
    """De-identify and modify so many instances, by one worker and by two, here and on a cluster, by both ways of maps.

    Args:
      words: of the cluster.

    Raises:
      AssertionError: a command failed, or other bytes came out.
    """
    measured, outputs = [], dict[str, str]()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        _fill(here / "in", instances)
        (here / "modify.yaml").write_text(_MODIFY)
        _carry_out("keygen", "--output", str(here / "key"))
        for number, (command, where, workers, way, more) in enumerate(_ways(here, words)):
            output = here / f"out{number}"
            places = ["--input", str(here / "in"), "--output", str(output), "--key", f"file:{here / 'key'}"]
            begun = time.monotonic()
            _carry_out(command, *places, "--maps", way, *more)
            seconds = time.monotonic() - begun
            digest = _digest(output)
            assert outputs.setdefault(command, digest) == digest, f"{command} {where} wrote other bytes"
            told = {"command": command, "where": where, "workers": workers, "maps": way, "seconds": round(seconds, 1)}
            measured.append(told | {"instances": instances, "instances_a_second": round(instances / seconds, 1)})
            print(measured[-1], file=sys.stderr)
    return measured


def _ways(folder: Path, words: list[str]) -> Iterator[tuple[str, str, int, str, list[str]]]:
    """(command, where, workers, way of the maps, its other options)."""
    asked = ["--request", str(folder / "modify.yaml")]
    for workers in (1, 2):
        on_cluster = [*words, f"--parallelism={workers}"]
        yield "anonymize", "here", workers, "side-input", ["--workers", str(workers)]
        for way in ("side-input", "join"):
            yield "anonymize", "cluster", workers, way, on_cluster
    yield "modify", "here", 2, "side-input", [*asked, "--workers", "2"]
    yield "modify", "cluster", 2, "side-input", [*asked, *on_cluster]


def _fill(folder: Path, instances: int) -> None:
    for number in range(instances):
        study, of = divmod(number, STUDY)
        target = folder / f"{study:05}" / f"{of:03}.dcm"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(instance(f"1.2.826.0.1.3680043.8.498.{study + 1}", of + 1, f"P{study % 1000:05}"))


def _carry_out(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pipelines", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _digest(folder: Path) -> str:
    """Of all files below, and of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.dcm")):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def table(measured: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of a table in Markdown: docs/scale.md has it."""
    yield "| command | where | workers | maps | s | instances a second |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for it in measured:
        cells = (it[name] for name in ("command", "where", "workers", "maps", "seconds", "instances_a_second"))
        yield "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Measure, and tell of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=20_000)
    parser.add_argument("--json", type=Path, help="a file for what was measured")
    asked, words = parser.parse_known_args()
    report(measure(asked.instances, words), asked.json)


if __name__ == "__main__":
    main()
