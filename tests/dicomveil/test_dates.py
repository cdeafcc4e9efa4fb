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

from dicomveil.dates import UnshiftableDate, shift, shift_days, shift_values
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
