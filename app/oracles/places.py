"""Wallets, venues, banks and what is between them, against the books: one row an asset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.oracles.model import Held, Position, beginning_with
from app.oracles.outside import Outside
from app.oracles.snapshots import snapshot
from custody.reconciliation import held_in_custody
from kernel.errors import CausewayError
from ledger.queries import list_accounts

CHAIN, VENUE, BANK, TRANSIT = "custody:", "venue:", "bank:", "transit:"


async def look_everywhere(
    engine: AsyncEngine, outside: Outside, *, books: Sequence[int]
) -> tuple[list[Held], list[CausewayError]]:
    """Return every asset at every place, told by its own outside where there is one, and who failed.

    Places that only the books know of have no outside figure; nor has what is in transit, nor what is
    at a place that gave no answer that can be relied on. What several books have at one place counts
    together.
    """
    told, failed = list[Held](), list[CausewayError]()
    for view in outside.places:
        try:
            told += [item for book in books for item in await view.look(engine, book)]
        except CausewayError as error:
            failed.append(error)
    known = {(item.place, item.asset) for item in told}

    async def read(conn: AsyncConnection) -> list[Held]:
        return [
            Held(place=path, asset=asset, books=units, outside=None)
            for book in books
            for path, asset, units in await _books(conn, book)
            if (path, asset) not in known
        ]

    return _together([*told, *await snapshot(engine, read)]), failed


def _together(items: Iterable[Held]) -> list[Held]:
    """Add up what the books have at each place; of the outside each says the same."""
    found: dict[tuple[str, str], Held] = {}
    for item in items:
        key = (item.place, item.asset)
        before = found.get(key)
        found[key] = item if before is None else replace(before, books=before.books + item.books)
    return list(found.values())


async def positions(
    engine: AsyncEngine, outside: Outside | None = None, *, book: int = 1
) -> Sequence[Position]:
    """Return where everything of each asset is by the books and by the outside, by asset.

    Whoever is asked is asked outside any transaction, and every comparison is of one moment.

    Raises:
        CausewayError: somebody outside gave no answer that can be relied on.
    """
    items, failed = await look_everywhere(engine, outside or Outside(), books=[book])
    if failed:
        raise failed[0]
    return positions_of(items)


def positions_of(items: Iterable[Held]) -> list[Position]:
    """Return the positions that these add up to; assets of which there is nothing are left out."""
    by_asset: dict[str, list[Held]] = {}
    for item in items:
        by_asset.setdefault(item.asset, []).append(item)
    found = [_position(asset, held) for asset, held in sorted(by_asset.items())]
    return [item for item in found if _is_anything(item)]


def _is_anything(item: Position) -> bool:
    told = (item.chain, item.venue, item.bank)
    return any((item.ledger, item.transit, item.unknown, item.difference, *told))


def _position(asset: str, items: Sequence[Held]) -> Position:
    moving = beginning_with(items, TRANSIT)
    silent = [item for item in items if item.outside is None and item not in moving]
    return Position(
        asset=asset,
        ledger=sum(item.books for item in items),
        chain=_told(beginning_with(items, CHAIN)),
        venue=_told(beginning_with(items, VENUE)),
        bank=_told(beginning_with(items, BANK)),
        transit=sum(item.books for item in moving),
        unknown=sum(item.books for item in silent),
        difference=sum(item.difference or 0 for item in items),
    )


def _told(items: Sequence[Held]) -> int | None:
    told = [item.outside for item in items if item.outside is not None]
    return sum(told) if told else None


async def _books(conn: AsyncConnection, book: int) -> list[tuple[str, str, int]]:
    found: list[tuple[str, str, int]] = []
    for prefix in (CHAIN, VENUE, BANK, TRANSIT):
        for account in await list_accounts(conn, book, prefix):
            balance = account.balance
            units = held_in_custody(balance) if prefix == CHAIN else balance.posted
            found.append((account.path, account.asset, units))
    return found
