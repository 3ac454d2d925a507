"""Inputs and results of a calculation as JSON values and back. Pure.

Amounts are text: JSON numbers beyond 2**53 do not survive every reader.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from settlement.model import Agreement, Direction, NetItem, Obligation, Rail


def obligation_json(o: Obligation) -> dict[str, str]:
    """Return an obligation as a calculation keeps it."""
    return {
        "id": str(o.id),
        "deal": str(o.deal_id),
        "leg": o.leg,
        "party": o.party,
        "asset": o.asset,
        "amount": str(o.amount),
        "direction": o.direction,
        "value_date": o.value_date.isoformat(),
        "created_at": o.created_at.isoformat(),
    }


def obligation_of(data: dict[str, str]) -> Obligation:
    """Return the obligation that `obligation_json` wrote; its state is not kept."""
    return Obligation(
        id=UUID(data["id"]),
        deal_id=UUID(data["deal"]),
        leg=data["leg"],
        party=data["party"],
        asset=data["asset"],
        amount=int(data["amount"]),
        direction=Direction(data["direction"]),
        value_date=date.fromisoformat(data["value_date"]),
        created_at=datetime.fromisoformat(data["created_at"]),
    )


def agreement_json(a: Agreement) -> dict[str, Any]:
    """Return an agreement as a calculation keeps it."""
    return {
        "party": a.party,
        "effective_from": a.effective_from.isoformat(),
        "prefunded": a.prefunded,
    }


def agreement_of(data: dict[str, Any]) -> Agreement:
    """Return the agreement that `agreement_json` wrote."""
    return Agreement(
        party=data["party"],
        effective_from=date.fromisoformat(data["effective_from"]),
        prefunded=data["prefunded"],
    )


def item_json(item: NetItem) -> dict[str, Any]:
    """Return a net item as a calculation keeps it."""
    return {
        "party": item.party,
        "asset": item.asset,
        "direction": item.direction,
        "amount": str(item.amount),
        "gross_pay": str(item.gross_pay),
        "gross_receive": str(item.gross_receive),
        "obligations": [str(i) for i in item.obligations],
        "rail": item.rail,
    }


def item_of(data: dict[str, Any]) -> NetItem:
    """Return the net item that `item_json` wrote."""
    return NetItem(
        party=data["party"],
        asset=data["asset"],
        direction=Direction(data["direction"]),
        amount=int(data["amount"]),
        gross_pay=int(data["gross_pay"]),
        gross_receive=int(data["gross_receive"]),
        obligations=tuple(UUID(i) for i in data["obligations"]),
        rail=Rail(data["rail"]),
    )
