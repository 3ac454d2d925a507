"""Broadcasts to a real node that lies about what it took: the same bytes again, one payment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.evm.gateway import EvmGateway
from chain.model import BroadcastOutcome
from chain.simulators.faults.model import Fault, Rule
from chain.simulators.faults.proxy import FaultProxy, FaultProxySettings
from chain.simulators.testing import JsonRpc, start_evm_process
from custody import payout_store as store
from custody.evm_rail import EvmRail
from custody.payout_model import AttemptState, Payout, PayoutState
from custody.signer.testing import local_signer, rules_for
from kernel.clock import ManualClock
from registry.testing import DEMO_OPERATORS, demo_founding
from tests.custody.payout_world import ETH, PAYEE, START, RealWorld, found_house

TIMEOUT_S = 1.0


class Lying:
    """The desk before a node behind a proxy that fails as told."""

    def __init__(self, world: RealWorld, proxy: FaultProxy, truth: JsonRpc) -> None:
        self.world = world
        self.proxy = proxy
        self.truth = truth

    async def attempt(self, payout: Payout) -> AttemptState:
        (attempt,) = await self.world.run(lambda conn: store.list_attempts(conn, payout.id))
        return attempt.state

    async def again(self) -> None:
        """Let the time pass after which the bytes are offered again."""
        self.world.clock.advance(timedelta(minutes=1))
        await self.world.advance()

    async def paid(self) -> int:
        return await self.truth.number("eth_getBalance", PAYEE, "latest")


@pytest.fixture
async def lying(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Lying]:
    clock, founding = ManualClock(START), demo_founding()
    rules = rules_for(founding.chains, founding.chain_assets, DEMO_OPERATORS)
    with start_evm_process() as process, local_signer(tmp_path, rules, clock=clock) as signer:
        async with (
            aiohttp.ClientSession() as session,
            FaultProxy(FaultProxySettings(upstream=process.url)) as proxy,
            EvmGateway(proxy.url, chain="evm", network_id=31337, timeout_s=TIMEOUT_S) as gateway,
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
            yield Lying(world, proxy, truth)


async def test_a_broadcast_that_is_accepted_and_then_times_out_pays_once(lying: Lying) -> None:
    world = lying.world
    lying.proxy.rules.set(Rule(fault=Fault.ACCEPT_THEN_TIME_OUT, times=1, seconds=2 * TIMEOUT_S))
    payout = await world.approved()

    report = await world.advance()
    assert payout.id in report.waiting
    assert await lying.attempt(payout) is AttemptState.AMBIGUOUS

    # The node has them: "already known" is an acceptance.
    await lying.again()
    assert await lying.attempt(payout) is AttemptState.BROADCAST
    await world.mine(3)
    await world.confirm()

    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    assert await lying.paid() == 2 * ETH


async def test_bytes_that_never_arrived_are_offered_again(lying: Lying) -> None:
    world = lying.world
    lying.proxy.rules.set(
        Rule(
            fault=Fault.TIME_OUT,
            methods=("eth_sendRawTransaction",),
            times=1,
            seconds=2 * TIMEOUT_S,
        )
    )
    payout = await world.approved()
    await world.advance()
    assert await lying.attempt(payout) is AttemptState.AMBIGUOUS

    await lying.again()
    await world.mine(3)
    await world.confirm()

    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    assert await lying.paid() == 2 * ETH


async def test_nonce_too_low_with_our_hash_mined_is_an_acceptance(lying: Lying) -> None:
    world = lying.world
    payout = await world.approved()
    await world.advance()
    (attempt,) = await world.run(lambda conn: store.list_attempts(conn, payout.id))
    await lying.truth.call("evm_mine")

    (report,) = await EvmRail(world.gateway).send([attempt])
    await lying.again()

    assert report.outcome is BroadcastOutcome.ACCEPTED
    assert (await world.get(payout)).state is PayoutState.SIGNED
    await world.mine(3)
    await world.confirm()
    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    assert await lying.paid() == 2 * ETH


async def test_nothing_is_sent_to_a_node_of_another_chain(lying: Lying) -> None:
    world = lying.world
    payout = await world.approved()
    lying.proxy.rules.set(Rule(fault=Fault.WRONG_CHAIN, chain_id=1))

    report = await world.advance()

    assert "chain 1" in report.waiting[payout.id]
    assert (await world.get(payout)).state is PayoutState.APPROVED
    lying.proxy.rules.set()
    await world.advance()
    await world.mine(3)
    await world.confirm()
    assert await lying.paid() == 2 * ETH
