"""What the Options of PS3.15 E.3 make of a row of Table E.1-1, and who wins where several speak.

An Option overrides the Basic Profile, whether it retains or cleans (E.1.1). The Standard gives no order among Options:
cleaning wins over keeping, and a date that many instances of many patients share wins over both.
"""

from typing import Final

from dicomveil import dates, standard

TEXT: Final = "C text"
"""Cleaned: reduced to a vocabulary (E.3.5, E.3.7, E.3.8)."""
DATES: Final = "C dates"
"""Cleaned: moved by the patient's days (E.3.6)."""
STRUCTURED: Final = "C structured"
"""Cleaned by concept name (E.3.4)."""
GRAPHICS: Final = "C graphics"
"""Cleaned of text, drawings stay (E.3.3)."""
CLEANED: Final = frozenset((TEXT, DATES, STRUCTURED, GRAPHICS))

_CLEANS: Final = {
    "patient": TEXT,
    "device": TEXT,
    "descriptors": TEXT,
    "modified_dates": DATES,
    "structured": STRUCTURED,
    "graphics": GRAPHICS,
}
_SHARED_DATES: Final = frozenset(
    """ContextGroupVersion ContextGroupLocalVersion TemplateVersion TemplateLocalVersion CertifiedTimestamp
    DigitalSignatureDateTime ProductExpirationDateTime EffectiveDateTime EthicsCommitteeApprovalEffectivenessStartDate
    EthicsCommitteeApprovalEffectivenessEndDate""".split()  # noqa: SIM905
)
"""Dates of devices, certificates, products, trials and vocabularies beside the rows of Retain Device Identity: many
patients share them and anybody may know them, so moved by one patient's days they would tell these."""

_SHARED_SUPPLEMENTED: Final = frozenset(
    ["DateOfGainCalibration", "TimeOfGainCalibration", "ExpiryDate", "ProcedureCreationDate", "ProcedureExpirationDate"]
)
FULL: Final = "RetainLongitudinalFullDates"
MODIFIED: Final = "RetainLongitudinalModifiedDates"


def shared_date(row: standard.Row) -> bool:
    """Whether a row is a date that one patient's days must never move."""
    return bool(row.modified_dates) and (row.device == "K" or row.keyword in _SHARED_DATES)


def code_of(row: standard.Row, options: tuple[str, ...]) -> tuple[str, str]:
    """The action code of a row under some Options, and the Option that says so; "" where the Basic Profile does."""
    if shared_date(row):
        return ("K", FULL) if FULL in options else (row.basic, "")
    kept = ""
    for option in options:
        column = standard.OPTION_COLUMNS[option]
        cell = getattr(row, column, "")
        if cell == "C" and column in _CLEANS:
            return _CLEANS[column], option
        if cell == "K":
            kept = kept or option
    return ("K", kept) if kept else (row.basic, "")


def supplemented(row: standard.SupplementRow, options: tuple[str, ...]) -> tuple[str, str]:
    """The same for an attribute that Table E.1-1 doesn't name: dates and references as the Options treat their like."""
    vr = standard.dictionary()[standard.tag_number(row.tag)].vr
    if row.action == "U" and "RetainUIDs" in options:
        return "K", "supplement RetainUIDs"
    if vr in dates.VRS and row.action != "K":
        if FULL in options:
            return "K", f"supplement {FULL}"
        if MODIFIED in options and row.keyword not in _SHARED_SUPPLEMENTED:
            return DATES, f"supplement {MODIFIED}"
    return row.action, "supplement"
