"""The markets of a venue, as both instances of ccxt know them, read again when they may have changed.

A venue changes grids and lists symbols while we run. So the markets are read again by schedule, when a
symbol is asked for that they do not have, and after the venue refused an order for what it is. If that
fails, what was read before stays: an order off the grid is refused by the venue, and that is certain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from marketdata.errors import NoInstrument
from venues.capabilities import CallClass
from venues.ccxt.connection import Connection
from venues.errors import VenueUnavailable

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketsPolicy:
    """When markets are read again.

    Attributes:
        age_max: after so long in any case.
        pause: after a reading there is no other one for so long, whatever is doubted.
    """

    age_max: timedelta = timedelta(hours=1)
    pause: timedelta = timedelta(minutes=1)


MARKETS_POLICY: Final = MarketsPolicy()


class Markets:
    """See the module."""

    def __init__(self, wire: Connection, venue: str, policy: MarketsPolicy) -> None:
        self._wire = wire
        self._venue = venue
        self._policy = policy
        self._loading = asyncio.Lock()
        self._read_at: datetime | None = None
        self._tried_at: datetime | None = None
        self._is_doubted = False

    def doubt(self) -> None:
        """Let the markets be read again as soon as the pause is over."""
        self._is_doubted = True

    def find(self, symbol: str) -> Mapping[str, Any]:
        """Return a market by the venue's own name.

        Raises:
            NoInstrument: there is none.
        """
        found = (self._wire.reader.markets_by_id or {}).get(symbol)
        if not found:
            raise NoInstrument(f"{self._venue} has no symbol {symbol}")
        market: Mapping[str, Any] = found[0]
        return market

    async def load(self, symbol: str | None = None, *, by_schedule: bool = True) -> None:
        """Have the markets: read them if there are none, or again if that is due.

        Args:
            symbol: what is wanted of them; if they do not have it they are doubted.
            by_schedule: whether their age counts: an order does not wait for that.

        Raises:
            VenueUnavailable: there are none, and the venue does not answer.
        """
        reader = self._wire.reader
        if reader.markets and self._loading.locked():
            return  # somebody reads them again; until then they are as they are
        async with self._loading:
            if self._read_at is None:
                await self._read(again=False)
                return
            if symbol is not None and symbol not in (reader.markets_by_id or {}):
                self._is_doubted = True
            if not self._is_due(by_schedule=by_schedule):
                return
            try:
                await self._read(again=True)
            except VenueUnavailable as error:
                log.warning("markets cannot be read again", venue=self._venue, fault=str(error))

    def _is_due(self, *, by_schedule: bool) -> bool:
        now = self._wire.now()
        if self._tried_at is not None and now - self._tried_at < self._policy.pause:
            return False
        is_old = self._read_at is None or now - self._read_at >= self._policy.age_max
        return self._is_doubted or (by_schedule and is_old)

    async def _read(self, *, again: bool) -> None:
        """Read the markets; the trading instance is given what the reading one got."""
        reader = self._wire.reader
        self._tried_at = self._wire.now()
        await self._wire.ask(CallClass.MARKETS, lambda: reader.load_markets(again))
        self._wire.trader.set_markets(reader.markets, reader.currencies)
        self._read_at, self._is_doubted = self._tried_at, False
