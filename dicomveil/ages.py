"""Ages over 89 years, of which few reach one: how they are told, and what is written instead.

Where ages stand in a data set is not known here.
"""

import re
from typing import Final

OLDEST: Final = "090Y"
"""What every age over 89 becomes: 90 years or more."""
BIRTH_DATES: Final = (0x00100030, 0x00100033)
"""Patient's Birth Date, and the same in an alternative calendar: beside any other date they tell the age."""
CONCEPTS: Final = frozenset(
    (
        ("DCM", "121033"),  # Subject Age
        ("SCT", "397669002"),  # Age
        ("SCT", "424144002"),  # Current chronological age
        ("LN", "30525-0"),  # Age
        ("LN", "21612-7"),  # Age, as reported
        ("LN", "29553-5"),  # Age, calculated
    )
)
"""What Content Items call an age of a person, by scheme and code."""

_YEARS: Final = 90
# How many of a unit the youngest of those has lived; of days the fewest, without leap years.
_LEAST: Final = {"Y": _YEARS, "M": 12 * _YEARS, "W": -(-365 * _YEARS // 7), "D": 365 * _YEARS}
_UCUM: Final = {
    "a": _LEAST["Y"], "mo": _LEAST["M"], "wk": _LEAST["W"], "d": _LEAST["D"], "h": 24 * _LEAST["D"],
    "min": 1440 * _LEAST["D"], "s": 86_400 * _LEAST["D"],
}  # fmt: skip
_AGE: Final = re.compile(r"[ \0]*([0-9]+)[ ]*([DWMYdwmy]?)[ \0]*")
_NUMBER: Final = re.compile(r"[ \0]*([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]{1,3})?)\.?[ \0]*")


def capped(value: str) -> str:
    """One value of AS, or what is written instead.

    Returns:
      The value itself up to 89 years; `OLDEST` above that; "" for what nobody can read as an age.

    Source: PS3.5 6.2 (AS), of which this also takes fewer or more digits, and no unit, for years.
    """
    if not value.strip(" \0"):
        return value
    age = _AGE.fullmatch(value)
    if not age:
        return ""
    return OLDEST if int(age[1]) >= _LEAST[age[2].upper() or "Y"] else value


def is_old(number: str, unit: str) -> bool:
    """Whether a number of units of time is an age over 89; also where that can't be told.

    Args:
      number: a DS.
      unit: of UCUM; one that isn't known is taken for years.
    """
    found = _NUMBER.fullmatch(number)
    return not found or float(found[1]) >= _UCUM.get(unit.split("_")[0], _YEARS)
