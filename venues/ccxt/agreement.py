"""Whether what a venue says of an order can be said of ours: an answer about another proves nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from matching.model import Side
from venues.model import OrderReport, VenueOrder, VenueStatus


def disagreement(
    report: OrderReport, order: VenueOrder, symbol: object, spellings: Collection[object]
) -> str | None:
    """Return what of the report is not our order's; None: nothing that it states.

    Args:
        report: what the venue said when it was asked about *order*.
        order: ours.
        symbol: the market the answer names, as ccxt passes it on; None: it names none.
        spellings: names of the market that was asked about.
    """
    if report.client_order_id != order.client_order_id:
        return f"order {report.client_order_id}"
    if symbol is not None and symbol not in spellings:
        return f"market {symbol}"
    if order.venue_order_id not in {None, report.venue_order_id}:
        return None  # told as an alarm, under the order's lock: the venue shows it twice
    if report.side is not None and report.side is not order.side:
        return "a sale" if report.side is Side.SELL else "a purchase"
    if report.base_units is not None and report.base_units != order.base_units:
        return f"{report.base_units} units, not {order.base_units}"
    if report.price and order.price and _plain(report.price) != _plain(order.price):
        return f"a price of {report.price}, not {order.price}"
    if report.executed_units < 0:
        return f"{report.executed_units} units executed"
    if report.status is VenueStatus.FILLED and report.executed_units < order.base_units:
        return f"the whole order as filled, with {report.executed_units} units executed"
    return None


def spellings_of(market: Mapping[str, Any]) -> set[object]:
    """Return the names of one market of ccxt: its own, the venue's, and other names of the venue's."""
    raw = market.get("info")
    more = {raw.get("altname"), raw.get("wsname")} if isinstance(raw, Mapping) else set()
    return ({market["symbol"], market["id"]} | more) - {None}


def _plain(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
