"""Two at once: requests, approvals, workers, and a worker against a block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.model import BroadcastReport
from chain.testing import ScriptedGateway
from custody import payout_store as store
from custody.payout_model import AttemptState, PayoutState
from custody.payout_worker import LEASE
from custody.payouts import explain
from custody.policy_model import PolicyRule
from custody.ports import PayoutSigner
from custody.signer.wire import Intent, SignedApproval
from custody.testing import set_policy
from tests.custody.payout_world import ETH, OneByOne, World, make_world


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


async def test_two_equal_requests_at_once_make_one_payout(world: World) -> None:
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(world.request()) for _ in range(4)]

    assert len({task.result().id for task in asked}) == 1
    assert (await world.books())["client:acme", "ETH"] == (10 * ETH, 2 * ETH, 0)


async def test_requests_at_once_never_reserve_more_than_there_is(world: World) -> None:
    async with asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(world.request(client_ref=f"{n}", amount=3 * ETH)) for n in range(5)
        ]

    states = [task.result().state for task in asked]
    assert states.count(PayoutState.PENDING_APPROVAL) == 3
    assert states.count(PayoutState.REJECTED) == 2


async def test_two_approvals_at_once_both_count(world: World) -> None:
    rules = (PolicyRule(approvals=2),)
    await world.run(lambda conn: set_policy(conn, now=world.clock.now(), rules=rules))
    payout = await world.request()

    async with asyncio.TaskGroup() as tasks:
        for who in ("ben", "cleo"):
            tasks.create_task(world.approve(payout, by=who))

    assert (await world.get(payout)).state is PayoutState.APPROVED


async def test_two_addresses_of_a_wallet_are_never_promised_from_at_once(world: World) -> None:
    """Neither was ever paid from, so there is no row yet that both could lock."""
    async with asyncio.TaskGroup() as group, world.engine.begin() as first:
        await store.lock_sender(first, "evm", "0xA", "house-settlement")
        waiting = group.create_task(
            world.run(lambda conn: store.lock_sender(conn, "evm", "0xB", "house-settlement"))
        )
        await asyncio.sleep(0.2)
        assert not waiting.done()

    assert waiting.result() is None


async def test_two_workers_at_once_share_the_work_and_pay_each_once(world: World) -> None:
    payouts = [await world.approved(client_ref=f"{n}", amount=ETH) for n in range(4)]
    other = replace(world, worker="worker-2")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.advance())
        tasks.create_task(other.advance())
    world.clock.advance(timedelta(minutes=2))
    await world.advance()
    await world.mine(3)
    await world.confirm()

    after = [await world.get(item) for item in payouts]
    assert {item.nonce for item in after} == {0, 1, 2, 3}
    assert {item.state for item in after} == {PayoutState.CONFIRMED}
    await world.assert_rule_two()


@dataclass
class SleepySigner(OneByOne):
    """Signs, and while its caller sleeps on the answer another worker does everything."""

    signer: PayoutSigner
    meanwhile: Callable[[], Awaitable[object]]
    slept: bool = False

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        raw = await self.signer.sign(intent, unsigned, approvals)
        if not self.slept:
            self.slept = True
            await self.meanwhile()
        return raw

    async def account_xpub(self, path: str) -> str:
        return await self.signer.account_xpub(path)


async def test_a_worker_that_wakes_after_its_lease_changes_nothing(world: World) -> None:
    payout = await world.approved()
    other = replace(world, worker="worker-2")

    async def meanwhile() -> None:
        world.clock.advance(LEASE)
        assert (await other.advance()).sent == [payout.id]

    world.signer = SleepySigner(world.signer, meanwhile)
    report = await world.advance()

    assert "taken over by another worker" in report.waiting[payout.id]
    assert (report.signed, report.sent) == ([], [])
    story = await world.run(lambda conn: explain(conn, payout.id))
    assert [item.code for item in story.postings].count("payout.signed") == 1
    assert [item.broadcasts for item in story.attempts] == [1]


async def test_a_block_that_is_followed_while_the_node_is_asked_counts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    payout = await world.approved()
    broadcast = ScriptedGateway.broadcast

    async def slow(self: ScriptedGateway, raw: bytes, tx_hash: str) -> BroadcastReport:
        report = await broadcast(self, raw, tx_hash)
        await world.mine()
        return report

    monkeypatch.setattr(ScriptedGateway, "broadcast", slow)

    assert (await world.advance()).sent == [payout.id]
    assert (await world.get(payout)).state is PayoutState.MINED
    (attempt,) = (await world.run(lambda conn: explain(conn, payout.id))).attempts
    assert (attempt.state, attempt.broadcasts) == (AttemptState.MINED, 1)
    await world.mine(2)
    await world.confirm()
    assert (await world.get(payout)).state is PayoutState.CONFIRMED
