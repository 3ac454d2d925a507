"""A founded house with an open book, and deals to book in it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import SystemClock
from kernel.db import transact
from kernel.money import Price
from ledger.posting import open_book
from ledger.queries import trial_balance
from registry.changes import found
from registry.testing import ETH, USDT, demo_founding
from trading.deals import book_deal
from trading.model import Deal, DealRequest, DealSide

BOOK = 1
DESK = "otc"
NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncEngine:
    """The engine of a database with a founded registry and book 1."""

    async def work(conn: AsyncConnection) -> None:
        now = SystemClock().now()
        await found(conn, demo_founding(), now=now)
        await open_book(conn, BOOK, entity="causeway-desk", now=NOW)

    await transact(engine, work)
    return engine


def request(client_ref: str = "deal-1", **changes: Any) -> DealRequest:
    """The desk sells 10 ETH to acme at 3,000 with a fee of 300, unless changed."""
    asked = DealRequest(
        client_ref=client_ref,
        desk=DESK,
        party="acme",
        side=DealSide.DESK_SELLS,
        base=ETH,
        quote=USDT,
        base_units=ETH.parse("10"),
        price=Price.parse("3000", ETH, USDT),
        fee_units=USDT.parse("300"),
        value_date=date(2026, 1, 6),
        booked_by="dora",
        reason="agreed by phone",
    )
    return replace(asked, **changes)


async def booked(engine: AsyncEngine, asked: DealRequest, now: datetime = NOW) -> Deal:
    return await transact(engine, lambda conn: book_deal(conn, asked, book=BOOK, now=now))


async def wait_or_are_done(engine: AsyncEngine, *work: asyncio.Task[Any]) -> None:
    """Return once as many sessions of the database wait for a lock as of *work* are not done."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(30), engine.connect() as conn:
        while await conn.scalar(waiting) < sum(not task.done() for task in work):
            await conn.rollback()
            await asyncio.sleep(0.005)


async def balances(engine: AsyncEngine) -> dict[str, str]:
    """Every account that is not zero, on its normal side, as people read it."""
    assets = {"ETH": ETH, "USDT": USDT}
    async with engine.connect() as conn:
        rows = await trial_balance(conn, BOOK)
    return {
        f"{row.path} {row.asset}": assets[row.asset].format(row.balance, code=False)
        if row.asset in assets
        else str(row.balance)
        for row in rows
        if row.balance
    }
