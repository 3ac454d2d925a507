"""Fills as they happen, from the user data stream through ccxt.pro.

A stream may lose events; nothing relies on it. It only makes fills known sooner: they go through
the same insert as those that are asked for, and `venues.fills.collect` reads every trade anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import ccxt.async_support as ccxt_rest
import ccxt.pro as ccxt
import structlog

from kernel.errors import BadInput
from marketdata.model import Instrument
from venues.ccxt.classify import failure_of
from venues.ccxt.endpoint import point_at, settings
from venues.ccxt.gateway import GatewaySettings
from venues.ccxt.normalise import streamed_trade
from venues.model import VenueFill

log = structlog.get_logger()

BACKOFF_MIN_S: Final = 0.2
BACKOFF_MAX_S: Final = 10.0
RENEW_AFTER: Final = timedelta(minutes=10)
"""A silent stream looks like one without trades, so it is built anew now and then."""

Deliver = Callable[[Sequence[VenueFill]], Awaitable[None]]


class FillStream:
    """Delivers the account's trades; at least once, in no order, possibly not at all."""

    def __init__(self, wanted: GatewaySettings, instruments: Mapping[str, Instrument]) -> None:
        """Read trades of *instruments*, keyed by the venue's symbol."""
        self._settings = wanted
        self._instruments = dict(instruments)

    async def run(self, deliver: Deliver) -> None:
        """Stream until cancelled; a broken stream is built again."""
        backoff_s = BACKOFF_MIN_S
        while True:
            delivered = await self._stream(deliver)
            backoff_s = BACKOFF_MIN_S if delivered else min(backoff_s * 2, BACKOFF_MAX_S)
            await asyncio.sleep(backoff_s)

    async def _stream(self, deliver: Deliver) -> int:
        exchange = self._instance()
        delivered = 0
        try:
            async with asyncio.timeout(RENEW_AFTER / timedelta(seconds=1)):
                while True:
                    trades = await exchange.watch_my_trades()
                    fills = self._read(trades)
                    if fills:
                        await deliver(fills)
                        delivered += len(fills)
        except TimeoutError:
            return delivered
        except (ccxt_rest.BaseError, OSError) as error:
            log.warning("fill stream rebuilt", fault=failure_of(error).reason)
            return delivered
        finally:
            await exchange.close()

    def _read(self, trades: Sequence[Mapping[str, Any]]) -> list[VenueFill]:
        found = []
        for item in trades:
            info = item.get("info")
            symbol = info.get("s") if isinstance(info, Mapping) else None
            grid = self._instruments.get(str(symbol))
            if grid is None:
                continue
            try:
                fill = streamed_trade(info, grid, self._settings.assets, self._settings.account)
            except BadInput as error:
                log.warning("streamed trade cannot be read", fault=str(error))
                continue
            found.append(fill)
        return found

    def _instance(self) -> Any:
        wanted = self._settings
        wait_ms = wanted.read_timeout // timedelta(milliseconds=1)
        exchange = ccxt.binance(
            settings(wanted.credentials, timeout_ms=wait_ms, rate_limit=wanted.rate_limit)
        )
        exchange.newUpdates = True
        point_at(exchange, wanted.endpoint)
        return exchange
