"""The table of REST endpoints and how a request becomes an answer.

Every answer has status 200 and the form `{"error": [...], "result": ...}`; a refusal has no result.
The order of the checks is the venue's: key, signature, nonce, rate, permission, arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from venues.simulator.kraken import (
    account_data,
    auth,
    errors,
    funding,
    market_data,
    rest_trading,
)
from venues.simulator.kraken.context import Call, Kraken
from venues.simulator.kraken.errors import KrakenRefusal

Answer = Callable[[Call], Any]

PUBLIC: Final = "/0/public/"
PRIVATE: Final = "/0/private/"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A private endpoint: what its key must be allowed, and its cost in calls."""

    answer: Answer
    permission: str
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it was read, before anything about it is believed."""

    method: str
    path: str
    query: str
    body: str
    content_type: str
    api_key: str
    api_sign: str


PUBLIC_ENDPOINTS: Final[dict[str, Answer]] = {
    "Time": market_data.time,
    "SystemStatus": market_data.system_status,
    "Assets": market_data.assets,
    "AssetPairs": market_data.asset_pairs,
    "Ticker": market_data.ticker,
    "OHLC": market_data.ohlc,
    "Depth": market_data.depth,
    "Trades": market_data.trades,
    "Spread": market_data.spread,
}

PRIVATE_ENDPOINTS: Final[dict[str, Endpoint]] = {
    "Balance": Endpoint(account_data.balance, "read"),
    "BalanceEx": Endpoint(account_data.balance_ex, "read"),
    "TradeBalance": Endpoint(account_data.trade_balance, "read"),
    "OpenOrders": Endpoint(account_data.open_orders, "read"),
    "ClosedOrders": Endpoint(account_data.closed_orders, "read"),
    "QueryOrders": Endpoint(account_data.query_orders, "read"),
    "TradesHistory": Endpoint(account_data.trades_history, "read", 2),
    "QueryTrades": Endpoint(account_data.query_trades, "read"),
    "Ledgers": Endpoint(account_data.ledgers, "read", 2),
    "QueryLedgers": Endpoint(account_data.query_ledgers, "read", 2),
    "OpenPositions": Endpoint(account_data.open_positions, "read"),
    "TradeVolume": Endpoint(account_data.trade_volume, "read"),
    "GetApiKeyInfo": Endpoint(account_data.api_key_info, ""),
    "GetWebSocketsToken": Endpoint(account_data.websockets_token, "trade"),
    "AddOrder": Endpoint(rest_trading.add_order, "trade", 0),
    "AddOrderBatch": Endpoint(rest_trading.add_order_batch, "trade", 0),
    "AmendOrder": Endpoint(rest_trading.amend_order, "trade", 0),
    "EditOrder": Endpoint(rest_trading.edit_order, "trade", 0),
    "CancelOrder": Endpoint(rest_trading.cancel_order, "trade", 0),
    "CancelOrderBatch": Endpoint(rest_trading.cancel_order_batch, "trade", 0),
    "CancelAll": Endpoint(rest_trading.cancel_all, "trade"),
    "CancelAllOrdersAfter": Endpoint(rest_trading.cancel_all_orders_after, "trade"),
    "DepositMethods": Endpoint(funding.deposit_methods, "read"),
    "DepositAddresses": Endpoint(funding.deposit_addresses, "read"),
    "DepositStatus": Endpoint(funding.deposit_status, "read"),
    "WithdrawMethods": Endpoint(funding.withdraw_methods, "read"),
    "WithdrawAddresses": Endpoint(funding.withdraw_addresses, "read"),
    "WithdrawInfo": Endpoint(funding.withdraw_info, "read"),
    "Withdraw": Endpoint(funding.withdraw, "withdraw"),
    "WithdrawStatus": Endpoint(funding.withdraw_status, "read"),
    "WithdrawCancel": Endpoint(funding.withdraw_cancel, "withdraw"),
}


def answer(kraken: Kraken, incoming: Incoming) -> dict[str, Any]:
    """The body of the answer to a request."""
    try:
        return {"error": [], "result": _result(kraken, incoming)}
    except KrakenRefusal as refusal:
        return {"error": [refusal.text]}


def _result(kraken: Kraken, incoming: Incoming) -> Any:
    sent = auth.parameters(incoming.query, incoming.body, incoming.content_type)
    if incoming.path.startswith(PUBLIC):
        public = PUBLIC_ENDPOINTS.get(incoming.path.removeprefix(PUBLIC))
        if public is None:
            raise KrakenRefusal(errors.UNKNOWN_METHOD)
        return public(Call(kraken, sent))
    private = PRIVATE_ENDPOINTS.get(incoming.path.removeprefix(PRIVATE))
    if private is None or incoming.method != "POST":
        raise KrakenRefusal(errors.UNKNOWN_METHOD)
    return private.answer(_allowed(kraken, incoming, sent, private))


def _allowed(kraken: Kraken, incoming: Incoming, sent: dict[str, Any], endpoint: Endpoint) -> Call:
    state, api_key = kraken.core.state, incoming.api_key
    account, key = state.accounts_by_key.get(api_key), state.keys.get(api_key)
    if account is None or key is None:
        raise KrakenRefusal(errors.INVALID_KEY)
    auth.require_signature(
        key.secret, path=incoming.path, sent=sent, body=incoming.body, given=incoming.api_sign
    )
    kraken.nonces.accept(api_key, sent)
    if not kraken.limits.call(api_key, endpoint.cost, kraken.core.now_ms()):
        raise KrakenRefusal(errors.CALLS_EXCEEDED)
    if endpoint.permission and endpoint.permission not in key.permissions:
        raise KrakenRefusal(errors.PERMISSION_DENIED)
    return Call(kraken, sent, account, api_key)
