"""The cards every connector is held to, whatever venue it speaks to.

A card says what is done and what must be seen. Where venues differ, it asks the capability record,
never for a name. Numbers are kept for good: a card that goes leaves its number unused.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from msgspec import structs

from kernel.money import Asset
from kernel.settings import Secret
from marketdata.errors import NoInstrument
from matching.model import Side, TimeInForce
from tests.conformance.connectors.bench import (
    ASSETS,
    CLOCK,
    Connector,
    settings_for,
)
from venues.capabilities import Expiry, TradeIdScope
from venues.ccxt.clock import ClockPolicy
from venues.ccxt.endpoint import Credentials
from venues.ccxt.gateway import open_gateway
from venues.errors import KeyRefused, VenueUnavailable
from venues.model import (
    DUST_SCALE,
    Accepted,
    OrderKind,
    Placement,
    PlacementRefused,
    PlacementUnknown,
    RefusalKind,
    VenueFill,
    VenueOrder,
    VenueStatus,
)
from venues.permissions import require_trading_key

ORDERS_POSTED = {"binance": "/api/v3/order", "kraken": "/0/private/AddOrder"}
"""Where placements go, by the simulator's dialect: faults are scheduled by path."""


def placing_path(connector: Connector) -> str:
    return ORDERS_POSTED[connector.sim.ready["dialect"]]


async def truly_placed(connector: Connector, order: VenueOrder) -> bool:
    """Tell whether the venue's own books hold the order."""
    state = await asyncio.to_thread(connector.sim.state)
    return order.client_order_id in str(state)


async def every_fill(connector: Connector) -> list[VenueFill]:
    found: list[VenueFill] = []
    cursor = ""
    while True:
        page = await connector.gateway.fills(connector.grid.symbol, cursor)
        found += page.fills
        if page.is_last:
            return found
        cursor = page.cursor


def order_of(connector: Connector, kind: OrderKind) -> VenueOrder:
    if kind is OrderKind.MARKET:
        return connector.order(kind=kind, price=None, quantity="0.01")
    return connector.post_only("2000") if kind is OrderKind.POST_ONLY else connector.resting()


async def test_card_01_the_grid_is_read_as_the_venue_states_it(connector: Connector) -> None:
    grid = connector.grid

    assert (grid.base.code, grid.tick, grid.price_scale) == ("ETH", 1, 2)
    assert Decimal(grid.quantity_text(1)) <= Decimal("0.0001")
    assert grid.quote.code in {"USDT", "USD"}
    with pytest.raises(NoInstrument):
        await connector.gateway.instrument("NOPE")


@pytest.mark.parametrize("kind", OrderKind)
async def test_card_02_every_kind_of_order_is_placed_and_known_by_our_id(
    connector: Connector, kind: OrderKind
) -> None:
    order = order_of(connector, kind)

    placed = await connector.gateway.place(order)
    found = await connector.gateway.find_order(order)

    assert isinstance(placed, Accepted)
    assert found is not None
    assert placed.report.client_order_id == found.client_order_id == order.client_order_id
    assert placed.report.venue_order_id == found.venue_order_id
    ended = kind is OrderKind.MARKET
    assert found.status is (VenueStatus.FILLED if ended else VenueStatus.OPEN)
    assert found.executed_units == (order.base_units if ended else 0)
    assert (found.side, found.base_units) == (Side.BUY, order.base_units)


@pytest.mark.parametrize("time_in_force", TimeInForce)
async def test_card_03_a_time_in_force_is_kept_or_refused_before_it_is_sent(
    connector: Connector, time_in_force: TimeInForce
) -> None:
    order = connector.order(time_in_force=time_in_force, quantity="0.01")

    placed = await connector.gateway.place(order)

    if time_in_force in connector.record.times_in_force:
        assert isinstance(placed, Accepted)
    else:
        assert isinstance(placed, PlacementRefused)
        assert placed.reason.startswith("not sent")
        assert not await truly_placed(connector, order)


async def test_card_04_too_little_money_is_a_final_refusal(connector: Connector) -> None:
    placed = await connector.gateway.place(connector.order(quantity="400000"))

    assert isinstance(placed, PlacementRefused)
    assert placed.kind is RefusalKind.FINAL


async def test_card_05_a_post_only_order_that_would_take_is_refused_or_ended(
    connector: Connector,
) -> None:
    order = connector.post_only("3300")

    placed = await connector.gateway.place(order)

    assert isinstance(placed, PlacementRefused)
    assert placed.kind is RefusalKind.FINAL


async def test_card_06_an_order_below_the_minimum_is_a_final_refusal(
    connector: Connector,
) -> None:
    placed = await connector.gateway.place(connector.resting(quantity="0.0001"))

    assert isinstance(placed, PlacementRefused)
    assert placed.kind is RefusalKind.FINAL


async def test_card_07_a_price_off_the_grid_is_a_final_refusal(connector: Connector) -> None:
    order = structs.replace(connector.resting(), price="2000.001")

    placed = await connector.gateway.place(order)

    assert isinstance(placed, PlacementRefused)
    assert placed.kind is RefusalKind.FINAL


async def test_card_08_a_repeated_id_proves_that_the_first_order_landed(
    connector: Connector,
) -> None:
    order = connector.resting()
    await connector.gateway.place(order)

    again = await connector.gateway.place(structs.replace(order, price="2001.00"))

    assert isinstance(again, PlacementUnknown)
    assert "order of this id" in again.reason


async def test_card_09_a_cancel_ends_the_order_and_a_second_one_finds_nothing(
    connector: Connector,
) -> None:
    order = connector.resting()
    await connector.gateway.place(order)

    report = await connector.gateway.cancel(order)
    again = await connector.gateway.cancel(order)
    found = await connector.gateway.find_order(order)

    assert report is not None
    assert found is not None
    assert report.client_order_id == order.client_order_id
    assert report.status is found.status is VenueStatus.CANCELLED
    assert again is None


async def test_card_10_everything_open_is_cancelled_at_once(connector: Connector) -> None:
    orders = [connector.resting(price=price) for price in ("2000", "2001", "2002")]
    for order in orders:
        await connector.gateway.place(order)

    first = await connector.gateway.cancel_all(connector.grid.symbol)
    second = await connector.gateway.cancel_all(None)

    assert (first, second) == (3, 0)
    for order in orders:
        found = await connector.gateway.find_order(order)
        assert found is not None
        assert found.status is VenueStatus.CANCELLED


async def test_card_11_an_order_that_was_never_sent_is_not_found(connector: Connector) -> None:
    assert await connector.gateway.find_order(connector.order()) is None
    assert await connector.gateway.cancel(connector.order()) is None


async def test_card_12_the_list_holds_open_and_ended_orders(connector: Connector) -> None:
    began = connector.gateway.venue_time(CLOCK.now()) - timedelta(seconds=1)
    resting, ended = connector.resting(), connector.order(quantity="0.01")
    for order in (resting, ended):
        await connector.gateway.place(order)

    listed = await connector.gateway.list_orders(connector.grid.symbol, began)

    by_id = {report.client_order_id: report for report in listed}
    assert by_id[resting.client_order_id].status is VenueStatus.OPEN
    assert by_id[ended.client_order_id].executed_units == ended.base_units


async def test_card_13_a_list_of_many_pages_is_complete(connector: Connector) -> None:
    # The card before may have placed more at one moment than a page of two can go on from.
    await asyncio.sleep(0.1)
    began = connector.gateway.venue_time(CLOCK.now()) - timedelta(milliseconds=50)
    orders = [connector.order(quantity="0.01") for _ in range(5)]
    for order in orders:
        await connector.gateway.place(order)
        # Some pages go on by time: it must have moved within each page of two.
        await asyncio.sleep(0.002)
    sim = connector.sim
    paged = settings_for(connector.name, sim, orders_page_max=2)

    async with open_gateway(paged, CLOCK) as gateway:
        listed = await gateway.list_orders(connector.grid.symbol, began)

    assert {order.client_order_id for order in orders} <= {r.client_order_id for r in listed}


async def test_card_14_fills_come_page_by_page_oldest_first_and_none_is_left_out(
    connector: Connector,
) -> None:
    for _ in range(5):
        assert isinstance(await connector.gateway.place(connector.order(quantity="0.01")), Accepted)
    whole = await every_fill(connector)
    paged = settings_for(connector.name, connector.sim, fills_page_max=2)

    async with open_gateway(paged, CLOCK) as gateway:
        await gateway.instrument(connector.grid.symbol)
        found = await every_fill(replace(connector, gateway=gateway))

    assert len(whole) >= 5
    assert {fill.trade_id for fill in found} == {fill.trade_id for fill in whole}
    assert [f.executed_at for f in whole] == sorted(f.executed_at for f in whole)


async def test_card_15_reading_on_from_the_last_cursor_finds_what_is_new(
    connector: Connector,
) -> None:
    await connector.gateway.place(connector.order(quantity="0.01"))
    before = await connector.gateway.fills(connector.grid.symbol, "")
    while not before.is_last:
        before = await connector.gateway.fills(connector.grid.symbol, before.cursor)
    order = connector.order(quantity="0.02")
    placed = await connector.gateway.place(order)

    page = await connector.gateway.fills(connector.grid.symbol, before.cursor)

    assert isinstance(placed, Accepted)
    ours = [f for f in page.fills if f.venue_order_id == placed.report.venue_order_id]
    assert sum(fill.base_units for fill in ours) == order.base_units


async def test_card_16_the_fills_of_one_order_are_the_same_as_in_the_list(
    connector: Connector,
) -> None:
    order = connector.order(quantity="0.03")
    placed = await connector.gateway.place(order)
    assert isinstance(placed, Accepted)
    known = structs.replace(order, venue_order_id=placed.report.venue_order_id)

    fills = await connector.gateway.fills_of_order(known)
    listed = await every_fill(connector)

    assert sum(fill.base_units for fill in fills) == order.base_units
    assert set(fills) <= set(listed)
    assert all(fill.fee_units > 0 for fill in fills)
    scope = {f.trade_id for f in listed}
    assert len(scope) == len(set(listed))
    assert connector.record.trade_ids_unique_per in TradeIdScope


async def test_card_17_balances_are_exact_to_the_last_digit(connector: Connector) -> None:
    for text in ("1.00000001", "0.10000000", "123456789.12345678"):
        body = {"asset": "BTC", "free": text}
        await asyncio.to_thread(connector.sim.control, "POST", "balance", body)

        held = {b.asset: b for b in await connector.gateway.balances()}

        assert held["BTC"].free == ASSETS["BTC"].parse(text)
        assert held["BTC"].dust == 0


async def test_card_17_a_balance_of_an_unknown_asset_is_told_in_the_venues_words(
    connector: Connector,
) -> None:
    known = {"BTC": ASSETS["BTC"]}
    wanted = replace(settings_for(connector.name, connector.sim), assets=known)

    async with open_gateway(wanted, CLOCK) as gateway:
        unknown = {item.asset: Decimal(item.amount) for item in await gateway.unknown_balances()}
        stated = {item.asset for item in await gateway.balances()}
    everything = {item.asset: item for item in await connector.gateway.balances()}
    also = {item.asset for item in await connector.gateway.unknown_balances()}

    assert stated == {"BTC"}
    assert set(unknown) == (set(everything) - stated) | also
    assert set(everything) & also == set()
    quote = connector.grid.quote
    held = everything[quote.code]
    whole, dust = unknown[quote.code].scaleb(quote.scale), Decimal(held.dust)
    assert whole == held.total + dust.scaleb(-DUST_SCALE)


async def test_card_18_what_an_open_order_holds_is_locked(connector: Connector) -> None:
    quote = connector.grid.quote
    before = {b.asset: b for b in await connector.gateway.balances()}
    order = connector.resting()
    await connector.gateway.place(order)

    after = {b.asset: b for b in await connector.gateway.balances()}

    held = after[quote.code].locked - before[quote.code].locked
    assert quote.parse("200") <= held <= quote.parse("202")  # some venues hold the fee too
    assert after[quote.code].total == before[quote.code].total


UNKNOWN_AND_LANDED = [
    "hang_after_accept",
    "reset_after_accept",
    "status_503_after_accept",
    "html_502_after_accept",
    "html_504_after_accept",
    "timeout_1007_after_accept",
    "unexpected_1006_after_accept",
    "truncated_200",
]
HANG = timedelta(seconds=1)
UNKNOWN_AND_NOT_LANDED = ["hang_before_accept", "reset_before", "status_503", "html_504"]


async def placed_under(connector: Connector, fault: str, order: VenueOrder) -> Placement:
    """Place an order while *fault* is there; an answer that never comes is not waited for long."""
    path = placing_path(connector)
    if not fault.startswith("hang"):
        connector.sim.fault(fault, path, method="POST")
        return await connector.gateway.place(order)
    hasty = replace(settings_for(connector.name, connector.sim), order_timeout=HANG / 2)
    async with open_gateway(hasty, CLOCK) as gateway:
        await gateway.instrument(connector.grid.symbol)
        connector.sim.fault(fault, path, method="POST", seconds=HANG.total_seconds())
        return await gateway.place(order)


@pytest.mark.parametrize("fault", UNKNOWN_AND_LANDED)
async def test_card_19_an_order_that_landed_without_an_answer_is_unknown_and_then_found(
    connector: Connector, fault: str
) -> None:
    order = connector.resting()

    placed = await placed_under(connector, fault, order)
    found = await connector.gateway.find_order(order)

    assert isinstance(placed, PlacementUnknown)
    assert found is not None
    assert found.status is VenueStatus.OPEN
    assert await truly_placed(connector, order)


@pytest.mark.parametrize("fault", UNKNOWN_AND_NOT_LANDED)
async def test_card_20_an_order_that_did_not_land_is_unknown_and_then_not_found(
    connector: Connector, fault: str
) -> None:
    order = connector.resting()

    placed = await placed_under(connector, fault, order)
    found = await connector.gateway.find_order(order)

    assert isinstance(placed, PlacementUnknown)
    assert found is None


@pytest.mark.parametrize("fault", ["rate_limited_429", "banned_418"])
async def test_card_21_too_many_requests_are_a_refusal_to_back_off_from(
    connector: Connector, fault: str
) -> None:
    order = connector.resting()
    connector.sim.fault(fault, placing_path(connector), method="POST")

    placed = await connector.gateway.place(order)

    assert isinstance(placed, PlacementRefused)
    assert placed.kind is RefusalKind.BACK_OFF
    assert not await truly_placed(connector, order)


async def test_card_22_an_order_signed_for_a_time_gone_by_is_refused_for_the_clock(
    connector: Connector,
) -> None:
    if connector.record.expiry is Expiry.NONE:
        pytest.skip("requests never expire there")
    now = connector.order()
    assert now.signed_at is not None
    stale = structs.replace(now, signed_at=now.signed_at - timedelta(minutes=2))

    placed = await connector.gateway.place(stale)

    assert isinstance(placed, PlacementRefused)
    assert placed.kind is RefusalKind.CLOCK
    assert not await truly_placed(connector, stale)


async def test_card_23_the_difference_of_the_clocks_is_measured_and_kept(
    askew: Connector,
) -> None:
    await asyncio.to_thread(askew.sim.control, "POST", "clock", {"skew_ms": 30_000})
    await askew.gateway.synchronise()

    now = CLOCK.now()
    ahead = askew.gateway.venue_time(now) - now
    offset = askew.gateway.clock_offset

    assert offset is not None
    assert abs(ahead - timedelta(seconds=30)) <= offset.error + timedelta(milliseconds=1)
    assert isinstance(await askew.gateway.place(askew.order(quantity="0.01")), Accepted)
    assert await askew.gateway.balances()


async def test_card_24_what_the_trading_key_may_do_is_known_or_said_to_be_unknown(
    connector: Connector,
) -> None:
    permissions = await connector.gateway.permissions()

    if connector.record.tells_key_permissions:
        assert permissions.withdraw is not None
        assert permissions.trade
        assert permissions.read
    else:
        assert permissions.withdraw is None
        with pytest.raises(KeyRefused, match="does not tell"):
            await require_trading_key(connector.gateway)
        accepted = await require_trading_key(connector.gateway, accept_unknown=True)
        assert accepted == permissions


async def test_card_25_a_dead_man_switch_is_armed_and_disarmed_where_there_is_one(
    connector: Connector,
) -> None:
    assert await connector.gateway.arm_dead_man(timedelta(minutes=1)) is connector.record.dead_man
    assert await connector.gateway.arm_dead_man(timedelta(0)) is connector.record.dead_man


async def test_card_26_a_trade_in_an_unknown_asset_hides_none_of_its_neighbours(
    connector: Connector,
) -> None:
    await connector.gateway.place(connector.order(quantity="0.01"))
    fills = await every_fill(connector)
    if "BNB" not in {balance.asset for balance in await connector.gateway.balances()}:
        # Nothing is charged in a third asset there, so there is none to be unknown.
        traded = {connector.grid.base.code, connector.grid.quote.code}
        assert {fill.fee_asset for fill in fills} <= traded
        return
    fee_asset = fills[-1].fee_asset
    odd = settings_for(connector.name, connector.sim)
    without = {code: asset for code, asset in ASSETS.items() if code != "BNB"}
    body = {"maker_ppm": 1_000, "taker_ppm": 1_000, "asset": "BNB"}
    await asyncio.to_thread(connector.sim.control, "POST", "fees", body)
    await connector.gateway.place(connector.order(quantity="0.01"))
    await asyncio.to_thread(connector.sim.control, "POST", "fees", {**body, "asset": None})

    async with open_gateway(replace(odd, assets=without), CLOCK) as gateway:
        page = await gateway.fills(connector.grid.symbol, "")

    assert page.fills
    assert all(fill.fee_asset != "BNB" for fill in page.fills)
    assert fee_asset != "BNB"
    assert len(page.fills) + len(page.unread) > len(fills)


async def test_card_27_a_venue_that_does_not_answer_proves_nothing(connector: Connector) -> None:
    order = connector.order()
    connector.sim.fault("html_504", "/", count=100)

    for asking in (
        connector.gateway.find_order(order),
        connector.gateway.list_orders(connector.grid.symbol, CLOCK.now()),
        connector.gateway.fills(connector.grid.symbol, ""),
        connector.gateway.balances(),
        connector.gateway.cancel(order),
        connector.gateway.cancel_all(None),
        connector.gateway.server_time(),
    ):
        with pytest.raises(VenueUnavailable):
            await asking


async def test_card_29_orders_sent_at_once_are_all_taken(connector: Connector) -> None:
    """Also where every request of a key must carry a higher number than the one before it."""
    orders = [connector.resting(quantity="0.01") for _ in range(12)]

    async with asyncio.TaskGroup() as group:
        placing = [group.create_task(connector.gateway.place(order)) for order in orders]
        asking = [group.create_task(connector.gateway.balances()) for _ in range(4)]

    assert [type(task.result()) for task in placing] == [Accepted] * len(orders)
    assert all(task.result() for task in asking)
    assert await connector.gateway.cancel_all(connector.grid.symbol) == len(orders)


async def test_card_30_a_venue_that_wants_quiet_gets_it_until_the_time_it_named(
    connector: Connector,
) -> None:
    limited = replace(settings_for(connector.name, connector.sim), rate_limit=True)
    order = connector.resting()
    async with open_gateway(limited, CLOCK) as gateway:
        await gateway.instrument(connector.grid.symbol)
        assert isinstance(await gateway.place(connector.resting()), Accepted)
        connector.sim.fault("rate_limited_429", placing_path(connector), method="POST")
        refused = await gateway.place(order)
        hasty = structs.replace(connector.resting(), recv_window=timedelta(milliseconds=50))
        not_sent = await gateway.place(hasty)

    assert isinstance(refused, PlacementRefused)
    assert isinstance(not_sent, PlacementRefused)
    assert (refused.kind, not_sent.kind) == (RefusalKind.BACK_OFF, RefusalKind.BACK_OFF)
    assert not_sent.reason.startswith("not sent")
    assert not await truly_placed(connector, hasty)


async def test_card_31_a_key_that_can_withdraw_is_no_trading_key(connector: Connector) -> None:
    if not connector.record.tells_key_permissions:
        with pytest.raises(KeyRefused, match="does not tell"):
            await require_trading_key(connector.gateway)
        return
    ready = connector.sim.ready
    key = Credentials(api_key=ready["withdraw_api_key"], secret=Secret(ready["withdraw_secret"]))
    wanted = replace(settings_for(connector.name, connector.sim), credentials=key)

    async with open_gateway(wanted, CLOCK) as gateway:
        with pytest.raises(KeyRefused, match="can withdraw"):
            await require_trading_key(gateway, accept_unknown=True)
    assert (await require_trading_key(connector.gateway)).trade


async def test_card_32_an_order_signed_by_a_clock_that_went_wrong_is_not_sent(
    askew: Connector,
) -> None:
    due = replace(
        settings_for(askew.name, askew.sim),
        clock_policy=ClockPolicy(age_max=timedelta(milliseconds=1)),
    )
    async with open_gateway(due, CLOCK) as gateway:
        aged = replace(askew, gateway=gateway)
        await gateway.instrument(askew.grid.symbol)
        await asyncio.to_thread(askew.sim.control, "POST", "clock", {"skew_ms": -30_000})
        order = aged.resting()
        not_sent = await gateway.place(order)
        sent = await gateway.place(aged.resting())

    assert isinstance(not_sent, PlacementRefused)
    assert not_sent.kind is RefusalKind.CLOCK
    assert not_sent.reason.startswith("not sent")
    assert not await truly_placed(askew, order)
    assert isinstance(sent, Accepted)


async def test_card_33_a_cancel_refused_for_its_time_is_asked_for_again(
    askew: Connector,
) -> None:
    order = askew.resting()
    await askew.gateway.place(order)
    await asyncio.to_thread(askew.sim.control, "POST", "clock", {"skew_ms": 30_000})

    report = await askew.gateway.cancel(order)

    assert report is not None
    assert report.status is VenueStatus.CANCELLED


def test_card_28_our_order_ids_fit_every_record(connector: Connector) -> None:
    order = connector.order()

    assert connector.record.client_id(order.id).isascii()
    assert Asset("ETH", 18).parse(order.quantity) == order.base_units
