"""Random reorganisations of real nodes: what is stored in the end is what the node has."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.follow import follow
from chain.model import BlockContents, ChainStep, FollowPolicy, FollowReport, Included, WatchList
from chain.simulators.testing import dev_account, sign_transaction, transfer_token
from chain.store import load_canonical_below, load_contents
from kernel.db import transact
from tests.chain.conftest import NodeStage

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
ANN, BOB, CAROL = (dev_account(index) for index in (0, 1, 5))
ROUNDS = 12
DEPTH_MAX = 4


@dataclass
class Walker:
    """Follows a node, and adds up what it was told."""

    engine: AsyncEngine
    evm: NodeStage
    chance: random.Random
    held: dict[tuple[str, str], int] = field(default_factory=dict)

    async def watch(self, conn: AsyncConnection) -> WatchList:
        return WatchList(frozenset({CAROL.address}), frozenset({self.evm.token}))

    async def apply(self, conn: AsyncConnection, step: ChainStep) -> None:
        for movement in step.contents.movements:
            identity = (movement.tx_hash, movement.position)
            if isinstance(step, Included):
                assert identity not in self.held
                self.held[identity] = movement.amount
            else:
                assert self.held.pop(identity) == movement.amount

    async def walk(self, blocks_max: int = 1_000) -> FollowReport:
        return await follow(
            self.engine,
            self.evm.gateway,
            "evm",
            watch=self.watch,
            apply=self.apply,
            now=NOW,
            blocks_max=blocks_max,
            policy=FollowPolicy(reread_after=3),
        )

    async def act(self) -> None:
        """Let the node do something by chance."""
        match self.chance.choice(["pay", "pay", "mine", "reorg", "walk", "walk", "rollback"]):
            case "pay":
                await self.pay()
            case "mine":
                await self.evm.mine()
            case "reorg":
                head = await self.evm.gateway.head()
                await self.evm.reorg(min(self.chance.randint(1, DEPTH_MAX), head.height - 1))
            case "rollback":
                await self.evm.rpc.call("anvil_rollback", 1)
                await self.walk()
                await self.evm.mine()
            case "walk":
                await self.walk(self.chance.choice([1, 2, 1_000]))
            case other:
                raise AssertionError(f"no action {other}")

    async def pay(self) -> None:
        """Pay us in ether or tokens, in the next block."""
        payer, amount = self.chance.choice([ANN, BOB]), self.chance.randint(1, 99)
        nonce = await self.evm.rpc.number("eth_getTransactionCount", payer.address, "pending")
        if self.chance.random() < 0.5:
            raw = sign_transaction(payer, nonce, to=CAROL.address, value=amount)
        else:
            raw = transfer_token(payer, nonce, self.evm.token, to=CAROL.address, amount=amount)
        await self.evm.rpc.call("eth_sendRawTransaction", raw)
        await self.evm.mine()

    async def stored(self) -> list[BlockContents]:
        async def work(conn: AsyncConnection) -> list[BlockContents]:
            blocks = await load_canonical_below(conn, "evm", 10**6, 10_000)
            return [await load_contents(conn, block) for block in reversed(blocks)]

        return await transact(self.engine, work)

    async def truth(self) -> list[BlockContents]:
        """What the node says of each of its blocks now."""
        head = await self.evm.gateway.head()
        watch = WatchList(frozenset({CAROL.address}), frozenset({self.evm.token}))
        first = await self.evm.gateway.block_at(0)
        assert first is not None
        return await self.evm.gateway.contents_of_range(first, head, watch)


@pytest.mark.parametrize("seed", range(3))
async def test_any_reorganisations_of_a_node_end_in_what_the_node_has(
    engine: AsyncEngine, evm: NodeStage, seed: int
) -> None:
    # Failure 21 of the catalogue: blocks missed, or kept, after a reorganisation.
    walker = Walker(engine, evm, random.Random(seed))
    for _ in range(ROUNDS):
        await walker.act()
    await evm.mine()
    await evm.mine()
    while not (await walker.walk()).caught_up:
        await evm.mine()

    truth = await walker.truth()

    assert await walker.stored() == truth
    paid = {(m.tx_hash, m.position): m.amount for item in truth for m in item.movements}
    assert walker.held == paid
