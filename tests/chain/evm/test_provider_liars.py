"""One of three providers lies about what no hash proves: the branch, and that nothing is there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.evm.gateway import EvmGateway
from chain.evm.providers import ProviderSet
from chain.follow import follow
from chain.model import (
    Block,
    BlockContents,
    ChainStep,
    FollowPolicy,
    FollowReport,
    FollowState,
    Included,
    Orphaned,
    Unreadable,
    WatchList,
)
from chain.simulators.testing import dev_account, sign_transaction
from tests.chain.conftest import CHAIN_ID, NodeStage

ANN, CAROL = dev_account(0), dev_account(5)
WATCH = WatchList(frozenset({CAROL.address}), frozenset())
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FORGED = "ff"


def forged(block_hash: str, height: int) -> str:
    return f"0x{FORGED}{height:062x}{block_hash[64:]}"[:66]


class Liar(EvmGateway):
    """Tells the truth about its head, and lies as it is told to."""

    forges_from: int | None = None
    hides = False
    holds: int | None = None

    async def block_at(self, height: int) -> Block | None:
        found = await super().block_at(height)
        if found is None or self.forges_from is None or height < self.forges_from:
            return found
        parent = found.parent
        if height > self.forges_from:
            parent = forged(found.parent, height - 1)
        return replace(found, hash=forged(found.hash, height), parent=parent)

    async def contents(self, block: Block, watch: WatchList) -> BlockContents:
        found = await super().contents(block, watch)
        return replace(found, movements=(), outcomes=()) if self.hides else found

    async def contents_of_range(
        self, first: Block, last: Block, watch: WatchList
    ) -> list[BlockContents]:
        found = await super().contents_of_range(first, last, watch)
        if not self.hides:
            return found
        return [replace(one, movements=(), outcomes=()) for one in found]

    async def balance(self, address: str, contract: str | None, *, at: Block) -> int:
        found = await super().balance(address, contract, at=at)
        return found if self.holds is None else self.holds

    async def balances(
        self, wanted: Sequence[tuple[str, str | None]], *, at: Block
    ) -> list[int | Unreadable]:
        found = await super().balances(wanted, at=at)
        return found if self.holds is None else [self.holds] * len(found)


class World:
    """A chain, a liar who is asked first, and two honest providers."""

    def __init__(self, engine: AsyncEngine, stage: NodeStage, gateways: list[EvmGateway]) -> None:
        self.engine = engine
        self.stage = stage
        self.liar = gateways[0]
        self.providers = ProviderSet(gateways, quorum=2, clock_s=lambda: 0.0)
        self.steps: list[ChainStep] = []
        self.nonce = 0

    async def pay(self, value: int) -> Block:
        raw = sign_transaction(ANN, self.nonce, to=CAROL.address, value=value)
        self.nonce += 1
        await self.stage.rpc.call("eth_sendRawTransaction", raw)
        await self.stage.mine()
        return await self.stage.gateway.head()

    async def follow(self, policy: FollowPolicy) -> FollowReport:
        async def watch(conn: AsyncConnection) -> WatchList:
            return WATCH

        async def apply(conn: AsyncConnection, step: ChainStep) -> None:
            self.steps.append(step)

        return await follow(
            self.engine, self.providers, "evm", watch=watch, apply=apply, now=NOW, policy=policy
        )

    def received(self) -> list[int]:
        return [
            movement.amount
            for step in self.steps
            if isinstance(step, Included)
            for movement in step.contents.movements
        ]

    def lie(self, **how: object) -> None:
        for name, value in how.items():
            setattr(self.liar, name, value)


@pytest.fixture
async def world(evm: NodeStage, engine: AsyncEngine) -> AsyncIterator[World]:
    url = evm.rpc.url
    gateways = [
        kind(url, chain="evm", network_id=CHAIN_ID, name=name)
        for kind, name in ((Liar, "liar"), (EvmGateway, "two"), (EvmGateway, "three"))
    ]
    async with AsyncExitStack() as stack:
        world = World(engine, evm, gateways)
        await stack.enter_async_context(world.providers)
        yield world


async def test_one_liar_does_not_take_booked_blocks_back(world: World) -> None:
    await world.pay(5)
    tip = await world.pay(6)
    await world.follow(FollowPolicy(reorg_depth_max=64))
    world.lie(forges_from=tip.height - 1)

    report = await world.follow(FollowPolicy(reorg_depth_max=64))

    assert report.caught_up
    assert not [step for step in world.steps if isinstance(step, Orphaned)]


async def test_one_liar_does_not_halt_the_chain_with_a_branch_of_its_own(world: World) -> None:
    for value in range(1, 5):
        await world.pay(value)
    await world.follow(FollowPolicy(reorg_depth_max=2))
    world.lie(forges_from=0)

    report = await world.follow(FollowPolicy(reorg_depth_max=2))

    assert (report.state, report.caught_up) == (FollowState.RUNNING, True)


async def test_one_liar_does_not_hide_a_payment_near_the_head(world: World) -> None:
    world.lie(hides=True)
    await world.pay(5)

    await world.follow(FollowPolicy())

    assert world.received() == [5]


async def test_one_liar_does_not_halt_the_chain_by_a_second_reading(world: World) -> None:
    policy = FollowPolicy(reread_after=2)
    await world.follow(policy)
    await world.pay(5)
    await world.follow(policy)
    world.lie(hides=True)
    for _ in range(3):
        await world.stage.mine()

    report = await world.follow(policy)

    assert (report.state, report.reread > 0) == (FollowState.RUNNING, True)


async def test_one_liar_does_not_hide_a_payment_in_blocks_read_in_runs(world: World) -> None:
    world.lie(hides=True)
    first = await world.stage.gateway.block_at(0)
    await world.pay(5)
    last = await world.pay(6)
    assert first is not None
    second = await world.stage.gateway.block_at(1)
    assert second is not None

    run = await world.providers.contents_of_range(second, last, WATCH)

    assert [m.amount for one in run for m in one.movements] == [5, 6]


async def test_a_balance_is_believed_of_a_quorum(world: World) -> None:
    before = await world.stage.gateway.balance(
        CAROL.address, None, at=await world.stage.gateway.head()
    )
    block = await world.pay(5)
    world.lie(holds=10**30)

    alone = await world.providers.balance(CAROL.address, None, at=block)
    many = await world.providers.balances([(CAROL.address, None)], at=block)

    assert (alone, many) == (before + 5, [before + 5])
