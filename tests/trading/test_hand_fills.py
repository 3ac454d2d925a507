"""Trades entered by hand: two people, posted like any other, and counted once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from kernel.events import list_history
from matching.model import Side
from registry.errors import NotAuthorised
from registry.testing import ETH, USDT, operator_keypair
from tests.trading.conftest import BOOK, DESK, NOW, balances
from trading.errors import HandFillRefused, NoHandFill, NoHedgeLine
from trading.hedges.fills import post_fills
from trading.hedges.hand_fills import (
    approve_hand_fill,
    get_hand_fill,
    hand_fill_bytes,
    list_hand_fills,
    propose_hand_fill,
    reject_hand_fill,
)
from trading.hedges.lines import open_line
from trading.hedges.model import HandFill, HandFillState, HedgeLine, HedgePlace
from venues.fills import list_fills, record_fills
from venues.model import VenueFill

S = HandFillState
PLACE = HedgePlace("lp", "phone", "ETH-USDT")
FILL = VenueFill(
    venue=PLACE.venue,
    account=PLACE.account,
    symbol=PLACE.symbol,
    trade_id="ticket-7",
    venue_order_id="call-7",
    side=Side.BUY,
    price="3000",
    base="ETH",
    base_units=ETH.parse("2"),
    quote="USDT",
    quote_units=USDT.parse("6000"),
    quote_dust=0,
    fee_asset="USDT",
    fee_units=USDT.parse("3"),
    fee_dust=0,
    is_maker=False,
    executed_at=NOW - timedelta(minutes=5),
)
POSTED = {
    "conversion:otc ETH": "2",
    "conversion:otc USDT": "-6,000",
    "venue:lp/phone ETH": "2",
    "venue:lp/phone USDT": "-6,003",
    "expense:venue-fee USDT": "3",
}


@pytest.fixture
async def desk(house: AsyncEngine) -> AsyncEngine:
    line = HedgeLine(desk=DESK, asset="ETH", places=(PLACE,), quote="USDT")
    await transact(house, lambda conn: open_line(conn, line, by="dan", reason="test", now=NOW))
    return house


async def proposed(engine: AsyncEngine, fill: VenueFill = FILL, by: str = "dan") -> HandFill:
    return await transact(
        engine,
        lambda conn: propose_hand_fill(
            conn, fill, book=BOOK, evidence="the broker's ticket 7", by=by, now=NOW
        ),
    )


async def approved(engine: AsyncEngine, item: HandFill, by: str = "cleo") -> HandFill:
    signature = operator_keypair(by).sign(hand_fill_bytes(item, "approve"))
    return await transact(
        engine,
        lambda conn: approve_hand_fill(conn, item.id, by=by, signature=signature, now=NOW),
    )


async def test_a_trade_is_posted_once_a_second_person_has_approved_it(desk: AsyncEngine) -> None:
    item = await proposed(desk)
    before = await balances(desk)

    after = await approved(desk, item)

    assert before == {}
    assert await balances(desk) == POSTED
    assert (after.state, after.decided_by) == (S.APPROVED, "cleo")
    async with desk.connect() as conn:
        assert await get_hand_fill(conn, item.id) == after
        assert await list_hand_fills(conn, states=[S.PROPOSED]) == []
        events = await list_history(conn, "hand-fill", item.id)
    assert [(event.name, event.actor) for event in events] == [
        ("HandFillProposed", "dan"),
        ("HandFillApproved", "cleo"),
    ]


async def test_entered_and_approved_again_it_counts_once(desk: AsyncEngine) -> None:
    item = await proposed(desk)
    await approved(desk, item)

    assert (await proposed(desk)).id == item.id
    with pytest.raises(HandFillRefused, match="is approved"):
        await approved(desk, item)
    assert await balances(desk) == POSTED


@pytest.mark.parametrize("told_first", [True, False])
async def test_a_trade_that_the_venue_tells_too_counts_once(
    desk: AsyncEngine,
    told_first: bool,  # noqa: FBT001  a row of the table
) -> None:
    """In whichever order: both ways in have one key."""

    async def told() -> None:
        async def work(conn: Any) -> None:
            await record_fills(conn, [FILL], source="rest", now=NOW)
            await post_fills(conn, DESK, "ETH", book=BOOK, now=NOW)

        await transact(desk, work)

    item = await proposed(desk)
    if told_first:
        await told()
    await approved(desk, item)
    await told()

    assert await balances(desk) == POSTED
    async with desk.connect() as conn:
        assert await list_fills(conn, "lp", "phone", "ETH-USDT") == [FILL]


async def test_a_rejected_trade_never_counts(desk: AsyncEngine) -> None:
    item = await proposed(desk)
    signature = operator_keypair("cleo").sign(hand_fill_bytes(item, "reject"))

    after = await transact(
        desk,
        lambda conn: reject_hand_fill(
            conn, item.id, by="cleo", signature=signature, reason="no such ticket", now=NOW
        ),
    )

    assert after.state is S.REJECTED
    assert await balances(desk) == {}
    with pytest.raises(HandFillRefused, match="is rejected"):
        await approved(desk, item)


async def test_it_takes_another_person_with_the_right_and_a_signature_of_exactly_this(
    desk: AsyncEngine,
) -> None:
    item = await proposed(desk, by="ada")
    other = replace(item, fill=replace(FILL, base_units=1))
    forged = operator_keypair("cleo").sign(hand_fill_bytes(other, "approve"))

    with pytest.raises(HandFillRefused, match="cannot decide"):
        await approved(desk, item, by="ada")
    with pytest.raises(NotAuthorised):
        await approved(desk, item, by="dan")
    with pytest.raises(NotAuthorised, match="signature"):
        await transact(
            desk,
            lambda conn: approve_hand_fill(conn, item.id, by="cleo", signature=forged, now=NOW),
        )
    assert await balances(desk) == {}


async def test_the_database_itself_wants_two_people(desk: AsyncEngine) -> None:
    await proposed(desk)

    with pytest.raises(IntegrityError, match="two_people"):
        await transact(
            desk,
            lambda conn: conn.execute(
                text(
                    "UPDATE trading.hand_fill SET state = 'approved', decided_by = 'dan', "
                    "decided_at = now(), signature = 'x'"
                )
            ),
        )


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"symbol": "BTC-USDT"}, NoHedgeLine),
        ({"base": "BTC"}, BadInput),
        ({"quote": "USDC"}, BadInput),
        ({"base_units": 0}, BadInput),
        ({"trade_id": ""}, BadInput),
        ({"executed_at": NOW + timedelta(seconds=1)}, BadInput),
    ],
)
async def test_a_trade_that_cannot_be_is_not_entered(
    desk: AsyncEngine, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await proposed(desk, replace(FILL, **changes))


async def test_one_trade_is_not_entered_with_two_contents(desk: AsyncEngine) -> None:
    await proposed(desk)

    with pytest.raises(HandFillRefused, match="other content"):
        await proposed(desk, replace(FILL, base_units=1))
    with pytest.raises(NoHandFill):
        await transact(desk, lambda conn: get_hand_fill(conn, FILL.id))
