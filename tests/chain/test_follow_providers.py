"""Whatever one of three providers does, the blocks in the books are those of a clean sync."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

import chain.health
import chain.jsonrpc
from chain.agreement import agreed_tip
from chain.errors import NodeTrouble
from chain.evm.gateway import EvmGateway
from chain.evm.providers import Provider, ProviderSet, provider_set
from chain.follow import follow, get_cursor
from chain.model import Block, BlockContents, ChainStep, FollowReport, WatchList
from chain.simulators.faults.model import Fault, Rule
from chain.simulators.faults.proxy import FaultProxy, FaultProxySettings
from chain.simulators.testing import EvmProcess, dev_account, sign_transaction, transfer_token
from chain.store import load_canonical, load_contents
from tests.chain.conftest import CHAIN_ID, NodeStage, node_stage, open_node
from tests.chain.test_agreement import NOW

ANN, CAROL = dev_account(0), dev_account(5)
ROUNDS = 18
QUORUM = 2

#: What the one bad provider may do; heights are filled in when it begins.
FAULTS = (
    Rule(fault=Fault.STALE_HEAD, blocks=2),
    Rule(fault=Fault.STALE_HEAD, blocks=3, every=2),
    Rule(fault=Fault.EMPTY_LOGS),
    Rule(fault=Fault.ALTERED_AMOUNTS),
    Rule(fault=Fault.FORGED_HASH, height=1),
    Rule(fault=Fault.DISCONNECT, every=3),
    Rule(fault=Fault.HALF_ANSWER, every=2),
    Rule(fault=Fault.TOO_MANY_REQUESTS, every=2),
    Rule(fault=Fault.REFUSE, methods=("eth_getBlockReceipts", "eth_getLogs")),
    Rule(fault=Fault.NO_TRACES),
    Rule(fault=Fault.TIME_OUT, seconds=0.01),
)


@dataclass
class World:
    """A chain behind three proxies, books that follow it, and what was confirmed against."""

    engine: AsyncEngine
    stage: NodeStage
    proxies: list[FaultProxy]
    providers: ProviderSet
    chance: random.Random
    nonce: int = 0
    confirmed: list[Block] = field(default_factory=list)

    @property
    def watch(self) -> WatchList:
        return WatchList(frozenset({CAROL.address}), frozenset({self.stage.token}))

    async def pay(self) -> None:
        """Mine a block with a payment in ether, in tokens, or with nothing for us."""
        kind = self.chance.choice(["ether", "token", "nothing"])
        if kind == "ether":
            value = self.chance.randint(1, 99)
            raw = sign_transaction(ANN, self.nonce, to=CAROL.address, value=value)
        else:
            to = CAROL.address if kind == "token" else dev_account(1).address
            raw = transfer_token(ANN, self.nonce, self.stage.token, to=to, amount=7)
        await self.stage.rpc.call("eth_sendRawTransaction", raw)
        await self.stage.mine()
        self.nonce += 1

    async def break_one(self) -> None:
        """Let one provider, chosen by chance, be bad in one way; the others are good again."""
        for proxy in self.proxies:
            proxy.rules.clear()
        rule = self.chance.choice(FAULTS)
        if rule.fault is Fault.FORGED_HASH:
            head = await self.stage.gateway.head()
            rule = Rule(fault=rule.fault, height=max(1, head.height - self.chance.randint(0, 2)))
        self.chance.choice(self.proxies).rules.set(rule)

    async def follow(self) -> FollowReport | None:
        async def watch(conn: AsyncConnection) -> WatchList:
            return self.watch

        async def apply(conn: AsyncConnection, step: ChainStep) -> None:
            return

        try:
            return await follow(
                self.engine, self.providers, "evm", watch=watch, apply=apply, now=NOW
            )
        except NodeTrouble:
            return None

    async def confirm(self) -> None:
        async with self.engine.begin() as conn:
            cursor = await get_cursor(conn, "evm")
        if cursor is None:
            return
        try:
            tip = await agreed_tip(self.engine, self.providers, "evm", cursor, NOW)
        except NodeTrouble:
            return
        if tip is not None:
            # Nobody else mines: what is agreed on now must be on the true chain now.
            assert await self.stage.gateway.block_at(tip.height) == tip
            self.confirmed.append(tip)

    async def books(self, last: int) -> list[BlockContents]:
        found = []
        async with self.engine.begin() as conn:
            for height in range(last + 1):
                block = await load_canonical(conn, "evm", height)
                assert block is not None
                found.append(await load_contents(conn, block))
        return found

    async def clean(self, last: int) -> list[BlockContents]:
        found = []
        for height in range(last + 1):
            block = await self.stage.gateway.block_at(height)
            assert block is not None
            found.append(await self.stage.gateway.contents(block, self.watch))
        return found


@pytest.fixture
async def world(
    request: pytest.FixtureRequest,
    engine: AsyncEngine,
    simulator_process: EvmProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[World]:
    monkeypatch.setattr(chain.jsonrpc, "BACKOFF_BASE_S", 0.001)
    monkeypatch.setattr(chain.health, "REST_MAX_S", 0.02)
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_node("simulator", request))
        stage = await stack.enter_async_context(node_stage(node))
        settings = FaultProxySettings(upstream=node.url)
        proxies = [await stack.enter_async_context(FaultProxy(settings)) for _ in range(3)]
        providers = await stack.enter_async_context(
            provider_set(
                [Provider(proxy.url, f"p{place}") for place, proxy in enumerate(proxies)],
                chain="evm",
                network_id=CHAIN_ID,
                quorum=QUORUM,
                timeout_s=1.0,
            )
        )
        yield World(engine, stage, proxies, providers, random.Random(0))


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
async def test_any_faults_of_one_provider_and_reorganisations_give_the_books_of_a_clean_sync(
    world: World, seed: int
) -> None:
    world.chance.seed(seed)
    for _ in range(ROUNDS):
        await world.break_one()
        await world.pay()
        if world.chance.random() < 0.25:
            await world.stage.reorg(world.chance.randint(1, 2))
            await world.stage.mine()
        await world.follow()
        await world.confirm()
    for proxy in world.proxies:
        proxy.rules.clear()
    report = None
    for _ in range(5):
        report = await world.follow()
        if report is not None and report.caught_up:
            break

    assert report is not None
    assert report.caught_up
    head = await world.stage.gateway.head()
    books, clean = await world.books(head.height), await world.clean(head.height)
    assert [one.block for one in books] == [one.block for one in clean]
    assert [one.movements for one in books] == [one.movements for one in clean]
    assert sum(len(one.movements) for one in clean) > 0
    assert len(world.confirmed) > ROUNDS // 2


async def test_the_same_liar_believed_alone_leads_the_books_astray(world: World) -> None:
    """Why a quorum: with the guard taken out, the books hold what was never paid."""
    await world.pay()
    await world.stage.rpc.call(
        "eth_sendRawTransaction", sign_transaction(ANN, world.nonce, to=CAROL.address, value=5)
    )
    await world.stage.mine()
    world.proxies[0].rules.set(Rule(fault=Fault.ALTERED_AMOUNTS))
    async with EvmGateway(world.proxies[0].url, chain="evm", network_id=CHAIN_ID) as alone:
        block = await alone.head()
        (lie,) = (await alone.contents(block, world.watch)).movements
    (truth,) = (await world.providers.contents(block, world.watch)).movements

    assert (lie.amount, truth.amount) == (10, 5)
