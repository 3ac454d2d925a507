"""The private stream of an account, by what its venue speaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from kernel.clock import Clock
from kernel.errors import BadInput
from venues.capabilities import Dialect
from venues.ccxt.gateway import GatewaySettings
from venues.streams.binance import BinanceStream
from venues.streams.ccxt_stream import CcxtStream
from venues.streams.kraken import KrakenStream
from venues.streams.port import PrivateStream

STREAMS: Final[Mapping[Dialect, type[CcxtStream]]] = {
    Dialect.BINANCE: BinanceStream,
    Dialect.KRAKEN: KrakenStream,
}


def private_stream(
    wanted: GatewaySettings, clock: Clock, *, venue_time: Callable[[datetime], datetime]
) -> PrivateStream:
    """Return the private stream of an account; it connects when it is first listened to.

    Args:
        wanted: the account, as its gateway has it.
        clock: of this process.
        venue_time: `VenueGateway.venue_time`.

    Raises:
        BadInput: the venue has none, or none that can be read here: its lists are asked instead.
    """
    record = wanted.capabilities
    make = STREAMS.get(record.dialect) if record.has_private_stream else None
    if make is None:
        raise BadInput(f"{record.ccxt_id} has no private stream that can be read")
    stream = make(wanted=wanted, clock=clock, venue_time=venue_time)
    assert isinstance(stream, BinanceStream | KrakenStream)
    return stream
