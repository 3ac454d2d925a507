"""A real bitcoind followed into real PostgreSQL: branches, a tip that goes down, nodes that lack data."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.ports import BitcoinReader
from chain.bitcoin.testing import ScriptedBitcoin
from chain.bitcoin.transactions import Outpoint, Transaction, encode
from chain.errors import NodeTrouble, NodeUnavailable
from chain.follow import follow, get_cursor
from chain.model import (
    Block,
    BlockContents,
    ChainStep,
    FollowPolicy,
    FollowReport,
    FollowState,
    Included,
    WatchList,
)
from chain.rereading import Contradicted, Missed, compare
from chain.runs import holds_something
from chain.simulators.bitcoind import Bitcoind, start_bitcoind
from chain.store import load_canonical_below, load_contents
from kernel.db import transact
from tests.chain.bitcoin.yard import CHANGE, CLIENT, MINER, OURS, STRANGER, Coin, Yard, sign, split

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
WATCH = WatchList(frozenset({OURS.address, CHANGE.address}), frozenset())


@dataclass
class Follower:
    engine: AsyncEngine
    gateway: BitcoinReader
    policy: FollowPolicy = field(default_factory=lambda: FollowPolicy(reorg_depth_max=6))
    steps: list[ChainStep] = field(default_factory=list)
    crash_at: int = 0

    async def watch(self, conn: AsyncConnection) -> WatchList:
        return WATCH

    async def apply(self, conn: AsyncConnection, step: ChainStep) -> None:
        if self.crash_at:
            self.crash_at -= 1
            if not self.crash_at:
                raise NodeUnavailable("the worker is gone")
        self.steps.append(step)

    async def run(self) -> FollowReport:
        return await follow(
            self.engine,
            self.gateway,
            "bitcoin",
            watch=self.watch,
            apply=self.apply,
            now=NOW,
            policy=self.policy,
        )

    async def cursor(self) -> Block | None:
        return await transact(self.engine, lambda conn: get_cursor(conn, "bitcoin"))

    async def stored(self) -> list[BlockContents]:
        """The canonical blocks with what is stored of them, lowest first."""

        async def work(conn: AsyncConnection) -> list[BlockContents]:
            blocks = await load_canonical_below(conn, "bitcoin", 10**9, 10_000)
            return [await load_contents(conn, block) for block in reversed(blocks)]

        return await transact(self.engine, work)

    def seen(self) -> list[tuple[str, int, list[int], int]]:
        """Of each step that held something: sign, height, amounts moved, outputs of ours spent."""
        return [
            (
                "+" if isinstance(step, Included) else "-",
                step.contents.block.height,
                [move.amount for move in step.contents.movements],
                len(step.contents.spends),
            )
            for step in self.steps
            if step.contents.movements or step.contents.spends
        ]


async def clean(gateway: BitcoinReader) -> list[BlockContents]:
    """What the node says of every block now."""
    found = []
    for height in range((await gateway.head()).height + 1):
        block = await gateway.block_at(height)
        assert block is not None
        found.append(await gateway.contents(block, WATCH))
    return found


async def test_a_credited_deposit_and_a_confirmed_payout_are_taken_back_and_come_again(
    engine: AsyncEngine, bitcoind: Bitcoind
) -> None:
    yard = Yard(bitcoind)
    [theirs] = await yard.fund(STRANGER)
    async with yard.gateway() as gateway:
        follower = Follower(engine, gateway)
        deposit = split(theirs, [(OURS.address, 70_000)])
        payout = sign(
            [Coin(Outpoint(deposit.tx_id, 0), 70_000, OURS)],
            [(CLIENT.address, 40_000), (CHANGE.address, 28_000)],
        )
        await yard.mine_exactly(deposit)
        await yard.mine_exactly(payout)
        assert (await follower.run()).caught_up
        height = (await gateway.head()).height
        assert follower.seen() == [
            ("+", height - 1, [70_000], 0),
            ("+", height, [40_000, 28_000], 1),
        ]
        assert await follower.stored() == await clean(gateway)
        follower.steps.clear()

        # The deposit comes later, the payout never: its input is spent by another transaction.
        await yard.rewind(2)
        await yard.mine_exactly()
        await yard.mine_exactly(deposit)
        other = sign([Coin(Outpoint(deposit.tx_id, 0), 70_000, OURS)], [(STRANGER.address, 69_000)])
        await yard.mine_exactly(other)
        assert (await follower.run()).caught_up

        assert follower.seen() == [
            ("-", height, [40_000, 28_000], 1),
            ("-", height - 1, [70_000], 0),
            ("+", height, [70_000], 0),
            ("+", height + 1, [69_000], 1),
        ]
        assert await follower.stored() == await clean(gateway)
        report = await gateway.broadcast(bytes.fromhex(raw_hex(payout)), payout.tx_id)
        assert other.tx_id in report.detail


def raw_hex(item: Transaction) -> str:
    return encode(item).hex()


async def test_a_branch_deeper_than_policy_halts_the_chain_and_takes_nothing_back(
    engine: AsyncEngine, bitcoind: Bitcoind
) -> None:
    yard = Yard(bitcoind)
    await yard.mine(20)
    async with yard.gateway() as gateway:
        follower = Follower(engine, gateway, FollowPolicy(reorg_depth_max=3, start_height=1))
        await follower.run()
        before = await follower.cursor()
        await yard.rewind(4)
        await yard.mine(6, CLIENT.address)

        report = await follower.run()

        assert report.state is FollowState.HALTED
        assert await follower.cursor() == before
        assert (await follower.run()).state is FollowState.HALTED


async def test_a_node_killed_with_a_tip_below_the_books_orphans_nothing(
    engine: AsyncEngine, bitcoind_binary: Path, tmp_path: Path
) -> None:
    # Local fact: the chain state is flushed now and then, so a killed node comes back lower.
    folder = tmp_path / "node"
    async with start_bitcoind(bitcoind_binary, folder) as node:
        yard = Yard(node)
        hashes = await yard.mine(30, OURS.address)
        raws = [await node.call("getblock", block_hash, 0) for block_hash in hashes]
        async with yard.gateway() as gateway:
            follower = Follower(engine, gateway)
            assert (await follower.run()).caught_up
            before = await follower.cursor()
            assert before is not None
            os.kill(node.pid, signal.SIGKILL)
            with pytest.raises(NodeTrouble):
                await follower.run()
    follower.steps.clear()

    async with start_bitcoind(bitcoind_binary, folder) as node:
        assert await node.call("getblockcount") < before.height
        async with Yard(node).gateway() as gateway:
            follower.gateway = gateway
            report = await follower.run()
            assert (report.caught_up, report.orphaned, report.state) == (
                False,
                0,
                FollowState.RUNNING,
            )
            assert "the node is at height" in report.reason
            assert await follower.cursor() == before

            for raw in raws:
                await node.call("submitblock", raw)
            more = await Yard(node).mine(1, OURS.address)
            assert (await follower.run()).caught_up

            at = await follower.cursor()
            assert at is not None
            assert at.hash == more[0]
            assert [(sign_, height) for sign_, height, _, _ in follower.seen()] == [("+", 31)]
            assert await follower.stored() == await clean(gateway)


async def test_a_worker_that_dies_in_the_middle_of_a_block_replays_it_to_no_effect(
    engine: AsyncEngine, bitcoind: Bitcoind
) -> None:
    yard = Yard(bitcoind)
    await yard.mine(12, OURS.address)
    async with yard.gateway() as gateway:
        follower = Follower(engine, gateway, crash_at=5)
        with pytest.raises(NodeUnavailable):
            await follower.run()
        assert (await follower.run()).caught_up
        assert [height for _, height, _, _ in follower.seen()] == list(range(1, 13))
        assert await follower.stored() == await clean(gateway)


async def test_a_node_without_undo_data_is_an_error_that_says_what_is_needed(
    bitcoind_binary: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "node"
    async with start_bitcoind(bitcoind_binary, folder) as node:
        yard = Yard(node)
        [coin] = await yard.fund(STRANGER)
        await yard.mine_exactly(split(coin, [(OURS.address, 70_000)]))
    for undo in (folder / "regtest" / "blocks").glob("rev*.dat"):
        undo.write_bytes(b"\x00" * undo.stat().st_size)
    async with (
        start_bitcoind(
            bitcoind_binary, folder, arguments=("-checkblocks=1", "-checklevel=0")
        ) as node,
        Yard(node).gateway() as gateway,
    ):
        head = await gateway.head()
        with pytest.raises(NodeTrouble) as failure:
            await gateway.contents(head, WATCH)
        assert "undo" in f"{failure.value.what} {failure.value.remedy}"


@pytest.mark.parametrize("seed", range(2))
async def test_any_schedule_of_branches_ends_like_a_clean_sync(
    engine: AsyncEngine, bitcoind: Bitcoind, seed: int
) -> None:
    # Failure 21 of the catalogue, on real consensus.
    yard, rng = Yard(bitcoind), random.Random(seed)
    coins = await yard.fund(STRANGER, 4)
    deposits = [split(coin, [(OURS.address, 50_000 + n)]) for n, coin in enumerate(coins)]
    payouts = [
        sign([Coin(Outpoint(item.tx_id, 0), 50_000 + n, OURS)], [(CLIENT.address, 45_000)])
        for n, item in enumerate(deposits)
    ]
    async with yard.gateway() as gateway:
        follower = Follower(engine, gateway, FollowPolicy(reorg_depth_max=64, reread_after=4))
        base = (await gateway.head()).height
        clock = round((await gateway.head()).time.timestamp())
        for _ in range(20):
            height = (await gateway.head()).height
            if rng.random() < 0.35 and height > base:
                await yard.rewind(rng.randint(1, min(4, height - base)))
            for _ in range(rng.randint(1, 3)):
                chosen = await minable(gateway, deposits, payouts, rng)
                key = rng.choice((MINER, CLIENT, CHANGE))
                # Two blocks of one second may be the same, and one of them was refused for ever.
                clock += 60
                await bitcoind.call("setmocktime", clock)
                await bitcoind.call(
                    "generateblock", key.address, [raw_hex(item) for item in chosen]
                )
            if rng.random() < 0.5:
                follower.crash_at = rng.choice((0, 0, rng.randint(1, 5)))
                with contextlib.suppress(NodeUnavailable):
                    await follower.run()
                follower.crash_at = 0
        while not (await follower.run()).caught_up:
            clock += 60
            await bitcoind.call("setmocktime", clock)
            await yard.mine(1)

        assert await follower.stored() == await clean(gateway)


async def minable(
    gateway: BitcoinReader,
    deposits: list[Transaction],
    payouts: list[Transaction],
    rng: random.Random,
) -> list[Transaction]:
    """Return some of the transactions whose inputs are there, parents first."""
    found: list[Transaction] = []
    made: set[Outpoint] = set()
    for item in (*deposits, *payouts):
        spent = item.inputs[0].outpoint
        there = spent in made or await gateway.is_unspent(spent, with_pool=False)
        if there and rng.random() < 0.4:
            found.append(item)
            made.update(Outpoint(item.tx_id, n) for n in range(len(item.outputs)))
    return found


async def test_the_second_reading_completes_spends_and_refuses_spends_that_vanish(
    engine: AsyncEngine,
) -> None:
    gateway = ScriptedBitcoin()
    coin = gateway.fund(OURS.address, 9_000)
    follower = Follower(engine, gateway, FollowPolicy(reorg_depth_max=6, reread_after=2))
    await follower.run()
    gateway.mine(gateway.pay((CLIENT.address, 8_000), spend=[coin]))
    gateway.hide = 1
    await follower.run()
    assert follower.seen() == []
    for _ in range(3):
        gateway.mine()
    await follower.run()
    assert follower.seen() == [("+", 1, [8_000], 1)]
    assert await follower.stored() == await clean(gateway)

    full = (await follower.stored())[1]
    nothing = BlockContents(full.block, traced=True)
    no_spends = BlockContents(full.block, full.movements, full.outcomes, traced=True)
    assert isinstance(compare(full, no_spends, WATCH), Contradicted)
    assert compare(full, no_spends, WatchList(frozenset(), frozenset())) == Missed(nothing)
    only_spends = BlockContents(full.block, traced=True, spends=full.spends)
    assert compare(no_spends, full, WATCH) == Missed(only_spends)
    assert holds_something(only_spends)


async def test_a_longer_watch_list_may_name_another_sender_and_contradicts_nothing() -> None:
    gateway = ScriptedBitcoin()
    coins = [gateway.fund(key.address, 9_000) for key in (STRANGER, OURS)]
    block = gateway.mine(gateway.pay((CLIENT.address, 17_000), spend=coins))
    before = await gateway.contents(block, WATCH)
    grown = WatchList(WATCH.addresses | {STRANGER.address}, frozenset())
    after = await gateway.contents(block, grown)
    assert before.movements[0].sender != after.movements[0].sender

    compared = compare(before, after, grown)

    assert isinstance(compared, Missed)
    assert [item.address for item in compared.contents.spends] == [STRANGER.address]


@dataclass
class Schedule:
    """What happens to a chain in memory and to its follower, drawn from a seed."""

    follower: Follower
    gateway: ScriptedBitcoin
    rng: random.Random
    coins: list[Coin] = field(default_factory=list)

    def transactions(self) -> list[Transaction]:
        """Return payments to us, and now and then one that spends what we have."""
        made = []
        for _ in range(self.rng.randint(0, 2)):
            amount = self.rng.randint(10_000, 90_000)
            made.append(self.gateway.pay((OURS.address, amount), (CLIENT.address, 1)))
        spendable = [coin for coin in self.coins if coin.amount > 6_000]
        if spendable and self.rng.random() < 0.4:
            coin = self.rng.choice(spendable)
            made.append(
                self.gateway.pay((CHANGE.address, coin.amount - 5_000), spend=[coin.outpoint])
            )
        return made

    async def grow(self, back: list[Transaction]) -> None:
        """Mine a block with what can be mined of some new and old transactions."""
        chosen: list[Transaction] = []
        for item in (*back, *self.transactions()):
            there = [
                await self.gateway.is_unspent(i.outpoint, with_pool=False) for i in item.inputs
            ]
            twice = {i.outpoint for one in chosen for i in one.inputs}
            if all(there) and twice.isdisjoint(i.outpoint for i in item.inputs):
                chosen.append(item)
                self.coins.append(Coin(Outpoint(item.tx_id, 0), item.outputs[0].amount, OURS))
        self.gateway.mine(*chosen)

    async def run(self, acts: int) -> None:
        """Let things happen."""
        for _ in range(acts):
            match self.rng.randrange(10):
                case 0 | 1 | 2 | 3:
                    await self.grow([])
                case 4 | 5 | 6 if len(self.gateway.blocks) > 5:
                    depth = self.rng.randint(1, 4)
                    back = self.gateway.rollback(depth)
                    for _ in range(depth + self.rng.randint(0, 2)):
                        await self.grow([item for item in back if self.rng.random() < 0.5])
                case _:
                    await self.look()

    async def look(self) -> None:
        """Follow, with a node that may lag or show nothing of its head, and a worker that may die."""
        self.gateway.lag = self.rng.choice((0, 0, 2))
        if not self.gateway.lag and (await self.follower.run()).caught_up:
            # Only what is read at the head is read a second time.
            await self.grow([])
            self.gateway.hide = self.rng.choice((0, 1))
        self.follower.crash_at = self.rng.choice((0, 0, self.rng.randint(1, 4)))
        with contextlib.suppress(NodeUnavailable):
            await self.follower.run()
        self.gateway.lag = self.gateway.hide = self.follower.crash_at = 0


@pytest.mark.parametrize("seed", range(4))
async def test_any_schedule_in_memory_with_crashes_and_silence_ends_like_a_clean_sync(
    engine: AsyncEngine, seed: int
) -> None:
    gateway = ScriptedBitcoin()
    policy = FollowPolicy(reorg_depth_max=500, reread_after=3)
    follower = Follower(engine, gateway, policy)
    await Schedule(follower, gateway, random.Random(seed)).run(acts=30)
    # Calm, until all that was read near the head has been read a second time.
    for _ in range(5):
        gateway.mine()
        await follower.run()

    assert (await follower.run()).caught_up
    assert await follower.stored() == await clean(gateway)
