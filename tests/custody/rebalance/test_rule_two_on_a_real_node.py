"""Rule 2 of the account book on a real node: whatever happens, books and chain are equal per wallet.

Random schedules of deposits, payouts, sweeps, gas top-ups and reorganisations; after every block that
was followed, debits (posted and pending) less credits posted of each wallet are what the node says.
The seed is the test's parameter: one number repeats the schedule.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.evm.addresses import address_from_node
from chain.evm.gateway import EvmGateway
from chain.simulators.testing import (
    JsonRpc,
    deploy_test_dollar,
    dev_account,
    sign_transaction,
    start_evm_process,
    transfer_token,
)
from custody.addresses import list_addresses
from custody.deposits import list_deposits
from custody.payout_model import PayoutState
from custody.reconciliation import reconcile_chain
from custody.signer.testing import local_signer, rules_for
from kernel.clock import ManualClock
from registry.testing import DEMO_OPERATORS, demo_founding
from tests.custody.payout_world import BOOK, ETH, START, USDT, RealWorld, found_house
from tests.custody.rebalance.treasury_world import Treasury, set_rules
from tests.custody.test_payout_processes import fund

STEPS = 24
PAYER = 7
"""The development account that plays the clients' own wallets."""


@dataclass
class Story:
    """One schedule: what happens at random, and what must be true after every block."""

    treasury: Treasury
    rpc: JsonRpc
    chance: random.Random
    addresses: list[str] = field(default_factory=list)
    nonce: int = 0
    asked: int = 0
    blocks: int = 0
    told: list[str] = field(default_factory=list)

    @property
    def world(self) -> RealWorld:
        world = self.treasury.world
        assert isinstance(world, RealWorld)
        return world

    async def step(self) -> None:
        actions = (
            *(self.pay_in, self.pay_in_tokens, self.pay_in_tokens, self.pay_out),
            *(self.work, self.work, self.mine, self.mine, self.mine, self.rebalance),
            *(self.rebalance, self.reorganise),
        )
        action = self.chance.choice(actions)
        self.told.append(action.__name__)
        await action()

    async def pay_in(self) -> None:
        to = self.chance.choice(self.addresses)
        value = self.chance.randrange(ETH // 10, 2 * ETH)
        await self.send(sign_transaction(dev_account(PAYER), self.nonce, to=to, value=value))

    async def pay_in_tokens(self) -> None:
        to, amount = self.chance.choice(self.addresses), self.chance.randrange(1, 300) * USDT
        await self.send(
            transfer_token(dev_account(PAYER), self.nonce, self.world.token, to=to, amount=amount)
        )

    async def send(self, raw: str) -> None:
        await self.rpc.call("eth_sendRawTransaction", raw)
        self.nonce += 1

    async def pay_out(self) -> None:
        self.asked += 1
        asset = self.chance.choice(["ETH", "USDT"])
        amount = ETH // 10 if asset == "ETH" else 10 * USDT
        payout = await self.world.request(
            client_ref=f"story-{self.asked}", asset=asset, amount=amount
        )
        if payout.state is PayoutState.PENDING_APPROVAL:
            await self.world.approve(payout)

    async def work(self) -> None:
        self.world.clock.advance(timedelta(seconds=40))
        await self.world.advance()

    async def mine(self) -> None:
        await self.world.mine(self.chance.randrange(1, 3))
        self.blocks += 1
        await self.check()
        await self.treasury.credit()
        await self.world.confirm()

    async def rebalance(self) -> None:
        await self.treasury.next_window()
        await self.treasury.approve_all()

    async def reorganise(self) -> None:
        depth = self.chance.randrange(1, 3)
        if self.blocks <= depth:
            return
        await self.rpc.call("anvil_rollback", depth)
        await self.world.mine(depth + 1)
        await self.check()

    async def check(self) -> None:
        compared = await reconcile_chain(self.world.engine, self.world.gateway, "evm", book=BOOK)
        wrong = {f"{c.wallet} {c.asset}": c.difference for c in compared if c.difference}
        assert wrong == {}, self.told

    async def settle(self) -> None:
        """Let everything that is under way come to its end."""
        for _ in range(6):
            await self.work()
            await self.mine()

    async def only_strangers_were_credited(self) -> None:
        """Top-ups and sweeps come from addresses of ours: none of them is anybody's deposit."""
        ours = await self.world.run(lambda c: list_addresses(c, "evm"))
        deposits = await self.world.run(list_deposits)
        assert {d.sender for d in deposits}.isdisjoint(a.address for a in ours)


@asynccontextmanager
async def open_story(engine: AsyncEngine, seed: int) -> AsyncIterator[Story]:
    founding = demo_founding()
    with start_evm_process() as process, tempfile.TemporaryDirectory(prefix="cw") as folder:
        async with (
            aiohttp.ClientSession() as session,
            EvmGateway(process.url, chain="evm", network_id=31337) as gateway,
        ):
            rpc = JsonRpc(process.url, session)
            token = address_from_node(
                await deploy_test_dollar(rpc, dev_account(9), supply=10**9 * USDT)
            )
            rules = rules_for(
                founding.chains, demo_founding(token=token).chain_assets, DEMO_OPERATORS
            )
            # Approvals end by the signer's clock, so the story has one clock.
            clock = ManualClock(START)
            with local_signer(Path(folder), rules, clock=clock) as signer:
                world = RealWorld(
                    engine,
                    gateway,
                    signer,
                    clock,
                    token=token,
                    rpc=rpc,
                    vault=signer,
                )
                await world.run(lambda conn: found_house(conn, world))
                await fund(rpc, world)
                nonce = await rpc.number(
                    "eth_getTransactionCount", dev_account(9).address, "latest"
                )
                raw = transfer_token(
                    dev_account(9), nonce, token, to=dev_account(PAYER).address, amount=10**6 * USDT
                )
                await rpc.wait_receipt(await rpc.call("eth_sendRawTransaction", raw))
                await rpc.call("evm_setAutomine", False)
                world.start_height = await rpc.number("eth_blockNumber") + 1
                story = Story(Treasury(world), rpc, random.Random(seed))
                story.nonce = await rpc.number(
                    "eth_getTransactionCount", dev_account(PAYER).address, "latest"
                )
                story.addresses = [
                    await story.treasury.client_address(reference=str(n)) for n in range(3)
                ]
                await set_rules(world)
                await world.mine(3)
                story.blocks = 0
                yield story


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_books_and_chain_are_equal_after_every_block(engine: AsyncEngine, seed: int) -> None:
    async with open_story(engine, seed) as story:
        for _ in range(STEPS):
            await story.step()
        await story.settle()

        await story.check()
        await story.only_strangers_were_credited()


async def test_a_swept_house_holds_in_its_hot_address_what_was_paid_in(
    engine: AsyncEngine,
) -> None:
    """Tokens at three addresses: each is topped up, then swept, by payouts that people approved."""
    async with open_story(engine, 0) as story:
        for address in story.addresses:
            await story.send(
                transfer_token(
                    dev_account(PAYER),
                    story.nonce,
                    story.world.token,
                    to=address,
                    amount=100 * USDT,
                )
            )
        for _ in range(3):
            await story.mine()
            await story.rebalance()
            await story.work()
        await story.settle()

        kinds = [p.reason.partition(":")[0] for p in await story.treasury.own_transfers()]
        assert sorted(kinds) == ["sweep"] * 3 + ["top_up"] * 3
        for address in story.addresses:
            assert await story.treasury.held_at(address, token=True) == 0
        await story.check()
        await story.only_strangers_were_credited()
