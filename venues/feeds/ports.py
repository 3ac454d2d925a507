"""What a runner asks of the outside, whatever library speaks to the venue."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from venues.capabilities import RateLimits


class FrameSocket(Protocol):
    """One open connection. One task reads, any may send."""

    async def receive(self) -> bytes:
        """Return the next frame as the venue sent it.

        Raises:
            SocketLost: there will be no more; everything that came before was returned.
        """
        ...

    async def send(self, frame: bytes) -> None:
        """Send a frame.

        Raises:
            SocketLost: it cannot be sent.
        """
        ...


class Transport(Protocol):
    """How one venue is reached. The runner sees to timeouts, pace and repetition."""

    @property
    def address(self) -> str:
        """Return what the sockets are connected to, for the record."""
        ...

    @property
    def limits(self) -> RateLimits:
        """Return what may be asked (`CallClass.BOOK`, `CallClass.BOOK_CHECK`)."""
        ...

    def connect(self, lane: int) -> AbstractAsyncContextManager[FrameSocket]:
        """Open a socket for the machine number *lane*, from 0.

        Raises:
            SocketLost: it does not open.
        """
        ...

    async def book(self, symbol: str) -> bytes:
        """Return the body of a whole book, for stitching (`RawKind.SNAPSHOT`).

        Raises:
            NoAnswer: there is none.
        """
        ...

    async def check(self, symbol: str) -> bytes:
        """Return the body of a book to compare with (`RawKind.CHECK`).

        Raises:
            NoAnswer: there is none.
        """
        ...
