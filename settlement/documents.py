"""Inputs and results of a calculation as JSON values and back. Pure.

Amounts are text: JSON numbers beyond 2**53 do not survive every reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from settlement.calculation import Rules
from settlement.model import Direction, NetItem, Obligation
from trading.terms.model import Agreement, Rail


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a stored version was calculated from.

    Attributes:
        agreements: of the parties of a run of before.
        rules: of the netting set; None: a run of before.
    """

    obligations: tuple[Obligation, ...]
    agreements: Mapping[str, Agreement]
    rules: Rules | None


def inputs_json(
    obligations: Sequence[Obligation], given: Rules | Mapping[str, Agreement]
) -> dict[str, Any]:
    """Return the inputs of a calculation as it keeps them."""
    members = [obligation_json(o) for o in obligations]
    if isinstance(given, Rules):
        return {"obligations": members, "rules": rules_json(given)}
    parties = {o.party for o in obligations}
    agreements = [agreement_json(a) for party, a in sorted(given.items()) if party in parties]
    return {"obligations": members, "agreements": agreements}


def inputs_of(data: dict[str, Any]) -> Inputs:
    """Return the inputs that `inputs_json` wrote."""
    agreements = [agreement_of(item) for item in data.get("agreements", ())]
    return Inputs(
        tuple(obligation_of(o) for o in data["obligations"]),
        {item.party: item for item in agreements},
        rules_of(data["rules"]) if "rules" in data else None,
    )


def rules_json(rules: Rules) -> dict[str, Any]:
    """Return the rules of a netting set as a calculation keeps them."""
    return {
        "netting_set": rules.netting_set,
        "rails": {asset: str(rail) for asset, rail in sorted(rules.rails.items())},
        "thresholds": {asset: str(units) for asset, units in sorted(rules.thresholds.items())},
    }


def rules_of(data: dict[str, Any]) -> Rules:
    """Return the rules that `rules_json` wrote."""
    return Rules(
        netting_set=data["netting_set"],
        rails={asset: Rail(rail) for asset, rail in data["rails"].items()},
        thresholds={asset: int(units) for asset, units in data["thresholds"].items()},
    )


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
