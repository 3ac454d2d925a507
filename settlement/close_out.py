"""What stands between the desk and a party that is in default: a report, set by set. Pure.

It is no payment netting: a netting agreement whose close-out clause holds lets one sum per asset stand
for a set; without one everything stands as it is owed, and each side may claim all of its own. Nothing
is converted: what one asset is worth in another is for people and their prices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kernel.clock import iso
from settlement.model import Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Something that is owed: *amount* in smallest units; *stage* says how far it had come."""

    netting_set: str
    asset: str
    direction: Direction
    amount: int
    stage: str
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLine:
    """What a netting set comes to in one asset.

    Attributes:
        net: what the desk owes (above 0) or is owed (below 0), if the set closes out; None: it may not.
    """

    netting_set: str
    asset: str
    we_owe: int
    they_owe: int
    net: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseOut:
    """The report: what is owed, what is held, what could still leave.

    Attributes:
        claims: every obligation and instruction that is not settled.
        lines: the same by set and asset.
        held: balances in our books that are the party's or its security, by account and asset.
        leaving: payouts to it that had not left, as text: they are stopped by the freeze, or out.
    """

    party: str
    at: datetime
    claims: tuple[Claim, ...]
    lines: tuple[SetLine, ...]
    held: Mapping[tuple[str, str], int]
    leaving: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Return the report as JSON values: sorted, amounts as text."""
        return {
            "party": self.party,
            "at": iso(self.at),
            "sets": [
                {
                    "netting_set": line.netting_set,
                    "asset": line.asset,
                    "we_owe": str(line.we_owe),
                    "they_owe": str(line.they_owe),
                    "net": None if line.net is None else str(line.net),
                }
                for line in self.lines
            ],
            "claims": [
                {
                    "netting_set": claim.netting_set,
                    "asset": claim.asset,
                    "direction": str(claim.direction),
                    "amount": str(claim.amount),
                    "stage": claim.stage,
                    "reference": claim.reference,
                }
                for claim in self.claims
            ],
            "held": [
                {"account": path, "asset": asset, "units": str(units)}
                for (path, asset), units in sorted(self.held.items())
            ],
            "leaving": list(self.leaving),
        }


def close_out(
    party: str,
    claims: Iterable[Claim],
    closing: frozenset[str],
    *,
    held: Mapping[tuple[str, str], int],
    leaving: Sequence[str],
    at: datetime,
) -> CloseOut:
    """Add claims up.

    Args:
        closing: netting sets whose agreement has a close-out clause.
    """
    ordered = sorted(claims, key=lambda c: (c.netting_set, c.asset, c.stage, c.reference))
    sums: dict[tuple[str, str], dict[Direction, int]] = {}
    for claim in ordered:
        side = sums.setdefault((claim.netting_set, claim.asset), dict.fromkeys(Direction, 0))
        side[claim.direction] += claim.amount
    lines = [
        SetLine(
            netting_set=name,
            asset=asset,
            we_owe=side[Direction.PAY],
            they_owe=side[Direction.RECEIVE],
            net=side[Direction.PAY] - side[Direction.RECEIVE] if name in closing else None,
        )
        for (name, asset), side in sorted(sums.items())
    ]
    return CloseOut(
        party=party,
        at=at,
        claims=tuple(ordered),
        lines=tuple(lines),
        held={key: units for key, units in held.items() if units},
        leaving=tuple(leaving),
    )


def hash_document(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON: keys sorted, no blanks, in hexadecimal."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
