"""What a supervisor asks of a private stream, whatever library speaks to the venue."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Protocol

from marketdata.model import Instrument
from venues.streams.model import StreamEvent


class StreamSession(Protocol):
    """One connection that is subscribed. Only one task may read from it."""

    @property
    def subscribed_at(self) -> datetime:
        """Return when the venue accepted the subscription, by our clock."""
        ...

    @property
    def heard_at(self) -> datetime:
        """Return when the venue last said something of its own accord."""
        ...

    @property
    def silence_max(self) -> timedelta | None:
        """Return how long the venue may be silent; None: it says nothing when nothing happens."""
        ...

    @property
    def seen(self) -> Collection[tuple[str, str]]:
        """Return (symbol, trade id) of the trades that this connection brought lately."""
        ...

    async def next(self, limit: int) -> Sequence[StreamEvent]:
        """Wait for events and return them in the order of arrival, at least one, at most *limit*.

        Raises:
            StreamLost: after everything that came before was returned.
        """
        ...

    async def probe(self, timeout: timedelta) -> None:  # noqa: ASYNC109  the caller's policy
        """Ask the venue something over this connection.

        Raises:
            StreamLost: it does not answer, or says that nothing is subscribed.
        """
        ...


class PrivateStream(Protocol):
    """The private stream of one account: connected again and again."""

    @property
    def venue(self) -> str:
        """Return the venue's code."""
        ...

    @property
    def account(self) -> str:
        """Return our code of the account."""
        ...

    def learn(self, instrument: Instrument) -> None:
        """Read trades of one more instrument from now on."""
        ...

    def connect(self) -> AbstractAsyncContextManager[StreamSession]:
        """Connect and subscribe.

        Raises:
            StreamLost: that was not possible.
        """
        ...
