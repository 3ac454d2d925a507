"""From the venue's records to the JSON values of the dialect. Pure.

Amounts become decimal texts; keys and their order follow binance-spot-api-docs (rest-api.md,
user-data-stream.md, web-socket-streams.md) and the wallet API's documentation.
"""

from datetime import UTC, datetime
from typing import Any

from matching.model import Level, Side
from venues.simulator.commands import BalancesChanged, FundsMoved, OrderUpdated
from venues.simulator.decimals import text_from_units
from venues.simulator.model import (
    AssetSpec,
    Deposit,
    Fill,
    Order,
    OrderType,
    PublicTrade,
    SymbolSpec,
    Withdrawal,
    WithdrawalStatus,
)
from venues.simulator.state import Account

Json = dict[str, Any]


def price_text(spec: SymbolSpec, price_ticks: int) -> str:
    """A price in ticks as decimal text."""
    return text_from_units(price_ticks * spec.tick_units)


def quantity_text(spec: SymbolSpec, quantity_lots: int) -> str:
    """A quantity in lots as decimal text."""
    return text_from_units(quantity_lots * spec.lot_units)


def level_texts(spec: SymbolSpec, levels: tuple[Level, ...]) -> list[list[str]]:
    """Levels as `[price, quantity]` pairs."""
    return [
        [price_text(spec, level.price_ticks), quantity_text(spec, level.quantity_lots)]
        for level in levels
    ]


def symbol_info(spec: SymbolSpec) -> Json:
    """One entry of exchangeInfo's `symbols`."""
    lot = text_from_units(spec.lot_units)
    lot_filter = {"minQty": lot, "maxQty": quantity_text(spec, spec.max_lots), "stepSize": lot}
    price_filter = {
        "minPrice": text_from_units(spec.tick_units),
        "maxPrice": text_from_units(spec.tick_units * 10**12),
        "tickSize": text_from_units(spec.tick_units),
    }
    notional = text_from_units(spec.min_notional_units)
    return {
        "symbol": spec.name,
        "status": "TRADING",
        "baseAsset": spec.base,
        "baseAssetPrecision": 8,
        "quoteAsset": spec.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": [kind.value for kind in OrderType],
        "icebergAllowed": False,
        "ocoAllowed": False,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {"filterType": "PRICE_FILTER", **price_filter},
            {"filterType": "LOT_SIZE", **lot_filter},
            {"filterType": "MARKET_LOT_SIZE", **lot_filter},
            {"filterType": "NOTIONAL", "minNotional": notional, "applyMinToMarket": True},
        ],
        "permissions": ["SPOT"],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }


def coin_info(asset: AssetSpec, account: Account, withdrawing_units: int) -> Json:
    """One entry of capital/config/getall."""
    networks = [
        {
            "network": network.name,
            "coin": asset.name,
            "name": network.name,
            "isDefault": position == 0,
            "depositEnable": True,
            "withdrawEnable": True,
            "withdrawFee": text_from_units(network.withdraw_fee_units),
            "withdrawMin": text_from_units(network.withdraw_min_units),
            "withdrawMax": text_from_units(10**17),
            "withdrawIntegerMultiple": text_from_units(1),
            "depositDust": text_from_units(1),
            "minConfirm": 12,
            "unLockConfirm": 12,
            "sameAddress": False,
            "contractAddress": "",
            "contractAddressUrl": "",
        }
        for position, network in enumerate(asset.networks)
    ]
    return {
        "coin": asset.name,
        "name": asset.name,
        "depositAllEnable": True,
        "withdrawAllEnable": True,
        "free": text_from_units(account.wallet.free(asset.name)),
        "locked": text_from_units(account.wallet.locked(asset.name)),
        "freeze": "0",
        "withdrawing": text_from_units(withdrawing_units),
        "ipoing": "0",
        "ipoable": "0",
        "storage": "0",
        "isLegalMoney": False,
        "trading": True,
        "networkList": networks,
    }


def order_row(spec: SymbolSpec, order: Order) -> Json:
    """An order as GET order, openOrders and allOrders show it."""
    return {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": -1,
        "clientOrderId": order.client_order_id,
        "price": price_text(spec, order.price_ticks or 0),
        "origQty": quantity_text(spec, order.quantity_lots),
        "executedQty": quantity_text(spec, order.filled_lots),
        "cummulativeQuoteQty": text_from_units(order.filled_quote_units),
        "status": order.status.value,
        "timeInForce": order.time_in_force.name,
        "type": order.type.value,
        "side": order.side.name,
        "stopPrice": "0.00000000",
        "icebergQty": "0.00000000",
        "time": order.created_ms,
        "updateTime": order.updated_ms,
        "isWorking": True,
        "workingTime": order.created_ms,
        "origQuoteOrderQty": text_from_units(order.quote_quantity_units),
        "selfTradePreventionMode": order.self_trade_prevention,
    }


def order_answer(spec: SymbolSpec, order: Order, fills: list[Fill], shape: str) -> Json:
    """The answer to a new order in the shape `ACK`, `RESULT` or `FULL`."""
    row = order_row(spec, order)
    answer = {key: row[key] for key in ("symbol", "orderId", "orderListId", "clientOrderId")}
    answer["transactTime"] = order.created_ms
    if shape == "ACK":
        return answer
    dropped = {"stopPrice", "icebergQty", "time", "updateTime", "isWorking"}
    answer |= {key: value for key, value in row.items() if key not in dropped}
    if shape == "FULL":
        answer["fills"] = [
            {
                "price": price_text(spec, fill.price_ticks),
                "qty": quantity_text(spec, fill.quantity_lots),
                "commission": text_from_units(fill.fee_units),
                "commissionAsset": fill.fee_asset,
                "tradeId": fill.trade_id,
            }
            for fill in fills
        ]
    return answer


def cancel_answer(spec: SymbolSpec, order: Order, cancel_client_id: str) -> Json:
    """The answer to a cancel: the order under its old client id, the cancel under its own."""
    answer = order_answer(spec, order, [], "RESULT")
    answer["origClientOrderId"] = order.client_order_id
    answer["clientOrderId"] = cancel_client_id
    answer["transactTime"] = order.updated_ms
    return answer


def fill_row(spec: SymbolSpec, fill: Fill) -> Json:
    """A fill as myTrades shows it."""
    return {
        "symbol": fill.symbol,
        "id": fill.trade_id,
        "orderId": fill.order_id,
        "orderListId": -1,
        "price": price_text(spec, fill.price_ticks),
        "qty": quantity_text(spec, fill.quantity_lots),
        "quoteQty": text_from_units(fill.quote_units),
        "commission": text_from_units(fill.fee_units),
        "commissionAsset": fill.fee_asset,
        "time": fill.at_ms,
        "isBuyer": fill.side is Side.BUY,
        "isMaker": fill.is_maker,
        "isBestMatch": True,
    }


def trade_row(spec: SymbolSpec, trade: PublicTrade) -> Json:
    """A public trade as GET trades shows it."""
    return {
        "id": trade.trade_id,
        "price": price_text(spec, trade.price_ticks),
        "qty": quantity_text(spec, trade.quantity_lots),
        "quoteQty": text_from_units(spec.notional_units(trade.price_ticks, trade.quantity_lots)),
        "time": trade.at_ms,
        "isBuyerMaker": trade.buyer_is_maker,
        "isBestMatch": True,
    }


def trade_frame(spec: SymbolSpec, trade: PublicTrade, now_ms: int) -> Json:
    """A public trade as the trade stream sends it."""
    return {
        "e": "trade",
        "E": now_ms,
        "s": trade.symbol,
        "t": trade.trade_id,
        "p": price_text(spec, trade.price_ticks),
        "q": quantity_text(spec, trade.quantity_lots),
        "T": trade.at_ms,
        "m": trade.buyer_is_maker,
        "M": True,
    }


def withdrawal_row(withdrawal: Withdrawal) -> Json:
    """A withdrawal as withdraw/history shows it; `amount` is what arrives, the fee comes on top."""
    row = {
        "id": withdrawal.id,
        "amount": text_from_units(withdrawal.amount_units),
        "transactionFee": text_from_units(withdrawal.fee_units),
        "coin": withdrawal.asset,
        "status": withdrawal.status.value,
        "address": withdrawal.address,
        "addressTag": withdrawal.tag,
        "txId": "",
        "applyTime": _utc_text(withdrawal.at_ms),
        "network": withdrawal.network,
        "transferType": 0,
        "withdrawOrderId": withdrawal.client_id,
        "info": "",
        "confirmNo": 0,
        "walletType": 0,
        "txKey": "",
    }
    if withdrawal.status is WithdrawalStatus.COMPLETED:
        row |= {"txId": withdrawal.tx_id, "completeTime": _utc_text(withdrawal.settled_ms)}
    return row


def deposit_row(deposit: Deposit) -> Json:
    """A deposit as deposit/hisrec shows it; status 1 is credited."""
    return {
        "id": deposit.id,
        "amount": text_from_units(deposit.amount_units),
        "coin": deposit.asset,
        "network": deposit.network,
        "status": 1,
        "address": deposit.address,
        "addressTag": "",
        "txId": deposit.tx_id,
        "insertTime": deposit.at_ms,
        "completeTime": deposit.at_ms,
        "transferType": 0,
        "confirmTimes": "12/12",
        "unlockConfirm": 12,
        "walletType": 0,
    }


def execution_report(spec: SymbolSpec, event: OrderUpdated, now_ms: int) -> Json:
    """An order update as the user data stream sends it."""
    order, fill = event.order, event.fill
    return {
        "e": "executionReport",
        "E": now_ms,
        "s": order.symbol,
        "c": event.client_order_id,
        "S": order.side.name,
        "o": order.type.value,
        "f": order.time_in_force.name,
        "q": quantity_text(spec, order.quantity_lots),
        "p": price_text(spec, order.price_ticks or 0),
        "P": "0.00000000",
        "F": "0.00000000",
        "g": -1,
        "C": event.original_client_id,
        "x": event.execution.value,
        "X": order.status.value,
        "r": "NONE",
        "i": order.order_id,
        "l": quantity_text(spec, fill.quantity_lots if fill else 0),
        "z": quantity_text(spec, order.filled_lots),
        "L": price_text(spec, fill.price_ticks if fill else 0),
        "n": text_from_units(fill.fee_units) if fill else "0",
        "N": fill.fee_asset if fill else None,
        "T": event.at_ms,
        "t": fill.trade_id if fill else -1,
        "I": order.order_id,
        "w": order.status.is_open,
        "m": fill.is_maker if fill else False,
        "M": fill is not None,
        "O": order.created_ms,
        "Z": text_from_units(order.filled_quote_units),
        "Y": text_from_units(fill.quote_units if fill else 0),
        "Q": text_from_units(order.quote_quantity_units),
        "W": order.created_ms,
        "V": order.self_trade_prevention,
    }


def account_position(event: BalancesChanged, now_ms: int) -> Json:
    """Balances after a change as the user data stream sends them."""
    return {
        "e": "outboundAccountPosition",
        "E": now_ms,
        "u": event.at_ms,
        "B": [
            {"a": asset, "f": text_from_units(free), "l": text_from_units(locked)}
            for asset, free, locked in event.balances
        ],
    }


def balance_update(event: FundsMoved, now_ms: int) -> Json:
    """A deposit or withdrawal as the user data stream sends it."""
    return {
        "e": "balanceUpdate",
        "E": now_ms,
        "a": event.asset,
        "d": text_from_units(event.delta_units),
        "T": event.at_ms,
    }


def _utc_text(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
