"""What custody asks of a venue's treasury, with credentials that can withdraw and not trade."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from venues.treasury_model import (
    DepositRecord,
    TreasuryCapabilities,
    VenueAddress,
    VenueNetwork,
    WithdrawalPlacement,
    WithdrawalRecord,
    WithdrawalTicket,
)


class VenueTreasury(Protocol):
    """The money side of one account at one venue.

    Queries raise `venues.errors.VenueUnavailable` when they got no answer that can be read; an empty
    list is a positive answer.
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
    def capabilities(self) -> TreasuryCapabilities:
        """Return what the treasury can do."""
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

    async def networks(self, asset: str) -> list[VenueNetwork]:
        """Return the networks of an asset, with what the venue charges and allows now."""
        ...

    async def deposit_address(self, asset: str, network: str) -> VenueAddress:
        """Return where the venue wants *asset* on *network* for this account."""
        ...

    async def withdraw(self, ticket: WithdrawalTicket) -> WithdrawalPlacement:
        """Ask for the withdrawal, once; never raises for what the venue does."""
        ...

    async def list_withdrawals(self, since: datetime) -> list[WithdrawalRecord]:
        """Return every withdrawal asked for at *since* or later, whatever became of it.

        The request for the list is signed later than any withdrawal that was sent before it.
        """
        ...

    async def list_deposits(self, since: datetime) -> list[DepositRecord]:
        """Return every deposit that the venue noticed at *since* or later."""
        ...
