"""Clearing the circles of 300,000 obligations: how long, and how much faster than networkx?

Timed are the building of the network from the obligations and its solution. The peer is
`networkx.network_simplex` on a graph that was built beforehand in the form that it solves fastest, at
a size that it can bear; both find the same optimum, or the benchmark fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import networkx as nx

from bench.measure import Measured, Result, Shared, Turn, alternate, versions
from bench.netting_graphs import draw_edges
from settlement.netting.cycles import build_graph, clear_cycles
from settlement.netting.exact import BUILT_IN
from settlement.netting.model import Edge
from settlement.solvers.loading import load_solvers

EDGES: Final = 300_000
PARTIES: Final = 2_000
PEER_EDGES: Final = 20_000
PEER_PARTIES: Final = 2_000
ROUNDS: Final = 5
SEED: Final = 1
GOAL_S: Final = 1
GOAL_RATIO: Final = 20


def measure(shared: Shared) -> Measured:  # noqa: ARG001  the shape of a benchmark
    """Time the whole graph, then take turns with the peer on the small one."""
    large = draw_edges(SEED, parties=PARTIES, count=EDGES)
    solve = alternate({"solve": lambda: lambda: _solve(large)}, rounds=ROUNDS)["solve"]
    whole = alternate({"whole": lambda: lambda: _clear(large)}, rounds=ROUNDS)["whole"]
    small = draw_edges(SEED, parties=PEER_PARTIES, count=PEER_EDGES)
    rates = alternate(
        {
            "ours": lambda: lambda: _solve(small),
            "networkx": lambda: _simplex(small),
        },
        rounds=ROUNDS,
    )
    own = alternate({"own": lambda: lambda: _own(small)}, rounds=ROUNDS)["own"]
    clearing = clear_cycles(large, solvers=load_solvers())
    return Measured(
        results=[
            Result(name="netting_cycles", value=EDGES / solve, unit="s", at_most=GOAL_S),
            Result(name="netting_cycles.whole", value=EDGES / whole, unit="s"),
            Result(
                name="netting_cycles.networkx",
                value=rates["ours"],
                unit="edges/s",
                baseline="network_simplex of networkx",
                baseline_value=rates["networkx"],
                at_least=GOAL_RATIO,
            ),
            Result(name="netting_cycles.own", value=PEER_EDGES / own, unit="s"),
        ],
        conditions={
            "obligations": f"{EDGES:,} of {PARTIES:,} parties; {PEER_EDGES:,} for the peer",
            "cleared": f"{100 * clearing.cleared / clearing.gross:.2f} % of gross",
            "cannot exceed": f"{100 * clearing.bound / clearing.gross:.2f} %",
        },
        versions=versions("ortools", "networkx"),
    )


def _solve(edges: Sequence[Edge]) -> int:
    load_solvers().flow(build_graph(edges).network)
    return len(edges)


def _clear(edges: Sequence[Edge]) -> int:
    clear_cycles(edges, solvers=load_solvers())
    return len(edges)


def _own(edges: Sequence[Edge]) -> int:
    clear_cycles(edges, solvers=BUILT_IN)
    return len(edges)


def _simplex(edges: Sequence[Edge]) -> Turn:
    """Prepare the form that suits the peer best: what must remain, as a flow that serves demands.

    As a circulation with gains, as we solve it, the same takes it nine times as long.
    """
    expected = clear_cycles(edges, solvers=load_solvers()).remaining
    network = build_graph(edges).network
    graph: nx.DiGraph[int] = nx.DiGraph()
    demands = [0] * network.nodes
    for tail, head, amount in zip(network.tails, network.heads, network.capacities, strict=True):
        demands[tail] -= amount
        demands[head] += amount
        graph.add_edge(tail, head, capacity=amount, weight=1)
    nx.set_node_attributes(graph, dict(enumerate(demands)), "demand")

    def turn() -> int:
        cost, _ = nx.network_simplex(graph)
        if cost != expected:
            raise ValueError(f"networkx leaves {cost}, we leave {expected}")
        return len(edges)

    return turn
