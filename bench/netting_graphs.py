"""Seeded graphs of obligations between many parties, the same on every machine."""

from __future__ import annotations

from datetime import date
from random import Random
from typing import Final

from settlement.netting.model import Edge

DAY: Final = date(2026, 1, 5)
MU: Final = 14.0
SIGMA: Final = 1.0


def draw_edges(seed: int, *, parties: int, count: int) -> list[Edge]:
    """Return edges between uniformly drawn parties, of lognormal amounts, oldest first."""
    rng = Random(seed)
    names = [f"party-{number:05}" for number in range(parties)]
    edges = []
    for number in range(count):
        debtor, creditor = rng.sample(names, 2)
        name = f"{number:08}"
        amount = 1 + int(rng.lognormvariate(MU, SIGMA))
        edges.append(Edge(name, debtor, creditor, amount, (DAY, name)))
    return edges
