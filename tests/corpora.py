"""Where real instances to test with are: pydicom's own, and a larger corpus where DICOMVEIL_CORPUS names one."""

import hashlib
import os
from pathlib import Path

import pydicom

BUNDLED = Path(pydicom.__file__).parent / "data"
CORPUS = Path(os.environ["DICOMVEIL_CORPUS"]) if "DICOMVEIL_CORPUS" in os.environ else None
NO_CORPUS = "DICOMVEIL_CORPUS names no folder of real studies"
KEY = hashlib.sha256(b"a key to test with").digest()


def instances() -> list[Path]:
    """Every file at hand that may be an instance."""
    roots = [BUNDLED / "test_files", BUNDLED / "charset_files", BUNDLED / "palettes"]
    if CORPUS:
        roots.append(CORPUS / "open")
    return sorted(path for root in roots for path in root.rglob("*") if path.is_file() and path.suffix != ".py")


def label(path: Path) -> str:
    """A file's name below its corpus, for lists of exceptions."""
    root = CORPUS / "open" if CORPUS and path.is_relative_to(CORPUS) else BUNDLED
    return str(path.relative_to(root))
