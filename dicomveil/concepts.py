"""What becomes of a Content Item by its concept name (PS3.15 E.3.4, Table E.3.4-1).

What is written in an Item's place, and the rules for text and dates, are not known here.
"""

from collections.abc import Mapping
from functools import cache
from typing import Final, NamedTuple

from dicomveil import standard

REFERENCES: Final = frozenset(("COMPOSITE", "IMAGE", "WAVEFORM"))
"""The Value Types of Items that refer to an instance."""
_VALUES: Final = frozenset(("CODE", "DATE", "DATETIME", "NUM", "PNAME", "TEXT", "TIME", "UIDREF"))
BY_VALUE_TYPE: Final = {
    "PNAME": "dummy",
    "TEXT": "clean",
    "UIDREF": "uid",
    **dict.fromkeys(("DATE", "DATETIME", "TIME"), "date"),
    **dict.fromkeys(REFERENCES, "keep"),
    **dict.fromkeys(("CODE", "CONTAINER", "NUM", "SCOORD", "SCOORD3D", "TABLE", "TCOORD"), "keep"),
}
_CLEANED: Final = {"TEXT": "clean", "DATE": "date", "DATETIME": "date", "TIME": "date"}
_DUMMIES: Final = {"UIDREF": "uid", **dict.fromkeys(_VALUES - {"UIDREF"}, "dummy")}
_STRICTEST_FIRST: Final = ("remove", "dummy", "uid", "date", "clean", "keep")


class Row(NamedTuple):
    """A row of Table E.3.4-1; the columns as in Table E.1-1, the scheme with its version in brackets."""

    code_meaning: str
    code_value: str
    scheme: str
    value_type: str
    basic: str
    uids: str
    device: str
    institution: str
    patient: str
    full_dates: str
    modified_dates: str
    descriptors: str


@cache
def rows(edition: str) -> tuple[Row, ...]:
    """Table E.3.4-1 as an edition of PS3.15 has it; as 2019c has it, the first, for editions before it."""
    return tuple(Row(*line) for line in standard.lines_in_force("structured_content", edition))


@cache
def _current() -> dict[tuple[str, str], tuple[str, str]]:
    """The concepts of the table that have a retired code, by scheme and code (PS3.16 Annex O)."""
    return {(scheme, code): (current, its) for scheme, code, current, its in standard.lines("retired_concepts.csv")}


def concept(scheme: str, code: str) -> tuple[str, str]:
    """A concept by the scheme and code that the table has: any version, any case of the scheme, retired or not."""
    scheme = scheme.split(" [")[0].strip().upper()
    return _current().get((scheme, code), (scheme, code))


class Concepts:
    """What becomes of Content Items in one edition under a set of Options (PS3.15 E.3.4).

    Where an Item's concept stands in Table E.3.4-1 with its Value Type, the row decides, and there an Option that
    speaks of it before the Basic Profile; of two Options the one that cleans wins. Of X/D, which depends on the
    Template, D is taken: it leaves every Template whole.

    A concept that stands there under another Value Type is no known way to encode it. It gets the strictest of its
    rows, as far as they are of the same kind (references, or values that aren't a mere description), and of what its
    own Value Type asks for, so that a birth date isn't kept because somebody wrote it as text.

    Args:
      edition: of PS3.15.
      options: the Options of the request; others than the table's columns say nothing here.
    """

    def __init__(self, edition: str, options: frozenset[str]) -> None:
        asked = {standard.OPTION_COLUMNS[option] for option in options}
        self._columns = tuple(column for column in Row._fields if column in asked)
        self._rows: dict[tuple[str, str], list[Row]] = {}
        for row in rows(edition):
            self._rows.setdefault(concept(row.scheme, row.code_value), []).append(row)

    def treatment(self, value_type: str, scheme: str, code: str) -> str:
        """What becomes of a Content Item.

        Returns:
          "keep": its value stays, what it refers to and what it holds follows the ordinary rules. For TEXT, PNAME,
            UIDREF, DATE, TIME and DATETIME this is only ever what an Option retains, against the ordinary rules.
          "remove": the Item goes with all that is below it. Also the answer for a Value Type that PS3.3 doesn't know.
          "dummy": it stays, and what stands in its `VALUE_ATTRIBUTES` is replaced.
          "uid": it stays, and its UID is mapped, which is the dummy of a UID. The dummy of a reference is "keep": the
            UIDs in it are mapped anyway.
          "date": it stays, and its date follows the request's rule for dates.
          "clean": it stays, and its text is cleaned; without a vocabulary that is "dummy".
        """
        default = BY_VALUE_TYPE.get(value_type)
        if default is None:
            return "remove"
        known = self._rows.get(concept(scheme, code), ())
        for row in known:
            if row.value_type == value_type:
                return self._treatment(row, value_type)
        alike = {self._treatment(row, value_type) for row in known if _alike(row, value_type)}
        return min({default} | alike, key=_STRICTEST_FIRST.index)

    def _treatment(self, row: Row, value_type: str) -> str:
        """What a row makes of an Item of a Value Type, which may be another than the row's."""
        cells = {getattr(row, column) for column in self._columns}
        if "C" in cells:
            return _CLEANED.get(value_type) or dummy_treatment(value_type)
        if "K" in cells:
            return "keep"
        return "remove" if row.basic == "X" else dummy_treatment(value_type)


def _alike(row: Row, value_type: str) -> bool:
    """Whether a row's action makes sense on another Value Type than its own."""
    if value_type in REFERENCES:
        return row.value_type in REFERENCES
    return value_type in _VALUES and row.value_type in _VALUES and not row.descriptors


def dummy_treatment(value_type: str) -> str:
    """D on a Value Type: a dummy for values, a mapped UID for a UID; of what has no value of its own, all stays."""
    return _DUMMIES.get(value_type, "keep")


VALUE_ATTRIBUTES: Final[Mapping[str, tuple[int, ...]]] = {
    "TEXT": (0x0040A160, 0x00700006),
    "CODE": (0x0040A168,),
    "NUM": (0x0040A300, 0x0040A30A, 0x0040A161, 0x0040A162, 0x0040A163),
    "PNAME": (0x0040A123,),
    "UIDREF": (0x0040A124,),
    "DATE": (0x0040A121,),
    "TIME": (0x0040A122,),
    "DATETIME": (0x0040A120,),
}
"""The attributes that hold an Item's value, by Value Type; references and coordinates have none here. A dummy takes the
place of those that are there, and none is added. That of Measured Value Sequence (0040,A300) has no Items: it is of
Type 2, so this says that there is no value."""
