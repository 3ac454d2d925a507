"""Balances of a venue account: the books and what is known beside them, against what it states.

An account may trade without pause, so a statement is placed among the trades that came in around it:
it holds all trades up to one and none after that. If there is such a place at which every asset
agrees, the account agrees. If there is none, a difference counts once two statements show the same;
three, if something was traded around the last of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations
from types import MappingProxyType
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from ledger.queries import list_accounts
from matching.model import Side
from trading.postings import venue_account
from trading.venue_reconciliation_model import ReconcilePolicy, VenueReconciled
from trading.venue_tally import Tally
from venues.account_reading import count_fills, recorded_since, unposted_by_asset
from venues.balances import record_snapshot
from venues.exposure import dust_by_asset, exact
from venues.fills import collect
from venues.model import DUST_SCALE, VenueBalance, VenueFill
from venues.ports import VenueGateway

TRANSFERS_MAX: Final = 12
"""Open transfers of one asset whose every combination is tried; of more, the first."""

RECENT_MAX: Final = 500
"""Trades among which a statement is placed; with more, balances are read again."""

LOOKS_QUIET: Final = 2
LOOKS_TRADING: Final = 3

Differing = tuple[tuple[str, int], ...]
"""Assets that differ, and by how much."""

_WHOLE: Final = int(10**DUST_SCALE)

OpenTransfers = Callable[[AsyncConnection, str, str], Awaitable[Sequence[tuple[str, int]]]]
"""Asset and signed amount of what the venue may show already and the books do not have yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What our side knows of an account at one instant; dusts as in `venues.exposure`.

    Attributes:
        fills: how many trades are on record.
        recent: trades that came on record around the venue's statement, in the order of trading.
    """

    posted: Mapping[str, int]
    dust: Mapping[str, int]
    unposted: Mapping[str, int]
    transfers: Sequence[tuple[str, int]]
    fills: int
    recent: Sequence[VenueFill] = ()


async def look_at_balances(
    engine: AsyncEngine,
    gateway: VenueGateway,
    symbols: Sequence[str],
    *,
    book: int,
    clock: Clock,
    policy: ReconcilePolicy,
    transfers: OpenTransfers,
    tally: Tally,
) -> list[VenueReconciled] | None:
    """Compare balances at one instant; None: no statement could be placed among the trades.

    What differs is looked at again after a pause, and counts once `LOOKS_QUIET` statements in a row
    show the same, or `LOOKS_TRADING` if something is traded meanwhile.

    Raises:
        VenueUnavailable: the venue does not answer.
    """
    shown: Mapping[Differing, int] = {}
    for attempt in range(policy.steady_attempts):
        if attempt:
            await asyncio.sleep(policy.settling / timedelta(seconds=1))
        await _collect(engine, gateway, symbols, clock)
        asked_at = clock.now()
        async with engine.connect() as conn:
            before = await count_fills(conn, gateway.venue, gateway.account)
        stated = await gateway.balances()
        taken_at = clock.now()
        await _collect(engine, gateway, symbols, clock)
        known = await _read(engine, gateway, book, transfers, asked_at - policy.settling)
        if (
            not before <= known.fills <= before + len(known.recent)
            or len(known.recent) == RECENT_MAX
        ):
            continue  # some of the trades that came in around the statement are not known
        places = placed(gateway.venue, gateway.account, known, stated, taken_at)
        shown = {key: shown.get(key, 0) + 1 for key in map(_differing, places)}
        enough = LOOKS_QUIET if known.fills == before else LOOKS_TRADING
        for rows in places:
            differing = _differing(rows)
            if not differing or shown[differing] >= enough:
                tally.add_balances(known.posted, stated)
                await _keep(engine, gateway, stated, taken_at)
                return rows
    return None


def placed(
    venue: str,
    account: str,
    known: Known,
    stated: Sequence[VenueBalance],
    taken_at: datetime,
) -> list[list[VenueReconciled]]:
    """Return the comparison for each place that a statement may have among the recent trades.

    The first has all of them before it. One whose every asset agrees is alone in the list: there the
    statement belongs.
    """
    after: dict[str, int] = {}
    found = [compare_balances(venue, account, known, stated, taken_at)]
    for fill in reversed(known.recent):
        if not _differing(found[-1]):
            return found[-1:]
        for asset, units in effect_of(fill):
            after[asset] = after.get(asset, 0) - units
        found.append(compare_balances(venue, account, known, stated, taken_at, after=after))
    return found[-1:] if not _differing(found[-1]) else found


def effect_of(fill: VenueFill) -> tuple[tuple[str, int], ...]:
    """Return what a trade did to the venue's own figures; units as in `venues.exposure`."""
    sign = 1 if fill.side is Side.BUY else -1
    return (
        (fill.base, sign * exact(fill.base_units, 0)),
        (fill.quote, exact(-sign * fill.quote_units, fill.quote_dust)),
        (fill.fee_asset, exact(-fill.fee_units, fill.fee_dust)),
    )


def _differing(rows: Sequence[VenueReconciled]) -> Differing:
    return tuple((row.asset, row.difference) for row in rows if not row.agrees)


def compare_balances(
    venue: str,
    account: str,
    known: Known,
    stated: Sequence[VenueBalance],
    taken_at: datetime,
    *,
    after: Mapping[str, int] = MappingProxyType({}),
) -> list[VenueReconciled]:
    """Return each asset of either side, and what of the difference is explained.

    Args:
        venue: our code.
        account: our code.
        known: our side.
        stated: the venue's.
        taken_at: when it stated that.
        after: what it has more because some trades on record came after its statement.
    """
    theirs = {item.asset: item for item in stated}
    return [
        _row(venue, account, asset, known, theirs.get(asset), after.get(asset, 0), taken_at)
        for asset in sorted({*known.posted, *known.unposted, *theirs})
    ]


def explained_by(difference: int, amounts: Sequence[int]) -> int:
    """Return *difference* if some of *amounts* add up to exactly that, else 0."""
    tried = amounts[:TRANSFERS_MAX]
    for count in range(1, len(tried) + 1):
        if any(sum(chosen) == difference for chosen in combinations(tried, count)):
            return difference
    return 0


def _row(
    venue: str,
    account: str,
    asset: str,
    known: Known,
    stated: VenueBalance | None,
    after: int,
    taken_at: datetime,
) -> VenueReconciled:
    posted = known.posted.get(asset, 0)
    total = 0 if stated is None else stated.total
    dust = known.dust.get(asset, 0)
    unposted = known.unposted.get(asset, 0)
    theirs = exact(total, 0 if stated is None else stated.dust)
    rest = theirs - exact(posted, dust) - unposted - after
    moving = [exact(units, 0) for code, units in known.transfers if code == asset]
    in_transit = explained_by(rest, moving)
    rest -= in_transit
    whole_unposted, whole_transit = _towards_zero(unposted), _towards_zero(in_transit)
    whole_after = _towards_zero(after)
    difference = _towards_zero(rest)
    return VenueReconciled(
        venue_code=venue,
        account=account,
        asset=asset,
        ledger=posted,
        venue=total,
        explained=total - posted - whole_unposted - whole_transit - whole_after - difference,
        unposted=whole_unposted,
        in_transit=whole_transit,
        traded_after=whole_after,
        difference=difference,
        agrees=rest == 0,
        taken_at=taken_at,
    )


def _towards_zero(amount: int) -> int:
    return amount // _WHOLE if amount >= 0 else -(-amount // _WHOLE)


async def _collect(
    engine: AsyncEngine, gateway: VenueGateway, symbols: Sequence[str], clock: Clock
) -> None:
    for symbol in symbols:
        await collect(engine, gateway, symbol, clock=clock)


async def _read(
    engine: AsyncEngine,
    gateway: VenueGateway,
    book: int,
    transfers: OpenTransfers,
    recent_since: datetime,
) -> Known:
    """Read our side in one snapshot: a posting between two statements would show as a break."""
    path = venue_account(gateway.venue, gateway.account)
    async with engine.connect() as plain:
        conn = await plain.execution_options(isolation_level="REPEATABLE READ")
        async with conn.begin():
            return Known(
                posted={
                    item.asset: item.balance.posted
                    for item in await list_accounts(conn, book, path)
                    if item.path == path
                },
                dust=await dust_by_asset(conn, gateway.venue, gateway.account),
                unposted=await unposted_by_asset(conn, gateway.venue, gateway.account),
                transfers=await transfers(conn, gateway.venue, gateway.account),
                fills=await count_fills(conn, gateway.venue, gateway.account),
                recent=await recorded_since(
                    conn, gateway.venue, gateway.account, recent_since, limit=RECENT_MAX
                ),
            )


async def _keep(
    engine: AsyncEngine,
    gateway: VenueGateway,
    stated: Sequence[VenueBalance],
    taken_at: datetime,
) -> None:
    await transact(
        engine,
        lambda conn: record_snapshot(
            conn, gateway.venue, gateway.account, stated, taken_at=taken_at
        ),
    )
