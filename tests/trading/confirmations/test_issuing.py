"""Issuing: every economic state of a trade once, in order, by whoever comes first."""

from __future__ import annotations

import asyncio
import hashlib
import random
from datetime import timedelta
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import ManualClock
from kernel.db import transact
from kernel.events import list_history
from registry.testing import ETH
from tests.trading.confirmations.conftest import (
    BOOK,
    NOW,
    amended,
    booked,
    cancelled,
    confirmed,
    request,
    run,
)
from trading.confirmations.document import parse
from trading.confirmations.drawing import draw_due, get_pdf
from trading.confirmations.errors import NoConfirmation, NotConfirmed
from trading.confirmations.facts import read_lines
from trading.confirmations.issuing import issue_confirmation, issue_due
from trading.confirmations.model import Confirmation, ConfirmationState
from trading.confirmations.queries import (
    count_due,
    get_confirmation,
    list_confirmations,
    list_due,
    list_versions,
)
from trading.deals import book_deal
from trading.errors import NoDeal
from trading.model import DealPurpose
from trading.terms.netting_model import NettingAgreement, Product
from trading.terms.testing import agree_netting

ISSUED, SUPERSEDED = ConfirmationState.ISSUED, ConfirmationState.SUPERSEDED


async def issued(engine: AsyncEngine) -> list[Confirmation]:
    return await run(engine, lambda conn: issue_due(conn, now=NOW))


async def versions(engine: AsyncEngine, trade_id: UUID) -> list[tuple[int, str, str]]:
    async with engine.connect() as conn:
        found = await list_versions(conn, trade_id)
    return [(item.version, str(item.kind), str(item.state)) for item in found]


async def test_a_booked_deal_is_confirmed_once_with_its_hash(house: AsyncEngine) -> None:
    deal = await booked(house)

    (first,) = await issued(house)
    again = await issued(house)
    asked = await confirmed(house, deal, NOW + timedelta(minutes=1))

    assert again == []
    assert asked == first
    assert first.text_sha256 == hashlib.sha256(first.text.encode()).hexdigest()
    assert (first.deal_id, first.trade_id, first.version) == (deal.id, deal.id, 1)
    rows = {row.label: row.value for s in parse(first.text).sections for row in s.rows}
    assert rows["Deal"] == str(deal.id)
    assert rows["Confirmation"] == str(first.id)
    assert rows["Price on record"] == str(deal.price_id)
    assert rows["Payable by Party B"] == "30,300 USDT (countervalue and fee)"
    async with house.connect() as conn:
        (event,) = await list_history(conn, "confirmation", first.id)
        assert await count_due(conn) == 0
    assert (event.name, event.actor) == ("ConfirmationIssued", "system:confirmations")


async def test_an_amended_deal_is_confirmed_as_the_next_version_of_its_trade(
    house: AsyncEngine,
) -> None:
    old = await booked(house)
    first = await confirmed(house, old)
    new = await amended(house, old, "deal-1b", base_units=ETH.parse("12"))

    second = await confirmed(house, new)

    assert (second.trade_id, second.version, second.supersedes) == (old.id, 2, first.id)
    assert "10 ETH, now 12 ETH" in second.text
    assert await versions(house, old.id) == [(1, "new", "superseded"), (2, "amendment", "issued")]
    async with house.connect() as conn:
        names = [event.name for event in await list_history(conn, "confirmation", first.id)]
    assert names == ["ConfirmationIssued", "ConfirmationSuperseded"]


async def test_a_cancelled_deal_is_confirmed_and_then_its_cancellation(house: AsyncEngine) -> None:
    deal = await booked(house)
    await cancelled(house, deal)

    (notice,) = await issued(house)

    assert notice.text.startswith("CANCELLATION OF A TRADE\n")
    assert await versions(house, deal.id) == [
        (1, "new", "superseded"),
        (2, "cancellation", "issued"),
    ]
    assert (await confirmed(house, deal)).id == notice.id


@pytest.mark.parametrize("seed", range(3))
async def test_whoever_is_asked_for_whichever_version_first_the_versions_are_the_same(
    house: AsyncEngine, seed: int
) -> None:
    order = random.Random(seed)
    first = await booked(house)
    second = await amended(house, first, "deal-1b", base_units=ETH.parse("12"))
    third = await amended(house, second, "deal-1c", base_units=ETH.parse("13"))
    await cancelled(house, third)
    other = await booked(house, "deal-2")

    deals = [first, second, third, other]
    for deal in order.sample(deals, k=len(deals)):
        await confirmed(house, deal)

    assert await versions(house, first.id) == [
        (1, "new", "superseded"),
        (2, "amendment", "superseded"),
        (3, "amendment", "superseded"),
        (4, "cancellation", "issued"),
    ]
    assert await versions(house, other.id) == [(1, "new", "issued")]


async def test_a_batch_is_bounded_and_takes_the_longest_due_first(house: AsyncEngine) -> None:
    for number in range(3):
        await booked(house, f"deal-{number}", NOW + timedelta(seconds=number))

    (oldest,) = await run(house, lambda conn: issue_due(conn, now=NOW, limit=1))

    async with house.connect() as conn:
        assert await count_due(conn) == 2
        assert [item.since for item in await list_due(conn, BOOK)] == [
            NOW + timedelta(seconds=1),
            NOW + timedelta(seconds=2),
        ]
    assert "deal-0" in oldest.text


async def test_issued_by_several_at_once_each_version_is_written_once(house: AsyncEngine) -> None:
    deal = await booked(house)
    new = await amended(house, deal, "deal-1b")

    async with asyncio.TaskGroup() as group:
        for item in (deal, new):
            group.create_task(confirmed(house, item))
            group.create_task(issued(house))

    assert await versions(house, deal.id) == [(1, "new", "superseded"), (2, "amendment", "issued")]


async def test_a_worker_leaves_it_to_the_one_who_is_at_it(house: AsyncEngine) -> None:
    deal = await booked(house)

    async def work(conn: AsyncConnection) -> list[Confirmation]:
        await issue_confirmation(conn, deal.id, now=NOW)
        return await issued(house)

    assert await transact(house, work) == []


async def test_a_transfer_within_the_house_is_not_confirmed_to_anybody(house: AsyncEngine) -> None:
    deal = await booked(house, party="treasury", purpose=DealPurpose.TRANSFER, fee_units=0)

    with pytest.raises(NotConfirmed):
        await confirmed(house, deal)
    assert await issued(house) == []
    async with house.connect() as conn:
        assert await count_due(conn) == 0
        assert await list_confirmations(conn, BOOK) == []


async def test_what_is_not_on_record_is_refused_by_name(house: AsyncEngine) -> None:
    async with house.connect() as conn:
        with pytest.raises(NoDeal):
            await issue_confirmation(conn, UUID(int=7), now=NOW)
        with pytest.raises(NoConfirmation):
            await get_confirmation(conn, UUID(int=7))


async def test_a_rolled_back_deal_leaves_nothing_to_confirm(house: AsyncEngine) -> None:
    class GaveUp(Exception):
        pass

    async def work(conn: AsyncConnection) -> None:
        await book_deal(conn, request(), book=BOOK, now=NOW)
        assert await count_due(conn) == 1
        raise GaveUp

    with pytest.raises(GaveUp):
        await transact(house, work)
    assert await issued(house) == []


@pytest.mark.parametrize(
    ("story", "scope", "method"),
    [
        ("over everything", {}, "netting agreement version 1"),
        ("over spot deals", {"products": frozenset({Product.SPOT})}, "netting agreement version 1"),
        ("over one side of it", {"assets": frozenset({"ETH"})}, "gross: no netting agreement"),
        ("over collateral", {"products": frozenset({Product.COLLATERAL})}, "gross: no netting"),
        ("not yet", {"effective_from": NOW.date() + timedelta(days=9)}, "gross: no netting"),
    ],
)
async def test_the_agreement_that_covers_the_deal_stands_on_the_confirmation(
    house: AsyncEngine, story: str, scope: dict[str, Any], method: str
) -> None:
    agreement = NettingAgreement(**{"party": "acme", "effective_from": NOW.date(), **scope})
    await run(house, lambda conn: agree_netting(conn, agreement, now=NOW))

    item = await confirmed(house, await booked(house))

    assert method in " ".join(item.text.split())


async def test_a_pdf_is_drawn_once_and_kept(house: AsyncEngine) -> None:
    item = await confirmed(house, await booked(house))
    drawn: list[str] = []

    def draw(source: str) -> bytes:
        drawn.append(source)
        return f"%PDF of {len(source)}, drawing {len(drawn)}".encode()

    clock = ManualClock(NOW)
    assert await draw_due(house, draw, clock=clock) == 1
    assert await draw_due(house, draw, clock=clock) == 0
    pdf = await get_pdf(house, item.id, draw, clock=clock)

    assert drawn == [item.text]
    assert pdf.endswith(b"drawing 1")
    async with house.connect() as conn:
        kept = await get_confirmation(conn, item.id)
    assert kept.pdf_sha256 == hashlib.sha256(pdf).hexdigest()


async def test_drawn_by_two_at_once_the_first_one_kept_is_everybodys(house: AsyncEngine) -> None:
    item = await confirmed(house, await booked(house))
    both_have_drawn = Barrier(2, timeout=10)
    numbers = iter((b"one", b"two"))

    def draw(_: str) -> bytes:
        pdf = next(numbers)
        both_have_drawn.wait()
        return pdf

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(get_pdf(house, item.id, draw, clock=ManualClock(NOW)))
            for _ in range(2)
        ]

    assert len({task.result() for task in tasks}) == 1


@pytest.mark.parametrize(
    ("change", "guard"),
    [
        ("text = text || ' '", "never changes"),
        ("party = 'birch'", "never changes"),
        ("pdf = 'other'", "never changes"),
        ("pdf = NULL, pdf_sha256 = NULL", "never changes"),
        ("state = 'issued'", "from superseded to issued"),
    ],
)
async def test_the_database_lets_nobody_rewrite_what_was_confirmed(
    house: AsyncEngine, owner_engine: AsyncEngine, change: str, guard: str
) -> None:
    deal = await booked(house)
    await confirmed(house, deal)
    await draw_due(house, str.encode, clock=ManualClock(NOW))
    await confirmed(house, await amended(house, deal, "deal-1b"))

    statement = text(f"UPDATE trading.confirmation SET {change} WHERE version = 1")  # noqa: S608  words of this test
    with pytest.raises(DBAPIError, match=guard):
        async with owner_engine.begin() as conn:
            await conn.execute(statement)


async def test_the_program_may_not_delete_a_confirmation(house: AsyncEngine) -> None:
    await confirmed(house, await booked(house))

    with pytest.raises(DBAPIError, match="permission denied"):
        async with house.begin() as conn:
            await conn.execute(text("DELETE FROM trading.confirmation"))


async def test_a_trade_is_read_as_the_line_of_its_deals(house: AsyncEngine) -> None:
    first = await booked(house)
    second = await amended(house, first, "deal-1b")
    other = await booked(house, "deal-2")

    async with house.connect() as conn:
        lines = await read_lines(conn, [second.id, other.id])

    assert [deal.id for deal in lines[second.id]] == [first.id, second.id]
    assert [deal.id for deal in lines[other.id]] == [other.id]
