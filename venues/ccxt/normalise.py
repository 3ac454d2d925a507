"""Binance's own JSON to our values: exact integers from decimal texts, nothing through a float.

Everything here takes the raw answer (ccxt's ``info``) and raises `BadInput` for what cannot be read.
Formats: Binance, Spot API, "Account trades", "Query order", "Exchange information", "Account
information"; user data stream "executionReport".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from kernel.errors import BadInput
from kernel.money import Asset, Rounding, divide
from marketdata.model import Instrument
from matching.model import Side
from venues.dust import round_down, round_up
from venues.model import OrderReport, VenueBalance, VenueFill, VenueStatus

STATUSES: Final = {
    "NEW": VenueStatus.OPEN,
    "PENDING_NEW": VenueStatus.OPEN,
    "PARTIALLY_FILLED": VenueStatus.OPEN,
    "PENDING_CANCEL": VenueStatus.OPEN,
    "FILLED": VenueStatus.FILLED,
    "CANCELED": VenueStatus.CANCELLED,
    "EXPIRED": VenueStatus.EXPIRED,
    "EXPIRED_IN_MATCH": VenueStatus.EXPIRED,
    "REJECTED": VenueStatus.REJECTED,
}

_SIDES: Final = {"BUY": Side.BUY, "SELL": Side.SELL}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def order_report(info: Any, base: Asset) -> OrderReport:
    """Read an order, as answered by its placement, a query, a list or a cancel."""
    row = _mapping(info)
    status = _text(row, "status")
    if status not in STATUSES:
        raise BadInput(f"{status!r} is not an order status")
    client_order_id = row.get("origClientOrderId") or _text(row, "clientOrderId")
    return OrderReport(
        client_order_id=str(client_order_id),
        venue_order_id=_text(row, "orderId"),
        status=STATUSES[status],
        executed_units=base.parse(_text(row, "executedQty")),
    )


def trade(
    info: Any, instrument: Instrument, assets: Mapping[str, Asset], account: str
) -> VenueFill:
    """Read one of our trades from the account's list of trades."""
    row = _mapping(info)
    return _fill(
        instrument,
        assets,
        account=account,
        side=Side.BUY if _truth(row, "isBuyer") else Side.SELL,
        trade_id=_text(row, "id"),
        venue_order_id=_text(row, "orderId"),
        price=_text(row, "price"),
        quantity=_text(row, "qty"),
        cost=_text(row, "quoteQty"),
        fee=_text(row, "commission"),
        fee_asset=_text(row, "commissionAsset"),
        is_maker=_truth(row, "isMaker"),
        time_ms=_text(row, "time"),
    )


def streamed_trade(
    info: Any, instrument: Instrument, assets: Mapping[str, Asset], account: str
) -> VenueFill:
    """Read one of our trades from an ``executionReport`` of the user data stream."""
    row = _mapping(info)
    if row.get("x") != "TRADE":
        raise BadInput(f"an execution report of {row.get('x')!r} is not a trade")
    return _fill(
        instrument,
        assets,
        account=account,
        side=_side(_text(row, "S")),
        trade_id=_text(row, "t"),
        venue_order_id=_text(row, "i"),
        price=_text(row, "L"),
        quantity=_text(row, "l"),
        cost=_text(row, "Y"),
        fee=_text(row, "n"),
        fee_asset=_text(row, "N"),
        is_maker=_truth(row, "m"),
        time_ms=_text(row, "T"),
    )


def balances(rows: Any, assets: Mapping[str, Asset]) -> list[VenueBalance]:
    """Read what the account holds, leaving out what is zero and assets that we do not know."""
    if not isinstance(rows, Iterable):
        raise BadInput(f"balances must be a list, not {type(rows).__name__}")
    found = []
    for item in rows:
        row = _mapping(item)
        asset = assets.get(_text(row, "asset"))
        if asset is None:
            continue
        free, free_dust = round_down(_text(row, "free"), asset)
        locked, locked_dust = round_down(_text(row, "locked"), asset)
        if free or locked or free_dust or locked_dust:
            dust = free_dust + locked_dust
            found.append(VenueBalance(asset=asset.code, free=free, locked=locked, dust=dust))
    return sorted(found, key=lambda balance: balance.asset)


def instrument(info: Any, assets: Mapping[str, Asset], venue: str) -> Instrument:
    """Read one symbol of the exchange information."""
    row = _mapping(info)
    base, quote = (_asset(assets, _text(row, key)) for key in ("baseAsset", "quoteAsset"))
    filters = {_text(_mapping(item), "filterType"): item for item in row.get("filters") or ()}
    tick = _text(_filter(filters, "PRICE_FILTER"), "tickSize")
    size = _filter(filters, "LOT_SIZE")
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or {"minNotional": "0"}
    price_scale = len(tick.partition(".")[2].rstrip("0"))
    lot = base.parse(_text(size, "stepSize"))
    if lot <= 0:
        raise BadInput(f"{_text(row, 'symbol')} has no lot size")
    return Instrument(
        venue=venue,
        symbol=_text(row, "symbol"),
        base=base,
        quote=quote,
        price_scale=price_scale,
        tick=Asset(quote.code, price_scale).parse(tick),
        lot=lot,
        lots_min=max(1, divide(base.parse(_text(size, "minQty")), lot, Rounding.UP)),
        lots_max=max(1, base.parse(_text(size, "maxQty")) // lot),
        min_notional=round_up(_text(notional, "minNotional"), quote)[0],
    )


def _fill(
    grid: Instrument,
    assets: Mapping[str, Asset],
    *,
    account: str,
    side: Side,
    trade_id: str,
    venue_order_id: str,
    price: str,
    quantity: str,
    cost: str,
    fee: str,
    fee_asset: str,
    is_maker: bool,
    time_ms: str,
) -> VenueFill:
    quote_units, quote_dust = (round_up if side is Side.BUY else round_down)(cost, grid.quote)
    fee_units, fee_dust = round_up(fee, _asset(assets, fee_asset))
    return VenueFill(
        venue=grid.venue,
        account=account,
        symbol=grid.symbol,
        trade_id=trade_id,
        venue_order_id=venue_order_id,
        side=side,
        price=price,
        base=grid.base.code,
        base_units=grid.base.parse(quantity),
        quote=grid.quote.code,
        quote_units=quote_units,
        quote_dust=quote_dust,
        fee_asset=fee_asset,
        fee_units=fee_units,
        fee_dust=fee_dust,
        is_maker=is_maker,
        executed_at=moment(time_ms),
    )


def moment(time_ms: Any) -> datetime:
    """Read milliseconds since 1970."""
    text = str(time_ms)
    if not text.isdigit():
        raise BadInput(f"{text!r} is not a time in milliseconds")
    return _EPOCH + timedelta(milliseconds=int(text))


def _asset(assets: Mapping[str, Asset], code: str) -> Asset:
    if code not in assets:
        raise BadInput(
            f"the venue speaks of {code}, which is not a known asset",
            remedy="Register the asset before it is traded or charged",
        )
    return assets[code]


def _side(text: str) -> Side:
    if text not in _SIDES:
        raise BadInput(f"{text!r} is not a side")
    return _SIDES[text]


def _filter(filters: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if name not in filters:
        raise BadInput(f"the instrument has no {name}")
    return _mapping(filters[name])


def _mapping(info: Any) -> Mapping[str, Any]:
    if not isinstance(info, Mapping):
        raise BadInput(f"the venue answered with {type(info).__name__} where an object was due")
    return info


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadInput(f"the venue's answer has no {key!r} that can be read")
    return str(value)


def _truth(row: Mapping[str, Any], key: str) -> bool:
    value = row.get(key)
    if not isinstance(value, bool):
        raise BadInput(f"the venue's answer has no {key!r} that can be read")
    return value
