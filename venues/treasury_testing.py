"""A venue's treasury that does as it is told: for tests of what custody makes of its answers.

It keeps the truth (what it has taken and given), so that a test can compare the books with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto

from kernel.clock import Clock
from venues.errors import VenueUnavailable
from venues.model import RefusalKind
from venues.treasury_model import (
    DepositRecord,
    DepositStatus,
    TreasuryCapabilities,
    VenueAddress,
    VenueNetwork,
    WithdrawalAccepted,
    WithdrawalPlacement,
    WithdrawalRecord,
    WithdrawalRefused,
    WithdrawalStatus,
    WithdrawalTicket,
    WithdrawalUnknown,
)

BY_ID = TreasuryCapabilities(
    takes_client_id=True,
    acceptance=timedelta(seconds=5),
    settling=timedelta(seconds=2),
    names_addresses=False,
)
"""A venue that lists our own ids again."""
BY_LIST = replace(BY_ID, takes_client_id=False)
"""A venue that knows no id of ours."""


class Answer(Enum):
    """What the treasury does with the next request to withdraw."""

    ACCEPT = auto()
    REFUSE = auto()
    REFUSE_CLOCK = auto()
    LOSE_BEFORE = auto()
    """No answer, and the request was never accepted."""
    LOSE_AFTER = auto()
    """No answer, though it was accepted."""


@dataclass
class ScriptedTreasury:
    """See `venues.treasury_ports.VenueTreasury`.

    Attributes:
        balances: what the venue owes us, by asset.
        answers: what it does with requests to withdraw, in order; then it accepts.
        down: whether queries are answered at all.
        withheld: venue ids that lists leave out.
        requests: every ticket that came in, in order.
        on_withdraw: is called when a request has been dealt with, before the answer.
    """

    clock: Clock
    venue: str = "sim"
    account: str = "main"
    capabilities: TreasuryCapabilities = BY_ID
    addresses: dict[tuple[str, str], VenueAddress] = field(default_factory=dict)
    offers: dict[tuple[str, str], VenueNetwork] = field(default_factory=dict)
    balances: dict[str, int] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    down: bool = False
    withheld: set[str] = field(default_factory=set)
    requests: list[WithdrawalTicket] = field(default_factory=list)
    withdrawals: dict[str, WithdrawalRecord] = field(default_factory=dict)
    deposits: dict[str, DepositRecord] = field(default_factory=dict)
    on_withdraw: Callable[[], None] | None = None
    synchronised: int = 0
    _number: int = 0

    def venue_time(self, now: datetime) -> datetime:
        """Return the same: the clocks agree."""
        return now

    async def synchronise(self) -> None:
        """Count that it was asked for."""
        self.synchronised += 1

    async def server_time(self) -> datetime:
        """Return the clock's time."""
        self._require_up()
        return self.clock.now()

    async def networks(self, asset: str) -> list[VenueNetwork]:
        """Return what is offered."""
        self._require_up()
        return [offer for key, offer in self.offers.items() if key[0] == asset]

    async def deposit_address(self, asset: str, network: str) -> VenueAddress:
        """Return the address that is set."""
        self._require_up()
        return self.addresses[asset, network]

    async def withdraw(self, ticket: WithdrawalTicket) -> WithdrawalPlacement:
        """Do what the script says; a request that comes too late is refused."""
        self.requests.append(ticket)
        answer = self.answers.pop(0) if self.answers else Answer.ACCEPT
        late = self.clock.now() > ticket.signed_at + ticket.window
        accepted = answer in {Answer.ACCEPT, Answer.LOSE_AFTER} and not late
        record = self._accept(ticket) if accepted else None
        if self.on_withdraw is not None:
            self.on_withdraw()
        if answer in {Answer.LOSE_AFTER, Answer.LOSE_BEFORE}:
            return WithdrawalUnknown("no answer")
        if answer is Answer.REFUSE_CLOCK or late:
            return WithdrawalRefused("outside of the window", RefusalKind.CLOCK)
        if record is None:
            return WithdrawalRefused("not now")
        return WithdrawalAccepted(record.venue_ref)

    async def list_withdrawals(self, since: datetime) -> list[WithdrawalRecord]:
        """Return what was accepted, but what is withheld."""
        self._require_up()
        return [
            item
            for item in self.withdrawals.values()
            if item.at >= since and item.venue_ref not in self.withheld
        ]

    async def list_deposits(self, since: datetime) -> list[DepositRecord]:
        """Return what was shown."""
        self._require_up()
        return [
            item
            for item in self.deposits.values()
            if item.at >= since and item.venue_ref not in self.withheld
        ]

    # The venue's own side.

    def offer(self, asset: str, network: str, address: str, *, fee: int = 0) -> None:
        """Do business in an asset on a network."""
        self.addresses[asset, network] = VenueAddress(address)
        self.offers[asset, network] = VenueNetwork(
            asset=asset, network=network, fee=fee, least=1, step=1, withdraws=True, deposits=True
        )

    def show_deposit(
        self,
        tx_id: str,
        asset: str,
        network: str,
        amount: int,
        *,
        status: DepositStatus = DepositStatus.CREDITED,
        address: str | None = None,
        venue_ref: str | None = None,
    ) -> str:
        """List a deposit, or the same one in another status; return its id."""
        ref = venue_ref or self._next("d")
        known = self.deposits.get(ref)
        had = known is not None and known.status is DepositStatus.CREDITED
        if status is DepositStatus.CREDITED and not had:
            self.balances[asset] = self.balances.get(asset, 0) + amount
        self.deposits[ref] = DepositRecord(
            venue_ref=ref,
            asset=asset,
            network=network,
            address=self.addresses[asset, network].address if address is None else address,
            tag="",
            amount=amount,
            tx_id=tx_id,
            status=status,
            at=self.clock.now(),
        )
        return ref

    def pay(self, venue_ref: str, tx_id: str) -> WithdrawalRecord:
        """Say with which transaction a withdrawal was paid."""
        item = self.withdrawals[venue_ref]
        paid = replace(item, status=WithdrawalStatus.COMPLETED, tx_id=tx_id)
        self.withdrawals[venue_ref] = paid
        return paid

    def fail(self, venue_ref: str) -> None:
        """Give a withdrawal back that was not paid."""
        item = self.withdrawals[venue_ref]
        self.balances[item.asset] += item.sent + item.fee
        self.withdrawals[venue_ref] = replace(item, status=WithdrawalStatus.FAILED)

    def _accept(self, ticket: WithdrawalTicket) -> WithdrawalRecord:
        fee = self.offers[ticket.asset, ticket.network].fee
        ref = self._next("w")
        self.balances[ticket.asset] = self.balances.get(ticket.asset, 0) - ticket.amount
        record = WithdrawalRecord(
            venue_ref=ref,
            withdrawal_id=ticket.withdrawal_id if self.capabilities.takes_client_id else "",
            asset=ticket.asset,
            network=ticket.network,
            address=ticket.address,
            tag="",
            sent=ticket.amount - fee,
            fee=fee,
            status=WithdrawalStatus.PROCESSING,
            tx_id="",
            at=self.clock.now(),
        )
        self.withdrawals[ref] = record
        return record

    def _next(self, kind: str) -> str:
        self._number += 1
        return f"{kind}-{self._number}"

    def _require_up(self) -> None:
        if self.down:
            raise VenueUnavailable("no answer", where=self.venue)
