"""Announcements of new heads: each wakes, none is relied on, and connections come back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

import chain.heads
from chain.evm.heads import HeadFeed
from chain.simulators.faults.model import Fault, Rule
from chain.simulators.faults.proxy import FaultProxy, FaultProxySettings
from tests.chain.conftest import Node

PATIENT_S = 10.0
BRIEF_S = 0.3


@pytest.fixture
async def proxy(node: Node, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultProxy]:
    monkeypatch.setattr(chain.heads, "PAUSE_BASE_S", 0.01)
    monkeypatch.setattr(chain.heads, "GAP_MIN_S", 0.0)
    async with FaultProxy(FaultProxySettings(upstream=node.url)) as made:
        yield made


@asynccontextmanager
async def listening(*urls: str) -> AsyncIterator[HeadFeed]:
    feed = HeadFeed(urls)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(feed.run())
        yield feed
        running.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENT_S):
        while not condition():  # noqa: ASYNC110  the feed has counters, not an event for a test
            await asyncio.sleep(0.01)


async def wait_open(feed: HeadFeed, connections: int) -> None:
    await until(lambda: feed.opened >= connections)
    await feed.wait(0)


async def test_a_new_head_wakes_whoever_waits(node: Node, proxy: FaultProxy) -> None:
    async with listening(proxy.ws_url) as feed:
        await wait_open(feed, 1)
        assert not await feed.wait(0.05)

        await node.rpc.call("evm_mine")

        assert await feed.wait(PATIENT_S)


async def test_an_announcement_between_two_waits_is_not_missed(
    node: Node, proxy: FaultProxy
) -> None:
    async with listening(proxy.ws_url) as feed:
        await wait_open(feed, 1)
        await node.rpc.call("anvil_mine", "0x3")
        await until(lambda: feed.heard >= 3)

        assert await feed.wait(0)
        assert not await feed.wait(0)


async def test_lost_announcements_cost_no_more_than_the_waiting_time(
    node: Node, proxy: FaultProxy
) -> None:
    async with listening(proxy.ws_url) as feed:
        await wait_open(feed, 1)
        proxy.rules.set(Rule(fault=Fault.DROP_NOTIFICATIONS))
        await node.rpc.call("evm_mine")

        assert not await feed.wait(BRIEF_S)
        assert feed.heard == 0


async def test_an_announcement_that_comes_twice_is_a_second_look_and_nothing_else(
    node: Node, proxy: FaultProxy
) -> None:
    proxy.rules.set(Rule(fault=Fault.DUPLICATE_NOTIFICATIONS))
    async with listening(proxy.ws_url) as feed:
        await wait_open(feed, 1)
        await node.rpc.call("evm_mine")
        await until(lambda: feed.heard >= 2)

        assert await feed.wait(0)
        assert not await feed.wait(0.05)


async def test_a_connection_that_breaks_is_opened_again_and_wakes_because_something_was_missed(
    node: Node, proxy: FaultProxy
) -> None:
    async with listening(proxy.ws_url) as feed:
        await wait_open(feed, 1)
        await proxy.disconnect()
        assert await feed.wait(PATIENT_S)

        await wait_open(feed, 2)
        await node.rpc.call("evm_mine")

        assert await feed.wait(PATIENT_S)
        assert feed.heard == 1


async def test_a_provider_that_is_not_there_or_refuses_does_not_silence_the_others(
    node: Node, proxy: FaultProxy
) -> None:
    async with FaultProxy(FaultProxySettings(upstream=node.url)) as refusing:
        refusing.rules.set(Rule(fault=Fault.REFUSE, methods=("eth_subscribe",)))
        async with listening("ws://127.0.0.1:9", refusing.ws_url, proxy.ws_url) as feed:
            await wait_open(feed, 1)
            await node.rpc.call("evm_mine")
            await until(lambda: feed.heard >= 1)

            assert await feed.wait(PATIENT_S)


async def test_pauses_grow_while_a_provider_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain.heads, "PAUSE_BASE_S", 0.05)
    feed = HeadFeed(["ws://127.0.0.1:9"])
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(feed.run())
        times = []
        for _ in range(4):
            await feed.wait(PATIENT_S)
            times.append(loop.time())
        running.cancel()

    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[-1] > gaps[0]


async def test_who_listens_ends_although_a_library_keeps_the_cancellation_to_itself() -> None:
    signal = chain.heads.HeadSignal()
    begun = asyncio.Event()

    async def keeps_the_first() -> None:
        if begun.is_set():
            await asyncio.Event().wait()
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        running = group.create_task(signal.listen_for_ever(keeps_the_first, ()))
        await begun.wait()
        running.cancel()
        done, _ = await asyncio.wait({running}, timeout=1.0)
        assert done

    assert running.cancelled()


async def test_a_provider_that_never_stops_announcing_cannot_make_us_look_without_end(
    node: Node, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain.heads, "GAP_MIN_S", 0.1)
    loop = asyncio.get_running_loop()
    async with listening(proxy.ws_url) as feed:
        await wait_open(feed, 1)
        began_s = loop.time()
        for _ in range(3):
            await node.rpc.call("evm_mine")
            assert await feed.wait(PATIENT_S)

    assert loop.time() - began_s >= 0.3


async def test_without_addresses_there_is_only_the_waiting_time() -> None:
    async with listening() as feed:
        assert not await feed.wait(0.01)
