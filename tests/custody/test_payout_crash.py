"""A worker that dies at every point of its work: one payment on the chain, the books of a clean run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.model import BroadcastReport
from chain.testing import ScriptedGateway
from custody import payout_allocate, payout_send, payout_sign, payout_worker
from custody.payout_model import Payout, PayoutState
from custody.payout_worker import LEASE
from custody.ports import PayoutSigner
from custody.signer.wire import Intent, SignedApproval
from kernel.db import transact
from kernel.errors import OutsideUnavailable
from tests.custody.payout_world import ETH, PAYEE, OneByOne, World, make_world

FEE = 21_000 * (10**9 + 10**8)
STEPS = (payout_worker, payout_allocate, payout_sign, payout_send)


class Died(BaseException):
    """The process is gone: nothing catches this."""


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


@dataclass
class Fate:
    """Dies at the n-th point: before or after a commit, or after an act outside."""

    points_left: int | None
    passed: int = 0

    def point(self) -> None:
        self.passed += 1
        if self.points_left is not None:
            self.points_left -= 1
            if self.points_left == 0:
                self.points_left = None
                raise Died

    async def transact(
        self, engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[Any]]
    ) -> Any:
        async def dying(conn: AsyncConnection) -> Any:
            result = await work(conn)
            self.point()  # before commit: everything is rolled back
            return result

        result = await transact(engine, dying)
        self.point()  # after commit, before anybody is told
        return result


@dataclass
class MortalSigner(OneByOne):
    signer: PayoutSigner
    fate: Fate

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        raw = await self.signer.sign(intent, unsigned, approvals)
        self.fate.point()
        return raw

    async def account_xpub(self, path: str) -> str:
        return await self.signer.account_xpub(path)


def die_after_broadcast(monkeypatch: pytest.MonkeyPatch, fate: Fate) -> None:
    broadcast = ScriptedGateway.broadcast

    async def dying(self: ScriptedGateway, raw: bytes, tx_hash: str) -> BroadcastReport:
        report = await broadcast(self, raw, tx_hash)
        fate.point()
        return report

    monkeypatch.setattr(ScriptedGateway, "broadcast", dying)


async def settle(world: World, payout: Payout) -> Payout:
    """Work on until the payout is over, with a new worker after each death."""
    for life in range(12):
        world.worker = f"worker-{life}"
        try:
            await world.advance()
        except Died:
            world.clock.advance(LEASE)
            continue
        await world.mine()
        await world.confirm()
        payout = await world.get(payout)
        if payout.state is PayoutState.CONFIRMED:
            return payout
    raise AssertionError(f"payout is still {payout.state}: {payout.waiting_for}")


async def clean_run(world: World, monkeypatch: pytest.MonkeyPatch, dies_at: int | None) -> Fate:
    fate = Fate(dies_at)
    for module in STEPS:
        monkeypatch.setattr(module, "transact", fate.transact)
    world.signer = MortalSigner(world.signer, fate)
    die_after_broadcast(monkeypatch, fate)
    payout = await settle(world, await world.approved())
    assert payout.fee_paid == FEE
    return fate


def payments(world: World) -> list[tuple[str, int]]:
    """Every transaction on the chain that our hot address sent: (payee, value)."""
    return [
        (item.recipient, item.value)
        for mined in world.gateway._branch
        for item in mined.transactions
        if item.sender == world.hot["client-pool"]
    ]


# claim, allocate, sign, send and give back, each before and after its commit; signed; sent.
POINTS = 12


async def test_the_points_of_death_are_all_points(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fate = Fate(None)
    for module in STEPS:
        monkeypatch.setattr(module, "transact", fate.transact)
    world.signer = MortalSigner(world.signer, fate)
    die_after_broadcast(monkeypatch, fate)
    await world.approved()

    await world.advance()

    assert fate.passed == POINTS


@pytest.mark.parametrize("dies_at", range(1, POINTS + 1))
async def test_a_worker_that_dies_pays_once_and_leaves_clean_books(
    world: World, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    before = await world.books()

    await clean_run(world, monkeypatch, dies_at)

    assert payments(world) == [(PAYEE, 2 * ETH)]
    assert await world.books() == {
        **before,
        ("client:acme", "ETH"): (8 * ETH, 0, 0),
        ("custody:client-pool", "ETH"): (9 * ETH - FEE, 0, 0),
        ("expense:network-fee", "ETH"): (FEE, 0, 0),
    }


@pytest.mark.parametrize("seed", range(8))
async def test_any_order_of_faults_ends_with_the_books_of_a_clean_run(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Deaths, lost and refused broadcasts, a silent signer, forgetful pools, reorganisations."""
    before, random = await world.books(), Random(seed)
    payouts = [await world.approved(client_ref=f"w-{n}", amount=ETH) for n in range(3)]
    signer, gateway = world.signer, world.gateway
    fate = Fate(None)
    for module in STEPS:
        monkeypatch.setattr(module, "transact", fate.transact)
    die_after_broadcast(monkeypatch, fate)
    await world.mine(3)
    for step in range(25):
        world.worker = f"worker-{step}"
        world.signer = signer
        befall(world, fate, random)
        try:
            await world.advance()
        except Died:
            world.clock.advance(LEASE)
        world.clock.advance(timedelta(seconds=20))
        if random.random() < 0.6:
            await world.mine()
            await world.assert_rule_two()
        await world.confirm()

    fate.points_left, world.signer = None, signer
    gateway.lose_broadcasts = gateway.refuse_broadcasts = 0
    for _ in range(8):
        world.clock.advance(LEASE)
        await world.advance()
        await world.mine()
        await world.confirm()

    assert {(await world.get(item)).state for item in payouts} == {PayoutState.CONFIRMED}
    assert payments(world) == [(PAYEE, ETH)] * 3
    assert await world.books() == {
        **before,
        ("client:acme", "ETH"): (7 * ETH, 0, 0),
        ("custody:client-pool", "ETH"): (8 * ETH - 3 * FEE, 0, 0),
        ("expense:network-fee", "ETH"): (3 * FEE, 0, 0),
    }
    await world.assert_rule_two()


def befall(world: World, fate: Fate, random: Random) -> None:
    """Let one misfortune happen."""
    gateway = world.gateway
    match random.randrange(7):
        case 0:
            fate.points_left = random.randrange(1, 20)
        case 1:
            gateway.lose_broadcasts = random.randrange(3)
        case 2:
            gateway.refuse_broadcasts = random.randrange(3)
        case 3:
            for tx_hash in sorted(gateway.pool):
                gateway.drop(tx_hash)
        case 4:
            gateway.reorg(2, [[], [], []])
        case 5:
            world.signer = SilentSigner()
        case _:
            pass


class SilentSigner(OneByOne):
    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        raise OutsideUnavailable("the signer does not answer")

    async def account_xpub(self, path: str) -> str:
        raise OutsideUnavailable("the signer does not answer")
