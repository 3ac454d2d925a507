"""Private WebSocket v2 channels: what their frames hold.

An order is reported in steps: `pending_new` with all of its data, `new` when it is live, a `trade` for
every fill (which leaves the state at `partially_filled`), `filled` when nothing is left; or `canceled`,
`expired`, `amended`, `status`. Only the first step and trades name the symbol.
Source: docs.kraken.com, WebSocket v2: executions, balances.
"""

from typing import Any, Final

from venues.simulator.commands import OrderUpdated
from venues.simulator.connections import Json
from venues.simulator.kraken import numbers, order_rows
from venues.simulator.kraken.drafts import TRIGGERED, note_of
from venues.simulator.kraken.market_data import asset_decimals
from venues.simulator.kraken.names import Pair
from venues.simulator.kraken.numbers import raw, rfc3339
from venues.simulator.model import Execution, Fill, LedgerEntry, Order, OrderStatus, Reason
from venues.simulator.state import Account

# Steps that only a subscription to every state change gets.
DETAILS: Final = ("pending_new", "amended", "status")


def reports(pair: Pair, event: OrderUpdated) -> list[Json]:
    """The steps an order update is reported in, in order."""
    order, at_ms = event.order, event.at_ms
    match event.execution:
        case Execution.NEW:
            return [pending(pair, order, at_ms), step(pair, order, "new", "new", at_ms)]
        case Execution.TRADE:
            assert event.fill is not None
            traded = trade(pair, order, event.fill)
            if order.status is not OrderStatus.FILLED:
                return [traded]
            return [traded, ended(pair, order, "filled", at_ms)]
        case Execution.AMENDED:
            return [amended(pair, order, at_ms)]
        case Execution.TRIGGERED:
            return [triggered(pair, order, at_ms)]
        case _:
            name = "expired" if order.reason is Reason.EXPIRY else "canceled"
            return [ended(pair, order, name, at_ms)]


def pending(pair: Pair, order: Order, at_ms: int) -> Json:
    """A new order before it is live, with all of its data."""
    return whole(pair, order, "pending_new", "pending_new", at_ms)


def whole(pair: Pair, order: Order, execution: str, status: str, at_ms: int) -> Json:
    """An order with all of its data, as snapshots have it."""
    spec, note = pair.spec, note_of(order.note)
    row: Json = {
        **_ids(pair, order),
        "symbol": pair.symbol,
        "order_qty": raw(numbers.quantity(spec, order.quantity_lots)),
        "cum_qty": raw(numbers.quantity(spec, order.filled_lots)),
        "cum_cost": raw(numbers.scaled(order.filled_quote_units, 8)),
        "avg_price": raw(_average(pair, order)),
        "time_in_force": note.good_till,
        "exec_type": execution,
        "side": order.side.value,
        "order_type": note.type,
        "limit_price_type": "static",
        "order_status": status,
        "fee_usd_equiv": raw("0.00000000"),
        "fee_ccy_pref": "fcib" if "fcib" in note.flags else "fciq",
        "post_only": order.post_only,
        "reduce_only": False,
        "timestamp": rfc3339(at_ms),
    }
    if order.price_ticks is not None:
        row["limit_price"] = raw(numbers.price(spec, order.price_ticks))
    if order.type in TRIGGERED:
        row["triggers"] = triggers(pair, order)
        row["stop_price"] = raw(numbers.price(spec, order.stop_ticks or 0))
    if order.expire_ms is not None:
        row["expire_time"] = rfc3339(order.expire_ms)
    if order.display_lots:
        row["display_qty"] = raw(numbers.quantity(spec, order.display_lots))
    return row


def triggers(pair: Pair, order: Order) -> Json:
    """When a stop or take-profit order goes to the book, and whether it has."""
    ticks = order.stop_ticks or order.trigger_ticks or 0
    return {
        "reference": "last",
        "price": raw(numbers.price(pair.spec, ticks)),
        "price_type": "static",
        "actual_price": raw(numbers.price(pair.spec, ticks)),
        "status": "triggered" if order.triggered_ms else "untriggered",
    }


def step(pair: Pair, order: Order, execution: str, status: str, at_ms: int) -> Json:
    """A change of state alone."""
    return {
        "timestamp": rfc3339(at_ms),
        "order_status": status,
        "exec_type": execution,
        **_ids(pair, order),
    }


def trade(pair: Pair, order: Order, fill: Fill) -> Json:
    """One fill, with what the order has traded up to it."""
    spec, note = pair.spec, note_of(order.note)
    return {
        **_ids(pair, order),
        "exec_id": order_rows.trade_txid(pair, fill),
        "exec_type": "trade",
        "trade_id": fill.trade_id,
        "symbol": pair.symbol,
        "side": fill.side.value,
        "last_qty": raw(numbers.quantity(spec, fill.quantity_lots)),
        "last_price": raw(numbers.price(spec, fill.price_ticks)),
        "liquidity_ind": "m" if fill.is_maker else "t",
        "cost": raw(numbers.scaled(fill.quote_units, 8)),
        "order_type": note.type,
        "timestamp": rfc3339(fill.at_ms),
        "order_status": "partially_filled",
        "cum_qty": raw(numbers.quantity(spec, order.filled_lots)),
        "cum_cost": raw(numbers.scaled(order.filled_quote_units, 8)),
        "avg_price": raw(_average(pair, order)),
        "fee_usd_equiv": raw(numbers.scaled(order_rows.fee_in_quote(spec, fill), 8)),
        "fees": [{"asset": fill.fee_asset, "qty": raw(numbers.scaled(fill.fee_units, 8))}],
    }


def ended(pair: Pair, order: Order, name: str, at_ms: int) -> Json:
    """The last step of an order: filled, canceled or expired."""
    spec = pair.spec
    row = {
        **step(pair, order, name, name, at_ms),
        "cum_qty": raw(numbers.quantity(spec, order.filled_lots)),
        "cum_cost": raw(numbers.scaled(order.filled_quote_units, 8)),
        "avg_price": raw(_average(pair, order)),
    }
    reason = order_rows.REASONS[order.reason]
    if name == "canceled" and reason:
        row |= {"cancel_reason": reason, "reason": reason}
    return row


def amended(pair: Pair, order: Order, at_ms: int) -> Json:
    """An order that was changed, as it is now."""
    status = "partially_filled" if order.filled_lots else "new"
    return whole(pair, order, "amended", status, at_ms) | {
        "amended": True,
        "reason": "User requested",
    }


def triggered(pair: Pair, order: Order, at_ms: int) -> Json:
    """A stop or take-profit order whose price was reached."""
    return step(pair, order, "status", "new", at_ms) | {"triggers": triggers(pair, order)}


def open_order(pair: Pair, order: Order) -> Json:
    """An open order in a snapshot."""
    status = "partially_filled" if order.filled_lots else "new"
    return whole(pair, order, "status" if order.filled_lots else "new", status, order.updated_ms)


def balance_snapshot(account: Account) -> list[Json]:
    """What the account has of every asset, holds included."""
    wallet, rows = account.wallet, []
    for code in wallet.assets():
        units = wallet.free(code) + wallet.locked(code)
        total = raw(numbers.scaled(units, asset_decimals(code)))
        rows.append(
            {
                "asset": code,
                "asset_class": "currency",
                "balance": total,
                "wallets": [{"type": "spot", "id": "main", "balance": total}],
            }
        )
    return rows


def balance_update(entry: LedgerEntry, ledger_id: str, reference: str) -> Json:
    """A ledger entry as the balances channel tells it."""
    kind, decimals = order_rows.LEDGER_TYPES[entry.kind], asset_decimals(entry.asset)
    return {
        "ledger_id": ledger_id,
        "ref_id": reference,
        "timestamp": rfc3339(entry.at_ms),
        "type": kind,
        "subtype": "",
        "category": kind,
        "asset": entry.asset,
        "asset_class": "currency",
        "wallet_type": "spot",
        "wallet_id": "main",
        "amount": raw(numbers.scaled(entry.amount_units, decimals)),
        "fee": raw(numbers.scaled(entry.fee_units, decimals)),
        "balance": raw(numbers.scaled(entry.balance_units, decimals)),
    }


def _ids(pair: Pair, order: Order) -> dict[str, Any]:
    row: dict[str, Any] = {
        "order_id": order_rows.txid(pair, order),
        "order_userref": note_of(order.note).userref,
    }
    if order.client_order_id:
        row["cl_ord_id"] = order.client_order_id
    return row


def _average(pair: Pair, order: Order) -> str:
    decimals = max(order_rows.MONEY_DECIMALS, numbers.price_decimals(pair.spec))
    return numbers.average_price(pair.spec, order.filled_quote_units, order.filled_lots, decimals)
