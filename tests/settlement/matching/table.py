"""What arrived and what is awaited, written as short lines; and verdicts as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from settlement.matching.decide import match_all
from settlement.matching.model import (
    FIRST_RULES,
    Charges,
    Expected,
    Incoming,
    RailRules,
    Rules,
    Verdict,
)
from trading.terms.model import Rail

DAY = date(2026, 1, 5)
NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
TOLERANT = Rules(
    rails={
        **FIRST_RULES.rails,
        Rail.BANK: RailRules(unique_amount=True, tolerance={"USD": 25}),
    },
    charges={"birch": Charges.DEBTOR},
)


def receipt(number: int, value: int, **changes: Any) -> Incoming:
    """A receipt on a chain, of acme."""
    values: dict[str, Any] = {
        "epoch": 1,
        "rail": Rail.EVM,
        "party": "acme",
        "asset": "USDT",
        "reference": "",
        "end_to_end": "",
        "name": "",
        "iban": "",
        "value_date": DAY,
        "first_seen_at": NOW + timedelta(seconds=number),
        **changes,
    }
    return Incoming(id=UUID(int=number), value=value, **values)


def wire(number: int, value: int, reference: str = "", **changes: Any) -> Incoming:
    """A credit at the bank; nobody says whose it is."""
    values = {"rail": Rail.BANK, "party": None, "asset": "USD", "reference": reference}
    return receipt(number, value, **{**values, **changes})


def awaited(number: int, remaining: int, **changes: Any) -> Expected:
    """Something that acme owes on a chain."""
    values: dict[str, Any] = {
        "party": "acme",
        "asset": "USDT",
        "value_date": DAY,
        "rail": Rail.EVM,
        "references": (f"REF{number}",),
        **changes,
    }
    return Expected(id=UUID(int=number), remaining=remaining, **values)


def due(number: int, remaining: int, **changes: Any) -> Expected:
    """Something that acme owes through the bank."""
    return awaited(number, remaining, **{"rail": Rail.BANK, "asset": "USD", **changes})


def told(verdict: Verdict) -> str:
    """``1 exact 7:100``: the receipt, the rule, what of which instruction; charges as +, excess as >."""
    who = "+".join(str(key.int) for key in verdict.incoming)
    if verdict.rule is None:
        seen = ["+".join(str(i.int) for i in s.expected) for s in verdict.suggestions]
        return f"{who} ? {' '.join(seen)}".rstrip()
    parts = [
        f"{part.expected.int}:{part.applied}"
        + (f"+{part.charge}" if part.charge else "")
        + (f">{part.excess}" if part.excess else "")
        for part in verdict.parts
    ]
    return f"{who} {verdict.rule} {' '.join(parts)}"


def decide(
    incoming: Sequence[Incoming], expected: Sequence[Expected], rules: Rules = FIRST_RULES
) -> list[str]:
    """Return every verdict as text, sorted."""
    return sorted(told(verdict) for verdict in match_all(incoming, expected, rules))
