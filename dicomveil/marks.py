"""What the output says of its own de-identification (PS3.15 2026d E.1.1 items 6 and 7, E.2), as plain data."""

from typing import Final

from dicomveil import standard
from dicomveil.dummies import Node

PATIENT_IDENTITY_REMOVED: Final = 0x00120062
DEIDENTIFICATION_METHOD: Final = 0x00120063
DEIDENTIFICATION_METHOD_CODE_SEQUENCE: Final = 0x00120064
LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED: Final = 0x00280303

IMPLEMENTATION_CLASS_UID: Final = "2.25.316237943722862604735837294208254297353"
IMPLEMENTATION_VERSION_NAME: Final = "DICOMVEIL_3"
"""Carries the recipe's number, never the package's version: a new version that changes no output changes no byte."""


def method_text(edition: str, recipe: int, claims: tuple[str, ...], fingerprint: str) -> str:
    """The value added to De-identification Method: at most 64 characters, as LO demands.

    Args:
      claims: the Options whose codes are written, "" for the profile; none where the request follows site rules.
    """
    if not claims:
        return f"dicomveil recipe {recipe}, site rules {fingerprint}"
    return f"dicomveil recipe {recipe}, PS3.15 {edition} Basic Profile" + ("" if len(claims) == 1 else " and Options")


def code_items(claims: tuple[str, ...]) -> tuple[tuple[Node, ...], ...]:
    """The Items added to De-identification Method Code Sequence, one a Profile or Option (PS3.16 CID 7050)."""
    codes = standard.profile_codes()
    return tuple(
        (
            Node(0x00080100, "SH", codes[claim].value.encode()),
            Node(0x00080102, "SH", b"DCM"),
            Node(0x00080104, "LO", codes[claim].meaning.encode()),
        )
        for claim in claims
    )
