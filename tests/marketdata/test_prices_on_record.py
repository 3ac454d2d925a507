"""Fiat rates, manual prices, the hierarchy, the index publisher and locked months, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.event import listen
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput, Refused
from kernel.events import list_history
from kernel.money import Asset, Price
from marketdata.errors import NoOverride, NoPrice, OverrideRefused, SnapshotRefused
from marketdata.fx import FiatImport, fiat_price, import_rates, last_publication, list_rates
from marketdata.hierarchy import DEFAULT, Hierarchies, Hierarchy, Rung, Source, crossed
from marketdata.index_price import IndexPolicy, IndexVenue
from marketdata.index_publisher import publish_index
from marketdata.model import PriceRecord, Quality, RecordedPrice
from marketdata.overrides import (
    approve_override,
    find_override,
    get_override,
    list_overrides,
    override_bytes,
    propose_override,
    reject_override,
    revoke_override,
)
from marketdata.price_model import (
    OVERRIDE_LIFETIME_MAX,
    PROPOSAL_LIFETIME,
    Override,
    OverrideRequest,
    OverrideState,
    OverrideUse,
    Pair,
    PriceKind,
    Purpose,
    SnapshotLine,
)
from marketdata.price_resolution import Resolved, resolve_price
from marketdata.price_snapshots import (
    get_snapshot,
    hash_lines,
    list_snapshots,
    lock_snapshot,
    month_end,
    prepare_snapshot,
    snapshot_bytes,
    verify_snapshot,
)
from marketdata.prices import get_price, list_prices, record_price
from marketdata.testing import ETH, USDT, StillFeed, book_view, eth_usdt
from registry.changes import found
from registry.errors import NotAuthorised
from registry.testing import demo_founding, operator_keypair
from tests.marketdata.ecb_files import DAYS, as_csv, as_xml

NOW = datetime(2026, 10, 30, 20, 0, tzinfo=UTC)
"""A Friday evening: the rates of that day are out."""
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
EUR, USD, JPY, GBP = Asset("EUR", 2), Asset("USD", 2), Asset("JPY", 0), Asset("GBP", 2)
MONTH = date(2026, 10, 1)
END = month_end(MONTH)
ETH_USDT, ETH_USD, ETH_EUR = Pair(ETH, USDT), Pair(ETH, USD), Pair(ETH, EUR)


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncEngine:
    founding = demo_founding()
    founding = replace(founding, assets=(*founding.assets, EUR, USD, JPY, GBP))
    await transact(engine, lambda conn: found(conn, founding, now=NOW - DAY * 30))
    return engine


async def imported(engine: AsyncEngine, content: bytes, now: datetime = NOW) -> FiatImport:
    return await transact(engine, lambda conn: import_rates(conn, content, by="cleo", now=now))


async def recorded(
    engine: AsyncEngine,
    value: str,
    pair: Pair = ETH_USDT,
    kind: PriceKind = PriceKind.INDEX,
    quality: Quality = Quality.GOOD,
    at: datetime = NOW,
) -> RecordedPrice:
    record = PriceRecord(
        price=Price.parse(value, pair.base, pair.quote),
        kind=kind,
        quality=quality,
        observed_at=at,
    )
    return await transact(engine, lambda conn: record_price(conn, record, now=at))


async def resolved(
    engine: AsyncEngine,
    pair: Pair = ETH_USDT,
    purpose: Purpose = Purpose.INDICATIVE,
    at: datetime = NOW,
    hierarchy: Hierarchy = DEFAULT,
) -> Resolved:
    return await transact(
        engine,
        lambda conn: resolve_price(conn, pair, at=at, purpose=purpose, now=at, hierarchy=hierarchy),
    )


# Fiat rates.


async def test_a_file_is_imported_once_and_only_what_is_new_is_written(house: AsyncEngine) -> None:
    first = await imported(house, as_xml())
    again = await imported(house, as_xml())
    other = await imported(house, as_csv())

    assert (first.is_new, first.added, first.days, first.rates) == (True, 9, 3, 9)
    assert (again.is_new, again.id) == (False, first.id)
    assert (other.is_new, other.added, other.corrected) == (True, 0, 0)
    async with house.connect() as conn:
        rates = await list_rates(conn, "USD", since=MONTH, until=NOW.date())
    assert [(rate.day.day, rate.text) for rate in rates] == [
        (30, "1.1550"),
        (29, "1.1625"),
        (28, "1.1600"),
    ]


async def test_a_correction_is_a_new_version_and_the_old_one_stays(house: AsyncEngine) -> None:
    await imported(house, as_xml())
    before = await transact(house, lambda c: _fiat(c, EUR, USD, NOW))
    corrected = {**DAYS, "2026-10-30": {**DAYS["2026-10-30"], "USD": "1.1560", "JPY": "178.2"}}

    done = await imported(house, as_xml(corrected))

    after = await transact(house, lambda c: _fiat(c, EUR, USD, NOW))
    async with house.connect() as conn:
        rates = await list_rates(
            conn, "USD", since=NOW.date(), until=NOW.date(), every_version=True
        )
        assert (await get_price(conn, before.id)).record.price.format() == "1.155 USD/EUR"
    assert (done.added, done.corrected) == (0, 1)
    assert [(rate.version, rate.text) for rate in rates] == [(2, "1.1560"), (1, "1.1550")]
    assert after.record.price.format() == "1.156 USD/EUR"
    assert after.record.constituents[0]["version"] == 2


async def test_working_days_that_nobody_imported_are_told(house: AsyncEngine) -> None:
    days = {"2026-10-28": DAYS["2026-10-28"], "2026-10-30": DAYS["2026-10-30"]}

    assert (await imported(house, as_xml(days))).missing == (date(2026, 10, 29),)
    assert (await imported(house, as_xml())).missing == ()


async def test_rates_of_a_day_to_come_are_refused(house: AsyncEngine) -> None:
    with pytest.raises(BadInput, match="still to come"):
        await imported(house, as_xml(), now=NOW - DAY)


async def test_two_imports_of_other_words_of_one_day_never_both_win(house: AsyncEngine) -> None:
    files = [as_xml({"2026-10-30": {"USD": f"1.{n}"}}) for n in range(1, 5)]

    async def one(content: bytes) -> int:
        try:
            return (await imported(house, content)).added
        except Refused:
            return 0

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(content)) for content in files]
    async with house.connect() as conn:
        rates = await list_rates(
            conn, "USD", since=NOW.date(), until=NOW.date(), every_version=True
        )

    assert sum(task.result() for task in tasks) == 1
    assert sorted(rate.version for rate in rates) == list(range(1, len(rates) + 1))


async def _fiat(conn: AsyncConnection, base: Asset, quote: Asset, at: datetime) -> RecordedPrice:
    made = await fiat_price(conn, base, quote, at=at)
    assert isinstance(made, PriceRecord), made
    return await record_price(conn, made, now=at)


async def test_any_two_currencies_are_crossed_through_the_euro(house: AsyncEngine) -> None:
    await imported(house, as_xml())
    for base, quote, expected in (
        (EUR, USD, "1.155 USD/EUR"),
        (USD, EUR, "0.86580086 EUR/USD"),
        (GBP, JPY, "202.27014755 JPY/GBP"),
    ):
        price = (await transact(house, partial(_fiat, base=base, quote=quote, at=NOW))).record

        assert price.price.format() == expected
        assert price.quality is Quality.GOOD
        assert price.observed_at == datetime(2026, 10, 30, 15, tzinfo=UTC)


MOMENTS: Sequence[tuple[datetime, str | None, Quality | None]] = (
    (datetime(2026, 10, 30, 14, 59, tzinfo=UTC), "1.1625", Quality.GOOD),
    (datetime(2026, 10, 30, 15, 0, tzinfo=UTC), "1.155", Quality.GOOD),
    (datetime(2026, 11, 1, 12, 0, tzinfo=UTC), "1.155", Quality.GOOD),
    (datetime(2026, 11, 2, 14, 0, tzinfo=UTC), "1.155", Quality.GOOD),
    (datetime(2026, 11, 2, 16, 0, tzinfo=UTC), "1.155", Quality.DEGRADED),
    (datetime(2026, 11, 4, 16, 0, tzinfo=UTC), "1.155", Quality.DEGRADED),
    (datetime(2026, 11, 5, 16, 0, tzinfo=UTC), None, None),
)


async def test_a_moment_has_the_newest_rates_that_were_out(house: AsyncEngine) -> None:
    await imported(house, as_xml())
    for at, expected, quality in MOMENTS:
        async with house.connect() as conn:
            made = await fiat_price(conn, EUR, USD, at=at)

        if expected is None:
            assert isinstance(made, Refused), at
        else:
            assert isinstance(made, PriceRecord), at
            assert made.price == Price.parse(expected, EUR, USD), at
            assert made.quality is quality, at


async def test_rates_of_two_days_are_never_crossed_with_each_other(house: AsyncEngine) -> None:
    await imported(
        house, as_xml({"2026-10-29": DAYS["2026-10-29"], "2026-10-30": {"USD": "1.1550"}})
    )

    price = (await transact(house, lambda c: _fiat(c, GBP, USD, NOW))).record

    assert {item["day"] for item in price.constituents} == {"2026-10-29"}
    assert price.quality is Quality.DEGRADED


@given(st.datetimes(datetime(2005, 1, 1), datetime(2045, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001  hypothesis asks for naive limits
def test_the_newest_publication_is_never_old_and_never_to_come(at: datetime) -> None:
    day = last_publication(at)

    assert timedelta(0) <= at.date() - day <= DAY * 5


# Manual prices.


def asked(value: str = "2500", **changes: Any) -> OverrideRequest:
    made = OverrideRequest(
        price=Price.parse(value, ETH, USDT),
        use=OverrideUse.INSTEAD,
        reason="the venue shows a stale book",
        evidence="broker quote 4711",
        valid_from=NOW,
        expires_at=NOW + DAY,
    )
    return replace(made, **changes)


async def proposed(
    engine: AsyncEngine, request: OverrideRequest | None = None, by: str = "dan"
) -> Override:
    return await transact(
        engine, lambda conn: propose_override(conn, request or asked(), by=by, now=NOW)
    )


async def approved(
    engine: AsyncEngine, item: Override, by: str = "cleo", at: datetime = NOW
) -> Override:
    signature = operator_keypair(by).sign(override_bytes(item, "approve"))
    return await transact(
        engine,
        lambda conn: approve_override(conn, item.id, by=by, signature=signature, now=at),
    )


async def test_a_price_stands_once_another_person_has_signed_it(house: AsyncEngine) -> None:
    await recorded(house, "3000")
    item = await proposed(house)
    assert (await resolved(house)).source is Source.INDEX

    done = await approved(house, item)

    found = await resolved(house)
    assert (found.source, found.price.id) == (Source.OVERRIDE, done.price_id)
    assert found.price.record.quality is Quality.MANUAL
    assert found.price.record.constituents[0]["approved_by"] == "cleo"
    assert (await resolved(house, at=NOW + DAY - MINUTE)).source is Source.OVERRIDE
    with pytest.raises(NoPrice, match="override is not in force"):
        await resolved(house, at=NOW + DAY)
    async with house.connect() as conn:
        events = [event.name for event in await list_history(conn, "price-override", item.id)]
    assert events == ["PriceOverrideProposed", "PriceOverrideApproved"]


async def test_nobody_approves_what_they_proposed(house: AsyncEngine) -> None:
    item = await proposed(house, by="cleo")

    with pytest.raises(OverrideRefused, match="cannot decide"):
        await approved(house, item, by="cleo")


async def test_the_database_knows_four_eyes_too(house: AsyncEngine) -> None:
    item = await proposed(house, by="cleo")

    with pytest.raises(DBAPIError, match="four_eyes"):
        async with house.begin() as conn:
            await conn.execute(
                text("UPDATE marketdata.price_override SET decided_by = 'cleo' WHERE id = :id"),
                {"id": item.id},
            )


async def test_what_was_proposed_never_changes(house: AsyncEngine) -> None:
    await proposed(house)
    for statement in (
        "UPDATE marketdata.price_override SET numerator = 2",
        "UPDATE marketdata.price_override SET reason = 'other'",
        "UPDATE marketdata.price_override SET expires_at = now() + interval '9 years'",
    ):
        with pytest.raises(DBAPIError, match="never changes"):
            async with house.begin() as conn:
                await conn.execute(text(statement))


async def test_a_signature_of_something_else_or_somebody_else_is_refused(
    house: AsyncEngine,
) -> None:
    item, other = await proposed(house), await proposed(house, asked("2600"))
    wrong = (
        operator_keypair("cleo").sign(override_bytes(other, "approve")),
        operator_keypair("cleo").sign(override_bytes(item, "reject")),
        operator_keypair("ada").sign(override_bytes(item, "approve")),
        b"",
    )
    for signature in wrong:
        attempt = partial(
            approve_override, override_id=item.id, by="cleo", signature=signature, now=NOW
        )
        with pytest.raises(NotAuthorised):
            await transact(house, attempt)


async def test_roles_say_who_proposes_and_who_decides(house: AsyncEngine) -> None:
    with pytest.raises(NotAuthorised):
        await proposed(house, by="ben")
    item = await proposed(house, by="cleo")
    with pytest.raises(NotAuthorised):
        await approved(house, item, by="dan")


async def test_a_proposal_lapses_and_is_decided_once(house: AsyncEngine) -> None:
    late = await proposed(house, asked(expires_at=NOW + DAY * 9))
    with pytest.raises(OverrideRefused, match="was proposed at"):
        await approved(house, late, at=NOW + PROPOSAL_LIFETIME + MINUTE)

    signature = operator_keypair("ada").sign(override_bytes(late, "reject"))
    rejected = await transact(
        house,
        lambda c: reject_override(
            c, late.id, by="ada", signature=signature, reason="too late", now=NOW
        ),
    )

    assert rejected.state is OverrideState.REJECTED
    with pytest.raises(OverrideRefused, match="is rejected"):
        await approved(house, late)


async def test_one_who_may_decide_ends_it_from_that_moment_on(house: AsyncEngine) -> None:
    item = await approved(house, await proposed(house))
    at = NOW + MINUTE * 10

    ended = await transact(
        house, lambda c: revoke_override(c, item.id, by="ada", reason="venue is back", now=at)
    )

    async with house.connect() as conn:

        async def stands(when: datetime) -> bool:
            use = OverrideUse.INSTEAD
            return await find_override(conn, "ETH", "USDT", at=when, use=use) is not None

        assert [await stands(NOW), await stands(at - MINUTE), await stands(at)] == [
            *(True, True, False),
        ]
        assert await get_override(conn, item.id) == ended
        assert await list_overrides(conn, standing_at=at) == []
        assert await list_overrides(conn) == [ended]
    with pytest.raises(OverrideRefused, match="is revoked"):
        await transact(
            house, lambda c: revoke_override(c, item.id, by="ada", reason="again", now=at)
        )
    with pytest.raises(NoOverride):
        await transact(house, lambda c: get_override(c, UUID(int=3)))


async def test_a_manual_price_that_cannot_be_is_refused(house: AsyncEngine) -> None:
    impossible: Sequence[dict[str, Any]] = (
        {"reason": " "},
        {"expires_at": NOW},
        {"expires_at": NOW + OVERRIDE_LIFETIME_MAX + DAY},
        {"evidence": "x" * 501},
    )
    for changes in impossible:
        with pytest.raises(BadInput):
            await proposed(house, asked(**changes))


# The hierarchy.


async def test_the_first_rung_that_will_do_is_taken_and_the_others_say_why_not(
    house: AsyncEngine,
) -> None:
    await recorded(house, "2500", kind=PriceKind.VENUE_MID)

    found = await resolved(house)

    assert found.source is Source.VENUE_MID
    assert found.passed_over == (
        "override is not in force",
        "index is missing or too old",
    )
    await recorded(house, "2501")
    assert (await resolved(house)).source is Source.INDEX


async def test_nothing_settles_on_one_venue_or_on_a_degraded_index(house: AsyncEngine) -> None:
    await recorded(house, "2500", kind=PriceKind.VENUE_MID)
    await recorded(house, "2501", quality=Quality.DEGRADED)

    with pytest.raises(NoPrice, match="index is degraded; venue-mid is not for settlement"):
        await resolved(house, purpose=Purpose.SETTLEMENT)
    assert (await resolved(house, purpose=Purpose.VALUATION)).source is Source.INDEX
    await recorded(house, "2502", at=NOW + MINUTE)
    assert (
        await resolved(house, purpose=Purpose.SETTLEMENT, at=NOW + MINUTE)
    ).source is Source.INDEX


async def test_an_old_price_is_none_and_a_later_one_is_not_looked_at(house: AsyncEngine) -> None:
    await recorded(house, "2500", at=NOW - MINUTE * 2)
    await recorded(house, "2600", at=NOW + MINUTE)

    with pytest.raises(NoPrice):
        await resolved(house)
    found = await resolved(house, hierarchy=DEFAULT.within(MINUTE * 5))
    assert found.price.record.price.format() == "2,500 USDT/ETH"


async def test_what_a_deal_or_a_fill_says_is_no_price_of_the_market(house: AsyncEngine) -> None:
    for kind in (PriceKind.AGREED, PriceKind.FILL, PriceKind.MANUAL):
        await recorded(house, "2500", kind=kind)

    with pytest.raises(NoPrice):
        await resolved(house)


async def test_a_pair_without_a_market_is_crossed_with_a_fiat_rate(house: AsyncEngine) -> None:
    await imported(house, as_xml())
    market = await recorded(house, "2310", pair=ETH_USD)

    found = await resolved(house, pair=ETH_EUR, purpose=Purpose.SETTLEMENT)

    record = found.price.record
    assert found.source is Source.CROSS
    assert record.price == Price.parse("2000", ETH, EUR)
    assert record.constituents[0]["price_id"] == str(market.id)
    assert record.method["pivot"] == "USD"
    again = await resolved(house, pair=ETH_EUR, purpose=Purpose.SETTLEMENT)
    assert again.price.id == found.price.id


async def test_two_currencies_have_their_published_rate(house: AsyncEngine) -> None:
    await imported(house, as_xml())

    found = await resolved(house, pair=Pair(EUR, USD), purpose=Purpose.SETTLEMENT)

    assert found.source is Source.FIAT_RATE
    async with house.connect() as conn:
        assert [item.id for item in await list_prices(conn, kind="fiat-rate")] == [found.price.id]


async def test_a_price_that_stands_last_is_taken_only_where_there_is_no_other(
    house: AsyncEngine,
) -> None:
    await approved(house, await proposed(house, asked(use=OverrideUse.LAST)))
    assert (await resolved(house)).source is Source.MANUAL

    await recorded(house, "2499")

    assert (await resolved(house)).source is Source.INDEX


def test_a_cross_is_as_good_as_the_worse_leg() -> None:
    def leg(pair: Pair, quality: Quality) -> PriceRecord:
        price = Price.parse("2", pair.base, pair.quote)
        return PriceRecord(price=price, kind="index", quality=quality, observed_at=NOW)

    good, poor, manual = Quality.GOOD, Quality.DEGRADED, Quality.MANUAL
    for one, two, expected in (
        (good, good, good),
        (good, poor, poor),
        (manual, good, manual),
        (manual, poor, poor),
    ):
        made = crossed(leg(ETH_USD, one), "1", leg(Pair(USD, EUR), two), "2")
        assert (made.quality, made.price.format()) == (expected, "4 EUR/ETH")
    with pytest.raises(BadInput):
        crossed(leg(ETH_USDT, good), "1", leg(Pair(USD, EUR), good), "2")


def test_hierarchies_are_per_pair_and_have_every_source_once() -> None:
    only_index = Hierarchy((Rung(Source.INDEX),))
    known = Hierarchies({"ETH/USDT": only_index})

    assert known.of("ETH", "USDT") is only_index
    assert known.of("ETH", "USD") is DEFAULT
    with pytest.raises(BadInput):
        Hierarchy((Rung(Source.INDEX), Rung(Source.INDEX)))


def test_no_hierarchy_lets_one_venue_settle() -> None:
    with pytest.raises(BadInput, match="settle"):
        Hierarchy((Rung(Source.VENUE_MID),))


# The publisher.


async def test_the_index_of_the_feeds_is_recorded_with_who_said_what(house: AsyncEngine) -> None:
    grids = [eth_usdt(f"v{n}") for n in range(3)]
    rules = IndexPolicy(base=ETH, quote=USDT, venues=tuple(map(IndexVenue, grids)), venues_min=2)

    def feeds(*mids: int) -> dict[str, StillFeed]:
        return {
            grid.venue: StillFeed(
                book_view([(f"{mid - 1}", "1")], [(f"{mid + 1}", "1")], at=NOW, instrument=grid)
            )
            for grid, mid in zip(grids, mids, strict=False)
        }

    def publish(*mids: int, at: datetime = NOW, purpose: Purpose = Purpose.INDICATIVE) -> Any:
        return transact(
            house, lambda c: publish_index(c, rules, feeds(*mids), now=at, purpose=purpose)
        )

    good = await publish(2_000, 2_001, 2_200)
    poor = await publish(2_000, at=NOW + timedelta(seconds=1))
    refused = await publish(2_000, at=NOW + MINUTE, purpose=Purpose.SETTLEMENT)
    thin = await publish(2_000, at=NOW + timedelta(seconds=2), purpose=Purpose.SETTLEMENT)

    assert good.record.price.format() == "2,000.5 USDT/ETH"
    assert [item["gate"] for item in good.record.constituents] == ["used", "used", "outlier"]
    assert poor.record.quality is Quality.DEGRADED
    assert poor.record.method["outliers_before"] == ["v2"]
    assert isinstance(refused, Refused)
    assert "1 of 2 venues" in str(thin)
    async with house.connect() as conn:
        assert len(await list_prices(conn, kind="index")) == 2
        (event,) = await list_history(conn, "price", poor.id)
        assert (event.from_state, event.to_state) == ("good", "degraded")


# Locked months.


async def prepared(
    engine: AsyncEngine, pairs: Sequence[Pair], now: datetime = END + DAY
) -> tuple[SnapshotLine, ...]:
    return await transact(engine, lambda c: prepare_snapshot(c, MONTH, pairs, now=now))


async def locked(
    engine: AsyncEngine, lines: Sequence[SnapshotLine], by: str = "cleo", now: datetime = END + DAY
) -> None:
    signature = operator_keypair(by).sign(snapshot_bytes(MONTH, hash_lines(MONTH, lines)))
    await transact(
        engine,
        lambda c: lock_snapshot(c, MONTH, lines, by=by, signature=signature, now=now),
    )


async def test_a_locked_month_never_changes_whatever_is_recorded_later(
    house: AsyncEngine,
) -> None:
    await imported(house, as_xml())
    first = await recorded(house, "2500", at=END - MINUTE)
    await recorded(house, "9999", at=END + MINUTE)
    lines = await prepared(house, [ETH_USDT, Pair(EUR, USD)])
    await locked(house, lines)

    await recorded(house, "2501", at=END - timedelta(seconds=1))
    await imported(house, as_xml({"2026-10-30": {"USD": "9.9"}}))

    async with house.connect() as conn:
        found = await get_snapshot(conn, MONTH)
        assert await verify_snapshot(conn, MONTH) == []
        assert [item.month for item in await list_snapshots(conn)] == [MONTH]
    assert found.lines == lines
    assert {line.pair: line.price.format() for line in found.lines} == {
        "ETH/USDT": "2,500 USDT/ETH",
        "EUR/USD": "1.155 USD/EUR",
    }
    assert found.lines[0].price_id == first.id
    assert found.content_hash == hash_lines(MONTH, lines)


async def test_a_month_is_locked_once(house: AsyncEngine) -> None:
    await recorded(house, "2500", at=END - MINUTE)
    lines = await prepared(house, [ETH_USDT])
    await locked(house, lines)

    with pytest.raises(SnapshotRefused, match="locked by cleo"):
        await locked(house, lines)
    with pytest.raises(SnapshotRefused, match="locked by cleo"):
        await prepared(house, [ETH_USDT])


async def test_of_two_that_lock_at_once_one_is_refused(house: AsyncEngine) -> None:
    await imported(house, as_xml())
    await recorded(house, "2500", at=END - MINUTE)
    one = await prepared(house, [ETH_USDT])
    other = await prepared(house, [Pair(EUR, USD)])

    async def attempt(lines: Sequence[SnapshotLine], by: str) -> bool:
        try:
            await locked(house, lines, by)
        except SnapshotRefused:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(attempt(lines, by))
            for lines, by in ((one, "cleo"), (other, "ada"), (one, "ada"))
        ]

    assert sorted(task.result() for task in tasks) == [False, False, True]
    async with house.connect() as conn:
        assert await verify_snapshot(conn, MONTH) == []


async def test_the_runtime_role_cannot_change_what_is_locked(engine: AsyncEngine) -> None:
    for statement in (
        "UPDATE marketdata.price_snapshot SET content_hash = 'x'",
        "DELETE FROM marketdata.price_snapshot",
        "DELETE FROM marketdata.price_snapshot_line",
        "UPDATE marketdata.price_snapshot_line SET base = 'BTC'",
        "UPDATE marketdata.fiat_rate SET mantissa = 1",
        "DELETE FROM marketdata.fiat_import",
        "DELETE FROM marketdata.price_override",
    ):
        with pytest.raises(DBAPIError, match="permission denied"):
            async with engine.begin() as conn:
                await conn.execute(text(statement))


async def test_no_line_gets_into_a_locked_month_even_as_the_owner(
    house: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    await recorded(house, "2500", at=END - MINUTE)
    await locked(house, await prepared(house, [ETH_USDT]))

    with pytest.raises(DBAPIError, match="is locked"):
        async with owner_engine.begin() as conn:
            await conn.execute(
                text(
                    "INSERT INTO marketdata.price_snapshot_line"
                    " SELECT snapshot_id, 'BTC', quote, price_id FROM marketdata.price_snapshot_line"
                )
            )


async def test_a_price_changed_behind_our_back_is_found(
    house: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    await recorded(house, "2500", at=END - MINUTE)
    await locked(house, await prepared(house, [ETH_USDT]))
    async with owner_engine.begin() as conn:
        await conn.execute(text("UPDATE marketdata.price SET numerator = numerator + 1"))

    async with house.connect() as conn:
        (fault,) = await verify_snapshot(conn, MONTH)
    assert "have hash" in fault


async def test_what_cannot_be_locked_says_why(house: AsyncEngine) -> None:
    await recorded(house, "2500", at=END - MINUTE)

    with pytest.raises(SnapshotRefused, match="not over"):
        await prepared(house, [ETH_USDT], now=END - MINUTE)
    with pytest.raises(SnapshotRefused, match=r"no price of ETH/USD .*no price of ETH/EUR"):
        await prepared(house, [ETH_USDT, ETH_USD, ETH_EUR])
    with pytest.raises(BadInput):
        await prepared(house, [ETH_USDT, ETH_USDT])
    with pytest.raises(BadInput):
        month_end(date(2026, 10, 2))
    lines = await prepared(house, [ETH_USDT])
    with pytest.raises(NotAuthorised):
        await locked(house, lines, by="dan")
    with pytest.raises(SnapshotRefused, match="not locked"):
        await transact(house, lambda c: get_snapshot(c, MONTH))


async def test_a_manual_price_for_a_month_that_is_over_can_still_be_approved(
    house: AsyncEngine,
) -> None:
    await recorded(house, "2500", at=END - MINUTE)
    later = END + DAY
    begun = asked(
        price=Price.parse("2000", ETH, EUR),
        use=OverrideUse.LAST,
        valid_from=END - MINUTE,
        expires_at=later + DAY,
    )
    item = await transact(
        house, lambda conn: propose_override(conn, begun, by="dan", now=later - MINUTE)
    )
    with pytest.raises(SnapshotRefused, match="ETH/EUR"):
        await prepared(house, [ETH_EUR], now=later)
    done = await approved(house, item, at=later)

    (line,) = await prepared(house, [ETH_EUR], now=later)

    assert (line.price_id, line.kind, line.quality) == (done.price_id, "manual", "manual")
    with pytest.raises(NoPrice):
        await resolved(house, ETH_EUR, at=END)
    with pytest.raises(SnapshotRefused, match="ETH/EUR"):
        await prepared(house, [ETH_EUR], now=later - MINUTE)
    await revoked(house, done, later + MINUTE)
    with pytest.raises(SnapshotRefused, match="ETH/EUR"):
        await prepared(house, [ETH_EUR], now=later + MINUTE)


async def revoked(engine: AsyncEngine, item: Override, now: datetime) -> None:
    await transact(
        engine,
        lambda conn: revoke_override(conn, item.id, by="cleo", reason="it was wrong", now=now),
    )


async def test_a_line_that_is_written_while_a_month_is_being_locked_does_not_get_in(
    house: AsyncEngine,
) -> None:
    await recorded(house, "2500", at=END - MINUTE)
    lines = await prepared(house, [ETH_USDT])
    signature = operator_keypair("cleo").sign(snapshot_bytes(MONTH, hash_lines(MONTH, lines)))
    stranger = text(
        "INSERT INTO marketdata.price_snapshot_line VALUES (:id, 'BTC', 'USDT', :price)"
    )
    price_id = lines[0].price_id
    inserted, stands = asyncio.Event(), asyncio.Event()

    async def write(snapshot_id: UUID) -> str:
        try:
            async with house.begin() as conn:
                await conn.execute(stranger, {"id": snapshot_id, "price": price_id})
                inserted.set()
                # Its foreign key is looked at when it commits: by then there is such a month.
                await stands.wait()
        except DBAPIError as error:
            return str(error.orig)
        return "written"

    async with asyncio.TaskGroup() as group, house.connect() as locker, house.connect() as other:
        found = await lock_snapshot(
            locker, MONTH, lines, by="cleo", signature=signature, now=END + DAY
        )
        writing = group.create_task(write(found.id))
        async with asyncio.timeout(10):
            while not inserted.is_set() and not await waits(other):  # noqa: ASYNC110  a server's lock
                await asyncio.sleep(0.01)
        await locker.commit()
        stands.set()
        said = await writing

    assert "is locked" in said
    async with house.connect() as conn:
        assert await verify_snapshot(conn, MONTH) == []


async def waits(conn: AsyncConnection) -> bool:
    """Tell whether a transaction of this database waits for another one."""
    query = text(
        "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database"
        " WHERE NOT granted AND datname = current_database()"
    )
    return bool(await conn.scalar(query))


@pytest.mark.parametrize(
    "wanted", [{}, {"base": "ETH"}, {"base": "ETH", "quote": "USDT", "kind": "index"}]
)
async def test_the_newest_prices_are_found_without_reading_all(
    house: AsyncEngine, owner_engine: AsyncEngine, wanted: dict[str, Any]
) -> None:
    async with owner_engine.begin() as conn:
        await conn.execute(MANY_PRICES)
        await conn.execute(text("ANALYZE marketdata.price"))
    seen: list[tuple[str, Any]] = []
    async with house.connect() as conn:

        def remember(_conn: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
            seen.append((f"EXPLAIN {statement}", values))

        listen(conn.sync_connection, "before_cursor_execute", remember)
        found = await list_prices(conn, **wanted, limit=5)
        told = await conn.exec_driver_sql(*seen[0])
        plan = "\n".join(told.scalars())

    assert len(found) == 5
    assert "Seq Scan" not in plan, plan


MANY_PRICES = text(
    "INSERT INTO marketdata.price (id, base, base_scale, quote, quote_scale, numerator, denominator,"
    " kind, quality, constituents, observed_at, recorded_at) SELECT gen_random_uuid(), (ARRAY['ETH', 'BTC'])[1 + n % 2], 18,"
    " 'USDT', 6, n, 1, (ARRAY['index', 'fill'])[1 + n % 2], 'good', '[]',"
    " timestamptz '2026-01-01' + n * interval '1 s', now() FROM generate_series(1, 5000) n"
)
