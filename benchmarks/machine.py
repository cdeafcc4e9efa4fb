"""What was measured, and on what: the JSON that each benchmark ends with."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import psutil

_FOLDERS: Final = re.compile(r"(?<![\w.:/])/[^\s\"']*/")
"""Where things are on this machine is nobody's business."""


def report(measured: list[dict[str, Any]], file: Path | None = None) -> None:
    """Print what was measured with commit, command and machine; and write it to a file, where one is named."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    machine = {
        "cpus": os.cpu_count(),
        "memory_gib": psutil.virtual_memory().total >> 30,
        "python": platform.python_version(),
    }
    started = getattr(sys.modules["__main__"], "__spec__", None)
    command = ["python", "-m", started.name.removesuffix(".__main__") if started else Path(sys.argv[0]).name]
    words = [_FOLDERS.sub(".../", word) for word in sys.argv[1:]]
    told = {"commit": commit, "command": [*command, *words], "machine": machine, "measured": measured}
    text = json.dumps(told, indent=2)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    print(text)
