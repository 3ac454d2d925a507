"""Which hedge closed which deal: first in, first out, in the order of the journal. Pure.

The definitions are those of docs/profit-and-loss.md, section 2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from trading.pnl.model import Allocation, Flow, FlowKind, Match, Slice


def prefix(total: int, units: int, of_units: int) -> int:
    """Return what of *total* belongs to the first *units* of *of_units*: rounded down.

    So parts of any cut add up to the total, and a part never changes when what is behind it is cut.
    """
    return total * units // of_units


@dataclass(slots=True)
class _Lot:
    """A flow on its way: so much of it, from the front, is matched."""

    flow: Flow
    taken: int = 0

    @property
    def size(self) -> int:
        return abs(self.flow.base_units)

    @property
    def left(self) -> int:
        return self.size - self.taken

    def take(self, units: int) -> Slice:
        """Cut the next *units* off the front."""
        start, self.taken = self.taken, self.taken + units
        return Slice(
            self.flow,
            units if self.flow.base_units > 0 else -units,
            self._part(self.flow.reference_units, start),
            tuple((asset, self._part(total, start)) for asset, total in self._shared()),
        )

    def _part(self, total: int, start: int) -> int:
        return prefix(total, self.taken, self.size) - prefix(total, start, self.size)

    def _shared(self) -> tuple[tuple[str, int], ...]:
        """Return the charges that go with the units: a venue's; a deal's fee is for the whole deal."""
        return () if self.flow.is_client else self.flow.charges


def allocate(flows: Iterable[Flow]) -> Allocation:
    """Match *flows*, given in the order of the journal, base asset by base asset.

    A flow meets the oldest opposite ones that are open, whatever they are: deals of clients, hedges,
    fees in kind. What is left of it waits for the next. `FlowKind.OTHER` and flows without any base
    take no part.
    """
    every = tuple(flows)
    queues: dict[str, deque[_Lot]] = {}
    matches: list[Match] = []
    for flow in every:
        if flow.kind is FlowKind.OTHER or not flow.base_units:
            continue
        queue = queues.setdefault(flow.base, deque())
        lot = _Lot(flow)
        matches += _close(queue, lot)
        if lot.left:
            queue.append(lot)
    rest = sorted((lot for queue in queues.values() for lot in queue), key=_order)
    return Allocation(every, tuple(matches), tuple(lot.take(lot.left) for lot in rest))


def _close(queue: deque[_Lot], lot: _Lot) -> list[Match]:
    """Match *lot* with the front of a queue whose lots all have one sign."""
    found: list[Match] = []
    while queue and lot.left and (queue[0].flow.base_units > 0) != (lot.flow.base_units > 0):
        units = min(queue[0].left, lot.left)
        found.append(Match(queue[0].take(units), lot.take(units)))
        if not queue[0].left:
            queue.popleft()
    return found


def _order(lot: _Lot) -> tuple[int, str]:
    return lot.flow.sequence, lot.flow.base
