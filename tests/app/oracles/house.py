"""A house in which everything has happened once: what the oracles look at, and what is planted in it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from banks.simulator.bank import Bank
from chain.follow import get_cursor
from custody.addresses import assign_address
from custody.compliance.address_list import NOBODY_LISTED
from custody.compliance.travel_rule import NO_TRAVEL_RULE
from custody.deposits import advance_deposits
from custody.model import AddressPurpose
from custody.payout_model import Payout, PayoutRequest
from custody.payouts import request_payout
from custody.policy import ConfirmationPolicy
from kernel.events import relay
from registry.testing import ETH
from tests.crash.test_settlement_killed import OURS, Doom, Door, House, three_parties
from tests.custody.bitcoin.spend_world import BTC, SpendWorld, make_spend_world
from tests.settlement.desk import ACME_WALLET, BOOK, CONFIRMATIONS, Desk, open_desk

LIVES_MAX = 60
BANK_OPENS_WITH = 1_000_000


class NobodyDies(Doom):
    """A house without accidents."""

    def listen(self, engine: AsyncEngine) -> None:
        """Leave the engine alone."""


async def deliver(engine: AsyncEngine, now: datetime) -> None:
    """Hand every event on."""

    async def take(batch: object) -> None:
        assert batch

    while await relay(engine, take, holder="relay-1", now=now):
        pass


async def settle(desk: Desk, url: str) -> Bank:
    """Settle three parties: by a chain, through a bank, and in the books alone."""
    bank = Bank(date(2026, 1, 5))
    bank.execute(
        {
            "verb": "account",
            "iban": OURS.iban,
            "currency": "EUR",
            "balance": BANK_OPENS_WITH,
        }
    )
    await three_parties(desk)
    house = House(desk, url, NobodyDies(), bank, Door(bank))
    desk.clock.advance(datetime(2026, 1, 5, 10, 29, tzinfo=UTC) - desk.now)
    while not await house.is_final():
        assert house.lives < LIVES_MAX
        await house.live()
        await house.outside()
    return bank


async def deposit(desk: Desk, party: str, *amounts: str) -> None:
    """A client pays in, and each payment is credited."""

    async def assign(conn: AsyncConnection) -> str:
        given = await assign_address(
            conn, "client-pool", purpose=AddressPurpose.DEPOSIT, party=party, now=desk.now
        )
        return given.address

    address = await desk.do(assign)
    for amount in amounts:
        desk.gateway.mine(desk.transaction(address, ETH.parse(amount), "ETH"))
    await desk.mine(CONFIRMATIONS)
    await advance(desk)


async def advance(desk: Desk) -> None:
    """Take deposits as far as they go."""
    tip = await desk.do(partial(get_cursor, chain="evm"))
    assert tip is not None
    await advance_deposits(
        desk.engine,
        "evm",
        book=BOOK,
        tip=tip,
        finalized=await desk.gateway.finalized_height(),
        policy=ConfirmationPolicy.uniform(CONFIRMATIONS),
        now=desk.now,
        screening=NOBODY_LISTED,
        travel_rule=NO_TRAVEL_RULE,
    )


async def withdraw(desk: Desk, reference: str, amount: str = "1") -> PayoutRequest:
    """A client asks for some of it back; its claim is held."""
    request = PayoutRequest(
        client_ref=reference,
        claim="client:acme",
        source_wallet="client-pool",
        asset="ETH",
        amount=ETH.parse(amount),
        destination=ACME_WALLET,
        requested_by="dan",
    )
    await desk.do(lambda conn: request_payout(conn, request, book=BOOK, now=desk.now))
    return request


async def live_a_day(engine: AsyncEngine, url: str, folder: Path) -> None:
    """Settle, take a deposit in, and leave a withdrawal for people to approve."""
    async with open_desk(engine, folder) as desk:
        await settle(desk, url)
        await deposit(desk, "acme", "3", "2")
        await withdraw(desk, "w-1")
        desk.clock.advance(timedelta(minutes=1))
        await deliver(desk.engine, desk.now)


async def pay_in_coins(engine: AsyncEngine, folder: Path) -> None:
    """Pay two clients' payees in one transaction on Bitcoin, until that is final."""
    async with make_spend_world(engine, folder) as world:
        await paid_in_coins(world)
        await deliver(engine, world.clock.now())


async def paid_in_coins(world: SpendWorld) -> list[Payout]:
    """Return two payouts that one transaction has paid."""
    payouts = await world.several(BTC, BTC // 3)
    await world.advance()
    await world.mine(3)
    await world.confirm()
    assert await world.states(payouts) == {"confirmed"}
    return payouts
