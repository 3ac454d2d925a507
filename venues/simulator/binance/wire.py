"""From the venue's records to the JSON values of the dialect. Pure.

Amounts become decimal texts; keys and their order follow binance-spot-api-docs (rest-api.md,
user-data-stream.md, web-socket-streams.md) and the wallet API's documentation.
"""

from datetime import UTC, datetime
from typing import Any, Final

from matching.model import Level, Side
from venues.simulator.commands import BalancesChanged, FundsMoved
from venues.simulator.decimals import text_from_units
from venues.simulator.model import (
    AssetSpec,
    Deposit,
    Fill,
    PublicTrade,
    SymbolSpec,
    Withdrawal,
    WithdrawalStatus,
)
from venues.simulator.state import Account

Json = dict[str, Any]

PENDING: Final = 0
CREDITED: Final = 1
WITHDRAWAL_STATUS: Final = {
    WithdrawalStatus.CANCELLED: 1,
    WithdrawalStatus.REJECTED: 3,
    WithdrawalStatus.PROCESSING: 4,
    WithdrawalStatus.FAILED: 5,
    WithdrawalStatus.COMPLETED: 6,
}


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
        "status": WITHDRAWAL_STATUS[withdrawal.status],
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
    """A deposit as deposit/hisrec shows it."""
    return {
        "id": deposit.id,
        "amount": text_from_units(deposit.amount_units),
        "coin": deposit.asset,
        "network": deposit.network,
        "status": PENDING if deposit.is_pending else CREDITED,
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
