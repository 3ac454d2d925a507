"""What the journal's postings did to the house's own position. Pure.

Assets less liabilities are, asset by asset, the sum of the accounts of class equity and result: what
desks exchanged (``conversion``), what was earned and spent, what owners put in. So the journal of those
accounts is the journal of the house's own holdings, whoever keeps the coins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date
from typing import Final
from uuid import UUID

from ledger.model import JournalTransfer
from reporting.valuation.model import Exchange, LineKind, Movement, Single
from trading.pnl.flows import moved, standing
from trading.pnl.model import Flow, FlowKind

CONVERSION: Final = "conversion:"
KIND_OF: Final = {
    "income:": LineKind.INCOME,
    "house:": LineKind.INCOME,
    "expense:": LineKind.EXPENSE,
    "equity:": LineKind.CAPITAL,
}
OWN_PREFIXES: Final = (CONVERSION, *KIND_OF)


def kind_of(path: str) -> LineKind:
    """Return what a movement of this account is; of a desk's account, a gain that no deal explains."""
    if path.startswith(CONVERSION):
        return LineKind.INCOME
    return next(kind for prefix, kind in KIND_OF.items() if path.startswith(prefix))


def movements_of(
    flows: Mapping[str, Sequence[Flow]],
    transfers: Iterable[JournalTransfer],
    *,
    through: int,
) -> tuple[Movement, ...]:
    """Return what moved the house's own position and stands at sequence *through*, in order.

    Args:
        flows: by ``conversion:<desk>``, those that stand at *through*.
        transfers: at least all that touch an own account by then.
    """
    stand = standing(transfers, through)
    firsts: dict[UUID, tuple[int, date]] = {}
    groups: dict[UUID, list[JournalTransfer]] = {}
    for item in stand:
        ident = item.correlation or item.id
        at = item.effective_at or item.recorded_at
        firsts.setdefault(ident, (item.sequence, at.astimezone(UTC).date()))
        groups.setdefault(ident, []).append(item)
    exchanges, others = _exchanges(flows)
    found = []
    for ident, (sequence, day) in firsts.items():
        mine = Movement(
            id=ident,
            sequence=sequence,
            day=day,
            exchanges=exchanges.get(ident, ()),
            singles=(*others.get(ident, ()), *_singles(groups[ident])),
        )
        if mine.exchanges or mine.singles:
            found.append(mine)
    return tuple(sorted(found, key=lambda item: item.sequence))


def _exchanges(
    flows: Mapping[str, Sequence[Flow]],
) -> tuple[dict[UUID, tuple[Exchange, ...]], dict[UUID, list[Single]]]:
    """Return exchanges by id, those between desks of one house cancelled, and what is no exchange."""
    sums: dict[tuple[UUID, str, str], list[int]] = {}
    others: dict[UUID, list[Single]] = {}
    for path, mine in sorted(flows.items()):
        for flow in mine:
            if flow.kind is FlowKind.OTHER:
                single = Single(kind_of(path), path, flow.base, flow.base_units)
                others.setdefault(flow.id, []).append(single)
                continue
            units = sums.setdefault((flow.id, flow.base, flow.quote), [0, 0])
            units[0] += flow.base_units
            units[1] += flow.quote_units
    found: dict[UUID, tuple[Exchange, ...]] = {}
    for (ident, base, quote), (base_units, quote_units) in sums.items():
        if base_units or quote_units:
            more = Exchange(base, base_units, quote, quote_units)
            found[ident] = (*found.get(ident, ()), more)
    return found, others


def _singles(group: Sequence[JournalTransfer]) -> tuple[Single, ...]:
    paths = {
        path
        for item in group
        for path in (item.debit, item.credit)
        if path.startswith(tuple(KIND_OF))
    }
    return tuple(
        Single(kind_of(path), path, asset, units)
        for path in sorted(paths)
        for asset, units in sorted(moved(group, path).items())
    )


def position_of(movements: Iterable[Movement]) -> dict[str, int]:
    """Return what the movements come to by asset; zero is left out."""
    found: Counter[str] = Counter()
    for item in movements:
        for exchange in item.exchanges:
            found[exchange.base] += exchange.base_units
            found[exchange.quote] += exchange.quote_units
        for single in item.singles:
            found[single.asset] += single.units
    return {asset: units for asset, units in found.items() if units}


def rates_needed(movements: Iterable[Movement], currency: str) -> dict[date, set[str]]:
    """Return of which days' closes the movements need the price of which assets."""
    found: dict[date, set[str]] = {}
    for item in movements:
        mine = {single.asset for single in item.singles}
        mine |= {x.quote for x in item.exchanges if currency not in (x.base, x.quote)}
        mine -= {currency}
        if mine:
            found.setdefault(item.day, set()).update(mine)
    return found
