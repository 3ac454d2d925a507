"""A founded house with an open book, deals booked in it, and their confirmations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any, TypeVar

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import SystemClock
from kernel.db import transact
from kernel.money import Price
from ledger.posting import open_book
from registry.changes import found
from registry.testing import ETH, USDT, demo_founding
from trading.confirmations.issuing import issue_confirmation
from trading.confirmations.model import Confirmation
from trading.deals import amend_deal, book_deal, cancel_deal
from trading.model import Deal, DealRequest, DealSide

T = TypeVar("T")

BOOK = 1
NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncEngine:
    """The engine of a database with a founded registry and book 1."""

    async def work(conn: AsyncConnection) -> None:
        await found(conn, demo_founding(), now=SystemClock().now())
        await open_book(conn, BOOK, entity="causeway-desk", now=NOW)

    await transact(engine, work)
    return engine


def request(client_ref: str = "deal-1", **changes: Any) -> DealRequest:
    """The desk sells 10 ETH to acme at 3,000 with a fee of 300, unless changed."""
    asked = DealRequest(
        client_ref=client_ref,
        desk="otc",
        party="acme",
        side=DealSide.DESK_SELLS,
        base=ETH,
        quote=USDT,
        base_units=ETH.parse("10"),
        price=Price.parse("3000", ETH, USDT),
        fee_units=USDT.parse("300"),
        value_date=date(2026, 1, 6),
        booked_by="dan",
        reason="agreed by phone",
    )
    return replace(asked, **changes)


async def run(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    return await transact(engine, work)


async def booked(
    engine: AsyncEngine, client_ref: str = "deal-1", now: datetime = NOW, **changes: Any
) -> Deal:
    asked = request(client_ref, **changes)
    return await run(engine, lambda conn: book_deal(conn, asked, book=BOOK, now=now))


async def amended(
    engine: AsyncEngine, old: Deal, client_ref: str, now: datetime = NOW, **changes: Any
) -> Deal:
    asked = request(client_ref, **changes)
    return await run(engine, lambda conn: amend_deal(conn, old.id, asked, now=now))


async def cancelled(engine: AsyncEngine, deal: Deal, now: datetime = NOW) -> Deal:
    return await run(
        engine, lambda conn: cancel_deal(conn, deal.id, by="dan", reason="wrong side", now=now)
    )


async def confirmed(engine: AsyncEngine, deal: Deal, now: datetime = NOW) -> Confirmation:
    return await run(engine, lambda conn: issue_confirmation(conn, deal.id, now=now))
