"""Gaps and states of streams on record: of this process, of one that was killed, of one that waited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.clock import ManualClock, to_unix_ns
from kernel.db import create_engine, transact
from marketdata.consumers import LosslessQueue
from marketdata.events import Channel, GapReason, GapSeen
from marketdata.gaps import GapRow, list_gaps
from marketdata.model import StreamState, StreamStatus
from marketdata.status import list_status
from tests.venues.feeds.conftest import streaming
from venues.feeds import keeper as keeping_module
from venues.feeds.keeper import Keeper
from venues.simulator.faults import FaultKind
from venues.simulator.server import VenueSimulator

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
BEGIN, END = START - timedelta(days=1), datetime(2100, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class ToldFeed:
    """A feed that tells what a test has it tell."""

    venue: str = "sim"
    statuses: list[StreamStatus] = field(default_factory=list)
    queues: list[LosslessQueue[GapSeen]] = field(default_factory=list)

    @contextmanager
    def gaps(self, queue: LosslessQueue[GapSeen]) -> Iterator[None]:
        self.queues.append(queue)
        yield
        self.queues.remove(queue)

    def status(self) -> Sequence[StreamStatus]:
        return self.statuses

    def tell(self, gap: GapSeen) -> None:
        for queue in self.queues:
            queue.put_nowait(gap)


def gap(
    at: datetime,
    until: datetime | None = None,
    *,
    reason: GapReason = GapReason.CLOSED,
    channel: Channel = Channel.TRADES,
    detail: str = "",
) -> GapSeen:
    return GapSeen(
        venue="sim",
        symbol="ETHUSDT",
        channel=channel,
        reason=reason,
        since_ns=to_unix_ns(at),
        until_ns=0 if until is None else to_unix_ns(until),
        detail=detail,
        received_ns=to_unix_ns(at),
    )


def status(state: StreamState = StreamState.LIVE) -> StreamStatus:
    return StreamStatus(
        venue="sim",
        symbol="ETHUSDT",
        channel=Channel.TRADES,
        state=state,
        since=START,
        last_event_at=START,
        sequence=7,
        gaps=1,
        reconnects=0,
        messages=5,
    )


@asynccontextmanager
async def keeping(feed: ToldFeed, engine: AsyncEngine, clock: ManualClock) -> AsyncIterator[None]:
    keeper = Keeper(feed, engine, clock, every=timedelta(milliseconds=20))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(keeper.run())
        await asyncio.sleep(0)  # what has not begun is not ended either
        yield
        running.cancel()


async def rows(engine: AsyncEngine) -> list[GapRow]:
    return await transact(engine, lambda conn: list_gaps(conn, "sim", "ETHUSDT", None, BEGIN, END))


async def until_rows(engine: AsyncEngine, count: int) -> list[GapRow]:
    async with asyncio.timeout(20):
        while len(found := await rows(engine)) < count:  # noqa: ASYNC110  another task writes them
            await asyncio.sleep(0.01)
    return found


async def test_a_gap_is_one_row_from_its_beginning_to_its_end(engine: AsyncEngine) -> None:
    feed, clock = ToldFeed(), ManualClock(START)
    later = START + timedelta(seconds=3)
    async with keeping(feed, engine, clock):
        feed.tell(gap(START, detail="close code 1006"))
        (row,) = await until_rows(engine, 1)
        assert (row.since, row.until, row.reason) == (START, None, GapReason.CLOSED)
        feed.tell(gap(START, later, detail="close code 1006"))
        feed.tell(gap(START, later, detail="close code 1006; trades 5 to 9 are missing"))

    (row,) = await rows(engine)
    assert (row.since, row.until) == (START, later)
    assert row.detail == "close code 1006; trades 5 to 9 are missing"


async def test_what_was_told_last_is_written_before_the_process_ends(engine: AsyncEngine) -> None:
    feed, clock = ToldFeed(statuses=[status(StreamState.DOWN)]), ManualClock(START)
    async with keeping(feed, engine, clock):
        feed.tell(gap(START, detail="stopped"))

    (row,) = await rows(engine)
    assert row.detail == "stopped"
    ((kept, told_at),) = await transact(engine, lambda conn: list_status(conn, "sim"))
    assert (kept, told_at) == (status(StreamState.DOWN), START)


async def test_the_next_process_ends_what_this_one_left_open(engine: AsyncEngine) -> None:
    feed, clock = ToldFeed(), ManualClock(START)
    async with keeping(feed, engine, clock):
        feed.tell(gap(START, detail="stopped"))
    clock.advance(timedelta(hours=1))
    async with keeping(ToldFeed(), engine, clock):
        async with asyncio.timeout(20):
            while (await rows(engine))[0].until is None:  # noqa: ASYNC110  another task writes it
                await asyncio.sleep(0.01)

    (row,) = await rows(engine)
    assert row.until == START + timedelta(hours=1)


async def test_a_process_that_was_killed_is_a_gap_since_its_last_word(engine: AsyncEngine) -> None:
    """It wrote that the stream lives, and nothing more; the next one begins an hour later."""
    feed, clock = ToldFeed(statuses=[status()]), ManualClock(START)
    async with keeping(feed, engine, clock):
        pass
    clock.advance(timedelta(hours=1))
    again, began = ToldFeed(), clock.now()
    async with keeping(again, engine, clock):
        again.tell(gap(began, reason=GapReason.STARTED))
        await until_rows(engine, 1)
        again.tell(gap(began, began + timedelta(seconds=1), reason=GapReason.STARTED))

    (row,) = await rows(engine)
    assert (row.since, row.until) == (START, began + timedelta(seconds=1))
    assert row.reason is GapReason.STARTED


async def test_a_database_that_is_away_holds_nothing_up_and_loses_no_gap(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = create_engine("postgresql+asyncpg://nobody@127.0.0.1:9/none")
    monkeypatch.setattr(keeping_module, "PAUSE", timedelta(milliseconds=10))
    feed, clock = ToldFeed(), ManualClock(START)
    keeper = Keeper(feed, nowhere, clock, every=timedelta(milliseconds=20))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(keeper.run())
        for minute in range(3):
            feed.tell(gap(START + timedelta(minutes=minute)))
        await asyncio.sleep(0.1)
        keeper._engine = engine
        found = await until_rows(engine, 3)
        running.cancel()
    await nowhere.dispose()

    assert [row.since.minute for row in found] == [0, 1, 2]


async def test_every_gap_of_a_real_feed_is_a_row_with_reason_and_times(
    engine: AsyncEngine, venue: VenueSimulator
) -> None:
    async with streaming(venue, channels=[Channel.BOOK, Channel.TRADES]) as feed:
        keeper = Keeper(feed.runner, engine, ManualClock(START))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(keeper.run())
            await feed.until_true()
            feed.fault(FaultKind.WS_WRONG_TYPES, "ethusdt@depth")
            feed.move("ETHUSDT", 301_500)
            await feed.until(lambda: feed.reasons("ETHUSDT") == ["malformed"])
            await feed.until_true()
            feed.fault(FaultKind.WS_CLOSE, "depth")
            feed.move("ETHUSDT", 302_500)
            await feed.until(lambda: len(feed.reasons("ETHUSDT")) == 2)
            await feed.until_true()
            told = {
                (one.symbol, one.channel, one.reason): one
                for one in feed.told()
                if isinstance(one, GapSeen)
            }
            running.cancel()
    found = await transact(engine, lambda conn: list_gaps(conn, "sim", None, None, BEGIN, END))

    assert {(row.symbol, row.channel, row.reason) for row in found} == {*told}
    book = [row.reason for row in found if (row.symbol, row.channel) == ("ETHUSDT", "book")]
    assert sorted(book) == ["closed", "malformed", "started"]
    assert all(row.until is not None and row.since <= row.until for row in found)
    assert {one.state for one, _ in await transact(engine, lambda c: list_status(c, "sim"))} == {
        StreamState.LIVE
    }
