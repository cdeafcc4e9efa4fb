"""Dates move by whole days and by nothing else (PS3.15 E.3.6; `tests/cases/dates.yaml`)."""

import datetime
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from dicomveil.dates import (
    DateRule,
    NoAnchor,
    UnshiftableDate,
    days_of,
    is_date,
    shift,
    shift_days,
    shift_timestamp,
    shift_values,
)
from dicomveil.keys import Keys

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "dates.yaml").read_text(encoding="utf-8"))
KEYS = Keys(bytes(range(32)))
DATES = st.dates(datetime.date(1100, 1, 1), datetime.date(8900, 12, 31))
DAYS = st.integers(-400_000, 400_000)
BEHIND = st.sampled_from(["", "23", "2359", "235960", "000000.0", "120000.123456", "120000.5+0200", "-1200", "+1400"])
BLANKS = st.sampled_from(["", " ", "   "])


def each(member: str) -> Iterator[Any]:
    for case in CASES:
        for value, expected in case.get(member, {}).items():
            yield pytest.param(case["vr"], case["days"], value, expected, id=f"{case['vr']} {case['days']} {value!a}")


@pytest.mark.parametrize(("vr", "days", "before", "after"), each("moved"))
def test_only_the_date_moves(vr: str, days: int, before: str, after: str) -> None:
    """Time of day, fraction, UTC offset, dots and blanks stay as written; calendar and leap days are kept."""
    assert shift(vr, before, days) == after
    assert shift_values(vr, before.encode(), days) == after.encode()


@pytest.mark.parametrize(("vr", "days", "value", "what"), each("refused"))
def test_what_has_no_day_is_refused(vr: str, days: int, value: str, what: str) -> None:
    """A partial date, a range, or what is no date isn't guessed at, and never quoted."""
    with pytest.raises(UnshiftableDate) as caught:
        shift(vr, value, days)
    assert caught.value.vr == vr and what in caught.value.what
    assert value not in str(caught.value) and "Bodox" not in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).what == caught.value.what


def test_an_element_moves_whole_or_not_at_all() -> None:
    """Of several values each moves; where one can't, the element doesn't."""
    assert shift_values("DA", b"20240301\\\\20240101 ", -1) == b"20240229\\\\20231231 "
    for raw in (b"20240301\\2024", b"20240301\\\xb2", b"20240301\\Bodox"):
        with pytest.raises(UnshiftableDate):
            shift_values("DA", raw, -1)


@given(DATES, DATES, DAYS, BEHIND, BLANKS)
def test_shifting_keeps_intervals(
    first: datetime.date, second: datetime.date, days: int, behind: str, blanks: str
) -> None:
    """For every two dates and every shift: the days between them, the length and what follows stay as they were."""
    values = [f"{date:%Y%m%d}{behind}{blanks}" for date in (first, second)]
    moved = [shift("DT", value, days) for value in values]
    assert all(new[8:] == behind + blanks and len(new) == len(old) for new, old in zip(moved, values, strict=True))
    dates = [datetime.date.fromisoformat(f"{new[:4]}-{new[4:6]}-{new[6:8]}") for new in moved]
    assert dates[1] - dates[0] == second - first and dates[0] - first == datetime.timedelta(days)


@given(DATES, DAYS, st.sampled_from(["%Y%m%d", "%Y.%m.%d"]), BLANKS)
def test_shifting_back_undoes_it(date: datetime.date, days: int, form: str, blanks: str) -> None:
    """For every date and every shift: minus as many days gives the value that was there."""
    value = date.strftime(form) + blanks
    assert shift("DA", shift("DA", value, days), -days) == value


@given(st.sampled_from(["DA", "DT", "TM"]), st.text("0123456789.:+- \0", max_size=28), DAYS)
def test_the_length_stays(vr: str, value: str, days: int) -> None:
    """For every text: it is refused, or what comes out has its length, and a TM is what it was."""
    try:
        new = shift(vr, value, days)
    except UnshiftableDate:
        return
    assert len(new) == len(value)
    assert vr != "TM" or new == value


@given(st.text(min_size=1), st.integers(1, 5000), st.integers(0, 5000))
def test_a_patients_days_stay_in_their_range(patient: str, fewest: int, more: int) -> None:
    """For every patient and range: whole days back, at least the fewest and at most the most, and the same again."""
    assume(patient.isprintable())
    days = shift_days(KEYS, patient, (fewest, fewest + more))
    assert fewest <= -days <= fewest + more
    assert days == shift_days(Keys(bytes(range(32))), patient, (fewest, fewest + more))


def test_every_day_is_as_likely() -> None:
    """Over many patients each day of a small range comes up about as often, its ends included."""
    counts = Counter(shift_days(KEYS, f"patient {number}", (3, 9)) for number in range(7000))
    assert sorted(counts) == list(range(-9, -2))
    assert all(850 < count < 1150 for count in counts.values())


def test_another_key_moves_by_other_days() -> None:
    """Without the key nobody can tell how far a patient's dates were moved."""
    other = Keys(bytes(range(1, 33)))
    patients = [f"patient {number}" for number in range(50)]
    assert [shift_days(KEYS, one) for one in patients] != [shift_days(other, one) for one in patients]
    assert len({shift_days(KEYS, one) for one in patients}) > 40


@pytest.mark.parametrize(
    ("patient", "days"), [("", (30, 3650)), ("a", (0, 5)), ("a", (-5, 5)), ("a", (10, 9)), ("a", (0, 0))]
)
def test_no_patient_or_no_range_is_a_mistake(patient: str, days: tuple[int, int]) -> None:
    """An empty identity, which many would share, and a range that holds 0 days are refused."""
    with pytest.raises(ValueError, match=r"no patient|range"):
        shift_days(KEYS, patient, days)


ANCHORED = DateRule(anchor_to="20000101")


@given(st.text(min_size=1).filter(str.isprintable), st.integers(1, 5000), st.integers(0, 5000))
def test_a_rule_without_an_anchor_is_its_range(identity: str, fewest: int, more: int) -> None:
    """The key alone decides, within the request's range, and an anchor date that is known changes nothing."""
    rule = DateRule(fewest, fewest + more)
    days = days_of(KEYS, identity, rule)
    assert (
        days == shift_days(KEYS, identity, (fewest, fewest + more)) == days_of(KEYS, identity, rule, anchor="20240301")
    )
    assert -fewest >= days >= -fewest - more


@given(DATES)
def test_an_anchor_comes_to_lie_on_the_day_asked_for(anchor: datetime.date) -> None:
    """Whatever day a patient's anchor is, moving it gives the request's day, under any key; and never 0 days."""
    text = f"{anchor.year:04}{anchor:%m%d}"
    if text == ANCHORED.anchor_to:
        with pytest.raises(NoAnchor):
            days_of(KEYS, "4711", ANCHORED, anchor=text)
        return
    days = days_of(KEYS, "4711", ANCHORED, anchor=text)
    assert shift("DA", text, days) == "20000101" and days
    assert days == days_of(Keys(bytes(range(1, 33))), "815", ANCHORED, anchor=text)


@pytest.mark.parametrize("anchor", ["", "20000101", "2024", "20240230", "2024-03-01", "Bodox"])
def test_without_an_anchor_nobody_guesses_one(anchor: str) -> None:
    """An anchor that is missing, no date or already where it is to lie gives no number of days, and isn't quoted."""
    with pytest.raises(NoAnchor) as caught:
        days_of(KEYS, "4711", ANCHORED, anchor=anchor)
    assert not anchor or anchor not in str(caught.value)


@given(
    st.integers(-50_000, 50_000).filter(bool),
    st.sampled_from([DateRule(), ANCHORED]),
    st.sampled_from(["", "20240301"]),
)
def test_the_days_of_a_crosswalk_win(days: int, rule: DateRule, anchor: str) -> None:
    """What a site says of a patient is what is done, whatever the request's rule."""
    assert days_of(KEYS, "4711", rule, days, anchor) == days


def test_no_crosswalk_leaves_dates_as_they_are() -> None:
    """0 days would be the original dates under the mark MODIFIED."""
    with pytest.raises(ValueError, match="0 days"):
        days_of(KEYS, "4711", DateRule(), 0)


def test_what_a_date_of_a_request_is() -> None:
    """Eight digits that are a day of the calendar."""
    assert is_date("20240229") and is_date("00010101")
    assert not any(map(is_date, ["20230229", "2024022", "202402290", "00000101", " 20240229", "", "２０２４０２２９"]))


def test_a_range_is_narrow_below_three_years() -> None:
    """1095 days between the fewest and the most are three years; an anchor's days aren't chosen from a range."""
    assert DateRule(30, 1124).narrow and not DateRule(30, 1125).narrow and not DateRule().narrow
    assert not DateRule(1, 2, "20000101").narrow


SECONDS = st.integers(0, (1 << 48) - 1)


@given(SECONDS, st.integers(0, 10**9 - 1), st.integers(-40_000, 40_000))
def test_a_timestamp_of_ieee_1588_moves_by_its_seconds(seconds: int, nanoseconds: int, days: int) -> None:
    """Frame Origin Timestamp: 86400 seconds a day, nanoseconds stay, and back again (PS3.3 C.7.6.27.1.1)."""
    raw = seconds.to_bytes(6, "big") + nanoseconds.to_bytes(4, "big")
    if not 0 <= seconds + 86_400 * days < 1 << 48:
        with pytest.raises(UnshiftableDate):
            shift_timestamp("OB", raw, days)
        return
    moved = shift_timestamp("OB", raw, days)
    assert int.from_bytes(moved[:6], "big") - seconds == 86_400 * days and moved[6:] == raw[6:]
    assert shift_timestamp("OB", moved, -days) == raw


@pytest.mark.parametrize("raw", [b"\0", bytes(9), bytes(11), bytes(12), bytes(6) + b"\xff\xff\xff\xff"])
def test_what_is_no_timestamp_of_ieee_1588_is_refused(raw: bytes) -> None:
    """Other lengths, or a second's worth of nanoseconds: the unit isn't what it should be."""
    with pytest.raises(UnshiftableDate):
        shift_timestamp("OB", raw, -1)
    assert shift_timestamp("OB", b"", -1) == b""
