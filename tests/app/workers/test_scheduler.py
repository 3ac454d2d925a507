"""Schedules become job rows: each slot once, none lost, whoever ticks and whoever was down."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.workers import jobs
from app.workers.calculator import Calculator
from app.workers.house_file import parse_house
from app.workers.jobs import JobWorker
from app.workers.scheduler import SLOTS_MAX, Schedule, Ticker, slots, sweep
from kernel.clock import ManualClock
from kernel.db import transact
from kernel.errors import BadInput, OutsideUnavailable
from kernel.jobs import Job
from kernel.tables import job
from ledger.posting import open_book
from tests.custody.fate import Fate

MONDAY = datetime(2026, 1, 5, 0, 0, tzinfo=UTC)


def daily(cron: str = "0 17 * * *", timezone: str = "Europe/London") -> Schedule:
    return Schedule("close", cron, timezone, since=MONDAY)


def at(day: int, hour: int, month: int = 1) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


async def rows(conn: AsyncConnection) -> list[tuple[datetime, str]]:
    found = await conn.execute(
        select(job.c.scheduled_for, job.c.state).order_by(job.c.scheduled_for)
    )
    return [(row.scheduled_for, row.state) for row in found]


@pytest.mark.parametrize(
    ("cron", "after", "until", "expected"),
    [
        ("0 17 * * *", at(5, 0), at(5, 16), []),
        ("0 17 * * *", at(5, 0), at(5, 17), [at(5, 17)]),
        ("0 17 * * *", at(5, 17), at(5, 23), []),
        ("0 17 * * *", at(5, 17), at(8, 0), [at(6, 17), at(7, 17)]),
        ("0 17 * * mon-fri", at(9, 17), at(12, 20), [at(12, 17)]),
    ],
)
def test_slots_are_after_the_last_and_up_to_now(
    cron: str, after: datetime, until: datetime, expected: list[datetime]
) -> None:
    assert slots(daily(cron), after, until) == expected


def test_a_slot_keeps_its_wall_clock_across_daylight_saving() -> None:
    # London changes on 29 March 2026: 17:00 there is 16:00 in UTC from then on.
    found = slots(daily(), at(28, 0, month=3), at(29, 23, month=3))

    assert found == [at(28, 17, month=3), at(29, 16, month=3)]


def test_one_sweep_is_bounded() -> None:
    assert len(slots(daily("* * * * *"), MONDAY, MONDAY + timedelta(days=9))) == SLOTS_MAX


@pytest.mark.parametrize(("cron", "zone"), [("often", "UTC"), ("0 17 * * *", "Atlantis/Center")])
def test_a_schedule_that_cannot_be_read_is_named(cron: str, zone: str) -> None:
    with pytest.raises(BadInput, match="close"):
        slots(daily(cron, zone), MONDAY, at(6, 0))


async def test_after_three_days_down_every_slot_exists_once(engine: AsyncEngine) -> None:
    now = at(8, 9)

    first = await transact(engine, lambda c: sweep(c, daily(), now=now))
    again = await transact(engine, lambda c: sweep(c, daily(), now=now))

    assert (first, again) == (3, 0)
    assert await transact(engine, rows) == [
        (at(5, 17), "ready"),
        (at(6, 17), "ready"),
        (at(7, 17), "ready"),
    ]


async def test_two_replicas_start_and_tick_and_each_slot_is_one_row(engine: AsyncEngine) -> None:
    clock = ManualClock(at(6, 0))

    async with Ticker(engine, clock, [daily()]) as one, Ticker(engine, clock, [daily()]) as two:
        clock.advance(timedelta(days=1))
        assert await one.sweep(daily()) + await two.sweep(daily()) == 1

    assert [slot for slot, _ in await transact(engine, rows)] == [at(5, 17), at(6, 17)]


async def test_a_clock_that_goes_back_makes_no_slot_twice(engine: AsyncEngine) -> None:
    await transact(engine, lambda c: sweep(c, daily(), now=at(7, 9)))

    assert await transact(engine, lambda c: sweep(c, daily(), now=at(6, 9))) == 0


async def two_to_do(engine: AsyncEngine, clock: ManualClock) -> tuple[JobWorker, list[datetime]]:
    """A worker that has two slots to do, and which it has done."""
    done: list[datetime] = []

    async def close(job: Job) -> None:
        done.append(job.scheduled_for)

    await transact(engine, lambda c: sweep(c, daily(), now=clock.now()))
    return JobWorker(engine=engine, clock=clock, handlers={"close": close}), done


async def test_a_due_job_is_done_once_and_in_order(engine: AsyncEngine) -> None:
    worker, done = await two_to_do(engine, ManualClock(at(7, 9)))

    await worker.turn()
    await worker.turn()

    assert done == [at(5, 17), at(6, 17)]


async def test_a_job_whose_answer_is_lost_is_done_once_and_has_not_failed(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is committed, and whoever did it is not told: it neither fails nor is done again."""
    clock = ManualClock(at(7, 9))
    worker, done = await two_to_do(engine, clock)
    claim_and_end = 2 * 2
    fate = Fate(mode="cut", left=claim_and_end, armed=True)

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "transact", fate.transact)
        turn = await worker.turn()
    clock.advance(timedelta(hours=1))
    await worker.turn()

    assert (turn.failed, [job.scheduled_for for job in turn.done]) == ({}, [at(6, 17)])
    assert done == [at(5, 17), at(6, 17)]


async def test_a_failing_job_is_tried_again_later_and_the_others_go_on(engine: AsyncEngine) -> None:
    clock = ManualClock(at(7, 9))
    attempts: list[datetime] = []

    async def close(job: Job) -> None:
        attempts.append(job.scheduled_for)
        if attempts == [at(5, 17)]:
            raise OutsideUnavailable("the bank does not answer")

    await transact(engine, lambda c: sweep(c, daily(), now=clock.now()))
    worker = JobWorker(engine=engine, clock=clock, handlers={"close": close})

    first = await worker.turn()
    assert [job.scheduled_for for job in first.done] == [at(6, 17)]
    assert list(first.failed.values()) == ["the bank does not answer"]

    clock.advance(timedelta(minutes=10))
    second = await worker.turn()

    assert [job.scheduled_for for job in second.done] == [at(5, 17)]
    assert attempts == [at(5, 17), at(6, 17), at(5, 17)]


def window_file(tmp_path: Path, **changes: object) -> dict[str, object]:
    window = {
        "window": "afternoon",
        "cron": "0 17 * * *",
        "timezone": "Europe/London",
        "since": date(2026, 1, 5),
    }
    return {
        "chain": "evm",
        "book": 1,
        "signer_socket": "s",
        "confirmations": "c.json",
        "payout_depth": 3,
        "start_height": 0,
        "settlement": [window | changes],
    }


def test_the_house_file_names_the_windows(tmp_path: Path) -> None:
    found = parse_house(window_file(tmp_path), tmp_path / "house.toml")

    assert [window.name for window in found.windows] == ["afternoon"]
    assert found.windows[0].schedule.since == MONDAY


@pytest.mark.parametrize("changes", [{"cron": "often"}, {"since": "soon"}, {"color": "blue"}])
def test_a_window_that_cannot_be_read_is_refused(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    with pytest.raises(BadInput):
        parse_house(window_file(tmp_path, **changes), tmp_path / "house.toml")


async def test_a_day_on_which_nothing_is_owed_ends_its_slot(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    clock = ManualClock(at(6, 9))
    await transact(engine, lambda c: open_book(c, 1, entity="test", now=MONDAY))
    window = parse_house(window_file(tmp_path), tmp_path / "house.toml").windows[0]
    calculator = Calculator(engine=engine, clock=clock, book=1)
    handlers = {window.schedule.name: partial(calculator.calculate, window)}
    await transact(engine, lambda c: sweep(c, window.schedule, now=clock.now()))

    turn = await JobWorker(engine=engine, clock=clock, handlers=handlers).turn()

    assert [job.scheduled_for for job in turn.done] == [at(5, 17)]
