"""What a cycle would come to before anything moves: net, forms side by side, and what it needs.

Nothing of it is kept: the caller rolls its transaction back, which has pulled what deals owe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.funding import funding_need
from settlement.model import Direction, NetItem, Obligation
from settlement.netting.exact import BUILT_IN
from settlement.netting.forms import compare_forms
from settlement.netting.model import Edge, Forms, Solvers
from settlement.places import Need
from settlement.planning import PlannedRun, gather_due, plan_runs
from settlement.windows import by_hand, find_window

DESK: Final = "desk"
"""What the house is called among the parties of a comparison; no party has a slash in its code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """What netting comes to in one asset.

    Attributes:
        gross: Σ of the obligations.
        moves: Σ of the net amounts, by the agreements that are in force.
        carried: Σ of the net amounts that are too small to move.
        forms: what the forms of netting would come to if everything netted with everything.
    """

    asset: str
    gross: int
    moves: int
    carried: int
    forms: Forms

    @property
    def saved(self) -> int:
        """Return what does not have to move."""
        return self.gross - self.moves


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A cycle that was not opened: its runs, what netting saves by asset, what each place needs.

    Attributes:
        left: obligations that are due beyond those that one cycle takes.
    """

    runs: tuple[PlannedRun, ...]
    savings: tuple[Saving, ...]
    needs: tuple[Need, ...]
    left: int

    @property
    def items(self) -> list[NetItem]:
        """Return what would move."""
        return [item for run in self.runs for item in run.result.items]

    @property
    def carried(self) -> list[NetItem]:
        """Return what is too small to."""
        return [item for run in self.runs for item in run.result.carried]


async def preview_cycle(
    conn: AsyncConnection,
    *,
    book: int,
    business_date: date,
    window: str,
    now: datetime,
    solvers: Solvers = BUILT_IN,
) -> Preview:
    """Return what the window's cycle of a date would come to with what is known now.

    Args:
        conn: a transaction that is rolled back afterwards.
        book: the book.
        business_date: everything due by then.
        window: whose thresholds count; one that nobody has set has none.
        now: the time.
        solvers: of the comparison of forms.
    """
    due = await gather_due(conn, book, business_date, now=now)
    policy = await find_window(conn, book, window, on=business_date) or by_hand(book, window)
    runs = await plan_runs(conn, book, business_date, due.obligations, policy)
    items = [item for run in runs for item in run.result.items]
    return Preview(
        runs=tuple(runs),
        savings=tuple(count_savings(due.obligations, runs, solvers=solvers)),
        needs=tuple(await funding_need(conn, book, items)),
        left=due.left,
    )


def count_savings(
    obligations: Sequence[Obligation],
    runs: Sequence[PlannedRun],
    *,
    solvers: Solvers = BUILT_IN,
) -> list[Saving]:
    """Return what netting saves, by asset. Pure."""
    moves = _sums([item for run in runs for item in run.result.items])
    carried = _sums([item for run in runs for item in run.result.carried])
    return [
        Saving(
            asset=asset,
            gross=sum(edge.amount for edge in edges),
            moves=moves.get(asset, 0),
            carried=carried.get(asset, 0),
            forms=compare_forms(edges, solvers=solvers),
        )
        for asset, edges in sorted(_edges(obligations).items())
    ]


def _sums(items: Sequence[NetItem]) -> Mapping[str, int]:
    sums: dict[str, int] = {}
    for item in items:
        sums[item.asset] = sums.get(item.asset, 0) + item.amount
    return sums


def _edges(obligations: Sequence[Obligation]) -> dict[str, list[Edge]]:
    """Return who owes whom, by asset; parallel obligations are one edge, as the forms see them."""
    first: dict[tuple[str, str, Direction], Obligation] = {}
    sums: dict[tuple[str, str, Direction], int] = {}
    for o in obligations:
        key = (o.asset, o.party, o.direction)
        first.setdefault(key, o)
        sums[key] = sums.get(key, 0) + o.amount
    edges: dict[str, list[Edge]] = {}
    for key, amount in sums.items():
        asset, party, direction = key
        pays = direction is Direction.PAY
        edge = Edge(
            id=f"{party} {direction}",
            debtor=DESK if pays else f"party/{party}",
            creditor=f"party/{party}" if pays else DESK,
            amount=amount,
            order_key=(first[key].value_date, str(first[key].id)),
        )
        edges.setdefault(asset, []).append(edge)
    return edges
