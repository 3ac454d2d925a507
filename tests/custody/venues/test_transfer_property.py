"""Any faults, deaths and reorganisations: nothing is lost, nothing is doubled, everything is told.

The venue keeps the truth, and so does the chain: whatever happened on the way, in the end the books say
what both say, and what our wallets and accounts hold has only become less by fees.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.testing import ScriptedTransaction
from custody.payout_model import PayoutState
from custody.venues.model import VenueDepositState, WithdrawalState
from custody.venues.sending import LEASE
from tests.custody.payout_world import ETH
from tests.custody.venues.test_unknown_withdrawals import Died, die
from tests.custody.venues.transfer_world import (
    ETHEREUM,
    HELD,
    PLACE,
    TransferWorld,
    make_transfer_world,
    payment,
)
from venues.treasury_model import WithdrawalStatus
from venues.treasury_testing import Answer

W, D = WithdrawalState, VenueDepositState
SEEDS = range(3)
STEPS = 12
OVER = {W.ARRIVED, W.NOT_PLACED, W.REFUSED, W.RETURNED, W.REJECTED}


class Storm:
    """Does one thing after the other, as the seed says, and then lets the weather clear up."""

    def __init__(self, world: TransferWorld, seed: int) -> None:
        self.world = world
        self.dice = random.Random(seed)
        self.paid: dict[str, ScriptedTransaction] = {}
        self.shown: set[str] = set()

    async def step(self) -> None:
        act = self.dice.choice(
            [
                *(self.send, self.withdraw, self.work, self.work),
                *(self.mine, self.venue_pays, self.venue_shows, self.reorg),
                *(self.silence, self.death, self.fail),
            ]
        )
        await act()

    async def send(self) -> None:
        if self.world.treasury.down:
            return
        payout, _ = await self.world.send(self.dice.randint(1, 10**9))
        if payout.state is PayoutState.PENDING_APPROVAL:
            await self.world.desk.approve(payout)

    async def withdraw(self) -> None:
        if self.world.treasury.down:
            return
        self.world.treasury.answers.append(self.dice.choice(list(Answer)))
        await self.world.approved(ETH + self.dice.randint(1, 10**9))

    async def work(self) -> None:
        await self.world.work(self.dice.choice([1, 10, 70]))

    async def mine(self) -> None:
        await self.world.desk.advance()
        self.world.desk.gateway.mine_pool()
        await self.world.desk.follow()
        await self.world.settle_chain()

    async def venue_pays(self) -> None:
        for item in [*self.world.treasury.withdrawals.values()]:
            if item.status is WithdrawalStatus.PROCESSING:
                tx = payment(item.address, item.sent, salt=item.venue_ref)
                self.paid[item.venue_ref] = tx
                # The block may have it before the venue says so, or after.
                self.world.desk.gateway.mine(tx)
                self.world.treasury.pay(item.venue_ref, tx.hash)
                return

    async def venue_shows(self) -> None:
        """Credit what a block has brought: the venue is not more patient than we are."""
        for item in await self.world.outward_payouts():
            if item.tx_hash and item.tx_hash not in self.shown:
                self.shown.add(item.tx_hash)
                self.world.treasury.show_deposit(item.tx_hash, "ETH", ETHEREUM, item.amount)

    async def reorg(self) -> None:
        depth = self.dice.randint(1, 4)
        lost = self.world.desk.gateway.reorg(depth, [[] for _ in range(depth + 1)])
        venues = [item for item in lost if item in self.paid.values()]
        if venues:
            self.world.desk.gateway.mine(*venues)
        await self.world.desk.follow()

    async def silence(self) -> None:
        self.world.treasury.down = self.dice.random() < 0.5

    async def death(self) -> None:
        self.world.treasury.on_withdraw = die
        try:
            await self.world.work()
        except Died:
            pass
        finally:
            self.world.treasury.on_withdraw = None

    async def fail(self) -> None:
        for item in self.world.treasury.withdrawals.values():
            if item.status is WithdrawalStatus.PROCESSING and self.dice.random() < 0.3:
                self.world.treasury.fail(item.venue_ref)
                return

    async def clear_up(self) -> None:
        self.world.treasury.down = False
        self.world.treasury.answers.clear()
        for _ in range(4):
            await self.world.work(LEASE.total_seconds() + 1)
            for _ in range(2):
                await self.mine()
            while any(
                item.status is WithdrawalStatus.PROCESSING
                for item in self.world.treasury.withdrawals.values()
            ):
                await self.venue_pays()
            await self.world.confirm()
            await self.venue_shows()
        await self.world.work(11)


@pytest.mark.parametrize("seed", SEEDS)
async def test_in_the_end_each_transfer_was_made_once_and_the_books_say_what_both_sides_say(
    engine: AsyncEngine, tmp_path: Path, seed: int
) -> None:
    async with make_transfer_world(engine, tmp_path) as world:
        for _ in range(8):
            world.desk.gateway.mine()
        await world.desk.follow()
        storm, start = Storm(world, seed), await world.balance("custody:house-hot")
        for _ in range(STEPS):
            await storm.step()
        await storm.clear_up()

        out = await world.rows_out()
        back = await world.rows_back()
        assert {item.state for item in out} <= {D.CREDITED, D.ENDED}
        assert {item.state for item in back} <= OVER
        tickets = [ticket.withdrawal_id for ticket in world.treasury.requests]
        assert len(tickets) == len(set(tickets))
        await world.assert_at_rest()
        await world.desk.assert_rule_two()

        fees = await world.balance("expense:network-fee") + await world.balance("expense:venue-fee")
        held = await world.balance("custody:house-hot") + await world.balance(PLACE.path)
        assert held + fees == start + HELD
