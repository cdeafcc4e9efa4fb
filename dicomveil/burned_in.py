"""Whether pixels, sound or a document of an instance may speak of its patient, as far as its attributes tell.

Nothing is looked at or recognized here, and what becomes of an instance at risk is the request's to say.
"""

import csv
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from dicomveil import standard

_TABLE: Final = Path(__file__).parent / "tables" / "burned_in.csv"

QUARANTINE: Final = "quarantine"
WARN: Final = "warn"

_SCREENS: Final = ("SCREEN", "SNAPSHOT", "CAPTURE", "REPORT", "DOSE_INFO")
"""What an Image Type holds where the picture is one of a console or a report page, as makers write it."""

_NO_PICTURES: Final = frozenset(("SR", "KO", "PR"))  # of which some carry the Image Type of what they were made from

_OF_MODALITY: Final = {
    "US": "ultrasound",
    "IVUS": "ultrasound",
    "ES": "photograph",
    "XC": "photograph",
    "OP": "photograph",
    "DMS": "photograph",
    "GM": "photograph",
    "AU": "audio",
}
"""What a Modality stands for in a SOP Class that the Standard doesn't register, which the table can't name."""


class Risk(NamedTuple):
    """Why an instance may still speak of its patient.

    Attributes:
      kind: "burned-in-annotation", where it says so itself; else what it is: "ultrasound", "secondary-capture",
        "screen-save", "hardcopy", "photograph", "video", "whole-slide-label", "audio", "encapsulated-document" or
        "encapsulated-3d".
      verdict: "quarantine" where it does, "warn" where its likes often do and nothing says that it doesn't.
    """

    kind: str
    verdict: str


class Speaking(NamedTuple):
    """A row of the table: a SOP Class whose instances may speak.

    Attributes:
      kind: as in `Risk`.
      when: "" for any instance, "secondary" and "slide-label" for those whose Image Type says so, "document" for those
        whose document is kept.
      reason: what is seen or heard there.
    """

    kind: str
    when: str
    reason: str


@cache
def speaking() -> dict[str, Speaking]:
    """The SOP Classes whose instances may speak, by UID."""
    with _TABLE.open(encoding="utf-8", newline="") as lines:
        return {line["uid"]: Speaking(line["kind"], line["when"], line["reason"]) for line in csv.DictReader(lines)}


def risk(
    sop_class_uid: str,
    image_type: Sequence[str],
    burned_in_annotation: str,
    modality: str,
    specimen_label_in_image: str = "",
    documents_kept: bool = False,
) -> Risk | None:
    """Judge an instance by what it says of itself, and by what it is where it says nothing.

    Its own YES is always believed, and its NO for everything but sound, of which the attribute doesn't speak, and the
    LABEL image of a slide, which is a picture of text whatever it says. An OVERVIEW image takes two: that nothing is
    burned in, and that no specimen label is in the image.

    Args:
      image_type: (0008,0008), one string a value; empty where it is absent.
      burned_in_annotation: (0028,0301), "" where it is absent; anything but YES and NO counts as absent.
      modality: (0008,0060).
      specimen_label_in_image: (0048,0010).
      documents_kept: whether an encapsulated document is kept. One that a dummy replaces says nothing any more, even
        where Burned In Annotation, which is of the document there, is YES.

    Returns:
      None where nothing is to be feared.

    Source: PS3.3 C.7.6.1, C.8.12.4, C.24.2; PS3.15 E.3.1.
    """
    row = speaking().get(sop_class_uid)
    types = [value.strip(" \0").upper() for value in image_type]
    answer, label = _term(burned_in_annotation), _term(specimen_label_in_image)
    if row and row.when == "document" and not documents_kept:
        return None
    if answer == "YES":
        return Risk("burned-in-annotation", QUARANTINE)
    if row and row.when == "slide-label" and _shows_label(types, answer, label):
        return Risk(row.kind, QUARANTINE)
    kind = _kind(row, sop_class_uid, types, _term(modality))
    return Risk(kind, WARN) if kind == "audio" or (kind and answer != "NO") else None


def _term(value: str) -> str:
    return value.strip(" \0").upper()


def _shows_label(types: list[str], burned_in: str, specimen_label: str) -> bool:
    """Whether the image of a slide shows its label (PS3.3 C.8.12.4.1.1)."""
    overview = "OVERVIEW" in types and not burned_in == specimen_label == "NO"
    return "LABEL" in types or overview or specimen_label == "YES"


def _kind(row: Speaking | None, sop_class_uid: str, types: list[str], modality: str) -> str:
    """What an instance is that may speak; "" for others."""
    if modality not in _NO_PICTURES and any(word in value for value in types for word in _SCREENS):
        return "screen-save"
    if row and row.when in ("", "document"):
        return row.kind
    if row and row.when == "secondary":
        return row.kind if types[1:2] == ["SECONDARY"] else ""
    if row is None and sop_class_uid not in standard.registered_uids():
        return _OF_MODALITY.get(modality, "")
    return ""
