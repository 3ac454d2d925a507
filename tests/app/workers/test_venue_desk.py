"""The worker of an account at a venue, on a simulator in a process of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.workers.house_file import parse_house
from app.workers.jobs import JobWorker
from app.workers.venue_desk import VenueDesk, open_desk
from app.workers.venue_file import VenueSection
from kernel.clock import SystemClock, to_unix_ns
from kernel.db import transact
from kernel.errors import BadInput, Refused
from kernel.settings import Secret
from ledger.posting import open_book
from marketdata.instruments import record_instrument
from matching.model import Side, TimeInForce
from registry.changes import found
from registry.testing import demo_founding
from trading.hedges.lines import open_line
from trading.hedges.model import HedgeLine, HedgePlace
from trading.venue_accounts import open_venue_account
from trading.venue_reconciliation_model import Outcome
from venues.ccxt.endpoint import Credentials
from venues.credentials.model import KeyPurpose, Slot
from venues.credentials.vault import enrol
from venues.errors import KeyRefused, VenueUnavailable
from venues.model import OrderState, OrderTicket
from venues.orders import intend, submit
from venues.simulator.testing import SimulatorProcess

HOUSE: dict[str, Any] = {
    "chain": "evm",
    "book": 1,
    "signer_socket": "signer.sock",
    "confirmations": "confirmations.json",
    "payout_depth": 6,
    "start_height": 0,
}
SECTION: dict[str, Any] = {
    "venue": "binance",
    "account": "desk",
    "connector": "binance",
    "kek": "venues.kek",
    "symbols": ["ETHUSDT"],
}
KEK = bytes(range(32))
BOOK = 1
CLOCK = SystemClock()


def section(path: Path, **changes: object) -> VenueSection:
    house = parse_house({**HOUSE, "venue": [{**SECTION, **changes}]}, path / "house.toml")
    return house.venues[0]


HELD = ("--balance", "ETH=1000", "USDT=5000000")
"""Nothing but what is registered."""


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path / "venue", "--step-ms", "0", *HELD) as process:
        yield process


@pytest.fixture
async def house(engine: AsyncEngine, tmp_path: Path) -> AsyncEngine:
    kek = tmp_path / "venues.kek"
    kek.touch(mode=0o600)
    kek.write_text(KEK.hex())

    async def work(conn: AsyncConnection) -> None:
        await found(conn, demo_founding(), now=CLOCK.now())
        await open_book(conn, BOOK, entity="causeway-desk", now=datetime(2026, 1, 5, tzinfo=UTC))

    await transact(engine, work)
    return engine


async def enrolled(engine: AsyncEngine, sim: SimulatorProcess) -> None:
    await transact(
        engine,
        lambda conn: enrol(
            conn,
            Slot("binance", "desk", KeyPurpose.TRADING),
            Credentials(api_key=sim.ready["api_key"], secret=Secret(sim.ready["secret"])),
            KEK,
            random=os.urandom,
            by="olga",
            reason="a test",
            now=CLOCK.now(),
        ),
    )


def at(sim: SimulatorProcess, path: Path, **changes: object) -> VenueSection:
    return section(path, http_url=sim.url, ws_url=sim.ws_url, **changes)


async def opened(house: AsyncEngine, desk: VenueDesk) -> None:
    """Open the account in the books and a hedge line on it."""
    await open_venue_account(house, desk.gateway, ["ETHUSDT"], book=BOOK, clock=CLOCK)
    line = HedgeLine(desk="otc", asset="ETH", places=(HedgePlace("binance", "desk", "ETHUSDT"),))
    now = CLOCK.now()
    await transact(house, lambda conn: open_line(conn, line, by="dora", reason="a test", now=now))


async def bought(house: AsyncEngine, desk: VenueDesk) -> None:
    """Buy 1 ETH at the venue, and leave the trade for somebody else to find."""
    now = CLOCK.now()
    found_grid = await desk.gateway.instrument("ETHUSDT")
    grid = await transact(house, lambda conn: record_instrument(conn, found_grid, now=now))
    ticket = OrderTicket(
        venue="binance",
        account="desk",
        symbol="ETHUSDT",
        instrument_version=grid.version,
        side=Side.BUY,
        base_units=10_000 * grid.lot,
        quantity=grid.quantity_text(10_000),
        price=grid.price_text(grid.ticks("3100")),
        time_in_force=TimeInForce.IOC,
        reference="test",
        intent="one",
    )
    order = await transact(
        house,
        lambda conn: intend(
            conn,
            ticket,
            capabilities=desk.gateway.capabilities,
            recv_window=timedelta(seconds=3),
            actor="system:test",
            reason="a test",
            now=now,
        ),
    )
    sent = await submit(house, desk.gateway, order.id, holder="test", clock=CLOCK)
    assert sent.state is OrderState.FILLED


async def test_a_desk_collects_and_posts_what_was_traded_and_its_day_is_clean(
    house: AsyncEngine, sim: SimulatorProcess, tmp_path: Path
) -> None:
    await enrolled(house, sim)
    wanted = at(sim, tmp_path)
    async with open_desk(house, wanted, book=BOOK, clock=CLOCK, chance=lambda: 0.0) as desk:
        await opened(house, desk)
        await bought(house, desk)

        turn = await desk.turn()
        planned = [await desk.plan_the_day() for _ in range(2)]
        done = await JobWorker(
            engine=house, clock=CLOCK, handlers={desk.job: desk.close_the_day}
        ).turn()
        run = await desk.reconcile()

    assert turn == {"open": 0, "trades": 1, "posted": 1}
    assert planned == [{"planned": 1}, {}]
    assert [job.name for job in done.done] == ["venue-reconciliation:binance/desk"]
    assert (run.outcome, run.breaks) == (Outcome.CLEAN, ())


class Later:
    """Our clock, some time on."""

    def now(self) -> datetime:
        return CLOCK.now() + timedelta(minutes=2)

    def now_ns(self) -> int:
        return to_unix_ns(self.now())


async def test_a_desk_measures_the_venues_clock_again_although_nothing_asks_for_it(
    house: AsyncEngine, sim: SimulatorProcess, tmp_path: Path
) -> None:
    await enrolled(house, sim)
    wanted, ahead = at(sim, tmp_path), []
    async with open_desk(house, wanted, book=BOOK, clock=CLOCK, chance=lambda: 0.0) as desk:
        await opened(house, desk)
        for clock in (CLOCK, CLOCK, Later()):
            desk.clock = clock
            await desk.turn()
            now = CLOCK.now()
            ahead.append(desk.gateway.venue_time(now) - now)
            await asyncio.to_thread(sim.control, "POST", "clock", {"skew_ms": 5_000})

    assert [round(difference.total_seconds()) for difference in ahead] == [0, 0, 5]


async def test_a_desk_hears_trades_until_it_is_told_to_stop(
    house: AsyncEngine, sim: SimulatorProcess, tmp_path: Path
) -> None:
    await enrolled(house, sim)
    wanted, stop = at(sim, tmp_path), asyncio.Event()
    async with open_desk(house, wanted, book=BOOK, clock=CLOCK, chance=lambda: 0.0) as desk:
        await opened(house, desk)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            listening = group.create_task(desk.listen(stop))
            while not sim.control("GET", "subscriptions")["user"]:  # noqa: ASYNC110  another process
                await asyncio.sleep(0.02)
            await bought(house, desk)
            stop.set()
            assert await listening == {}


async def test_a_key_that_can_withdraw_ends_the_start(house: AsyncEngine, tmp_path: Path) -> None:
    arguments = ("--step-ms", "0", "--trading-key-can-withdraw")
    with SimulatorProcess(tmp_path / "venue", *arguments) as sim:
        await enrolled(house, sim)
        opening = open_desk(house, at(sim, tmp_path), book=BOOK, clock=CLOCK, chance=lambda: 0.0)
        with pytest.raises(KeyRefused, match="binance/desk can withdraw"):
            await opening.__aenter__()


async def test_an_account_that_is_not_in_the_books_is_not_traded(
    house: AsyncEngine, sim: SimulatorProcess, tmp_path: Path
) -> None:
    await enrolled(house, sim)
    wanted = at(sim, tmp_path)
    async with open_desk(house, wanted, book=BOOK, clock=CLOCK, chance=lambda: 0.0) as desk:
        for turn in (desk.turn, desk.reconcile):
            with pytest.raises(Refused, match="Run `causeway venues open binance/desk`"):
                await turn()


async def test_a_venue_that_does_not_answer_does_not_stop_the_house(
    house: AsyncEngine, sim: SimulatorProcess, tmp_path: Path
) -> None:
    await enrolled(house, sim)
    nowhere = section(tmp_path, http_url="http://127.0.0.1:9", ws_url="ws://127.0.0.1:9")
    async with open_desk(house, nowhere, book=BOOK, clock=CLOCK, chance=lambda: 0.0) as desk:
        with pytest.raises(VenueUnavailable):
            await desk.turn()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kek": ""}, "kek is ''"),
        ({"symbols": "ETHUSDT"}, "symbols is 'ETHUSDT'"),
        ({"dead_man_seconds": -1}, "dead_man_seconds is -1"),
        ({"withdrawals": "yes"}, "withdrawals is 'yes'"),
        ({"secret": "canary"}, "has the key secret"),
    ],
)
def test_a_section_that_cannot_be_understood_names_its_key(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        section(tmp_path, **changes)


def test_an_account_has_one_section(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="two sections are of one account"):
        parse_house({**HOUSE, "venue": [SECTION, SECTION]}, tmp_path / "house.toml")
