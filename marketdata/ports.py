"""Where market data comes from: implemented by `venues`, used by whoever needs a book."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from marketdata.model import BookView


class Feed(Protocol):
    """The latest book of each symbol of one venue.

    Latest value wins: a reader that is slow misses updates, never sees old ones, never slows the
    socket. For lossless recording this is the wrong port.
    """

    def book(self, symbol: str) -> BookView | None:
        """Return the newest usable book; None before the first and after a fault or silence."""
        ...

    async def wait_for_book(self, symbol: str, timeout: timedelta) -> BookView | None:  # noqa: ASYNC109  the caller's patience is part of the question
        """Return the newest usable book, waiting for one at most *timeout*."""
        ...
