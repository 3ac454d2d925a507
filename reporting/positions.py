"""Where everything is, asset by asset, and what of it is the house's own. Pure, over a trial balance.

Assets less liabilities are the house's own, which equity and results say once more from the other side:
`Position.is_tied` compares the two. Trade date is the basis; what settles later is named, so that the
settlement-date view is the same figures without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final

from ledger.model import TrialBalanceRow

CLIENTS: Final = "client"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """One asset; smallest units. What is owed is above zero too, in the columns that are liabilities.

    Attributes:
        for_clients: in places of any kind that are clients' (owner class ``client``).
        custody, venues, banks, transit: the house's own: in wallets, claims on others, and on its way
            between own places.
        receivable, payable: from deals, open and netted; *receivable* with loans and shortfalls.
        collateral_given, collateral_taken: against settlement.
        clients: what clients are owed.
        in_flight, suspense, other_owed: signed and not final; arrived and not assigned; loans, taxes,
            between books.
        desks: positions of the desks (``conversion``), which are part of *equity*.
        equity: what equity and results say is the house's own.
    """

    asset: str
    custody: int = 0
    for_clients: int = 0
    venues: int = 0
    banks: int = 0
    transit: int = 0
    receivable: int = 0
    collateral_given: int = 0
    clients: int = 0
    payable: int = 0
    collateral_taken: int = 0
    in_flight: int = 0
    suspense: int = 0
    other_owed: int = 0
    desks: int = 0
    equity: int = 0

    @property
    def held(self) -> int:
        """Return what is in wallets, at venues, in banks and between them."""
        places = (self.for_clients, self.custody, self.venues, self.banks, self.transit)
        return sum(places)

    @property
    def own(self) -> int:
        """Return assets less liabilities, by trade date."""
        assets = self.held + self.receivable + self.collateral_given
        owed = self.clients + self.payable + self.collateral_taken
        return assets - owed - self.in_flight - self.suspense - self.other_owed

    @property
    def unsettled(self) -> int:
        """Return what of it is still to come (below zero: to go) by deals."""
        return self.receivable - self.payable

    @property
    def settled(self) -> int:
        """Return the house's own by settlement date."""
        return self.own - self.unsettled

    @property
    def is_tied(self) -> bool:
        """Tell whether both sides of the books say the same."""
        return self.own == self.equity

    @property
    def is_empty(self) -> bool:
        """Tell whether every figure is zero."""
        return not any(getattr(self, item.name) for item in fields(self) if item.name != "asset")


#: The first beginning that fits says where an account counts; those of equity and results remain.
_COLUMNS: Final = (
    ("custody:", "custody"),
    ("venue:", "venues"),
    ("bank:", "banks"),
    ("transit:", "transit"),
    ("receivable:", "receivable"),
    ("collateral:given:", "collateral_given"),
    ("collateral:taken:", "collateral_taken"),
    ("client:", "clients"),
    ("payable:", "payable"),
    ("in-flight:", "in_flight"),
    ("suspense:", "suspense"),
    ("liability:", "other_owed"),
    ("clearing:", "other_owed"),
)
_PLACES: Final = ("custody:", "venue:", "bank:", "transit:")
_ASSETS: Final = frozenset(
    {
        *("custody", "for_clients", "venues", "banks", "transit", "receivable"),
        "collateral_given",
    }
)


def positions_of(
    rows: Iterable[TrialBalanceRow], *, with_clients: bool = True
) -> tuple[Position, ...]:
    """Return the position of every asset that has any, by asset.

    Args:
        with_clients: False leaves out what is held for clients and what they are owed for it, as
            books without clients' assets on the balance sheet do; what the one exceeds the other by
            stays as the house's own.
    """
    sums: dict[str, dict[str, int]] = {}
    for row in rows:
        mine = sums.setdefault(row.asset, {})
        net = row.debits - row.credits
        for column in _columns_of(row):
            mine[column] = mine.get(column, 0) + (net if column in _ASSETS else -net)
    found = (Position(asset=asset, **mine) for asset, mine in sorted(sums.items()))
    shown = found if with_clients else (_without_clients(item) for item in found)
    return tuple(item for item in shown if not item.is_empty)


def _columns_of(row: TrialBalanceRow) -> tuple[str, ...]:
    if row.path.startswith(_PLACES) and row.owner.partition(":")[0] == CLIENTS:
        return ("for_clients",)
    for beginning, column in _COLUMNS:
        if row.path.startswith(beginning):
            return (column,)
    return ("equity", "desks") if row.path.startswith("conversion:") else ("equity",)


def _without_clients(item: Position) -> Position:
    covered = min(item.for_clients, item.clients)
    known = {field.name: getattr(item, field.name) for field in fields(item)}
    known["for_clients"] -= covered
    known["clients"] -= covered
    return Position(**known)
