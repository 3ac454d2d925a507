"""What a request leaves open is found when it is booked, and what it says is held against the market."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.databases import Database
from app.local.migrate import downgrade
from kernel.db import transact
from kernel.errors import BadInput, CausewayError, Refused
from kernel.money import Asset, Price
from marketdata.model import PriceRecord, Quality
from marketdata.price_model import PriceKind
from marketdata.prices import record_price
from registry.model import Party, PartyKind
from registry.testing import ENTITY, ETH, USDT, change
from tests.trading.conftest import BOOK, DESK, NOW, balances, booked, request
from trading.amendment import amended
from trading.deals import amend_deal, cancel_deal, get_deal
from trading.errors import OffMarketPrice
from trading.legs import list_settlement_legs, mark_pulled
from trading.model import TREASURY, Deal, DealOrigin, DealPurpose, DealSide, DealState
from trading.position import position
from trading.terms.model import Rail, SettlementTarget
from trading.terms.testing import give_terms

USD = Asset("USD", 2)
FRIDAY = datetime(2026, 1, 9, 15, 0, tzinfo=UTC)
TRANSFER: dict[str, Any] = {
    "party": TREASURY,
    "purpose": DealPurpose.TRANSFER,
    "fee_units": 0,
}


def eth(price: str) -> Price:
    return Price.parse(price, ETH, USDT)


async def mid(
    engine: AsyncEngine,
    price: str = "3000",
    at: datetime = NOW,
    kind: PriceKind = PriceKind.VENUE_MID,
) -> UUID:
    """Record what the market was at a moment."""
    quality = Quality.MANUAL if kind is PriceKind.MANUAL else Quality.GOOD
    made = PriceRecord(price=eth(price), kind=kind, quality=quality, observed_at=at)
    return (await transact(engine, lambda conn: record_price(conn, made, now=NOW))).id


async def registered(engine: AsyncEngine, *records: Any) -> None:
    async def work(conn: AsyncConnection) -> None:
        for record in records:
            await change(conn, record, now=NOW)

    await transact(engine, work)


async def given(engine: AsyncEngine, **terms: Any) -> None:
    await transact(engine, lambda conn: give_terms(conn, "acme", now=NOW, **terms))


async def legs(engine: AsyncEngine) -> int:
    async def work(conn: AsyncConnection) -> int:
        found = await list_settlement_legs(conn, book=BOOK)
        await mark_pulled(conn, [leg.deal_id for leg in found], now=NOW)
        return len(found)

    return await transact(engine, work)


async def test_without_terms_or_a_market_a_deal_settles_the_same_day_and_is_judged_by_nothing(
    house: AsyncEngine,
) -> None:
    deal = await booked(house, request(value_date=None))

    assert (deal.value_date, deal.agreed_at, deal.terms_version) == (NOW.date(), NOW, 0)
    assert (deal.mid_price_id, deal.off_market_ppm) == (None, None)
    assert deal.instructions == (
        SettlementTarget(asset="ETH", rail=Rail.EVM, version=None),
        SettlementTarget(asset="USDT", rail=Rail.EVM, version=None),
    )
    async with house.connect() as conn:
        assert await get_deal(conn, deal.id) == deal


async def test_the_value_date_is_counted_in_the_business_days_of_both_assets(
    house: AsyncEngine,
) -> None:
    await registered(house, USD)
    await given(house, tenor_days=1)
    dollars: dict[str, Any] = {"quote": USD, "price": Price.parse("3000", ETH, USD), "fee_units": 0}
    coins = await booked(house, request("coins", value_date=None), FRIDAY)
    money = await booked(house, request("money", value_date=None, **dollars), FRIDAY)

    assert (coins.value_date, money.value_date) == (date(2026, 1, 10), date(2026, 1, 12))
    assert (coins.terms_version, money.calendars.partition(":")[2]) == (1, "fedwire")
    with pytest.raises(Refused, match="2026-01-12"):
        await booked(house, request("saturday", value_date=date(2026, 1, 10), **dollars), FRIDAY)
    with pytest.raises(BadInput, match="before"):
        await booked(house, request("past", value_date=date(2026, 1, 8)), FRIDAY)


async def test_a_deal_typed_in_late_is_dated_and_priced_by_when_it_was_agreed(
    house: AsyncEngine,
) -> None:
    then = await mid(house)
    await mid(house, "2500", NOW + timedelta(hours=2))

    late = request(value_date=None, agreed_at=NOW + timedelta(seconds=5))
    deal = await booked(house, late, NOW + timedelta(hours=2))

    assert (deal.mid_price_id, deal.agreed_at) == (then, NOW + timedelta(seconds=5))
    with pytest.raises(BadInput, match="later than now"):
        await booked(house, request("future", agreed_at=NOW + timedelta(seconds=1)), NOW)


MIDS = (
    (PriceKind.VENUE_MID, timedelta(minutes=15), None),
    (PriceKind.VENUE_MID, timedelta(minutes=15, microseconds=1), "was observed at"),
    (PriceKind.VENUE_MID, timedelta(seconds=-1), "was observed at"),
    (PriceKind.MANUAL, timedelta(days=1), None),
    (PriceKind.MANUAL, timedelta(seconds=-1), "was observed at"),
    (PriceKind.FIAT_RATE, timedelta(days=4), None),
    (PriceKind.FIAT_RATE, timedelta(days=30), "was observed at"),
    (PriceKind.AGREED, timedelta(), "is not the market's"),
    (PriceKind.FILL, timedelta(), "is not the market's"),
)


async def test_a_mid_is_the_markets_and_of_the_moment(house: AsyncEngine) -> None:
    for number, (kind, age, refusal) in enumerate(MIDS):
        named = await mid(house, at=NOW - age, kind=kind)
        asked = request(f"deal-{number}", mid_price_id=named)

        if refusal is None:
            assert (await booked(house, asked)).mid_price_id == named
        else:
            with pytest.raises(CausewayError, match=refusal):
                await booked(house, asked)


async def test_a_price_off_the_market_needs_a_reason_and_is_shown(house: AsyncEngine) -> None:
    market = await mid(house)
    dear: dict[str, Any] = {"price": eth("3061"), "mid_price_id": market}

    with pytest.raises(OffMarketPrice, match="20334 ppm above the market, in favour of the desk"):
        await booked(house, request(**dear))
    with pytest.raises(OffMarketPrice, match="in favour of acme"):
        await booked(house, request(**dear, side=DealSide.DESK_BUYS))
    assert await balances(house) == {}

    deal = await booked(house, request(**dear, off_market_reason="one block, no market for it"))

    assert deal.off_market_ppm == 20_334
    assert deal.request.off_market_reason == "one block, no market for it"
    near = await booked(house, request("near", price=eth("3060"), mid_price_id=market))
    assert near.off_market_ppm is None


async def test_a_deal_is_judged_by_the_recorded_market_where_it_names_none(
    house: AsyncEngine,
) -> None:
    await mid(house)
    await given(house, off_market_ppm=0)

    with pytest.raises(OffMarketPrice):
        await booked(house, request(price=eth("3000.000001")))
    assert (await booked(house, request())).off_market_ppm is None


async def test_where_there_is_no_mid_the_price_that_it_was_made_on_judges(
    house: AsyncEngine,
) -> None:
    old = await mid(house, "2000", NOW - timedelta(days=1))
    own = (await booked(house, request("own", price=eth("9")))).price_id

    with pytest.raises(OffMarketPrice):
        await booked(house, request(price_id=old))
    assert (await booked(house, request(price_id=own))).off_market_ppm is None


async def test_the_database_takes_no_deal_off_the_market_without_a_reason(
    house: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    await booked(house, request())

    for statement, refused in (
        ("UPDATE trading.deal SET off_market_ppm = 30000", "ck_deal_off_market"),
        ("UPDATE trading.deal SET origin = 'quote'", "ck_deal_origin"),
        ("UPDATE trading.deal SET purpose = 'transfer'", "ck_deal_transfer"),
    ):
        with pytest.raises(DBAPIError, match=refused):
            async with owner_engine.begin() as conn:
                await conn.execute(text(statement))


async def test_a_transfer_moves_the_position_between_desk_and_treasury_and_nothing_else(
    house: AsyncEngine,
) -> None:
    deal = await booked(house, request(**TRANSFER, side=DealSide.DESK_BUYS))

    assert await balances(house) == {
        "conversion:otc ETH": "10",
        "conversion:otc USDT": "-30,000",
        "conversion:treasury ETH": "-10",
        "conversion:treasury USDT": "30,000",
    }
    async with house.connect() as conn:
        assert await position(conn, BOOK, DESK) == {
            "ETH": ETH.parse("10"),
            "USDT": -USDT.parse("30000"),
        }
    assert await legs(house) == 0
    with pytest.raises(Refused):
        await transact(house, lambda conn: mark_pulled(conn, [deal.id], now=NOW))
    await transact(
        house, lambda conn: cancel_deal(conn, deal.id, by="dora", reason="wrong", now=NOW)
    )
    assert await balances(house) == {}


async def test_a_release_of_before_settles_no_transfer_after_the_way_back(
    house: AsyncEngine, database: Database
) -> None:
    await booked(house, request("inventory", **TRANSFER))
    await booked(house, request("client"))

    await downgrade(database.owner_url, "0037_pre_terms")

    async with house.connect() as conn:
        to_pull = await conn.execute(
            text("SELECT client_ref FROM trading.deal WHERE state = 'booked' AND pulled_at IS NULL")
        )
        assert list(to_pull.scalars()) == ["client"]


@pytest.mark.parametrize(
    "changes",
    [
        {**TRANSFER, "party": "acme"},
        {**TRANSFER, "desk": TREASURY},
        {**TRANSFER, "fee_units": 1},
        {"origin": DealOrigin.QUOTE},
        {"quote_id": UUID(int=7)},
    ],
)
def test_a_deal_that_means_two_things_cannot_even_be_asked_for(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        request(**changes)


async def test_a_hedge_is_dealt_with_a_counterparty_and_settles_like_any_deal(
    house: AsyncEngine,
) -> None:
    await registered(house, Party("maker", PartyKind.COUNTERPARTY, ENTITY.code))
    hedge: dict[str, Any] = {
        "purpose": DealPurpose.HEDGE,
        "side": DealSide.DESK_BUYS,
        "fee_units": 0,
    }

    with pytest.raises(BadInput, match="dealt with a counterparty"):
        await booked(house, request(**hedge))
    await booked(house, request(**hedge, party="maker"))

    assert (await balances(house))["receivable:maker:open ETH"] == "10"
    assert await legs(house) == 2


async def test_an_amendment_corrects_what_was_agreed_then(house: AsyncEngine) -> None:
    market = await mid(house)
    quoted: dict[str, Any] = {
        "origin": DealOrigin.QUOTE,
        "quote_id": UUID(int=7),
        "price_id": market,
    }
    old = await booked(house, request(**quoted))
    later = NOW + timedelta(hours=3)

    async def amend(item: Deal, reference: str, **changes: Any) -> Deal:
        asked = amended(item, reference, by="dan", reason="misheard", **changes)
        return await transact(house, lambda conn: amend_deal(conn, item.id, asked, now=later))

    dearer = await amend(old, "deal-1b", price=eth("3010"))
    latest = await amend(dearer, "deal-1c", value_date=date(2026, 1, 8))

    assert (dearer.agreed_at, dearer.mid_price_id) == (NOW, market)
    assert dearer.price_id != market
    assert (dearer.request.origin, dearer.request.quote_id) == (DealOrigin.VOICE, None)
    assert (latest.price_id, latest.value_date) == (dearer.price_id, date(2026, 1, 8))
    assert latest.amends == dearer.id
    held = await balances(house)
    assert (held["conversion:otc ETH"], held["receivable:acme:open USDT"]) == ("-10", "30,400")
    async with house.connect() as conn:
        assert (await get_deal(conn, old.id)).state is DealState.AMENDED
    with pytest.raises(BadInput, match="as it is"):
        amended(latest, "deal-1d", price=eth("3010"), by="dan", reason="again")


async def test_the_reason_for_one_price_is_none_for_another(house: AsyncEngine) -> None:
    await mid(house)
    old = await booked(house, request(price=eth("3100"), off_market_reason="one block"))
    asked: dict[str, Any] = {"by": "dan", "reason": "misheard"}

    worse = amended(old, "worse", price=eth("31000"), **asked)
    with pytest.raises(OffMarketPrice):
        await transact(house, lambda conn: amend_deal(conn, old.id, worse, now=NOW))
    larger = amended(old, "larger", base_units=ETH.parse("11"), **asked)
    new = await transact(house, lambda conn: amend_deal(conn, old.id, larger, now=NOW))

    assert new.request.off_market_reason == "one block"


async def test_a_deal_is_not_amended_into_one_of_another_purpose(house: AsyncEngine) -> None:
    old = await booked(house, request(fee_units=0))

    with pytest.raises(BadInput, match="not amended to transfer"):
        await transact(
            house, lambda conn: amend_deal(conn, old.id, request("new", **TRANSFER), now=NOW)
        )
