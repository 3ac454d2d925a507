"""What Causeway asks of a venue, whatever library speaks to it."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from marketdata.model import Instrument
from venues.model import Capabilities, OrderReport, Placement, VenueBalance, VenueFill, VenueOrder


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

    async def place(self, order: VenueOrder) -> Placement:
        """Send the order, once, as it stands in the row; never raises for what the venue does."""
        ...

    async def cancel(self, order: VenueOrder) -> OrderReport | None:
        """Ask for the order to be cancelled; None: the venue has no such open order."""
        ...

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        """Return the order; None when the venue says that there is none."""
        ...

    async def list_orders(self, symbol: str, since: datetime) -> list[OrderReport]:
        """Return open orders and those made since *since*, in any state."""
        ...

    async def fills(self, symbol: str, from_trade_id: str) -> list[VenueFill]:
        """Return a page of our trades from *from_trade_id* on (included), oldest first."""
        ...

    async def fills_of_order(self, symbol: str, venue_order_id: str) -> list[VenueFill]:
        """Return all trades of one order."""
        ...

    async def balances(self) -> list[VenueBalance]:
        """Return every non-zero balance of an asset that we know."""
        ...
