"""What a cycle would come to: obligations sorted into runs, and each run calculated.

Opening a cycle writes what is planned here; a preview shows it and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from registry.queries import list_entities
from settlement import store
from settlement.calculation import Rules, calculate_set
from settlement.model import Calculation, Obligation, Window
from settlement.runs import pull_obligations
from trading.legs import PULL_MAX
from trading.terms.agreements import netting_sets
from trading.terms.model import Rail
from trading.terms.netting_model import NettingItem
from trading.terms.rails import settlement_rails

OBLIGATIONS_MAX: Final = 50_000
"""In one cycle; the oldest. What is left is the next cycle's."""
PULLS_MAX: Final = OBLIGATIONS_MAX // PULL_MAX


@dataclass(frozen=True, slots=True)
class Due:
    """What a cycle takes: the oldest open obligations, and how many more are due that it cannot."""

    obligations: list[Obligation]
    left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One netting set of one party: what is in it, by what rules, and what it comes to."""

    party: str
    netting_set: str
    obligations: tuple[Obligation, ...]
    rules: Rules
    result: Calculation


async def gather_due(
    conn: AsyncConnection,
    book: int,
    value_date: date,
    *,
    now: datetime,
    known_by: datetime | None = None,
) -> Due:
    """Pull what deals owe, then lock what is open, due by a date and known by a moment."""
    for _ in range(PULLS_MAX):
        if not await pull_obligations(conn, book=book, now=now):
            break
    found = await store.lock_open_obligations(
        conn, book, value_date, known_by=known_by, limit=OBLIGATIONS_MAX
    )
    if len(found) < OBLIGATIONS_MAX:
        return Due(found, 0)
    total = await store.count_open_obligations(conn, book, value_date, known_by=known_by)
    return Due(found, total - len(found))


async def plan_runs(
    conn: AsyncConnection,
    book: int,
    value_date: date,
    obligations: Sequence[Obligation],
    window: Window,
) -> list[PlannedRun]:
    """Return the runs of *obligations*, by party and netting set, in a fixed number of statements."""
    if not obligations:
        return []
    office = await office_of(conn, book)
    items = [netting_item(o, office) for o in obligations]
    sets = await netting_sets(conn, items, on=value_date)
    keys = {(o.party, o.asset) for o in obligations}
    rails = await settlement_rails(conn, keys, on=value_date)
    groups: dict[tuple[str, str], list[Obligation]] = {}
    for obligation in obligations:
        groups.setdefault((obligation.party, sets[obligation.id]), []).append(obligation)
    thresholds = {item.asset: item.units for item in window.thresholds}
    return [
        _plan(party, name, group, rails, thresholds, value_date)
        for (party, name), group in sorted(groups.items())
    ]


def _plan(
    party: str,
    netting_set: str,
    group: Sequence[Obligation],
    rails: Mapping[tuple[str, str], Rail],
    thresholds: Mapping[str, int],
    value_date: date,
) -> PlannedRun:
    assets = {o.asset for o in group}
    rules = Rules(
        netting_set=netting_set,
        rails={asset: rails[party, asset] for asset in assets},
        thresholds={asset: thresholds[asset] for asset in assets & thresholds.keys()},
    )
    return PlannedRun(
        party=party,
        netting_set=netting_set,
        obligations=tuple(group),
        rules=rules,
        result=calculate_set(group, rules, value_date=value_date, version=1),
    )


def netting_item(o: Obligation, office: str) -> NettingItem:
    """Return an obligation as far as it matters for what it nets with."""
    return NettingItem(
        id=o.id,
        party=o.party,
        office=office,
        product=o.product,
        asset=o.asset,
        trade_date=o.trade_date or o.value_date,
        value_date=o.value_date,
        # What came with the cut-over has no trade of ours: each line of it stands alone.
        trade_id=o.deal_id if o.has_deal else None,
    )


async def office_of(conn: AsyncConnection, book: int) -> str:
    """Return the code of the legal entity whose book it is."""
    for entity in await list_entities(conn):
        if entity.book == book:
            return entity.code
    raise BadInput(f"no legal entity keeps book {book}", remedy="Register it first")
