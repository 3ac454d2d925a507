"""The desk's position: what the ledger says, nothing else."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.queries import list_accounts
from trading.postings import conversion


async def position(conn: AsyncConnection, book: int, desk: str) -> dict[str, int]:
    """Return the desk's position by asset code, in smallest units; positive is long.

    It is credits less debits of ``conversion:<desk>``: deals, hedge fills and fees in kind.
    """
    path = conversion(desk)
    accounts = await list_accounts(conn, book, path)
    return {item.asset: item.balance.posted for item in accounts if item.path == path}
