"""Deposits and withdrawals through the unmodified ccxt classes, at a simulator of either dialect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from kernel.clock import SystemClock
from kernel.errors import BadInput
from kernel.money import Asset
from kernel.settings import Secret
from tests.venues.in_thread import SimulatorThread
from venues.capabilities import Dialect
from venues.ccxt.endpoint import Credentials, Endpoint
from venues.ccxt.treasury import CcxtTreasury, TreasurySettings, open_treasury
from venues.ccxt.treasury_wires import is_writable, require_writable, wire_of
from venues.errors import VenueUnavailable
from venues.model import RefusalKind
from venues.records import BINANCE_US, capabilities_of
from venues.simulator.testing import SimulatorProcess
from venues.treasury_model import (
    DepositStatus,
    VenueAddress,
    WithdrawalAccepted,
    WithdrawalRefused,
    WithdrawalStatus,
    WithdrawalTicket,
    WithdrawalUnknown,
)

CLOCK = SystemClock()
ETHER = Asset("ETH", 18)
ASSETS = {"ETH": ETHER, "USDC": Asset("USDC", 6)}
OURS = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"
THEIRS = "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65"
FEE = 10**18 // 2_000
TX = "0x" + "ab" * 32
PATHS = {"binance": "/sapi/v1/capital/withdraw/apply", "kraken": "/0/private/Withdraw"}
NETWORKS = {"binance": "ETH", "kraken": "Ethereum"}
HOUR = timedelta(hours=1)


@dataclass
class Venue:
    sim: SimulatorProcess
    treasury: CcxtTreasury
    dialect: str

    @property
    def network(self) -> str:
        return NETWORKS[self.dialect]

    def fault(self, kind: str) -> None:
        """Schedule a fault of the next request to withdraw; what is asked before has its prefix."""
        skip = 2 if self.treasury.capabilities.names_addresses else 0
        self.sim.fault(kind, PATHS[self.dialect], method="POST", skip=skip)

    def ticket(
        self, amount: str = "1.25", number: int = 1, signed_at: datetime | None = None
    ) -> WithdrawalTicket:
        at = CLOCK.now() if signed_at is None else signed_at
        return WithdrawalTicket(
            id=UUID(int=number),
            withdrawal_id=UUID(int=number).hex,
            asset="ETH",
            network=self.network,
            address=OURS,
            amount=ETHER.parse(amount),
            text=amount,
            signed_at=at.replace(microsecond=at.microsecond // 1000 * 1000),
            window=timedelta(seconds=5),
        )


def started(folder: Path, dialect: str) -> SimulatorThread:
    return SimulatorThread(folder, "--step-ms", "0", "--withdrawal-ms", "-1", "--dialect", dialect)


@asynccontextmanager
async def spoken_to(sim: SimulatorProcess, dialect: str) -> AsyncIterator[Venue]:
    wanted = TreasurySettings(
        venue="sim",
        account="desk",
        capabilities=capabilities_of(dialect),
        endpoint=Endpoint(http_url=sim.url),
        credentials=Credentials(
            api_key=sim.ready["withdraw_api_key"], secret=Secret(sim.ready["withdraw_secret"])
        ),
        assets=ASSETS,
        withdraw_timeout=timedelta(milliseconds=1_500),
    )
    if dialect == "kraken":
        saved = {"name": "hot", "asset": "ETH", "network": "ETH", "address": OURS}
        sim.control("POST", "withdrawal-address", saved)
    async with open_treasury(wanted, CLOCK) as treasury:
        yield Venue(sim, treasury, dialect)


@pytest.fixture(scope="module", params=list(PATHS))
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[SimulatorProcess, str]]:
    with started(tmp_path_factory.mktemp(request.param), request.param) as process:
        yield process, request.param


@pytest.fixture
async def venue(running: tuple[SimulatorProcess, str]) -> AsyncIterator[Venue]:
    async with spoken_to(*running) as found:
        yield found


@pytest.fixture(params=list(PATHS))
async def empty_venue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Venue]:
    """A venue whose lists hold nothing of other tests."""
    with started(tmp_path / "venue", request.param) as sim:
        async with spoken_to(sim, request.param) as found:
            yield found


async def test_a_withdrawal_is_accepted_listed_paid_and_read_to_the_last_digit(
    venue: Venue,
) -> None:
    since = CLOCK.now() - HOUR
    before = await venue.treasury.list_withdrawals(since)
    placed = await venue.treasury.withdraw(venue.ticket("1.23456789"))
    assert isinstance(placed, WithdrawalAccepted)

    (row,) = [r for r in await venue.treasury.list_withdrawals(since) if r not in before]
    assert row.venue_ref == placed.venue_ref
    assert (row.sent, row.fee) == (ETHER.parse("1.23456789") - FEE, FEE)
    assert (row.asset, row.network, row.address) == ("ETH", venue.network, OURS)
    by_id = venue.treasury.capabilities.takes_client_id
    assert row.withdrawal_id == (venue.ticket().withdrawal_id if by_id else "")
    assert row.status is WithdrawalStatus.PROCESSING
    assert abs(row.at - CLOCK.now()) < timedelta(minutes=1)


async def test_a_deposit_is_listed_with_its_transaction_and_status(venue: Venue) -> None:
    tx = TX if venue.dialect == "binance" else TX.replace("ab", "cd")
    shown = {"asset": "USDC", "network": "ETH", "address": THEIRS, "tx_id": tx, "amount": "12.5"}
    venue.sim.control("POST", "deposit", {**shown, "status": "pending"})
    # Other tests have deposits of their own at this venue.
    listed = await venue.treasury.list_deposits(CLOCK.now() - HOUR)
    (row,) = [item for item in listed if item.tx_id == tx]
    assert (row.tx_id, row.amount) == (tx, 12_500_000)
    assert row.status is DepositStatus.PENDING

    venue.sim.control("POST", "deposit", {**shown, "status": "credited"})
    listed = await venue.treasury.list_deposits(CLOCK.now() - HOUR)
    (again,) = [item for item in listed if item.tx_id == tx]
    assert (again.status, again.venue_ref) == (DepositStatus.CREDITED, row.venue_ref)
    assert (again.network, again.address, again.tag) == (venue.network, THEIRS, "")


async def test_the_venue_names_its_deposit_address_and_what_a_withdrawal_costs(
    venue: Venue,
) -> None:
    venue.sim.control(
        "POST", "deposit-address", {"asset": "ETH", "network": "ETH", "address": OURS}
    )
    assert await venue.treasury.deposit_address("ETH", venue.network) == VenueAddress(OURS)
    (offer,) = await venue.treasury.networks("ETH")
    assert (offer.network, offer.fee, offer.least) == (venue.network, FEE, 10**16)
    assert offer.withdraws
    with pytest.raises(BadInput, match="DOGE"):
        await venue.treasury.networks("DOGE")


@pytest.mark.parametrize(
    ("kind", "lands"),
    [("hang_after_accept", True), ("hang_before_accept", False), ("truncated_200", True)],
)
async def test_a_withdrawal_without_an_answer_is_unknown_and_the_list_tells(
    venue: Venue,
    kind: str,
    lands: bool,  # noqa: FBT001  pytest names it
) -> None:
    since = CLOCK.now() - HOUR
    before = len(await venue.treasury.list_withdrawals(since))
    venue.fault(kind)
    placed = await venue.treasury.withdraw(venue.ticket("0.5", number=7))
    assert isinstance(placed, WithdrawalUnknown)
    assert len(await venue.treasury.list_withdrawals(since)) - before == int(lands)


@pytest.mark.parametrize("kind", ["rate_limited_429"])
async def test_a_venue_that_wants_fewer_requests_has_refused(venue: Venue, kind: str) -> None:
    venue.fault(kind)
    placed = await venue.treasury.withdraw(venue.ticket("0.5", number=8))
    assert isinstance(placed, WithdrawalRefused)
    assert placed.kind is RefusalKind.BACK_OFF


async def test_what_the_venue_does_not_cover_is_refused_for_good(venue: Venue) -> None:
    placed = await venue.treasury.withdraw(venue.ticket("900000", number=9))
    assert isinstance(placed, WithdrawalRefused), placed
    assert placed.kind is RefusalKind.FINAL


async def test_a_request_whose_window_is_over_is_not_sent(venue: Venue) -> None:
    before = len(await venue.treasury.list_withdrawals(CLOCK.now() - HOUR))
    late = venue.ticket("0.5", number=10, signed_at=CLOCK.now() - timedelta(seconds=6))
    placed = await venue.treasury.withdraw(late)
    assert isinstance(placed, WithdrawalRefused)
    assert placed.reason == "not sent: its window is over"
    assert len(await venue.treasury.list_withdrawals(CLOCK.now() - HOUR)) == before


async def test_an_address_that_is_not_saved_at_a_venue_of_keys_is_not_asked_for(
    venue: Venue,
) -> None:
    if not venue.treasury.capabilities.names_addresses:
        return
    ticket = venue.ticket("0.5", number=11)
    elsewhere = WithdrawalTicket(
        **{name: getattr(ticket, name) for name in ticket.__dataclass_fields__}
        | {"address": THEIRS}
    )
    placed = await venue.treasury.withdraw(elsewhere)
    assert isinstance(placed, WithdrawalRefused)
    assert "not saved" in placed.reason


async def test_withdrawals_of_two_callers_at_once_arrive_in_the_order_of_their_numbers(
    venue: Venue,
) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(venue.treasury.withdraw(venue.ticket("0.02", number=20 + n)))
            for n in range(4)
        ]
    assert all(isinstance(task.result(), WithdrawalAccepted) for task in tasks)


def test_a_venue_whose_treasury_nobody_described_has_none() -> None:
    assert BINANCE_US.dialect is Dialect.GENERIC
    with pytest.raises(BadInput, match="not supported"):
        wire_of(BINANCE_US)


async def test_lists_are_read_to_their_end_page_by_page(
    empty_venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    venue = empty_venue
    since = CLOCK.now() - 200 * timedelta(days=1)
    for number in range(5):
        tx = f"0x{number:02d}" + venue.dialect.encode().hex().ljust(62, "7")
        shown = {"asset": "USDC", "network": "ETH", "address": THEIRS, "tx_id": tx, "amount": "1"}
        venue.sim.control("POST", "deposit", {**shown, "status": "credited"})
        await asyncio.sleep(0.7)
    whole = await venue.treasury.list_deposits(since)
    assert len(whole) == 5

    wire = wire_of(capabilities_of(venue.dialect))
    monkeypatch.setattr(type(wire), "page_max", 4)
    paged = await venue.treasury.list_deposits(since)
    assert {item.venue_ref for item in paged} == {item.venue_ref for item in whole}
    assert len(paged) == len(whole)

    monkeypatch.setattr(type(wire), "page_max", 1)
    with pytest.raises(VenueUnavailable, match="more than can be read"):
        await venue.treasury.list_deposits(since)


@pytest.mark.parametrize("word", ["", "a\x00b", "a" * 301, "a\nb", "\u202eb"])
def test_a_word_that_no_row_can_hold_is_none(word: str) -> None:
    assert not is_writable(word)
    if word:
        with pytest.raises(BadInput, match="address is no word"):
            require_writable(VenueAddress(word))
    assert require_writable(VenueAddress(OURS)).tag == ""


async def test_what_the_list_would_not_be_read_for_is_not_asked_for(venue: Venue) -> None:
    asked = replace(venue.ticket(), asset="DAI")
    answer = await venue.treasury.withdraw(asked)
    assert isinstance(answer, WithdrawalRefused)
    assert "DAI is not moved" in answer.reason
