"""Rows of the watch over client money."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, bindparam, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from reporting.model import ClientMoney, ClientMoneyState
from reporting.tables import client_money, client_money_watch

_FIGURES: Final = ("state", "holdings", "liabilities", "height", "sequence", "recorded_at")


async def lock_watch(conn: AsyncConnection, book: int) -> int:
    """Lock the watch of a book, begun at height 0 where there is none; return its height.

    Whoever comes second waits here, and then reads what the first has written.
    """
    begun = insert(client_money_watch).values(book=book, height=0).on_conflict_do_nothing()
    await conn.execute(begun)
    query = select(client_money_watch.c.height).where(client_money_watch.c.book == book)
    return int((await conn.execute(query.with_for_update())).scalar_one())


async def move_watch(conn: AsyncConnection, book: int, height: int) -> None:
    """Write down up to which block the journal has been watched; the caller holds the lock."""
    await conn.execute(
        update(client_money_watch).where(client_money_watch.c.book == book).values(height=height)
    )


async def list_client_money(conn: AsyncConnection, book: int) -> list[ClientMoney]:
    """Return the last figures of every asset that clients ever held, by asset."""
    query = select(client_money).where(client_money.c.book == book).order_by(client_money.c.asset)
    return [_client_money(row) for row in await conn.execute(query)]


async def write_client_money(
    conn: AsyncConnection, book: int, figures: Sequence[ClientMoney]
) -> None:
    """Write the newest figures of assets, each along an edge; the caller holds the lock."""
    if not figures:
        return
    # An asset begins with nothing held and nothing owed, even if its first block leaves it short.
    nothing = {"state": ClientMoneyState.COVERED, "holdings": 0, "liabilities": 0}
    await conn.execute(
        insert(client_money).on_conflict_do_nothing(),
        [{"book": book, "asset": item.asset, **_figures(item), **nothing} for item in figures],
    )
    await conn.execute(
        update(client_money)
        .where(client_money.c.book == book, client_money.c.asset == bindparam("of"))
        .values({name: bindparam(name) for name in _FIGURES}),
        [{"of": item.asset, **_figures(item)} for item in figures],
    )


def _figures(item: ClientMoney) -> dict[str, object]:
    return {name: getattr(item, name) for name in _FIGURES}


def _client_money(row: Row[Any]) -> ClientMoney:
    return ClientMoney(
        asset=row.asset,
        height=row.height,
        sequence=row.sequence,
        recorded_at=row.recorded_at,
        holdings=row.holdings,
        liabilities=row.liabilities,
    )
