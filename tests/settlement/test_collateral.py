"""Collateral given and taken: postings, two people, once by its reference, settled as any other."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from kernel.errors import BadInput, CausewayError, Refused
from ledger.posting import post
from ledger.queries import get_balance
from registry.testing import USDT, operator_keypair
from settlement.collateral import collateral_bytes, move_collateral
from settlement.collateral_model import CollateralMove, Move, Way
from settlement.errors import NotCovered
from settlement.model import Direction, RunState
from settlement.queries import list_obligations
from tests.locks import until_waiting
from tests.settlement.desk import BOOK, DAY, Desk

TAKE = CollateralMove(
    book=BOOK,
    reference="csa-1",
    move=Move.TAKE,
    way=Way.SETTLEMENT,
    party="acme",
    asset="USDT",
    amount=USDT.parse("500"),
    value_date=DAY,
)


async def moved(desk: Desk, item: CollateralMove = TAKE, **changes: Any) -> bool:
    """Let ada enter it and ben sign it, unless changed."""
    second, reason = changes.get("second", "ben"), "the agreement of January"
    signed = changes.get("signed", item)
    return await desk.do(
        lambda conn: move_collateral(
            conn,
            item,
            by=desk.operators[changes.get("by", "ada")],
            approver=desk.operators[second],
            signature=operator_keypair(second).sign(collateral_bytes(signed, reason)),
            reason=reason,
            now=desk.now,
        )
    )


async def stands(desk: Desk, *paths: str) -> list[int]:
    """What accounts stand at, in whole USDT; 0: there is none."""
    found = []
    async with desk.engine.connect() as conn:
        for path in paths:
            balance = await get_balance(conn, BOOK, path, "USDT")
            found.append(balance.posted // USDT.parse("1"))
    return found


@pytest.mark.parametrize(
    ("move", "way", "debit", "credit"),
    [
        (Move.TAKE, Way.ACCOUNT, "client:acme", "collateral:taken:acme"),
        (Move.TAKE_BACK, Way.ACCOUNT, "collateral:taken:acme", "client:acme"),
        (Move.TAKE, Way.SETTLEMENT, "receivable:acme:open", "collateral:taken:acme"),
        (Move.TAKE_BACK, Way.SETTLEMENT, "collateral:taken:acme", "payable:acme:open"),
        (Move.GIVE, Way.SETTLEMENT, "collateral:given:acme", "payable:acme:open"),
        (Move.GIVE_BACK, Way.SETTLEMENT, "receivable:acme:open", "collateral:given:acme"),
    ],
)
def test_each_movement_has_its_posting(move: Move, way: Way, debit: str, credit: str) -> None:
    assert replace(TAKE, move=move, way=way).accounts == (debit, credit)


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 0},
        {"reference": ""},
        {"move": Move.GIVE, "way": Way.ACCOUNT},
        {"move": Move.GIVE_BACK, "way": Way.ACCOUNT},
    ],
    ids=str,
)
def test_a_movement_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CausewayError):
        replace(TAKE, **changes)


async def test_what_is_taken_is_owed_and_settles_as_any_other(desk: Desk) -> None:
    assert await moved(desk)
    (owed,) = await desk.do(lambda conn: list_obligations(conn, BOOK))
    assert (owed.direction, owed.product, owed.has_deal) == (Direction.RECEIVE, "collateral", False)
    assert await stands(desk, "receivable:acme:open", "collateral:taken:acme") == [500, 500]

    run = await desk.released()
    await desk.receive(TAKE.amount)
    await desk.match()
    assert (await desk.finality(run.id)).state is RunState.FINAL
    assert await stands(desk, "receivable:acme:netted", "collateral:taken:acme") == [0, 500]


async def test_a_client_pledges_what_it_holds_here_and_gets_it_back(desk: Desk) -> None:
    await desk.capital(("equity:capital", "client:acme", "600", "USDT"))
    pledged = replace(TAKE, way=Way.ACCOUNT)
    assert await moved(desk, pledged)
    assert await stands(desk, "client:acme", "collateral:taken:acme") == [100, 500]

    back = replace(pledged, move=Move.TAKE_BACK, reference="csa-2")
    assert await moved(desk, back)
    assert await stands(desk, "client:acme", "collateral:taken:acme") == [600, 0]
    with pytest.raises(NotCovered, match="stands at 0 units"):
        await moved(desk, replace(back, reference="csa-3"))


async def test_a_client_pledges_no_more_than_it_holds(desk: Desk) -> None:
    await desk.capital(("equity:capital", "client:acme", "499", "USDT"))
    with pytest.raises(CausewayError):
        await moved(desk, replace(TAKE, way=Way.ACCOUNT))


async def test_a_reference_moves_once(desk: Desk) -> None:
    assert await moved(desk)
    assert not await moved(desk)
    assert await stands(desk, "collateral:taken:acme") == [500]
    with pytest.raises(Refused, match="another amount"):
        await moved(desk, replace(TAKE, amount=1))


async def test_no_more_goes_back_than_is_held_though_two_ask_at_once(desk: Desk) -> None:
    await moved(desk)
    back = replace(TAKE, move=Move.TAKE_BACK)

    async def ask(reference: str) -> bool:
        try:
            return await moved(desk, replace(back, reference=reference))
        except NotCovered:
            return False

    # Nobody gets further than to the books before both have come as far as they can.
    async with desk.engine.connect() as books, asyncio.TaskGroup() as group:
        await post(books, BOOK, [], now=desk.now)
        both = [group.create_task(ask(f"back-{number}")) for number in range(2)]
        await until_waiting(desk.engine, 2)
        await books.rollback()

    assert sorted(task.result() for task in both) == [False, True]
    assert await stands(desk, "collateral:taken:acme", "payable:acme:open") == [0, 500]


@pytest.mark.parametrize(
    ("story", "changes", "because"),
    [
        ("one person", {"second": "ada"}, "cannot approve what ada entered"),
        ("entered by operations", {"by": "dan"}, "dan is not"),
        ("another amount signed", {"signed": replace(TAKE, amount=1)}, "not ben's, or not of this"),
    ],
)
async def test_nobody_moves_security_alone(
    desk: Desk, story: str, changes: dict[str, Any], because: str
) -> None:
    with pytest.raises(CausewayError, match=because):
        await moved(desk, **changes)

    assert await desk.do(lambda conn: list_obligations(conn, BOOK)) == []


async def test_only_a_client_holds_something_here(desk: Desk) -> None:
    with pytest.raises(BadInput, match="holds nothing here"):
        await moved(desk, replace(TAKE, way=Way.ACCOUNT, party="simvenue"))
