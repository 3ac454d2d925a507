"""Netting: from obligations to net items, and from net items to the transfers that seal them.

Bilateral netting per (party, asset): ``net = Σ receive - Σ pay``; one movement in the direction of
the sign, none if it is zero. Every party's position is the same before and after. Without an
agreement that is in force, each obligation stands alone. What is overdue is due with the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final
from uuid import UUID

from settlement.model import Calculation, Direction, NetItem, Obligation
from trading.terms.model import Agreement, Rail

METHOD: Final = "bilateral-v1"


@dataclass(frozen=True, slots=True)
class Discharge:
    """One step of sealing: *amount* of an obligation goes to the net, or against another one.

    Attributes:
        receive: the obligation owed to the desk that this step discharges, if any.
        pay: the obligation owed by the desk that this step discharges, if any. Both are set when
            the two discharge each other.
    """

    receive: UUID | None
    pay: UUID | None
    amount: int


def calculate(
    obligations: Sequence[Obligation],
    agreements: Mapping[str, Agreement],
    *,
    value_date: date,
    version: int,
) -> Calculation:
    """Net *obligations*; the same inputs in any order give the same calculation."""
    ordered = sorted(obligations, key=_order)
    groups: dict[tuple[str, ...], list[Obligation]] = {}
    for obligation in ordered:
        nets = _in_force(agreements, obligation.party, value_date) is not None
        key = (obligation.party, obligation.asset) + (() if nets else (str(obligation.id),))
        groups.setdefault(key, []).append(obligation)
    items = tuple(
        _net(group, _in_force(agreements, group[0].party, value_date))
        for _, group in sorted(groups.items())
    )
    return Calculation(
        version=version,
        method=METHOD,
        items=items,
        input_hash=hash_inputs(ordered, agreements, value_date),
    )


def hash_inputs(
    obligations: Iterable[Obligation], agreements: Mapping[str, Agreement], value_date: date
) -> str:
    """Return the SHA-256 of everything the result depends on, as canonical JSON.

    Agreements of parties that have no part in it do not count.
    """
    ordered = sorted(obligations, key=_order)
    parties = {o.party for o in ordered}
    content = {
        "method": METHOD,
        "value_date": value_date.isoformat(),
        "agreements": {
            party: [a.effective_from.isoformat(), a.prefunded]
            for party, a in agreements.items()
            if party in parties
        },
        "obligations": [
            [str(o.id), o.party, o.asset, str(o.amount), o.direction, o.value_date.isoformat()]
            for o in ordered
        ],
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def discharges(item: NetItem, obligations: Mapping[UUID, Obligation]) -> list[Discharge]:
    """Return how the item's obligations are discharged, oldest first, to the last unit.

    Opposite obligations discharge each other; what is left goes to the net. The parts of every
    obligation add up to its amount.
    """
    members = sorted((obligations[i] for i in item.obligations), key=_order)
    pays = deque(_Left(o.id, o.amount) for o in members if o.direction is Direction.PAY)
    receives = deque(_Left(o.id, o.amount) for o in members if o.direction is Direction.RECEIVE)
    steps: list[Discharge] = []
    while pays and receives:
        amount = min(pays[0].amount, receives[0].amount)
        steps.append(
            Discharge(receive=receives[0].obligation, pay=pays[0].obligation, amount=amount)
        )
        for side in (pays, receives):
            side[0].amount -= amount
            if side[0].amount == 0:
                side.popleft()
    steps += [Discharge(receive=None, pay=left.obligation, amount=left.amount) for left in pays]
    steps += [Discharge(receive=left.obligation, pay=None, amount=left.amount) for left in receives]
    return steps


@dataclass(slots=True)
class _Left:
    """How much of an obligation is still to be discharged, while `discharges` walks along."""

    obligation: UUID
    amount: int


def _in_force(agreements: Mapping[str, Agreement], party: str, day: date) -> Agreement | None:
    agreement = agreements.get(party)
    return agreement if agreement is not None and agreement.covers(day) else None


def _order(obligation: Obligation) -> tuple[date, bytes]:
    return obligation.value_date, obligation.id.bytes


def _net(group: Sequence[Obligation], agreement: Agreement | None) -> NetItem:
    pay = sum(o.amount for o in group if o.direction is Direction.PAY)
    receive = sum(o.amount for o in group if o.direction is Direction.RECEIVE)
    prefunded = agreement is not None and agreement.prefunded
    return NetItem(
        party=group[0].party,
        asset=group[0].asset,
        direction=Direction.PAY if pay >= receive else Direction.RECEIVE,
        amount=abs(pay - receive),
        gross_pay=pay,
        gross_receive=receive,
        obligations=tuple(o.id for o in group),
        rail=Rail.BOOK if prefunded else Rail.EVM,
    )
