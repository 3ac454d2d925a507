"""What was paid too much goes back: two people, once, and no more than there is."""

from __future__ import annotations

import asyncio

import pytest

from kernel.errors import Refused
from registry.errors import NotAuthorised, SamePerson
from registry.testing import USDT, operator_keypair
from settlement.matching.giving_back import GiveBack, give_back, give_back_bytes
from settlement.model import RETURN_LEG, Direction, Obligation, ObligationState
from tests.settlement.desk import BOOK, Desk
from tests.settlement.matching.bank_day import BankDay
from tests.settlement.matching.test_unapplied import taken

REASON = "it asked for it"


async def given(
    desk: Desk,
    units: int,
    reference: str,
    *,
    asset: str = "USDT",
    by: str = "dan",
    second: str = "ada",
) -> Obligation | None:
    asked = GiveBack(party="acme", asset=asset, amount=units, reference=reference)
    return await desk.do(
        lambda conn: give_back(
            conn,
            asked,
            book=BOOK,
            by=desk.operators[by],
            second=desk.operators[second],
            signature=operator_keypair(second).sign(give_back_bytes(asked, REASON)),
            reason=REASON,
            now=desk.now,
        )
    )


@pytest.fixture
async def over(desk: Desk) -> Desk:
    """A desk to which acme has paid 5 USDT for nothing."""
    await desk.receive(USDT.parse("5"))
    await taken(desk, "acme")
    return desk


async def test_what_goes_back_is_owed_at_once_and_settles_as_anything_else(over: Desk) -> None:
    made = await given(over, USDT.parse("3"), "over-1")

    assert made is not None
    assert (made.direction, made.leg, made.state) == (
        Direction.PAY,
        RETURN_LEG,
        ObligationState.OPEN,
    )
    assert made.value_date == over.now.date()
    assert await over.books("payable") == {
        "payable:acme:open USDT": "3",
        "payable:acme:unapplied USDT": "2",
    }


async def test_the_same_reference_again_changes_nothing_and_stands_for_nothing_else(
    over: Desk,
) -> None:
    first = await given(over, USDT.parse("3"), "over-1")
    again = await given(over, USDT.parse("3"), "over-1")

    assert again is not None
    assert first is not None
    assert again.id == first.id
    with pytest.raises(Refused, match="stands for"):
        await given(over, USDT.parse("1"), "over-1")
    assert (await over.books("payable"))["payable:acme:open USDT"] == "3"


async def test_of_many_at_once_no_more_goes_back_than_there_is(over: Desk) -> None:
    async def one(number: int) -> Obligation | None:
        try:
            return await given(over, USDT.parse("2"), f"over-{number}")
        except Refused:
            return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(5)]

    assert len([task for task in tasks if task.result()]) == 2
    assert await over.books("payable") == {
        "payable:acme:open USDT": "4",
        "payable:acme:unapplied USDT": "1",
    }


@pytest.mark.parametrize(
    ("by", "second", "error"), [("ada", "ada", SamePerson), ("ada", "dan", NotAuthorised)]
)
async def test_nobody_gives_back_alone(
    over: Desk, by: str, second: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await given(over, 1, "over-1", by=by, second=second)


async def test_a_match_whose_excess_went_back_is_not_taken_apart(desk: Desk) -> None:
    day = await BankDay(desk).open()
    _, item = await day.awaiting(60_000)
    day.pays(item, 60_100)
    await day.end_of_day()
    await day.match()
    await given(desk, 100, "over-1", asset="EUR")
    (receipt,) = await day.receipts()

    with pytest.raises(Refused, match="was 100 units too much"):
        await day.unmatch(receipt.id)
