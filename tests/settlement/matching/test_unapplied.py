"""A receipt that pays for nothing: two people say whose it is, once."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from kernel.errors import CausewayError, Refused
from registry.errors import NotAuthorised, SamePerson
from registry.testing import USDT, operator_keypair
from settlement.matching.by_hand import Share
from settlement.matching.posting import list_matchable
from settlement.matching.unapplied import Unapplied, take_unapplied, unapplied_bytes
from tests.settlement.desk import BOOK, Desk
from tests.settlement.matching.bank_day import BankDay


async def taken(
    desk: Desk, party: str, *, by: str = "dan", second: str = "ada", receipt: UUID | None = None
) -> Unapplied:
    """The one receipt that waits is the party's, say two people."""
    waiting = await desk.do(lambda conn: list_matchable(conn, BOOK, by_people=True))
    (item,) = [one for one in waiting if receipt in {None, one.id}]
    payload = unapplied_bytes(item, party, "paid twice")
    return await desk.do(
        lambda conn: take_unapplied(
            conn,
            item.id,
            party,
            book=BOOK,
            by=desk.operators[by],
            second=desk.operators[second],
            signature=operator_keypair(second).sign(payload),
            reason="paid twice",
            now=desk.now,
        )
    )


async def test_what_pays_for_nothing_is_owed_to_its_party(desk: Desk) -> None:
    await desk.receive(USDT.parse("5"))
    assert await desk.match() is None

    made = await taken(desk, "acme")

    assert (made.party, made.amount, made.account) == (
        "acme",
        USDT.parse("5"),
        "payable:acme:unapplied",
    )
    assert await desk.books("suspense", "payable") == {"payable:acme:unapplied USDT": "5"}
    assert await desk.receipt_states() == ["matched"]


async def test_a_credit_at_the_bank_is_whose_two_people_say(desk: Desk) -> None:
    day = await BankDay(desk).open()
    day.credit(700, "no reference")
    await day.end_of_day()

    await taken(desk, "birch")

    assert await day.cents("suspense", "payable") == {"payable:birch:unapplied": 700}
    assert [item.matched_to for item in await day.receipts()] == ["unapplied:birch"]


@pytest.mark.parametrize(
    ("story", "party", "by", "second", "error"),
    [
        ("one person", "acme", "ada", "ada", SamePerson),
        ("the second may not", "acme", "ada", "dan", NotAuthorised),
        ("another party's address", "birch", "dan", "ada", Refused),
        ("nobody knows the party", "nobody", "dan", "ada", CausewayError),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
async def test_it_is_refused(
    desk: Desk, story: str, party: str, by: str, second: str, error: type[Exception]
) -> None:
    await desk.receive(USDT.parse("5"))

    with pytest.raises(error):
        await taken(desk, party, by=by, second=second)

    assert await desk.books("suspense") == {"suspense:evm USDT": "5"}


async def test_of_four_who_say_so_at_once_one_is_heard(desk: Desk) -> None:
    await desk.receive(USDT.parse("5"))

    async def one() -> Unapplied | None:
        try:
            return await taken(desk, "acme")
        except (Refused, ValueError):
            # Too late to be locked, or even to be seen.
            return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(4)]

    assert len([task for task in tasks if task.result()]) == 1
    assert await desk.books("payable") == {"payable:acme:unapplied USDT": "5"}


async def test_a_signature_is_good_for_one_match(desk: Desk) -> None:
    """What two people took apart, nobody matches again with what the second had signed before."""
    day = await BankDay(desk).open()
    _, item = await day.awaiting(60_000)
    day.credit(60_000, "no reference")
    await day.end_of_day()
    (receipt,) = await day.waiting()
    share = Share(instruction_id=item.id, amount=60_000)
    await day.by_hand(receipt, share)
    await day.unmatch(receipt.id)

    with pytest.raises(NotAuthorised):
        await day.by_hand(receipt, share)
    (again,) = await day.waiting()
    assert (again.id, again.round) == (receipt.id, 1)
    assert len(await day.by_hand(again, share)) == 1
