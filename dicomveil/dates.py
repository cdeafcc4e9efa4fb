"""Dates moved by whole days, a patient's all by the same number (PS3.15 E.3.6, Modified Dates).

What is a date, and what becomes of one that can't be moved, is decided elsewhere.
"""

import datetime
import re
from dataclasses import dataclass
from typing import Any, Final

from dicomveil.keys import Keys

VRS: Final = frozenset(("DA", "DT", "TM"))
"""Those of dates and times."""

_BLANK: Final = r"[ \0]*"
_TIME: Final = r"(?:[01][0-9]|2[0-3])(?:[0-5][0-9](?:(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?"
_OFFSET: Final = r"[+-](?:0[0-9]|1[0-4])[0-5][0-9]"
# What stands before the date, the date, and what stands behind it.
_FORMS: Final = {
    "DA": re.compile(rf"( *)([0-9]{{4}})(\.?)([0-9]{{2}})\3([0-9]{{2}})({_BLANK})"),
    "DT": re.compile(rf"( *)([0-9]{{4}})()([0-9]{{2}})([0-9]{{2}})((?:{_TIME})?(?:{_OFFSET})?{_BLANK})"),
}
# Offset from UTC (PS3.3 C.12.1.1.8): nothing in it moves.
_ZONE: Final = re.compile(rf"{_OFFSET}{_BLANK}")
# As the Standard writes it, or as ACR-NEMA did, with colons (PS3.5 6.2, TM, Note).
_TIME_OF_DAY: Final = re.compile(
    rf" *(?:{_TIME}|(?:[01][0-9]|2[0-3]):[0-5][0-9](?::(?:[0-5][0-9]|60)(?:\.[0-9]{{1,6}})?)?){_BLANK}"
)


_STAYING: Final = {"TM": (_TIME_OF_DAY, "is no time of day"), "SH": (_ZONE, "is no offset from UTC")}

NARROW: Final = 1095
"""Days; a range that spans less than these three years is never used without saying so."""
MOST_DAYS: Final = 36_500
_A_DAY: Final = 86_400  # in seconds; IEEE 1588 counts them in TAI, which has no leap seconds
_PTP: Final = 10  # bytes: 6 of seconds, 4 of nanoseconds, the most significant first
_A_SECOND: Final = 10**9


@dataclass(frozen=True)
class DateRule:
    """How the days are found by which a patient's dates move.

    Attributes:
      fewest, most: days back, of which the key chooses; both possible.
      anchor_to: the day, YYYYMMDD, on which each patient's anchor date comes to lie; "" for a choice by the key.
    """

    fewest: int = 30
    most: int = 3650
    anchor_to: str = ""

    @property
    def narrow(self) -> bool:
        """Whether the days are chosen from so few that a new date tells the old one closely."""
        return not self.anchor_to and self.most - self.fewest < NARROW

    def member(self) -> dict[str, Any]:
        """As a request's body has it."""
        return {"AnchorTo": self.anchor_to} if self.anchor_to else {"Range": [self.fewest, self.most]}


class NoAnchor(ValueError):
    """Dates are to move relative to a patient's anchor date, and there is none that can be used."""


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


def days_of(keys: Keys, identity: str, rule: DateRule, given: int | None = None, anchor: str = "") -> int:
    """By how many days a patient's dates move, whatever decides on it; never 0.

    Args:
      identity: of the patient; one text for one person.
      rule: the request's.
      given: the days of a crosswalk's row, which win over the rule; negative for back. None where it gives none.
      anchor: the patient's anchor date, YYYYMMDD, from a crosswalk or the stored facts, and never from what happens to
        be in a run; "" for none.

    Returns:
      Whole days, negative for back.

    Raises:
      NoAnchor: the rule asks for an anchor date, and there is none, or it lies where it is to come to lie.
      ValueError: a crosswalk gives 0 days, which would leave the dates as they are; or as `shift_days` does.
    """
    if given is not None:
        if not given:
            raise ValueError("0 days would leave dates as they are: a shift is some days back or forth")
        return given
    if not rule.anchor_to:
        return shift_days(keys, identity, (rule.fewest, rule.most))
    days = (_day(rule.anchor_to) - _day(anchor)).days
    if not days:
        raise NoAnchor("the anchor date lies where it is to come to lie: no date would move")
    return days


def is_date(text: str) -> bool:
    """Whether a text is a day of the calendar, YYYYMMDD."""
    try:
        _day(text)
    except NoAnchor:
        return False
    return True


def _day(text: str) -> datetime.date:
    found = re.fullmatch("([0-9]{4})([0-9]{2})([0-9]{2})", text)
    try:
        return datetime.date(*map(int, found.groups() if found else ()))
    except (TypeError, ValueError):
        raise NoAnchor("is no date, which is written YYYYMMDD") from None


def shift(vr: str, value: str, days: int) -> str:
    """Move one DA or DT by whole days; a TM stays as it is, and so does the offset from UTC, the one SH asked for.

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
    if vr in _STAYING:
        form, what = _STAYING[vr]
        if not form.fullmatch(value):
            raise UnshiftableDate(vr, what)
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


def shift_timestamp(vr: str, raw: bytes, days: int) -> bytes:
    """Move a timestamp of IEEE 1588 by whole days: Frame Origin Timestamp (0034,0007).

    Returns:
      As many bytes; the nanoseconds stay.

    Raises:
      UnshiftableDate: it isn't of 10 bytes, its nanoseconds make a second, or its seconds would leave their 48 bits.

    Source: PS3.3 C.7.6.27.1.1.
    """
    if not raw:
        return raw
    if len(raw) != _PTP or int.from_bytes(raw[6:], "big") >= _A_SECOND:
        raise UnshiftableDate(vr, "is no timestamp of IEEE 1588")
    seconds = int.from_bytes(raw[:6], "big") + days * _A_DAY
    if not 0 <= seconds < 1 << 48:
        raise UnshiftableDate(vr, "would leave the seconds of IEEE 1588")
    return seconds.to_bytes(6, "big") + raw[6:]
