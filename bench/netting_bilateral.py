"""Bilateral netting of a million obligations in memory: how long?"""

from __future__ import annotations

from typing import Final

from bench.measure import Measured, Result, Shared, alternate, versions
from bench.netting_graphs import draw_edges
from settlement.netting.forms import net_pairs

EDGES: Final = 1_000_000
PARTIES: Final = 500
ROUNDS: Final = 5
SEED: Final = 1
GOAL_S: Final = 5


def measure(shared: Shared) -> Measured:  # noqa: ARG001  the shape of a benchmark
    """Time the netting of every pair; that the pairs keep every position is looked at after."""
    edges = draw_edges(SEED, parties=PARTIES, count=EDGES)
    rate = alternate({"pairs": lambda: lambda: len(edges) if net_pairs(edges) else 0}, ROUNDS)
    pairs = net_pairs(edges)
    positions: dict[str, int] = {}
    for edge in edges:
        positions[edge.debtor] = positions.get(edge.debtor, 0) + edge.amount
        positions[edge.creditor] = positions.get(edge.creditor, 0) - edge.amount
    for (debtor, creditor), net in pairs.items():
        positions[debtor] -= net
        positions[creditor] += net
    if any(positions.values()):
        raise ValueError("netting moved a position")
    gross = sum(edge.amount for edge in edges)
    return Measured(
        results=[
            Result(name="netting_bilateral", value=EDGES / rate["pairs"], unit="s", at_most=GOAL_S)
        ],
        conditions={
            "obligations": f"{EDGES:,} of {PARTIES:,} parties",
            "pairs": f"{len(pairs):,}",
            "moves": f"{100 * sum(map(abs, pairs.values())) / gross:.2f} % of gross",
        },
        versions=versions(),
    )
