"""What Causeway asks of a venue, whatever library speaks to it."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Final, Protocol

from marketdata.model import Instrument
from venues.capabilities import Capabilities
from venues.model import (
    FillPage,
    KeyPermissions,
    OrderReport,
    Placement,
    UnknownBalance,
    VenueBalance,
    VenueFill,
    VenueOrder,
)

FROM_THE_FIRST: Final = ""
"""The cursor of the first page of fills."""


class VenueGateway(Protocol):
    """One account at one venue.

    Queries raise `venues.errors.VenueUnavailable` when they got no answer that can be read; None
    and empty lists are positive answers.
    """

    @property
    def venue(self) -> str:
        """Return the venue's code."""
        ...

    @property
    def account(self) -> str:
        """Return our code of the account."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """Return what the venue can do."""
        ...

    def venue_time(self, now: datetime) -> datetime:
        """Return what the venue's clock shows when ours shows *now*, as measured last."""
        ...

    async def synchronise(self) -> None:
        """Measure the difference of the clocks."""
        ...

    async def server_time(self) -> datetime:
        """Return the venue's clock."""
        ...

    async def instrument(self, symbol: str) -> Instrument:
        """Return the grid the venue trades *symbol* on."""
        ...

    async def place(
        self, order: VenueOrder, *, after: Awaitable[object] | None = None
    ) -> Placement:
        """Send the order, once, as it stands in the row; never raises for what the venue does.

        Where the venue has an expiry, `signed_at` and `recv_window` of the row are what it is told.

        Nothing goes out before *after* is done, but everything may be made ready. Whoever will not
        have it sent cancels the call.
        """
        ...

    async def cancel(self, order: VenueOrder) -> OrderReport | None:
        """Ask for the order to be cancelled; None: the venue has no such open order."""
        ...

    async def cancel_all(self, symbol: str | None) -> int:
        """Cancel every open order of the account, or of one symbol; return how many there were."""
        ...

    async def find_order(self, order: VenueOrder) -> OrderReport | None:
        """Return the venue's order of this client id; None when the venue says there is none.

        Where the venue cannot be asked by client id, its lists are read.
        """
        ...

    async def list_orders(self, symbol: str, since: datetime) -> list[OrderReport]:
        """Return open orders and those made since *since*, in any state."""
        ...

    async def fills(self, symbol: str, cursor: str) -> FillPage:
        """Return a page of our trades from *cursor* on, oldest first; each at least once."""
        ...

    async def fills_of_order(self, order: VenueOrder) -> list[VenueFill]:
        """Return all trades of one order that the venue has given an id."""
        ...

    async def balances(self) -> list[VenueBalance]:
        """Return every non-zero balance of an asset that we know."""
        ...

    async def unknown_balances(self) -> list[UnknownBalance]:
        """Return every non-zero balance of an asset that we do not know, however small."""
        ...

    async def permissions(self) -> KeyPermissions:
        """Return what the key may do."""
        ...

    async def arm_dead_man(self, after: timedelta) -> bool:
        """Let the venue cancel everything *after* now unless told again; zero disarms.

        False: the venue has no such switch.
        """
        ...
