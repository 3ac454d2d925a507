"""Obligations of the cut-over: entered once, backed by the books, settled as any other."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput, Refused
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.imports.errors import FilesNotValid
from ledger.model import transfer
from ledger.posting import post, require_applied
from ledger.queries import get_balance
from registry.errors import NotAuthorised, UnknownRecord
from registry.testing import USDT
from settlement.errors import NotCovered
from settlement.import_model import ImportedObligation
from settlement.imports import import_obligations
from settlement.model import Direction, Obligation, ObligationState, RunState
from settlement.obligation_file import read_obligations
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


async def test_a_key_that_is_known_with_something_else_is_refused(desk: Desk) -> None:
    """Else the second one of a reference would be believed to be entered, and never be paid."""
    await claim(desk)
    await enter(desk, OWED)
    for other in (
        replace(OWED, amount=OWED.amount - 1),
        replace(OWED, party="birch"),
        replace(OWED, direction=Direction.PAY),
        replace(OWED, asset="ETH"),
    ):
        with pytest.raises(Refused, match="a reference of its own"):
            await enter(desk, other)


ASSETS = {"USDT": USDT}
HEADER = "ref,party,direction,asset,amount,value_date\n"


def test_a_file_is_read_line_by_line() -> None:
    data = f"{HEADER}inv-1,acme,receive,USDT,300,2026-01-05\ninv-2,birch,pay,USDT,0.5,2026-01-06\n"

    first, second = read_obligations("owed.csv", data.encode(), ASSETS)

    assert first == replace(OWED, key="ref:inv-1")
    assert (second.party, second.direction, second.amount) == ("birch", Direction.PAY, 500_000)


@pytest.mark.parametrize(
    ("line", "because"),
    [
        (",acme,receive,USDT,300,2026-01-05", r"owed.csv:2 ref: is empty"),
        ("a,acme,sideways,USDT,300,2026-01-05", r"owed.csv:2 direction"),
        ("a,acme,receive,XYZ,300,2026-01-05", r"owed.csv:2 asset: the asset 'XYZ'"),
        ("a,acme,receive,USDT,0.0000001,2026-01-05", r"owed.csv:2 amount"),
        ("a,acme,receive,USDT,-1,2026-01-05", r"owed.csv:2 amount"),
        ("a,acme,receive,USDT,1,5 January", r"owed.csv:2 value_date"),
        (
            "a,acme,receive,USDT,1,2026-01-05\na,acme,pay,USDT,1,2026-01-05",
            r"owed.csv:3 ref: is the reference of line 2 too",
        ),
    ],
)
def test_a_fault_of_a_file_is_told_with_its_line(line: str, because: str) -> None:
    with pytest.raises(FilesNotValid, match=because):
        read_obligations("owed.csv", f"{HEADER}{line}\n".encode(), ASSETS)


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


async def test_what_a_deal_makes_owed_backs_nothing_else(desk: Desk) -> None:
    """Its claim stands in the books before settlement takes its legs; nobody is asked for it twice."""
    await desk.deal("sold")

    with pytest.raises(NotCovered, match="stands at"):
        await enter(desk, OWED)


async def test_one_claim_backs_one_obligation_whoever_is_quicker(
    desk: Desk, owner_engine: AsyncEngine
) -> None:
    await claim(desk)

    async def late() -> str:
        try:
            await enter(desk, replace(OWED, key="f00d:9"))
        except NotCovered as refused:
            return str(refused)
        return ""

    # One transaction, which the watched engine forbids, so that the late one meets what is not committed.
    async with asyncio.TaskGroup() as group, owner_engine.begin() as first:
        await import_obligations(
            first, [OWED], book=BOOK, by="ada", reason="cut-over", now=desk.now
        )
        task = group.create_task(late())
        await asyncio.sleep(0.3)

    assert "its obligations come to" in task.result()
    assert len(await desk.do(lambda conn: list_obligations(conn, BOOK))) == 1
