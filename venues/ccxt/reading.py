"""What a gateway needs read from a venue's answers, whoever's answers they are: values and a port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Any, ClassVar, Protocol

from kernel.errors import BadInput
from kernel.money import Asset, Rounding, divide
from marketdata.model import Instrument
from matching.model import Side
from venues.ccxt.texts import asset_of, plain
from venues.dust import round_down, round_up
from venues.model import (
    KeyPermissions,
    OrderReport,
    UnknownBalance,
    VenueBalance,
    VenueFill,
    VenueOrder,
)

Assets = Mapping[str, Asset]

DIGITS_MAX = 400
"""More digits than a decimal text of a venue may have: sums of amounts are exact."""


class Reading(Protocol):
    """A pure reader of one dialect; every verb raises `BadInput` for what cannot be read.

    An *answer* is what ccxt returned: unified, with the venue's own row under ``info``.

    Attributes:
        reads_raw_orders: `placed` reads nothing of an answer but the venue's own row.
    """

    reads_raw_orders: ClassVar[bool]

    def placed(self, answer: Mapping[str, Any], order: VenueOrder, base: Asset) -> OrderReport:
        """Read the answer to the placement of *order*."""
        ...

    def order(self, answer: Mapping[str, Any], base: Asset) -> OrderReport:
        """Read one order of a query, a list or a cancel."""
        ...

    def fill(
        self, answer: Mapping[str, Any], grid: Instrument, assets: Assets, account: str
    ) -> VenueFill:
        """Read one of our trades."""
        ...

    def balances(self, answer: Mapping[str, Any], assets: Assets) -> list[VenueBalance]:
        """Read what the account holds of the assets that we know, leaving out what is zero."""
        ...

    def unknown_balances(self, answer: Mapping[str, Any], assets: Assets) -> list[UnknownBalance]:
        """Read what the account holds of other assets, leaving out what is zero."""
        ...

    def instrument(self, market: Mapping[str, Any], assets: Assets, venue: str) -> Instrument:
        """Read the grid of one market."""
        ...

    def permissions(self, answer: Any) -> KeyPermissions:
        """Read what a key may do."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FillTexts:
    """A trade in the venue's own words: decimals are plain texts."""

    side: Side
    trade_id: str
    venue_order_id: str
    price: str
    quantity: str
    cost: str
    fee: str
    fee_asset: str
    is_maker: bool
    at: datetime


def fill_from(texts: FillTexts, grid: Instrument, assets: Assets, account: str) -> VenueFill:
    """Return the fill: cost and fee rounded up, proceeds down, each with its dust.

    Raises:
        BadInput: nothing or less than nothing was traded, or it cost less than nothing.
    """
    base_units = grid.base.parse(texts.quantity)
    if base_units <= 0 or texts.cost.startswith("-") or texts.price.startswith("-"):
        raise BadInput(f"trade {texts.trade_id} is of {texts.quantity} for {texts.cost}")
    rounded = round_up if texts.side is Side.BUY else round_down
    quote_units, quote_dust = rounded(texts.cost, grid.quote)
    fee_units, fee_dust = round_up(texts.fee, asset_of(assets, texts.fee_asset))
    return VenueFill(
        venue=grid.venue,
        account=account,
        symbol=grid.symbol,
        trade_id=texts.trade_id,
        venue_order_id=texts.venue_order_id,
        side=texts.side,
        price=texts.price,
        base=grid.base.code,
        base_units=base_units,
        quote=grid.quote.code,
        quote_units=quote_units,
        quote_dust=quote_dust,
        fee_asset=texts.fee_asset,
        fee_units=fee_units,
        fee_dust=fee_dust,
        is_maker=texts.is_maker,
        executed_at=texts.at,
    )


def balance_from(asset: Asset, free: str, locked: str) -> VenueBalance | None:
    """Return a balance; None: there is nothing."""
    free_units, free_dust = round_down(free, asset)
    locked_units, locked_dust = round_down(locked, asset)
    if not (free_units or locked_units or free_dust or locked_dust):
        return None
    return VenueBalance(
        asset=asset.code, free=free_units, locked=locked_units, dust=free_dust + locked_dust
    )


def unknown_from(code: str, free: object, locked: object) -> UnknownBalance | None:
    """Return a balance of an asset that is not registered; None: there is nothing.

    Nothing about such an asset is certain, so what cannot be read is told in the venue's words.
    """
    try:
        parts = [Decimal(plain(str(part))) for part in (free, locked) if part is not None]
    except BadInput:
        return UnknownBalance(asset=code, amount=f"{free} free, {locked} locked")
    with localcontext(prec=DIGITS_MAX):
        total = sum(parts, Decimal(0))
        shown = f"{total.normalize():f}"
    return UnknownBalance(asset=code, amount=shown) if total else None


@dataclass(frozen=True, slots=True, kw_only=True)
class GridTexts:
    """The grid of a market in decimal texts; `size_max` may be missing."""

    symbol: str
    tick: str
    lot: str
    size_min: str
    size_max: str | None
    notional_min: str


LOTS_MAX = 10**18
"""Stands for a size without a bound."""


def grid_from(texts: GridTexts, base: Asset, quote: Asset, venue: str) -> Instrument:
    """Return the instrument."""
    price_scale = len(texts.tick.partition(".")[2].rstrip("0"))
    lot = base.parse(texts.lot)
    lots_max = LOTS_MAX if texts.size_max is None else base.parse(texts.size_max) // max(lot, 1)
    return Instrument(
        venue=venue,
        symbol=texts.symbol,
        base=base,
        quote=quote,
        price_scale=price_scale,
        tick=Asset(quote.code, price_scale).parse(texts.tick),
        lot=lot,
        lots_min=max(1, divide(base.parse(texts.size_min), max(lot, 1), Rounding.UP)),
        lots_max=max(1, lots_max),
        min_notional=round_up(texts.notional_min, quote)[0],
    )
