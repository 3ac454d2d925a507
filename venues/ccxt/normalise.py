"""Binance's own JSON to our values: exact integers from decimal texts, nothing through a float.

Reads the raw rows (ccxt's ``info``). Formats: Binance, Spot API, "Account trades", "Query order",
"Exchange information", "Account information"; Wallet API, "Get API Key Permission".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from kernel.errors import BadInput
from kernel.money import Asset
from marketdata.model import Instrument
from matching.model import Side
from venues.ccxt.reading import (
    Assets,
    FillTexts,
    GridTexts,
    balance_from,
    fill_from,
    grid_from,
    unknown_from,
)
from venues.ccxt.texts import (
    asset_of,
    decimal_of,
    mapping,
    moment,
    plain,
    rows,
    side_of,
    text_of,
    truth_of,
    units_of,
)
from venues.model import (
    KeyPermissions,
    OrderReport,
    UnknownBalance,
    VenueBalance,
    VenueFill,
    VenueOrder,
    VenueStatus,
)

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


def order_report(info: Any, base: Asset) -> OrderReport:
    """Read an order, as answered by its placement, a query, a list or a cancel."""
    row = mapping(info)
    status = text_of(row, "status")
    if status not in STATUSES:
        raise BadInput(f"{status!r} is not an order status")
    price = row.get("price")
    return OrderReport(
        client_order_id=str(row.get("origClientOrderId") or text_of(row, "clientOrderId")),
        venue_order_id=text_of(row, "orderId"),
        status=STATUSES[status],
        executed_units=units_of(row, "executedQty", base),
        side=side_of(text_of(row, "side")) if "side" in row else None,
        base_units=units_of(row, "origQty", base) if "origQty" in row else None,
        price=None if price is None else _price_or_none(decimal_of(row, "price")),
    )


def _price_or_none(text: str) -> str:
    """Return "" for the zero that a market order shows."""
    return text if text.strip("0.") else ""


def trade(info: Any, grid: Instrument, assets: Assets, account: str) -> VenueFill:
    """Read one of our trades from the account's list of trades."""
    row = mapping(info)
    texts = FillTexts(
        side=Side.BUY if truth_of(row, "isBuyer") else Side.SELL,
        trade_id=text_of(row, "id"),
        venue_order_id=text_of(row, "orderId"),
        price=decimal_of(row, "price"),
        quantity=decimal_of(row, "qty"),
        cost=decimal_of(row, "quoteQty"),
        fee=decimal_of(row, "commission"),
        fee_asset=text_of(row, "commissionAsset"),
        is_maker=truth_of(row, "isMaker"),
        at=moment(text_of(row, "time")),
    )
    return fill_from(texts, grid, assets, account)


def balances(listed: Any, assets: Assets) -> list[VenueBalance]:
    """Read what the account holds, leaving out what is zero and assets that we do not know."""
    found = []
    for item in rows(listed):
        row = mapping(item)
        asset = assets.get(text_of(row, "asset"))
        if asset is None:
            continue
        balance = balance_from(asset, decimal_of(row, "free"), decimal_of(row, "locked"))
        if balance is not None:
            found.append(balance)
    return sorted(found, key=lambda balance: balance.asset)


def unknown_balances(listed: Any, assets: Assets) -> list[UnknownBalance]:
    """Read what the account holds of assets that we do not know, leaving out what is zero."""
    told = [row for row in map(mapping, rows(listed)) if text_of(row, "asset") not in assets]
    found = [
        unknown_from(text_of(row, "asset"), row.get("free"), row.get("locked")) for row in told
    ]
    return sorted((item for item in found if item is not None), key=lambda item: item.asset)


def instrument(info: Any, assets: Assets, venue: str) -> Instrument:
    """Read one symbol of the exchange information."""
    row = mapping(info)
    base, quote = (asset_of(assets, text_of(row, key)) for key in ("baseAsset", "quoteAsset"))
    filters = {text_of(mapping(item), "filterType"): item for item in row.get("filters") or ()}
    size = _filter(filters, "LOT_SIZE")
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or {"minNotional": "0"}
    if not decimal_of(size, "stepSize").strip("0."):
        raise BadInput(f"{text_of(row, 'symbol')} has no lot size")
    texts = GridTexts(
        symbol=text_of(row, "symbol"),
        tick=decimal_of(_filter(filters, "PRICE_FILTER"), "tickSize"),
        lot=decimal_of(size, "stepSize"),
        size_min=decimal_of(size, "minQty"),
        size_max=decimal_of(size, "maxQty"),
        notional_min=plain(text_of(notional, "minNotional")),
    )
    return grid_from(texts, base, quote, venue)


def permissions(info: Any) -> KeyPermissions:
    """Read what an API key may do."""
    row = mapping(info)
    return KeyPermissions(
        trade=truth_of(row, "enableSpotAndMarginTrading"),
        withdraw=truth_of(row, "enableWithdrawals"),
        read=truth_of(row, "enableReading"),
    )


def _filter(filters: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if name not in filters:
        raise BadInput(f"the instrument has no {name}")
    return mapping(filters[name])


class BinanceReading:
    """See `venues.ccxt.reading.Reading`."""

    reads_raw_orders: ClassVar = True

    def placed(self, answer: Mapping[str, Any], order: VenueOrder, base: Asset) -> OrderReport:
        """Read the answer to a placement, which must speak of this order."""
        report = order_report(answer.get("info"), base)
        if report.client_order_id != order.client_order_id:
            raise BadInput(f"the answer speaks of order {report.client_order_id}")
        return report

    def order(self, answer: Mapping[str, Any], base: Asset) -> OrderReport:
        """Read an order."""
        return order_report(answer.get("info"), base)

    def fill(
        self, answer: Mapping[str, Any], grid: Instrument, assets: Assets, account: str
    ) -> VenueFill:
        """Read a trade."""
        return trade(answer.get("info"), grid, assets, account)

    def balances(self, answer: Mapping[str, Any], assets: Assets) -> list[VenueBalance]:
        """Read balances."""
        return balances(mapping(answer.get("info")).get("balances"), assets)

    def unknown_balances(self, answer: Mapping[str, Any], assets: Assets) -> list[UnknownBalance]:
        """Read balances of other assets."""
        return unknown_balances(mapping(answer.get("info")).get("balances"), assets)

    def instrument(self, market: Mapping[str, Any], assets: Assets, venue: str) -> Instrument:
        """Read a symbol."""
        return instrument(market.get("info"), assets, venue)

    def permissions(self, answer: Any) -> KeyPermissions:
        """Read a key's permissions."""
        return permissions(answer)
