"""Orders, trades and ledger entries as REST tells them.

Sources: docs.kraken.com, Get Open Orders; Get Closed Orders; Get Trades History; Get Ledgers Info.
"""

from typing import Any, Final

from matching.model import Side
from venues.simulator.decimals import UNIT
from venues.simulator.kraken import ids, numbers
from venues.simulator.kraken.drafts import Note, note_of
from venues.simulator.kraken.ids import Kind
from venues.simulator.kraken.market_data import asset_decimals
from venues.simulator.kraken.names import Directory, Pair, asset_id
from venues.simulator.model import (
    Fill,
    LedgerEntry,
    LedgerKind,
    Order,
    OrderStatus,
    OrderType,
    Reason,
    SymbolSpec,
)

MONEY_DECIMALS: Final = 5

STATUSES: Final = {
    OrderStatus.NEW: "open",
    OrderStatus.PENDING_NEW: "pending",
    OrderStatus.PARTIALLY_FILLED: "open",
    OrderStatus.FILLED: "closed",
    OrderStatus.CANCELED: "canceled",
    OrderStatus.EXPIRED: "expired",
    OrderStatus.EXPIRED_IN_MATCH: "canceled",
    OrderStatus.REJECTED: "canceled",
}

# Kraken tells only its own reasons; where its wording is not documented ours says what happened.
REASONS: Final = {
    Reason.NONE: None,
    Reason.REQUESTED: "User requested",
    Reason.DEAD_MAN: "Cancel all orders after",
    Reason.EXPIRY: None,
    Reason.NOT_FILLED_AT_ONCE: "Not filled at once",
    Reason.NOT_FILLABLE_WHOLE: "Not fillable whole",
    Reason.SELF_TRADE: "Self trade prevention",
    Reason.ORDER_LIST: "Order replaced",
    Reason.NO_FUNDS: "Insufficient funds",
    Reason.OPERATOR: "Market operations",
}

LEDGER_TYPES: Final = {
    LedgerKind.TRADE: "trade",
    LedgerKind.DEPOSIT: "deposit",
    LedgerKind.WITHDRAWAL: "withdrawal",
    LedgerKind.ADJUSTMENT: "adjustment",
}

_STOPS: Final = {
    "stop-loss": "stop loss",
    "stop-loss-limit": "stop loss",
    "take-profit": "take profit",
    "take-profit-limit": "take profit",
    "trailing-stop": "trailing stop",
    "trailing-stop-limit": "trailing stop",
}


def status(order: Order) -> str:
    """An order's state. What only time in force ended was cancelled; what a date ended expired."""
    ended_by_date = order.reason is Reason.EXPIRY
    if order.status is OrderStatus.EXPIRED and not ended_by_date:
        return "canceled"
    return STATUSES[order.status]


def txid(pair: Pair, order: Order) -> str:
    """An order's id."""
    return ids.encode(Kind.ORDER, order.order_id, pair.index)


def trade_txid(pair: Pair, fill: Fill) -> str:
    """The id of one side of a trade: each account has its own."""
    return ids.encode(Kind.TRADE, fill.trade_id, pair.index << 1 | fill.is_maker)


def limit_text(order: Order, spec: SymbolSpec) -> str:
    """The limit price with the pair's decimals; "0" without one."""
    note = note_of(order.note)
    if note.limit_offset and order.price_ticks is None:
        return note.limit_offset
    return "0" if order.price_ticks is None else numbers.price(spec, order.price_ticks)


def trigger_text(order: Order, spec: SymbolSpec) -> str:
    """The trigger price with the pair's decimals, or how far a trailing one follows."""
    note = note_of(order.note)
    if note.trail:
        return note.trail
    return "0" if order.trigger_ticks is None else numbers.price(spec, order.trigger_ticks)


def description(pair: Pair, order: Order) -> dict[str, Any]:
    """`descr` of an order."""
    note, spec = note_of(order.note), pair.spec
    limit, trigger = limit_text(order, spec), trigger_text(order, spec)
    is_stop = note.type in _STOPS
    return {
        "pair": pair.altname,
        "aclass": "forex",
        "type": order.side.value,
        "ordertype": note.type if order.note else _plain_type(order),
        "price": trigger if is_stop else limit,
        "price2": limit if is_stop else "0",
        "leverage": "none",
        "order": sentence(pair, note, order.side, order.quantity_lots, limit, trigger),
        "close": "",
    }


def sentence(pair: Pair, note: Note, side: Side, lots: int, limit: str, trigger: str) -> str:
    """An order in words: `buy 1.25000000 XBTUSD @ limit 27500.0`."""
    volume = numbers.scaled(lots * pair.spec.lot_units, 8)
    if note.type == "market":
        how = "market"
    elif note.type in _STOPS:
        how = f"{_STOPS[note.type]} {trigger}"
        if note.type.endswith("-limit"):
            how += f" -> limit {limit}"
    else:
        how = f"limit {limit}"
    return f"{side.value} {volume} {pair.altname} @ {how}"


def order_row(pair: Pair, order: Order, fills: list[Fill], *, with_trades: bool) -> dict[str, Any]:
    """An order as OpenOrders, ClosedOrders and QueryOrders tell it."""
    note, spec = note_of(order.note), pair.spec
    average = numbers.average_price(
        spec, order.filled_quote_units, order.filled_lots, max(MONEY_DECIMALS, _decimals(spec))
    )
    row: dict[str, Any] = {
        "refid": None,
        "userref": note.userref,
        "status": status(order),
        "opentm": numbers.seconds(order.created_ms),
        "starttm": 0,
        "expiretm": numbers.seconds(order.expire_ms) if order.expire_ms else 0,
        "descr": description(pair, order),
        "vol": numbers.scaled(order.quantity_lots * spec.lot_units, 8),
        "vol_exec": numbers.scaled(order.filled_lots * spec.lot_units, 8),
        "cost": numbers.scaled(order.filled_quote_units, 8),
        "fee": numbers.scaled(sum(fee_in_quote(spec, fill) for fill in fills), 8),
        "price": average,
        "stopprice": numbers.rest_price(spec, order.stop_ticks or 0),
        "limitprice": numbers.rest_price(spec, _triggered_limit(order)),
        "misc": "stopped" if order.triggered_ms else "",
        "oflags": ",".join(note.flags),
        "reason": None,
    }
    if order.client_order_id:
        row["cl_ord_id"] = order.client_order_id
    if with_trades:
        row["trades"] = [trade_txid(pair, fill) for fill in fills]
    if not order.status.is_open:
        row["reason"] = REASONS[order.reason]
        row["closetm"] = numbers.seconds(order.updated_ms)
    return row


def fee_in_quote(spec: SymbolSpec, fill: Fill) -> int:
    """A fill's fee in quote units: REST tells fees so. One in a third asset shows in the ledger only."""
    if fill.fee_asset == spec.quote:
        return fill.fee_units
    if fill.fee_asset == spec.base:
        return fill.fee_units * fill.price_ticks * spec.tick_units // UNIT
    return 0


def trade_row(pair: Pair, fill: Fill, order: Order) -> dict[str, Any]:
    """A trade as TradesHistory and QueryTrades tell it."""
    spec = pair.spec
    note = note_of(order.note)
    return {
        "ordertxid": txid(pair, order),
        "postxid": trade_txid(pair, fill),
        "pair": pair.id,
        "aclass": "forex",
        "time": numbers.seconds(fill.at_ms),
        "type": fill.side.value,
        "ordertype": note.type if order.note else _plain_type(order),
        "price": numbers.rest_price(spec, fill.price_ticks),
        "cost": numbers.scaled(fill.quote_units, 8),
        "fee": numbers.scaled(fee_in_quote(spec, fill), 8),
        "vol": numbers.scaled(fill.quantity_lots * spec.lot_units, 8),
        "margin": "0.00000",
        "leverage": "0",
        "misc": "",
        "trade_id": fill.trade_id,
        "maker": fill.is_maker,
    }


def ledger_id(account_index: int, entry: LedgerEntry) -> str:
    """The id of a ledger entry."""
    return ids.encode(Kind.LEDGER, entry.number, account_index)


def ledger_reference(directory: Directory, entry: LedgerEntry, fills: dict[int, Fill]) -> str:
    """What a ledger entry is about: the id of a trade, a deposit or a withdrawal."""
    if entry.kind is not LedgerKind.TRADE:
        return funds_reference(entry.kind, entry.reference)
    pair = directory.of_market(entry.symbol)
    fill = fills.get(int(entry.reference))
    is_maker = fill is not None and fill.is_maker
    return ids.encode(Kind.TRADE, int(entry.reference), pair.index << 1 | is_maker)


def funds_reference(kind: LedgerKind, core_id: str) -> str:
    """The reference id of a deposit or a withdrawal: the core's own id behind a letter."""
    letter = "A" if kind is LedgerKind.WITHDRAWAL else "Q"
    text = core_id.upper()
    return f"{letter}{text[:6]}-{text[6:12]}-{text[12:18]}"


def ledger_row(entry: LedgerEntry, reference: str) -> dict[str, Any]:
    """A ledger entry as Ledgers and QueryLedgers tell it."""
    decimals = asset_decimals(entry.asset)
    return {
        "refid": reference,
        "time": numbers.seconds(entry.at_ms),
        "type": LEDGER_TYPES[entry.kind],
        "subtype": "",
        "aclass": "currency",
        "asset": asset_id(entry.asset),
        "amount": numbers.scaled(entry.amount_units, decimals),
        "fee": numbers.scaled(entry.fee_units, decimals),
        "balance": numbers.scaled(entry.balance_units, decimals),
    }


def added_row(pair: Pair, order: Order) -> dict[str, Any]:
    """What AddOrder says of a new order, or of one that was only checked."""
    note, spec = note_of(order.note), pair.spec
    limit, trigger = limit_text(order, spec), trigger_text(order, spec)
    return {"order": sentence(pair, note, order.side, order.quantity_lots, limit, trigger)}


def _plain_type(order: Order) -> str:
    return "market" if order.type is OrderType.MARKET else "limit"


def _triggered_limit(order: Order) -> int:
    return (order.price_ticks or 0) if order.triggered_ms else 0


def _decimals(spec: SymbolSpec) -> int:
    return numbers.price_decimals(spec)
