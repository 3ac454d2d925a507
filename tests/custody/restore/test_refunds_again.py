"""A held deposit that was given back after the moment of a restore is not given back again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from app.local.databases import Database, Server
from app.oracles.run import examine
from chain.testing import ScriptedTransaction
from custody.addresses import assign_address
from custody.compliance import decisions, people
from custody.compliance.address_list import AddressList
from custody.compliance.cases import get_case
from custody.compliance.refunds import references_of
from custody.deposit_model import Deposit, DepositState
from custody.deposits import follow_refunds, list_deposits
from custody.errors import NotPossible
from custody.model import AddressPurpose
from custody.payout_model import Payout, PayoutState
from custody.payouts import reject_payout
from custody.restore.watching import look
from registry.queries import get_operator
from registry.testing import operator_keypair
from tests.custody.payout_world import BOOK, ETH, PAYEE
from tests.custody.restore.world import SetBack, set_back_world

THIEF = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"
LISTED = AddressList.blocking(1, {THIEF}, "stolen")
BLOCKS = 4
POOL = "client-pool"
REASON = "stolen"


class Desk:
    """The house, and the people who decide about what it holds."""

    def __init__(self, house: SetBack) -> None:
        self.house, self.world = house, house.world
        self.address = ""

    async def open(self) -> Desk:
        """Give the client an address."""
        now = self.world.clock.now()
        deposit = AddressPurpose.DEPOSIT
        given = await self.world.run(
            lambda conn: assign_address(conn, POOL, purpose=deposit, party="acme", now=now)
        )
        self.address = given.address
        self.world.gateway.fund(THIEF, 100 * ETH)
        await self.look()
        return self

    async def look(self) -> None:
        await look(self.world.engine, clock=self.world.clock, signer=self.house.inside)

    async def pay_in(self) -> Deposit:
        """Let a listed address pay the client, and the house hold it back."""
        paid = ScriptedTransaction(sender=THIEF, recipient=self.address, value=ETH)
        self.world.gateway.mine(paid)
        await self.world.mine(BLOCKS)
        return await self.take_in()

    async def take_in(self) -> Deposit:
        await self.world.take_deposits(LISTED)
        return await self.deposit()

    async def deposit(self) -> Deposit:
        (found,) = await self.world.run(list_deposits)
        return found

    async def refund(self, *, wallet: str = POOL) -> Payout:
        found = await self.deposit()
        case = await self.world.run(lambda conn: get_case(conn, found.id))
        payload = people.refund_bytes(case, REASON, destination=PAYEE, wallet=wallet)
        signed = {code: operator_keypair(code).sign(payload) for code in ("ben", "cleo")}
        return await self.world.run(
            lambda conn: decisions.refund(
                conn,
                found.id,
                destination=PAYEE,
                source_wallet=wallet,
                signatures=signed,
                reason=REASON,
                book=BOOK,
                now=self.world.clock.now(),
            )
        )

    async def reject(self, payout: Payout) -> None:
        now = self.world.clock.now()

        async def work(conn: AsyncConnection) -> None:
            cleo = await get_operator(conn, "cleo")
            await reject_payout(conn, payout.id, by=cleo, reason="wait", book=BOOK, now=now)

        await self.world.run(work)
        await self.world.run(lambda conn: follow_refunds(conn, now=now))

    async def pay(self, payout: Payout) -> None:
        await self.world.approve(payout, by="cleo")
        await self.world.advance()
        await self.world.mine(BLOCKS)
        await self.end()

    async def end(self) -> None:
        await self.world.confirm()
        now = self.world.clock.now()
        await self.world.run(lambda conn: follow_refunds(conn, now=now))

    async def lose_the_deposit_s_block(self) -> None:
        """Let all blocks since the deposit's be others, in which it is a block later."""
        gateway = self.world.gateway
        found = await self.deposit()
        [height] = [block.height for block in gateway.blocks if block.hash == found.block_hash]
        blocks = [list(one) for one in gateway.transactions[height:]]
        gateway.reorg(len(blocks), [[], *blocks, []])
        for _ in range(2):
            await self.world.follow()
            await self.end()
            await self.take_in()

    async def set_back(self, copy: str) -> None:
        """Set the database back, and read again what was signed, and the chain."""
        await self.house.restore(copy)
        await self.look()
        await self.house.take_signed()
        await self.house.vouch_for_the_rest()
        await self.world.follow()
        await self.end()
        await self.take_in()

    async def go_on(self) -> None:
        assert await self.house.cover_chain()
        await self.house.open("ben", "cleo")


@pytest.fixture
async def desk(database_server: Server, database: Database, tmp_path: Path) -> AsyncIterator[Desk]:
    async with set_back_world(database_server, database, tmp_path) as made:
        yield await Desk(made).open()


@pytest.mark.parametrize("known", [False, True], ids=["deposit-lost", "deposit-known"])
async def test_a_deposit_that_was_given_back_before_a_restore_is_not_given_back_again(
    desk: Desk, *, known: bool
) -> None:
    if known:
        await desk.pay_in()
    copy = await desk.house.back_up()
    if not known:
        await desk.pay_in()
    # The second decision of people, who will have decided nothing once it is restored.
    await desk.reject(await desk.refund())
    paid = await desk.refund()
    await desk.pay(paid)
    assert (await desk.deposit()).state is DepositState.REFUNDED
    books, signed = await desk.world.books(), desk.house.inside.signer.memory.count()

    await desk.set_back(copy)
    await desk.go_on()
    held = await desk.deposit()
    assert held.state is DepositState.HELD
    with pytest.raises(NotPossible, match="given back already, from client-pool to"):
        await desk.refund(wallet="acme-segregated")
    again = await desk.refund()
    await desk.end()
    await desk.world.advance()

    assert (again.id, again.state) == (paid.id, PayoutState.CONFIRMED)
    after = await desk.deposit()
    assert (after.state, after.refund) == (DepositState.REFUNDED, paid.id)
    assert await desk.world.books() == books
    assert (await examine(desk.world.engine)).findings == ()
    assert desk.house.inside.signer.memory.count() == signed


async def test_what_a_client_has_paid_for_a_refund_that_came_back_is_the_client_s_again(
    desk: Desk,
) -> None:
    copy = await desk.house.back_up()
    await desk.pay_in()
    await desk.pay(await desk.refund())
    await desk.set_back(copy)
    await desk.go_on()
    before = await desk.world.books()
    assert before["receivable:acme:reorg", "ETH"][0] == ETH
    # What is owed is set off first: the client pays for what was given back.
    await desk.world.request(client_ref="next", amount=ETH)
    assert ("receivable:acme:reorg", "ETH") not in await desk.world.books()

    await desk.refund()

    books = await desk.world.books()
    assert (await examine(desk.world.engine)).findings == ()
    assert ("client:acme:held", "ETH") not in books
    assert books["client:acme", "ETH"][0] == before["client:acme", "ETH"][0]


async def test_a_deposit_whose_block_was_taken_away_after_it_was_given_back_is_given_back_once(
    desk: Desk,
) -> None:
    await desk.pay_in()
    paid = await desk.refund()
    await desk.pay(paid)
    books, signed = await desk.world.books(), desk.house.inside.signer.memory.count()

    await desk.lose_the_deposit_s_block()
    assert (await desk.deposit()).state is DepositState.HELD
    assert (await desk.refund()).id == paid.id
    await desk.end()

    assert (await desk.deposit()).state is DepositState.REFUNDED
    assert await desk.world.books() == books
    assert desk.house.inside.signer.memory.count() == signed


async def test_a_deposit_that_comes_back_each_time_is_not_given_back_for_ever(desk: Desk) -> None:
    deposit = await desk.pay_in()
    for _ in references_of(deposit):
        await desk.reject(await desk.refund())

    with pytest.raises(NotPossible, match="was given back 32 times"):
        await desk.refund()
