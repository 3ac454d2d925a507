"""The end of a house: in time whatever hangs, and with every lease free for the next one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.workers import loops
from app.workers.house_file import parse_house
from app.workers.house_parts import House, holder, mark
from app.workers.jobs import JobWorker
from app.workers.loops import Loop, Pulse, run_loops
from app.workers.relay import relay_loop
from app.workers.stopping import (
    CUT_OFF_EXIT,
    STOP_WITHIN,
    give_back_leases,
    until_stopped,
)
from custody.payout_worker import advance_payouts
from custody.signer.wire import Intent, SignedApproval
from kernel.clock import ManualClock
from kernel.db import transact
from kernel.errors import OutsideUnavailable, StaleFence
from kernel.events import RELAY_LEASE, Delivery, DomainEvent, record, relay
from kernel.ids import stable_id
from kernel.jobs import Job, complete, enqueue
from kernel.leases import give_back_rows, leased_tables
from kernel.settings import Settings
from tests.custody.payout_world import BOOK, OneByOne, World, make_world

PATIENCE_S = 60
SOON = timedelta(milliseconds=1)
MINE = "/5e11a90c"
LEASES = """
SELECT count(*) FROM (
    SELECT lease_until FROM kernel.lease UNION ALL SELECT lease_until FROM kernel.job
    UNION ALL SELECT lease_until FROM custody.payout
) AS leased WHERE lease_until > :now"""

HANGS = """
import time
from datetime import timedelta
from app.workers.stopping import deadline
with deadline(timedelta(seconds=0.2)) as end:
    {begin}
    time.sleep({sleep})
print("ended by itself")
"""


def ended(*, begin: str, sleep: float) -> subprocess.CompletedProcess[str]:
    program = HANGS.format(begin=begin, sleep=sleep)
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def test_a_process_that_hangs_is_cut_off_before_it_would_be_killed() -> None:
    answer = ended(begin="end.begin(); end.begin()", sleep=3_600)

    assert answer.returncode == CUT_OFF_EXIT
    assert "did not end within 0.2 s and is cut off" in answer.stderr
    assert timedelta(seconds=30) > STOP_WITHIN > loops.GRACE


def test_a_process_that_ends_in_time_ends_by_itself() -> None:
    assert ended(begin="end.begin()", sleep=0).stdout == "ended by itself\n"


async def test_what_is_still_starting_is_given_up_and_what_has_started_ends_by_itself() -> None:
    stop, said = asyncio.Event(), []

    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)
        said.append("ended")

    stop.set()
    async with asyncio.timeout(PATIENCE_S):
        await until_stopped(work(3_600), stop, lambda: False)
    assert said == []
    await until_stopped(work(0.01), stop, lambda: True)
    assert said == ["ended"]


async def test_a_start_that_fails_says_why() -> None:
    async def work() -> None:
        raise OutsideUnavailable("the node does not answer")

    with pytest.raises(ExceptionGroup) as raised:
        await until_stopped(work(), asyncio.Event(), lambda: False)

    assert raised.group_contains(OutsideUnavailable, match="the node does not answer")


@dataclass(slots=True)
class Busy:
    """A loop that has leased something, and whose act on the outside does not come to an end."""

    world: World
    has_begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def hang(self) -> None:
        self.has_begun.set()
        await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class HangingSigner(OneByOne):
    busy: Busy

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        await self.busy.hang()
        return b""

    async def account_xpub(self, path: str) -> str:
        await self.busy.hang()
        return path


async def a_job(busy: Busy) -> None:
    world = busy.world
    await world.run(lambda conn: enqueue(conn, "report", world.clock.now()))

    async def handle(_: Job) -> None:
        await busy.hang()

    worker = JobWorker(
        engine=world.engine,
        clock=world.clock,
        handlers={"report": handle},
        holder=f"jobs{MINE}",
    )
    await worker.turn()


async def the_relay(busy: Busy) -> None:
    await hand_on(busy.world, f"relay{MINE}", lambda _: busy.hang())


async def a_payout(busy: Busy) -> None:
    world = busy.world
    await world.approved()
    await world.tell_signer()
    await advance_payouts(
        world.engine,
        world.gateway,
        HangingSigner(busy),
        chain="evm",
        book=BOOK,
        holder=f"watcher{MINE}",
        clock=world.clock,
    )


async def hand_on(
    world: World, name: str, deliver: Callable[[Sequence[Delivery]], Awaitable[None]]
) -> int:
    return await relay(world.engine, deliver, holder=name, now=world.clock.now())


async def open_leases(world: World) -> int:
    async with world.engine.connect() as conn:
        found = await conn.execute(text(LEASES), {"now": world.clock.now()})
        return int(found.scalar_one())


@pytest.mark.parametrize("turn", [a_job, the_relay, a_payout], ids=lambda turn: turn.__name__)
async def test_whatever_a_loop_was_busy_with_is_free_for_the_next_house_at_once(
    engine: AsyncEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    turn: Callable[[Busy], Awaitable[None]],
) -> None:
    monkeypatch.setattr(loops, "GRACE", timedelta(milliseconds=50))
    async with make_world(engine, tmp_path) as world:
        busy, stop = Busy(world), asyncio.Event()

        async def work() -> Mapping[str, object]:
            await turn(busy)
            return {}

        async def end() -> None:
            await busy.has_begun.wait()
            stop.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(end())
            await run_loops([Loop(name="busy", turn=work, pause=SOON)], stop)
        assert await open_leases(world) == 1

        freed = await give_back_leases(engine, world.clock, mark=MINE)

        assert sum(freed.values()) == 1
        assert await open_leases(world) == 0


async def test_another_houses_leases_are_left_to_it(engine: AsyncEngine, tmp_path: Path) -> None:
    async with make_world(engine, tmp_path) as world:
        await hand_on(world, "relay/other", nobody_listens)
        held = await open_leases(world)

        assert await give_back_leases(engine, world.clock, mark=MINE) == {}
        assert await open_leases(world) == held == 1


async def nobody_listens(_: Sequence[Delivery]) -> None:
    return


async def test_who_gave_a_lease_back_writes_no_more_once_it_is_claimed(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    """The lease is given back, the fence is not: the next claim raises it."""
    async with make_world(engine, tmp_path) as world:
        taken: list[Job] = []

        async def handle(job: Job) -> None:
            taken.append(job)
            if len(taken) == 1:
                await give_back_leases(engine, world.clock, mark=MINE)
                await worker.turn()

        worker = JobWorker(
            engine=engine, clock=world.clock, handlers={"report": handle}, holder=f"jobs{MINE}"
        )
        await world.run(lambda conn: enqueue(conn, "report", world.clock.now()))
        turn = await worker.turn()

        assert (len(taken), turn.done) == (2, [])
        with pytest.raises(StaleFence):
            await world.run(lambda conn: complete(conn, taken[0], now=world.clock.now()))


async def test_a_house_may_look_through_every_table_that_is_leased(engine: AsyncEngine) -> None:
    assert {table.fullname for table in leased_tables()} >= {
        "custody.payment_file",
        "custody.payout",
        "custody.spend",
        "custody.venue_withdrawal",
        "kernel.job",
        "kernel.lease",
        "reporting.alert_delivery",
        "venues.venue_order",
    }
    for table in leased_tables():
        # A right that is missing, or a column of another name, is an error and no empty answer.
        give_back = partial(give_back_rows, table=table, mark=MINE, now=ManualClock().now())
        assert await transact(engine, give_back) == 0


def house(engine: AsyncEngine, clock: ManualClock) -> House:
    file = parse_house(
        {
            "chain": "evm",
            "book": 1,
            "signer_socket": "s",
            "confirmations": "c.json",
            "payout_depth": 3,
            "start_height": 0,
        },
        Path("house.toml"),
    )
    return House(
        engine=engine,
        settings=Settings(),
        evm_url="",
        file=file,
        clock=clock,
        write=lambda _: None,
        facts={},
    )


async def happens(engine: AsyncEngine, number: int) -> None:
    event = DomainEvent(
        entity_type="deposit",
        entity_id=stable_id("deposit", str(number)),
        version=1,
        name="DepositCredited",
        at=ManualClock().now(),
        actor="system:watcher",
    )
    await transact(engine, lambda conn: record(conn, [event]))


async def test_of_two_replicas_one_hands_events_on_until_its_lease_is_over(
    engine: AsyncEngine,
) -> None:
    """A lease is renewed by whoever has its holder's name, so each replica has a name of its own."""
    clock = ManualClock()
    one, other = (relay_loop(house(engine, clock)) for _ in range(2))
    await happens(engine, 1)
    assert await one.turn() == {"events": 1}
    await happens(engine, 2)

    assert await other.turn() == {}

    clock.advance(RELAY_LEASE)
    assert await other.turn() == {"events": 1}


async def test_a_replica_knows_its_own_leases(engine: AsyncEngine) -> None:
    one, other = house(engine, ManualClock()), house(engine, ManualClock())

    assert holder(one, "relay").endswith(mark(one))
    assert not holder(other, "relay").endswith(mark(one))


async def test_a_loops_pulse_says_how_it_is_doing() -> None:
    stop, pulses = asyncio.Event(), dict[str, Pulse]()
    seen: list[tuple[bool, int]] = []

    async def turn() -> Mapping[str, object]:
        pulse = pulses["node"]
        seen.append((pulse.is_busy, pulse.failures))
        if len(seen) == 3:
            stop.set()
            return {}
        raise OutsideUnavailable("the node does not answer")

    await run_loops([Loop(name="node", turn=turn, pause=SOON)], stop, pulses)

    assert seen == [(True, 0), (True, 1), (True, 2)]
    pulse = pulses["node"]
    assert (pulse.turns, pulse.failures, pulse.is_busy) == (3, 0, False)
