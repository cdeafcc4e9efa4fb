"""What may speak of its patient in pixels, sound or a document is told by its attributes (PS3.15 E.3.1)."""

from itertools import product
from pathlib import Path

import pytest
import yaml

from dicomveil import standard
from dicomveil.burned_in import Risk, risk, speaking

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "burned_in.yaml").read_text(encoding="utf-8"))
STORAGE = "1.2.840.10008.5.1.4.1.1."
CLASSES = {
    "CT": STORAGE + "2",
    "MR": STORAGE + "4",
    "CR": STORAGE + "1",
    "US": STORAGE + "6.1",
    "SC": STORAGE + "7",
    "SR": STORAGE + "88.22",
    "SM": STORAGE + "77.1.6",
    "ES": STORAGE + "77.1.1",
    "OP": STORAGE + "77.1.5.1",
    "VIDEO": STORAGE + "77.1.1.1",
    "VOICE": STORAGE + "9.4.1",
    "PDF": STORAGE + "104.1",
    "STL": STORAGE + "104.3",
    "RAW": STORAGE + "66",
    "PRIVATE": "1.3.46.670589.5.0.1.1",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_each_instance_is_judged_as_its_case_says(case: list) -> None:
    """Each case comes to the risk that it names, or to none."""
    _, (sop_class, image_type, burned_in, modality, label), expected, *more = case
    types = image_type.split("\\") if image_type else []
    found = risk(CLASSES[sop_class], types, burned_in, modality, label, documents_kept="documents" in more)
    assert found == (None if expected == "none" else Risk(*expected.split()))


def test_the_table_names_registered_sop_classes() -> None:
    """Every row is a SOP Class of the Standard, with a reason and a condition that is known."""
    assert speaking().keys() <= standard.registered_uids()
    assert {row.when for row in speaking().values()} == {"", "secondary", "slide-label", "document"}
    assert all(row.kind and row.reason for row in speaking().values())


@pytest.mark.parametrize("uid", speaking())
def test_what_says_yes_never_passes_but_for_a_dummy(uid: str) -> None:
    """Burned In Annotation YES is a quarantine in every SOP Class, but where a dummy replaces what it speaks of."""
    for types, kept in product([[], ["DERIVED", "SECONDARY", "LABEL"]], [False, True]):
        found = risk(uid, types, "YES", "", documents_kept=kept)
        if speaking()[uid].when == "document" and not kept:
            assert found is None
        else:
            assert found == Risk("burned-in-annotation", "quarantine")


@pytest.mark.parametrize("uid", [uid for uid, row in speaking().items() if not row.when])
def test_what_says_nothing_is_warned_of(uid: str) -> None:
    """A class whose instances usually hold text or a voice is warned of where it says nothing."""
    assert risk(uid, [], "", "") == Risk(speaking()[uid].kind, "warn")
