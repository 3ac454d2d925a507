"""A house in which nothing went wrong breaks no promise, at work and at rest."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.oracles.catalogue import ORACLES
from app.oracles.model import Check
from app.oracles.run import asked_for, examine


async def test_a_day_with_a_chain_a_bank_and_the_books_breaks_no_promise(
    rich_engine: AsyncEngine,
) -> None:
    report = await examine(rich_engine, at_rest=True)

    report.require()
    assert [one.oracle for one in report.examined] == list(ORACLES)
    looked_at = {one.oracle.name for one in report.examined if one.examined}
    assert looked_at == {oracle.name for oracle in ORACLES} - {"on-chain"}


async def test_a_wallet_that_has_paid_in_coins_breaks_no_promise(coins_engine: AsyncEngine) -> None:
    report = await examine(coins_engine, at_rest=True)

    report.require()
    (paid_once,) = [one for one in report.examined if one.oracle.name == "paid-once"]
    assert paid_once.examined


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{oracle.name}-{number}")
        for oracle in ORACLES
        for number, check in enumerate(oracle.checks)
    ],
)
async def test_a_question_is_planned_for_all_it_looks_at(
    rich_engine: AsyncEngine, check: Check
) -> None:
    """Planned for its first answers it compares each row with every other: hours, where nothing is wrong."""
    async with rich_engine.connect() as conn:
        rows = await conn.exec_driver_sql("EXPLAIN (COSTS OFF) " + asked_for(check))
        plan = [line for (line,) in rows]

    assert plan[0] == "Limit"
    assert "  ->  CTE Scan on found" in plan
