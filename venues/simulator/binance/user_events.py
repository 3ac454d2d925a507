"""What accounts hear of themselves, as the user data stream sends it. Pure."""

from venues.simulator.binance import reports, wire
from venues.simulator.commands import (
    BalancesChanged,
    FundsMoved,
    OrderListUpdated,
    OrderUpdated,
    VenueEvent,
)
from venues.simulator.model import Execution, PreventedMatch
from venues.simulator.state import VenueState


def frame_of(state: VenueState, event: VenueEvent, now_ms: int) -> tuple[str, wire.Json] | None:
    """The account an event is for and its frame, or None for an event nobody is told of."""
    match event:
        case OrderUpdated():
            spec = state.markets[event.order.symbol].spec
            prevented = _prevented(state, event)
            return event.order.account, reports.execution_report(spec, event, now_ms, prevented)
        case OrderListUpdated():
            listed = event.order_list
            orders = [state.order(listed.symbol, order_id) for order_id in listed.order_ids]
            known = [order for order in orders if order is not None]
            return listed.account, reports.list_frame(event, known, now_ms)
        case BalancesChanged():
            return event.account, wire.account_position(event, now_ms)
        case FundsMoved():
            return event.account, wire.balance_update(event, now_ms)
        case _:
            return None


def _prevented(state: VenueState, event: OrderUpdated) -> PreventedMatch | None:
    """The last match that self-trade prevention kept an order from, if it has just ended by it."""
    if event.execution is not Execution.TRADE_PREVENTION:
        return None
    order = event.order
    for match in reversed(state.prevented_matches_of(order.account)):
        ids = (match.taker_order_id, match.maker_order_id)
        if match.symbol == order.symbol and order.order_id in ids:
            return match
    return None
