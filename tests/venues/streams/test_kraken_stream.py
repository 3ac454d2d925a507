"""The unmodified ccxt.pro class on the simulator's Kraken channels: every item of every frame is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.clock import SystemClock
from kernel.db import transact
from kernel.errors import BadInput
from kernel.money import Asset
from kernel.settings import Secret
from marketdata.model import Instrument
from tests.venues.conftest import QUICK
from tests.venues.in_thread import SimulatorThread
from venues.account_state import account_state
from venues.ccxt.endpoint import Credentials, Endpoint
from venues.ccxt.gateway import CcxtGateway, GatewaySettings, open_gateway
from venues.ccxt.instance import asking
from venues.ccxt.kraken import KrakenReading
from venues.comparison import compare_fills
from venues.errors import KeyRefused
from venues.fills import list_fills, record_fills
from venues.model import (
    AccountMode,
    KeyPermissions,
    VenueStatus,
)
from venues.permissions import require_trading_key
from venues.records import BINANCE, KRAKEN
from venues.simulator.testing import SimulatorProcess
from venues.streams.binance import BinanceStream
from venues.streams.ccxt_session import CcxtSession
from venues.streams.errors import StreamLost
from venues.streams.factory import private_stream
from venues.streams.gaps import list_gaps
from venues.streams.kraken import KrakenStream
from venues.streams.kraken_frames import KrakenFrames
from venues.streams.model import (
    BalanceSeen,
    FillSeen,
    GapReason,
    OrderSeen,
    StreamEvent,
    StreamPolicy,
    SymbolSeen,
)
from venues.streams.supervisor import Supervisor

CLOCK = SystemClock()
NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
SCALES = {"BTC": 8, "ETH": 18, "USD": 4, "USDC": 6}
ASSETS = {code: Asset(code, scale) for code, scale in SCALES.items()}
MARKETS = (
    "BTC/USD:tick=0.1:lot=0.00001:min=5:mid=60000",
    "ETH/USD:tick=0.01:lot=0.0001:min=5:mid=3000",
)


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    line = ["--dialect", "kraken", "--step-ms", "0", "--symbol", *MARKETS]
    line += ["--balance", "BTC=50", "ETH=1000", "USD=5000000", "USDC=100000"]
    with SimulatorThread(tmp_path_factory.mktemp("kraken"), *line) as process:
        yield process


@pytest.fixture
def sim(venue: SimulatorProcess) -> Iterator[SimulatorProcess]:
    yield venue
    venue.control("DELETE", "faults")


def wanted(sim: SimulatorProcess) -> GatewaySettings:
    return GatewaySettings(
        venue="krk",
        account="desk",
        capabilities=KRAKEN,
        endpoint=Endpoint(http_url=sim.url, ws_url=sim.ws_url, private_ws_url=f"{sim.ws_url}/auth"),
        credentials=Credentials(api_key=sim.ready["api_key"], secret=Secret(sim.ready["secret"])),
        assets=ASSETS,
        rate_limit=False,
    )


@pytest.fixture
async def gateway(sim: SimulatorProcess) -> AsyncIterator[CcxtGateway]:
    async with open_gateway(wanted(sim), CLOCK) as opened:
        yield opened


@pytest.fixture
async def desk(sim: SimulatorProcess) -> AsyncIterator[Any]:
    """The account's own key, used by hand."""
    asked = wanted(sim)
    exchange = asking(KRAKEN, asked.credentials, asked.endpoint, asked.read_timeout, CLOCK)
    await exchange.load_markets()
    yield exchange
    await exchange.close()


@pytest.fixture
async def stream(sim: SimulatorProcess, gateway: CcxtGateway, desk: Any) -> KrakenStream:
    found = KrakenStream(wanted=wanted(sim), clock=CLOCK, venue_time=gateway.venue_time)
    found.learn(await gateway.instrument(desk.market("BTC/USD")["id"]))
    return found


async def buy(desk: Any) -> None:
    await desk.create_order("BTC/USD", "limit", "buy", "0.01", "70000", {"timeInForce": "IOC"})


async def heard(session: CcxtSession, *kinds: type[StreamEvent]) -> list[StreamEvent]:
    found: list[StreamEvent] = []
    async with asyncio.timeout(20):
        while not all(any(isinstance(e, kind) for e in found) for kind in kinds):
            found += await session.next(100)
    return found


async def lost(session: CcxtSession) -> StreamLost:
    async with asyncio.timeout(20):
        while True:
            try:
                await session.next(100)
            except StreamLost as error:
                return error


async def test_orders_trades_and_balances_are_all_heard_on_one_connection(
    stream: KrakenStream, desk: Any
) -> None:
    """With ccxt a trade reaches watch_my_trades alone, and both share one subscription."""
    async with stream.connect() as session:
        await session.probe(timedelta(seconds=20))
        await buy(desk)
        found = await heard(session, FillSeen, OrderSeen, BalanceSeen)
        async with asyncio.timeout(20):
            while not any(
                isinstance(e, OrderSeen) and e.report.status is VenueStatus.FILLED for e in found
            ):
                found += await session.next(100)

    fill = next(e.fill for e in found if isinstance(e, FillSeen))
    assert (fill.base, fill.quote, fill.base_units) == ("BTC", "USD", 1_000_000)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("ws_bad_json", GapReason.UNREADABLE),
        ("ws_wrong_types", GapReason.UNREADABLE),
        ("ws_drop", GapReason.SEQUENCE),
        ("ws_swap", GapReason.SEQUENCE),
        ("ws_close", GapReason.CLOSED),
    ],
)
async def test_what_is_wrong_with_a_frame_is_noticed_at_once(
    stream: KrakenStream, desk: Any, sim: SimulatorProcess, fault: str, reason: GapReason
) -> None:
    async with stream.connect() as session:
        await heard(session, BalanceSeen)
        sim.fault(fault, "user/executions")
        await buy(desk)
        trouble = await lost(session)

    assert trouble.reason is reason


async def test_a_frame_that_comes_twice_is_read_once(
    stream: KrakenStream, desk: Any, sim: SimulatorProcess
) -> None:
    async with stream.connect() as session:
        await heard(session, BalanceSeen)
        sim.fault("ws_duplicate", "user/executions", count=8)
        await buy(desk)
        found = await heard(session, FillSeen)
        await asyncio.sleep(0.2)
        found += await session.next(100)

    fills = [event.fill.trade_id for event in found if isinstance(event, FillSeen)]
    assert len(fills) == len(set(fills))


async def test_the_supervisor_tells_the_same_story_as_the_lists(
    engine: AsyncEngine,
    stream: KrakenStream,
    gateway: CcxtGateway,
    desk: Any,
    sim: SimulatorProcess,
) -> None:
    symbol = desk.market("BTC/USD")["id"]
    supervisor = Supervisor(
        engine=engine,
        stream=stream,
        gateway=gateway,
        symbols={symbol},
        clock=CLOCK,
        chance=lambda: 0.0,
        policy=StreamPolicy(
            audit_every=timedelta(minutes=5), backoff_max=timedelta(milliseconds=100)
        ),
        resolve=QUICK,
    )

    async def known() -> tuple[int, list[Any]]:
        async with engine.connect() as conn:
            fills = await list_fills(conn, "krk", "desk", symbol)
            return len(fills), await list_gaps(conn, "krk", "desk")

    async def until(trades: int, gaps: int) -> None:
        async with asyncio.timeout(20):
            while True:
                count, found = await known()
                if count >= trades and len(found) >= gaps and all(g.filled_at for g in found):
                    return
                await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        running = group.create_task(supervisor.run())
        await until(0, 1)
        before, _ = await known()
        await buy(desk)
        await until(before + 1, 1)
        sim.fault("ws_drop", "user/executions")
        await buy(desk)
        await until(before + 2, 2)
        running.cancel()
    page = await gateway.fills(symbol, "")
    async with engine.connect() as conn:
        fills = await list_fills(conn, "krk", "desk", symbol)
    _, (gap, *_) = await known()

    assert gap.reason is GapReason.SEQUENCE
    assert {f.trade_id: (f.base_units, f.quote_units, f.fee_units) for f in fills} == {
        f.trade_id: (f.base_units, f.quote_units, f.fee_units) for f in page.fills
    }


@pytest.mark.parametrize(
    ("flags", "is_third", "asset"),
    [("fcib", False, "BTC"), ("fciq", False, "USD"), ("", True, "USDC")],
)
@pytest.mark.parametrize("first", ["stream", "list"])
async def test_a_fee_is_told_alike_by_stream_and_list_whatever_it_was_taken_in(
    engine: AsyncEngine,
    stream: KrakenStream,
    gateway: CcxtGateway,
    desk: Any,
    sim: SimulatorProcess,
    flags: str,
    is_third: bool,  # noqa: FBT001  a row of the table
    asset: str,
    first: str,
) -> None:
    """The list of trades only values it in the quote asset; the ledger knows."""
    symbol = desk.market("BTC/USD")["id"]
    kind = {"timeInForce": "IOC", "oflags": flags}
    if is_third:
        sim.fault("fee_in_third_asset", "/0/private/AddOrder")
    async with stream.connect() as session:
        await heard(session, BalanceSeen)
        order = await desk.create_order("BTC/USD", "limit", "buy", "0.01", "70000", kind)
        told = [e.fill for e in await heard(session, FillSeen) if isinstance(e, FillSeen)]
    page = await gateway.fills(symbol, "")
    listed = [item for item in page.fills if item.trade_id in {fill.trade_id for fill in told}]
    placed: Any = SimpleNamespace(symbol=symbol, venue_order_id=order["id"])
    now = CLOCK.now()
    both = [(told, "stream"), (listed, "rest")]
    for fills, source in both if first == "stream" else reversed(both):
        await transact(engine, partial(record_fills, fills=fills, source=source, now=now))
    async with engine.connect() as conn:
        state = await account_state(conn, "krk", "desk")

    assert {item.fee_asset for item in listed} == {asset}
    assert all(item.fee_units > 0 for item in listed)
    assert compare_fills(told, listed) == []
    assert await gateway.fills_of_order(placed) == listed
    assert page.unread == ()
    assert state.mode is AccountMode.ACTIVE


async def test_a_key_that_may_not_read_the_ledger_is_refused_at_the_start(
    sim: SimulatorProcess, gateway: CcxtGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the ledger every fee would be a guess."""
    assert (await require_trading_key(gateway)).read
    may_read_all = KrakenReading.permissions

    def permissions(reading: KrakenReading, answer: Any) -> KeyPermissions:
        words = [word for word in answer["result"]["permissions"] if word != "query-ledger"]
        return may_read_all(reading, {"result": {"permissions": words}})

    monkeypatch.setattr(KrakenReading, "permissions", permissions)
    with pytest.raises(KeyRefused, match="cannot read") as refused:
        await require_trading_key(gateway)
    assert "ledger" in refused.value.remedy


def frames() -> KrakenFrames:
    return KrakenFrames({}, ASSETS, "desk", names={})


def test_silence_shows_because_heartbeats_are_counted_and_answers_are_not() -> None:
    assert frames().read({"channel": "heartbeat"}, NOW) == ()
    assert frames().read({"method": "pong", "req_id": 1}, NOW) is None


@pytest.mark.parametrize(
    ("first", "second", "gap"), [(1, 2, 0), (5, 6, 0), (5, 5, 0), (5, 7, 1), (5, 1, 1)]
)
def test_a_number_left_out_or_begun_again_is_a_gap(first: int, second: int, gap: int) -> None:
    reader = frames()
    told = [
        reader.read({"channel": "executions", "type": "update", "data": [], "sequence": n}, NOW)
        for n in (first, second)
    ]

    assert [len(events or ()) for events in told] == [0, gap]


@pytest.mark.parametrize(
    "frame",
    [
        5,
        {"channel": "executions", "data": 5, "sequence": 1},
        {"channel": "executions", "data": [5], "sequence": 1},
        {"channel": "executions", "data": []},
        {"channel": "balances", "data": [{"asset": "BTC"}], "sequence": 1},
    ],
    ids=str,
)
def test_a_frame_of_another_shape_is_refused(frame: Any) -> None:
    with pytest.raises(BadInput):
        frames().read(frame, NOW)


async def test_a_venue_that_says_nothing_though_it_should_is_left_and_listened_to_anew(
    engine: AsyncEngine, stream: KrakenStream, gateway: CcxtGateway, sim: SimulatorProcess
) -> None:
    """Not even a heartbeat comes, while questions are answered: ccxt #17081, #20412."""
    stream.silence_max = timedelta(milliseconds=1_600)
    supervisor = Supervisor(
        engine=engine,
        stream=stream,
        gateway=gateway,
        symbols=set(),
        clock=CLOCK,
        chance=lambda: 0.0,
        policy=StreamPolicy(
            audit_every=timedelta(minutes=5),
            probe_every=timedelta(milliseconds=200),
            backoff_max=timedelta(milliseconds=100),
        ),
        resolve=QUICK,
    )

    async def reasons() -> list[GapReason]:
        async with engine.connect() as conn:
            return [gap.reason for gap in await list_gaps(conn, "krk", "desk") if gap.filled_at]

    async with asyncio.TaskGroup() as group:
        running = group.create_task(supervisor.run())
        async with asyncio.timeout(20):
            while not await reasons():  # noqa: ASYNC110  the database is asked
                await asyncio.sleep(0.05)
            sim.fault("ws_silent", "")
            while GapReason.SILENT not in await reasons():  # noqa: ASYNC110  the same
                await asyncio.sleep(0.05)
        running.cancel()


def test_the_stream_of_an_account_follows_from_its_record(sim: SimulatorProcess) -> None:
    asked = wanted(sim)
    binance = replace(asked, capabilities=BINANCE)

    assert isinstance(private_stream(asked, CLOCK, venue_time=lambda at: at), KrakenStream)
    assert isinstance(private_stream(binance, CLOCK, venue_time=lambda at: at), BinanceStream)
    silent = replace(asked, capabilities=replace(KRAKEN, has_private_stream=False))
    with pytest.raises(BadInput, match="no private stream"):
        private_stream(silent, CLOCK, venue_time=lambda at: at)


TRADE: dict[str, Any] = {
    "order_id": "O6NTZC-K6FRH-ATWBCK",
    "cl_ord_id": "cw1",
    "exec_id": "T5DIUI-5N4KO-Z5BPXK",
    "exec_type": "trade",
    "symbol": "BTC/USD",
    "side": "sell",
    "last_qty": "0.01000000",
    "last_price": "60000.1",
    "liquidity_ind": "t",
    "cost": "600.00100000",
    "order_status": "partially_filled",
    "cum_qty": "0.01000000",
    "timestamp": "2026-01-05T09:00:00.123456Z",
    "fees": [{"asset": "USD", "qty": "1.56"}],
}
GRID = Instrument(
    venue="krk",
    symbol="XXBTZUSD",
    base=ASSETS["BTC"],
    quote=ASSETS["USD"],
    price_scale=1,
    tick=1,
    lot=1_000,
    lots_min=1,
    lots_max=10**9,
    min_notional=50_000,
)


def read(*rows: Any) -> Any:
    known = KrakenFrames({"XXBTZUSD": GRID}, ASSETS, "desk", names={"BTC/USD": "XXBTZUSD"})
    frame = {"channel": "executions", "type": "update", "data": list(rows), "sequence": 1}
    return known.read(frame, NOW)


def test_every_item_of_a_mixed_frame_is_read_whatever_comes_first() -> None:
    """An end names no symbol: it is that of the order that an earlier item told of."""
    end = {
        "order_id": TRADE["order_id"],
        "exec_type": "filled",
        "order_status": "filled",
        "cum_qty": "0.01",
        "timestamp": TRADE["timestamp"],
    }
    seen, open_still, over = read(TRADE, end)

    assert (seen.fill.trade_id, seen.fill.symbol) == (TRADE["exec_id"], "XXBTZUSD")
    assert seen.fill.executed_at.microsecond == 123_000
    assert open_still.report.status is VenueStatus.OPEN
    assert (over.report.status, over.report.client_order_id) == (VenueStatus.FILLED, "cw1")


@pytest.mark.parametrize("fees", [[], None, [{"qty": "1"}], [{"asset": "USD"}]])
def test_a_fee_without_its_asset_or_amount_is_refused_and_never_guessed(fees: Any) -> None:
    """The currency of a fee is missing: ccxt #6236."""
    with pytest.raises(BadInput):
        read(TRADE | {"fees": fees})


def test_a_trade_in_a_pair_that_nobody_named_is_never_dropped() -> None:
    """Only the trades of the first pair arrive: ccxt #18859, #8749, #19759."""
    assert read(TRADE | {"symbol": "ETH/USD"}) == (SymbolSeen("ETH/USD"),)
