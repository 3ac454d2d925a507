"""Which slots are due: DST days, holidays, outages, changes of a policy, clocks that go back."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.calendars import Calendar
from settlement.model import ReleaseMethod, Window
from settlement.slots import Slot, due_slots, find_slot

DAY = timedelta(days=1)


def window(
    version: int = 1,
    *,
    since: date = date(2026, 1, 1),
    at: time = time(17),
    zone: str = "Europe/Berlin",
    calendar: Calendar = Calendar.ALWAYS,
    active: bool = True,
) -> Window:
    return Window(
        book=1,
        name="close",
        version=version,
        effective_from=since,
        active=active,
        cut_off=at,
        timezone=zone,
        calendars=(calendar,),
        affirm_minutes=60,
        top_up_minutes=30,
        release_minutes=0,
        reaffirm_minutes=15,
        seals_by_clock=True,
        releases_by_clock=True,
        method=ReleaseMethod.FIFO,
    )


def told(slots: list[Slot]) -> list[str]:
    return [f"{s.business_date:%m-%d} {s.cutoff_at.astimezone(UTC):%m-%dT%H:%M}" for s in slots]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-{text}+00:00")


@pytest.mark.parametrize(
    ("story", "policy", "after", "until", "expected"),
    [
        (
            "Europe springs forward on 29 March: the wall clock stays",
            window(),
            "03-27T20:00",
            "03-30T20:00",
            ["03-28 03-28T16:00", "03-29 03-29T15:00", "03-30 03-30T15:00"],
        ),
        (
            "Europe falls back on 25 October",
            window(),
            "10-23T20:00",
            "10-26T20:00",
            ["10-24 10-24T15:00", "10-25 10-25T16:00", "10-26 10-26T16:00"],
        ),
        (
            "a time that the clocks leap over is the moment of the leap",
            window(at=time(2, 30)),
            "03-28T12:00",
            "03-29T12:00",
            ["03-29 03-29T01:00"],
        ),
        (
            "a time that the clocks show twice counts once, the first time",
            window(at=time(2, 30)),
            "10-24T12:00",
            "10-25T12:00",
            ["10-25 10-25T00:30"],
        ),
        (
            "New York changes three weeks before Europe",
            window(zone="America/New_York"),
            "03-06T23:00",
            "03-09T23:00",
            ["03-07 03-07T22:00", "03-08 03-08T21:00", "03-09 03-09T21:00"],
        ),
        (
            "and a week after it in autumn",
            window(zone="America/New_York"),
            "10-31T00:00",
            "11-01T23:00",
            ["10-31 10-31T21:00", "11-01 11-01T22:00"],
        ),
        (
            "TARGET is closed over Easter",
            window(calendar=Calendar.TARGET),
            "04-02T16:00",
            "04-07T16:00",
            ["04-07 04-07T15:00"],
        ),
        (
            "the Fed works on the Friday before a Saturday holiday",
            window(calendar=Calendar.FEDWIRE),
            "07-02T16:00",
            "07-06T16:00",
            ["07-03 07-03T15:00", "07-06 07-06T15:00"],
        ),
        (
            "three days down: every one of them, oldest first",
            window(),
            "02-02T16:00",
            "02-05T16:00",
            ["02-03 02-03T16:00", "02-04 02-04T16:00", "02-05 02-05T16:00"],
        ),
        ("the clock went back", window(), "02-05T16:00", "02-03T16:00", []),
        ("its own moment counts", window(), "02-05T15:59", "02-05T16:00", ["02-05 02-05T16:00"]),
        (
            "east of everything the business date is a day ahead",
            window(at=time(8), zone="Pacific/Kiritimati"),
            "02-02T12:00",
            "02-03T12:00",
            ["02-03 02-02T18:00"],
        ),
        ("nobody opens it any more", window(active=False), "02-02T16:00", "02-05T16:00", []),
        (
            "not before it begins",
            window(since=date(2026, 2, 4)),
            "02-02T16:00",
            "02-05T16:00",
            ["02-04 02-04T16:00", "02-05 02-05T16:00"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_slots_that_are_due(
    story: str, policy: Window, after: str, until: str, expected: list[str]
) -> None:
    assert told(due_slots([policy], after=moment(after), until=moment(until))) == expected


def test_the_newest_policy_that_may_hold_on_a_day_holds() -> None:
    versions = [
        window(1),
        window(2, since=date(2026, 2, 3), at=time(18)),
        window(3, since=date(2026, 2, 5), active=False),
    ]

    found = due_slots(versions, after=moment("02-01T20:00"), until=moment("02-07T00:00"))

    assert told(found) == ["02-02 02-02T16:00", "02-03 02-03T17:00", "02-04 02-04T17:00"]
    assert find_slot(versions, date(2026, 2, 3)) == found[1]
    assert find_slot(versions, date(2026, 2, 6)) is None
    assert find_slot(versions, date(2025, 12, 31)) is None


def test_a_window_that_never_ran_begins_on_its_first_day() -> None:
    found = due_slots([window(since=date(2026, 2, 3))], after=None, until=moment("02-04T16:00"))
    assert told(found) == ["02-03 02-03T16:00", "02-04 02-04T16:00"]


@given(
    st.lists(st.integers(0, 60 * 24 * 40), min_size=1, max_size=12),
    st.times().map(lambda t: t.replace(second=0, microsecond=0)),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Pacific/Kiritimati", "UTC"]),
)
def test_however_often_somebody_looks_each_slot_is_found_once_and_in_order(
    minutes: list[int], at: time, zone: str
) -> None:
    """Also when the clock goes back between two looks."""
    policy = window(at=at, zone=zone, since=date(2026, 3, 10))
    start = datetime(2026, 3, 10, tzinfo=UTC) - DAY
    found: list[Slot] = []
    for minute in minutes:
        after = found[-1].cutoff_at if found else None
        found += due_slots([policy], after=after, until=start + timedelta(minutes=minute))

    latest = start + timedelta(minutes=max(minutes))
    assert found == due_slots([policy], after=None, until=latest)
    assert len({slot.business_date for slot in found}) == len(found)
