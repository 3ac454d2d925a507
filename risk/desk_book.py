"""What a desk has and what it has under way, as of one state of the books.

Positions are the ledger's and orders the venues', so they are read by several statements, and a fill
that is posted between two of them would be counted twice or not at all. So the orders are read again
after the ledger: as long as no more of any order was booked meanwhile, the ledger in between is that of
both. Deals may be booked all the while; they change no order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeAlias
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.queries import list_accounts
from risk.errors import DeskNotStill
from risk.model import DeskBook
from venues.exposure import list_exposures
from venues.worst_case import OrderExposure

Place: TypeAlias = tuple[str, str, str]
"""Venue, account, symbol."""
UnderWay: TypeAlias = Mapping[str, Sequence[OrderExposure]]

LOOKS_MAX: Final = 8


async def read_desk_book(
    conn: AsyncConnection, book: int, desk: str, places: Mapping[str, Collection[Place]]
) -> DeskBook:
    """Return the book of a desk; call it under the desk's lock, so that no order is added meanwhile.

    Args:
        places: by base asset, every place that an order of the desk may be at, closed ones too.

    Raises:
        DeskNotStill: fills were posted during every look.
    """
    under_way = await _under_way(conn, places)
    for _ in range(LOOKS_MAX):
        positions = await _positions(conn, book, desk)
        again = await _under_way(conn, places)
        if _booked(again) == _booked(under_way):
            return DeskBook(positions=positions, under_way=again)
        under_way = again
    raise DeskNotStill(
        f"fills of desk {desk} were posted during {LOOKS_MAX} looks", remedy="Try again"
    )


async def _positions(conn: AsyncConnection, book: int, desk: str) -> dict[str, int]:
    path = f"conversion:{desk}"
    accounts = await list_accounts(conn, book, path)
    return {item.spec.asset: item.balance.posted for item in accounts if item.path == path}


async def _under_way(conn: AsyncConnection, places: Mapping[str, Collection[Place]]) -> UnderWay:
    return {
        asset: [
            item
            for venue, account, symbol in sorted(of_asset)
            for item in await list_exposures(conn, venue, account, symbol)
        ]
        for asset, of_asset in sorted(places.items())
    }


def _booked(under_way: UnderWay) -> dict[UUID, int]:
    """Return how much of each order is booked: what only grows, until the order is left out."""
    return {item.order.id: item.booked for found in under_way.values() for item in found}
