"""The alarm of rule 6: follow the journal and record where clients become short, or covered again.

The journal is its own outbox: sequence order is commit order, so a cursor skips nothing, and posting
knows nothing of this. Cursor, figures and events are written in one transaction under the lock of the
book's watch. So each change is recorded exactly once, whatever crashes and however many watch.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.events import DomainEvent, next_version, record
from kernel.ids import stable_id
from ledger.coverage import Coverage, CoverageChange, page_coverage
from ledger.queries import head
from reporting import store
from reporting.client_money import follow_client_money
from reporting.model import ClientMoney, ClientMoneyState, WatchedPage

ENTITY: Final = "client-money"
WATCH: Final = "system:client-money-watch"
CHANGES_MAX: Final = 500
"""Changes recorded in one step, give or take those of one block."""

NAMES: Final = {
    ClientMoneyState.SHORT: "ClientMoneyShort",
    ClientMoneyState.COVERED: "ClientMoneyRestored",
}
BEFORE: Final = {
    ClientMoneyState.SHORT: ClientMoneyState.COVERED,
    ClientMoneyState.COVERED: ClientMoneyState.SHORT,
}

list_client_money = store.list_client_money


async def watch_client_money(conn: AsyncConnection, book: int, *, now: datetime) -> WatchedPage:
    """Watch one page of the journal behind the last one; a new watch begins with the first block.

    For every asset that a block leaves short, or covers again, one event is recorded:
    ``ClientMoneyShort`` or ``ClientMoneyRestored``.

    Args:
        conn: the caller's transaction; whatever comes back counts once it is committed.
        book: the book.
        now: the time of the events; the block's own is in their payload.

    Raises:
        BookNotOpen: there is no such book.
    """
    cursor = await store.lock_watch(conn, book)
    end = (await head(conn, book)).height
    if cursor >= end:
        return WatchedPage(cursor, (), is_last=True)
    kept = await store.list_client_money(conn, book)
    known = {
        k.asset: Coverage(asset=k.asset, holdings=k.holdings, liabilities=k.liabilities)
        for k in kept
    }
    page = await page_coverage(conn, book, after=cursor, known=known)
    ends = [_end(change) for change in page.items]
    # The last page speaks for every block that was there before it was read, and for all it names.
    through = max([end, *(item.height for item in ends)]) if page.after is None else page.after
    followed = follow_client_money(
        {item.asset: item.state for item in kept}, ends, through=through, changes_max=CHANGES_MAX
    )
    await store.write_client_money(conn, book, followed.figures)
    await store.move_watch(conn, book, followed.height)
    await _record(conn, book, followed.changes, now)
    return WatchedPage(followed.height, followed.changes, is_last=followed.height >= end)


def _end(change: CoverageChange) -> ClientMoney:
    return ClientMoney(
        asset=change.coverage.asset,
        height=change.height,
        sequence=change.sequence,
        recorded_at=change.recorded_at,
        holdings=change.coverage.holdings,
        liabilities=change.coverage.liabilities,
    )


async def _record(
    conn: AsyncConnection, book: int, changes: Sequence[ClientMoney], now: datetime
) -> None:
    versions: dict[str, int] = {}
    events = []
    for change in changes:
        entity = stable_id(ENTITY, book, change.asset)
        if change.asset not in versions:
            versions[change.asset] = await next_version(conn, ENTITY, entity)
        events.append(
            DomainEvent(
                entity_type=ENTITY,
                entity_id=entity,
                version=versions[change.asset],
                name=NAMES[change.state],
                at=now,
                actor=WATCH,
                reason=f"block {change.height} of book {book}",
                from_state=BEFORE[change.state],
                to_state=change.state,
                payload={
                    "book": book,
                    "asset": change.asset,
                    "height": change.height,
                    "sequence": change.sequence,
                    "recorded_at": change.recorded_at.isoformat(),
                    "holdings": str(change.holdings),
                    "liabilities": str(change.liabilities),
                    "shortfall": str(change.shortfall),
                },
            )
        )
        versions[change.asset] += 1
    await record(conn, events)
