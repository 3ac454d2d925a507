"""Multilateral netting: what a hub would have to move, and each party's position."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from settlement.netting.model import Edge


def multilateral(edges: Iterable[Edge]) -> tuple[Mapping[str, int], int]:
    """Return each party's position (claims less debts; they add up to zero), and the value moved.

    The value moved is Σ of the positions above zero: no way of settling moves less. A hub that steps
    between everybody moves just that, but it changes who owes whom: it needs a legal basis.
    """
    positions: Counter[str] = Counter()
    for edge in edges:
        positions[edge.debtor] -= edge.amount
        positions[edge.creditor] += edge.amount
    return dict(positions), sum(p for p in positions.values() if p > 0)
