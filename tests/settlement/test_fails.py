"""Late: noticed at the cut-off, rolled by business day, aged, cured; and interest on it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from kernel.errors import BadInput, Refused
from kernel.events import list_history
from registry.calendars import Calendar
from settlement.ageing import (
    age_of,
    bucket_of,
    calendars_for,
    late_from,
    late_interest,
    next_value_date,
)
from settlement.fail_model import Fail
from settlement.fails import list_fails, note_cause, note_fails
from settlement.returns import settle_recall
from settlement.steps import INSTRUCTION
from tests.settlement.desk import BOOK, DAY, Desk
from tests.settlement.matching.bank_day import BankDay
from trading.terms.model import Rail

TARGET, FEDWIRE, ALWAYS = ({c} for c in (Calendar.TARGET, Calendar.FEDWIRE, Calendar.ALWAYS))


@pytest.mark.parametrize(
    ("story", "day", "calendars", "expected"),
    [
        ("winter in Frankfurt", date(2026, 3, 27), TARGET, "2026-03-27T16:00"),
        ("summer in Frankfurt", date(2026, 3, 30), TARGET, "2026-03-30T15:00"),
        ("the last day of summer", date(2026, 10, 23), TARGET, "2026-10-23T15:00"),
        ("the first of winter", date(2026, 10, 26), TARGET, "2026-10-26T16:00"),
        ("New York in the week between", date(2026, 3, 10), FEDWIRE, "2026-03-10T22:45"),
        ("the earlier of two", date(2026, 3, 10), TARGET | FEDWIRE, "2026-03-10T16:00"),
        ("a chain", date(2026, 3, 29), ALWAYS, "2026-03-30T00:00"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_when_it_is_late(story: str, day: date, calendars: set[Calendar], expected: str) -> None:
    assert late_from(day, calendars) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("due", "today", "calendars", "age", "bucket"),
    [
        (date(2026, 1, 5), date(2026, 1, 5), TARGET, 0, "today"),
        (date(2026, 1, 9), date(2026, 1, 11), TARGET, 0, "today"),
        (date(2026, 1, 9), date(2026, 1, 12), TARGET, 1, "1 day"),
        (date(2026, 4, 2), date(2026, 4, 7), TARGET, 1, "1 day"),
        (date(2026, 4, 2), date(2026, 4, 7), FEDWIRE, 3, "2-3 days"),
        (date(2026, 1, 9), date(2026, 1, 12), ALWAYS, 3, "2-3 days"),
        (date(2026, 1, 5), date(2026, 3, 5), TARGET, 43, "older"),
        (date(2026, 1, 5), date(2026, 1, 4), TARGET, 0, "today"),
    ],
)
def test_age_counts_business_days(
    due: date, today: date, calendars: set[Calendar], age: int, bucket: str
) -> None:
    assert age_of(due, today, calendars) == age
    assert bucket_of(age) == bucket


def test_a_value_date_rolls_to_a_day_whose_cut_off_is_not_over() -> None:
    friday = date(2026, 1, 9)

    assert next_value_date(friday, datetime(2026, 1, 9, 16, tzinfo=UTC), TARGET) == date(
        2026, 1, 12
    )
    assert next_value_date(friday, datetime(2026, 1, 12, 16, tzinfo=UTC), TARGET) == date(
        2026, 1, 13
    )


def test_money_is_counted_by_its_central_bank_and_coins_every_day() -> None:
    assert calendars_for("EUR", Rail.BANK) == TARGET
    assert calendars_for("EUR", Rail.EVM) == ALWAYS
    assert calendars_for("USDT", Rail.BOOK) == ALWAYS


def test_interest_is_simple_over_a_year_of_360_days_and_rounded_down() -> None:
    assert late_interest(36_000_000, 100_000, date(2026, 1, 1), date(2026, 1, 11)) == 100_000
    assert late_interest(1, 100_000, date(2026, 1, 1), date(2026, 1, 11)) == 0
    assert late_interest(10**30, 1, date(2026, 1, 1), date(2026, 12, 27)) == 10**24
    assert late_interest(10**6, 100_000, date(2026, 1, 2), date(2026, 1, 1)) == 0
    with pytest.raises(BadInput):
        late_interest(1, -1, date(2026, 1, 1), date(2026, 1, 2))


@pytest.fixture
async def day(desk: Desk) -> BankDay:
    return await BankDay(desk).open()


async def noticed(desk: Desk) -> list[Fail]:
    return await desk.do(lambda conn: note_fails(conn, book=BOOK, now=desk.now))


async def late(desk: Desk, *, aged: int = 0, cured: bool = False) -> list[tuple[int, str, int]]:
    found = await desk.do(lambda conn: list_fails(conn, BOOK, now=desk.now, aged=aged, cured=cured))
    return [(f.age, f.value_date.isoformat(), f.rolls) for f in found]


async def test_what_is_not_final_at_its_cut_off_is_late_rolls_and_is_cured(day: BankDay) -> None:
    """Due on Monday the 5th; the clock stands at nine."""
    desk = day.desk
    run, item = await day.awaiting(60_000)
    assert await noticed(desk) == []

    desk.clock.at = datetime(2026, 1, 5, 16, tzinfo=UTC)
    (fail,) = await noticed(desk)
    assert (fail.instruction_id, fail.remaining, fail.calendars) == (item.id, 60_000, "target")
    assert await noticed(desk) == []
    assert await late(desk) == [(0, "2026-01-06", 0)]

    # Over the Epiphany (a business day of TARGET) and a weekend.
    desk.clock.at = datetime(2026, 1, 9, 17, tzinfo=UTC)
    assert await noticed(desk) == []
    assert await late(desk) == [(4, "2026-01-12", 1)]
    desk.clock.advance(timedelta(days=2))
    await noticed(desk)
    assert await late(desk, aged=4) == [(4, "2026-01-12", 1)]
    assert await late(desk, aged=5) == []

    day.pays(item, 60_000)
    await day.end_of_day()
    await day.match()
    await noticed(desk)

    assert await late(desk) == []
    assert [age for age, _, _ in await late(desk, cured=True)] == [5]
    names = [e.name for e in await desk.do(lambda c: list_history(c, INSTRUCTION, item.id))]
    assert names.count("InstructionLate") == 1
    assert names.count("ValueDateRolled") == 1
    assert (await desk.states(run.id))["acme EUR"] == "final"


async def test_a_short_payment_leaves_the_rest_late_and_people_say_why(day: BankDay) -> None:
    desk = day.desk
    _, item = await day.awaiting(60_000)
    day.pays(item, 50_000)
    await day.end_of_day()
    await day.match()

    (fail,) = await noticed(desk)
    assert fail.remaining == 10_000
    told = await desk.do(
        lambda conn: note_cause(
            conn, item.id, "their limit", book=BOOK, by=desk.operators["ada"], now=desk.now
        )
    )

    assert (told.cause, told.age) == ("their limit", 1)
    with pytest.raises(Refused, match="is not late"):
        await desk.do(
            lambda conn: note_cause(
                conn, item.run_id, "?", book=BOOK, by=desk.operators["ada"], now=desk.now
            )
        )


async def test_what_was_paid_late_and_is_taken_back_is_late_again(day: BankDay) -> None:
    desk = day.desk
    run, item = await day.awaiting(60_000)
    desk.clock.at = datetime(2026, 1, 5, 16, tzinfo=UTC)
    assert len(await noticed(desk)) == 1
    day.bank.execute({"verb": "fault", "kind": "reversed_credit"})
    day.pays(item, 60_000)
    await day.end_of_day()
    await day.match()
    await noticed(desk)
    assert await late(desk) == []

    await day.end_of_day()
    await desk.do(lambda conn: settle_recall(conn, book=BOOK, now=desk.now))
    (again,) = await noticed(desk)

    assert (again.instruction_id, again.due_on, again.cured_at) == (item.id, DAY, None)
    assert await noticed(desk) == []
    assert len(await late(desk)) == 1
    assert (await desk.states(run.id))["acme EUR"] == "released"
