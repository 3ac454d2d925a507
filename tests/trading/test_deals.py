"""Deals in the books: the worked example of the account book, idempotency, corrections, pulling."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput, Refused
from kernel.events import list_history
from kernel.money import Asset, Price
from kernel.states import trigger_name, trigger_statements
from ledger.queries import list_transfers
from ledger.testing import enforce_lock_order
from marketdata.errors import NoPrice
from marketdata.model import PriceRecord, Quality
from marketdata.prices import get_price, record_price
from registry.errors import UnknownRecord
from registry.testing import ETH, USDT
from tests.locks import until_waiting
from tests.trading.conftest import BOOK, DESK, NOW, balances, booked, request
from trading.deals import amend_deal, cancel_deal, find_deal, get_deal, list_deals
from trading.errors import DealConflict, DealNotCancellable, NoDeal
from trading.hedges.model import HAND_FILL_STATES, HEDGE_STATES
from trading.legs import (
    give_back,
    list_settlement_legs,
    mark_pulled,
    mark_settled,
    mark_settling,
)
from trading.model import (
    DEAL_STATES,
    Deal,
    DealSide,
    DealState,
    Direction,
    LegKind,
    SettlementLeg,
)
from trading.position import position

REWRITES = (
    "UPDATE trading.deal SET base_units = 1",
    "UPDATE trading.deal SET price_numerator = 1",
    "UPDATE trading.deal SET party = 'birch'",
    "UPDATE trading.hedge SET account = 'other'",
    "UPDATE trading.hedge_place SET symbol = 'other'",
    "UPDATE trading.hand_fill SET base_units = 1",
    "UPDATE trading.fill_posting SET desk = 'other'",
    "UPDATE venues.venue_order SET base_units = 1",
    "UPDATE venues.venue_order SET client_order_id = 'other'",
    "UPDATE venues.fill SET base_units = 1",
    "UPDATE venues.balance_snapshot SET free = 0",
    "UPDATE marketdata.price SET numerator = 1",
    "UPDATE marketdata.instrument SET lot = 1",
)
DELETES = (
    "DELETE FROM trading.deal",
    "DELETE FROM trading.hedge",
    "DELETE FROM trading.hedge_place",
    "DELETE FROM trading.hand_fill",
    "DELETE FROM trading.fill_posting",
    "DELETE FROM venues.venue_order",
    "DELETE FROM venues.fill",
)


async def cancelled(engine: AsyncEngine, deal: Deal) -> Deal:
    return await transact(
        engine, lambda conn: cancel_deal(conn, deal.id, by="dora", reason="wrong size", now=NOW)
    )


async def pulled(engine: AsyncEngine, **where: Any) -> list[SettlementLeg]:
    async def work(conn: AsyncConnection) -> list[SettlementLeg]:
        legs = await list_settlement_legs(conn, book=BOOK, **where)
        await mark_pulled(conn, [leg.deal_id for leg in legs], now=NOW)
        return legs

    return await transact(engine, work)


async def test_a_sale_books_what_each_side_owes_and_leaves_the_desk_short(
    house: AsyncEngine,
) -> None:
    with enforce_lock_order(house):
        deal = await booked(house, request())

    assert await balances(house) == {
        "receivable:acme:open USDT": "30,300",
        "payable:acme:open ETH": "10",
        "conversion:otc ETH": "-10",
        "conversion:otc USDT": "30,000",
        "income:fee USDT": "300",
    }
    async with house.connect() as conn:
        assert await position(conn, BOOK, DESK) == {
            "ETH": -ETH.parse("10"),
            "USDT": USDT.parse("30000"),
        }
        assert len(await list_transfers(conn, BOOK, correlation=deal.id)) == 3
        (event,) = await list_history(conn, "deal", deal.id)
    assert (event.name, event.actor, event.reason) == ("DealBooked", "dora", "agreed by phone")


async def test_a_purchase_books_the_mirror_image_and_leaves_the_desk_long(
    house: AsyncEngine,
) -> None:
    await booked(house, request(side=DealSide.DESK_BUYS))

    assert await balances(house) == {
        "receivable:acme:open ETH": "10",
        "receivable:acme:open USDT": "300",
        "payable:acme:open USDT": "30,000",
        "conversion:otc ETH": "10",
        "conversion:otc USDT": "-30,000",
        "income:fee USDT": "300",
    }


async def test_a_deal_without_a_fee_has_two_postings(house: AsyncEngine) -> None:
    deal = await booked(house, request(fee_units=0))

    async with house.connect() as conn:
        assert len(await list_transfers(conn, BOOK, correlation=deal.id)) == 2


async def test_a_deal_is_not_made_on_the_price_of_another_pair(house: AsyncEngine) -> None:
    other = PriceRecord(
        price=Price.parse("0.0003", USDT, ETH),
        kind="index",
        quality=Quality.GOOD,
        observed_at=NOW,
    )
    price = await transact(house, lambda conn: record_price(conn, other, now=NOW))

    with pytest.raises(BadInput, match="USDT/ETH"):
        await booked(house, request(price_id=price.id))


async def test_a_deal_that_names_no_price_records_what_was_agreed_as_one(
    house: AsyncEngine,
) -> None:
    deal = await booked(house, request())
    again = await booked(house, request(), NOW + timedelta(minutes=1))
    named = await booked(house, request("named", price_id=deal.request.price_id))

    async with house.connect() as conn:
        price_id = deal.request.price_id
        assert price_id is not None
        price = await get_price(conn, price_id)
        count = await conn.scalar(text("SELECT count(*) FROM marketdata.price"))
    assert again == deal
    assert (price.record.kind, price.record.price) == ("agreed", deal.request.price)
    assert price.record.constituents[0]["deal"] == str(deal.id)
    assert named.request.price_id == price_id
    assert count == 1


async def test_the_database_takes_no_deal_without_a_recorded_price(
    house: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    await booked(house, request())
    statement = text("UPDATE trading.deal SET price_id = CAST(:price_id AS uuid)")

    for price_id, refused in ((None, "null value"), (UUID(int=7), "fk_deal_price_id_price")):
        with pytest.raises(DBAPIError, match=refused):
            async with owner_engine.begin() as conn:
                await conn.execute(statement, {"price_id": price_id})


async def test_the_same_deal_again_is_the_same_deal(house: AsyncEngine) -> None:
    first = await booked(house, request())
    again = await booked(house, request(), NOW + timedelta(minutes=1))

    assert again == first
    assert (await balances(house))["conversion:otc ETH"] == "-10"


async def test_the_same_reference_with_other_content_is_refused_by_field(
    house: AsyncEngine,
) -> None:
    await booked(house, request())
    others: dict[str, Any] = {
        "desk": "other",
        "party": "birch",
        "side": DealSide.DESK_BUYS,
        "base_units": ETH.parse("9"),
        "price": Price.parse("3001", ETH, USDT),
        "fee_units": 0,
        "value_date": date(2026, 1, 9),
    }

    for field, other in others.items():
        said = {"base_units": "amount", "fee_units": "fee", "value_date": "value date"}.get(
            field, field
        )
        with pytest.raises(DealConflict, match=f"another {said}"):
            await booked(house, request(**{field: other}))
    assert (await balances(house))["conversion:otc ETH"] == "-10"


async def test_booked_at_once_by_several_it_is_booked_once(house: AsyncEngine) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(booked(house, request())) for _ in range(4)]

    assert len({task.result().id for task in tasks}) == 1
    assert (await balances(house))["payable:acme:open ETH"] == "10"


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"party": "nobody"}, UnknownRecord),
        ({"price_id": UUID(int=7)}, NoPrice),
    ],
)
async def test_what_is_not_on_record_cannot_be_dealt_with(
    house: AsyncEngine, changes: dict[str, Any], refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        await booked(house, request(**changes))
    assert await balances(house) == {}


async def test_an_asset_of_another_scale_is_refused(house: AsyncEngine) -> None:
    wei = Asset("ETH", 8)
    other = request(base=wei, base_units=10**9, price=Price.parse("3000", wei, USDT))

    with pytest.raises(BadInput, match="18 decimal places"):
        await booked(house, other)


@pytest.mark.parametrize(
    "changes",
    [
        {"base_units": 0},
        {"fee_units": -1},
        {"price": Price.parse("3000", USDT, ETH)},
        {"base_units": 1, "fee_units": 0},
    ],
)
def test_an_impossible_deal_cannot_even_be_asked_for(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        request(**changes)


@pytest.mark.parametrize(("side", "expected"), [(DealSide.DESK_SELLS, 1), (DealSide.DESK_BUYS, 2)])
def test_what_is_less_than_a_unit_favours_the_party(side: DealSide, expected: int) -> None:
    asked = request(
        side=side, base_units=15 * 10**17, price=Price.parse("0.000001", ETH, USDT), fee_units=0
    )

    assert asked.quote_units == expected


async def test_a_cancelled_deal_leaves_nothing_and_is_cancelled_once(house: AsyncEngine) -> None:
    deal = await booked(house, request())

    with enforce_lock_order(house):
        first = await cancelled(house, deal)
    again = await cancelled(house, deal)

    assert first.state is again.state is DealState.CANCELLED
    assert await balances(house) == {}
    async with house.connect() as conn:
        events = await list_history(conn, "deal", deal.id)
    assert [event.to_state for event in events] == ["booked", "cancelled"]


async def test_an_amended_deal_is_replaced_in_one_chain(house: AsyncEngine) -> None:
    old = await booked(house, request())
    better = request("deal-1b", base_units=ETH.parse("12"))

    async def amend() -> Deal:
        return await transact(house, lambda conn: amend_deal(conn, old.id, better, now=NOW))

    with enforce_lock_order(house):
        new = await amend()
    again = await amend()

    assert (new.id, new.amends) == (again.id, old.id)
    assert (await balances(house))["conversion:otc ETH"] == "-12"
    async with house.connect() as conn:
        assert (await get_deal(conn, old.id)).state is DealState.AMENDED
        assert [d.id for d in await list_deals(conn, BOOK, states=[DealState.BOOKED])] == [new.id]
    with pytest.raises(DealNotCancellable):
        await cancelled(house, old)


async def test_legs_say_who_owes_what_and_where_it_stands(house: AsyncEngine) -> None:
    deal = await booked(house, request())

    legs = {leg.kind: leg for leg in await pulled(house)}

    assert {leg.deal_id for leg in legs.values()} == {deal.id}
    base, quote, fee = (legs[kind] for kind in (LegKind.BASE, LegKind.QUOTE, LegKind.FEE))
    assert (base.asset, base.amount) == ("ETH", ETH.parse("10"))
    assert (base.direction, base.account) == (Direction.OWED_BY_US, "payable:acme:open")
    assert (quote.amount, fee.amount) == (USDT.parse("30000"), USDT.parse("300"))
    assert quote.direction is fee.direction is Direction.OWED_TO_US
    assert quote.account == fee.account == "receivable:acme:open"


async def test_legs_are_pulled_once_and_by_value_date(house: AsyncEngine) -> None:
    await booked(house, request("early"))
    await booked(house, request("late", value_date=date(2026, 2, 1)))

    first = await pulled(house, value_date_to=date(2026, 1, 6))
    second = await pulled(house)

    assert {leg.client_ref for leg in first} == {"early"}
    assert {leg.client_ref for leg in second} == {"late"}
    assert await pulled(house) == []


async def test_a_deal_that_commits_late_is_not_skipped(house: AsyncEngine) -> None:
    """The deal with the earlier id and time is still uncommitted when the later one is pulled."""
    await booked(house, request("warm-up"))
    async with house.connect() as slow:
        await slow.execute(
            text(
                "INSERT INTO trading.deal SELECT gen_random_uuid(), book, 'slow', desk, party, side,"
                " base, base_scale, quote, quote_scale, base_units, quote_units, price_numerator,"
                " price_denominator, fee_units, price_id, value_date - 1, booked_by, reason, state,"
                " pulled_at, amends, created_at, updated_at, quote_id, mid_price_id,"
                " off_market_ppm, origin, purpose, agreed_at, terms_version, calendars,"
                " instructions, off_market_reason FROM trading.deal"
            )
        )
        first = await pulled(house)
        await slow.commit()
    second = await pulled(house)

    assert {leg.client_ref for leg in first} == {"warm-up"}
    assert {leg.client_ref for leg in second} == {"slow"}


async def test_two_that_pull_at_once_share_the_deals_out(house: AsyncEngine) -> None:
    for n in range(6):
        await booked(house, request(f"deal-{n}"))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pulled(house, limit=4)) for _ in range(3)]
    rest = await pulled(house)

    refs = [leg.client_ref for task in tasks for leg in task.result()]
    refs += [leg.client_ref for leg in rest]
    assert sorted(refs) == sorted(f"deal-{n}" for n in range(6) for _ in range(3))


async def test_a_deal_whose_legs_are_taken_cannot_be_cancelled_until_they_are_given_back(
    house: AsyncEngine,
) -> None:
    deal = await booked(house, request())
    await pulled(house)

    with pytest.raises(DealNotCancellable):
        await cancelled(house, deal)
    await transact(house, lambda conn: give_back(conn, [deal.id], now=NOW))

    assert (await cancelled(house, deal)).state is DealState.CANCELLED


async def test_whoever_corrects_a_deal_while_its_legs_are_taken_waits_and_is_refused(
    house: AsyncEngine,
) -> None:
    deal = await booked(house, request())

    async def refused(work: Callable[[AsyncConnection], Awaitable[Deal]]) -> None:
        with pytest.raises(DealNotCancellable, match="has taken the legs"):
            await transact(house, work)

    async with house.connect() as settlement, asyncio.TaskGroup() as group:
        legs = await list_settlement_legs(settlement, book=BOOK)
        group.create_task(
            refused(lambda c: cancel_deal(c, deal.id, by="dora", reason="no", now=NOW))
        )
        group.create_task(refused(lambda c: amend_deal(c, deal.id, request("new"), now=NOW)))
        await until_waiting(house, 2)
        await mark_pulled(settlement, [leg.deal_id for leg in legs], now=NOW)
        await settlement.commit()

    assert (await balances(house))["payable:acme:open ETH"] == "10"


async def test_a_pull_that_comes_too_late_is_refused(house: AsyncEngine) -> None:
    deal = await booked(house, request())
    await cancelled(house, deal)

    with pytest.raises(Refused):
        await transact(house, lambda conn: mark_pulled(conn, [deal.id], now=NOW))
    with pytest.raises(Refused):
        await transact(house, lambda conn: give_back(conn, [deal.id], now=NOW))


async def test_a_deal_settles_step_by_step_and_each_step_once(house: AsyncEngine) -> None:
    deal = await booked(house, request())
    await pulled(house)

    for _ in range(2):
        await transact(
            house,
            lambda conn: mark_settling(conn, [deal.id], by="system:s", reason="sealed", now=NOW),
        )
    for _ in range(2):
        await transact(
            house,
            lambda conn: mark_settled(conn, [deal.id], by="system:s", reason="paid", now=NOW),
        )

    async with house.connect() as conn:
        assert (await get_deal(conn, deal.id)).state is DealState.SETTLED
        events = await list_history(conn, "deal", deal.id)
    assert [event.to_state for event in events] == ["booked", "settling", "settled"]
    with pytest.raises(DealNotCancellable):
        await cancelled(house, deal)


async def test_a_deal_cannot_be_settled_before_it_is_settling(house: AsyncEngine) -> None:
    deal = await booked(house, request())

    with pytest.raises(Refused):
        await transact(
            house,
            lambda conn: mark_settled(conn, [deal.id], by="system:s", reason="paid", now=NOW),
        )


async def test_deals_are_found_by_reference_and_missing_ones_named(house: AsyncEngine) -> None:
    deal = await booked(house, request())

    async with house.connect() as conn:
        assert await find_deal(conn, BOOK, "deal-1") == deal
        assert await find_deal(conn, BOOK, "other") is None
        with pytest.raises(NoDeal):
            await get_deal(conn, UUID(int=1))


async def test_the_database_knows_the_same_edges_as_the_model(engine: AsyncEngine) -> None:
    query = text("SELECT prosrc FROM pg_proc WHERE proname = :name")
    async with engine.connect() as conn:
        for machine in (DEAL_STATES, HEDGE_STATES, HAND_FILL_STATES):
            source = await conn.scalar(query, {"name": trigger_name(machine)})

            assert source == trigger_statements(machine)[0].split("$$")[1], machine.table


async def test_postgresql_refuses_every_deal_edge_the_model_does_not_have(
    house: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    await booked(house, request())
    update = text("UPDATE trading.deal SET state = :state")
    allowed = set()
    async with owner_engine.connect() as conn:
        for current in DealState:
            await conn.execute(text("ALTER TABLE trading.deal DISABLE TRIGGER USER"))
            await conn.execute(update, {"state": str(current)})
            await conn.execute(text("ALTER TABLE trading.deal ENABLE TRIGGER USER"))
            await conn.commit()
            for new in set(DealState) - {current}:
                try:
                    await conn.execute(update, {"state": str(new)})
                except DBAPIError:
                    pass
                else:
                    allowed.add((current, new))
                await conn.rollback()

    assert allowed == DEAL_STATES.edges


async def test_the_running_role_cannot_rewrite_what_was_agreed_or_reported_nor_delete_it(
    engine: AsyncEngine,
) -> None:
    async with engine.connect() as conn:
        for statement in (*REWRITES, *DELETES):
            with pytest.raises(DBAPIError, match="permission denied"):
                await conn.execute(text(statement))
            await conn.rollback()


async def test_a_deal_whose_legs_nobody_took_cannot_be_settling(house: AsyncEngine) -> None:
    deal = await booked(house, request())

    with pytest.raises(Refused, match="are not taken"):
        await transact(
            house, lambda c: mark_settling(c, [deal.id], by="system:s", reason="sealed", now=NOW)
        )
