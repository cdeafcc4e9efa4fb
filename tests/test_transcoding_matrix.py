"""Every image at hand into every transfer syntax, as docs/transcoding.md tells it; run as a script it writes that."""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID

ROOT = Path(__file__).parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from dicomveil import syntaxes  # noqa: E402
from dicomveil.compression import unavailable  # noqa: E402
from dicomveil.errors import Unsuitable  # noqa: E402
from dicomveil.transcoder import transcode  # noqa: E402
from tests.corpora import BUNDLED, CORPUS, NO_CORPUS  # noqa: E402
from tests.transcoded import HAS_DCMTK, NO_DCMTK, differences, pixels, read  # noqa: E402

DOCUMENT = ROOT / "docs" / "transcoding.md"
TARGETS = list(syntaxes.produced().values())
LARGEST = 4 << 20
ROUNDING = dict.fromkeys((syntaxes.JPEG_BASELINE, syntaxes.JPEG_EXTENDED, syntaxes.JPEG_2000, syntaxes.HTJ2K), 2)
"""How far two right decoders of a lossy bitstream may be apart (ISO 10918-2, 15444-4)."""
HEADINGS = [syntax.keyword for syntax in TARGETS]
_OF_LAYOUT = ("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored",
              "HighBit", "PixelRepresentation")  # fmt: skip
UNAVAILABLE = [syntax.keyword for syntax in TARGETS if unavailable(syntax.uid)]
UNREAD = (AttributeError, RuntimeError, ValueError, NotImplementedError, IndexError, TypeError,
          subprocess.CalledProcessError)  # fmt: skip
"""What a file raises that is broken."""


class Unequal(AssertionError):
    """A transcoded instance that isn't what it must be."""


def cell(source: Path, before: Dataset, reference: np.ndarray | None, target: syntaxes.TransferSyntax) -> str:
    """What becomes of a file in a transfer syntax.

    Raises:
      Unequal: a lossless one changed pixels, or any of them something else.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "target.dcm"
        try:
            result = transcode(str(source), str(path), target.uid)
        except Unsuitable as unsuitable:
            at = unsuitable.path.split(".")[-1][1:10].replace(",", "") if unsuitable.path else ""
            keyword = keyword_of(int(at, 16)) if unsuitable.reason.startswith("transcode-") and at else ""
            return unsuitable.reason.removeprefix("transcode-") + (f" {keyword}" if keyword else "")
        if path.read_bytes() == source.read_bytes():
            return "copy"
        after = read(path)
        if differences(before, after, result):
            raise Unequal(f"{source.name} in {target.keyword}: {differences(before, after, result)}")
        if "PixelData" not in before:
            return "no pixels" if result.transfer_syntax_uid == target.uid else "no pixels, Explicit VR"
        if reference is None:
            return "written"
        error = np.abs(pixels(path).astype(np.int64) - reference.astype(np.int64)).max(initial=0)
        if not result.lossy and error > ROUNDING.get(before.file_meta.TransferSyntaxUID, 0):
            raise Unequal(f"{source.name} in {target.keyword}: pixels differ by {error}")
        return f"≤ {1 << int(error).bit_length()}" if result.lossy else "equal"


def keyword_of(tag: int) -> str:
    from dicomveil.tags import keyword_of

    return keyword_of(tag)


def row(source: Path) -> list[str]:
    """The cells of a file, one a target."""
    before = read(source)
    try:
        reference = pixels(source)
    except UNREAD:
        reference = None
    return [cell(source, before, reference, target) for target in TARGETS]


def layout(ds: Dataset) -> tuple[str, ...]:
    """What decides on what becomes of an image."""
    return str(ds.file_meta.get("TransferSyntaxUID", "")), *(str(ds.get(keyword, "")) for keyword in _OF_LAYOUT)


def described(source: Path) -> str:
    """A file's pixels in a few words."""
    ds = read(source)
    syntax = UID(getattr(ds, "file_meta", Dataset()).get("TransferSyntaxUID", "")).keyword
    if "PixelData" not in ds or "BitsStored" not in ds:
        return syntax
    sign = "signed" if ds.get("PixelRepresentation") else "unsigned"
    return f"{syntax}, {ds.get('PhotometricInterpretation', '')}, {ds.BitsStored} of {ds.BitsAllocated} bits {sign}"


def lines(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    headings = list(headings)
    yield f"| {' | '.join(headings)} |"
    yield "|" + " --- |" * len(headings)
    for cells in rows:
        yield f"| {' | '.join(cells)} |"


def of_bundled() -> list[list[str]]:
    """A row for each file that pydicom brings: its name, what its pixels are, and its cells."""
    files = sorted((BUNDLED / "test_files").glob("*.dcm"), key=lambda path: path.name)
    return [[f"`{path.name}`", described(path), *row(path)] for path in files]


def of_corpus(corpus: Path) -> list[list[str]]:
    """A row for each transfer syntax in the corpus, each layout of pixels in it counted once: how many became what."""
    seen: dict[tuple[str, ...], Path] = {}
    for path in sorted((corpus / "open").rglob("*")):
        if path.is_file() and path.stat().st_size <= LARGEST:
            ds = read(path)
            if "PixelData" in ds and hasattr(ds, "file_meta"):
                seen.setdefault(layout(ds), path)
    cells: dict[str, list[Counter[str]]] = {}
    count: Counter[str] = Counter()
    for (uid, *_), path in seen.items():
        keyword = UID(uid).keyword or "none"
        count[keyword] += 1
        for counter, text in zip(cells.setdefault(keyword, [Counter() for _ in TARGETS]), row(path), strict=True):
            counter["lossy" if text.startswith("≤") else text.split(" ")[0]] += 1
    return [
        [keyword, str(count[keyword]), *(", ".join(f"{n} {text}" for text, n in sorted(c.items())) for c in counters)]
        for keyword, counters in sorted(cells.items())
    ]


def documented(heading: str) -> list[list[str]]:
    """The rows of the table under a heading of docs/transcoding.md."""
    text = DOCUMENT.read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    table = [line for line in text.splitlines() if line.startswith("| ")][2:]
    return [[part.strip() for part in line.strip("|").split(" | ")] for line in table]


def alike(one: str, other: str) -> bool:
    """Whether two cells say the same; the error of lossy ones depends a little on the codec's version."""
    if one.startswith("≤") and other.startswith("≤"):
        return abs(int(one[2:]).bit_length() - int(other[2:]).bit_length()) <= 1
    return one == other


def check(made: list[list[str]], heading: str) -> None:
    told = documented(heading)
    assert [cells[0] for cells in made] == [cells[0] for cells in told]
    for new, old in zip(made, told, strict=True):
        assert [(a, b) for a, b in zip(new, old, strict=True) if not alike(a, b)] == [], new[0]


@pytest.mark.skipif(not HAS_DCMTK, reason=NO_DCMTK)
@pytest.mark.skipif(bool(UNAVAILABLE), reason=f"no codec is installed for {', '.join(UNAVAILABLE)}")
@pytest.mark.long
def test_pydicoms_files() -> None:
    """docs/transcoding.md tells what becomes of each of pydicom's files; what is lossless is equal, pixel by pixel."""
    check(of_bundled(), "pydicom's test files")


@pytest.mark.long
@pytest.mark.skipif(not HAS_DCMTK, reason=NO_DCMTK)
@pytest.mark.skipif(bool(UNAVAILABLE), reason=f"no codec is installed for {', '.join(UNAVAILABLE)}")
@pytest.mark.skipif(CORPUS is None, reason=NO_CORPUS)
def test_real_files() -> None:
    """docs/transcoding.md tells what becomes of real studies, each layout of pixels once."""
    assert CORPUS is not None
    check(of_corpus(CORPUS), "Real studies")


def write() -> None:
    """Write the tables anew, of the corpus where there is one."""
    text = DOCUMENT.read_text("utf-8")
    tables = {"pydicom's test files": (["file", "pixels", *HEADINGS], of_bundled())}
    if CORPUS is not None:
        tables["Real studies"] = (["from", "layouts", *HEADINGS], of_corpus(CORPUS))
    for heading, (headings, rows) in tables.items():
        before, rest = text.split(f"\n## {heading}\n")
        intro = rest.split("\n| ")[0].split("\n## ")[0].rstrip()
        after = "\n## " + rest.split("\n## ", 1)[1] if "\n## " in rest else ""
        text = f"{before}\n## {heading}\n{intro}\n\n" + "\n".join(lines(headings, rows)) + "\n" + after
    DOCUMENT.write_text(text, "utf-8")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    write()
