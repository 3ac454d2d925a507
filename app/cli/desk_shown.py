"""Deals as names and values, for every command of the desk that shows one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.clock import iso

if TYPE_CHECKING:
    from trading.model import Deal, DealRequest

DEAL_COLUMNS = (
    *("id", "state", "reference", "desk", "party", "side", "amount", "price", "against", "fee"),
    *("value_date", "origin", "purpose", "booked_by", "booked"),
)
AMOUNT_COLUMNS = ("amount", "price", "against", "fee")


def deal_facts(item: Deal) -> dict[str, str]:
    """Return a deal as names and values."""
    request: DealRequest = item.request
    return {
        "id": str(item.id),
        "state": str(item.state),
        "reference": request.client_ref,
        "desk": request.desk,
        "party": request.party,
        "side": str(request.side),
        "amount": request.base.format(request.base_units),
        "price": request.price.format(),
        "against": request.quote.format(item.quote_units),
        "fee": request.quote.format(request.fee_units),
        "value_date": item.value_date.isoformat(),
        "origin": str(request.origin),
        "purpose": str(request.purpose),
        "booked_by": request.booked_by,
        "booked": iso(item.created_at),
    }
