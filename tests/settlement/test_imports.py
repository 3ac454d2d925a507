"""Obligations of the cut-over: entered once, backed by the books, settled as any other."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.db import transact
from kernel.errors import BadInput, Refused
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from ledger.queries import get_balance
from registry.errors import NotAuthorised, UnknownRecord
from registry.testing import USDT
from settlement.errors import NotCovered
from settlement.imports import ImportedObligation, import_obligations
from settlement.model import Direction, Obligation, ObligationState, RunState
from settlement.queries import list_obligations
from settlement.runs import withdraw_deal
from tests.settlement.desk import BOOK, DAY, Desk

OWED = ImportedObligation(
    key="f00d:2",
    party="acme",
    direction=Direction.RECEIVE,
    asset="USDT",
    amount=USDT.parse("300"),
    value_date=DAY,
)


async def claim(desk: Desk, amount: int = OWED.amount) -> None:
    """The opening balance behind the obligation."""

    async def work(conn: AsyncConnection) -> None:
        keys = [("receivable:acme:open", "USDT"), ("equity:opening", "USDT")]
        await ensure_accounts(conn, BOOK, keys, now=desk.now)
        item = transfer(
            derive_id(desk.now, "opening"),
            "receivable:acme:open",
            "equity:opening",
            amount,
            "USDT",
            code="import.opening",
        )
        require_applied(await post(conn, BOOK, [item], now=desk.now))

    await transact(desk.engine, work)


async def enter(desk: Desk, *rows: ImportedObligation, by: str = "ada") -> list[Obligation]:
    return await desk.do(
        lambda conn: import_obligations(
            conn, rows, book=BOOK, by=by, reason="cut-over", now=desk.now
        )
    )


async def test_an_imported_obligation_is_settled_as_any_other(desk: Desk) -> None:
    await claim(desk)
    (new,) = await enter(desk, OWED)
    assert (new.state, new.has_deal) == (ObligationState.OPEN, False)

    run = await desk.released()
    await desk.receive(OWED.amount)
    await desk.match()
    after = await desk.finality(run.id)

    assert after.state is RunState.FINAL
    (ended,) = await desk.do(lambda conn: list_obligations(conn, BOOK))
    assert ended.state is ObligationState.DISCHARGED
    async with desk.engine.connect() as conn:
        standing = [
            (await get_balance(conn, BOOK, path, "USDT")).posted
            for path in ("receivable:acme:open", "receivable:acme:netted")
        ]
    assert standing == [0, 0]


async def test_it_is_netted_with_what_deals_make_owed(desk: Desk) -> None:
    await desk.agree("acme")
    await claim(desk)
    await enter(desk, OWED)
    await desk.buys("bought", amount="1", price="100")

    _, result = await desk.calculate()

    (usdt,) = [item for item in result.items if item.asset == "USDT"]
    assert (usdt.amount, len(usdt.obligations)) == (USDT.parse("200"), 2)


async def test_each_line_is_entered_once(desk: Desk) -> None:
    await claim(desk)
    assert len(await enter(desk, OWED)) == 1
    assert await enter(desk, OWED) == []
    assert len(await desk.do(lambda conn: list_obligations(conn, BOOK))) == 1


async def test_nothing_is_owed_that_the_books_do_not_have(desk: Desk) -> None:
    await claim(desk, OWED.amount - 1)
    with pytest.raises(NotCovered, match="receivable:acme:open"):
        await enter(desk, OWED)
    assert await desk.do(lambda conn: list_obligations(conn, BOOK)) == []


async def test_what_cannot_be_is_refused(desk: Desk) -> None:
    await claim(desk)
    with pytest.raises(UnknownRecord):
        await enter(desk, replace(OWED, party="nobody"))
    with pytest.raises(BadInput, match="more than nothing"):
        await enter(desk, replace(OWED, amount=0))
    with pytest.raises(NotAuthorised):
        await enter(desk, OWED, by="dan")


async def test_there_is_no_deal_to_withdraw(desk: Desk) -> None:
    await claim(desk)
    (new,) = await enter(desk, OWED)
    operator = desk.operators["ada"]

    async def withdraw(deal: UUID) -> None:
        await desk.do(lambda conn: withdraw_deal(conn, deal, by=operator, reason="x", now=desk.now))

    with pytest.raises(Refused, match="cut-over"):
        await withdraw(new.deal_id)
