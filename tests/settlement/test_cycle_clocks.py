"""The clocks of windows: on days of summer time, on holidays, and when slots were missed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

import pytest

from kernel.errors import BadInput
from registry.calendars import Calendar
from settlement.clocks import (
    clocks_of,
    is_open_on,
    is_too_late_to_affirm,
    phase_of,
    reaffirm_until,
    slots,
)
from settlement.model import (
    Cycle,
    CyclePhase,
    ReleaseMethod,
    Run,
    RunState,
    Threshold,
    Window,
    cycle_state,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def window(**changes: Any) -> Window:
    """A window at five in the afternoon in Zurich, on weekdays, unless changed."""
    values: dict[str, Any] = {
        "book": 1,
        "name": "afternoon",
        "version": 1,
        "effective_from": date(2026, 1, 1),
        "cut_off": time(17),
        "timezone": "Europe/Zurich",
        "calendars": (Calendar.WEEKDAYS,),
        "affirm_minutes": 120,
        "top_up_minutes": 60,
        "release_minutes": 30,
        "reaffirm_minutes": 20,
        "seals_by_clock": True,
        "releases_by_clock": False,
        "method": ReleaseMethod.FIFO,
    }
    return Window(**{**values, **changes})


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "local", "day", "cutoff"),
    [
        ("Europe/Zurich", time(17), date(2026, 3, 27), "2026-03-27 16:00"),
        ("Europe/Zurich", time(17), date(2026, 3, 30), "2026-03-30 15:00"),
        ("Europe/Zurich", time(17), date(2026, 10, 23), "2026-10-23 15:00"),
        ("Europe/Zurich", time(17), date(2026, 10, 26), "2026-10-26 16:00"),
        # America changes three weeks before Europe, and a week after it.
        ("America/New_York", time(17), date(2026, 3, 6), "2026-03-06 22:00"),
        ("America/New_York", time(17), date(2026, 3, 9), "2026-03-09 21:00"),
        ("America/New_York", time(17), date(2026, 10, 26), "2026-10-26 21:00"),
        ("America/New_York", time(17), date(2026, 11, 2), "2026-11-02 22:00"),
        # A time that the clocks leap over, and one that they show twice.
        ("Europe/Zurich", time(2, 30), date(2026, 3, 29), "2026-03-29 01:00"),
        ("Europe/Zurich", time(2, 30), date(2026, 10, 25), "2026-10-25 00:30"),
    ],
)
def test_a_cut_off_is_a_time_on_a_wall(zone: str, local: time, day: date, cutoff: str) -> None:
    clocks = clocks_of(window(timezone=zone, cut_off=local), day)

    assert clocks.cutoff_at == utc(cutoff)
    assert clocks.affirm_until - clocks.cutoff_at == timedelta(minutes=120)
    assert clocks.release_at - clocks.cutoff_at == timedelta(minutes=210)


def test_no_clock_is_an_hour_short_on_the_night_of_the_change() -> None:
    clocks = clocks_of(window(cut_off=time(23), affirm_minutes=600), date(2026, 3, 28))

    assert clocks.affirm_until - clocks.cutoff_at == timedelta(hours=10)


def test_missed_slots_come_in_order_each_once_and_not_on_holidays() -> None:
    """Three days nobody ran; Thursday 9 to Tuesday 14 April, around the Saturday and the Sunday."""
    found = list(
        slots(window(), utc("2026-04-09 15:00"), utc("2026-04-14 15:00"), first=date(2026, 1, 1))
    )

    assert found == [
        (date(2026, 4, 10), utc("2026-04-10 15:00")),
        (date(2026, 4, 13), utc("2026-04-13 15:00")),
        (date(2026, 4, 14), utc("2026-04-14 15:00")),
    ]


def test_both_calendars_have_to_be_open() -> None:
    joint = window(calendars=(Calendar.TARGET, Calendar.FEDWIRE))

    assert is_open_on(joint, date(2026, 4, 7))
    # Easter Monday in Frankfurt; the third Monday of January in America.
    assert not is_open_on(joint, date(2026, 4, 6))
    assert not is_open_on(joint, date(2026, 1, 19))
    assert not is_open_on(window(active=False), date(2026, 4, 7))
    assert not is_open_on(window(effective_from=date(2026, 4, 8)), date(2026, 4, 7))


def test_slots_far_ahead_of_and_behind_utc_are_found_by_their_own_date() -> None:
    for zone, cutoff in (
        ("Pacific/Kiritimati", "2026-04-06 19:00"),
        ("Etc/GMT+12", "2026-04-07 21:00"),
    ):
        far = window(timezone=zone, cut_off=time(9))

        found = list(
            slots(far, utc("2026-04-06 00:00"), utc("2026-04-08 00:00"), first=BEGIN.date())
        )

        assert (date(2026, 4, 7), utc(cutoff)) in found


CYCLE = Cycle(
    id=UUID(int=1),
    book=1,
    value_date=date(2026, 4, 7),
    window="afternoon",
    window_version=1,
    cutoff_at=utc("2026-04-07 15:00"),
    affirm_until=utc("2026-04-07 17:00"),
    top_up_until=utc("2026-04-07 18:00"),
    release_at=utc("2026-04-07 18:30"),
    created_at=utc("2026-04-07 15:00"),
)
RUN = Run(
    id=UUID(int=2),
    book=1,
    value_date=CYCLE.value_date,
    window="afternoon",
    state=RunState.CALCULATED,
    version=1,
    created_at=CYCLE.created_at,
    party="acme",
    netting_set="master@desk",
    cycle_id=CYCLE.id,
    affirm_until=CYCLE.affirm_until,
    top_up_until=CYCLE.top_up_until,
    release_at=CYCLE.release_at,
)


@pytest.mark.parametrize(
    ("now", "phase"),
    [
        ("2026-04-07 16:59", CyclePhase.AFFIRM),
        ("2026-04-07 17:00", CyclePhase.TOP_UP),
        ("2026-04-07 18:00", CyclePhase.SEAL),
        ("2026-04-07 18:30", CyclePhase.RELEASE),
    ],
)
def test_each_moment_belongs_to_what_comes_after_it(now: str, phase: CyclePhase) -> None:
    assert phase_of(CYCLE, utc(now)) is phase


@pytest.mark.parametrize(
    ("story", "now", "until"),
    [
        ("early: nothing is taken from the party", "2026-04-07 15:10", "2026-04-07 17:00"),
        ("late: it has twenty minutes", "2026-04-07 16:50", "2026-04-07 17:10"),
        ("never beyond the time to top up", "2026-04-07 17:50", "2026-04-07 18:00"),
    ],
)
def test_a_dispute_gives_time_for_the_next_version(story: str, now: str, until: str) -> None:
    assert reaffirm_until(RUN, window(), utc(now)) == utc(until)


def test_a_run_of_before_has_no_clock() -> None:
    old = replace(RUN, cycle_id=None, affirm_until=None, top_up_until=None)

    assert reaffirm_until(old, window(), utc("2026-04-07 15:10")) is None
    assert not is_too_late_to_affirm(old, utc("2036-04-07 15:10"))
    assert is_too_late_to_affirm(RUN, utc("2026-04-07 17:00"))
    assert not is_too_late_to_affirm(RUN, utc("2026-04-07 16:59"))


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ({RunState.FINAL, RunState.LAPSED}, RunState.FINAL),
        ({RunState.FINAL, RunState.SEALED, RunState.EMPTY}, RunState.SEALED),
        ({RunState.CALCULATED, RunState.RELEASED}, RunState.CALCULATED),
        ({RunState.LAPSED, RunState.EMPTY}, RunState.LAPSED),
        (set(), RunState.EMPTY),
    ],
)
def test_the_state_of_a_cycle_is_that_of_whoever_is_furthest_behind(
    states: set[RunState], state: RunState
) -> None:
    assert cycle_state(states) is state


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"affirm_minutes": -1},
        {"top_up_minutes": 100_000},
        {"calendars": ()},
        {"cut_off": time(17, 0, 1)},
        {"cut_off": time(17, tzinfo=UTC)},
        {"thresholds": (Threshold(asset="ETH", units=0),)},
        {"thresholds": (Threshold(asset="ETH", units=1), Threshold(asset="ETH", units=2))},
    ],
)
def test_a_window_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        window(**changes)
