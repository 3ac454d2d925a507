"""Countries' holidays and cut-offs of rails: two people, versions, and what was agreed stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import SystemClock
from kernel.db import transact
from kernel.errors import BadInput, CausewayError
from registry.calendars import (
    AnyCalendar,
    Calendar,
    KeptCalendar,
    add_business_days,
    is_joint_business_day,
)
from registry.changes import found
from registry.holiday_model import Holidays
from registry.kept_calendars import (
    calendar_bytes,
    cutoff_bytes,
    find_calendars,
    find_cutoffs,
    get_calendar,
    list_calendars,
    set_cutoff,
    take_over,
)
from registry.queries import get_operator
from registry.rail_cutoffs_model import RailCutoff
from registry.testing import demo_founding, operator_keypair

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
NAMES = {date(2026, 4, 3): "Good Friday", date(2026, 8, 31): "Summer Bank Holiday"}
GB = KeptCalendar(
    code="gb",
    version=1,
    first_day=date(2026, 1, 1),
    last_day=date(2026, 12, 31),
    closed=frozenset(NAMES),
)
CUTOFF = RailCutoff(asset="USDT", rail="bank", local=time(15, 30), zone="Europe/London")


def holidays(names: Mapping[date, str] = NAMES, **changes: Any) -> Holidays:
    return Holidays(replace(GB, closed=frozenset(names), **changes), names, "a list")


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncEngine:
    """A founded registry."""
    await transact(engine, lambda conn: found(conn, demo_founding(), now=SystemClock().now()))
    return engine


async def taken(
    house: AsyncEngine, what: Holidays, *, version: int = 1, by: str = "ada", second: str = "ben"
) -> int:
    """Let ada enter it and ben sign it, unless changed."""

    async def work(conn: AsyncConnection) -> int:
        return await take_over(
            conn,
            what,
            by=await get_operator(conn, by),
            approver=await get_operator(conn, second),
            signature=operator_keypair(second).sign(calendar_bytes(what, version=version)),
            now=NOW,
        )

    return await transact(house, work)


def test_banks_are_closed_on_weekends_and_holidays() -> None:
    days = [date(2026, 4, day) for day in (2, 3, 4, 5, 6)]

    assert [GB.is_open(day) for day in days] == [True, False, False, False, True]
    friday_off = replace(GB, weekend=frozenset({4, 5}))
    assert [friday_off.is_open(day) for day in days] == [True, False, False, True, True]


def test_a_kept_calendar_counts_beside_the_others() -> None:
    both: set[AnyCalendar] = {GB, Calendar.TARGET}

    assert add_business_days(date(2026, 4, 2), 1, both) == date(2026, 4, 7)
    assert not is_joint_business_day(both, date(2026, 8, 31))
    assert is_joint_business_day({Calendar.TARGET}, date(2026, 8, 31))


def test_beyond_its_years_a_kept_calendar_does_not_guess() -> None:
    with pytest.raises(BadInput, match=r"gb@1 knows nothing of 2027-01-01.*more years"):
        add_business_days(date(2026, 12, 31), 1, {GB})


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "GBR"},
        {"last_day": date(2060, 1, 1)},
        {"last_day": date(2025, 1, 1)},
        {"first_day": date(2026, 5, 1)},
    ],
    ids=str,
)
def test_holidays_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        holidays(**changes)


async def test_what_was_taken_over_is_kept_and_the_same_again_is_nothing(
    house: AsyncEngine,
) -> None:
    assert await taken(house, holidays()) == 1
    assert await taken(house, holidays(), version=2) == 1

    (kept,) = await transact(house, list_calendars)
    assert (kept.calendar, dict(kept.names)) == (GB, NAMES)
    assert (kept.entered_by, kept.approved_by, kept.source) == ("ada", "ben", "a list")


async def test_a_new_version_counts_and_the_old_one_is_still_there(house: AsyncEngine) -> None:
    await taken(house, holidays())
    more = {**NAMES, date(2026, 6, 1): "A jubilee"}
    with pytest.raises(CausewayError, match="not ben's, or not of this"):
        await taken(house, holidays(more))
    assert await taken(house, holidays(more), version=2) == 2

    newest = (await transact(house, lambda conn: find_calendars(conn, {"gb", "jp"})))["gb"]
    assert (str(newest), newest.closed) == ("gb@2", frozenset(more))
    old = await transact(house, lambda conn: get_calendar(conn, "gb", version=1))
    assert old.calendar == GB
    with pytest.raises(CausewayError, match="no calendar gb@3 is kept"):
        await transact(house, lambda conn: get_calendar(conn, "gb", version=3))


@pytest.mark.parametrize(
    ("story", "changes", "because"),
    [
        ("one person", {"second": "ada"}, "cannot approve what ada entered"),
        ("entered by an approver", {"by": "cleo"}, "cleo is not"),
        ("signed by operations", {"second": "dan"}, "dan is not"),
    ],
)
async def test_nobody_takes_holidays_over_alone(
    house: AsyncEngine, story: str, changes: dict[str, Any], because: str
) -> None:
    with pytest.raises(CausewayError, match=because):
        await taken(house, holidays(), **changes)

    assert await transact(house, list_calendars) == []


@pytest.mark.parametrize(
    ("day", "expected"),
    [("2026-03-28", "15:30"), ("2026-03-30", "14:30"), ("2026-10-26", "15:30")],
)
def test_a_cutoff_of_a_rail_moves_with_its_clocks(day: str, expected: str) -> None:
    assert CUTOFF.at(date.fromisoformat(day)) == datetime.fromisoformat(f"{day}T{expected}:00Z")


def test_a_cutoff_names_a_zone_that_there_is() -> None:
    with pytest.raises(BadInput, match="no time zone"):
        replace(CUTOFF, zone="Europe/Frankfurt")
    with pytest.raises(BadInput, match="zone twice"):
        replace(CUTOFF, local=time(15, tzinfo=UTC))


async def cut(house: AsyncEngine, cutoff: RailCutoff, second: str = "ben") -> None:
    async def work(conn: AsyncConnection) -> None:
        await set_cutoff(
            conn,
            cutoff,
            by=await get_operator(conn, "ada"),
            approver=await get_operator(conn, second),
            signature=operator_keypair(second).sign(cutoff_bytes(cutoff)),
            now=NOW,
        )

    await transact(house, work)


async def test_the_newest_cutoff_holds_and_takes_two_people(house: AsyncEngine) -> None:
    earlier = replace(CUTOFF, version=2, local=time(12))
    await cut(house, CUTOFF)
    with pytest.raises(CausewayError, match="cannot approve what ada entered"):
        await cut(house, earlier, second="ada")
    await cut(house, earlier)
    with pytest.raises(CausewayError, match="2 holds"):
        await cut(house, CUTOFF)

    assert await transact(house, find_cutoffs) == {("USDT", "bank"): earlier}
