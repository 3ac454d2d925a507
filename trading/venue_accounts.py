"""Our accounts at venues in the books: opened once, with what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import BadInput, Refused
from ledger.accounts import ensure_accounts
from ledger.posting import post, require_applied
from ledger.queries import list_accounts
from marketdata.model import Instrument
from trading.errors import VenueAccountOpen
from trading.postings import account_keys, opening_chain, venue_account
from trading.venue_reconciliation_store import begin_window
from venues.balances import record_snapshot
from venues.fills import begin_history
from venues.model import VenueBalance
from venues.ports import FROM_THE_FIRST, VenueGateway

STEADY_ATTEMPTS_MAX: Final = 5
PAGES_MAX: Final = 10_000


async def open_venue_account(
    engine: AsyncEngine,
    gateway: VenueGateway,
    symbols: Sequence[str],
    *,
    book: int,
    clock: Clock,
) -> list[VenueBalance]:
    """Post what the account holds as its opening balances, once; return what was posted.

    Trades up to now are in these balances: fills are collected from the next one on. An account
    that is open already is left alone, also one that was opened with nothing in it.

    Raises:
        BadInput: no symbol is named.
        VenueUnavailable: the venue does not answer.
        Refused: trades keep coming in while the balances are read.
    """
    path = venue_account(gateway.venue, gateway.account)
    if not symbols:
        raise BadInput(f"{path} is opened for no symbol", remedy="Name what is traded there")
    async with engine.connect() as conn:
        if await _is_open(conn, book, path):
            return []
    grids = [await gateway.instrument(symbol) for symbol in symbols]
    for _ in range(STEADY_ATTEMPTS_MAX):
        last = {
            symbol: await _end_of_history(gateway, symbol, FROM_THE_FIRST) for symbol in symbols
        }
        balances = await gateway.balances()
        after = {symbol: await _end_of_history(gateway, symbol, last[symbol]) for symbol in symbols}
        if after == last:
            opening = partial(_open, gateway, balances, last, grids, book=book, now=clock.now())
            try:
                await transact(engine, opening)
            except VenueAccountOpen:
                return []
            return balances
    raise Refused(f"{path} trades while it is opened", remedy="Stop trading there and try again")


async def _open(
    gateway: VenueGateway,
    balances: Sequence[VenueBalance],
    last: Mapping[str, str],
    grids: Sequence[Instrument],
    conn: AsyncConnection,
    *,
    book: int,
    now: datetime,
) -> None:
    """Open the account in one transaction; of two at once, the second waits at the cursors.

    The accounts of the instruments' assets are opened even when they hold nothing: by them an
    account is known to be open.

    Raises:
        VenueAccountOpen: another one has opened it meanwhile; nothing is changed.
    """
    path = venue_account(gateway.venue, gateway.account)
    for symbol, cursor in sorted(last.items()):
        await begin_history(conn, gateway.venue, gateway.account, symbol, cursor=cursor, now=now)
        await begin_window(
            conn, book, gateway.venue, gateway.account, symbol, cursor=cursor, now=now
        )
    if await _is_open(conn, book, path):
        raise VenueAccountOpen(f"{path} was opened by another process meanwhile")
    await record_snapshot(
        conn, gateway.venue, gateway.account, balances, taken_at=now, is_opening=True
    )
    lines = opening_chain(
        gateway.venue, gateway.account, [(item.asset, item.total) for item in balances]
    )
    traded = {(path, asset.code) for grid in grids for asset in (grid.base, grid.quote)}
    await ensure_accounts(conn, book, account_keys(lines) | traded, now=now)
    if lines:
        require_applied(await post(conn, book, lines, now=now))


async def is_venue_account_open(conn: AsyncConnection, book: int, venue: str, account: str) -> bool:
    """Tell whether an account at a venue is in the books."""
    return await _is_open(conn, book, venue_account(venue, account))


async def _is_open(conn: AsyncConnection, book: int, path: str) -> bool:
    return any(item.path == path for item in await list_accounts(conn, book, path))


async def _end_of_history(gateway: VenueGateway, symbol: str, start: str) -> str:
    """Return the cursor behind the last of our trades."""
    cursor = start
    for _ in range(PAGES_MAX):
        page = await gateway.fills(symbol, cursor)
        cursor = page.cursor
        if page.is_last:
            return cursor
    raise Refused(f"{symbol} at {gateway.venue} has too many trades to skip")
