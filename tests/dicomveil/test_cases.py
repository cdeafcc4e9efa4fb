"""tests/cases/basic.yaml, through the engine: someone who reads no Python can add a case."""

import io
from pathlib import Path

import pydicom
import pytest
import yaml
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from dicomveil import Deidentifier
from dicomveil.body import parse_request
from dicomveil.keys import Keys
from dicomveil.pseudonyms import patient_pseudonym
from dicomveil.testing import CT
from dicomveil.uids import new_uid
from tests.corpora import KEY

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "basic.yaml").read_text())
KEYS = Keys(KEY)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_each_rule_does_what_its_case_says(case: dict) -> None:
    """Each attribute of a case comes out as its "after" says."""
    ds = data_set(case["before"])
    ds.SOPClassUID = case.get("sop_class", CT)
    ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3.4.5", "1.2.3.4", "1.2.3.4.1"
    ds.PatientID = ds.get("PatientID", "4711")
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID, ds.file_meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    stored = io.BytesIO()
    ds.save_as(stored, enforce_file_format=True)
    request = parse_request(yaml.safe_dump(case.get("request", {})))
    out = pydicom.dcmread(io.BytesIO(Deidentifier(request, key=KEY).rewrite(stored.getvalue())))
    check(case["before"], case["after"], out)


def data_set(values: dict) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        nested = isinstance(value, list) and all(isinstance(item, dict) for item in value)
        setattr(ds, keyword, Sequence([data_set(item) for item in value]) if nested else value)
    return ds


def check(before: dict, after: dict, out: Dataset) -> None:
    for keyword, expected in after.items():
        if expected == "absent":
            assert keyword not in out, keyword
        elif isinstance(expected, list) and isinstance(expected[0], dict):
            assert len(out[keyword].value) == len(expected)
            for one, other, item in zip(before[keyword], expected, out[keyword].value, strict=True):
                check(one, other, item)
        else:
            found = out[keyword].value
            values = list(found) if isinstance(expected, list) else [found]
            originals = before[keyword] if isinstance(expected, list) else [before[keyword]]
            wanted = expected if isinstance(expected, list) else [expected]
            for n, (value, want) in enumerate(zip(values, wanted, strict=True)):
                if want == "mapped":
                    want = new_uid(KEYS, originals[n])
                elif want == "pseudonym":
                    want = patient_pseudonym(KEYS, "4711")
                assert str("" if value is None else value) == want, keyword
