"""What treasury's reports are told at each step of a run: from obligations to finality."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.reports.settlement_facts import list_available, list_due, list_expected, list_settled
from registry.testing import ETH, USDT
from reporting.treasury.efficiency import measure_efficiency
from reporting.treasury.model import FlowSource
from settlement.runs import pull_obligations
from tests.settlement.desk import ACME_WALLET, BOOK, CONFIRMATIONS, DAY, Desk, open_desk

OBLIGATION, INSTRUCTION = FlowSource.OBLIGATION, FlowSource.INSTRUCTION


@pytest.fixture
async def desk(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(engine, tmp_path) as made:
        await made.agree("acme")
        await made.instruct("acme", "ETH", ACME_WALLET)
        await made.capital(("custody:house-hot", "equity:capital", "20", "ETH"))
        await made.deal("sold")
        await made.buys("bought", amount="2")
        yield made


async def expected(desk: Desk) -> list[tuple[FlowSource, str, int]]:
    async def work(conn: AsyncConnection) -> list[tuple[FlowSource, str, int]]:
        found = await list_expected(conn, BOOK, now=desk.now)
        return sorted((item.source, item.asset, item.units) for item in found)

    return await desk.do(work)


async def due(desk: Desk) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in await desk.do(lambda conn: list_due(conn, BOOK)):
        assert (item.party, item.value_date) == ("acme", DAY)
        found[item.asset] = found.get(item.asset, 0) + item.units
    return found


async def test_gross_until_the_seal_then_net_then_what_is_left(desk: Desk) -> None:
    one, net = ETH.parse("1"), {"ETH": -ETH.parse("8"), "USDT": USDT.parse("24300")}
    await desk.do(lambda conn: pull_obligations(conn, book=BOOK, now=desk.now))
    assert await expected(desk) == [
        *((OBLIGATION, "ETH", -10 * one), (OBLIGATION, "ETH", 2 * one)),
        (OBLIGATION, "USDT", -USDT.parse("6000")),
        *((OBLIGATION, "USDT", USDT.parse("300")), (OBLIGATION, "USDT", USDT.parse("30000"))),
    ]
    assert await due(desk) == net

    run = await desk.released()
    assert await expected(desk) == [
        (INSTRUCTION, asset, units) for asset, units in sorted(net.items())
    ]
    assert await due(desk) == net

    await desk.receive(net["USDT"])
    await desk.match()
    items = await desk.instructions(run.id)
    payout = await desk.pay(items["acme ETH"])
    assert await expected(desk) == [(INSTRUCTION, "ETH", -8 * one)]
    before = await desk.do(lambda conn: list_available(conn, BOOK))

    await desk.send(payout)
    await desk.mine()
    assert await expected(desk) == [], "its coins have left, final or not"
    after = await desk.do(lambda conn: list_available(conn, BOOK))
    assert before["ETH"] - after["ETH"] >= 8 * one


async def test_efficiency_of_a_run_before_and_after_it_is_final(desk: Desk) -> None:
    run = await desk.released()

    async def told(conn: AsyncConnection) -> list[tuple[str, int, int, int, int, int]]:
        items = await list_settled(conn, BOOK, first=DAY, last=DAY)
        measured = measure_efficiency(items, today=DAY + timedelta(days=1))
        return [(x.asset, x.gross, x.net, x.paid, x.on_time, x.open) for x in measured]

    gross = {"ETH": ETH.parse("12"), "USDT": USDT.parse("36300")}
    net = {"ETH": ETH.parse("8"), "USDT": USDT.parse("24300")}
    assert await desk.do(told) == [(code, gross[code], net[code], 0, 0, 1) for code in gross]

    await desk.receive(net["USDT"])
    await desk.match()
    await desk.send(await desk.pay((await desk.instructions(run.id))["acme ETH"]))
    await desk.mine(CONFIRMATIONS)
    await desk.finality(run.id)

    assert await desk.do(told) == [
        (code, gross[code], net[code], net[code], 1, 0) for code in gross
    ]
    assert await due(desk) == {}
    nothing = await desk.do(
        lambda conn: list_settled(
            conn, BOOK, first=DAY + timedelta(days=1), last=DAY + timedelta(days=9)
        )
    )
    assert nothing == []
