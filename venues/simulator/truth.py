"""The venue's true state as JSON values, in no dialect: what software under test is compared with.

Amounts are decimal texts. Unlike what a dialect answers to clients, nothing is ever withheld here.
"""

from typing import Any

import msgspec

from matching.model import Level, Side
from venues.simulator.core import VenueCore
from venues.simulator.decimals import text_from_units
from venues.simulator.funding import withdrawal_as_of
from venues.simulator.market import Market
from venues.simulator.model import Deposit, Fill, Order, SymbolSpec, Withdrawal
from venues.simulator.state import VenueState

Json = dict[str, Any]


def true_state(core: VenueCore) -> Json:
    """Everything the venue holds of its accounts, and the top of each book."""
    state, now_ms = core.state, core.now_ms()
    return {
        "at_ms": now_ms,
        "dialect": state.genesis.dialect,
        "step": state.step,
        "replayed": core.replayed,
        "replayed_rows": state.replayed_rows,
        "accounts": {name: _account(state, name, now_ms) for name in state.accounts},
        "symbols": {name: _market(market) for name, market in state.markets.items()},
    }


def price_text(spec: SymbolSpec, price_ticks: int | None) -> str:
    """A price in ticks as decimal text; none is 0."""
    return text_from_units((price_ticks or 0) * spec.tick_units)


def quantity_text(spec: SymbolSpec, quantity_lots: int) -> str:
    """A quantity in lots as decimal text."""
    return text_from_units(quantity_lots * spec.lot_units)


def _account(state: VenueState, name: str, now_ms: int) -> Json:
    account = state.accounts[name]
    specs = {market: state.markets[market].spec for market in state.markets}
    withdrawals = [withdrawal_as_of(state, w, now_ms) for w in account.withdrawals.values()]
    return {
        "balances": {
            asset: {
                "free": text_from_units(account.wallet.free(asset)),
                "locked": text_from_units(account.wallet.locked(asset)),
            }
            for asset in account.wallet.assets()
        },
        "orders": [_order(specs[o.symbol], o) for o in state.all_orders_of(name)],
        "order_lists": [msgspec.to_builtins(row) for row in account.order_lists.values()],
        "fills": [_fill(specs[f.symbol], f) for f in account.fills],
        "withdrawals": [_withdrawal(row) for row in withdrawals],
        "deposits": [_deposit(row) for row in account.deposits],
        "ledger_entries": len(account.ledger),
        "dead_man_ms": account.dead_man_ms,
        "fees": msgspec.to_builtins(account.fees),
    }


def _order(spec: SymbolSpec, order: Order) -> Json:
    return {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": order.order_list_id,
        "clientOrderId": order.client_order_id,
        "price": price_text(spec, order.price_ticks),
        "stopPrice": price_text(spec, order.stop_ticks),
        "origQty": quantity_text(spec, order.quantity_lots),
        "executedQty": quantity_text(spec, order.filled_lots),
        "preventedQty": quantity_text(spec, order.prevented_lots),
        "cummulativeQuoteQty": text_from_units(order.filled_quote_units),
        "status": order.status.name,
        "reason": order.reason.name,
        "timeInForce": order.time_in_force.name,
        "type": order.type.name,
        "postOnly": order.post_only,
        "side": order.side.name,
        "time": order.created_ms,
        "updateTime": order.updated_ms,
        "isWorking": order.is_working,
    }


def _fill(spec: SymbolSpec, fill: Fill) -> Json:
    return {
        "symbol": fill.symbol,
        "id": fill.trade_id,
        "orderId": fill.order_id,
        "clientOrderId": fill.client_order_id,
        "price": price_text(spec, fill.price_ticks),
        "qty": quantity_text(spec, fill.quantity_lots),
        "quoteQty": text_from_units(fill.quote_units),
        "commission": text_from_units(fill.fee_units),
        "commissionAsset": fill.fee_asset,
        "time": fill.at_ms,
        "isBuyer": fill.side is Side.BUY,
        "isMaker": fill.is_maker,
    }


def _withdrawal(row: Withdrawal) -> Json:
    return {
        "id": row.id,
        "amount": text_from_units(row.amount_units),
        "transactionFee": text_from_units(row.fee_units),
        "coin": row.asset,
        "network": row.network,
        "address": row.address,
        "addressTag": row.tag,
        "withdrawOrderId": row.client_id,
        "status": row.status.name,
        "txId": row.tx_id,
        "time": row.at_ms,
        "settledTime": row.settled_ms,
    }


def _deposit(row: Deposit) -> Json:
    return {
        "id": row.id,
        "amount": text_from_units(row.amount_units),
        "coin": row.asset,
        "network": row.network,
        "address": row.address,
        "txId": row.tx_id,
        "insertTime": row.at_ms,
        "isPending": row.is_pending,
    }


def _market(market: Market) -> Json:
    return {
        "mid": price_text(market.spec, market.mid_ticks),
        "update_id": market.update_id,
        "next_order_id": market.next_order_id,
        "next_trade_id": market.next_trade_id,
        "bids": _levels(market.spec, market.depth(Side.BUY, 5)),
        "asks": _levels(market.spec, market.depth(Side.SELL, 5)),
    }


def _levels(spec: SymbolSpec, levels: tuple[Level, ...]) -> list[list[str]]:
    return [
        [price_text(spec, level.price_ticks), quantity_text(spec, level.quantity_lots)]
        for level in levels
    ]
