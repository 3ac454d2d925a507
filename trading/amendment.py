"""What a deal is amended to: the old one with what was wrong in it replaced. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from kernel.errors import BadInput
from kernel.money import Price
from trading.model import Deal, DealOrigin, DealRequest


def amended(
    old: Deal,
    client_ref: str,
    *,
    base_units: int | None = None,
    price: Price | None = None,
    fee_units: int | None = None,
    value_date: date | None = None,
    off_market_reason: str = "",
    by: str,
    reason: str,
) -> DealRequest:
    """Return the request that replaces *old*; every None stays as it was.

    An amendment corrects what was agreed, so the moment of the agreement and the market's mid of
    then stay; another price is its own evidence, and why the old one was right says nothing of it. It is typed in by a person, whatever the old deal
    came from: a quote is dealt on once.

    Raises:
        BadInput: it would change nothing.
    """
    asked = old.request
    is_same_price = price in {None, asked.price}
    new = replace(
        asked,
        client_ref=client_ref,
        base_units=asked.base_units if base_units is None else base_units,
        price=asked.price if price is None else price,
        fee_units=asked.fee_units if fee_units is None else fee_units,
        value_date=old.value_date if value_date is None else value_date,
        price_id=old.price_id if is_same_price else None,
        off_market_reason=off_market_reason or (asked.off_market_reason if is_same_price else ""),
        origin=DealOrigin.VOICE,
        quote_id=None,
        booked_by=by,
        reason=reason,
    )
    names = ("base_units", "price", "fee_units", "value_date")
    if all(getattr(new, name) == getattr(asked, name) for name in names):
        raise BadInput(
            f"that would leave deal {asked.client_ref} as it is",
            remedy="Name another amount, price, fee or value date",
        )
    return new
