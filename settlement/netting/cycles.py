"""Cycle clearing without novation: what goes in circles is set off, and nobody owes anybody new.

A maximum circulation: set off f with 0 ≤ f ≤ amount, as much in as out at every party, Σ f as large
as can be (Fleischman and Dini, "Mathematical Foundations for Balancing the Payment System in the
Trade Credit Market", 2021). What remains, amount - f, keeps every party's position and has no
circle left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from settlement.netting.exact import BUILT_IN
from settlement.netting.model import Circulation, Clearing, Edge, Solvers


@dataclass(frozen=True, slots=True)
class Graph:
    """Edges as a network: parallel ones are one arc.

    Attributes:
        edges: oldest first.
        arcs: of each of *edges*, its arc.
        network: nodes and arcs are numbered by the oldest edge that they have a part in, so that
            names of parties decide nothing.
    """

    edges: Sequence[Edge]
    arcs: Sequence[int]
    network: Circulation


def clear_cycles(edges: Sequence[Edge], *, solvers: Solvers = BUILT_IN) -> Clearing:
    """Set off as much as goes in circles.

    The same edges in any order, under any names of the parties, clear the same. Of parallel edges
    the oldest are set off first. The result is verified in integers before it is returned.

    Args:
        solvers: `settlement.solvers.loading.load_solvers()` for large graphs.

    Raises:
        ValueError: an amount is not above zero, a party owes itself, or two have one id or order key.
    """
    graph = build_graph(edges)
    flows = solvers.flow(graph.network)
    _verify(graph.network, flows)
    left = list(flows)
    set_off = {}
    for edge, arc in zip(graph.edges, graph.arcs, strict=True):
        set_off[edge.id] = taken = min(left[arc], edge.amount)
        left[arc] -= taken
    gross = sum(graph.network.capacities)
    return Clearing(
        set_off=set_off,
        gross=gross,
        cleared=sum(flows),
        method=solvers.flow.name,
        bound=gross - _must_move(graph.network),
    )


def build_graph(edges: Sequence[Edge]) -> Graph:
    """Return the network of *edges*.

    Raises:
        ValueError: as `clear_cycles`.
    """
    require_edges(edges)
    ordered = sorted(edges, key=attrgetter("order_key"))
    numbers: dict[str, int] = {}
    known: dict[int, int] = {}
    tails: list[int] = []
    heads: list[int] = []
    capacities: list[int] = []
    arcs: list[int] = []
    nodes_max = 2 * len(ordered)
    for edge in ordered:
        tail = numbers.setdefault(edge.debtor, len(numbers))
        head = numbers.setdefault(edge.creditor, len(numbers))
        arc = known.setdefault(tail * nodes_max + head, len(tails))
        if arc == len(tails):
            tails.append(tail)
            heads.append(head)
            capacities.append(edge.amount)
        else:
            capacities[arc] += edge.amount
        arcs.append(arc)
    return Graph(
        edges=ordered,
        arcs=arcs,
        network=Circulation(len(numbers), tails, heads, capacities, [1] * len(tails)),
    )


def require_edges(edges: Sequence[Edge]) -> None:
    """Require edges that can be.

    Raises:
        ValueError: as `clear_cycles`.
    """
    for what, distinct in (
        ("id", len({edge.id for edge in edges})),
        ("place in the order", len({edge.order_key for edge in edges})),
    ):
        if distinct != len(edges):
            raise ValueError(f"an obligation comes twice: two have the same {what}")
    for edge in edges:
        if edge.amount <= 0:
            raise ValueError(f"what is owed is above zero: {edge.id}")
        if edge.debtor == edge.creditor:
            raise ValueError(f"nobody owes himself: {edge.id}")


def _must_move(network: Circulation) -> int:
    position = [0] * network.nodes
    for tail, head, amount in zip(network.tails, network.heads, network.capacities, strict=True):
        position[tail] -= amount
        position[head] += amount
    return sum(p for p in position if p > 0)


def _verify(network: Circulation, flows: Sequence[int]) -> None:
    """Require of whatever a solver found: no amount grows, no position moves, no circle is left."""
    change = [0] * network.nodes
    left: list[list[int]] = [[] for _ in range(network.nodes)]
    entering = [0] * network.nodes
    for tail, head, capacity, flow in zip(
        network.tails, network.heads, network.capacities, flows, strict=True
    ):
        if not 0 <= flow <= capacity:
            raise AssertionError(f"a set-off of {flow} of {capacity}")
        change[tail] += flow
        change[head] -= flow
        if flow < capacity:
            left[tail].append(head)
            entering[head] += 1
    if any(change):
        raise AssertionError("clearing would change a position")
    # Kahn: whoever nobody owes is taken out, until nobody is left; those in a circle would stay.
    ready = [node for node, count in enumerate(entering) if not count]
    for node in ready:
        for head in left[node]:
            entering[head] -= 1
            if not entering[head]:
                ready.append(head)
    if len(ready) != network.nodes:
        raise AssertionError("clearing would leave a circle")
