"""A venue goes silent: an order nobody answers for, exposure as a range, evidence, one fill."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any, Final

from rich.table import Table

from app.demo.deposits import ACME
from app.demo.desk import (
    ACCOUNT,
    BOOK_AGE_MAX,
    DESK,
    SYMBOL,
    VENUE,
    deal_request,
    describe_deal,
    live_mid,
    lose_the_answer,
    open_hedging,
)
from app.demo.guided.chapter import Chapter
from app.demo.guided.tour import Tour
from app.demo.stage import BOOK
from kernel.errors import OutsideUnavailable
from trading.board import BoardRow, board
from trading.deals import book_deal
from trading.hedges.hedger import hedge_once, hedge_until_done
from trading.hedges.model import HedgePolicy
from trading.model import DealSide
from venues.explain import explain_order
from venues.lifecycle import ResolvePolicy
from venues.model import OrderState, VenueOrder
from venues.orders import list_orders
from venues.simulator.testing import control

SOLD: Final = "6 ETH"
ORDERS: Final = "/api/v3/order"
QUERIES: Final = {ORDERS: 0, "/api/v3/openOrders": 0, "/api/v3/allOrders": 0, "/api/v3/myTrades": 1}
"""What the venue does not answer while it is silent, after how many answers: trades are read once
before an order is planned."""
FAULTS_MAX: Final = 1_000
QUICK: Final = ResolvePolicy(
    pause=timedelta(milliseconds=50), looks_max=2, patience=timedelta(seconds=2)
)
"""A viewer does not wait as long as a desk would: what is not found now is looked for again later."""


async def a_venue_goes_silent(tour: Tour) -> None:
    """Lose the answer to an order, silence every query, look at the exposure, and let the venue back."""
    stage = tour.stage
    mid = await live_mid(stage, tour.room)
    tour.say(
        f"The desk sells acme {SOLD} and must buy them at the venue. The order is sent; the connection",
        "dies before the answer, and then the venue answers no question at all. Was it bought? Ordering",
        "again may buy twice. Not ordering may leave the desk short.",
    )
    request = deal_request(stage, "guided-1", ACME, DealSide.DESK_SELLS, SOLD, mid)
    deal = await stage.do(partial(book_deal, request=request, book=BOOK, now=stage.clock.now()))
    stage.note(describe_deal(stage, deal), f"deal {deal.id}")
    hedger = await open_hedging(
        stage, tour.room, HedgePolicy(book_age_max=BOOK_AGE_MAX, resolve=QUICK)
    )
    await lose_the_answer(stage)
    for path, answered in QUERIES.items():
        fault = {"kind": "status_503", "path": path, "method": "GET", "count": FAULTS_MAX}
        await _tell_venue(tour, "POST", {**fault, "skip": answered})
    first = await hedge_once(hedger, DESK, "ETH")
    found = await _orders(tour)
    if len(found) != 1:
        raise OutsideUnavailable(f"the hedge placed no order: {first.verdict}: {first.detail}")
    order = found[0]
    stage.note(
        f"an order for {stage.money(order.base_units, 'ETH')} is sent, and no answer comes",
        f"order {order.client_order_id}: {order.state}",
    )
    unknown = await _row(tour)
    tour.exhibit("what the desk knows of its position", _range(tour, unknown))
    tour.say(
        "Neither “bought” nor “not bought” is written down, because neither is known. The position is",
        "a range, every limit counts its worse end, and the table below shows what only the venue knows.",
    )
    await tour.show_places()

    second = await hedge_once(hedger, DESK, "ETH")
    still = await _orders(tour)
    stage.note("another pass orders nothing: what is unknown may be enough", f"{second.verdict}")

    await _tell_venue(tour, "DELETE")
    stage.note("the venue answers again")
    await hedge_until_done(hedger, DESK, "ETH")
    story = await stage.do(partial(explain_order, order_id=order.id))
    stage.note(f"the order is asked for by its own id: {' → '.join(story.states)}")
    known = await _row(tour)
    tour.exhibit("the position is a number again", _range(tour, known))
    bought = await _bought_at_venue(tour, order)
    needed = stage.units(SOLD)
    tour.prove(
        "while nobody knew, exposure was a range that contained the truth",
        (order.state, unknown.low, unknown.high)
        == (OrderState.UNKNOWN, -needed, -needed + order.base_units),
        f"from {stage.money(unknown.low, 'ETH')} to {stage.money(unknown.high, 'ETH')}",
    )
    tour.prove(
        "nothing was ordered a second time while the first was unknown",
        (len(first.orders), len(second.orders), len(still)) == (1, 0, 1),
        "1 order after two passes",
    )
    tour.prove(
        "found by evidence, filled once",
        OrderState.UNKNOWN in story.states
        and story.order.state is OrderState.FILLED
        and sum(fill.base_units for fill in story.fills) == bought == needed,
        f"the venue says {stage.money(bought, 'ETH')}, the books posted {len(story.fills)} fill",
    )
    await tour.prove_places()


async def _tell_venue(tour: Tour, method: str, fault: dict[str, Any] | None = None) -> Any:
    url = str(tour.stage.world.venue["url"])
    return await asyncio.to_thread(control, url, method, "faults", fault)


async def _orders(tour: Tour) -> list[VenueOrder]:
    return await tour.stage.do(partial(list_orders, venue=VENUE, account=ACCOUNT))


async def _row(tour: Tour) -> BoardRow:
    now = tour.stage.clock.now()
    shown = await tour.stage.do(partial(board, book=BOOK, desk=DESK, now=now))
    return next(row for row in shown.rows if row.asset == "ETH")


async def _bought_at_venue(tour: Tour, order: VenueOrder) -> int:
    """Return how much of an order was executed by the venue's own truth."""
    url = str(tour.stage.world.venue["url"])
    state = await asyncio.to_thread(control, url, "GET", "state")
    return sum(
        tour.stage.assets["ETH"].parse(str(item["qty"]))
        for item in state["accounts"][ACCOUNT]["fills"]
        if item["symbol"] == SYMBOL and item["clientOrderId"] == order.client_order_id
    )


def _range(tour: Tour, row: BoardRow) -> Table:
    money = tour.stage.money
    table = Table.grid(padding=(0, 3))
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_row("in the books", money(row.position, "ETH"))
    table.add_row("at worst", money(row.low, "ETH"))
    table.add_row("at best", money(row.high, "ETH"))
    table.add_row("to be ordered", money(row.need, "ETH"))
    return table


CHAPTER: Final = Chapter(
    "venue",
    "A venue goes silent",
    "What does the desk own while nobody can say whether its order was filled?",
    a_venue_goes_silent,
)
