"""The scripted venue is held to the cards of connectors: a fake that is kinder than they are proves nothing.

The numbers are those of `tests.conformance.connectors.test_cards`; what the fake has no notion of (money,
grids, faults of the wire) is not asked of it.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec import structs

from matching.model import Side, TimeInForce
from venues.model import (
    Accepted,
    OrderKind,
    OrderState,
    OrderTicket,
    PlacementRefused,
    PlacementUnknown,
    RefusalKind,
    VenueOrder,
    VenueStatus,
)
from venues.testing import GRID, Conduct, ScriptedVenue

LOTS = 100
WINDOW = timedelta(seconds=3)
RESTS = Conduct(trades=())


def order_at(venue: ScriptedVenue, intent: str, *, resting: bool = False) -> VenueOrder:
    """Return an order that is about to be sent."""
    wanted = OrderTicket(
        venue=venue.venue,
        account=venue.account,
        symbol=GRID.symbol,
        instrument_version=1,
        kind=OrderKind.LIMIT,
        side=Side.BUY,
        base_units=LOTS * GRID.lot,
        quantity=GRID.quantity_text(LOTS),
        price="3000.00",
        time_in_force=TimeInForce.GTC if resting else TimeInForce.IOC,
        reference="card",
        intent=intent,
    )
    now = venue.now()
    return VenueOrder(
        **{name: getattr(wanted, name) for name in OrderTicket.__slots__},
        id=wanted.order_id(now),
        client_order_id=venue.capabilities.client_id(wanted.named()),
        venue_order_id=None,
        state=OrderState.SUBMITTING,
        state_reason="",
        signed_at=venue.venue_time(now),
        recv_window=WINDOW,
        executed_units=0,
        created_at=now,
        updated_at=now,
        fence=0,
    )


def scripted() -> ScriptedVenue:
    """A venue at which what is good till cancelled rests, and all else trades at once."""
    return ScriptedVenue(
        conduct=lambda order: RESTS if order.time_in_force is TimeInForce.GTC else Conduct()
    )


@pytest.mark.parametrize("resting", [True, False])
async def test_card_02_an_order_is_placed_and_known_by_our_id(resting: bool) -> None:  # noqa: FBT001  a row of the table
    venue = scripted()
    order = order_at(venue, "one", resting=resting)

    placed = await venue.place(order)
    found = await venue.find_order(order)

    assert isinstance(placed, Accepted)
    assert found is not None
    assert placed.report.client_order_id == found.client_order_id == order.client_order_id
    assert placed.report.venue_order_id == found.venue_order_id
    assert found.status is (VenueStatus.OPEN if resting else VenueStatus.FILLED)
    assert found.executed_units == (0 if resting else order.base_units)


async def test_card_08_a_repeated_id_proves_that_the_first_order_landed() -> None:
    venue = scripted()
    order = order_at(venue, "one", resting=True)
    await venue.place(order)

    again = await venue.place(order)

    assert isinstance(again, PlacementUnknown)
    assert "order of this id" in again.reason
    assert len(venue.orders) == 1


async def test_an_id_of_an_ended_order_places_another_one_as_at_real_venues() -> None:
    venue = scripted()
    order = order_at(venue, "one")
    await venue.place(order)

    again = await venue.place(order)

    assert isinstance(again, Accepted)
    assert len(venue.orders) == 2


async def test_card_09_a_cancel_ends_the_order_and_a_second_one_finds_nothing() -> None:
    venue = scripted()
    order = order_at(venue, "one", resting=True)
    await venue.place(order)

    report = await venue.cancel(order)
    again = await venue.cancel(order)
    found = await venue.find_order(order)

    assert report is not None
    assert found is not None
    assert report.status is found.status is VenueStatus.CANCELLED
    assert again is None


async def test_card_10_everything_open_is_cancelled_at_once() -> None:
    venue = scripted()
    for number in range(3):
        await venue.place(order_at(venue, f"want-{number}", resting=True))

    assert (await venue.cancel_all(GRID.symbol), await venue.cancel_all(None)) == (3, 0)


async def test_card_11_an_order_that_was_never_sent_is_not_found() -> None:
    venue = scripted()

    assert await venue.find_order(order_at(venue, "one")) is None
    assert await venue.cancel(order_at(venue, "one")) is None


async def test_card_12_the_list_holds_open_and_ended_orders() -> None:
    venue = scripted()
    resting, ended = order_at(venue, "rests", resting=True), order_at(venue, "ends")
    for order in (resting, ended):
        await venue.place(order)

    listed = await venue.list_orders(GRID.symbol, venue.venue_time(venue.now()) - WINDOW)

    by_id = {report.client_order_id: report for report in listed}
    assert by_id[resting.client_order_id].status is VenueStatus.OPEN
    assert by_id[ended.client_order_id].executed_units == ended.base_units


async def test_card_14_fills_come_page_by_page_oldest_first_and_none_is_left_out() -> None:
    venue = scripted()
    for number in range(8):
        await venue.place(order_at(venue, f"want-{number}"))
    found: list[str] = []
    cursor, is_last = "", False

    while not is_last:
        page = await venue.fills(GRID.symbol, cursor)
        found += [fill.trade_id for fill in page.fills]
        cursor, is_last = page.cursor, page.is_last

    assert list(dict.fromkeys(found)) == [trade.trade_id for trade in venue.trades]


async def test_a_request_that_comes_too_late_is_refused() -> None:
    venue = scripted()
    order = order_at(venue, "one")
    assert order.signed_at is not None

    placed = await venue.place(structs.replace(order, signed_at=order.signed_at - 2 * WINDOW))

    assert isinstance(placed, PlacementRefused)
    assert placed.kind is RefusalKind.CLOCK
    assert venue.orders == []
