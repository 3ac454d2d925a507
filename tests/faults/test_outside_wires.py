"""Broken wires to a node, to providers, to a venue, to a bank: unknown is found out, never guessed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from app.faults.proxy import FaultProxy, read_target
from app.faults.wire_rules import Fault, Rule, Way, storm
from banks.http_gateway import HttpGateway
from banks.submission import Outcome
from chain.errors import NodeUnavailable
from chain.evm.gateway import EvmGateway
from chain.evm.providers import Provider, provider_set
from chain.simulators.testing import JsonRpc, start_evm_process
from custody import payout_store as store
from custody.payout_model import AttemptState, Payout, PayoutState
from custody.signer.testing import local_signer, rules_for
from kernel.clock import ManualClock, SystemClock
from kernel.db import transact
from kernel.errors import OutsideUnavailable
from marketdata.instruments import record_instrument
from registry.testing import DEMO_OPERATORS, demo_founding
from tests.custody.payout_world import ETH, PAYEE, START, RealWorld, found_house
from tests.faults.seeds import fresh_seed
from tests.venues.conftest import QUICK, gateway_settings, intended, ticket
from tests.venues.in_thread import SimulatorThread
from venues.ccxt.endpoint import Endpoint
from venues.ccxt.gateway import open_gateway
from venues.fills import collect, filled_units
from venues.model import OrderState
from venues.orders import resolve, submit

SILENCE_S: Final = 2.0
"""How long a desk of these tests waits for an answer."""
NOTICED_WITHIN_S: Final = 60.0
STORM_S: Final = 3.0
PAYOUTS: Final = 12
ROUNDS_MAX: Final = 200

BROKEN = [
    (Fault.SWALLOW, Way.TO_SERVER, 0),
    (Fault.SWALLOW, Way.TO_CLIENT, 0),
    (Fault.RESET, Way.TO_SERVER, 60),
    (Fault.CUT, Way.TO_CLIENT, 40),
    (Fault.CORRUPT, Way.TO_CLIENT, 0),
]
"""What becomes of one request and its answer: it is lost, its answer is lost, half of either comes, or
the answer comes and says nothing that can be read."""


def broken(fault: Fault, way: Way, after_bytes: int, heard: str) -> Rule:
    return Rule(fault=fault, way=way, after_bytes=after_bytes, heard=heard, count=100_000)


def http_target(url: str) -> Any:
    return read_target(url.removeprefix("http://").rstrip("/"))


class Desk:
    """A desk whose node is behind a wire."""

    def __init__(self, world: RealWorld, wire: FaultProxy, truth: JsonRpc) -> None:
        self.world = world
        self.wire = wire
        self.truth = truth

    async def attempts(self, payout: Payout) -> list[AttemptState]:
        found = await self.world.run(lambda conn: store.list_attempts(conn, payout.id))
        return [attempt.state for attempt in found]

    async def work(self) -> None:
        """Let a worker do what it can; a node that does not answer is for the next time."""
        self.world.clock.advance(timedelta(minutes=1))
        try:
            await self.world.advance()
        except OutsideUnavailable:
            return

    async def confirmed(self, payouts: list[Payout]) -> bool:
        return {(await self.world.get(item)).state for item in payouts} == {PayoutState.CONFIRMED}

    async def paid(self) -> int:
        return await self.truth.number("eth_getBalance", PAYEE, "latest")


@pytest.fixture
async def desk(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Desk]:
    clock, founding = ManualClock(START), demo_founding()
    rules = rules_for(founding.chains, founding.chain_assets, DEMO_OPERATORS)
    with start_evm_process() as process, local_signer(tmp_path, rules, clock=clock) as signer:
        async with (
            aiohttp.ClientSession() as session,
            FaultProxy(http_target(process.url)) as wire,
            EvmGateway(wire.url, chain="evm", network_id=31337, timeout_s=SILENCE_S) as gateway,
        ):
            truth = JsonRpc(process.url, session)
            world = RealWorld(engine, gateway, signer, clock, rpc=truth, vault=signer)
            await world.run(lambda conn: found_house(conn, world))
            for address in world.hot.values():
                await truth.call("anvil_setBalance", address, hex(20 * ETH))
            await truth.call("anvil_setBalance", PAYEE, "0x0")
            await truth.call("evm_setAutomine", False)
            world.start_height = await truth.number("eth_blockNumber") + 1
            await world.mine()
            yield Desk(world, wire, truth)


async def test_a_broadcast_over_a_broken_wire_is_ambiguous_and_pays_once(desk: Desk) -> None:
    amount = ETH // 100
    for number, (fault, way, after_bytes) in enumerate(BROKEN):
        payout = await desk.world.approved(client_ref=f"b-{number}", amount=amount)
        desk.wire.set(broken(fault, way, after_bytes, "eth_sendRawTransaction"))
        await desk.work()
        assert await desk.attempts(payout) == [AttemptState.AMBIGUOUS], fault

        desk.wire.clear()
        await desk.work()
        assert await desk.attempts(payout) == [AttemptState.BROADCAST], fault
        await desk.world.mine(3)
        await desk.world.confirm()
        assert await desk.confirmed([payout])
        assert await desk.paid() == amount * (number + 1)


async def test_payouts_through_a_storm_are_each_paid_once(
    desk: Desk, record_property: Callable[[str, object], None]
) -> None:
    seed = fresh_seed()
    payouts = [
        await desk.world.approved(client_ref=f"s-{number}", amount=ETH // 100 + number)
        for number in range(PAYOUTS)
    ]
    turns = 0
    async with asyncio.TaskGroup() as group:
        playing = group.create_task(desk.wire.play(storm(seed, seconds=STORM_S, calm_s=0.2)))
        while not playing.done():
            await desk.work()
            turns += 1
            await asyncio.sleep(0)
    record_property(
        "counts",
        f"storm between a payout worker and its node, seed {seed}: {turns} turns, "
        f"{desk.wire.connections} connections, {PAYOUTS} payouts",
    )
    for _ in range(ROUNDS_MAX):
        await desk.work()
        await desk.world.mine(3)
        await desk.world.confirm()
        if await desk.confirmed(payouts):
            break

    assert await desk.confirmed(payouts), seed
    assert await desk.paid() == sum(payout.amount for payout in payouts)
    await desk.world.assert_live_rows()


async def test_a_quorum_outlasts_a_provider_that_went_half_open_and_not_two() -> None:
    async with AsyncExitStack() as stack:
        process = stack.enter_context(start_evm_process())
        wires = [
            await stack.enter_async_context(FaultProxy(http_target(process.url))) for _ in range(3)
        ]
        providers = await stack.enter_async_context(
            provider_set(
                [Provider(wire.url, f"p{number}") for number, wire in enumerate(wires)],
                chain="evm",
                network_id=31337,
                quorum=2,
                timeout_s=SILENCE_S,
            )
        )
        head = await providers.head()
        wires[0].set(Rule(fault=Fault.SWALLOW))
        async with asyncio.timeout(NOTICED_WITHIN_S):
            assert await providers.head() == head
        wires[1].set(Rule(fault=Fault.SWALLOW))
        async with asyncio.timeout(NOTICED_WITHIN_S):
            with pytest.raises(NodeUnavailable):
                await providers.head()
        for wire in wires:
            wire.clear()
        async with asyncio.timeout(NOTICED_WITHIN_S):
            while True:
                try:
                    assert await providers.head() == head
                    break
                except NodeUnavailable:
                    await asyncio.sleep(0.2)


@pytest.mark.parametrize(("fault", "way", "after_bytes"), BROKEN)
async def test_an_order_over_a_broken_wire_is_unknown_and_then_found_or_placed_once(
    engine: AsyncEngine, tmp_path: Path, fault: Fault, way: Way, after_bytes: int
) -> None:
    clock = SystemClock()
    with SimulatorThread(tmp_path / "venue", "--step-ms", "0") as sim:
        async with FaultProxy(http_target(sim.url)) as wire:
            wanted = replace(
                gateway_settings(sim),
                endpoint=Endpoint(http_url=wire.url, ws_url=sim.ws_url),
                order_timeout=timedelta(seconds=SILENCE_S),
            )
            async with open_gateway(wanted, clock) as gateway:
                listed, now = await gateway.instrument("ETHUSDT"), clock.now()
                grid = await transact(
                    engine,
                    lambda conn: record_instrument(conn, listed, now=now),
                )
                order = await intended(engine, ticket(grid))
                wire.set(broken(fault, way, after_bytes, "newClientOrderId"))

                sent = await submit(engine, gateway, order.id, holder="t", clock=clock)
                assert sent.state is OrderState.UNKNOWN

                wire.clear()
                found = await resolve(
                    engine, gateway, order.id, holder="t", clock=clock, policy=QUICK
                )
                there = [
                    item
                    for item in sim.state()["accounts"]["desk"]["orders"]
                    if item["clientOrderId"] == order.client_order_id
                ]
                landed = way is Way.TO_CLIENT
                assert len(there) == landed
                assert found.state is (OrderState.FILLED if landed else OrderState.NOT_PLACED)
                await collect(engine, gateway, "ETHUSDT", clock=clock)
                filled = await transact(engine, lambda conn: filled_units(conn, found))
                assert filled == (order.base_units if landed else 0)


@pytest.mark.parametrize(("fault", "way", "after_bytes"), BROKEN)
async def test_a_payment_file_over_a_broken_wire_is_unknown(
    fault: Fault, way: Way, after_bytes: int
) -> None:
    """Taken or not: it is handed over again as the same bytes until the bank says that it has them."""
    taken: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        taken.append(await request.read())
        return web.Response(status=202)

    app = web.Application()
    app.router.add_put("/orders/{name}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        async with FaultProxy(("127.0.0.1", runner.addresses[0][1])) as wire:
            wire.set(broken(fault, way, after_bytes, "PUT /orders"))
            bank = HttpGateway(wire.url, timeout_s=SILENCE_S)
            assert (await bank.submit("one", b"<pain/>")).outcome is Outcome.UNKNOWN

            wire.clear()
            assert (await bank.submit("one", b"<pain/>")).outcome is Outcome.TAKEN
    finally:
        await runner.cleanup()
    assert set(taken) == {b"<pain/>"}
