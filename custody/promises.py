"""What payouts will take from their places although they hold nothing there yet.

A payout holds its claim when it is requested, and the coins of its wallet when it is allocated (an own
transfer at once); of a bank account nothing is held before the entry is booked. Whoever plans further
payments counts those as gone.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.payout_model import CANCELLABLE, ClaimKind
from custody.payout_tables import LIVE, payout

BANK: Final = "bank"
"""The rail whose payouts hold nothing at their source before the entry is booked."""


_UNHELD: Final = payout.c.state.in_([str(state) for state in sorted(CANCELLABLE)]) & ~(
    payout.c.claim.startswith(f"{ClaimKind.OWN}:")
)
_UNBOOKED: Final = payout.c.rail == BANK


async def sum_promises(conn: AsyncConnection, book: int) -> dict[tuple[str, str], int]:
    """Return what live payouts of a book will take and do not hold, by (place, asset)."""
    rows = await conn.execute(
        select(payout.c.source_wallet, payout.c.asset, func.sum(payout.c.amount).label("amount"))
        .where(
            payout.c.book == book,
            # As the index has it, word for word: no plan reads the payouts that have ended.
            text(LIVE),
            payout.c.released_at.is_(None),
            or_(_UNHELD, _UNBOOKED),
        )
        .group_by(payout.c.source_wallet, payout.c.asset)
    )
    return {(row.source_wallet, row.asset): int(row.amount) for row in rows}
