"""Private REST endpoints that only read: balances, orders, trades, ledgers, fees, the key.

Lists are newest first, fifty to a page, and `ofs` leaves so many out. Bounds may be times in seconds
or ids. Source: docs.kraken.com, Account Data.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from venues.simulator.decimals import UNIT
from venues.simulator.kraken import errors, market_data, numbers, order_rows, trading
from venues.simulator.kraken.context import Call
from venues.simulator.kraken.drafts import note_of, require_userref
from venues.simulator.kraken.errors import KrakenRefusal, invalid
from venues.simulator.kraken.market_data import asset_decimals
from venues.simulator.kraken.names import asset_id
from venues.simulator.model import Fill, LedgerEntry, Order

PAGE: Final = 50
IDS_MAX: Final = 50
TRADES_ASKED_MAX: Final = 20

# What a key may do, as the venue names it, by what the core says.
PERMISSIONS: Final = {
    "read": ("query-funds", "query-open-trades", "query-closed-trades", "query-ledger"),
    "trade": ("modify-trades", "close-trades", "create-ws-token"),
    "withdraw": ("withdraw-funds", "add-funds"),
}

_Row = TypeVar("_Row")


def balance(call: Call) -> Any:
    """POST /0/private/Balance: everything the account has, orders' holds included."""
    wallet = call.account.wallet
    return {
        asset_id(code): _amount(code, wallet.free(code) + wallet.locked(code))
        for code in wallet.assets()
    }


def balance_ex(call: Call) -> Any:
    """POST /0/private/BalanceEx."""
    wallet = call.account.wallet
    return {
        asset_id(code): {
            "balance": _amount(code, wallet.free(code) + wallet.locked(code)),
            "hold_trade": _amount(code, wallet.locked(code)),
        }
        for code in wallet.assets()
    }


def trade_balance(call: Call) -> Any:
    """POST /0/private/TradeBalance: the account's worth in USD at present prices; no margin."""
    state, wallet = call.core.state, call.account.wallet
    prices = {
        market.spec.base: market_data.last_ticks(market) * market.spec.tick_units
        for market in state.markets.values()
        if market.spec.quote in ("USD", "USDT")
    }
    units = sum(
        (wallet.free(code) + wallet.locked(code)) * prices.get(code, UNIT) // UNIT
        for code in wallet.assets()
        if code in prices or code in ("USD", "USDT", "USDC")
    )
    worth, nothing = numbers.scaled(units, 4), "0.0000"
    return {
        "eb": worth,
        "tb": worth,
        "m": nothing,
        "n": nothing,
        "c": nothing,
        "v": nothing,
        "e": worth,
        "mf": worth,
    }


def open_orders(call: Call) -> Any:
    """POST /0/private/OpenOrders, newest first."""
    orders = _wanted(call, trading.open_orders(call.kraken, call.account))
    return {"open": _keyed(call, reversed(orders))}


def closed_orders(call: Call) -> Any:
    """POST /0/private/ClosedOrders: a page, newest close first; `count` is of all pages."""
    core = call.core
    orders = [o for o in core.state.orders_of(call.name) if not o.status.is_open]
    which = call.optional_text("closetime", "both")
    if which not in ("open", "close", "both"):
        raise invalid("closetime")

    def times(order: Order) -> Sequence[int]:
        return {
            "open": (order.created_ms,),
            "close": (order.updated_ms,),
            "both": (order.created_ms, order.updated_ms),
        }[which]

    found = _between(call, _wanted(call, orders), times, _order_time(call))
    found.sort(key=lambda order: (order.updated_ms, order.created_ms), reverse=True)
    answer: dict[str, Any] = {"closed": _keyed(call, _page(call, found))}
    if not call.flag("without_count"):
        answer["count"] = len(found)
    return answer


def query_orders(call: Call) -> Any:
    """POST /0/private/QueryOrders: the named orders that the account has."""
    names = _ids(call, "txid", IDS_MAX)
    found = [trading.find(call.kraken, call.account, name) for name in names]
    return _keyed(call, _wanted(call, [order for order in found if order is not None]))


def trades_history(call: Call) -> Any:
    """POST /0/private/TradesHistory: a page, newest first; `count` is of all pages."""
    fills = call.core.state.fills_of(call.name)
    if call.optional_text("type", "all") not in ("all", "no position"):
        fills = []
    found = _between(call, fills, lambda fill: (fill.at_ms,), _trade_time(call))
    found.reverse()
    return {"trades": _trade_rows(call, _page(call, found)), "count": len(found)}


def query_trades(call: Call) -> Any:
    """POST /0/private/QueryTrades: the named trades that the account has."""
    names = _ids(call, "txid", TRADES_ASKED_MAX)
    known = {_trade_txid(call, fill): fill for fill in call.core.state.fills_of(call.name)}
    return _trade_rows(call, [known[name] for name in names if name in known])


def ledgers(call: Call) -> Any:
    """POST /0/private/Ledgers: a page, newest first; of some assets or of one type if asked."""
    kind, codes = call.optional_text("type", "all"), _assets_asked(call)
    rows = [
        entry
        for entry in call.account.ledger
        if (not codes or entry.asset in codes)
        and kind in ("all", order_rows.LEDGER_TYPES[entry.kind])
    ]
    found = _between(call, rows, lambda entry: (entry.at_ms,), _ledger_time(call))
    found.reverse()
    return {"ledger": ledger_rows(call, _page(call, found)), "count": len(found)}


def query_ledgers(call: Call) -> Any:
    """POST /0/private/QueryLedgers: the named entries."""
    names = _ids(call, "id", TRADES_ASKED_MAX)
    index = _account_index(call)
    known = {order_rows.ledger_id(index, entry): entry for entry in call.account.ledger}
    return ledger_rows(call, [known[name] for name in names if name in known])


def ledger_rows(call: Call, entries: Iterable[LedgerEntry]) -> dict[str, Any]:
    """Ledger entries by their ids."""
    index, fills = _account_index(call), _fills_by_trade(call)
    directory = call.kraken.directory
    return {
        order_rows.ledger_id(index, entry): order_rows.ledger_row(
            entry, order_rows.ledger_reference(directory, entry, fills.get(entry.symbol, {}))
        )
        for entry in entries
    }


def open_positions(_call: Call) -> Any:
    """POST /0/private/OpenPositions: spot without margin has none."""
    return {}


def trade_volume(call: Call) -> Any:
    """POST /0/private/TradeVolume: the account's fees of the named pairs."""
    state, fees = call.core.state, call.account.fees
    traded = sum(fill.quote_units for fill in state.fills_of(call.name))
    pairs = call.pairs() if call.has("pair") else []

    def row(ppm: int) -> dict[str, Any]:
        rate = numbers.scaled(ppm * (UNIT // 10_000), 4)
        return {
            "fee": rate,
            "minfee": rate,
            "maxfee": rate,
            "nextfee": None,
            "nextvolume": None,
            "tiervolume": "0.0000",
        }

    return {
        "currency": "ZUSD",
        "volume": numbers.scaled(traded, 4),
        "fees": {pair.id: row(fees.taker_ppm) for pair in pairs},
        "fees_maker": {pair.id: row(fees.maker_ppm) for pair in pairs},
    }


def api_key_info(call: Call) -> Any:
    """POST /0/private/GetApiKeyInfo: needs no permission."""
    key = call.core.state.keys[call.api_key]
    created_s = str(call.core.state.genesis.at_ms // 1000)
    return {
        "apiKeyName": call.name,
        "apiKey": call.api_key,
        "nonce": str(call.sent.get("nonce", "")),
        "nonceWindow": 0,
        "permissions": [code for part in key.permissions for code in PERMISSIONS[part]],
        "iban": "",
        "validUntil": "0",
        "queryFrom": "0",
        "queryTo": "0",
        "createdTime": created_s,
        "modifiedTime": created_s,
        "ipAllowlist": ["127.0.0.1"] if key.ip_restricted else [],
        "lastUsed": str(call.core.now_ms() // 1000),
    }


def websockets_token(call: Call) -> Any:
    """POST /0/private/GetWebSocketsToken."""
    return {"token": call.kraken.new_token(call.api_key, call.core.now_ms()), "expires": 900}


def _amount(code: str, units: int) -> str:
    return numbers.scaled(units, asset_decimals(code))


def _keyed(call: Call, orders: Iterable[Order]) -> dict[str, Any]:
    directory, with_trades = call.kraken.directory, call.flag("trades")
    rows, filled = {}, _fills_by_order(call)
    for order in orders:
        pair = directory.of_market(order.symbol)
        fills = filled.get((order.symbol, order.order_id), [])
        rows[order_rows.txid(pair, order)] = order_rows.order_row(
            pair, order, fills, with_trades=with_trades
        )
    return rows


def _wanted(call: Call, orders: list[Order]) -> list[Order]:
    if call.has("cl_ord_id"):
        wanted = call.text("cl_ord_id")
        orders = [order for order in orders if order.client_order_id == wanted]
    if call.has("userref"):
        userref = require_userref(call.text("userref"), "userref")
        orders = [order for order in orders if note_of(order.note).userref == userref]
    return orders


def _ids(call: Call, name: str, count_max: int) -> list[str]:
    names = call.text(name).split(",")
    if len(names) > count_max:
        raise invalid(name)
    return names


def _page(call: Call, rows: list[_Row]) -> list[_Row]:
    offset = call.integer("ofs", 0)
    if offset < 0:
        raise invalid("ofs")
    return rows[offset : offset + PAGE]


def _between(
    call: Call,
    rows: Iterable[_Row],
    times: Callable[[_Row], Sequence[int]],
    time_of_id: Callable[[str], int | None],
) -> list[_Row]:
    """Rows later than `start` and not later than `end`, each a time in seconds or an id."""
    start_ms = _bound(call, "start", time_of_id)
    end_ms = _bound(call, "end", time_of_id)
    return [
        row
        for row in rows
        if any(
            (start_ms is None or at_ms > start_ms) and (end_ms is None or at_ms <= end_ms)
            for at_ms in times(row)
        )
    ]


def _bound(call: Call, name: str, time_of_id: Callable[[str], int | None]) -> int | None:
    if not call.has(name):
        return None
    text = call.text(name)
    units = numbers.units_of(text)
    if units is not None:
        return units * 1000 // UNIT
    at_ms = time_of_id(text)
    if at_ms is None:
        raise invalid(name)
    return at_ms


def _order_time(call: Call) -> Callable[[str], int | None]:
    def time(text: str) -> int | None:
        order = trading.find(call.kraken, call.account, text)
        return None if order is None else order.created_ms

    return time


def _trade_time(call: Call) -> Callable[[str], int | None]:
    def time(text: str) -> int | None:
        fills = call.core.state.fills_of(call.name)
        return next((f.at_ms for f in fills if _trade_txid(call, f) == text), None)

    return time


def _ledger_time(call: Call) -> Callable[[str], int | None]:
    def time(text: str) -> int | None:
        index, rows = _account_index(call), call.account.ledger
        return next((e.at_ms for e in rows if order_rows.ledger_id(index, e) == text), None)

    return time


def _trade_txid(call: Call, fill: Fill) -> str:
    return order_rows.trade_txid(call.kraken.directory.of_market(fill.symbol), fill)


def _trade_rows(call: Call, fills: Iterable[Fill]) -> dict[str, Any]:
    state, directory = call.core.state, call.kraken.directory
    rows = {}
    for fill in fills:
        pair, order = directory.of_market(fill.symbol), state.order(fill.symbol, fill.order_id)
        assert order is not None
        rows[order_rows.trade_txid(pair, fill)] = order_rows.trade_row(pair, fill, order)
    return rows


def _fills_by_order(call: Call) -> dict[tuple[str, int], list[Fill]]:
    found: dict[tuple[str, int], list[Fill]] = {}
    for fill in call.core.state.fills_of(call.name):
        found.setdefault((fill.symbol, fill.order_id), []).append(fill)
    return found


def _fills_by_trade(call: Call) -> dict[str, dict[int, Fill]]:
    found: dict[str, dict[int, Fill]] = {}
    for fill in call.account.fills:
        found.setdefault(fill.symbol, {})[fill.trade_id] = fill
    return found


def _account_index(call: Call) -> int:
    return list(call.core.state.accounts).index(call.name)


def _assets_asked(call: Call) -> set[str]:
    names = call.optional_text("asset", "all")
    if names == "all":
        return set()
    codes = {call.kraken.directory.find_asset(name) for name in names.split(",")}
    if None in codes:
        raise KrakenRefusal(errors.UNKNOWN_ASSET)
    return {code for code in codes if code is not None}
