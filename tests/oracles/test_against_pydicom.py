"""The engine against an independent walk of the same decisions, element by element, on every real file at hand."""

import io
import warnings
from pathlib import Path

import pydicom
import pytest
from pydicom import config
from pydicom.dataset import Dataset

from dicomveil import Deidentifier
from dicomveil.compile import compile_request
from dicomveil.errors import REASONS, Unsuitable
from dicomveil.keys import Keys
from dicomveil.request import Request
from dicomveil.scan import scan_instance
from dicomveil.stream import BytesSource
from dicomveil.study import Identities, build_study_map
from dicomveil.testing import DEFLATED
from tests.corpora import KEY, instances, label
from tests.oracles.pydicom_walk import deidentify

REQUEST = Request(bitstream_comments="keep", burned_in="pass")
TABLE, KEYS = compile_request(REQUEST), Keys(KEY)
ENGINE = Deidentifier(REQUEST, key=KEY)


@pytest.mark.parametrize("path", instances(), ids=label)
def test_engine_and_plain_walk_agree(path: Path) -> None:
    """What the engine does to bytes is what its decisions say, as another reader sees it; else it says why not."""
    data = path.read_bytes()  # what is blanked inside pixels is held to other tests
    try:
        out = ENGINE.rewrite(data)
    except Unsuitable as unsuitable:
        assert unsuitable.reason in REASONS
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config.settings.reading_validation_mode = config.IGNORE
        config.settings.writing_validation_mode = config.IGNORE
        before, after = pydicom.dcmread(io.BytesIO(data), force=True), pydicom.dcmread(io.BytesIO(out))
        scan = scan_instance(BytesSource(data))
        patient = build_study_map((scan,), Identities(KEYS, Request())).patient
        compressed = after.file_meta.TransferSyntaxUID.is_compressed and scan.transfer_syntax_uid != DEFLATED
        expected = deidentify(before, TABLE, KEYS, patient, compressed)
        assert differences(expected, after) == []


def differences(expected: Dataset, found: Dataset, path: str = "") -> list[str]:
    """Where two data sets differ, by path; never by value."""
    out = []
    for tag in sorted({*expected.keys(), *found.keys()}):
        where = f"{path}{tag}"
        if tag not in expected or tag not in found:
            out.append(f"{where} only {'expected' if tag in expected else 'found'}")
            continue
        one, other = expected[tag], found[tag]
        if one.VR == "SQ" and other.VR == "SQ":
            if len(one.value or []) != len(other.value or []):
                out.append(f"{where}: {len(one.value or [])} Items, not {len(other.value or [])}")
            for number, (a, b) in enumerate(zip(one.value or [], other.value or [], strict=False)):
                out += differences(a, b, f"{where}[{number}].")
        elif (one.value or None) != (other.value or None):
            out.append(f"{where} {one.VR} {other.VR} differs")
    return out
