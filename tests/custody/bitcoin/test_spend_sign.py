"""What is not signed, and what people decide about a spend on hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin import kernel
from chain.bitcoin.addresses import address_of
from chain.bitcoin.blocks import FINAL_DEPTH
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.scripts import witness_script
from chain.bitcoin.transactions import Input, decode, encode
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
from kernel.errors import OutsideUnavailable, StaleFence
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
    forges: bool = False
    loses: bool = False
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
        if self.loses:
            raise OutsideUnavailable("the line is cut")
        found = decode(raw)
        if self.forges:
            return encode(replace(found, inputs=tuple(forged(item) for item in found.inputs)))
        if not self.spoils:
            return raw
        return encode(type(found)(found.inputs, found.outputs[:1], found.version))


def forged(item: Input) -> Input:
    """The input with another bit in the middle of its signature: it reads as well as before."""
    signature, key = item.witness
    at = len(signature) - 10
    return replace(
        item,
        witness=(signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1 :], key),
    )


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


async def test_a_payout_whose_approvals_lapsed_before_it_was_signed_is_expired(
    world: SpendWorld,
) -> None:
    end = world.clock.now() + timedelta(hours=1)
    payout = await world.approved(expires_at=end)
    signer = world.signer
    world.signer = Moody(signer, later=True)
    await world.advance()
    world.signer = signer

    report = await world.advance(after=timedelta(hours=2))

    # The signer itself says no, by its own clock; whoever asked sees what an EVM chain would show.
    assert (await world.get(payout)).state is P.EXPIRED, report
    assert (await world.only()).spend.state is SpendState.DROPPED
    await world.assert_exact()


async def test_a_payout_whose_signature_was_lost_on_the_way_is_not_released_when_its_time_is_over(
    world: SpendWorld,
) -> None:
    payout = await world.approved(expires_at=world.clock.now() + timedelta(hours=1))
    world.signer = moody = Moody(world.signer, loses=True)
    report = await world.advance()
    assert "the line is cut" in report.waiting[payout.id]
    moody.loses = False

    await world.advance(after=timedelta(hours=2))

    # The very bytes that were lost come again: nobody is asked to approve them anew.
    assert (await world.get(payout)).state is P.SIGNED
    assert world.node.pool == {(await world.only()).current.tx_id}
    await world.assert_exact()


async def test_bytes_that_are_something_else_are_never_stored(world: SpendWorld) -> None:
    payout = await world.approved()
    world.signer = Moody(world.signer, spoils=True)

    report = await world.advance()

    assert (await world.only()).signed == ()
    assert world.node.pool == frozenset()
    assert "signed something else" in report.waiting[payout.id]


async def test_a_forged_witness_is_found_by_consensus_code_before_anything_is_sent(
    world: SpendWorld,
) -> None:
    assert kernel.is_available()  # the extra bitcoin-kernel, which the tests are installed with
    payout = await world.approved()
    world.signer = moody = Moody(world.signer, forges=True)

    report = await world.advance()

    assert (await world.only()).signed == ()
    assert (await world.get(payout)).state is P.ALLOCATED
    assert world.node.pool == frozenset()
    assert "does not satisfy the script" in report.waiting[payout.id]
    # The real bytes are asked for again, and pass.
    moody.forges = False
    await world.advance()
    assert world.node.pool == {(await world.only()).current.tx_id}
    await world.assert_exact()


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


async def test_a_replacement_whose_signature_was_lost_is_given_up_only_with_its_coins(
    world: SpendWorld,
) -> None:
    # All but a little of one coin: the bump adds a coin that the first attempt has not.
    payout = await world.approved(amount=3 * BTC - 2_500)
    await world.advance()
    world.node.rate = 30_000
    world.signer = moody = Moody(world.signer, loses=True)
    await world.advance(after=timedelta(minutes=11))
    moody.loses = False
    await world.cancel((await world.only()).spend)
    await world.advance()
    one = await world.only()
    lost = one.attempts[1]
    assert (lost.state, lost.raw) == ("superseded", None)
    # A stranger takes the coin that the lost one adds: the first one may still be mined.
    [added] = [coin for coin in lost.coins if coin not in one.attempts[0].coins]
    world.node.mine(world.node.pay((STRANGER, added.amount - 500), spend=[added.outpoint]))
    await world.follow()
    await world.mine(FINAL_DEPTH)
    assert (await world.get(payout)).state is P.SECURITY_HOLD
    reason = "a stranger has a key"

    with pytest.raises(NotPossible, match=r"attempt 1 of .* could still be mined"):
        await abandoned_by_two(world, one.spend.id, reason)
    await steal(world)
    await world.mine(FINAL_DEPTH)
    await abandoned_by_two(world, one.spend.id, reason)

    assert (await world.get(payout)).state is P.FAILED_ON_CHAIN
    await world.assert_exact()


async def test_a_spend_whose_only_signature_was_lost_is_given_up_only_with_its_coins(
    world: SpendWorld,
) -> None:
    payout = await world.approved()
    world.signer = moody = Moody(world.signer, loses=True)
    await world.advance()
    moody.loses = False
    await steal(world)
    one = await world.only()
    assert (one.spend.state, one.signed) == (SpendState.SECURITY_HOLD, ())
    reason = "a stranger has a key"

    # Should the theft's block vanish, the bytes that the signer gave to nobody could still pay.
    with pytest.raises(NotPossible, match=r"attempt 1 of .* could still be mined"):
        await abandoned_by_two(world, one.spend.id, reason)
    await world.mine(FINAL_DEPTH)
    await abandoned_by_two(world, one.spend.id, reason)

    assert (await world.get(payout)).state is P.FAILED_ON_CHAIN
    await world.assert_exact()


async def abandoned_by_two(world: SpendWorld, spend_id: UUID, reason: str) -> None:
    finalized = await world.node.finalized_height()
    await world.run(
        lambda conn: abandon_spend(
            conn,
            spend_id,
            signatures=both(spend_abandon_bytes(spend_id, reason)),
            reason=reason,
            finalized=finalized,
            now=world.clock.now(),
        )
    )


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
