"""All markets of a venue as instruments: read from it, then put on record, every version kept.

Two steps, because the venue is never asked within a transaction. A market in assets that are not
registered, or on a grid that cannot be read, is named with the reason and left out; one that is on
record and not listed any more is named too, and stays: old orders and prices refer to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from kernel.money import Asset
from marketdata.instruments import list_instruments, record_instrument
from marketdata.model import Instrument
from venues.capabilities import CallClass, Capabilities
from venues.ccxt.connection import WRONG_SHAPE, Connection
from venues.ccxt.gateway import READINGS
from venues.ccxt.texts import mapping

MARKETS_MAX: Final = 20_000
"""Markets of one venue; more are not a list of markets."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A market that cannot be an instrument, and why."""

    symbol: str
    why: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What a venue lists: its spot markets."""

    found: tuple[Instrument, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """What was put on record; `vanished` is on record and not listed any more."""

    new: tuple[Instrument, ...]
    changed: tuple[Instrument, ...]
    unchanged: int
    vanished: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


async def read_instruments(
    wire: Connection, capabilities: Capabilities, assets: Mapping[str, Asset], *, venue: str
) -> Listing:
    """Ask a venue for all of its markets, as they are now.

    Args:
        wire: a connection to it; no key is needed.
        capabilities: the venue's record.
        assets: those that are registered, by the venue's code.
        venue: our code of it.

    Raises:
        VenueUnavailable: it does not answer, or not in a list of markets.
    """
    reader = wire.reader
    await wire.ask(CallClass.MARKETS, lambda: reader.load_markets(True))
    listed = list((reader.markets or {}).values())
    if not 0 < len(listed) <= MARKETS_MAX:
        raise wire.unreadable(ValueError(f"{len(listed)} markets"))
    found: list[Instrument] = []
    left_out: list[LeftOut] = []
    for market in sorted(listed, key=lambda one: str(one.get("id"))):
        if market.get("spot") is False:
            continue
        read = _read(capabilities, market, assets, venue)
        if isinstance(read, Instrument):
            found.append(read)
        else:
            left_out.append(read)
    return Listing(tuple(found), tuple(left_out))


async def refresh_instruments(
    conn: AsyncConnection, venue: str, listing: Listing, *, now: datetime
) -> Refreshed:
    """Record what is new or has changed in *listing*; the same listing again changes nothing."""
    known = {item.symbol: item for item in await list_instruments(conn, venue)}
    new, changed, unchanged = [], [], 0
    for item in listing.found:
        before = known.get(item.symbol)
        after = await record_instrument(conn, item, now=now) if _differs(item, before) else before
        assert after is not None
        if before is None:
            new.append(after)
        elif after.version != before.version:
            changed.append(after)
        else:
            unchanged += 1
    listed = {item.symbol for item in listing.found} | {one.symbol for one in listing.left_out}
    return Refreshed(
        new=tuple(new),
        changed=tuple(changed),
        unchanged=unchanged,
        vanished=tuple(sorted(known.keys() - listed)),
        left_out=listing.left_out,
    )


def _read(
    capabilities: Capabilities, market: Mapping[str, Any], assets: Mapping[str, Asset], venue: str
) -> Instrument | LeftOut:
    try:
        return READINGS[capabilities.dialect].instrument(mapping(market), assets, venue)
    except (BadInput, *WRONG_SHAPE) as error:
        return LeftOut(str(market.get("id")), str(error))


def _differs(item: Instrument, known: Instrument | None) -> bool:
    """Whether there is something to record: most often there is not, so nothing is asked."""
    return known is None or replace(item, version=known.version) != known
