"""What happened to a feed, as bytes and our own time: the truth that recordings hold.

A feed's machine is given nothing else, so a recording put through the same machine gives the same
events as the live feed gave.
"""

from __future__ import annotations

from enum import IntEnum, unique

import msgspec


@unique
class RawKind(IntEnum):
    """What happened. The numbers are written to recordings and never change their meaning."""

    CONNECTED = 1
    """A socket is open; `data` is its address."""
    FRAME = 2
    """A frame came over the socket, as it was sent."""
    SNAPSHOT = 3
    """The body of a book that was asked for by REST, to stitch updates to."""
    CHECK = 4
    """The body of a book that was asked for by REST, to compare ours with."""
    LOST = 5
    """The socket is gone, or an answer never came; `data` is the reason as text."""
    TICK = 6
    """The watchdog looked at the clock and something had become too old."""


class RawItem(msgspec.Struct, frozen=True, gc=False):
    """One thing that happened.

    Attributes:
        received_ns: nanoseconds since 1970 by our own clock.
        connection: counts a venue's connections up within a process, from 1.
        symbol: the venue's symbol, of an answer or a watchdog's look; empty for frames, which say
            themselves what they are of.
    """

    kind: RawKind
    received_ns: int
    connection: int
    symbol: str = ""
    data: bytes = b""
