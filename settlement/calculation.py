"""The calculation of one run: what a netting set comes to, asset by asset. Pure.

Everything in the set nets: ``net = Σ receive - Σ pay``, one movement an asset in the direction of
the sign, none if it is zero. A net below the threshold of its asset is carried: nothing of it moves
and its obligations stay open. The same inputs in any order give the same calculation and hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final
from uuid import UUID

from settlement.model import Calculation, Direction, NetItem, Obligation
from trading.terms.model import Rail

METHOD: Final = "netting-set-v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a calculation depends on beside the obligations, as it was when the run was opened.

    Attributes:
        rails: by asset.
        thresholds: by asset, in smallest units; what is not named has none.
    """

    netting_set: str
    rails: Mapping[str, Rail]
    thresholds: Mapping[str, int] = field(default_factory=dict)


def calculate_set(
    obligations: Sequence[Obligation], rules: Rules, *, value_date: date, version: int
) -> Calculation:
    """Net the *obligations* of one party that belong to one netting set."""
    ordered = sorted(obligations, key=oldest_first)
    groups: dict[str, list[Obligation]] = {}
    for obligation in ordered:
        groups.setdefault(obligation.asset, []).append(obligation)
    items = [_net(group, rules.rails[asset]) for asset, group in sorted(groups.items())]
    carried = [i for i in items if 0 < i.amount < rules.thresholds.get(i.asset, 0)]
    return Calculation(
        version=version,
        method=METHOD,
        items=tuple(item for item in items if item not in carried),
        input_hash=_hash(ordered, rules, value_date),
        carried=tuple(carried),
    )


def oldest_first(obligation: Obligation) -> tuple[date, bytes]:
    """Return by what obligations are ordered: value date, then id."""
    return obligation.value_date, obligation.id.bytes


def members(items: Sequence[NetItem]) -> set[UUID]:
    """Return the obligations that net items discharge."""
    return {obligation for item in items for obligation in item.obligations}


def _net(group: Sequence[Obligation], rail: Rail) -> NetItem:
    pay = sum(o.amount for o in group if o.direction is Direction.PAY)
    receive = sum(o.amount for o in group if o.direction is Direction.RECEIVE)
    return NetItem(
        party=group[0].party,
        asset=group[0].asset,
        direction=Direction.PAY if pay >= receive else Direction.RECEIVE,
        amount=abs(pay - receive),
        gross_pay=pay,
        gross_receive=receive,
        obligations=tuple(o.id for o in group),
        rail=rail,
    )


def _hash(ordered: Sequence[Obligation], rules: Rules, value_date: date) -> str:
    assets = {o.asset for o in ordered}
    content = {
        "method": METHOD,
        "value_date": value_date.isoformat(),
        "netting_set": rules.netting_set,
        "rails": {asset: rules.rails[asset] for asset in assets},
        "thresholds": {a: str(units) for a, units in rules.thresholds.items() if a in assets},
        "obligations": [
            [str(o.id), o.party, o.asset, str(o.amount), o.direction, o.value_date.isoformat()]
            for o in ordered
        ],
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
