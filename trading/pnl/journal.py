"""Reading a desk's flows from the journal, and its balances to compare them with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.model import JournalTransfer
from ledger.queries import list_accounts
from ledger.search import page_transfers
from ledger.views import TransferFilter
from trading.pnl import store
from trading.pnl.errors import TooManyFlows
from trading.pnl.flows import CHARGES, Dealt, Traded, flows_of
from trading.pnl.model import Flow
from trading.postings import conversion
from venues.fills import pairs_of_fills

TRANSFERS_MAX: Final = 1_000_000
"""Postings of one account that one run reads, at most."""

FACTS_MAX: Final = 5_000
"""Deals or fills in one statement, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """What the journal says of a desk's account, with what deals and fills say of themselves."""

    path: str
    transfers: tuple[JournalTransfer, ...]
    dealt: dict[UUID, Dealt]
    traded: dict[UUID, Traded]

    def flows(self, through: int) -> tuple[Flow, ...]:
        """Return the flows that stand at sequence *through*."""
        return flows_of(self.path, self.transfers, self.dealt, self.traded, through=through)


async def read_journal(
    conn: AsyncConnection, book: int, desk: str, *, through: int, after: int = 0
) -> Journal:
    """Read all that moved a desk's account behind sequence *after* and by *through*.

    The journal has an index by account, so this costs by what moved that account and those of fees.

    Raises:
        TooManyFlows: that is more than `TRANSFERS_MAX`.
    """
    path = conversion(desk)
    mine = await read_account(conn, book, path, after=after, through=through)
    ids = sorted({item.correlation for item in mine if item.correlation is not None})
    known = set(ids)
    charges = [
        item
        for fees in CHARGES
        for item in await read_account(conn, book, fees, after=after, through=through)
        if item.correlation in known
    ]
    return Journal(
        path=path,
        transfers=(*mine, *charges),
        dealt=await _dealt(conn, ids),
        traded=await _traded(conn, ids),
    )


async def read_account(
    conn: AsyncConnection, book: int, path: str, *, after: int, through: int
) -> list[JournalTransfer]:
    """Return the transfers of one path in the journal's order: behind *after*, by *through*.

    Raises:
        TooManyFlows: there are more than `TRANSFERS_MAX`.
    """
    wanted = TransferFilter(path=path)
    found: list[JournalTransfer] = []
    cursor: int | None = after
    while cursor is not None and cursor < through:
        page = await page_transfers(conn, book, wanted, after=cursor)
        found += [item for item in page.items if item.sequence <= through]
        if len(found) > TRANSFERS_MAX:
            raise TooManyFlows(
                f"{path} of book {book} has more than {TRANSFERS_MAX} postings",
                remedy="Ask for an earlier day, or split the desk",
            )
        cursor = page.after
    return found


async def balances(conn: AsyncConnection, book: int, desk: str, *, at: int) -> dict[str, int]:
    """Return the balance of a desk's account by asset as of sequence *at*; zero is left out."""
    if not at:
        return {}
    path = conversion(desk)
    accounts = await list_accounts(conn, book, path, at_sequence=at)
    return {
        item.asset: item.balance.posted
        for item in accounts
        if item.path == path and item.balance.posted
    }


async def _dealt(conn: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, Dealt]:
    found: dict[UUID, Dealt] = {}
    for part in _parts(ids):
        found |= await store.list_dealt(conn, part)
    return found


async def _traded(conn: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, Traded]:
    found: dict[UUID, Traded] = {}
    for part in _parts(ids):
        pairs = await pairs_of_fills(conn, part)
        found |= {ident: Traded(base, quote) for ident, (base, quote) in pairs.items()}
    return found


def _parts(ids: Sequence[UUID]) -> list[Collection[UUID]]:
    return [ids[start : start + FACTS_MAX] for start in range(0, len(ids), FACTS_MAX)]
