"""What may go wrong between two commits of a payout: blocks, signers and leases at the worst time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.follow import get_cursor
from chain.testing import ScriptedTransaction, ScriptedTransfer
from custody import payout_finality
from custody import payout_store as store
from custody.payout_finality import confirm_payouts
from custody.payout_model import Payout, PayoutState
from custody.payout_rescue import abandon_bytes, abandon_payout, resume_bytes, resume_sender
from custody.payouts import expire_payouts
from custody.ports import PayoutSigner
from custody.signer.errors import SignerRefused
from custody.signer.wire import Intent, SignedApproval
from kernel.errors import OutsideUnavailable, Refused
from ledger.accounts import set_frozen
from registry.testing import TOKEN, operator_keypair
from tests.custody.payout_world import (
    BOOK,
    CONFIRMATIONS,
    ETH,
    PAYEE,
    STRANGER,
    USDT,
    OneByOne,
    World,
    make_world,
)

FEE = 52_000 * 10**9


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


@dataclass(slots=True)
class InterruptedSigner(OneByOne):
    """A signer during whose answer something else happens, once."""

    signer: PayoutSigner
    meanwhile: Callable[[], Awaitable[None]]
    happened: bool = False

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        if not self.happened:
            self.happened = True
            await self.meanwhile()
        return await self.signer.sign(intent, unsigned, approvals)

    async def account_xpub(self, path: str) -> str:
        return await self.signer.account_xpub(path)


@dataclass(frozen=True, slots=True)
class RefusingSigner(OneByOne):
    signed_before: bool = False

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        raise SignerRefused("no", signed_before=self.signed_before)

    async def account_xpub(self, path: str) -> str:
        raise SignerRefused("no")


def stolen_nonce(world: World) -> ScriptedTransaction:
    hot = world.hot["client-pool"]
    return ScriptedTransaction(sender=hot, recipient=STRANGER, nonce=0, value=ETH)


async def follow_thief(world: World) -> None:
    world.gateway.mine(stolen_nonce(world))
    await world.follow()


async def resume(world: World, reason: str) -> Sequence[Payout]:
    hot = world.hot["client-pool"]
    signatures = {
        code: operator_keypair(code).sign(resume_bytes("evm", hot, reason))
        for code in ("ada", "ben")
    }
    return await world.run(
        lambda conn: resume_sender(
            conn, "evm", hot, signatures=signatures, reason=reason, now=world.clock.now()
        )
    )


async def abandon(world: World, payout: Payout) -> Payout:
    reason = "its nonce is gone"
    signatures = {
        code: operator_keypair(code).sign(abandon_bytes(payout.id, reason))
        for code in ("ada", "ben")
    }
    finalized = (await world.gateway.head()).height
    return await world.run(
        lambda conn: abandon_payout(
            conn,
            payout.id,
            signatures=signatures,
            reason=reason,
            finalized=finalized,
            now=world.clock.now(),
        )
    )


async def confirm_as_final(world: World) -> list[Payout]:
    """Confirm as if the chain called its head final."""

    async def work(conn: AsyncConnection) -> list[Payout]:
        tip = await get_cursor(conn, "evm")
        assert tip is not None
        return await confirm_payouts(
            conn,
            "evm",
            book=BOOK,
            tip=tip,
            finalized=tip.height,
            requirement=CONFIRMATIONS,
            now=world.clock.now(),
        )

    return await world.run(work)


async def test_bytes_that_arrive_after_a_stranger_took_the_nonce_debit_the_claim_once(
    world: World,
) -> None:
    """The block is followed while the signer answers; then the payout is given up."""
    before = await world.books()
    payout = await world.approved()
    world.signer = InterruptedSigner(world.signer, lambda: follow_thief(world))
    await world.advance()
    held = await world.get(payout)
    assert held.state is PayoutState.SECURITY_HOLD
    assert (await world.books())["in-flight:evm", "ETH"][0] == 2 * ETH

    ended = await abandon(world, payout)

    fee = stolen_nonce(world).fee
    assert ended.state is PayoutState.FAILED_ON_CHAIN
    assert await world.books() == {
        **before,
        ("custody:client-pool", "ETH"): (10 * ETH - fee, 0, 0),
        ("suspense:unattributed:evm", "ETH"): (-ETH, 0, 0),
        ("expense:network-fee", "ETH"): (fee, 0, 0),
    }


async def test_bytes_that_arrive_during_a_hold_are_paid_once_it_is_ended(world: World) -> None:
    payout = await world.approved()
    world.signer = InterruptedSigner(world.signer, lambda: follow_thief(world))
    await world.advance()
    world.gateway.reorg(1, [[], []])
    world.gateway.drop(stolen_nonce(world).hash)
    await world.follow()
    await resume(world, "the thief's block is gone")

    await world.advance()
    await world.mine(3)
    await world.confirm()

    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    books = await world.books()
    assert books["client:acme", "ETH"] == (8 * ETH, 0, 0)
    assert not [key for key, value in books.items() if any(value[1:])]
    assert ("in-flight:evm", "ETH") not in books


@pytest.mark.parametrize("signed_before", [False, True])
async def test_a_refusal_that_arrives_during_a_hold_changes_nothing(
    world: World, *, signed_before: bool
) -> None:
    payout = await world.approved()
    world.signer = InterruptedSigner(
        RefusingSigner(signed_before=signed_before), lambda: follow_thief(world)
    )
    await world.advance()

    held = await world.get(payout)
    assert held.state is PayoutState.SECURITY_HOLD
    assert "is not ours" in held.waiting_for
    assert (await world.books())["client:acme", "ETH"] == (10 * ETH, 2 * ETH, 0)
    await abandon(world, payout)
    assert (await world.books())["client:acme", "ETH"] == (10 * ETH, 0, 0)


async def test_a_claim_that_is_frozen_gets_its_money_back_when_it_no_longer_is(
    world: World,
) -> None:
    before = await world.books()
    payout = await failing_payout(world)
    await world.mine(3)

    async def freeze(*, frozen: bool) -> None:
        await world.run(
            lambda conn: set_frozen(
                conn, BOOK, "client:acme", "USDT", frozen=frozen, reason="x", now=world.clock.now()
            )
        )

    await freeze(frozen=True)
    assert await confirm_as_final(world) == []
    assert "credit_account_frozen" in (await world.get(payout)).waiting_for
    await freeze(frozen=False)
    (ended,) = await confirm_as_final(world)

    assert ended.state is PayoutState.FAILED_ON_CHAIN
    assert (await world.books())["client:acme", "USDT"] == before["client:acme", "USDT"]


async def test_one_payout_that_cannot_end_does_not_keep_the_others_waiting(world: World) -> None:
    failing = await failing_payout(world)
    await world.approved(client_ref="second", amount=ETH)
    await world.advance()
    await world.mine(3)
    await world.run(
        lambda conn: set_frozen(
            conn, BOOK, "client:acme", "USDT", frozen=True, reason="x", now=world.clock.now()
        )
    )

    (ended,) = await confirm_as_final(world)

    assert (ended.client_ref, ended.state) == ("second", PayoutState.CONFIRMED)
    assert (await world.get(failing)).state is PayoutState.MINED


async def test_more_payouts_than_a_page_that_wait_do_not_hide_one_that_is_deep_enough(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payout_finality, "BATCH_MAX", 1)
    await failing_payout(world)
    world.clock.advance(timedelta(seconds=1))
    await world.approved(client_ref="second", amount=ETH)
    await world.advance()
    await world.mine(3)

    (ended,) = await world.confirm()

    assert ended.client_ref == "second"


async def failing_payout(world: World) -> Payout:
    """A payout of tokens whose transaction is mined and failed."""
    payout = await world.approved(client_ref="fails", asset="USDT", amount=100 * USDT)
    await world.advance()
    world.gateway.mine(await its_transaction(world, payout, succeeded=False))
    await world.follow()
    return payout


async def its_transaction(world: World, payout: Payout, *, succeeded: bool) -> ScriptedTransaction:
    attempt = await world.run(lambda conn: store.get_attempt(conn, payout.id, 1))
    assert attempt.tx_hash is not None
    hot = world.hot["client-pool"]
    return ScriptedTransaction(
        sender=hot,
        recipient=TOKEN,
        succeeded=succeeded,
        fee=FEE,
        tx_hash=attempt.tx_hash,
        transfers=(ScriptedTransfer(TOKEN, hot, PAYEE, 100 * USDT),),
    )


@pytest.mark.parametrize("succeeded", [False, True])
async def test_a_final_failure_that_is_orphaned_stays_paid_back_and_its_bytes_are_only_facts(
    world: World, *, succeeded: bool
) -> None:
    """The claim has its money, so nobody may send the bytes again; a block still may have them."""
    before = await world.books()
    payout = await failing_payout(world)
    await world.mine(3)
    await confirm_as_final(world)
    assert (await world.get(payout)).state is PayoutState.FAILED_ON_CHAIN

    world.gateway.rollback(4)
    for _ in range(5):
        world.gateway.mine()
    await world.follow()
    assert await world.books() == before
    await resume(world, "looked at")
    assert (await world.advance()).sent == []
    assert world.gateway.pool == frozenset()

    world.gateway.mine(await its_transaction(world, payout, succeeded=succeeded))
    await world.follow()

    paid = 100 * USDT if succeeded else 0
    books = await world.books()
    assert (await world.get(payout)).state is PayoutState.SECURITY_HOLD
    assert books["client:acme", "USDT"] == before["client:acme", "USDT"]
    assert books.get(("suspense:unattributed:evm", "USDT"), (0, 0, 0))[0] == -paid
    assert books["expense:network-fee", "ETH"] == (FEE, 0, 0)
    await world.assert_rule_two()
    if succeeded:
        with pytest.raises(Refused, match="may have been paid"):
            await abandon(world, payout)
    else:
        assert (await abandon(world, payout)).state is PayoutState.FAILED_ON_CHAIN
    assert await world.books() == books


async def test_the_address_of_an_orphaned_failure_sends_nothing_until_people_looked(
    world: World,
) -> None:
    await failing_payout(world)
    await world.mine(3)
    await confirm_as_final(world)
    world.gateway.rollback(4)
    for _ in range(5):
        world.gateway.mine()
    await world.follow()

    waiting = await world.approved(client_ref="next", amount=ETH)
    report = await world.advance()

    assert "is frozen" in report.waiting[waiting.id]


async def test_a_claim_is_not_given_back_when_the_payouts_own_transaction_moved_coins(
    world: World,
) -> None:
    """A token that moves another amount than it was told to: the payee may have been paid."""
    payout = await world.approved(asset="USDT", amount=100 * USDT)
    await world.advance()
    right = await its_transaction(world, payout, succeeded=True)
    wrong = replace(right.transfers[0], amount=99 * USDT)
    world.gateway.mine(replace(right, transfers=(wrong,)))
    await world.follow()
    assert (await world.get(payout)).state is PayoutState.SECURITY_HOLD
    before = await world.books()

    with pytest.raises(Refused, match="may have been paid"):
        await abandon(world, payout)

    assert await world.books() == before


async def test_a_decision_to_resume_counts_once(world: World) -> None:
    await world.approved()
    world.gateway.refuse_broadcasts = 1
    await world.advance()
    await follow_thief(world)
    await resume(world, "checked")
    await world.advance()

    with pytest.raises(Refused, match="was carried out"):
        await resume(world, "checked")
    (resumed,) = await resume(world, "checked again")
    assert resumed.state is PayoutState.SIGNED


async def test_payouts_expire_together_without_waiting_behind_the_ledger(world: World) -> None:
    before = await world.books()
    soon = world.clock.now() + timedelta(hours=1)
    due = [await world.approved(client_ref=f"{n}", amount=ETH, expires_at=soon) for n in range(3)]
    world.clock.advance(timedelta(hours=2))

    gone = await world.run(lambda conn: expire_payouts(conn, book=BOOK, now=world.clock.now()))

    assert {item.id for item in gone} == {item.id for item in due}
    assert {item.state for item in gone} == {PayoutState.EXPIRED}
    assert await world.books() == before


async def test_a_worker_that_lost_one_payout_goes_on_with_the_next(world: World) -> None:
    first = await world.approved(client_ref="first", amount=ETH)
    second = await world.approved(client_ref="second", amount=ETH)
    other = replace(world, worker="worker-2")

    async def overtaken() -> None:
        world.clock.advance(timedelta(minutes=2))
        await other.advance()
        raise OutsideUnavailable("the signer does not answer")

    world.signer = InterruptedSigner(world.signer, overtaken)
    report = await world.advance()

    assert "taken over" in report.waiting[first.id]
    assert "taken over" in report.waiting[second.id]
    assert {(await world.get(p)).state for p in (first, second)} == {PayoutState.SIGNED}
