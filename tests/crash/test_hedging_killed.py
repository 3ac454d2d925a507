"""A hedger killed by SIGKILL among its orders: the position is flat, and the venue traded it once.

Hedger, venue and database are processes of their own. A killed hedger's lease is ended by hand, as
time would end it.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.databases import Database
from kernel.db import transact
from kernel.money import Price
from ledger.posting import open_book
from registry.changes import found
from registry.testing import ETH, USDT, demo_founding
from tests.crash.hedger import CLOCK, settings
from tests.crash.test_orders_killed import lived
from trading.deals import book_deal
from trading.hedges.lines import open_line
from trading.hedges.model import HedgeLine, HedgePlace
from trading.model import DealRequest, DealSide
from trading.position import position
from trading.venue_accounts import open_venue_account
from venues.ccxt.gateway import open_gateway
from venues.simulator.testing import SimulatorProcess

BOOK: Final = 1
LINE: Final = HedgeLine(desk="otc", asset="ETH", places=(HedgePlace("sim", "desk", "ETHUSDT"),))
SOLD: Final = ETH.parse("0.08")
"""Eight orders' worth."""
DEAL: Final = DealRequest(
    client_ref="d-1",
    desk="otc",
    party="acme",
    side=DealSide.DESK_SELLS,
    base=ETH,
    quote=USDT,
    base_units=SOLD,
    price=Price.parse("3000", ETH, USDT),
    booked_by="dora",
    reason="agreed by phone",
)
REST: Final = ETH.parse("0.004")
"""More than the venue's smallest order comes to, and less than one order of ours."""
KILL_AFTER_S: Final = 0.06
LIVES_MAX: Final = 3


async def sold(conn: AsyncConnection) -> None:
    now = CLOCK.now()
    await found(conn, demo_founding(), now=now)
    await open_book(conn, BOOK, entity="causeway-desk", now=datetime(2026, 1, 5, tzinfo=UTC))
    await open_line(conn, LINE, by="dora", reason="test", now=now)
    await book_deal(conn, DEAL, book=BOOK, now=now)


async def test_a_hedger_killed_between_orders_leaves_a_flat_position_that_the_venue_traded_once(
    engine: AsyncEngine, database: Database, tmp_path: Path
) -> None:
    ends = Counter[int]()
    money = ("--balance", "ETH=100", "USDT=1000000", "BNB=0")
    await transact(engine, sold)
    with SimulatorProcess(tmp_path / "venue", "--step-ms", "0", *money) as sim:
        book = sim.state()["symbols"]["ETHUSDT"]
        told = {
            "database": database.app_url,
            "url": sim.url,
            "ws_url": sim.ws_url,
            "api_key": sim.ready["api_key"],
            "secret": sim.ready["secret"],
            "book": BOOK,
            "bids": book["bids"],
            "asks": book["asks"],
        }
        async with open_gateway(settings(told), CLOCK) as gateway:
            await open_venue_account(engine, gateway, ["ETHUSDT"], book=BOOK, clock=CLOCK)
        for life in range(LIVES_MAX):
            kill_after_s = None if life else KILL_AFTER_S
            ends[await lived(told, kill_after_s, "tests.crash.hedger")] += 1
            async with engine.begin() as conn:
                await conn.execute(text("UPDATE venues.venue_order SET lease_until = created_at"))
            if ends[0]:
                break
        true = (await asyncio.to_thread(sim.state))["accounts"]["desk"]
    async with engine.connect() as conn:
        held = (await position(conn, BOOK, "otc")).get("ETH", 0)
        posted = await conn.execute(text("SELECT trade_id FROM trading.fill_posting"))
        trades = sorted(posted.scalars())

    bought = sum(ETH.parse(fill["qty"]) for fill in true["fills"])
    assert (ends[-signal.SIGKILL], ends[0]) == (1, 1)
    assert trades == sorted(str(fill["id"]) for fill in true["fills"])
    assert abs(held) < REST
    assert abs(bought - SOLD) < REST
