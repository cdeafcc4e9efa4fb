"""What users of de-identifiers ask for, one story a test: references and UIDs (A), dates, times and ages (B).

Each is told from the user's side on the smallest study that shows it; docs/stories.md names what shows it at large.
"""

import datetime
import hashlib
import io
import math
import uuid
from pathlib import Path
from typing import Any

import pydicom
import pytest

from dicomveil import Deidentifier
from dicomveil.body import parse_request
from dicomveil.testing import CT
from tests.corpora import KEY
from tests.oracles.random_projects import (
    MALFORMED,
    ROOT,
    SOP_CLASSES,
    Target,
    Tree,
    deep,
    evidence,
    frames,
    images,
    merged,
    registration,
    segments,
    stored,
    structures,
    things,
)
from tests.oracles.reference_graph import Instance, compare, read, read_instance

RESEARCH = (Path(__file__).parents[1] / "configs" / "requests" / "research-dates.yaml").read_text()
IMAGE = Target(CT, ROOT + "1.2.1", ROOT + "1.2", ROOT + "1", ROOT + "1.9", "MRN1")
ANOTHER = IMAGE._replace(sop_instance=ROOT + "1.2.2")
LATER = Target(CT, ROOT + "2.2.1", ROOT + "2.2", ROOT + "2", ROOT + "1.9", "MRN1")
PET = "1.2.840.10008.5.1.4.1.1.128"


def released(target: Target, tree: Tree | None = None, request: str = "{}", key: bytes = KEY) -> bytes:
    """One instance as a user gets it who knows nothing but request and key, in whatever month."""
    return Deidentifier(parse_request(request), key=key).rewrite(stored(target, tree or {}))


def links(target: Target, tree: Tree | None = None, key: bytes = KEY) -> Instance:
    return read_instance(released(target, tree, key=key))


def dated(target: Target, values: Tree) -> pydicom.Dataset:
    """What a longitudinal study gets."""
    return pydicom.dcmread(io.BytesIO(released(target, values, RESEARCH)))


def days(before: str, after: str) -> int:
    """By how many days a date was moved."""
    first, second = (datetime.datetime.strptime(text[:8], "%Y%m%d") for text in (before, after))
    return (second - first).days


# ---------------------------------------------------------------------------------------------------------- references


def test_a1_references_hold_at_every_depth() -> None:
    """My references lead to the new images wherever they stand: at the top, in Items of Items, and in the file's head."""
    image = links(IMAGE)
    report = links(LATER, merged([evidence(IMAGE), images(IMAGE), deep(9)(IMAGE), frames(IMAGE)]))
    named = [uid for path, uid in report.edges.items() if path.endswith("ReferencedSOPInstanceUID[0]")]
    assert len(named) == 4 and set(named) == {image.sop_instance}
    assert image.edges["meta.MediaStorageSOPInstanceUID[0]"] == image.sop_instance
    assert ROOT.encode() not in released(LATER, merged([evidence(IMAGE), deep(9)(IMAGE)]))


def test_a2_next_months_patients_keep_their_pseudonyms() -> None:
    """What I release next month fits what I released before: same patient, same UIDs, without a table to nurse."""
    assert links(IMAGE, images(ANOTHER)) == links(IMAGE, images(ANOTHER))
    first, later = links(IMAGE), links(LATER, images(IMAGE))
    assert later.patient == first.patient != links(LATER._replace(patient="MRN2")).patient
    assert later.edges["ReferencedImageSequence[0].ReferencedSOPInstanceUID[0]"] == first.sop_instance


def test_a3_a_frame_of_reference_is_shared_exactly_as_before() -> None:
    """Series that shared a frame of reference still do, registrations join the same two, and no others fall together."""
    apart = LATER._replace(frame=ROOT + "2.9")
    project = {
        "image": stored(IMAGE, {}),
        "same frame": stored(LATER, {}),
        "its own": stored(apart._replace(sop_instance=ROOT + "2.2.2"), frames(IMAGE)),
        "both": stored(ANOTHER._replace(sop_class=SOP_CLASSES["registration"]), merged([registration(IMAGE), registration(apart)])),
    }  # fmt: skip
    after = {name: Deidentifier(key=KEY).rewrite(content) for name, content in project.items()}
    graph = read(after)
    assert compare(read(project), graph) == []
    own = {name: instance.edges["FrameOfReferenceUID[0]"] for name, instance in graph.items()}
    assert own["image"] == own["same frame"] != own["its own"]
    joined = [graph["both"].edges[f"RegistrationSequence[{n}].FrameOfReferenceUID[0]"] for n in (0, 1)]
    assert joined == [own["image"], own["its own"]]


@pytest.mark.parametrize(("kind", "made"), [("segmentation", segments), ("structures", structures)])
def test_a4_structures_and_segments_made_of_originals_fit(kind: str, made: Any) -> None:
    """A SEG or RTSTRUCT that was drawn on the originals, and reaches me later, lies on the de-identified images."""
    image = links(IMAGE)
    late = links(LATER._replace(sop_class=SOP_CLASSES[kind], study=IMAGE.study), made(IMAGE))
    named = {uid for path, uid in late.edges.items() if "Image" in path and "ReferencedSOPInstanceUID" in path}
    assert named == {image.sop_instance}
    assert late.edges["FrameOfReferenceUID[0]"] == image.edges["FrameOfReferenceUID[0]"]
    assert late.study == image.study


def test_a5_a_study_in_an_attribute_for_instances_is_the_study() -> None:
    """The RTSTRUCT's study, which stands in Referenced SOP Instance UID, is the new Study Instance UID of its images."""
    found = links(LATER, structures(IMAGE)).edges
    path = "ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].ReferencedSOPInstanceUID[0]"
    assert found[path] == links(IMAGE).study


def test_a6_each_of_several_values_is_mapped() -> None:
    """An attribute with several UIDs has as many afterwards, each the new one of what it named, equal ones equal."""
    found = links(IMAGE, things(ANOTHER)).edges
    values = [found[f"IrradiationEventUID[{n}]"] for n in range(4)]
    assert values[1] == links(ANOTHER).sop_instance and values[0] == values[2]
    assert len(set(values)) == 3 and "IrradiationEventUID[4]" not in found


def test_a7_malformed_uids_become_good_ones_and_stay_apart() -> None:
    """Whatever stands where a UID should, "0" or letters or far too much, becomes a valid UID, each its own."""
    tree = {"ReferencedImageSequence": [{"ReferencedSOPInstanceUID": uid} for uid in MALFORMED]}
    found = links(IMAGE, tree).edges
    new = [found[f"ReferencedImageSequence[{n}].ReferencedSOPInstanceUID[0]"] for n in range(len(MALFORMED))]
    assert len(set(new)) == len(MALFORMED) and not set(new) & set(MALFORMED)
    assert all(pydicom.uid.UID(uid).is_valid and len(uid) <= 64 for uid in new)
    spelt = {"ReferencedImageSequence": [{"ReferencedSOPInstanceUID": text} for text in ("0", "0 ", " 0", "0\0\0")]}
    assert {uid for path, uid in links(IMAGE, spelt).edges.items() if "Sequence" in path} == {new[MALFORMED.index("0")]}


def test_a8_who_has_the_originals_and_no_key_finds_nothing() -> None:
    """Nobody who knows my UIDs and Patient IDs can compute what became of them: no plain hash, and another key tells nothing."""
    ours, theirs = links(IMAGE, images(ANOTHER)), links(IMAGE, images(ANOTHER), key=KEY[::-1])
    assert not set(ours.edges.values()) & set(theirs.edges.values()) and ours.patient != theirs.patient
    shared = "".join(ours.edges.values()) + ours.patient
    for original in (IMAGE.sop_instance, IMAGE.study, IMAGE.series, IMAGE.frame, IMAGE.patient):
        for name in ("md5", "sha1", "sha224", "sha256", "sha512"):
            digest = hashlib.new(name, original.encode()).digest()
            for order in ("big", "little"):
                assert str(int.from_bytes(digest[:16], order))[:15] not in shared
            assert digest.hex()[:10].upper() not in shared
        for space in (uuid.NAMESPACE_OID, uuid.NAMESPACE_URL, uuid.NAMESPACE_DNS):
            assert str(uuid.uuid5(space, original).int) not in shared
        assert pydicom.uid.generate_uid(entropy_srcs=[original]) not in ours.edges.values()


# -------------------------------------------------------------------------------------------------- dates, times, ages


def test_b9_an_age_says_the_same_as_before() -> None:
    """A patient is as old in the release as in truth: the age stays, and no birth date is left that would contradict it."""
    out = dated(IMAGE, {"StudyDate": "20240301", "PatientBirthDate": "19530417", "PatientAge": "070Y"})
    assert out.PatientAge == "070Y" and out.PatientBirthDate == ""
    assert out.StudyDate != "20240301"


def decay(ds: pydicom.Dataset) -> float:
    """What is left of the activity at the acquisition: what an SUV is divided by."""
    (given,) = ds.RadiopharmaceuticalInformationSequence
    injected = datetime.datetime.strptime(given.RadiopharmaceuticalStartDateTime[:14], "%Y%m%d%H%M%S")
    acquired = datetime.datetime.strptime(f"{ds.AcquisitionDate}{ds.AcquisitionTime}"[:14], "%Y%m%d%H%M%S")
    elapsed = (acquired - injected).total_seconds()
    return float(given.RadionuclideTotalDose) * math.exp2(-elapsed / float(given.RadionuclideHalfLife))


@pytest.mark.parametrize("injected", ["20240304233000.00", "20240305001500", "20231231235959.999999"])
def test_b10_uptake_over_midnight_is_computed_as_before(injected: str) -> None:
    """An SUV of the release is the SUV of the original to the last digit, also where midnight lies in between."""
    given = {"RadiopharmaceuticalStartDateTime": injected, "RadionuclideTotalDose": "350000000", "RadionuclideHalfLife": "6586.2"}  # fmt: skip
    tree = {"AcquisitionDate": "20240305", "AcquisitionTime": "003000", "PatientWeight": "71"}
    tree |= {"RadiopharmaceuticalInformationSequence": [given]}
    target = IMAGE._replace(sop_class=PET)
    before, after = pydicom.dcmread(io.BytesIO(stored(target, tree))), dated(target, tree)
    assert decay(after) == decay(before) and after.PatientWeight == before.PatientWeight
    assert after.AcquisitionTime == before.AcquisitionTime and after.AcquisitionDate != before.AcquisitionDate


def test_b11_a_patients_dates_move_alike_in_every_study_and_run() -> None:
    """The days between my patient's examinations are true, whichever runs they came in, and no other patient's days."""
    first = dated(IMAGE, {"StudyDate": "20230301", "SeriesDate": "20230301"})
    later = dated(LATER, {"StudyDate": "20240301", "ContentDate": "20240302"})
    assert days(first.StudyDate, later.StudyDate) == days("20230301", "20240301")
    assert days("20230301", first.SeriesDate) == days("20240302", later.ContentDate) != 0
    moves = {
        days("20230301", dated(IMAGE._replace(patient=f"MRN{n}"), {"StudyDate": "20230301"}).StudyDate)
        for n in range(20)
    }
    assert len(moves) > 15


def test_b12_every_form_of_a_date_has_its_rule() -> None:
    """Several values move each, fractions and zones stay as written, and what is no full date is gone, not guessed at."""
    out = dated(
        IMAGE,
        {
            "StudyDate": "20240301",
            "SeriesDate": "20240301\\20240302",
            "AcquisitionDateTime": "20240301235959.123456+0200",
            "AcquisitionDate": "202403",
            "StartAcquisitionDateTime": "2024-0500",
        },
    )
    move = days("20240301", out.StudyDate)
    assert [days(before, after) for before, after in zip(("20240301", "20240302"), out.SeriesDate, strict=True)] == [
        move
    ] * 2
    assert days("20240301", out.AcquisitionDateTime) == move
    assert out.AcquisitionDateTime[8:] == "235959.123456+0200"
    assert not out.get("AcquisitionDate") and not out.get("StartAcquisitionDateTime")


def test_b13_dates_that_many_share_tell_nobodys_days() -> None:
    """Days when a device was made or calibrated, which others know, never stand moved in a release, nor dates of vocabularies."""
    known = {"DateOfLastCalibration": "20240102", "DateOfManufacture": "20150203", "DateOfInstallation": "20160304"}
    code = {"CodeValue": "1", "CodingSchemeDesignator": "DCM", "CodeMeaning": "x", "ContextGroupVersion": "20170405"}
    out = dated(IMAGE, {"StudyDate": "20240301", **known, "ViewCodeSequence": [code]})
    move = days("20240301", out.StudyDate)
    left = {element.value for element in out.iterall() if element.VR in ("DA", "DT") and element.value}
    for date in (*known.values(), code["ContextGroupVersion"]):
        moved = datetime.datetime.strptime(date, "%Y%m%d") + datetime.timedelta(move)
        assert moved.strftime("%Y%m%d") not in "".join(left)
        assert date not in "".join(left)
    assert out.StudyDate in left
