"""What became of runs that were killed: JSON from what pytest leaves of such tests.

python -m benchmarks.deaths build/campaign/deaths_*.xml --json build/campaign/deaths.json
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.machine import report

_BAD = ("failure", "error", "skipped")


def told(file: Path) -> dict[str, Any]:
    """Of one file of JUnit's form, how its cases ended, and each with its seconds."""
    cases = [
        (case.get("name", ""), next((kind for kind in _BAD if case.find(kind) is not None), "passed"), case.get("time"))
        for case in ElementTree.parse(file).iter("testcase")
    ]
    return {
        "tests": file.stem,
        "ended": dict(Counter(how for _, how, _ in cases)),
        "cases": [{"name": name, "ended": how, "seconds": float(took or 0)} for name, how, took in cases],
    }


def main() -> None:
    """Tell of each file, and print it all as JSON; exit status 1 where a case ended otherwise than it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--json", type=Path, help="a file for what was told")
    asked = parser.parse_args()
    seen = [told(file) for file in asked.files]
    report(seen, asked.json)
    sys.exit(any(set(it["ended"]) != {"passed"} for it in seen))


if __name__ == "__main__":
    main()
