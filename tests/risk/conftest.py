"""A founded house with an open book, prices on record, and people who sign limits."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import SystemClock
from kernel.db import transact
from kernel.money import Price
from ledger.posting import open_book
from marketdata.model import PriceRecord, Quality
from marketdata.price_model import PriceKind
from marketdata.prices import record_price
from registry.changes import found
from registry.queries import get_operator
from registry.testing import ETH, USDT, demo_founding, operator_keypair
from risk.controls import loosen, loosen_bytes, own_control
from risk.limits import (
    desk_limits_bytes,
    party_limits_bytes,
    set_desk_limits,
    set_party_limits,
)
from risk.model import Control, ControlState, DeskLimits, PartyLimits

BOOK = 1
DESK = "otc"
NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncEngine:
    """The engine of a database with a founded registry, book 1 and 3,000 USDT for one ETH."""

    async def work(conn: AsyncConnection) -> None:
        await found(conn, demo_founding(), now=SystemClock().now())
        await open_book(conn, BOOK, entity="causeway-desk", now=NOW)
        await record_price(conn, eth_at("3000"), now=NOW)

    await transact(engine, work)
    return engine


def eth_at(text: str, at: datetime = NOW) -> PriceRecord:
    return PriceRecord(
        price=Price.parse(text, ETH, USDT),
        kind=PriceKind.INDEX,
        quality=Quality.GOOD,
        observed_at=at,
    )


async def limit_desk(engine: AsyncEngine, *, version: int = 1, **limits: Any) -> DeskLimits:
    """Put limits of the desk in USDT into force: ada enters them, ben signs."""
    wanted = DeskLimits(**{"desk": DESK, "version": version, "currency": "USDT", **limits})

    async def work(conn: AsyncConnection) -> DeskLimits:
        return await set_desk_limits(
            conn,
            wanted,
            by=await get_operator(conn, "ada"),
            approver=await get_operator(conn, "ben"),
            signature=operator_keypair("ben").sign(desk_limits_bytes(wanted)),
            reason="agreed by the risk committee",
            now=NOW,
        )

    return await transact(engine, work)


async def limit_party(
    engine: AsyncEngine, party: str = "acme", *, version: int = 1, **limits: Any
) -> PartyLimits:
    """Put limits of a party in USDT into force: ada enters them, ben signs."""
    wanted = PartyLimits(**{"party": party, "version": version, "currency": "USDT", **limits})

    async def work(conn: AsyncConnection) -> PartyLimits:
        return await set_party_limits(
            conn,
            wanted,
            by=await get_operator(conn, "ada"),
            approver=await get_operator(conn, "ben"),
            signature=operator_keypair("ben").sign(party_limits_bytes(wanted)),
            reason="agreed by the risk committee",
            now=NOW,
        )

    return await transact(engine, work)


async def resumed(
    engine: AsyncEngine,
    desk: str = DESK,
    state: ControlState = ControlState.ACTIVE,
    people: tuple[str, ...] = ("ada", "ben"),
    signers: Mapping[str, str] | None = None,
) -> Control:
    """Loosen a switch; each of *people* signs with the key of *signers*, else with their own."""

    async def work(conn: AsyncConnection) -> Control:
        version = (await own_control(conn, desk)).version
        payload = loosen_bytes(desk, state, "looked at", version=version)
        signatures = {
            code: operator_keypair((signers or {}).get(code, code)).sign(payload) for code in people
        }
        return await loosen(conn, desk, state, signatures=signatures, reason="looked at", now=NOW)

    return await transact(engine, work)
