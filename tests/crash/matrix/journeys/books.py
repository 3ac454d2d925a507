"""Posting, moves between books, jobs, and the outbox: what everything else stands on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.workers.book_mover import BookMover
from app.workers.jobs import LEASE, JobWorker
from app.workers.relay import RelayWorker
from kernel.clock import ManualClock
from kernel.errors import OutsideUnavailable
from kernel.events import RELAY_LEASE, DomainEvent, count_undelivered, list_history, record
from kernel.ids import derive_id
from kernel.jobs import JOB_ATTEMPTS_MAX, RETRY_MAX, Job, enqueue, list_dead, revive
from ledger.accounts import ensure_accounts, set_frozen
from ledger.interbook.model import Move, MoveRequest, MoveState
from ledger.interbook.moving import get_move
from ledger.verification import verify
from tests.crash.matrix.stage import Journey, Stage
from tests.kernel.test_events import ENTITY, NOW, event
from tests.ledger import test_interbook as interbook
from tests.ledger.by_hand import BOOK, OTHER, START, Hand, open_house

Play = Callable[[Stage], Awaitable[Any]]


async def opened(stage: Stage) -> Hand:
    """Return a house of two books whose verbs are mortal."""
    hand = await open_house(stage.mortal.engine, interbook.OWNERS)
    stage.mortal.make_asking_mortal(stage.patch, Hand, "do")
    stage.mortal.pass_lease = partial(hand.later, seconds=1)
    await hand.move("a", "bank:clients", "client:acme", 100)
    await hand.move("b", "bank:house", "equity:capital", 100)
    return hand


async def posts(stage: Stage) -> Any:
    hand = await opened(stage)
    await hand.move("c", "client:acme", "client:birch", 30)
    await hand.move("d", "client:birch", "client:acme", 5)
    for path, balance in (("client:acme", 75), ("client:birch", 25), ("bank:clients", 100)):
        assert await hand.balance(path) == balance
    assert await verify(stage.mortal.direct, BOOK) == []


async def moves(stage: Stage, asked: MoveRequest, ends: MoveState, *, frozen: bool = False) -> Any:
    hand = await opened(stage)
    if frozen:
        await hand.do(partial(_freeze, hand))
    move = await interbook.request(hand, asked)
    mover = BookMover(stage.mortal.engine, hand.clock)

    async def drive() -> Move:
        return await mover.drive(move.id)

    await stage.mortal.act(drive)
    assert (await hand.do(lambda conn: get_move(conn, move.id))).state is ends
    await interbook.proved(hand)
    gone = asked.amount if ends is MoveState.SETTLED else 0
    assert await hand.balance("client:acme") == 100 - gone
    if gone:
        assert await hand.balance("client:acme", book=OTHER) == gone


async def _freeze(hand: Hand, conn: AsyncConnection) -> None:
    now = hand.clock.now()
    await ensure_accounts(conn, OTHER, [("client:acme", "USDT")], now=now)
    await set_frozen(conn, OTHER, "client:acme", "USDT", frozen=True, reason="held", now=now)


async def _written(events: Sequence[DomainEvent], conn: AsyncConnection) -> None:
    """Write what is not written yet, as a verb does that looks at the state first."""
    known = {
        (item.entity_id, item.version)
        for entity in {event.entity_id for event in events}
        for item in await list_history(conn, events[0].entity_type, entity)
    }
    await record(conn, [item for item in events if (item.entity_id, item.version) not in known])


async def relays(stage: Stage) -> Any:
    """Events reach their consumer in the order of each entity, and none is lost."""
    clock, got = ManualClock(NOW), list[str]()
    mortal = stage.mortal
    other = derive_id(NOW, "another")
    written = [event(1), event(2), event(1, other), event(3)]
    mortal.pass_lease = partial(clock.advance, RELAY_LEASE + timedelta(seconds=1))
    await mortal.ask(partial(_written, written[:2]))
    await mortal.ask(partial(_written, written[2:]))

    async def turn() -> None:
        holder = f"relay-{mortal.lives}"
        await RelayWorker(engine=mortal.engine, clock=clock, write=got.append, holder=holder).turn()

    await mortal.act(turn)
    assert await mortal.ask(count_undelivered) == 0
    first = list(dict.fromkeys(got))
    assert len(first) == len(written), "events are missing"
    for entity in (ENTITY, other):
        versions = [line for line in first if str(entity) in line]
        assert versions == sorted(versions, key=lambda line: line.index('"position"'))


async def does_jobs(stage: Stage, *, dies: bool) -> Any:
    """A job is done; one that fails long enough waits for people, who let it run again."""
    clock, done = ManualClock(START), list[UUID]()
    mortal, broken = stage.mortal, dies

    async def handle(job: Job) -> None:
        if broken:
            raise OutsideUnavailable("it is down")
        done.append(job.id)

    async def turn() -> None:
        worker = JobWorker(
            engine=mortal.engine,
            clock=clock,
            handlers={"sweep": handle},
            holder=f"jobs-{mortal.lives}",
        )
        await worker.turn()

    mortal.pass_lease = partial(clock.advance, LEASE + timedelta(seconds=1))
    await mortal.ask(lambda conn: enqueue(conn, "sweep", START))
    for _ in range(JOB_ATTEMPTS_MAX + 1 if dies else 1):
        await mortal.act(turn)
        clock.advance(RETRY_MAX)
    if dies:
        (dead,) = await mortal.ask(list_dead)
        assert dead.attempts >= JOB_ATTEMPTS_MAX
        broken = False
        put_right = partial(revive, by="ada", reason="it is up", now=clock.now())
        await mortal.ask(lambda conn: put_right(conn, "sweep", START))
        await mortal.act(turn)
        clock.advance(LEASE)
        await mortal.act(turn)
    assert await mortal.ask(list_dead) == []
    # At least once: a handler has no second effect for the same slot.
    assert set(done) == {derive_id(START, "job", "sweep")}


JOURNEYS: Final = (
    Journey("posting", "transfers", posts),
    Journey("payout-book", "settled", partial(moves, asked=interbook.BOTH, ends=MoveState.SETTLED)),
    Journey(
        "payout-book",
        "refused",
        partial(moves, asked=replace(interbook.BOTH, amount=101), ends=MoveState.REFUSED),
    ),
    Journey(
        "payout-book",
        "returned",
        partial(moves, asked=interbook.BOTH, ends=MoveState.RETURNED, frozen=True),
    ),
    Journey("relay", "events", relays),
    Journey("job", "done", partial(does_jobs, dies=False)),
    Journey("job", "dead and revived", partial(does_jobs, dies=True)),
)
