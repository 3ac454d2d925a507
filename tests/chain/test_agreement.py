"""Three providers, real nodes behind fault proxies: what may be confirmed when one of them lies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

import chain.jsonrpc
from chain.agreement import PATIENCE, agreed_tip, get_agreement
from chain.errors import NodeTrouble
from chain.evm.providers import Provider, ProviderSet, provider_set
from chain.follow import follow, get_cursor
from chain.model import Block, ChainStep, WatchList
from chain.simulators.faults.model import Fault, Rule
from chain.simulators.faults.proxy import FaultProxy, FaultProxySettings
from chain.simulators.testing import JsonRpc, dev_account, sign_transaction
from chain.testing import ScriptedGateway
from kernel.events import DomainEvent, list_history
from kernel.ids import derive_id
from tests.chain.conftest import CHAIN_ID, Node

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
ANN, CAROL = dev_account(0), dev_account(5)


async def nothing_watched(conn: AsyncConnection) -> WatchList:
    return WatchList(frozenset({CAROL.address}), frozenset())


async def nothing_follows(conn: AsyncConnection, step: ChainStep) -> None:
    return


@dataclass
class World:
    """A node, three proxies before it, the set that speaks to them, and books that follow it."""

    engine: AsyncEngine
    rpc: JsonRpc
    proxies: tuple[FaultProxy, ...]
    providers: ProviderSet
    now: datetime = NOW

    async def mine(self, blocks: int = 1) -> None:
        for _ in range(blocks):
            await self.rpc.call("evm_mine")

    async def follow(self) -> Block:
        await follow(
            self.engine,
            self.providers,
            "evm",
            watch=nothing_watched,
            apply=nothing_follows,
            now=self.now,
        )
        async with self.engine.begin() as conn:
            cursor = await get_cursor(conn, "evm")
        assert cursor is not None
        return cursor

    async def tip(self, cursor: Block, *, after_s: int = 0) -> Block | None:
        self.now += timedelta(seconds=after_s)
        return await agreed_tip(self.engine, self.providers, "evm", cursor, self.now)

    async def events(self) -> list[DomainEvent]:
        async with self.engine.begin() as conn:
            return await list_history(conn, "agreement", derive_id(NOW, "agreement", "evm"))


@pytest.fixture
async def world(
    node: Node, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    monkeypatch.setattr(chain.jsonrpc, "BACKOFF_BASE_S", 0.001)
    async with AsyncExitStack() as stack:
        settings = FaultProxySettings(upstream=node.url)
        proxies = [await stack.enter_async_context(FaultProxy(settings)) for _ in range(3)]
        providers = await stack.enter_async_context(
            provider_set(
                [Provider(proxy.url, f"p{place}") for place, proxy in enumerate(proxies)],
                chain="evm",
                network_id=CHAIN_ID,
                quorum=2,
                timeout_s=1.0,
            )
        )
        made = World(engine, node.rpc, tuple(proxies), providers)
        await made.mine(5)
        yield made


async def test_when_all_agree_the_tip_is_where_the_books_stand(world: World) -> None:
    cursor = await world.follow()

    assert await world.tip(cursor) == cursor
    assert cursor.height == 5
    assert await world.events() == []


@pytest.mark.parametrize("liar", [0, 1, 2])
async def test_lying_rpc_one_of_three_neither_confirms_nor_hinders_and_is_told_of(
    world: World, liar: int
) -> None:
    """Failure 20: a branch that only the liar has, from two blocks back."""
    world.proxies[liar].rules.set(Rule(fault=Fault.FORGED_HASH, height=4))

    cursor = await world.follow()
    true = await world.rpc.call("eth_getBlockByNumber", "0x5", False)

    assert cursor.hash == true["hash"]
    assert await world.tip(cursor) == cursor
    assert await world.events() == []
    assert await world.tip(cursor, after_s=60) == cursor
    assert await world.tip(cursor, after_s=60) == cursor
    world.proxies[liar].rules.clear()
    assert await world.tip(cursor, after_s=60) == cursor

    begun, ended = await world.events()
    assert (begun.name, ended.name) == ("ProvidersDisagree", "ProvidersAgree")
    assert "1 of 3 providers have another block at height 5" in begun.reason
    assert begun.payload["since"] == NOW.isoformat()
    assert (begun.at - NOW, ended.at - NOW) == (PATIENCE, 3 * PATIENCE)


async def test_books_led_astray_by_one_provider_confirm_nothing_of_its_branch(
    world: World,
) -> None:
    """The books followed the liar alone; the quorum has only what lies below the fork."""
    liar = world.proxies[0]
    liar.rules.set(Rule(fault=Fault.FORGED_HASH, height=4))
    async with provider_set(
        [Provider(liar.url)], chain="evm", network_id=CHAIN_ID, quorum=1
    ) as alone:
        honest, world.providers = world.providers, alone
        cursor = await world.follow()
        world.providers = honest

    tip = await world.tip(cursor)

    assert tip is not None
    assert (cursor.height, tip.height) == (5, 3)
    async with world.engine.begin() as conn:
        state = await get_agreement(conn, "evm")
    assert state.disputed_since == NOW
    assert "2 of 3 providers have another block" in state.detail
    await world.mine()
    world.providers = honest
    back = await world.follow()
    assert await world.tip(back) == back


async def test_a_stale_provider_lets_the_other_two_confirm(world: World) -> None:
    world.proxies[1].rules.set(Rule(fault=Fault.STALE_HEAD, height=2))

    cursor = await world.follow()

    assert cursor.height == 5
    assert await world.tip(cursor) == cursor
    assert await world.tip(cursor, after_s=3_600) == cursor
    assert await world.events() == []


async def test_a_silent_provider_lets_the_other_two_confirm(world: World) -> None:
    world.proxies[2].rules.set(Rule(fault=Fault.TIME_OUT))

    cursor = await world.follow()

    assert await world.tip(cursor) == cursor
    assert await world.tip(cursor, after_s=3_600) == cursor
    assert await world.events() == []


async def test_two_stale_providers_hold_confirmation_back_and_that_is_told(world: World) -> None:
    cursor = await world.follow()
    await world.tip(cursor)
    for proxy in world.proxies[:2]:
        proxy.rules.set(Rule(fault=Fault.STALE_HEAD, height=2))

    tips = [await world.tip(cursor, after_s=30) for _ in range(4)]

    assert [tip.height for tip in tips if tip is not None] == [2, 2, 2, 2]
    (begun,) = await world.events()
    assert "a quorum has blocks only up to height 2" in begun.reason


async def test_two_silent_providers_leave_nothing_to_confirm_against(world: World) -> None:
    cursor = await world.follow()
    for proxy in world.proxies[:2]:
        proxy.rules.set(Rule(fault=Fault.DISCONNECT))

    assert await world.tip(cursor) is None
    assert await world.tip(cursor, after_s=60) is None

    (begun,) = await world.events()
    assert "no quorum has any recent block" in begun.reason
    assert "p0 is silent" in begun.reason


async def test_a_fork_at_the_tip_is_confirmed_only_below_it(world: World) -> None:
    cursor = await world.follow()
    world.proxies[0].rules.set(Rule(fault=Fault.FORGED_HASH, height=5))
    world.proxies[1].rules.set(Rule(fault=Fault.STALE_HEAD, height=4))

    tip = await world.tip(cursor)

    assert tip is not None
    assert tip.height == 4


async def test_a_block_that_was_orphaned_everywhere_is_confirmed_by_nobody(world: World) -> None:
    raw = sign_transaction(ANN, 0, to=CAROL.address, value=3)
    await world.rpc.call("eth_sendRawTransaction", raw)
    cursor = await world.follow()
    await world.rpc.call("anvil_reorg", 2, [])

    tip = await world.tip(cursor)

    assert tip is not None
    assert tip.height == cursor.height - 2


async def scripted(engine: AsyncEngine, blocks: int) -> tuple[ScriptedGateway, Block]:
    """Books that follow a chain of so many blocks above its first one."""
    gateway = ScriptedGateway()
    for _ in range(blocks):
        gateway.mine()
    await follow(engine, gateway, "evm", watch=nothing_watched, apply=nothing_follows, now=NOW)
    return gateway, gateway.blocks[-1]


@pytest.mark.parametrize("common", [0, 1, 30, 57, 98, 99])
async def test_the_highest_common_block_is_found_in_a_few_questions(
    engine: AsyncEngine, common: int
) -> None:
    gateway, cursor = await scripted(engine, 100)
    asked: list[int] = []

    class Counting(ScriptedGateway):
        """Two providers that must agree, of which the second has our blocks up to *common*."""

        async def has_block(self, block: Block) -> int:
            asked.append(block.height)
            return 2 if block.height <= common else 1

    tip = await agreed_tip(engine, Counting(quorum=2), "evm", cursor, NOW)

    assert tip == gateway.blocks[common]
    assert len(asked) <= 15


async def test_trouble_with_the_providers_concludes_nothing(engine: AsyncEngine) -> None:
    gateway, cursor = await scripted(engine, 3)
    gateway.faults.extend([NodeTrouble("down"), NodeTrouble("down")])

    with pytest.raises(NodeTrouble):
        await agreed_tip(engine, gateway, "evm", cursor, NOW)

    async with engine.begin() as conn:
        assert (await get_agreement(conn, "evm")).tip_height is None
