"""What may stand in a row of a crosswalk: which values are legal, and what is told of one that isn't.

Rows are looked at many at a time; those of which that doesn't show at once that they are right are looked at singly.
"""

import datetime
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dicomveil import standard
from dicomveil.dates import is_date
from dicomveil.pseudonyms import PLACEHOLDERS, known_patient_id
from dicomveil.values import Named, ValueProblem, parse_value

PATIENT: Final = "patient"
UID: Final = "uid"
KINDS: Final = (PATIENT, UID)

_ROLES: Final = (PATIENT, "study", "series", "instance", "frame-of-reference", "other", UID)
_BLANKS: Final = " \0"
_LONGEST: Final = 64  # of LO and of UI, in characters (PS3.5 6.2)
_VRS: Final = {PATIENT: "LO", UID: "UI"}
# Dates of living and late patients, and of devices to come, must stay in the years 1 to 9999.
_FEWEST_DAYS: Final = (datetime.date.min - datetime.date(1850, 1, 1)).days
_MOST_DAYS: Final = (datetime.date.max - datetime.date(2100, 1, 1)).days

_ASCII_ID: Final = r"\A[!-\[\]-~](?:[ -\[\]-~]{0,62}[!-\[\]-~])?\z"
_PLAIN_UID: Final = r"\A(?:2\.(?:0|[1-9][0-9]*)|[01]\.(?:[0-9]|[1-3][0-9]))(?:\.(?:0|[1-9][0-9]*))*\z"
_PLAIN_DAYS: Final = r"\A(?:-?[1-9][0-9]{0,4})?\z"


class Row(NamedTuple):
    """One row as text, blanks around its values dropped; "" for nothing."""

    original: str
    new: str
    role: str
    issuer: str
    days: str
    anchor: str


def normalized(rows: pa.Table, ours: bool) -> pa.Table:
    """Rows without the blanks around their values, which count nowhere, their roles and days written as they are here.

    Args:
      ours: whether a run wrote them, to whose tables a shift of 0 days means none.
    """
    for at, name in enumerate(Row._fields):
        values = pc.utf8_trim(rows.column(name), characters=_BLANKS)
        if name == "role":
            values = pc.replace_substring_regex(pc.ascii_lower(values), "[_ ]", "-")
        elif name == "days":
            values = pc.replace_substring_regex(values, r"\A(?:\+|(-))?0*([1-9])", r"\1\2")
            values = pc.replace_substring_regex(values, r"\A0\z", "") if ours else values
        rows = rows.set_column(at, name, values)
    return rows


def kept_as_they_are(rows: pa.Table) -> np.ndarray:
    """Which rows name a registered UID as its own new one: right, and of no effect."""
    same = pc.and_(pc.equal(rows.column("original"), rows.column("new")), pc.not_equal(rows.column("role"), PATIENT))
    return _numpy(pc.and_(same, pc.is_in(rows.column("original"), _registered())))


def of_no_effect(rows: pa.Table) -> np.ndarray:
    """Which rows of our own tables say nothing of a value: of studies without Patient ID, and of values that stayed."""
    return _numpy(pc.or_(pc.equal(rows.column("original"), ""), pc.equal(rows.column("original"), rows.column("new"))))


def are_patients(rows: pa.Table) -> np.ndarray:
    """Which rows are patients; the others are UIDs."""
    return _numpy(pc.equal(rows.column("role"), PATIENT))


def doubtful(rows: pa.Table) -> np.ndarray:
    """Which rows may be wrong; of the others, `mistakes` has nothing to tell."""
    columns = {name: rows.column(name) for name in Row._fields}
    original, new = columns["original"], columns["new"]
    patient = pc.and_kleene(
        pc.and_(_matches(original, _ASCII_ID), _matches(new, _ASCII_ID)),
        pc.and_(_matches(columns["days"], _PLAIN_DAYS), pc.equal(columns["anchor"], "")),
    )
    named = pc.and_(pc.invert(_is_placeholder(original)), pc.invert(_is_placeholder(new)))
    uid = pc.and_(pc.is_in(columns["role"], pa.array(_ROLES[1:])), _matches(new, _PLAIN_UID))
    uid = pc.and_(uid, pc.and_(_matches(original, _ASCII_ID), pc.less_equal(pc.binary_length(new), _LONGEST)))
    registered = pc.or_(pc.is_in(original, _registered()), pc.is_in(new, _registered()))
    bare = pc.equal(pc.binary_join_element_wise(columns["issuer"], columns["days"], columns["anchor"], ""), "")
    uid = pc.and_(uid, pc.and_(bare, pc.invert(registered)))
    right = pc.if_else(pc.equal(columns["role"], PATIENT), pc.and_(patient, named), uid)
    return ~_numpy(pc.and_(right, pc.not_equal(original, new)))


def _matches(values: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    return pc.match_substring_regex(values, pattern)


def _is_placeholder(values: pa.ChunkedArray) -> pa.ChunkedArray:
    plain = pc.replace_substring(pc.ascii_upper(values), " ", "")
    return pc.is_in(plain, pa.array(sorted(PLACEHOLDERS)))


def _registered() -> pa.Array:
    return pa.array(sorted(standard.registered_uids()))


def _numpy(values: pa.ChunkedArray) -> np.ndarray:
    return values.combine_chunks().to_numpy(zero_copy_only=False)


def mistakes(row: Row) -> Iterator[tuple[str, str]]:
    """What is wrong with one row, and the remedy, in words that hold no value.

    Args:
      row: normalized.
    """
    if row.role not in _ROLES:
        yield "has an unknown role", f"write one of {', '.join(_ROLES)}"
        return
    yield from _of_patient(row) if row.role == PATIENT else _of_uid(row)
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in row.original):
        yield "`original` has control characters", "look for a quotation mark that isn't closed"
    if row.new == "":
        yield "`new` is blank", "leave the row out, or write the value"
    elif row.new == row.original:
        yield "`new` is the original", "write another value, or keep the attribute by the request"
    else:
        yield from _of_new(row)


def _of_patient(row: Row) -> Iterator[tuple[str, str]]:
    if not known_patient_id(row.original):
        yield "`original` names nobody", "leave the row out: blanks, 0, UNKNOWN and their like are no patient's"
    if row.new and not known_patient_id(row.new):
        yield "`new` names nobody", "write an ID that no one takes for a placeholder"
    if row.days and not _is_shift(row.days):
        yield "`days` is no shift of dates", "write whole days but 0, so that dates stay in the years 1 to 9999"
    if row.anchor and not is_date(row.anchor):
        yield "`anchor` is no day of the calendar", "write YYYYMMDD"


def _of_uid(row: Row) -> Iterator[tuple[str, str]]:
    if not row.original:
        yield "`original` is blank", "leave the row out, or write the value"
    if row.original in standard.registered_uids() and row.new != row.original:
        yield "`original` is a UID that the Standard registers", "leave the row out: these are never mapped"
    if row.new in standard.registered_uids() and row.new != row.original:
        yield "`new` is a UID that the Standard registers", "write one of your own"
    for name in ("issuer", "days", "anchor"):
        if getattr(row, name):
            yield f"`{name}` is given for a UID", "give it for patients alone"


def _of_new(row: Row) -> Iterator[tuple[str, str]]:
    vr = _VRS[PATIENT if row.role == PATIENT else UID]
    if len(row.new) > _LONGEST:
        yield f"`new` is longer than {vr} allows", f"write up to {_LONGEST} characters"
        return
    try:
        parse_value(vr, "1", row.new, _no_attribute)
    except ValueProblem as bad:
        yield f"`new` {bad.what}", bad.remedy


def _no_attribute(name: str) -> Named:
    raise ValueProblem("names an attribute", "write text")  # never asked for LO and UI


def _is_shift(text: str) -> bool:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 7):
        return False
    return _FEWEST_DAYS <= int(text) <= _MOST_DAYS and int(text) != 0
