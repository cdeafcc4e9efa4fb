"""Orthanc's identifiers, by value; tests/oracles/test_orthanc_answers.py asks Orthanc itself for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomveil.orthanc_ids import (
    ROUTES,
    instance_id,
    is_resource_id,
    path,
    patient_id,
    resource_digest,
    resource_id,
    series_id,
    study_id,
    written,
)


def test_an_identifier_is_five_groups_of_eight_digits() -> None:
    """The identifier of nobody is the SHA-1 of nothing, as Orthanc writes it (what Orthanc 1.10.1 answers)."""
    assert patient_id("") == "da39a3ee-5e6b4b0d-3255bfef-95601890-afd80709"
    assert patient_id("4711") == "e8fed7c5-621fcc32-f5db606f-efee7c98-f36cc2fa"


def test_each_level_has_its_own() -> None:
    """One for the patient, and one for each level below, by all identifiers from the top."""
    found = [
        patient_id("A"), study_id("A", "1.2"), series_id("A", "1.2", "1.3"), instance_id("A", "1.2", "1.3", "1.4"),
    ]  # fmt: skip
    assert found == [resource_id(*("A", "1.2", "1.3", "1.4")[: depth + 1]) for depth in range(4)]
    assert len(set(found)) == 4 and all(map(is_resource_id, found))
    assert study_id("A", "1.2") != study_id("B", "1.2")


@pytest.mark.parametrize(("one", "other"), [("47 ", "47"), ("47\0\0", "47"), ("47\0 11", "47"), ("   ", "")])
def test_padding_behind_a_patient_id_counts_for_nothing(one: str, other: str) -> None:
    """Blanks behind a Patient ID and what follows a NUL don't tell two patients apart (PS3.5 6.2)."""
    assert patient_id(one) == patient_id(other)


@pytest.mark.parametrize(("one", "other"), [(" 47", "47"), ("4 7", "47"), ("aB", "Ab"), ("Mü", "Mu"), ("47\t", "47")])
def test_what_is_no_padding_tells_patients_apart(one: str, other: str) -> None:
    """Blanks before and within a Patient ID count, and so does upper and lower case, as they do for Orthanc."""
    assert patient_id(one) != patient_id(other)


@pytest.mark.parametrize("uid", ["1.2 ", " 1.2", "1.2\0", "1.2 \0", "1.2\0 "])
def test_padding_of_a_uid_counts_for_nothing(uid: str) -> None:
    """A UID is the same with the blanks and NULs around it that some write."""
    assert study_id("A", uid) == study_id("A", "1.2")


@given(st.lists(st.text("A1 .\0é", max_size=4), min_size=1, max_size=4))
def test_digests_are_in_the_order_of_their_identifiers(parts: list[str]) -> None:
    """Sorting digests sorts identifiers, and each is one."""
    digest, other = resource_digest(*parts), resource_digest("X")
    assert (digest < other) == (written(digest) < written(other))
    assert is_resource_id(written(digest)) and written(digest) == resource_id(*parts)


@pytest.mark.parametrize(
    "text",
    ["", "4711", "1.2.840.10008", "e8fed7c5621fcc32f5db606fefee7c98f36cc2fa", "E8FED7C5-621FCC32-F5DB606F-EFEE7C98-F36CC2FA",
     "e8fed7c5-621fcc32-f5db606f-efee7c98-f36cc2f", "e8fed7c5-621fcc32-f5db606f-efee7c98-f36cc2fa\n",
     "55a51498-4bcd-4962-88e1-db145fa7b271"],
)  # fmt: skip
def test_what_is_no_identifier(text: str) -> None:
    """Neither a DICOM identifier nor a UUID is taken for one of Orthanc's."""
    assert not is_resource_id(text)


def test_each_level_has_its_path() -> None:
    """The paths are those of Orthanc's REST API."""
    assert [path(level, "x") for level in ROUTES] == ["/patients/x", "/studies/x", "/series/x", "/instances/x"]
