"""What an output says of its own de-identification is legal, and tells nothing but that."""

import re

from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.uid import UID
from pydicom.valuerep import validate_value

from dicomveil import marks, standard
from dicomveil.compile import RECIPE
from dicomveil.dummies import Node


@given(st.sampled_from(standard.EDITIONS), st.integers(1, 9999))
def test_the_method_fits_an_lo(edition: str, recipe: int) -> None:
    """The text is one value of at most 64 characters, and names edition, profile and recipe (PS3.15 E.1.1-6)."""
    for claims in (("",), ("", "RetainUIDs"), ()):
        text = marks.method_text(edition, recipe, claims, "0123456789abcdef")
        assert len(text) <= 64 and "\\" not in text and text.isascii() and str(recipe) in text
        assert (edition in text and "Basic Profile" in text) == bool(claims)


def test_the_tags_are_the_standards() -> None:
    """Each mark stands where PS3.3 C.7.1.1 and C.7.6 put it."""
    told = {
        marks.PATIENT_IDENTITY_REMOVED: "PatientIdentityRemoved",
        marks.DEIDENTIFICATION_METHOD: "DeidentificationMethod",
        marks.DEIDENTIFICATION_METHOD_CODE_SEQUENCE: "DeidentificationMethodCodeSequence",
        marks.LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED: "LongitudinalTemporalInformationModified",
    }
    assert {tag: keyword_for_tag(tag) for tag in told} == told


def test_the_profile_is_coded() -> None:
    """One Item names the Basic Profile by its code of CID 7050."""
    (item,) = marks.code_items(("",))
    assert item == (
        Node(0x00080100, "SH", b"113100"),
        Node(0x00080102, "SH", b"DCM"),
        Node(0x00080104, "LO", b"Basic Application Confidentiality Profile"),
    )
    for node in item:
        assert node.vr == dictionary_VR(node.tag) and isinstance(node.value, bytes)
        validate_value(node.vr, node.value.decode(), 2)


def test_the_implementation_is_named_by_recipe() -> None:
    """A release that changes no output changes no byte: neither name holds the package's version."""
    assert UID(marks.IMPLEMENTATION_CLASS_UID).is_valid and marks.IMPLEMENTATION_CLASS_UID.startswith("2.25.")
    assert re.fullmatch(r"DICOMVEIL_\d+", marks.IMPLEMENTATION_VERSION_NAME)
    assert len(marks.IMPLEMENTATION_VERSION_NAME) <= 16


def test_the_recipes_agree() -> None:
    """File meta and De-identification Method tell of the same recipe."""
    assert f"DICOMVEIL_{RECIPE}" == marks.IMPLEMENTATION_VERSION_NAME
