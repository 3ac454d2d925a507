"""The clock of settlement: each slot once and in order, whoever looks, whoever was down."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.workers.cycle_release import InTransactions
from app.workers.cycles import LEASE, CycleWorker, sweep_window
from kernel.clock import ManualClock
from kernel.errors import CommitUnknown
from kernel.jobs import JOB_ATTEMPTS_MAX, RETRY_MAX, claim_in_order, complete, revive
from kernel.tables import job, outbox
from registry.testing import USDT, operator_keypair
from settlement.model import Cycle, RunState, Window, cycle_state
from settlement.netting.exact import BUILT_IN
from settlement.queries import list_cycle_runs, list_cycles
from settlement.slots import job_of
from settlement.windows import list_windows, set_window, window_bytes
from tests.settlement.desk import ACME_WALLET, BOOK, DAY, Desk, open_desk
from tests.settlement.test_cycle_clocks import window as a_window

T = TypeVar("T")
NAME = "morning"


@pytest.fixture
async def desk(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(engine, tmp_path) as opened:
        yield opened


async def policy(desk: Desk, **changes: Any) -> Window:
    """Half past ten in Zurich, by the clock from beginning to end unless changed."""
    values: dict[str, Any] = {"name": NAME, "cut_off": time(10, 30), "effective_from": DAY}
    values |= {"seals_by_clock": True, "releases_by_clock": True, **changes}
    made = replace(a_window(), **values)

    async def work(conn: AsyncConnection) -> None:
        await set_window(
            conn,
            made,
            by=desk.operators["ada"],
            approver=desk.operators["ben"],
            signature=operator_keypair("ben").sign(window_bytes(made)),
            now=desk.now,
        )

    await desk.do(work)
    return made


def worker(desk: Desk, holder: str = "one", clock: ManualClock | None = None) -> CycleWorker:
    return CycleWorker(
        do=InTransactions(desk.engine),
        clock=clock or desk.clock,
        book=BOOK,
        holder=holder,
        solvers=lambda: BUILT_IN,
    )


async def cycles(desk: Desk) -> list[Cycle]:
    return await desk.do(lambda conn: list_cycles(conn, BOOK))


async def days(desk: Desk) -> list[int]:
    """The business dates of the cycles, in the order in which they were opened."""

    async def work(conn: AsyncConnection) -> list[int]:
        query = select(outbox.c.payload).where(outbox.c.type == "CycleOpened")
        found = (await conn.execute(query.order_by(outbox.c.position))).scalars()
        return [date.fromisoformat(told["value_date"]).day for told in map(_details, found)]

    return await desk.do(work)


def _details(payload: dict[str, Any]) -> dict[str, str]:
    details: dict[str, str] = payload.get("payload", payload)
    return details


async def jobs(desk: Desk) -> list[tuple[int, str]]:
    async def work(conn: AsyncConnection) -> list[tuple[int, str]]:
        query = select(job).where(job.c.name == job_of(NAME)).order_by(job.c.scheduled_for)
        return [(row.scheduled_for.day, row.state) for row in await conn.execute(query)]

    return await desk.do(work)


async def test_three_days_of_outage_are_made_up_for_in_order_and_once(desk: Desk) -> None:
    await policy(desk)
    desk.clock.advance(timedelta(days=3))

    first = await worker(desk).turn()
    second = await worker(desk).turn()

    assert [cycle.value_date for cycle in first.opened] == [date(2026, 1, n) for n in (5, 6, 7)]
    assert (first.slots, second.slots, second.opened) == (3, 0, [])
    assert await jobs(desk) == [(5, "done"), (6, "done"), (7, "done")]


TRANSACTIONS = ("windows", "slots", "claim", "open", "claim", "open", "no claim", "live cycles")
"""Of a turn that opens two slots."""


@pytest.mark.parametrize("lost", range(len(TRANSACTIONS)), ids=TRANSACTIONS.__getitem__)
async def test_whichever_answer_to_a_commit_is_lost_each_slot_is_opened_once(
    desk: Desk, lost: int
) -> None:
    await policy(desk)
    desk.clock.advance(timedelta(days=2))
    losing = Losing(InTransactions(desk.engine), lost + 1)

    with contextlib.suppress(CommitUnknown):
        assert (await replace(worker(desk), do=losing).turn()).failed == {}
    desk.clock.advance(LEASE)
    await worker(desk).turn()

    assert losing.left <= 0
    assert await jobs(desk) == [(5, "done"), (6, "done")]
    assert await days(desk) == [5, 6]


@dataclass
class Losing:
    """Commits every transaction, and loses the answer to one of them."""

    do: InTransactions
    left: int

    async def __call__(self, step: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        result = await self.do(step)
        self.left -= 1
        if self.left == 0:
            raise CommitUnknown("the connection was lost during COMMIT")
        return result


async def test_two_schedulers_at_once_open_each_slot_once(desk: Desk) -> None:
    await policy(desk)
    await desk.deal("sold")
    desk.clock.advance(timedelta(days=4))

    async with asyncio.TaskGroup() as group:
        turns = [group.create_task(worker(desk, f"w{n}").turn()) for n in range(3)]
    while (await worker(desk).turn()).opened:
        pass

    assert await days(desk) == sorted(await days(desk))
    assert await jobs(desk) == [(n, "done") for n in (5, 6, 7, 8)]
    opened = [cycle.id for turn in turns for cycle in turn.result().opened]
    assert len(opened) == len(set(opened))


async def test_a_clock_that_goes_back_opens_nothing_twice(desk: Desk) -> None:
    await policy(desk)
    desk.clock.advance(timedelta(days=2))
    await worker(desk).turn()
    before = await jobs(desk)

    behind = ManualClock(desk.now - timedelta(days=1, hours=3))
    turn = await worker(desk, clock=behind).turn()

    assert (turn.slots, turn.opened, await jobs(desk)) == (0, [], before)


async def test_a_slot_that_somebody_died_at_is_taken_over_and_no_later_one_overtakes_it(
    desk: Desk,
) -> None:
    await policy(desk)
    desk.clock.advance(timedelta(days=2))
    versions = await desk.do(lambda conn: list_windows(conn, BOOK))
    await desk.do(lambda conn: sweep_window(conn, versions, desk.now))
    killed = await desk.do(
        lambda conn: claim_in_order(
            conn, job_of(NAME), holder="killed", now=desk.now, lease_for=LEASE
        )
    )
    assert killed is not None

    assert (await worker(desk).turn()).opened == []
    desk.clock.advance(LEASE)
    assert len((await worker(desk).turn()).opened) == 2
    # The one that was given up wakes up: its fence is over.
    with pytest.raises(Exception, match="taken over by another worker"):
        await desk.do(lambda conn: complete(conn, killed, now=desk.now))
    assert await days(desk) == [5, 6]


async def test_a_slot_that_fails_waits_with_those_behind_it_and_a_dead_one_holds_up_nobody(
    desk: Desk,
) -> None:
    await policy(desk)
    desk.clock.advance(timedelta(days=2))
    versions = await desk.do(lambda conn: list_windows(conn, BOOK))
    await desk.do(lambda conn: sweep_window(conn, versions, desk.now))
    first = (job.c.name == job_of(NAME)) & (job.c.scheduled_for < datetime(2026, 1, 6, tzinfo=UTC))
    broken = {"window": NAME, "business_date": "2025-01-01"}
    good = {"window": NAME, "business_date": "2026-01-05"}
    last = JOB_ATTEMPTS_MAX - 2
    await desk.do(
        lambda conn: conn.execute(update(job).where(first).values(payload=broken, attempts=last))
    )

    turn = await worker(desk).turn()
    assert len(turn.failed) == 1
    assert await jobs(desk) == [(5, "ready"), (6, "ready")]
    desk.clock.advance(RETRY_MAX)
    turn = await worker(desk).turn()

    assert [dead.scheduled_for.day for dead in turn.dead] == [5]
    assert await days(desk) == [6]
    await desk.do(lambda conn: conn.execute(update(job).where(first).values(payload=good)))
    await desk.do(
        lambda conn: revive(
            conn,
            job_of(NAME),
            datetime(2026, 1, 5, 9, 30, tzinfo=UTC),
            by="ada",
            reason="put right",
            now=desk.now,
        )
    )
    await worker(desk).turn()
    assert await days(desk) == [6, 5]


async def test_a_cycle_goes_by_the_clock_from_its_cut_off_to_its_payout(desk: Desk) -> None:
    await policy(desk)
    await desk.agree("acme")
    await desk.instruct("acme", "ETH", ACME_WALLET)
    await desk.capital(("custody:house-hot", "equity:capital", "20", "ETH"))
    await desk.deal("sold")
    cutoff = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
    desk.clock.advance(cutoff - desk.now)
    one, two = worker(desk, "one"), worker(desk, "two")
    await one.turn()
    (cycle,) = await cycles(desk)
    (run,) = await desk.do(lambda conn: list_cycle_runs(conn, cycle.id))
    await desk.affirm_all(run.id)

    assert (await two.turn()).sealed == []
    desk.clock.advance(cycle.top_up_until - desk.now)
    assert [sealed.id for sealed in (await two.turn()).sealed] == [run.id]
    desk.clock.advance(cycle.release_at - desk.now)
    async with asyncio.TaskGroup() as group:
        for each in (one, two):
            group.create_task(each.turn())
    assert await desk.states(run.id) == {"acme ETH": "funded", "acme USDT": "released"}
    assert await desk.holds() == {"transit:out:evm ETH": "10"}
    await desk.receive(USDT.parse("30300"))
    await desk.match()
    async with asyncio.TaskGroup() as group:
        turns = [group.create_task(each.turn()) for each in (one, two)]
    payouts = [p for t in turns for found in t.result().released for p in found.payouts.values()]
    assert len(payouts) == 1
    await desk.send(payouts[0])
    await desk.mine(3)
    await desk.finality(run.id)

    (run,) = await desk.do(lambda conn: list_cycle_runs(conn, cycle.id))
    assert cycle_state([run.state]) is RunState.FINAL
    assert await desk.books("payable", "in-flight", "transit") == {}


@pytest.mark.parametrize("steps", [{"seals_by_clock": False}, {"releases_by_clock": False}])
async def test_what_the_policy_leaves_to_people_the_clock_does_not_do(
    desk: Desk, steps: dict[str, bool]
) -> None:
    await policy(desk, **steps)
    await desk.deal("sold")
    desk.clock.advance(timedelta(hours=1))
    await worker(desk).turn()
    (cycle,) = await cycles(desk)
    for run in await desk.do(lambda conn: list_cycle_runs(conn, cycle.id)):
        await desk.affirm_all(run.id)
    desk.clock.advance(cycle.release_at - desk.now)

    await worker(desk).turn()

    runs = await desk.do(lambda conn: list_cycle_runs(conn, cycle.id))
    wanted = RunState.AFFIRMED if "seals_by_clock" in steps else RunState.SEALED
    assert {run.state for run in runs} == {wanted}


async def test_only_the_windows_that_are_named_are_looked_at(desk: Desk) -> None:
    await policy(desk)
    await policy(desk, name="other", cut_off=time(11))
    desk.clock.advance(timedelta(days=1))

    turn = await worker(desk).turn({"other"})

    assert [cycle.window for cycle in turn.opened] == ["other"]
