"""What a block did to our spends: called by `custody.inclusion` in the transaction of each block.

Rows are locked and written here; the postings are returned and made by the caller, in one batch
with those of the deposits.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.model import BlockContents
from custody.plan import Plan


async def spends_included(
    conn: AsyncConnection, contents: BlockContents, *, book: int, now: datetime
) -> Plan:
    """Write what a block that was included did to our spends; return what is to be posted."""
    del conn, contents, book, now
    return Plan()


async def spends_orphaned(
    conn: AsyncConnection, contents: BlockContents, *, book: int, now: datetime
) -> Plan:
    """Write what follows from a block that is gone; return what is to be posted."""
    del conn, contents, book, now
    return Plan()
