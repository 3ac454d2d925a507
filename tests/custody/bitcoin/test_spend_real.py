"""Payouts on a real bitcoind: real scripts, a real pool, real reorganisations, and a node that dies."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.bitcoin.transactions import decode
from chain.simulators.bitcoind import Bitcoind, start_bitcoind
from custody.bitcoin.spend_model import SpendState
from custody.bitcoin.testing import with_bitcoin
from custody.payout_model import AttemptState
from custody.payout_model import PayoutState as P
from custody.ports import ControlledSigner
from custody.signer.testing import local_signer, rules_for
from kernel.clock import ManualClock
from ledger.testing import enforce_lock_order
from registry.model import Founding
from registry.testing import DEMO_OPERATORS, demo_founding
from tests.chain.bitcoin.yard import MINER, Yard, sign
from tests.custody.bitcoin.spend_world import (
    BTC,
    CAPITAL,
    DEPOSITS,
    PAYEES,
    START,
    SpendWorld,
    found_desk,
    give_capital,
)


@dataclass(slots=True)
class RealSpendWorld(SpendWorld):
    """The same desk before a real node."""

    yard: Yard | None = None

    async def mine(self, blocks: int = 1) -> None:
        assert self.yard is not None
        await self.yard.mine(blocks)
        await self.follow()

    @property
    def real(self) -> Yard:
        assert self.yard is not None
        return self.yard

    async def pool(self) -> set[str]:
        return set(await self.real.node.call("getrawmempool"))


@asynccontextmanager
async def make_real_world(
    engine: AsyncEngine,
    folder: Path,
    bitcoind: Bitcoind,
    *,
    signer: ControlledSigner | None = None,
    began: datetime = START,
    founding: Founding | None = None,
) -> AsyncIterator[RealSpendWorld]:
    yard, clock = Yard(bitcoind), ManualClock(began)
    founding = founding or with_bitcoin(demo_founding())
    rules = rules_for(founding.chains, founding.chain_assets, DEMO_OPERATORS)
    [coin] = await yard.fund(MINER)
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(yard.gateway())
        vault = signer or stack.enter_context(local_signer(folder, rules, clock=clock))
        stack.enter_context(enforce_lock_order(engine))
        start = (await gateway.head()).height
        world = RealSpendWorld(
            engine, gateway, vault, clock, vault=vault, start_height=start, yard=yard
        )
        birch = await world.run(lambda conn: found_desk(conn, world, founding))
        payments = [*((world.acme, amount) for amount in DEPOSITS), (birch, CAPITAL)]
        rest = coin.amount - sum(amount for _, amount in payments) - 5_000
        await yard.send(sign([coin], [*payments, (MINER.address, rest)]))
        await world.mine(3)
        await world.credit()
        await world.run(lambda conn: give_capital(conn, world))
        yield world


@pytest.fixture
async def world(
    engine: AsyncEngine, tmp_path: Path, bitcoind: Bitcoind
) -> AsyncIterator[RealSpendWorld]:
    async with make_real_world(engine, tmp_path, bitcoind) as made:
        yield made


async def test_payouts_to_every_kind_of_address_are_mined_by_a_real_node(
    world: RealSpendWorld,
) -> None:
    payouts = await world.several(BTC, BTC // 3, 7_000, 100_000)
    report = await world.advance()
    assert report.waiting == {}
    one = await world.only()
    assert await world.pool() == {one.current.tx_id}
    entry = await world.real.node.call("getmempoolentry", one.current.tx_id)
    assert round(entry["fees"]["base"] * 10**8) == one.current.fee
    assert one.current.raw is not None
    assert entry["vsize"] == decode(one.current.raw).virtual_size

    await world.mine(3)
    await world.confirm()

    assert await world.states(payouts) == {"confirmed"}
    await world.assert_exact()
    mined = await world.real.node.call("getblock", (await world.only()).spend.mined_block, 2)
    paid = {
        (output["scriptPubKey"]["address"], round(output["value"] * 10**8))
        for item in mined["tx"]
        if item["txid"] == one.current.tx_id
        for output in item["vout"]
    }
    assert {(item.destination, item.chain_amount) for item in payouts} <= paid
    assert {to for to, _ in paid} >= set(PAYEES)


async def test_a_real_pool_takes_the_replacement_and_then_the_cancellation(
    world: RealSpendWorld,
) -> None:
    payouts = await world.several(BTC, 50_000)
    await world.advance()
    first = (await world.only()).current
    world.policy = type(world.policy)(bump_after=timedelta(minutes=10))

    report = await world.advance(after=timedelta(minutes=11))

    assert set(report.bumped) == {item.id for item in payouts}
    second = (await world.only()).current
    assert await world.pool() == {second.tx_id}
    assert second.fee > first.fee
    await world.cancel((await world.only()).spend)
    await world.advance()
    third = (await world.only()).current
    assert await world.pool() == {third.tx_id}
    await world.mine(101)
    await world.confirm()
    assert await world.states(payouts) == {"cancelled"}
    await world.assert_exact()


async def test_a_deep_reorganisation_of_a_real_node_takes_a_confirmed_payout_back(
    world: RealSpendWorld,
) -> None:
    payout = await world.approved()
    await world.advance()
    await world.mine(3)
    await world.confirm()
    assert (await world.get(payout)).state is P.CONFIRMED
    tx_id = (await world.only()).current.tx_id

    await world.real.rewind(3)
    for _ in range(4):
        await world.real.mine_exactly()
    await world.follow()

    assert (await world.get(payout)).state is P.SIGNED
    assert (await world.only()).spend.state is SpendState.SIGNED
    await world.assert_exact()
    await world.advance(after=timedelta(minutes=1))
    assert await world.pool() == {tx_id}
    await world.mine(3)
    await world.confirm()
    assert (await world.get(payout)).state is P.CONFIRMED
    await world.assert_exact()


async def test_a_node_that_is_killed_with_our_transaction_gets_the_same_bytes_again(
    engine: AsyncEngine, tmp_path: Path, bitcoind_binary: Path
) -> None:
    folder = tmp_path / "node"
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(start_bitcoind(bitcoind_binary, folder))
        world = await stack.enter_async_context(make_real_world(engine, tmp_path, first))
        # Asked for its coins, it writes all blocks down: those that made ours shall survive.
        await first.call("gettxoutsetinfo")
        payout = await world.approved()
        await world.advance()
        before = (await world.only()).current
        os.kill(first.pid, signal.SIGKILL)

        report = await world.advance(after=timedelta(minutes=1))

        assert payout.id in report.waiting
        assert (await world.only()).current.state in {AttemptState.AMBIGUOUS, before.state}
        again = await stack.enter_async_context(start_bitcoind(bitcoind_binary, folder))
        world.yard = Yard(again)
        world.node = await stack.enter_async_context(world.yard.gateway())
        assert await world.pool() == set()
        await world.advance(after=timedelta(minutes=2))
        assert await world.pool() == {before.tx_id}
        one = await world.only()
        await world.mine(3)
        await world.confirm()
        assert ((await world.get(payout)).state, one.current.raw) == (P.CONFIRMED, before.raw)
        await world.assert_exact()
