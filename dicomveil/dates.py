"""Dates moved by whole days, a patient's all by the same number (PS3.15 E.3.6, Modified Dates).

What is a date, and what becomes of one that can't be moved, is decided elsewhere.
"""

import datetime
import re
from typing import Final

from dicomveil.keys import Keys

_BLANK: Final = r"[ \0]*"
_TIME: Final = r"(?:[01][0-9]|2[0-3])(?:[0-5][0-9](?:(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?"
_OFFSET: Final = r"[+-](?:0[0-9]|1[0-4])[0-5][0-9]"
# What stands before the date, the date, and what stands behind it.
_FORMS: Final = {
    "DA": re.compile(rf"( *)([0-9]{{4}})(\.?)([0-9]{{2}})\3([0-9]{{2}})({_BLANK})"),
    "DT": re.compile(rf"( *)([0-9]{{4}})()([0-9]{{2}})([0-9]{{2}})((?:{_TIME})?(?:{_OFFSET})?{_BLANK})"),
}
# As the Standard writes it, or as ACR-NEMA did, with colons (PS3.5 6.2, TM, Note).
_TIME_OF_DAY: Final = re.compile(
    rf" *(?:{_TIME}|(?:[01][0-9]|2[0-3]):[0-5][0-9](?::(?:[0-5][0-9]|60)(?:\.[0-9]{{1,6}})?)?){_BLANK}"
)


class UnshiftableDate(ValueError):
    """A value that no number of days moves.

    Attributes:
      vr: its VR.
      what: why, "is ..." or "has ...", never with the value.
    """

    def __init__(self, vr: str, what: str) -> None:
        super().__init__(f"{vr} {what}")
        self.vr, self.what = vr, what

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.vr, self.what)


def shift_days(keys: Keys, patient: str, range: tuple[int, int] = (30, 3650)) -> int:
    """By how many days a patient's dates move: always the same under one key, and unknown without it.

    Args:
      patient: the patient's identity, one text for one person, such as the known Patient ID.
      range: the fewest and the most days, both at least 1 and both possible.

    Returns:
      Whole days, negative: dates move back, so that none comes to lie in the future.

    Raises:
      ValueError: there is no identity, or no such range.
    """
    fewest, most = range
    if not patient:
        raise ValueError("no patient, no shift: an empty identity would be shared by all who have none")
    if not 0 < fewest <= most:
        raise ValueError("a range of days begins at 1 or more and doesn't end before it begins")
    # 256 bits against a few thousand days: no day is likelier than another by more than 2^-240.
    return -(fewest + int.from_bytes(keys.derive("date-shift", patient.encode("utf-8")), "big") % (most - fewest + 1))


def shift(vr: str, value: str, days: int) -> str:
    """Move one DA or DT by whole days; a TM stays as it is.

    Only the date moves; time of day, fraction and UTC offset stay as written, and so do the precision, the dots of
    the form that ACR-NEMA had, and blanks around the value. With an offset it is the local date that moves.

    Args:
      value: one value, not a backslash list; an empty or blank one is returned as it is.
      days: negative for back.

    Returns:
      A value of the same VR and length.

    Raises:
      UnshiftableDate: it isn't a full date, or no date, or time, at all; it is a range; it would leave the years 1
        to 9999.

    Source: PS3.15 E.3.6; PS3.5 6.2 (DA, DT, TM).
    """
    if not value.strip(" \0"):
        return value
    if vr == "TM":
        if not _TIME_OF_DAY.fullmatch(value):
            raise UnshiftableDate(vr, "is no time of day")
        return value
    if vr not in _FORMS:
        raise UnshiftableDate(vr, "is no VR of dates")
    found = _FORMS[vr].fullmatch(value)
    if not found:
        raise UnshiftableDate(vr, "is no full date")
    before, year, dot, month, day, behind = found.groups()
    try:
        moved = datetime.date(int(year), int(month), int(day)) + datetime.timedelta(days)
    except (ValueError, OverflowError):
        raise UnshiftableDate(vr, "is no day of the calendar, or would become none") from None
    return f"{before}{moved.year:04}{dot}{moved.month:02}{dot}{moved.day:02}{behind}"


def shift_values(vr: str, raw: bytes, days: int) -> bytes:
    """Move every value of an encoded element.

    Returns:
      As many bytes.

    Raises:
      UnshiftableDate: one of the values can't be moved; then none is.
    """
    if not raw.isascii():
        raise UnshiftableDate(vr, "has bytes that no date has")
    return "\\".join(shift(vr, value, days) for value in raw.decode("ascii").split("\\")).encode("ascii")
