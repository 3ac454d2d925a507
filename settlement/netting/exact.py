"""Circulations of the greatest gain in integers of any size, without a library.

Arcs that gain are saturated first; what they carry too much flows back at the least cost. That
minimum-cost flow is solved by the primal-dual method (Ahuja, Magnanti and Orlin, "Network Flows",
1993, chapter 9.8): distances by Dijkstra under potentials, then a maximum flow along the shortest
paths. Distances are integers and only grow, so the rounds are at most as many as the nodes,
however large the amounts are.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from typing import Final

from settlement.netting.model import Circulation, Solvers


class ExactFlow:
    """The solver of our own."""

    @property
    def name(self) -> str:
        """Return what records call it."""
        return "primal-dual"

    def __call__(self, network: Circulation) -> Sequence[int]:
        """Return the flow on each arc: as much into each node as out of it, Σ gain as can be."""
        back = _Network(network.nodes)
        for tail, head, capacity, gain in zip(
            network.tails, network.heads, network.capacities, network.gains, strict=True
        ):
            back.add(tail, head, capacity, gain)
        back.serve()
        return back.flows()


BUILT_IN: Final = Solvers(flow=ExactFlow())


class _Network:
    """The network of what flows back: even arcs are its arcs, odd ones undo the arc before them."""

    def __init__(self, nodes: int) -> None:
        self.source, self.sink = nodes, nodes + 1
        self.out: list[list[int]] = [[] for _ in range(nodes + 2)]
        self.to: list[int] = []
        self.free: list[int] = []
        self.cost: list[int] = []
        self.potential = [0] * (nodes + 2)
        self.supply = [0] * nodes
        self.gaining: list[bool] = []

    def add(self, tail: int, head: int, capacity: int, gain: int) -> None:
        """Add an arc of the circulation; one that gains is saturated, and r of it flows back."""
        self.gaining.append(gain > 0)
        if gain > 0:
            # r = capacity - f lies on the same arc: the saturated arc took its capacity from the tail.
            self.supply[tail] += capacity
            self.supply[head] -= capacity
            self._arc(tail, head, capacity, 1)
        else:
            self._arc(head, tail, capacity, -gain)

    def serve(self) -> None:
        """Bring every supply to where it is missing, at the least cost."""
        first = len(self.to)
        for node, supply in enumerate(self.supply):
            if supply > 0:
                self._arc(self.source, node, supply, 0)
            elif supply < 0:
                self._arc(node, self.sink, -supply, 0)
        while self._shorten():
            while self._layer():
                self._fill()
        if any(self.free[arc] for arc in self.out[self.source] if arc >= first):
            raise ValueError("the network cannot serve its own saturated arcs: a flow is wrong")

    def flows(self) -> list[int]:
        """Return the circulation: of arcs that gain what did not flow back, of others what did."""
        found = []
        for number, gains in enumerate(self.gaining):
            arc = 2 * number
            found.append(self.free[arc] if gains else self.free[arc + 1])
        return found

    def _arc(self, tail: int, head: int, capacity: int, cost: int) -> None:
        for start, end, free, price in ((tail, head, capacity, cost), (head, tail, 0, -cost)):
            self.out[start].append(len(self.to))
            self.to.append(end)
            self.free.append(free)
            self.cost.append(price)

    def _shorten(self) -> bool:
        """Set the potentials to the distances from the source; False if the sink is out of reach."""
        far = 2 * len(self.out) * len(self.out)
        distance = [far] * len(self.out)
        distance[self.source] = 0
        heap = [(0, self.source)]
        to, free, cost, potential = self.to, self.free, self.cost, self.potential
        while heap:
            here, node = heapq.heappop(heap)
            if here > distance[node]:
                continue
            base = here + potential[node]
            for arc in self.out[node]:
                there = to[arc]
                if free[arc] and (found := base + cost[arc] - potential[there]) < distance[there]:
                    distance[there] = found
                    heapq.heappush(heap, (found, there))
        reach = distance[self.sink]
        for node, found in enumerate(distance):
            potential[node] += min(found, reach)
        return reach < far

    def _layer(self) -> bool:
        """Number the nodes by their steps from the source along tight arcs; False without the sink."""
        self.level = [-1] * len(self.out)
        self.level[self.source] = 0
        waiting = deque([self.source])
        while waiting:
            node = waiting.popleft()
            here, step = self.potential[node], self.level[node] + 1
            for arc in self.out[node]:
                there = self.to[arc]
                if (
                    self.level[there] < 0
                    and self.free[arc]
                    and here + self.cost[arc] == self.potential[there]
                ):
                    self.level[there] = step
                    waiting.append(there)
        return self.level[self.sink] >= 0

    def _fill(self) -> None:
        """Send a blocking flow through the layers."""
        tried = [0] * len(self.out)
        path: list[int] = []
        node = self.source
        while True:
            if node == self.sink:
                node = self._send(path)
            elif (arc := self._next(node, tried)) is not None:
                path.append(arc)
                node = self.to[arc]
            elif path:
                self.level[node] = -1
                node = self.to[path.pop() ^ 1]
            else:
                return

    def _next(self, node: int, tried: list[int]) -> int | None:
        """Return the first arc into the next layer that is not used up, None if there is none."""
        out, level = self.out[node], self.level[node] + 1
        here = self.potential[node]
        while tried[node] < len(out):
            arc = out[tried[node]]
            there = self.to[arc]
            if (
                self.free[arc]
                and self.level[there] == level
                and here + self.cost[arc] == self.potential[there]
            ):
                return arc
            tried[node] += 1
        return None

    def _send(self, path: list[int]) -> int:
        """Send what fits along *path*; cut it before the first full arc, and return where it ends."""
        amount = min(self.free[arc] for arc in path)
        for arc in path:
            self.free[arc] -= amount
            self.free[arc ^ 1] += amount
        keep = next(n for n, arc in enumerate(path) if not self.free[arc])
        node = self.to[path[keep] ^ 1]
        del path[keep:]
        return node
