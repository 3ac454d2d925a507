"""Cut-offs against UTC: summer and winter, and the weeks in which two continents differ."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from registry.calendars import Calendar, is_joint_business_day
from registry.cutoffs import earliest_value_date, find_cutoff, moment_of

ALWAYS, TARGET, FEDWIRE = Calendar.ALWAYS, Calendar.TARGET, Calendar.FEDWIRE


@pytest.mark.parametrize(
    ("story", "calendar", "day", "expected"),
    [
        ("winter", TARGET, "2026-01-15", "16:00"),
        ("winter", FEDWIRE, "2026-01-15", "23:45"),
        ("summer", TARGET, "2026-07-15", "15:00"),
        ("summer", FEDWIRE, "2026-07-15", "22:45"),
        ("the last Friday of winter", TARGET, "2026-03-27", "16:00"),
        ("the first Monday of summer", TARGET, "2026-03-30", "15:00"),
        ("the last Friday of summer", TARGET, "2026-10-23", "15:00"),
        ("the first Monday of winter", TARGET, "2026-10-26", "16:00"),
        ("the last Friday of winter", FEDWIRE, "2026-03-06", "23:45"),
        ("the first Monday of summer", FEDWIRE, "2026-03-09", "22:45"),
        ("the last Friday of summer", FEDWIRE, "2026-10-30", "22:45"),
        ("the first Monday of winter", FEDWIRE, "2026-11-02", "23:45"),
        ("summer there, winter here", TARGET, "2026-03-20", "16:00"),
        ("summer there, winter here", FEDWIRE, "2026-03-20", "22:45"),
        ("winter here, summer there still", TARGET, "2026-10-28", "16:00"),
        ("winter here, summer there still", FEDWIRE, "2026-10-28", "22:45"),
    ],
)
def test_a_cutoff_in_utc(story: str, calendar: Calendar, day: str, expected: str) -> None:
    found = find_cutoff(calendar, date.fromisoformat(day))

    assert found == datetime.fromisoformat(f"{day}T{expected}:00+00:00")


@pytest.mark.parametrize("year", range(2007, 2036))
def test_every_cutoff_of_a_year_is_the_time_on_the_wall_there(year: int) -> None:
    """Against the time zone database, for as long as it has rules of its own."""
    walls = {
        TARGET: (ZoneInfo("Europe/Berlin"), 17, 0),
        FEDWIRE: (ZoneInfo("America/New_York"), 18, 45),
    }
    for calendar, (zone, hour, minute) in walls.items():
        for number in range(365):
            day = date(year, 1, 1) + timedelta(days=number)
            wall = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
            assert find_cutoff(calendar, day) == wall.astimezone(UTC)


def test_what_always_moves_has_no_cutoff() -> None:
    assert find_cutoff(ALWAYS, date(2026, 7, 15)) is None


@pytest.mark.parametrize(
    ("story", "at", "calendars", "expected"),
    [
        ("in time", "2026-11-19T15:59:59Z", {TARGET}, "2026-11-19"),
        ("at the very moment", "2026-11-19T16:00:00Z", {TARGET}, "2026-11-20"),
        ("late on a Friday", "2026-11-20T16:00:00Z", {TARGET}, "2026-11-23"),
        ("the dollar is later", "2026-11-20T16:00:00Z", {FEDWIRE}, "2026-11-20"),
        (
            "the one that closes first decides",
            "2026-11-20T16:00:00Z",
            {TARGET, FEDWIRE},
            "2026-11-23",
        ),
        ("a quarter to midnight", "2026-11-19T23:45:00Z", {FEDWIRE}, "2026-11-20"),
        ("an hour earlier in summer", "2026-07-16T22:45:00Z", {FEDWIRE}, "2026-07-17"),
        ("on a holiday", "2026-12-25T10:00:00Z", {TARGET}, "2026-12-28"),
        ("on New Year's Eve", "2026-12-31T16:00:00Z", {TARGET}, "2027-01-04"),
        ("on New Year's Eve in dollars", "2026-12-31T23:44:59Z", {FEDWIRE}, "2026-12-31"),
        ("in another zone", "2026-11-20T01:30:00+09:00", {TARGET}, "2026-11-20"),
        ("coins", "2026-11-21T23:59:59Z", {ALWAYS}, "2026-11-21"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_the_earliest_value_date(
    story: str, at: str, calendars: set[Calendar], expected: str
) -> None:
    assert earliest_value_date(datetime.fromisoformat(at), calendars).isoformat() == expected


@given(
    st.datetimes(datetime(2007, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  the zone is given beside
    st.sets(st.sampled_from(Calendar), min_size=1),
)
def test_the_earliest_value_date_is_open_and_no_earlier_one_was(
    at: datetime, calendars: set[Calendar]
) -> None:
    found = earliest_value_date(at, calendars)

    def is_open(day: date) -> bool:
        cutoffs = [find_cutoff(calendar, day) for calendar in calendars]
        return is_joint_business_day(calendars, day) and all(c is None or at < c for c in cutoffs)

    assert is_open(found)
    before = [at.date() + timedelta(days=n) for n in range((found - at.date()).days)]
    assert not any(is_open(day) for day in before)


def test_a_time_before_the_rules_is_refused() -> None:
    with pytest.raises(BadInput):
        find_cutoff(TARGET, date(2006, 12, 31))


@pytest.mark.parametrize(
    ("story", "day", "local", "zone", "expected"),
    [
        ("winter", "2026-01-15", "17:00", "Europe/Berlin", "2026-01-15T16:00"),
        ("summer", "2026-07-15", "17:00", "Europe/Berlin", "2026-07-15T15:00"),
        ("before the leap", "2026-03-29", "01:59", "Europe/Berlin", "2026-03-29T00:59"),
        ("an hour that is not there", "2026-03-29", "02:30", "Europe/Berlin", "2026-03-29T01:00"),
        ("after the leap", "2026-03-29", "03:00", "Europe/Berlin", "2026-03-29T01:00"),
        ("an hour that is there twice", "2026-10-25", "02:30", "Europe/Berlin", "2026-10-25T00:30"),
        ("after it", "2026-10-25", "03:00", "Europe/Berlin", "2026-10-25T02:00"),
        ("there twice", "2026-11-01", "01:30", "America/New_York", "2026-11-01T05:30"),
        ("leapt over", "2026-03-08", "02:59", "America/New_York", "2026-03-08T07:00"),
        ("the day begins there before", "2026-06-01", "08:00", "Asia/Tokyo", "2026-05-31T23:00"),
    ],
)
def test_a_time_on_a_wall_is_one_moment(
    story: str, day: str, local: str, zone: str, expected: str
) -> None:
    found = moment_of(date.fromisoformat(day), time.fromisoformat(local), zone)

    assert found == datetime.fromisoformat(f"{expected}:00+00:00")


def test_a_zone_that_nobody_knows_is_refused() -> None:
    for name in ("Europe/Frankfurt", "../etc/passwd", ""):
        with pytest.raises(BadInput, match="no time zone"):
            moment_of(date(2026, 1, 1), time(17), name)
