"""What is not signed, and what people decide about a spend on hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.addresses import address_of
from chain.bitcoin.blocks import FINAL_DEPTH
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.scripts import witness_script
from chain.bitcoin.transactions import decode, encode
from custody.bitcoin import spend_store
from custody.bitcoin.coins import list_locks, lock
from custody.bitcoin.spend_model import SpendPayout, SpendState
from custody.bitcoin.spend_rescue import (
    abandon_spend,
    resume_spend,
    spend_abandon_bytes,
    spend_resume_bytes,
)
from custody.bitcoin.testing import CHAIN, POOL
from custody.control_messages import ScopeKind
from custody.errors import NotPossible
from custody.freezes import Scope, close_automatically
from custody.payout_model import AttemptKind
from custody.payout_model import PayoutState as P
from custody.ports import PayoutSigner
from custody.signer.errors import SignerPostponed, SignerRefused
from custody.signer.wire import SignedApproval, SpendIntent
from kernel.errors import StaleFence
from registry.testing import operator_keypair
from tests.custody.bitcoin.spend_world import BTC, SpendWorld, make_spend_world

STRANGER = address_of(witness_script(0, bytes(32)), REGTEST) or ""


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[SpendWorld]:
    async with make_spend_world(engine, tmp_path) as made:
        yield made


@dataclass
class Moody:
    """A signer that refuses some payouts, postpones, or signs something else."""

    signer: PayoutSigner
    refused: set[UUID] = field(default_factory=set)
    signed_before: bool = False
    later: bool = False
    spoils: bool = False
    cancels: bool = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.signer, name)

    async def sign_spend(
        self, intent: SpendIntent, psbt: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        if self.later:
            raise SignerPostponed("a window is full")
        if self.refused & {line.payout_id for line in intent.lines}:
            raise SignerRefused("no", signed_before=self.signed_before)
        if intent.kind == "cancel" and not self.cancels:
            raise SignerRefused("no")
        raw = await self.signer.sign_spend(intent, psbt, approvals)
        if not self.spoils:
            return raw
        found = decode(raw)
        return encode(type(found)(found.inputs, found.outputs[:1], found.version))


async def test_one_payout_that_the_signer_refuses_holds_up_no_other(world: SpendWorld) -> None:
    good, bad, fine = await world.several(BTC, 50_000, 60_000)
    world.signer = Moody(world.signer, refused={bad.id})

    await world.advance()

    # The transaction that they shared is dropped, and each goes alone.
    assert (await world.only()).spend.state is SpendState.DROPPED
    assert await world.states([good, bad, fine]) == {"approved"}
    await world.assert_exact()
    await world.advance()
    assert (await world.get(bad)).state is P.REJECTED
    assert await world.states([good, fine]) == {"signed"}
    await world.assert_exact()
    await world.mine(3)
    await world.confirm()
    assert await world.states([good, fine]) == {"confirmed"}
    await world.assert_exact()


async def test_what_the_signer_signed_before_goes_on_hold(world: SpendWorld) -> None:
    payout = await world.approved()
    world.signer = Moody(world.signer, refused={payout.id}, signed_before=True)

    await world.advance()

    assert (await world.get(payout)).state is P.SECURITY_HOLD
    await world.assert_exact()


async def test_what_is_postponed_waits(world: SpendWorld) -> None:
    payout = await world.approved()
    world.signer = moody = Moody(world.signer, later=True)
    report = await world.advance()
    assert "window is full" in report.waiting[payout.id]

    moody.later = False
    await world.advance()

    assert (await world.get(payout)).state is P.SIGNED


async def test_bytes_that_are_something_else_are_never_stored(world: SpendWorld) -> None:
    payout = await world.approved()
    world.signer = Moody(world.signer, spoils=True)

    report = await world.advance()

    assert "signed something else" in report.waiting[payout.id]
    assert (await world.only()).signed == ()
    assert world.node.pool == frozenset()


async def test_a_payout_that_is_stopped_before_signing_lets_the_others_go(
    world: SpendWorld,
) -> None:
    payouts = await world.several(BTC, 50_000)
    world.signer = moody = Moody(world.signer, later=True)
    await world.advance()
    one = await world.only()
    assert one.current.asked_at is not None
    scope = Scope(ScopeKind.WALLET, POOL)
    await world.run(
        lambda conn: close_automatically(
            conn, scope, by="system:test", reason="test", now=world.clock.now()
        )
    )
    moody.later = False

    report = await world.advance(after=timedelta(seconds=10))

    # The signer was asked, so a signature may exist: what is stopped waits where it is.
    assert "is frozen" in report.waiting[payouts[0].id]
    assert (await world.only()).spend.state is SpendState.ALLOCATED
    await world.assert_exact()


async def test_a_cancellation_that_the_signer_refuses_leaves_the_payment(
    world: SpendWorld,
) -> None:
    payout = await world.approved()
    await world.advance()
    world.signer = Moody(world.signer, cancels=False)
    await world.cancel((await world.only()).spend)
    assert (await world.get(payout)).state is P.CANCELLING

    await world.advance()

    one = await world.only()
    assert (one.spend.state, one.current.kind) == (SpendState.SIGNED, AttemptKind.PAY)
    assert (await world.get(payout)).state is P.SIGNED
    await world.assert_exact()


async def test_a_late_worker_writes_nothing(world: SpendWorld) -> None:
    await world.approved()
    await world.advance()
    spend = (await world.only()).spend

    with pytest.raises(StaleFence):
        await world.run(
            lambda conn: spend_store.update_spend(
                conn, spend.id, fence=spend.fence - 1, waiting_for="late"
            )
        )


async def test_a_coin_is_taken_by_one_spend_and_a_payout_is_in_one(world: SpendWorld) -> None:
    payout = await world.approved()
    await world.advance()
    first = await world.only()
    other = UUID(int=7)

    async def take(conn: AsyncConnection) -> None:
        await lock(conn, other, [first.spend.anchor], chain=CHAIN, now=world.clock.now())

    with pytest.raises(NotPossible, match="is taken by spend"):
        await world.run(take)
    await world.approved(client_ref="w-2")
    await world.advance()
    second = (await world.spends())[1]

    async def carry(conn: AsyncConnection) -> None:
        part = SpendPayout(spend_id=second.spend.id, payout_id=payout.id, weight=1, output=None)
        await spend_store.insert_payouts(conn, [part])

    with pytest.raises(DBAPIError, match="uq_spend_payout_live"):
        await world.run(carry)


# On hold.


def both(payload: bytes) -> dict[str, bytes]:
    return {code: operator_keypair(code).sign(payload) for code in ("ada", "ben")}


async def steal(world: SpendWorld) -> None:
    coin = (await world.only()).current.coins[0]
    world.node.mine(world.node.pay((STRANGER, coin.amount - 500), spend=[coin.outpoint]))
    await world.follow()


async def test_two_people_give_a_robbed_spend_up_when_the_theft_is_final(
    world: SpendWorld,
) -> None:
    before = (await world.books())["client:acme"][0]
    payouts = await world.several(BTC, 50_000)
    await world.advance()
    await steal(world)
    spend = (await world.only()).spend
    signatures = both(spend_abandon_bytes(spend.id, "a stranger has a key"))

    async def give_up(conn: AsyncConnection) -> None:
        await abandon_spend(
            conn,
            spend.id,
            signatures=signatures,
            reason="a stranger has a key",
            finalized=await world.node.finalized_height(),
            now=world.clock.now(),
        )

    with pytest.raises(NotPossible, match="could still be mined"):
        await world.run(give_up)
    await world.mine(FINAL_DEPTH)
    await world.run(give_up)

    assert await world.states(payouts) == {"failed_on_chain"}
    assert (await world.books())["client:acme"] == (before, 0, 0)
    assert await world.run(lambda conn: list_locks(conn, CHAIN)) == []
    await world.assert_exact()


async def test_two_people_resume_a_held_spend_and_each_decision_is_used_once(
    world: SpendWorld,
) -> None:
    payout = await world.approved()
    await world.advance()
    await steal(world)
    spend = (await world.only()).spend
    signatures = both(spend_resume_bytes(spend.id, "the block is gone"))
    world.node.rollback(1)
    world.node.mine()
    world.node.mine()
    await world.follow()

    async def resume(conn: AsyncConnection) -> None:
        await resume_spend(
            conn,
            spend.id,
            signatures=signatures,
            reason="the block is gone",
            now=world.clock.now(),
        )

    await world.run(resume)

    assert (await world.get(payout)).state is P.SIGNED
    await world.assert_exact()
    await steal(world)
    with pytest.raises(NotPossible, match="carried out before"):
        await world.run(resume)
