"""OR-tools: minimum-cost flows by cost scaling, in 64-bit integers.

Amounts beyond 64 bits are solved in rounds, coarse quanta first: what a round finds is flowed, and
the next round looks for gain in what is left. The last round is in single units and finds nothing,
which proves that there is nothing to find: a circulation gains as much as can be if and only if
nothing gains in what it leaves (Ahuja, Magnanti and Orlin, "Network Flows", 1993, theorem 9.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

# It brings stubs, and does not say that it is typed.
from ortools.graph.python.min_cost_flow import SimpleMinCostFlow  # type: ignore[import-untyped]

from settlement.netting.model import Circulation

SUM_MAX: Final = 2**61
"""Σ of the capacities that one round may have: within int64 with room for the sums at a node."""


class OrToolsFlow:
    """The solver for large graphs."""

    @property
    def name(self) -> str:
        """Return what records call it."""
        return "or-tools"

    def __call__(self, network: Circulation) -> Sequence[int]:
        """Return the flow on each arc: as much into each node as out of it, Σ gain as can be."""
        if sum(network.capacities) <= SUM_MAX:
            return _solve(network)
        return _in_rounds(network)


def _in_rounds(network: Circulation) -> list[int]:
    flows = [0] * len(network.tails)
    arcs = 2 * len(flows)
    fitting = SUM_MAX // arcs
    # What is left to gain after a quantum is less than one quantum for each arc.
    finer = max(2, fitting // arcs)
    quantum = max(network.capacities) // fitting + 1
    while _improve(network, flows, quantum, fitting) or quantum > 1:
        quantum = max(1, quantum // finer)
    return flows


def _improve(network: Circulation, flows: list[int], quantum: int, fitting: int) -> bool:
    """Flow what gains in what *flows* leave, in multiples of *quantum*; False if nothing does."""
    free = [c - f for c, f in zip(network.capacities, flows, strict=True)]
    found = _solve(
        Circulation(
            nodes=network.nodes,
            tails=[*network.tails, *network.heads],
            heads=[*network.heads, *network.tails],
            capacities=[min(left // quantum, fitting) for left in (*free, *flows)],
            gains=[*network.gains, *(-gain for gain in network.gains)],
        )
    )
    moved = [
        there - back for there, back in zip(found[: len(flows)], found[len(flows) :], strict=True)
    ]
    # What only goes another way round gains nothing, and would go round for ever.
    if sum(m * gain for m, gain in zip(moved, network.gains, strict=True)) == 0:
        return False
    for number, m in enumerate(moved):
        flows[number] += m * quantum
    return True


def _solve(network: Circulation) -> list[int]:
    """Solve in 64 bits: arcs that gain are saturated, and what is too much flows back."""
    tails = np.array(network.tails, dtype=np.int32)
    heads = np.array(network.heads, dtype=np.int32)
    capacities = np.array(network.capacities, dtype=np.int64)
    gains = np.array(network.gains, dtype=np.int64)
    saturated = gains > 0
    supplies = np.zeros(network.nodes, dtype=np.int64)
    np.add.at(supplies, tails[saturated], capacities[saturated])
    np.subtract.at(supplies, heads[saturated], capacities[saturated])
    solver = SimpleMinCostFlow()
    arcs = solver.add_arcs_with_capacity_and_unit_cost(
        np.where(saturated, tails, heads),
        np.where(saturated, heads, tails),
        capacities,
        np.abs(gains),
    )
    solver.set_nodes_supplies(np.arange(network.nodes, dtype=np.int32), supplies)
    status = solver.solve()
    if status != SimpleMinCostFlow.Status.OPTIMAL:
        raise ValueError(f"the network of netting was not solved: {status.name}")
    back = np.asarray(solver.flows(arcs))
    flows: list[int] = np.where(saturated, capacities - back, back).tolist()
    return flows
