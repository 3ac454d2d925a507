"""Client money: what is held for clients covers what is owed to them, asset by asset.

Holdings count where the account's owner class is ``client`` or ``client:<id>``: wallets, venue,
bank and transit accounts, as posted. Liabilities are the clients' own accounts, as posted. Coins that arrived
but are credited to nobody yet are pending on both sides and count on neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.model import TrialBalanceRow
from ledger.queries import trial_balance

HOLDINGS: Final = ("custody:", "venue:", "bank:", "transit:")
LIABILITIES: Final = "client:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """One asset: holdings of owner class client, and what is owed to clients, in smallest units."""

    asset: str
    holdings: int
    liabilities: int

    @property
    def shortfall(self) -> int:
        """Return what is missing, 0 where clients are covered."""
        return max(0, self.liabilities - self.holdings)

    @property
    def covered(self) -> bool:
        """Tell whether the holdings are enough."""
        return self.holdings >= self.liabilities


async def coverage(
    conn: AsyncConnection,
    book: int,
    *,
    at_sequence: int | None = None,
    at_time: datetime | None = None,
) -> list[Coverage]:
    """Return the coverage of every asset that clients hold, now or as of then."""
    return measure(await trial_balance(conn, book, at_sequence=at_sequence, at_time=at_time))


def measure(rows: list[TrialBalanceRow]) -> list[Coverage]:
    """Return the coverage that a trial balance shows, ordered by asset."""
    holdings: dict[str, int] = {}
    liabilities: dict[str, int] = {}
    for row in rows:
        if row.path.startswith(LIABILITIES):
            liabilities[row.asset] = liabilities.get(row.asset, 0) + row.balance
        elif row.path.startswith(HOLDINGS) and _is_clients(row.owner):
            holdings[row.asset] = holdings.get(row.asset, 0) + row.balance
    return [
        Coverage(
            asset=asset, holdings=holdings.get(asset, 0), liabilities=liabilities.get(asset, 0)
        )
        for asset in sorted(holdings.keys() | liabilities.keys())
    ]


def _is_clients(owner: str) -> bool:
    return owner == "client" or owner.startswith("client:")
