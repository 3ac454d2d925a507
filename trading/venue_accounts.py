"""Our accounts at venues in the books: opened with what they hold, compared with what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from venues.balances import record_snapshot
from venues.exposure import dust_by_asset, exact
from venues.fills import FROM_THE_FIRST, begin_history, collect
from venues.model import DUST_SCALE, VenueBalance
from venues.ports import VenueGateway

STEADY_ATTEMPTS_MAX: Final = 5
PAGES_MAX: Final = 10_000
_WHOLE: Final = int(10**DUST_SCALE)


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueReconciled:
    """What the books and the venue say about one asset of one account, at one snapshot.

    Attributes:
        ledger, venue: smallest units.
        explained: whole smallest units by which the venue has more because our roundings of costs
            and fees were against us (see `venues.model.DUST_SCALE`).
        difference: what is left unexplained, in whole smallest units towards zero.
        agrees: whether nothing at all is left, dust included.
    """

    venue_code: str
    account: str
    asset: str
    ledger: int
    venue: int
    explained: int
    difference: int
    agrees: bool
    taken_at: datetime


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
        last = {symbol: await _last_trade(gateway, symbol, FROM_THE_FIRST) for symbol in symbols}
        balances = await gateway.balances()
        after = {symbol: await _last_trade(gateway, symbol, last[symbol]) for symbol in symbols}
        if after == last:
            opening = partial(_open, gateway, balances, last, grids, book=book, now=clock.now())
            try:
                await transact(engine, opening)
            except VenueAccountOpen:
                return []
            return balances
    raise Refused(f"{path} trades while it is opened", remedy="Stop trading there and try again")


async def reconcile_venue(
    engine: AsyncEngine,
    gateway: VenueGateway,
    symbols: Sequence[str],
    *,
    book: int,
    clock: Clock,
) -> list[VenueReconciled]:
    """Compare the books with the venue's own balances, by asset; keep the snapshot.

    The snapshot counts only if no fill arrived around it: else it is taken again. Fills that are
    collected but not posted show as a difference, as they should.

    Raises:
        VenueUnavailable: the venue does not answer.
        Refused: trades keep coming in while the balances are read.
    """
    for _ in range(STEADY_ATTEMPTS_MAX):
        for symbol in symbols:
            await collect(engine, gateway, symbol, clock=clock)
        balances = await gateway.balances()
        taken_at = clock.now()
        news = [await collect(engine, gateway, symbol, clock=clock) for symbol in symbols]
        if not any(item.new for item in news):
            return await transact(
                engine, partial(_compare, gateway, balances, book=book, taken_at=taken_at)
            )
    raise Refused(f"{gateway.venue}/{gateway.account} trades while it is reconciled")


async def _compare(
    gateway: VenueGateway,
    balances: Sequence[VenueBalance],
    conn: AsyncConnection,
    *,
    book: int,
    taken_at: datetime,
) -> list[VenueReconciled]:
    dust = await dust_by_asset(conn, gateway.venue, gateway.account)
    path = venue_account(gateway.venue, gateway.account)
    posted = {
        item.asset: item.balance.posted
        for item in await list_accounts(conn, book, path)
        if item.path == path
    }
    await record_snapshot(conn, gateway.venue, gateway.account, balances, taken_at=taken_at)
    stated = {item.asset: item for item in balances}
    return [
        _row(gateway, asset, posted.get(asset, 0), stated.get(asset), dust.get(asset, 0), taken_at)
        for asset in sorted({*posted, *stated})
    ]


def _row(
    gateway: VenueGateway,
    asset: str,
    posted: int,
    stated: VenueBalance | None,
    dust: int,
    taken_at: datetime,
) -> VenueReconciled:
    total = 0 if stated is None else stated.total
    theirs = exact(total, 0 if stated is None else stated.dust)
    unexplained = theirs - exact(posted, dust)
    explained = total - posted - _towards_zero(unexplained)
    return VenueReconciled(
        venue_code=gateway.venue,
        account=gateway.account,
        asset=asset,
        ledger=posted,
        venue=total,
        explained=explained,
        difference=_towards_zero(unexplained),
        agrees=unexplained == 0,
        taken_at=taken_at,
    )


def _towards_zero(amount: int) -> int:
    return amount // _WHOLE if amount >= 0 else -(-amount // _WHOLE)


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
    for symbol, trade_id in sorted(last.items()):
        await begin_history(
            conn, gateway.venue, gateway.account, symbol, trade_id=trade_id, now=now
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


async def _is_open(conn: AsyncConnection, book: int, path: str) -> bool:
    return any(item.path == path for item in await list_accounts(conn, book, path))


async def _last_trade(gateway: VenueGateway, symbol: str, start: str) -> str:
    last = start
    for _ in range(PAGES_MAX):
        page = await gateway.fills(symbol, last)
        if not page or page[-1].trade_id == last:
            return last
        last = page[-1].trade_id
    raise Refused(f"{symbol} at {gateway.venue} has too many trades to skip")
