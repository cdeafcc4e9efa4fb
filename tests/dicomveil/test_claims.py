"""What an output says of its own de-identification: never more than was done."""

import io
import json

import pydicom
import pytest
from hypothesis import given, settings

from dicomveil import Deidentifier, standard
from dicomveil.body import parse_request
from dicomveil.compile import compile_request
from dicomveil.schema import OPTIONS, PIXEL_OPTIONS
from dicomveil.testing import CT
from tests.corpora import KEY
from tests.dicomveil.test_rules import ASKED, OPTION_SETS, RANDOM, Line, body, plans
from tests.dicomveil.test_table import WORDS, everywhere
from tests.oracles.naive_reading import (
    FULL,
    MODIFIED,
    Expected,
    Holds,
    Leaf,
    Naive,
    Plan,
    Raw,
    Tree,
    instance,
    read,
    rows,
)

BASIC = "113100"
CODES = {
    "CleanGraphics": "113103", "CleanStructuredContent": "113104", "CleanDescriptors": "113105", FULL: "113106",
    MODIFIED: "113107", "RetainPatientCharacteristics": "113108", "RetainDeviceIdentity": "113109", "RetainUIDs": "113110",
    "RetainSafePrivate": "113111", "RetainInstitutionIdentity": "113112",
}  # fmt: skip
"""PS3.16 CID 7050, as printed."""
SAFE = "(7053,[Philips PET Private Group],00)"
SAFE_SEQUENCE = "(2001,[Philips Imaging DD 001],5F)"
DATES = {FULL: "UNMODIFIED", MODIFIED: "MODIFIED"}


def marked(told: dict, plan: Plan | None = None) -> pydicom.Dataset:
    """An output of a request."""
    request = parse_request(json.dumps(told))
    return pydicom.dcmread(io.BytesIO(Deidentifier(request, key=KEY).rewrite(instance(plan or {}))))


def codes(ds: pydicom.Dataset) -> list[str]:
    return [item.CodeValue for item in ds.get("DeidentificationMethodCodeSequence", [])]


@pytest.mark.parametrize("option", ["", *CODES])
def test_each_option_is_claimed_beside_the_profile(option: str) -> None:
    """The profile's and each Option's code stands there, with its meaning and DCM (PS3.15 E.1.1 item 7, CID 7050)."""
    ds = marked({"Options": [option] if option else []})
    assert codes(ds) == [BASIC, CODES[option]] if option else [BASIC]
    assert {item.CodingSchemeDesignator for item in ds.DeidentificationMethodCodeSequence} == {"DCM"}
    assert all(item.CodeMeaning.endswith(("Option", "Profile")) for item in ds.DeidentificationMethodCodeSequence)
    assert ds.PatientIdentityRemoved == "YES"
    assert ds.LongitudinalTemporalInformationModified == DATES.get(option, "REMOVED")


def test_every_option_there_is_has_a_code() -> None:
    """No Option can be asked for that the output couldn't name."""
    assert CODES.keys() == set(OPTIONS) - set(PIXEL_OPTIONS)
    assert {option: code.value for option, code in standard.profile_codes().items() if option in CODES} == CODES


def test_nothing_is_said_of_pixels() -> None:
    """Without an Option that changes pixels, what is said of burned-in text and faces stays (PS3.15 E.3.1, E.3.2)."""
    for there in ("NO", None):
        plan: Plan = {0x00280301: ("CS", there), 0x00280302: ("CS", "YES")} if there else {}
        for option in ("", *CODES):
            ds = marked({"Options": [option] if option else []}, plan)
            assert ds.get("BurnedInAnnotation") == there
            assert ds.get("RecognizableVisualFeatures") == ("YES" if there else None)


def test_earlier_steps_stay_listed() -> None:
    """Method and codes are added to what an earlier step said, once however often (PS3.15 E.1.1 item 7)."""
    code: Plan = {0x00080100: ("SH", "113100"), 0x00080102: ("SH", "DCM"), 0x00080104: ("LO", "Basic")}
    ds = marked({}, {0x00120063: ("LO", "another tool"), 0x00120064: [code], 0x00280303: ("CS", "UNMODIFIED")})
    assert next(iter(ds.DeidentificationMethod)) == "another tool" and len(ds.DeidentificationMethod) == 2
    assert codes(ds) == [BASIC, BASIC] and ds.LongitudinalTemporalInformationModified == "REMOVED"
    again = marked({}, {0x00120063: ("LO", "\\".join(ds.DeidentificationMethod))})
    assert list(again.DeidentificationMethod) == list(ds.DeidentificationMethod)


# Body; whether the profile may be claimed; what is said of dates.
CLAIMS: list[tuple[dict, bool, str]] = [
    ({"Keep": ["SliceThickness"]}, True, "REMOVED"),
    ({"Keep": ["0018,104x"]}, False, "UNMODIFIED"),
    ({"Remove": ["SliceThickness"], "Replace": {"KVP": "1", "StudyDescription": "New"}}, True, "REMOVED"),
    ({"Replace": {"PatientID": "T1"}, "Force": True}, True, "REMOVED"),
    ({"ReferenceSequences": "by-type", "BurnedIn": "pass"}, True, "REMOVED"),
    ({"PrivateSOPClass": "strip"}, False, "REMOVED"),
    ({"Keep": ["StudyDescription"]}, False, "REMOVED"),
    ({"Keep": ["ReferencedSeriesSequence[0].StudyDescription"]}, False, "REMOVED"),
    ({"Keep": ["0008,10xx"]}, False, "UNMODIFIED"),
    ({"Keep": ["PatientID"], "Force": True}, False, "REMOVED"),
    ({"Keep": ["StudyInstanceUID"], "Force": True}, False, "REMOVED"),
    ({"Keep": ["StudyInstanceUID"], "Force": True, "Options": ["RetainUIDs"]}, True, "REMOVED"),
    ({"Keep": ["SOPInstanceUIDOfConcatenationSource"]}, False, "REMOVED"),
    ({"Keep": ["ReferencedImageSequence"]}, False, "UNMODIFIED"),
    ({"Keep": ["ReferencedSeriesSequence"]}, False, "UNMODIFIED"),
    ({"Keep": ["5200,92xx"]}, False, "UNMODIFIED"),
    ({"Keep": ["60xx,3000"]}, False, "REMOVED"),
    ({"Keep": ["5000,3000"]}, False, "REMOVED"),
    ({"KeepPrivateTags": True}, False, "UNMODIFIED"),
    ({"Keep": [SAFE]}, False, "UNMODIFIED"),
    ({"Keep": [SAFE], "Options": ["RetainSafePrivate"]}, True, "REMOVED"),
    ({"Keep": [SAFE_SEQUENCE], "Options": ["RetainSafePrivate"]}, False, "UNMODIFIED"),
    ({"Supplement": False}, False, "REMOVED"),
    ({"DicomVersion": "2008"}, False, "UNMODIFIED"),
    ({"DicomVersion": "2017c"}, True, "REMOVED"),
    ({"Keep": ["StudyDate"]}, False, "UNMODIFIED"),
    ({"Keep": ["StudyDate"], "Options": [FULL]}, True, "UNMODIFIED"),
    ({"Keep": ["StudyDate"], "Options": [MODIFIED]}, False, "UNMODIFIED"),
    ({"Keep": ["ReferencedSeriesSequence[*].StudyDate"]}, False, "UNMODIFIED"),
    ({"Replace": {"StudyDate": "20200101"}}, True, "MODIFIED"),
    ({"Replace": {"**.StudyDate": "20200101"}}, True, "MODIFIED"),
    ({"Replace": {"ReferencedSeriesSequence[*].StudyDate": "20200101"}}, True, "MODIFIED"),
    ({"Replace": {"ReferencedSeriesSequence": [{"StudyDate": "20200101"}]}}, True, "MODIFIED"),
    ({"Remove": ["StudyDate"]}, True, "REMOVED"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("told", "claimed", "dates"), CLAIMS, ids=lambda it: json.dumps(it) if isinstance(it, dict) else ""
)
def test_the_profile_is_claimed_where_all_of_it_is_done(told: dict, claimed: bool, dates: str) -> None:
    """One line that leaves something unprotected takes the codes away, and the text says site rules (E.1.1 item 1)."""
    ds, request = marked(told), parse_request(json.dumps(told))
    assert codes(ds) == ([BASIC, *(CODES[option] for option in request.options)] if claimed else [])
    assert ds.LongitudinalTemporalInformationModified == dates
    text, edition = str(ds.DeidentificationMethod), request.dicom_version
    assert text.startswith("dicomveil recipe ") and len(text) <= 64
    if claimed:
        assert f"PS3.15 {edition} Basic Profile" in text
    else:
        assert text.endswith(f", site rules {compile_request(request).fingerprint}")


def test_site_rules_are_told_apart() -> None:
    """Two requests that leave different things unprotected say so by their fingerprints."""
    one, other = (marked({"Keep": [tag]}).DeidentificationMethod for tag in ("StudyDescription", "SeriesDescription"))
    assert one != other and marked({"Keep": ["0008,1030"]}).DeidentificationMethod == one


ROWS = instance(everywhere(standard.NEWEST, WORDS[0]))
"""Every row of the newest edition, at the top level and nested, all of it speaking of somebody."""


@settings(RANDOM, max_examples=60)
@given(ASKED, OPTION_SETS)
def test_where_the_profile_is_claimed_every_row_is_protected(asked: tuple[Line, ...], options: list[str]) -> None:
    """Whatever a request asks for, its outputs bear the profile's code only if no row of E.1-1 is left as it was."""
    request = parse_request(json.dumps(body(asked, Options=options)))
    if compile_request(request).claims:
        before, after = read(ROWS), read(Deidentifier(request, key=KEY).rewrite(ROWS))
        wishes = Naive(options=request.options).expected(before, CT)
        assert rows(standard.NEWEST).keys().isdisjoint(unprotected(wishes, before, after))


def unprotected(wishes: Expected, before: Tree, after: Tree) -> list[int]:
    """The attributes whose value came through, although the table, Options applied, doesn't keep it."""
    found = []
    for tag, was in before.items():
        wish, now = wishes.get(tag), after.get(tag)
        if isinstance(was, list) and isinstance(now, list) and isinstance(wish, Holds):
            for inside, one, other in zip(wish.items, was, now, strict=False):
                found += unprotected(inside, one, other)
        elif isinstance(was, Leaf) and isinstance(now, Leaf) and was.raw and now.raw == was.raw:
            stays = isinstance(wish, Raw) or getattr(wish, "text", None) == was.text
            found += [] if stays else [tag]
    return found


@settings(RANDOM, max_examples=60)
@given(plans(), ASKED, OPTION_SETS)
def test_dates_are_no_less_changed_than_is_said(plan: Plan, asked: tuple[Line, ...], options: list[str]) -> None:
    """REMOVED is said where no date of the patient came through or was written, MODIFIED where none came through."""
    request = parse_request(json.dumps(body(asked, Options=options)))
    before = read(instance(plan))
    after = read(Deidentifier(request, key=KEY).rewrite(instance(plan)))
    said = after[0x00280303]
    assert isinstance(said, Leaf)
    left = dates(after)
    if said.text == "REMOVED":
        assert left <= {"19000101", "19000101000000"}
    if said.text == "MODIFIED":
        assert not left & dates(before)


def dates(tree: Tree) -> set[str]:
    """The dates of the patient in a data set."""
    found: set[str] = set()
    for tag, what in tree.items():
        if isinstance(what, list):
            found = found.union(*map(dates, what))
        elif tag in (0x00080020, 0x0008002A) and what.text:
            found.add(what.text)
    return found
