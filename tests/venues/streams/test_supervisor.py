"""The supervisor of a private stream, on the simulator and PostgreSQL.

After any fault and rest, what the venue traded is on record, each trade once, and every stretch of
time in which nobody listened is a row.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.clock import SystemClock
from kernel.db import transact
from marketdata.instruments import record_instrument
from marketdata.model import Instrument
from matching.model import TimeInForce
from tests.venues.conftest import QUICK, intended, ticket
from venues.ccxt.gateway import CcxtGateway
from venues.fills import begin_history, list_fills
from venues.model import OrderState
from venues.orders import list_orders, submit
from venues.simulator.testing import SimulatorProcess
from venues.streams.binance import BinanceStream
from venues.streams.ccxt_session import CcxtSession
from venues.streams.gaps import list_gaps
from venues.streams.model import GapReason, GapRow, StreamEvent, StreamPolicy
from venues.streams.supervisor import Supervisor

CLOCK = SystemClock()
SYMBOL = "ETHUSDT"
R = GapReason
POLICY = StreamPolicy(
    probe_every=timedelta(milliseconds=300),
    probe_timeout=timedelta(milliseconds=1_500),
    audit_every=timedelta(milliseconds=200),
    audit_grace=timedelta(milliseconds=300),
    backoff_min=timedelta(milliseconds=20),
    backoff_max=timedelta(milliseconds=100),
)
LATER = replace(POLICY, audit_every=timedelta(minutes=5), probe_every=timedelta(minutes=5))
"""Only what the stream itself shows: nobody asks the venue."""


@pytest.fixture
async def grid(engine: AsyncEngine, gateway: CcxtGateway) -> Instrument:
    """The instrument on record, and what traded before this test left out."""
    found = await gateway.instrument(SYMBOL)
    for symbol in (SYMBOL, "BTCUSDT"):
        cursor, is_last = "", False
        while not is_last:
            page = await gateway.fills(symbol, cursor)
            cursor, is_last = page.cursor, page.is_last
        skip = partial(
            begin_history,
            venue="sim",
            account="desk",
            symbol=symbol,
            cursor=cursor,
            now=CLOCK.now(),
        )
        await transact(engine, skip)
    return await transact(engine, lambda c: record_instrument(c, found, now=CLOCK.now()))


class Listening:
    """A supervisor at work."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.events: list[StreamEvent] = []

    async def gaps(self) -> list[GapRow]:
        """Return the gaps on record, oldest first."""
        async with self._engine.connect() as conn:
            return (await list_gaps(conn, "sim", "desk"))[::-1]

    async def until(self, told: Callable[[], Awaitable[bool]]) -> None:
        """Wait until something is on record."""
        async with asyncio.timeout(20):
            while not await told():  # noqa: ASYNC110  the database is asked
                await asyncio.sleep(0.02)

    async def until_listening(self, gaps: int = 1) -> None:
        """Wait until there were so many gaps and all are over and filled."""

        async def told() -> bool:
            found = await self.gaps()
            return len(found) >= gaps and all(gap.filled_at for gap in found)

        await self.until(told)

    async def until_on_record(self, trades: int) -> None:
        """Wait until so many trades are on record."""

        async def told() -> bool:
            return len(await on_record(self._engine)) >= trades

        await self.until(told)


async def on_record(engine: AsyncEngine, symbol: str = SYMBOL) -> dict[str, str]:
    """Return which way each trade came."""
    async with engine.connect() as conn:
        rows = await conn.execute(
            text("SELECT trade_id, source FROM venues.fill WHERE symbol = :s"), {"s": symbol}
        )
        return {row.trade_id: row.source for row in rows}


@asynccontextmanager
async def listening(
    engine: AsyncEngine,
    stream: BinanceStream,
    gateway: CcxtGateway,
    policy: StreamPolicy = POLICY,
) -> AsyncIterator[Listening]:
    found = Listening(engine)
    supervisor = Supervisor(
        engine=engine,
        stream=stream,
        gateway=gateway,
        symbols={SYMBOL},
        clock=CLOCK,
        chance=lambda: 0.0,
        policy=policy,
        resolve=QUICK,
        hear=found.events.append,
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(supervisor.run())
        await found.until_listening()
        yield found
        running.cancel()


async def buy(desk: Any, times: int = 1, symbol: str = "ETH/USDT") -> int:
    """Take the ask by hand; return how many trades that made."""
    made = 0
    for _ in range(times):
        price = 4000 if symbol == "ETH/USDT" else 70000
        size = 0.1 if symbol == "ETH/USDT" else 0.001
        order = await desk.create_order(symbol, "limit", "buy", size, price, {"timeInForce": "IOC"})
        made += len(order["trades"])
    return made


async def test_a_trade_is_on_record_from_the_stream_alone(
    engine: AsyncEngine, stream: BinanceStream, gateway: CcxtGateway, grid: Instrument, desk: Any
) -> None:
    async with listening(engine, stream, gateway, LATER) as found:
        await found.until_on_record(await buy(desk))
        gaps = await found.gaps()

    assert set((await on_record(engine)).values()) == {"stream"}
    assert [(gap.reason, gap.fills_found) for gap in gaps] == [(R.STARTED, 0)]


async def test_an_order_that_ends_at_the_venue_ends_on_record(
    engine: AsyncEngine, stream: BinanceStream, gateway: CcxtGateway, grid: Instrument, desk: Any
) -> None:
    resting = ticket(grid, price="2000", time_in_force=TimeInForce.GTC)
    order = await intended(engine, resting)
    async with listening(engine, stream, gateway, LATER) as found:
        acked = await submit(engine, gateway, order.id, holder="t", clock=CLOCK)
        await desk.cancel_order("", "ETH/USDT", {"clientOrderId": order.client_order_id})

        async def cancelled() -> bool:
            async with engine.connect() as conn:
                (row,) = await list_orders(conn, "sim", "desk")
            return row.state is OrderState.CANCELLED

        await found.until(cancelled)

    assert acked.state is OrderState.ACKED


async def test_an_order_that_the_stream_shows_while_it_is_sent_is_known(
    engine: AsyncEngine,
    stream: BinanceStream,
    gateway: CcxtGateway,
    grid: Instrument,
    sim: SimulatorProcess,
) -> None:
    """The answer to the placement is lost: what the stream showed is the only evidence there is."""
    resting = ticket(grid, "shown", price="2000", time_in_force=TimeInForce.GTC)
    order = await intended(engine, resting)
    async with listening(engine, stream, gateway, LATER) as found:
        sim.fault("hang_after_accept", "/api/v3/order", count=1)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(submit(engine, gateway, order.id, holder="t", clock=CLOCK))

            async def shown() -> bool:
                async with engine.connect() as conn:
                    (row,) = await list_orders(conn, "sim", "desk")
                return row.state is OrderState.ACKED

            await found.until(shown)
            was_being_sent = not sending.done()

    await gateway.cancel_all(SYMBOL)
    assert was_being_sent
    assert sending.result().state is OrderState.ACKED


@pytest.mark.parametrize(
    ("fault", "options", "reason"),
    [
        ("ws_bad_json", {"count": 1}, R.UNREADABLE),
        ("ws_wrong_types", {"count": 4}, R.UNREADABLE),
        ("ws_close", {"count": 1}, R.CLOSED),
    ],
)
async def test_a_broken_stream_is_rebuilt_and_what_it_lost_is_asked_for(
    engine: AsyncEngine,
    stream: BinanceStream,
    gateway: CcxtGateway,
    grid: Instrument,
    desk: Any,
    sim: SimulatorProcess,
    fault: str,
    options: dict[str, Any],
    reason: GapReason,
) -> None:
    async with listening(engine, stream, gateway, LATER) as found:
        sim.fault(fault, "user", **options)
        trades = await buy(desk)
        await found.until_listening(gaps=2)
        sim.control("DELETE", "faults")
        await found.until_on_record(trades)
        before = await on_record(engine)
        trades += await buy(desk)
        await found.until_on_record(trades)
        *_, gap = await found.gaps()

    later = {k: way for k, way in (await on_record(engine)).items() if k not in before}
    assert gap.reason is reason
    assert gap.until is not None
    assert gap.since <= gap.until
    assert set(later.values()) == {"stream"}


@pytest.mark.parametrize(("fault", "count"), [("ws_silent", 1), ("ws_drop", 20)])
async def test_a_socket_that_is_open_but_mute_is_found_out_by_the_list_of_trades(
    engine: AsyncEngine,
    stream: BinanceStream,
    gateway: CcxtGateway,
    grid: Instrument,
    desk: Any,
    sim: SimulatorProcess,
    fault: str,
    count: int,
) -> None:
    """A stream goes silent without an error: ccxt #21731, #23214, #17081, #20412, #27532."""
    async with listening(engine, stream, gateway) as found:
        await asyncio.sleep(POLICY.audit_grace / timedelta(seconds=1) + 0.1)
        sim.fault(fault, "user", count=count)
        trades = await buy(desk)
        await found.until_listening(gaps=2)
        _, gap, *_ = await found.gaps()
        sim.control("DELETE", "faults")

    assert gap.reason is R.MISSED
    assert len(await on_record(engine)) == trades


def begun(monkeypatch: pytest.MonkeyPatch) -> list[CcxtSession]:
    """Return where every session that begins from now on is found."""
    sessions: list[CcxtSession] = []
    begin = CcxtSession.begin

    def began(session: CcxtSession) -> None:
        sessions.append(session)
        begin(session)

    monkeypatch.setattr(CcxtSession, "begin", began)
    return sessions


async def test_a_socket_that_does_not_answer_is_torn_down(
    engine: AsyncEngine,
    stream: BinanceStream,
    gateway: CcxtGateway,
    grid: Instrument,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The receiving loop of ccxt.pro is dead: it was cancelled, and no exception tells."""
    sessions = begun(monkeypatch)
    quick = replace(POLICY, probe_timeout=timedelta(milliseconds=300))
    async with listening(engine, stream, gateway, quick) as found:
        sessions[0]._client.handle_text_or_binary_message = lambda _: None
        await found.until_listening(gaps=2)
        _, gap, *_ = await found.gaps()

    assert gap.reason is R.UNANSWERED


@pytest.mark.parametrize("fault", ["ws_duplicate", "ws_swap"])
async def test_frames_twice_or_out_of_order_change_nothing(
    engine: AsyncEngine,
    stream: BinanceStream,
    gateway: CcxtGateway,
    grid: Instrument,
    sim: SimulatorProcess,
    fault: str,
) -> None:
    """Among them a balance before its fill: nothing is ever concluded from a balance."""
    order = await intended(engine, ticket(grid))
    async with listening(engine, stream, gateway, LATER) as found:
        sim.fault(fault, "user", count=3)
        after = await submit(engine, gateway, order.id, holder="t", clock=CLOCK)
        trades = len(await gateway.fills_of_order(after))
        await found.until_on_record(trades - (fault == "ws_swap"))
        await asyncio.sleep(0.1)

    async with engine.connect() as conn:
        (row,) = await list_orders(conn, "sim", "desk")
        fills = await list_fills(conn, "sim", "desk", SYMBOL)
    assert row.state is OrderState.FILLED
    assert sum(fill.base_units for fill in fills) <= order.base_units
    assert len(fills) == len({fill.trade_id for fill in fills})


async def test_a_venue_that_restarts_is_listened_to_again(
    engine: AsyncEngine,
    stream: BinanceStream,
    gateway: CcxtGateway,
    grid: Instrument,
    desk: Any,
    sim: SimulatorProcess,
) -> None:
    async with listening(engine, stream, gateway) as found:
        await asyncio.to_thread(sim.kill)

        async def refused_twice() -> bool:
            *_, last = await found.gaps()
            return last.attempts >= 2

        try:
            await found.until(refused_twice)
        finally:
            await asyncio.to_thread(sim.start)
        await found.until_listening(gaps=2)
        await found.until_on_record(await buy(desk))
        gaps = await found.gaps()

    assert [gap.reason for gap in gaps][:2] == [R.STARTED, R.CLOSED]


async def test_a_slow_writer_makes_a_gap_and_never_holds_up_the_socket(
    engine: AsyncEngine,
    owner_engine: AsyncEngine,
    stream: BinanceStream,
    gateway: CcxtGateway,
    grid: Instrument,
    desk: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream.queue_max = 3
    sessions = begun(monkeypatch)
    async with listening(engine, stream, gateway, LATER) as found:
        async with owner_engine.begin() as conn:
            await conn.execute(text("LOCK TABLE venues.fill IN SHARE MODE"))
            trades = await buy(desk, times=4)
            async with asyncio.timeout(20):
                while sessions[0]._lost is None:  # noqa: ASYNC110  it has no event of its own
                    await asyncio.sleep(0.02)
        await found.until_listening(gaps=2)
        _, gap, *_ = await found.gaps()

    assert gap.reason is R.OVERFLOW
    assert len(await on_record(engine)) == trades


async def test_a_supervisor_that_is_stopped_ends_within_a_second(
    engine: AsyncEngine, stream: BinanceStream, gateway: CcxtGateway, grid: Instrument, desk: Any
) -> None:
    """At best of three: what waits for anything waits each time, a busy machine does not."""
    took: list[timedelta] = []
    trades = 0
    for _ in range(3):
        async with listening(engine, stream, gateway) as found:
            trades += await buy(desk)
            await found.until_on_record(trades)
            began = CLOCK.now()
        took.append(CLOCK.now() - began)
        if took[-1] < timedelta(seconds=1):
            break

    assert min(took) < timedelta(seconds=1)


async def test_what_came_while_the_database_was_away_is_on_record_afterwards(
    engine: AsyncEngine,
    owner_engine: AsyncEngine,
    stream: BinanceStream,
    gateway: CcxtGateway,
    grid: Instrument,
    desk: Any,
) -> None:
    """The supervisor ends with the database's error; whoever keeps it starts another one."""
    trades = 0

    async def until_it_fails() -> None:
        nonlocal trades
        async with listening(engine, stream, gateway, LATER):
            async with owner_engine.begin() as conn:
                await conn.execute(text("REVOKE INSERT ON venues.fill FROM PUBLIC, causeway_app"))
            trades = await buy(desk)
            await asyncio.sleep(60)  # its end ends this, too

    with pytest.raises(ExceptionGroup):
        await until_it_fails()
    async with owner_engine.begin() as conn:
        await conn.execute(text("GRANT INSERT ON venues.fill TO causeway_app"))
    async with listening(engine, stream, gateway, LATER) as again:
        await again.until_on_record(trades)
        gaps = await again.gaps()

    assert set((await on_record(engine)).values()) == {"rest"}
    assert [gap.reason for gap in gaps] == [R.STARTED, R.STARTED]


async def test_two_supervisors_of_one_account_record_each_trade_once(
    engine: AsyncEngine,
    stream: BinanceStream,
    gateway: CcxtGateway,
    grid: Instrument,
    desk: Any,
) -> None:
    other = BinanceStream(wanted=stream.wanted, clock=CLOCK, venue_time=gateway.venue_time)
    async with (
        listening(engine, stream, gateway, LATER) as found,
        listening(engine, other, gateway, LATER),
    ):
        trades = await buy(desk, times=3)
        await found.until_on_record(trades)
        await asyncio.sleep(0.1)

    assert len(await on_record(engine)) == trades


async def test_a_trade_in_a_pair_that_nobody_named_is_asked_for(
    engine: AsyncEngine, stream: BinanceStream, gateway: CcxtGateway, grid: Instrument, desk: Any
) -> None:
    """Only the trades of the first pair arrive: ccxt #18859, #8749, #19759."""
    async with listening(engine, stream, gateway, LATER) as found:
        trades = await buy(desk, symbol="BTC/USDT")

        async def told() -> bool:
            return len(await on_record(engine, "BTCUSDT")) == trades

        await found.until(told)
