"""Any venue's answers as ccxt has unified them, with every number left as text.

The instance is made so (`venues.ccxt.instance.asking`) that ccxt's own arithmetic is exact: it reckons
with decimal texts, and what it hands out is text. A float in an answer is refused, not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from kernel.errors import BadInput
from kernel.money import Asset
from marketdata.model import Instrument
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
    side_of,
    text_of,
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
    "open": VenueStatus.OPEN,
    "closed": VenueStatus.FILLED,
    "canceled": VenueStatus.CANCELLED,
    "canceling": VenueStatus.OPEN,
    "expired": VenueStatus.EXPIRED,
    "expired_in_match": VenueStatus.EXPIRED,
    "rejected": VenueStatus.REJECTED,
}
"""ccxt's words, and those of venues that it passes on untranslated."""

SUMMARIES: Final = frozenset({"info", "free", "used", "total", "debt"})
"""What ccxt puts beside the assets of an account."""

MAKER: Final = {"maker": True, "taker": False}


class GenericReading:
    """See `venues.ccxt.reading.Reading`."""

    reads_raw_orders: ClassVar = False

    def placed(self, answer: Mapping[str, Any], order: VenueOrder, base: Asset) -> OrderReport:
        """Read the answer to a placement; it may say no more than the venue's id of the order.

        What it does not say is what we know: the order is there, and is looked at again.
        """
        row = mapping(answer)
        client_order_id = row.get("clientOrderId")
        if client_order_id not in {None, order.client_order_id}:
            raise BadInput(f"the answer speaks of order {client_order_id}")
        status = row.get("status")
        if status is None or row.get("filled") is None:
            return OrderReport(
                client_order_id=order.client_order_id,
                venue_order_id=_named(row, "id"),
                status=VenueStatus.OPEN,
                executed_units=0,
            )
        return self.order({**row, "clientOrderId": order.client_order_id}, base)

    def order(self, answer: Mapping[str, Any], base: Asset) -> OrderReport:
        """Read an order."""
        row = mapping(answer)
        status = text_of(row, "status").lower()
        if status not in STATUSES:
            raise BadInput(f"{status!r} is not an order status")
        return OrderReport(
            client_order_id=str(row.get("clientOrderId") or ""),
            venue_order_id=_named(row, "id"),
            status=STATUSES[status],
            executed_units=units_of(row, "filled", base),
            side=None if row.get("side") is None else side_of(text_of(row, "side")),
            base_units=None if row.get("amount") is None else units_of(row, "amount", base),
            price=_price(row),
        )

    def fill(
        self, answer: Mapping[str, Any], grid: Instrument, assets: Assets, account: str
    ) -> VenueFill:
        """Read a trade."""
        row = mapping(answer)
        fee = mapping(row.get("fee"))
        role = text_of(row, "takerOrMaker")
        if role not in MAKER:
            raise BadInput(f"{role!r} is neither maker nor taker")
        texts = FillTexts(
            side=side_of(text_of(row, "side")),
            trade_id=_named(row, "id"),
            venue_order_id=_named(row, "order"),
            price=decimal_of(row, "price"),
            quantity=decimal_of(row, "amount"),
            cost=decimal_of(row, "cost"),
            fee=decimal_of(fee, "cost"),
            fee_asset=text_of(fee, "currency"),
            is_maker=MAKER[role],
            at=moment(text_of(row, "timestamp")),
        )
        return fill_from(texts, grid, assets, account)

    def balances(self, answer: Mapping[str, Any], assets: Assets) -> list[VenueBalance]:
        """Read balances by ccxt's codes."""
        row = mapping(answer)
        if "info" not in row:
            raise BadInput("the venue's answer has no balances that can be read")
        found = []
        for code in sorted(set(assets) & set(row)):
            entry = mapping(row[code])
            balance = balance_from(
                assets[code], decimal_of(entry, "free"), decimal_of(entry, "used")
            )
            if balance is not None:
                found.append(balance)
        return found

    def unknown_balances(self, answer: Mapping[str, Any], assets: Assets) -> list[UnknownBalance]:
        """Read balances by ccxt's codes; what stands beside them has no free and used part."""
        row = mapping(answer)
        told = {
            code: entry
            for code, entry in row.items()
            if isinstance(entry, Mapping) and code not in SUMMARIES and code not in assets
        }
        found = [
            unknown_from(code, entry.get("free"), entry.get("used"))
            for code, entry in sorted(told.items())
        ]
        return [balance for balance in found if balance is not None]

    def instrument(self, market: Mapping[str, Any], assets: Assets, venue: str) -> Instrument:
        """Read a market; its precision must be stated as the size of a tick and of a lot."""
        row = mapping(market)
        precision, limits = (mapping(row.get(key)) for key in ("precision", "limits"))
        amount, cost = (mapping(limits.get(key) or {}) for key in ("amount", "cost"))
        lot = decimal_of(precision, "amount")
        texts = GridTexts(
            symbol=text_of(row, "id"),
            tick=decimal_of(precision, "price"),
            lot=lot,
            size_min=_optional(amount, "min") or lot,
            size_max=_optional(amount, "max"),
            notional_min=_optional(cost, "min") or "0",
        )
        base, quote = (asset_of(assets, text_of(row, key)) for key in ("base", "quote"))
        return grid_from(texts, base, quote, venue)

    def permissions(self, answer: Any) -> KeyPermissions:
        """Return what is assumed of a key that cannot be asked: that nobody knows."""
        del answer
        return KeyPermissions(trade=True, withdraw=None, read=True)


def _named(row: Mapping[str, Any], key: str) -> str:
    name = text_of(row, key)
    if not name:
        raise BadInput(f"the venue's answer has no {key!r} that can be read")
    return name


def _price(row: Mapping[str, Any]) -> str | None:
    if row.get("type") == "market":
        return ""
    return None if row.get("price") is None else decimal_of(row, "price")


def _optional(row: Mapping[str, Any], key: str) -> str | None:
    return None if row.get(key) is None else plain(text_of(row, key))
