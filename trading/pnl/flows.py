"""What the journal's postings were: flows of one desk, in the journal's order. Pure.

Everything that a deal or fill did is one chain whose transfers carry its id as correlation. So the
postings of a correlation that were not taken back are the flow, and those of them that went to
``income:fee`` or came from ``expense:venue-fee`` are its charges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from kernel.money import Price, Rounding
from ledger.model import JournalTransfer, Kind
from trading.model import DealPurpose
from trading.pnl.model import Flow, FlowKind
from trading.postings import FILL_FEE

DEAL_FEES: Final = "income:fee"
VENUE_FEES: Final = "expense:venue-fee"
CHARGES: Final = (DEAL_FEES, VENUE_FEES)

_KINDS: Final = {
    DealPurpose.CLIENT: FlowKind.CLIENT,
    DealPurpose.HEDGE: FlowKind.HEDGE,
    DealPurpose.TRANSFER: FlowKind.TRANSFER,
}
_EVER: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Dealt:
    """What of a deal a flow needs to know; *mid*: None where none is on record."""

    purpose: DealPurpose
    base: str
    quote: str
    mid: Price | None


@dataclass(frozen=True, slots=True)
class Traded:
    """What of a fill a flow needs to know."""

    base: str
    quote: str


def standing(
    transfers: Iterable[JournalTransfer], through: int = _EVER
) -> tuple[JournalTransfer, ...]:
    """Return what was posted by sequence *through* and not taken back by then, in its order."""
    known = sorted(
        {item.id: item for item in transfers if item.sequence <= through}.values(),
        key=lambda item: item.sequence,
    )
    gone = {item.reverses for item in known if item.kind is Kind.REVERSAL}
    return tuple(item for item in known if item.kind is not Kind.REVERSAL and item.id not in gone)


def moved(transfers: Iterable[JournalTransfer], path: str) -> dict[str, int]:
    """Return credits less debits of *path* by asset, in smallest units."""
    found: Counter[str] = Counter()
    for item in transfers:
        if path in (item.credit, item.debit):
            found[item.asset] += item.amount if item.credit == path else -item.amount
    return {asset: units for asset, units in found.items() if units}


def flows_of(
    path: str,
    transfers: Iterable[JournalTransfer],
    dealt: Mapping[UUID, Dealt],
    traded: Mapping[UUID, Traded],
    *,
    through: int = _EVER,
) -> tuple[Flow, ...]:
    """Return the flows of the account *path* that stand at sequence *through*.

    Args:
        path: ``conversion:<desk>``.
        transfers: at least all that touch it or a charge of it by then; others are left out.
        dealt, traded: the deals and fills by id; a correlation in neither is another posting.
    """
    groups: dict[UUID, list[JournalTransfer]] = {}
    for item in standing(transfers, through):
        groups.setdefault(item.correlation or item.id, []).append(item)
    found: list[Flow] = []
    for ident, group in groups.items():
        if not any(path in (item.debit, item.credit) for item in group):
            continue
        if ident in dealt:
            found += _deal(ident, group, path, dealt[ident])
        elif ident in traded:
            found += _fill(ident, group, path, traded[ident])
        else:
            found += _others(ident, group, moved(group, path))
    return tuple(sorted(found, key=lambda flow: (flow.sequence, flow.base)))


def _deal(ident: UUID, group: Sequence[JournalTransfer], path: str, deal: Dealt) -> Iterator[Flow]:
    units = moved(group, path)
    base, quote = units.pop(deal.base, 0), units.pop(deal.quote, 0)
    kind = _KINDS[deal.purpose]
    is_valued = kind is FlowKind.CLIENT and deal.mid is not None
    yield Flow(
        id=ident,
        kind=kind,
        sequence=group[0].sequence,
        base=deal.base,
        base_units=base,
        quote=deal.quote,
        quote_units=quote,
        mid_units=-deal.mid.to_quote(base, Rounding.DOWN) if is_valued and deal.mid else None,
        charges=_charges(group),
    )
    yield from _others(ident, group, units)


def _fill(ident: UUID, group: Sequence[JournalTransfer], path: str, fill: Traded) -> Iterator[Flow]:
    """Yield the fill with its fee in the base asset, and a fee in a third asset for itself."""
    fees = [item for item in group if item.code == FILL_FEE]
    third = next((asset for asset in moved(fees, path) if asset not in (fill.base, fill.quote)), "")
    units = moved([item for item in group if not third or item.code != FILL_FEE], path)
    yield Flow(
        id=ident,
        kind=FlowKind.FILL,
        sequence=group[0].sequence,
        base=fill.base,
        base_units=units.pop(fill.base, 0),
        quote=fill.quote,
        quote_units=units.pop(fill.quote, 0),
        charges=_charges(group),
    )
    if third:
        in_kind = moved(fees, path)
        yield Flow(
            id=ident,
            kind=FlowKind.FEE,
            sequence=fees[0].sequence,
            base=third,
            base_units=in_kind[third],
            quote=fill.quote,
            quote_units=in_kind.get(fill.quote, 0),
        )
    yield from _others(ident, group, units)


def _others(
    ident: UUID,
    group: Sequence[JournalTransfer],
    units: Mapping[str, int],
) -> Iterator[Flow]:
    for asset, amount in sorted(units.items()):
        yield Flow(
            id=ident,
            kind=FlowKind.OTHER,
            sequence=group[0].sequence,
            base=asset,
            base_units=amount,
        )


def _charges(group: Iterable[JournalTransfer]) -> tuple[tuple[str, int], ...]:
    """Return the charges by asset: what was earned above zero, what was paid below."""
    found: Counter[str] = Counter()
    for path in CHARGES:
        found.update(moved(group, path))
    return tuple(sorted((asset, units) for asset, units in found.items() if units))
