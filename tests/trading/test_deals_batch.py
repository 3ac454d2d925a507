"""Many deals at once: one answer each, a fixed number of statements, nobody pays for another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from kernel.events import list_history
from kernel.money import Price
from ledger.accounts import set_frozen
from ledger.errors import PostingRefused
from ledger.testing import enforce_lock_order
from registry.errors import UnknownRecord
from registry.queries import get_operator
from registry.testing import ETH, USDT, operator_keypair
from risk.errors import LimitExceeded
from risk.limits import party_limits_bytes, set_party_limits
from risk.model import PartyLimits
from tests.trading.conftest import BOOK, NOW, balances, booked, request
from trading.deals import BATCH_MAX, Outcome, book_deals, find_deal
from trading.errors import DealConflict
from trading.model import TREASURY, Deal, DealOrigin, DealPurpose, DealRequest


async def batch(engine: AsyncEngine, *asked: DealRequest) -> list[Outcome]:
    return await transact(engine, lambda conn: book_deals(conn, asked, book=BOOK, now=NOW))


def kinds(outcomes: Sequence[Outcome]) -> list[type]:
    return [type(outcome) for outcome in outcomes]


async def limit(engine: AsyncEngine, party: str, usdt: str) -> None:
    """Let a party owe and be owed so much, by two people."""
    limits = PartyLimits(party=party, version=1, currency="USDT", settlement_units=USDT.parse(usdt))

    async def work(conn: AsyncConnection) -> None:
        await set_party_limits(
            conn,
            limits,
            by=await get_operator(conn, "ada"),
            approver=await get_operator(conn, "ben"),
            signature=operator_keypair("ben").sign(party_limits_bytes(limits)),
            reason="test",
            now=NOW,
        )

    await transact(engine, work)


@contextmanager
def counted(engine: AsyncEngine) -> Iterator[list[str]]:
    """The statements that go through SQLAlchemy within the block."""
    sent: list[str] = []

    def before(*args: object) -> None:
        sent.append(str(args[2]))

    event.listen(engine.sync_engine, "before_cursor_execute", before)
    try:
        yield sent
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", before)


async def test_each_request_has_its_own_answer(house: AsyncEngine) -> None:
    known = await booked(house, request("known"))

    with enforce_lock_order(house):
        outcomes = await batch(
            house,
            request("one"),
            request("bad", party="nobody"),
            request("known"),
            request("one"),
            request("one", fee_units=0),
            request("known", fee_units=0),
            request("two", party="birch"),
        )

    assert kinds(outcomes) == [
        *(Deal, UnknownRecord, Deal, Deal, DealConflict, DealConflict, Deal),
    ]
    assert outcomes[2] == known
    assert outcomes[3] == outcomes[0]
    held = await balances(house)
    assert (held["payable:acme:open ETH"], held["payable:birch:open ETH"]) == ("20", "10")


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"reason": "half\x00way"}, "reason"),
        ({"off_market_reason": "half\x00way"}, "off_market_reason"),
        ({"agreed_at": NOW.replace(tzinfo=None)}, "zone"),
        ({"base_units": 10**78}, "larger"),
        ({"price": Price(ETH, USDT, 10**30 + 1, 10**78), "base_units": 10**60}, "larger"),
        ({"fee_units": 10**78}, "larger"),
    ],
    ids=str,
)
def test_what_no_row_and_no_account_can_hold_is_refused_before_a_batch_is_made_of_it(
    changes: dict[str, Any], refusal: str
) -> None:
    with pytest.raises(BadInput, match=refusal):
        request(**changes)


@pytest.mark.parametrize("changes", [{"client_ref": ""}, {"desk": "a:b#c"}], ids=str)
async def test_a_name_that_no_account_can_have_touches_no_other_deal(
    house: AsyncEngine, changes: dict[str, str]
) -> None:
    bad = request(**{"client_ref": "bad", **changes})

    assert kinds(await batch(house, request("good"), bad)) == [Deal, BadInput]


async def test_other_content_under_a_reference_refused_before_is_not_told_the_others_reason(
    house: AsyncEngine,
) -> None:
    outcomes = await batch(house, request("one", party="nobody"), request("one"))

    assert kinds(outcomes) == [UnknownRecord, DealConflict]


async def test_the_statements_are_as_many_for_thirty_deals_as_for_three(
    house: AsyncEngine,
) -> None:
    await batch(house, *(request(f"warm-{n}") for n in range(2)))
    counts = []

    for size in (3, 30):
        with counted(house) as sent:
            outcomes = await batch(house, *(request(f"{size}-{n}") for n in range(size)))
        assert kinds(outcomes) == [Deal] * size
        counts.append(len(sent))

    assert counts[0] == counts[1]


async def test_a_deal_that_the_ledger_refuses_is_as_if_it_had_never_been_asked_for(
    house: AsyncEngine,
) -> None:
    await booked(house, request("first", party="birch"))

    async def freeze(conn: AsyncConnection) -> None:
        await set_frozen(conn, BOOK, "payable:birch:open", "ETH", frozen=True, reason="test")

    await transact(house, freeze)
    outcomes = await batch(
        house, request("a"), request("b", party="birch"), request("c"), request("d", party="birch")
    )

    assert kinds(outcomes) == [Deal, PostingRefused, Deal, PostingRefused]
    assert (await balances(house))["payable:acme:open ETH"] == "20"
    async with house.connect() as conn:
        assert await find_deal(conn, BOOK, "b") is None
        prices = await conn.scalar(text("SELECT count(*) FROM marketdata.price"))
        for outcome in outcomes:
            if isinstance(outcome, Deal):
                assert len(await list_history(conn, "deal", outcome.id)) == 1
    assert prices == 3


async def test_batches_that_overlap_book_each_deal_once(house: AsyncEngine) -> None:
    names = [f"deal-{n}" for n in range(8)]

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(batch(house, *(request(name) for name in order)))
            for order in (names, names[::-1], names[4:] + names[:4])
        ]

    answers = [item for task in tasks for item in task.result()]
    assert {type(item) for item in answers} == {Deal}
    assert len({item.id for item in answers if isinstance(item, Deal)}) == len(names)
    assert (await balances(house))["payable:acme:open ETH"] == "80"


async def test_a_quote_is_dealt_on_once_whatever_the_reference(house: AsyncEngine) -> None:
    quoted = {"origin": DealOrigin.QUOTE, "quote_id": UUID(int=7)}

    outcomes = await batch(house, request("one", **quoted), request("two", **quoted))
    later = await batch(house, request("three", **quoted), request("one", **quoted))

    assert kinds(outcomes + later) == [Deal, DealConflict, DealConflict, Deal]
    assert (await balances(house))["payable:acme:open ETH"] == "10"


async def test_a_limit_refuses_the_deals_beyond_it_and_no_others(house: AsyncEngine) -> None:
    await limit(house, "acme", "60600")

    outcomes = await batch(
        house,
        *(request(f"acme-{n}") for n in range(3)),
        request("birch", party="birch"),
        request("inventory", party=TREASURY, purpose=DealPurpose.TRANSFER, fee_units=0),
    )

    assert kinds(outcomes) == [Deal, Deal, LimitExceeded, Deal, Deal]
    again = await batch(house, *(request(f"acme-{n}") for n in range(3)))
    assert again[:2] == outcomes[:2]
    assert kinds(again) == [Deal, Deal, LimitExceeded]


async def test_of_two_that_book_the_same_at_the_limit_both_have_the_deal(
    house: AsyncEngine,
) -> None:
    """Whoever waits for the party's lock finds that the deal which uses the limit up is its own."""
    await limit(house, "acme", "30300")

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(batch(house, request("same"))) for _ in range(4)]

    assert {type(task.result()[0]) for task in tasks} == {Deal}
    assert (await balances(house))["payable:acme:open ETH"] == "10"


async def test_batches_with_parties_in_another_order_never_wait_for_each_other(
    house: AsyncEngine,
) -> None:
    """A deadlock would end one of them: neither is tried again."""
    for party in ("acme", "birch"):
        await limit(house, party, "1000000")

    async def once(name: str, *parties: str) -> list[Outcome]:
        asked = [request(f"{name}-{party}", party=party) for party in parties]
        return await transact(
            house, lambda conn: book_deals(conn, asked, book=BOOK, now=NOW), attempts_max=1
        )

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(once(f"{n}", *order))
            for n, order in enumerate((("acme", "birch"), ("birch", "acme")) * 3)
        ]

    assert {type(item) for task in tasks for item in task.result()} == {Deal}


async def test_a_batch_has_an_end(house: AsyncEngine) -> None:
    asked = [request(f"deal-{n}") for n in range(2)] * BATCH_MAX

    with pytest.raises(BadInput, match=f"at most {BATCH_MAX}"):
        await batch(house, *asked)
    assert await batch(house) == []


async def test_a_deal_booked_again_later_is_the_deal_there_is(house: AsyncEngine) -> None:
    first = await batch(house, request("one"), request("two"))

    again = await transact(
        house,
        lambda conn: book_deals(
            conn,
            [request("two"), request("one")],
            book=BOOK,
            now=NOW + timedelta(days=30),
        ),
    )

    assert again == first[::-1]
