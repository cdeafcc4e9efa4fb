"""Every real file at hand: one outcome each, readable output, pixels untouched, no identifier left."""

import hashlib
import io
import shutil
import subprocess
import warnings
from pathlib import Path

import pydicom
import pytest
import yaml
from pydicom import config

from dicomveil import Deidentifier
from dicomveil.errors import REASONS, Unsuitable
from dicomveil.part10 import open_instance
from dicomveil.pseudonyms import known_patient_id
from dicomveil.scan import scan_instance
from dicomveil.stream import BytesSource
from tests.corpora import KEY, instances, label, without_comments

ENGINE = Deidentifier(key=KEY)
EXCEPTIONS = yaml.safe_load(Path(__file__).with_name("corpora_exceptions.yaml").read_text())
# What is set aside on purpose, whole as it is: no instance of a patient, or one that nobody may guess about.
ON_PURPOSE = {"dicomdir", "not-dicom", "private-sop-class", "missing-identifier", "burned-in"}


def outcome(path: Path) -> bytes | str:
    """The de-identified file, or the reason why there is none."""
    try:
        return ENGINE.rewrite(path.read_bytes())
    except Unsuitable as unsuitable:
        return unsuitable.reason


@pytest.mark.parametrize("path", instances(), ids=label)
def test_every_file_has_one_outcome(path: Path) -> None:
    """A file is de-identified or set aside with a reason that is documented; what other tools read whole, we do too."""
    config.settings.reading_validation_mode = config.IGNORE
    found = outcome(path)
    if isinstance(found, str):
        assert found in REASONS
        if found not in ON_PURPOSE and pydicom_reads(path) and dcmdump_reads(path):
            assert EXCEPTIONS[label(path)][0] == found
        return
    before, after = path.read_bytes(), found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(io.BytesIO(after))
        assert not any(element.tag.is_private for element in ds.iterall())
        original = pydicom.dcmread(io.BytesIO(before), force=True)
    assert ds.PatientIdentityRemoved == "YES"
    assert_pixels(original, ds, path)
    assert_gone(original, before, after)


def assert_pixels(original: pydicom.Dataset, ds: pydicom.Dataset, path: Path) -> None:
    for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if keyword in original:
            one, other = original[keyword].value, ds[keyword].value
            if len(one) > len(other) and not original[keyword].is_undefined_length:
                bits = original.Rows * original.Columns * original.get("SamplesPerPixel", 1) * original.BitsAllocated
                length = (bits * int(original.get("NumberOfFrames", 1) or 1) + 7) // 8
                one = one[: length + length % 2]
            elif original[keyword].is_undefined_length:
                one = without_comments(one, original.file_meta.TransferSyntaxUID)
            assert hashlib.sha256(one).digest() == hashlib.sha256(other).digest()


def assert_gone(original: pydicom.Dataset, before: bytes, after: bytes) -> None:
    """No UID that names an instance, and no Patient ID or name, stands anywhere in the output, inflated."""
    opened = open_instance(BytesSource(after))
    text = opened.source.read(opened.begin, min(opened.source.size, 1 << 22)) + after[:1024]
    for _, uid in scan_instance(BytesSource(before)).uids:
        if len(uid) > 12:
            assert uid.encode() not in text
    patient_id = known_patient_id(str(original.get("PatientID", "") or ""))
    told = str(original.get("DeidentificationMethod", ""))  # what an earlier step says of itself stays
    if sum(letter.isdigit() for letter in patient_id) > 6 and patient_id not in told:
        assert patient_id.encode("latin-1", "ignore") not in text.split(b"\xe0\x7f")[0]
    for part in str(original.get("PatientName", "") or "").split("^"):
        if len(part) > 5 and part.isalpha() and part.isascii() and part.lower() not in ("anonymized", "anonymous"):
            assert f"^{part}".encode() not in text


def pydicom_reads(path: Path) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return sum(1 for _ in pydicom.dcmread(path).iterall()) >= 0
    except Exception:
        return False


def dcmdump_reads(path: Path) -> bool:
    if not shutil.which("dcmdump"):
        pytest.skip("dcmdump (Debian: dcmtk) is not installed")
    run = subprocess.run(["dcmdump", "-q", str(path)], capture_output=True)
    return run.returncode == 0 and not run.stderr


@pytest.mark.skipif(not shutil.which("dcmdump"), reason="dcmdump (Debian: dcmtk) is not installed")
def test_dcmdump_reads_what_is_written(tmp_path: Path) -> None:
    """A second reader reads every output to its end, wherever it read the input."""
    outputs = []
    for path in instances()[::4]:
        found = outcome(path)
        if isinstance(found, bytes) and dcmdump_reads(path):
            outputs.append(tmp_path / f"{len(outputs)}.dcm")
            outputs[-1].write_bytes(found)
    failed = [path for path in outputs if not dcmdump_reads(path)]
    assert outputs and failed == []
