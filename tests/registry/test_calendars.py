"""Business days by published lists, value dates over weekends, Easter and the turn of the year."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from registry.calendars import (
    TENOR_DAYS_MAX,
    YEAR_MAX,
    YEAR_MIN,
    Calendar,
    add_business_days,
    easter_sunday,
    is_business_day,
    is_joint_business_day,
    value_date,
)

ALWAYS, TARGET, FEDWIRE = Calendar.ALWAYS, Calendar.TARGET, Calendar.FEDWIRE
DAY = timedelta(days=1)

DAYS = st.dates(date(YEAR_MIN, 1, 1), date(YEAR_MAX - 1, 12, 31))
CALENDARS = st.sets(st.sampled_from(Calendar), min_size=1)

#: ECB, "TARGET closing days"; weekends are left out.
TARGET_CLOSED = {
    2024: "01-01 03-29 04-01 05-01 12-25 12-26",
    2025: "01-01 04-18 04-21 05-01 12-25 12-26",
    2026: "01-01 04-03 04-06 05-01 12-25",
    2027: "01-01 03-26 03-29",
    2028: "04-14 04-17 05-01 12-25 12-26",
}
#: Federal Reserve Board, "Holidays Observed - K.8"; weekends are left out.
FEDWIRE_CLOSED = {
    2020: "01-01 01-20 02-17 05-25 09-07 10-12 11-11 11-26 12-25",
    2021: "01-01 01-18 02-15 05-31 07-05 09-06 10-11 11-11 11-25",
    2022: "01-17 02-21 05-30 06-20 07-04 09-05 10-10 11-11 11-24 12-26",
    2023: "01-02 01-16 02-20 05-29 06-19 07-04 09-04 10-09 11-23 12-25",
    2024: "01-01 01-15 02-19 05-27 06-19 07-04 09-02 10-14 11-11 11-28 12-25",
    2025: "01-01 01-20 02-17 05-26 06-19 07-04 09-01 10-13 11-11 11-27 12-25",
    2026: "01-01 01-19 02-16 05-25 06-19 09-07 10-12 11-11 11-26 12-25",
    2027: "01-01 01-18 02-15 05-31 07-05 09-06 10-11 11-11 11-25",
    2028: "01-17 02-21 05-29 06-19 07-04 09-04 10-09 11-23 12-25",
}


def closed_weekdays(calendar: Calendar, year: int) -> str:
    """The days from Monday to Friday on which nothing moves."""
    first = date(year, 1, 1)
    days = [first + n * DAY for n in range((date(year + 1, 1, 1) - first).days)]
    shut = [d for d in days if d.weekday() < 5 and not is_business_day(calendar, d)]
    return " ".join(f"{d:%m-%d}" for d in shut)


@pytest.mark.parametrize("year", TARGET_CLOSED)
def test_target_is_closed_on_the_days_that_the_central_bank_lists(year: int) -> None:
    assert closed_weekdays(TARGET, year) == TARGET_CLOSED[year]


@pytest.mark.parametrize("year", FEDWIRE_CLOSED)
def test_fedwire_is_closed_on_the_days_that_the_board_lists(year: int) -> None:
    assert closed_weekdays(FEDWIRE, year) == FEDWIRE_CLOSED[year]


def test_a_holiday_on_a_saturday_leaves_the_friday_open() -> None:
    """Independence Day of 2026 is a Saturday: libraries that close the Friday are wrong here."""
    assert is_business_day(FEDWIRE, date(2026, 7, 3))
    assert not is_business_day(FEDWIRE, date(2026, 7, 4))
    assert is_business_day(FEDWIRE, date(2026, 7, 6))


def test_a_new_year_on_a_saturday_leaves_the_last_day_of_the_year_open() -> None:
    assert is_business_day(FEDWIRE, date(2021, 12, 31))
    assert is_business_day(TARGET, date(2021, 12, 31))
    assert is_business_day(FEDWIRE, date(2022, 1, 3))


def test_nothing_is_closed_where_money_moves_every_day() -> None:
    assert all(closed_weekdays(ALWAYS, year) == "" for year in (2024, 2026))
    assert is_business_day(ALWAYS, date(2026, 12, 25))
    assert is_business_day(ALWAYS, date(2026, 7, 4))


def test_a_currency_without_a_calendar_of_its_own_rests_on_weekends() -> None:
    assert closed_weekdays(Calendar.WEEKDAYS, 2026) == ""
    assert not is_business_day(Calendar.WEEKDAYS, date(2026, 11, 21))
    assert not is_business_day(Calendar.WEEKDAYS, date(2026, 11, 22))


#: U.S. Census Bureau, "Easter Dates from 1600 to 2099": the earliest, the latest, the odd ones.
EASTERS = ["2008-03-23", "2011-04-24", "2019-04-21", "2024-03-31", "2026-04-05", "2038-04-25"]


@pytest.mark.parametrize("day", [*EASTERS, "1954-04-18", "1981-04-19", "2049-04-18", "2076-04-19"])
def test_easter_is_when_it_was_and_will_be(day: str) -> None:
    assert easter_sunday(int(day[:4])).isoformat() == day


@pytest.mark.parametrize("year", range(1583, 2500, 13))
def test_easter_is_the_sunday_that_another_algorithm_finds(year: int) -> None:
    """Anonymous Gregorian algorithm (Nature, 20 April 1876), a different way of counting."""
    a, b, c = year % 19, year // 100, year % 100
    d, e = divmod(b, 4)
    g = (b - (b + 8) // 25 + 1) // 3
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    n = (32 + 2 * e + 2 * i - h - k) % 7
    m = (a + 11 * h + 22 * n) // 451
    month, day = divmod(h + n - 7 * m + 114, 31)

    assert easter_sunday(year) == date(year, month, day + 1)


@pytest.mark.parametrize(
    ("story", "traded", "tenor", "calendars", "settles"),
    [
        ("the same day", "2026-11-20", 0, {FEDWIRE}, "2026-11-20"),
        ("the same day of a Saturday", "2026-11-21", 0, {FEDWIRE}, "2026-11-23"),
        ("the next day of a Friday", "2026-11-20", 1, {FEDWIRE}, "2026-11-23"),
        ("the next day of a Saturday", "2026-11-21", 1, {FEDWIRE}, "2026-11-23"),
        ("a Saturday where every day counts", "2026-11-20", 1, {ALWAYS}, "2026-11-21"),
        (
            "a coin for dollars waits for the dollars",
            "2026-11-20",
            1,
            {ALWAYS, FEDWIRE},
            "2026-11-23",
        ),
        ("over Thanksgiving", "2026-11-25", 2, {FEDWIRE}, "2026-11-30"),
        ("over Easter", "2026-04-02", 1, {TARGET}, "2026-04-07"),
        ("dollars on Good Friday", "2026-04-02", 1, {FEDWIRE}, "2026-04-03"),
        ("both over Easter", "2026-04-02", 2, {TARGET, FEDWIRE}, "2026-04-08"),
        ("one is closed each time", "2025-12-24", 1, {TARGET, FEDWIRE}, "2025-12-29"),
        ("over the turn of the year", "2026-12-31", 1, {FEDWIRE}, "2027-01-04"),
        ("into a year that begins on a Saturday", "2021-12-31", 1, {TARGET, FEDWIRE}, "2022-01-03"),
        ("into a year that begins on a Sunday", "2022-12-30", 1, {TARGET}, "2023-01-02"),
        ("its Monday in dollars", "2022-12-30", 1, {FEDWIRE}, "2023-01-03"),
        ("over a leap day", "2028-02-28", 1, {TARGET, FEDWIRE}, "2028-02-29"),
        ("over no leap day", "2026-02-27", 1, {TARGET, FEDWIRE}, "2026-03-02"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_a_deal_settles_on(
    story: str, traded: str, tenor: int, calendars: set[Calendar], settles: str
) -> None:
    found = value_date(date.fromisoformat(traded), tenor, calendars)

    assert found.isoformat() == settles


@given(DAYS, st.integers(1, TENOR_DAYS_MAX), CALENDARS)
def test_so_many_business_days_lie_on_the_way(
    day: date, count: int, calendars: set[Calendar]
) -> None:
    reached = add_business_days(day, count, calendars)

    way = [day + n * DAY for n in range(1, (reached - day).days + 1)]
    assert sum(is_joint_business_day(calendars, d) for d in way) == count
    assert is_joint_business_day(calendars, reached)


@given(DAYS, CALENDARS)
def test_no_business_days_on_is_the_day_itself_or_the_next_that_is_one(
    day: date, calendars: set[Calendar]
) -> None:
    reached = add_business_days(day, 0, calendars)

    assert is_joint_business_day(calendars, reached)
    assert not any(
        is_joint_business_day(calendars, day + n * DAY) for n in range((reached - day).days)
    )


@given(DAYS, st.integers(0, TENOR_DAYS_MAX), CALENDARS, st.sampled_from(Calendar))
def test_one_more_calendar_never_brings_a_settlement_forward(
    day: date, count: int, calendars: set[Calendar], other: Calendar
) -> None:
    assert value_date(day, count, calendars | {other}) >= value_date(day, count, calendars)


@given(DAYS, CALENDARS)
def test_no_pause_is_longer_than_five_days(day: date, calendars: set[Calendar]) -> None:
    """A weekend with two holidays on either side; more would be a mistake in a rule."""
    assert (add_business_days(day, 0, calendars) - day).days <= 5


@pytest.mark.parametrize(
    ("story", "day", "count"),
    [
        ("before the rules", date(YEAR_MIN - 1, 12, 31), 0),
        ("after the rules", date(YEAR_MAX + 1, 1, 1), 0),
        ("out of the last year", date(YEAR_MAX, 12, 31), 1),
        ("backwards", date(2026, 1, 5), -1),
        ("a forward", date(2026, 1, 5), TENOR_DAYS_MAX + 1),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_rule_covers_is_refused(story: str, day: date, count: int) -> None:
    with pytest.raises(BadInput):
        add_business_days(day, count, {ALWAYS})
