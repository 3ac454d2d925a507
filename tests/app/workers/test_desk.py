"""The desk's worker on feeds and accounts that run anyway: hedges, quotes, what a turn leaves out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.workers.desk import DeskWorker, desk_worker
from app.workers.house_file import parse_house
from app.workers.market_data import MarketDesk
from app.workers.venue_desk import VenueDesk, open_desk
from kernel.clock import ManualClock, SystemClock
from kernel.db import transact
from kernel.errors import BadInput, Refused
from kernel.money import Price
from kernel.settings import Secret
from ledger.posting import open_book
from matching.model import Side, TimeInForce
from registry.changes import found
from registry.testing import ETH, USDT, demo_founding
from risk.controls import control_of, set_control
from risk.model import ControlState
from tests.risk.conftest import limit_desk
from tests.venues.in_thread import SimulatorThread
from trading.deals import book_deal
from trading.hedges.lines import get_line, open_line
from trading.hedges.model import HedgeLine, HedgePlace, HedgeVerdict
from trading.model import DealRequest, DealSide
from trading.position import position
from trading.quotes.model import QuoteRequest, QuoteState
from trading.quotes.queries import get_quote
from trading.quotes.requesting import request_quote
from trading.venue_accounts import open_venue_account
from venues.ccxt.endpoint import Credentials
from venues.credentials.model import KeyPurpose, Slot
from venues.credentials.vault import enrol
from venues.model import OrderState, OrderTicket, VenueOrder
from venues.orders import intend, list_orders, submit
from venues.simulator.testing import SimulatorProcess

BOOK = 1
CLOCK = SystemClock()
KEK = bytes(range(32))
PATIENCE_S = 10.0
HOUSE: dict[str, Any] = {
    "chain": "evm",
    "book": BOOK,
    "signer_socket": "signer.sock",
    "confirmations": "confirmations.json",
    "payout_depth": 6,
    "start_height": 1,
    "desk": {"pause_ms": 50, "quote_book_age_ms": 600_000},
    "hedge": [{"desk": "otc", "asset": "ETH", "skew_full": "10", "book_age_ms": 600_000}],
    "venue": [
        {
            "venue": "binance",
            "account": "desk",
            "connector": "binance",
            "kek": "venues.kek",
            "taker_ppm": 1_000,
        }
    ],
    "feed": [
        {
            "venue": "binance",
            "connector": "binance",
            "symbols": ["ETHUSDT"],
            "channels": ["book"],
            "check_seconds": 0,
        }
    ],
}


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    folder = tmp_path_factory.mktemp("venue")
    with SimulatorThread(
        folder, "--step-ms", "0", "--balance", "ETH=1000", "USDT=5000000"
    ) as process:
        yield process


@pytest.fixture
async def house(engine: AsyncEngine, tmp_path: Path, sim: SimulatorProcess) -> AsyncEngine:
    kek = tmp_path / "venues.kek"
    kek.touch(mode=0o600)
    kek.write_text(KEK.hex())

    async def work(conn: AsyncConnection) -> None:
        now = CLOCK.now()
        await found(conn, demo_founding(), now=now)
        await open_book(conn, BOOK, entity="causeway-desk", now=datetime(2026, 1, 5, tzinfo=UTC))
        await enrol(
            conn,
            Slot("binance", "desk", KeyPurpose.TRADING),
            Credentials(api_key=sim.ready["api_key"], secret=Secret(sim.ready["secret"])),
            KEK,
            random=os.urandom,
            by="olga",
            reason="a test",
            now=now,
        )

    await transact(engine, work)
    return engine


@asynccontextmanager
async def working(
    engine: AsyncEngine, sim: SimulatorProcess, path: Path
) -> AsyncIterator[tuple[DeskWorker, VenueDesk]]:
    """The worker of a house with one feed, running, and one account."""
    at = {"http_url": sim.url, "ws_url": sim.ws_url}
    described = {
        **HOUSE,
        "venue": [{**HOUSE["venue"][0], **at}],
        "feed": [{**HOUSE["feed"][0], **at}],
    }
    file = parse_house(described, path / "house.toml")
    assert file.desk is not None
    stop = asyncio.Event()
    market = MarketDesk(
        engine=engine,
        section=file.feeds[0],
        settings=file.market_data,
        clock=CLOCK,
        chance=Random(1).random,
    )
    async with (
        open_desk(
            engine, file.venues[0], book=BOOK, clock=CLOCK, chance=Random(2).random
        ) as account,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(market.listen(stop))
        async with asyncio.timeout(PATIENCE_S):
            while market.feed is None or market.book("ETHUSDT") is None:  # noqa: ASYNC110  a feed begins
                await asyncio.sleep(0.02)
        worker = await desk_worker(
            engine,
            file.desk,
            file.hedges,
            book=BOOK,
            accounts=[account],
            markets=[market],
            clock=CLOCK,
        )
        try:
            yield worker, account
        finally:
            stop.set()


async def dealt(engine: AsyncEngine, reference: str, amount: str) -> None:
    now = CLOCK.now()
    asked = DealRequest(
        client_ref=reference,
        desk="otc",
        party="acme",
        side=DealSide.DESK_SELLS,
        base=ETH,
        quote=USDT,
        base_units=ETH.parse(amount),
        price=Price.parse("3000", ETH, USDT),
        booked_by="dora",
        reason="agreed by phone",
    )
    await transact(engine, lambda conn: book_deal(conn, asked, book=BOOK, now=now))


async def until_flat(worker: DeskWorker) -> HedgeVerdict:
    """Take turns until the line is within a lot of its target; return what the last look said."""
    async with asyncio.timeout(PATIENCE_S), worker.engine.connect() as conn:
        while True:
            await worker.hedge()
            held = (await position(conn, BOOK, "otc")).get("ETH", 0)
            line = await get_line(conn, "otc", "ETH")
            await conn.rollback()
            if line.look is not None and abs(held) < 10**14 and line.look.position == held:
                return line.look.verdict
            await asyncio.sleep(0.05)


LINE = HedgeLine(desk="otc", asset="ETH", places=(HedgePlace("binance", "desk", "ETHUSDT"),))


async def opened(engine: AsyncEngine, account: VenueDesk) -> None:
    await open_venue_account(engine, account.gateway, ["ETHUSDT"], book=BOOK, clock=CLOCK)
    now = CLOCK.now()
    await transact(engine, lambda conn: open_line(conn, LINE, by="dora", reason="test", now=now))


async def test_a_deal_is_hedged_without_anybody_asking_and_a_quote_is_priced(
    house: AsyncEngine, sim: SimulatorProcess, tmp_path: Path
) -> None:
    async with working(house, sim, tmp_path) as (worker, account):
        await opened(house, account)
        await dealt(house, "d-1", "2")

        verdict = await until_flat(worker)
        again = await worker.hedge()
        quote = await asked_and_served(worker)

        assert verdict in {HedgeVerdict.FLAT, HedgeVerdict.BELOW_MINIMUM}
        assert again == {}
        assert worker.counters()["desk_hedge_orders", "otc/ETH"] >= 1
        assert quote is QuoteState.QUOTED
        assert await worker.confirm() == {"confirmations": 1}
        assert (await worker.watch(), worker.counters()["desk_quotes_served", "all"]) == ({}, 1)


async def asked_and_served(worker: DeskWorker) -> QuoteState:
    asked = QuoteRequest(
        client_ref="q-1",
        party="acme",
        desk="otc",
        base=ETH,
        quote=USDT,
        units=ETH.parse("1"),
        requested_by="dora",
    )
    made = await transact(
        worker.engine, lambda conn: request_quote(conn, asked, book=BOOK, now=CLOCK.now())
    )
    assert await worker.serve() == {"served": 1}
    return (await transact(worker.engine, lambda conn: get_quote(conn, made.id))).state


async def test_what_a_halted_desk_has_at_a_venue_is_cancelled_whoever_halted_it(
    house: AsyncEngine, sim: SimulatorProcess, tmp_path: Path
) -> None:
    async with working(house, sim, tmp_path) as (worker, account):
        await opened(house, account)
        ticket = OrderTicket(
            venue="binance",
            account="desk",
            symbol="ETHUSDT",
            instrument_version=1,
            side=Side.BUY,
            base_units=ETH.parse("1"),
            quantity="1.0000",
            price="1000.00",
            time_in_force=TimeInForce.GTC,
            reference="test",
            intent="far from the market",
        )
        order = await sent(worker, account, ticket)
        assert order.state is OrderState.ACKED
        assert await worker.enforce() == {}

        await transact(
            house,
            lambda conn: set_control(
                conn, "otc", ControlState.HALTED, by="system:watch", reason="l", now=CLOCK.now()
            ),
        )
        await worker.enforce()

        async with house.connect() as conn:
            (found,) = await list_orders(conn, "binance", "desk")
        assert found.state is OrderState.CANCELLED
        assert "desk switches" in {loop.name for loop in worker.loops()}


async def sent(worker: DeskWorker, account: VenueDesk, ticket: OrderTicket) -> VenueOrder:
    async def work(conn: AsyncConnection) -> VenueOrder:
        return await intend(
            conn,
            ticket,
            capabilities=account.gateway.capabilities,
            recv_window=timedelta(seconds=5),
            actor="system:test",
            reason="test",
            now=CLOCK.now(),
        )

    order = await transact(worker.engine, work)
    return await submit(worker.engine, account.gateway, order.id, holder="test", clock=CLOCK)


async def test_an_account_that_is_not_in_the_books_yet_takes_no_orders(
    house: AsyncEngine, sim: SimulatorProcess, tmp_path: Path
) -> None:
    async with working(house, sim, tmp_path) as (worker, _):
        now = CLOCK.now()
        await transact(house, lambda conn: open_line(conn, LINE, by="dora", reason="", now=now))
        await dealt(house, "d-2", "2")

        done = await worker.hedge()

        line = await transact(house, lambda conn: get_line(conn, "otc", "ETH"))
        assert done == {}
        assert line.look is not None
        assert line.look.verdict is HedgeVerdict.VENUE_DOWN
        assert "no connection" in line.look.detail
        await worker.hedge()
        assert worker.counters()["desk_alarms", "otc/ETH"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"desk": {"pause": 1}}, "has the key pause"),
        ({"desk": {"pause_ms": 1}}, "pause_ms is 1"),
        ({"desk": {"hedges": "yes"}}, "hedges is 'yes'"),
        ({"desk": None, "hedge": HOUSE["hedge"]}, "no \\[desk\\]"),
        ({"hedge": [{"desk": "otc"}]}, "does not say asset"),
        ({"hedge": [{"desk": "otc", "asset": "ETH", "band": 1}]}, "band is 1, not a text"),
        ({"hedge": [{"desk": "otc", "asset": "ETH", "slippage_ppm": -1}]}, "slippage_ppm is -1"),
        ({"hedge": [*HOUSE["hedge"], *HOUSE["hedge"]]}, "the same line"),
        ({"venue": [{**HOUSE["venue"][0], "taker_ppm": 10**6}]}, "taker_ppm is 1000000"),
    ],
)
def test_what_the_house_file_says_of_the_desk_is_checked(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    document = {key: value for key, value in {**HOUSE, **changes}.items() if value is not None}

    with pytest.raises(BadInput, match=message):
        parse_house(document, tmp_path / "house.toml")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ({"asset": "DOGE"}, Refused),
        ({"asset": "ETH", "band": "-1"}, BadInput),
        ({"asset": "ETH", "band": "much"}, BadInput),
    ],
)
async def test_amounts_of_a_line_are_of_its_asset(
    house: AsyncEngine, tmp_path: Path, line: dict[str, Any], error: type[Exception]
) -> None:
    file = parse_house({**HOUSE, "hedge": [{"desk": "otc", **line}]}, tmp_path / "house.toml")
    assert file.desk is not None

    with pytest.raises(error):
        await desk_worker(
            house,
            file.desk,
            file.hedges,
            book=BOOK,
            accounts=[],
            markets=[],
            clock=CLOCK,
        )


async def test_a_desk_without_lines_is_watched_and_one_whose_loss_nobody_knows_only_reduces(
    house: AsyncEngine, tmp_path: Path
) -> None:
    """It owes what no price is on record for, so nobody can tell what its day has come to."""
    await dealt(house, "d-1", "1 ETH")
    await limit_desk(house, loss_units=USDT.parse("100"))
    file = parse_house(HOUSE, tmp_path / "house.toml")
    assert file.desk is not None
    clock = ManualClock(CLOCK.now())
    worker = await desk_worker(
        house, file.desk, file.hedges, book=BOOK, accounts=[], markets=[], clock=clock
    )

    async def switch() -> ControlState:
        await worker.watch()
        async with house.connect() as conn:
            return (await control_of(conn, "otc")).state

    assert await switch() is ControlState.ACTIVE
    clock.advance(timedelta(minutes=4))
    assert await switch() is ControlState.ACTIVE
    clock.advance(timedelta(minutes=1))
    assert await switch() is ControlState.REDUCING


def test_the_figures_of_a_line_become_its_policy(tmp_path: Path) -> None:
    values = {
        "desk": "otc",
        "asset": "ETH",
        "internalise_seconds": 30,
        "urgent": "50",
        "pace_from": "10",
        "pace_seconds": 600,
        "slice": "1.5",
        "client_loss_ppm": 0,
    }
    file = parse_house({**HOUSE, "hedge": [values]}, tmp_path / "house.toml")

    policy = file.hedges[0].hedge_policy(ETH)

    assert policy.internalise == timedelta(seconds=30)
    assert policy.urgent_units == ETH.parse("50")
    assert policy.client_loss_ppm is None
    assert policy.order_units_max is None
    assert policy.pace is not None
    assert (policy.pace.paced_from, policy.pace.slice_units) == (ETH.parse("10"), ETH.parse("1.5"))
