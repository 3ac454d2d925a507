"""Instruments and prices on record, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.money import Price
from marketdata.errors import NoInstrument, NoPrice
from marketdata.instruments import get_instrument, list_instruments, record_instrument
from marketdata.model import Instrument, PriceRecord, Quality
from marketdata.prices import get_price, latest_price, record_price
from marketdata.testing import ETH, USDT, eth_usdt

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def manual(text_price: str, at: datetime = NOW) -> PriceRecord:
    return PriceRecord(
        price=Price.parse(text_price, ETH, USDT),
        kind="manual",
        quality=Quality.MANUAL,
        constituents=({"by": "op-1"},),
        observed_at=at,
    )


async def test_a_changed_grid_becomes_a_new_version_and_the_old_one_stays(
    engine: AsyncEngine,
) -> None:
    async def work(conn: AsyncConnection) -> list[Instrument]:
        first = await record_instrument(conn, eth_usdt(), now=NOW)
        same = await record_instrument(conn, eth_usdt(), now=NOW + MINUTE)
        coarse = await record_instrument(conn, replace(eth_usdt(), lot=10**15), now=NOW + MINUTE)
        return [first, same, coarse]

    first, same, coarse = await transact(engine, work)
    async with engine.connect() as conn:
        assert (first.version, same.version, coarse.version) == (1, 1, 2)
        assert await get_instrument(conn, "sim", "ETHUSDT") == coarse
        assert await get_instrument(conn, "sim", "ETHUSDT", version=1) == first
        assert await list_instruments(conn, "sim") == [coarse]
        with pytest.raises(NoInstrument):
            await get_instrument(conn, "sim", "BTCUSDT")


async def test_two_that_record_the_same_change_at_once_make_one_version(
    engine: AsyncEngine,
) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                transact(engine, lambda conn: record_instrument(conn, eth_usdt(), now=NOW))
            )
            for _ in range(4)
        ]

    assert {task.result().version for task in tasks} == {1}


async def test_a_price_is_recorded_once_and_read_back_exactly(engine: AsyncEngine) -> None:
    first = await transact(engine, lambda c: record_price(c, manual("2500.015"), now=NOW))
    again = await transact(engine, lambda c: record_price(c, manual("2500.015"), now=NOW + MINUTE))

    assert again == first
    assert first.record == manual("2500.015")
    async with engine.connect() as conn:
        assert await get_price(conn, first.id) == first
        with pytest.raises(NoPrice):
            await get_price(conn, UUID(int=1))


async def test_the_latest_price_is_the_newest_that_is_not_too_old(engine: AsyncEngine) -> None:
    for minutes, value in ((0, "2400"), (1, "2500"), (2, "2600")):
        record = manual(value, NOW + MINUTE * minutes)
        async with engine.begin() as conn:
            await record_price(conn, record, now=NOW)

    async with engine.connect() as conn:

        async def latest(at: datetime) -> str | None:
            kinds = {"manual"}
            found = await latest_price(conn, "ETH", "USDT", now=at, age_max=MINUTE, kinds=kinds)
            return None if found is None else found.record.price.format()

        assert await latest(NOW + MINUTE) == "2,500 USDT/ETH"
        assert await latest(NOW + MINUTE * 3) == "2,600 USDT/ETH"
        assert await latest(NOW + MINUTE * 9) is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE marketdata.price SET base = 'X'",
        "DELETE FROM marketdata.price",
        "UPDATE marketdata.instrument SET base = 'X'",
        "DELETE FROM marketdata.instrument",
    ],
)
async def test_the_runtime_role_cannot_change_what_is_on_record(
    engine: AsyncEngine, statement: str
) -> None:
    with pytest.raises(DBAPIError, match="permission denied"):
        async with engine.begin() as conn:
            await conn.execute(text(statement))
