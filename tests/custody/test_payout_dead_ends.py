"""No payout ends where nobody can help it on: neither people, nor the rule, nor the worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.testing import FINALITY_LAG
from custody import payout_store as store
from custody.allow_list import revocation_bytes, revoke_destination
from custody.auto_approval import find_allowed_payouts
from custody.control_messages import ScopeKind
from custody.freeze_model import freeze_bytes
from custody.freezes import Scope, close, derive_freeze_id
from custody.payout_model import Attempt, AttemptKind, AttemptState, Payout, PayoutState
from custody.payout_replace import cancel_by_conflict, cancel_bytes, prepare_bump
from custody.payout_rules import BumpPolicy
from custody.policy_model import Action, PolicyDocument, PolicyRule
from custody.ports import PayoutSigner
from custody.signer.errors import SignerRefused
from custody.signer.wire import Intent, SignedApproval
from custody.testing import set_policy
from kernel.errors import OutsideUnavailable
from registry.queries import get_operator
from registry.testing import operator_keypair
from tests.custody.payout_world import BOOK, ETH, OneByOne, World, make_world

REASON = "it must not be paid"
RULE = BumpPolicy()


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


@dataclass
class StubbornSigner(OneByOne):
    """Signs each nonce once; asked again, it has *trouble*, and counts how often."""

    signer: PayoutSigner
    trouble: Exception | None = None
    asked: int = 0

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        if self.trouble is not None:
            self.asked += 1
            raise self.trouble
        return await self.signer.sign(intent, unsigned, approvals)

    async def account_xpub(self, path: str) -> str:
        return await self.signer.account_xpub(path)


async def bump(world: World, payout: Payout) -> Payout:
    dan = await world.run(lambda conn: get_operator(conn, "dan"))
    write = await prepare_bump(
        world.engine, world.gateway, payout.id, by=dan, reason="slow", clock=world.clock
    )
    return await world.run(write)


async def cancel(world: World, payout: Payout) -> Payout:
    signed = cancel_bytes(payout.id, REASON)
    return await cancel_by_conflict(
        world.engine,
        world.gateway,
        payout.id,
        signatures={code: operator_keypair(code).sign(signed) for code in ("ada", "ben")},
        reason=REASON,
        clock=world.clock,
    )


async def attempts_of(world: World, payout: Payout) -> list[Attempt]:
    return await world.run(lambda conn: store.list_attempts(conn, payout.id))


async def freeze(world: World, scope: Scope) -> None:
    now = world.clock.now()
    signed = freeze_bytes(derive_freeze_id(scope, now), scope, REASON)
    signature = operator_keypair("dan").sign(signed)
    await world.run(
        lambda c: close(c, scope, by="dan", signature=signature, reason=REASON, now=now)
    )


async def revoke(world: World, payout: Payout) -> None:
    entry = payout.destination_id
    assert entry is not None
    signature = operator_keypair("ada").sign(revocation_bytes(entry))
    await world.run(
        lambda c: revoke_destination(
            c, entry, by="ada", signature=signature, reason=REASON, now=world.clock.now()
        )
    )


async def end_cancelled(world: World, payout: Payout) -> None:
    await world.mine(FINALITY_LAG + 1)
    await world.confirm()
    assert (await world.get(payout)).state is PayoutState.CANCELLED
    await world.assert_rule_two()


async def test_after_a_bump_that_the_signer_refused_people_may_bump_or_cancel(
    world: World,
) -> None:
    payout = await world.approved()
    await world.advance()
    signer = StubbornSigner(world.signer, SignerRefused("too dear"))
    world.signer = signer
    await bump(world, payout)
    await world.advance()
    assert (await world.get(payout)).attempt == 1

    signer.trouble = None
    assert (await bump(world, payout)).attempt == 3
    await world.advance()
    await cancel(world, payout)
    await world.advance()

    assert [item.state for item in await attempts_of(world, payout)] == [
        AttemptState.BROADCAST,
        AttemptState.SUPERSEDED,
        AttemptState.BROADCAST,
        AttemptState.BROADCAST,
    ]
    await end_cancelled(world, payout)


async def test_a_bump_that_the_signer_refused_is_not_repeated_by_rule_but_reported(
    world: World,
) -> None:
    payout = await world.approved()
    await world.advance()
    world.signer = StubbornSigner(world.signer, SignerRefused("too dear"))
    world.clock.advance(RULE.bump_after)

    for _ in range(3):
        await world.advance()
    report = await world.advance()

    assert len(await attempts_of(world, payout)) == 2
    assert world.signer.asked == 1
    assert any("refused" in alarm.reason for alarm in report.alarms)


@pytest.mark.parametrize("trouble", ["revoked", "signer down"])
async def test_a_payment_whose_bump_may_not_be_signed_any_more_can_still_be_cancelled(
    world: World, trouble: str
) -> None:
    payout = await world.approved()
    await world.advance()
    await bump(world, payout)
    signer = await hinder(world, payout, trouble)
    await world.advance()
    assert (await attempts_of(world, payout))[1].state is AttemptState.BUILT

    assert (await cancel(world, payout)).state is PayoutState.CANCELLING
    world.signer = signer
    await world.advance()

    first, given_up, conflict = await attempts_of(world, payout)
    assert (given_up.state, given_up.raw) == (AttemptState.SUPERSEDED, None)
    assert (conflict.kind, conflict.state) == (AttemptKind.CANCEL, AttemptState.BROADCAST)
    assert conflict.max_fee_per_gas * 8 >= first.max_fee_per_gas * 9
    await end_cancelled(world, payout)


@pytest.mark.parametrize("trouble", ["revoked", "frozen", "signer down"])
async def test_a_payment_that_has_a_nonce_and_may_not_be_signed_does_not_block_its_line_for_ever(
    world: World, trouble: str
) -> None:
    before = await world.books()
    payout, signer = await world.approved(), world.signer
    world.signer = StubbornSigner(signer, OutsideUnavailable("down"))
    await world.advance()
    assert (await world.get(payout)).state is PayoutState.ALLOCATED
    world.signer = signer
    await hinder(world, payout, trouble)
    await world.advance()
    assert (await world.get(payout)).state is PayoutState.ALLOCATED

    assert (await cancel(world, payout)).state is PayoutState.CANCELLING
    world.signer = signer
    await world.advance()

    given_up, conflict = await attempts_of(world, payout)
    assert (given_up.state, given_up.raw) == (AttemptState.SUPERSEDED, None)
    assert (conflict.nonce, conflict.state) == (given_up.nonce, AttemptState.BROADCAST)
    await end_cancelled(world, payout)
    fee = (await world.get(payout)).fee_paid
    assert fee is not None
    assert await world.books() == {
        **before,
        ("custody:client-pool", "ETH"): (11 * ETH - fee, 0, 0),
        ("expense:network-fee", "ETH"): (fee, 0, 0),
    }


async def hinder(world: World, payout: Payout, trouble: str) -> PayoutSigner:
    """Let a payout not be signed any more; return the signer that there was."""
    signer = world.signer
    match trouble:
        case "revoked":
            await revoke(world, payout)
        case "frozen":
            await freeze(world, Scope(ScopeKind.CLIENT, "acme"))
        case _:
            world.signer = StubbornSigner(signer, OutsideUnavailable("down"))
    return signer


async def test_a_payment_of_a_client_that_is_frozen_can_be_cancelled_before_a_block_has_it(
    world: World,
) -> None:
    payout = await world.approved()
    await world.advance()
    await freeze(world, Scope(ScopeKind.CLIENT, "acme"))

    await cancel(world, payout)
    await world.advance()

    assert (await attempts_of(world, payout))[1].broadcasts == 1
    await end_cancelled(world, payout)


async def test_what_was_approved_and_has_lapsed_is_not_sent_though_nobody_has_expired_it_yet(
    world: World,
) -> None:
    lapses = world.clock.now() + timedelta(hours=1)
    payout = await world.approved(expires_at=lapses)
    world.clock.advance(timedelta(hours=1))

    report = await world.advance()

    assert "time is over" in report.waiting[payout.id]
    assert (await world.get(payout)).state is PayoutState.APPROVED


async def test_payouts_that_wait_do_not_keep_the_worker_from_those_behind_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("custody.payout_worker.CLAIM_MAX", 2)
    await world.run(
        lambda c: store.freeze_sender(c, "evm", world.hot["house-hot"], "house-hot", "x")
    )
    stuck = [
        await world.approved(
            client_ref=f"s-{n}",
            claim="payable:birch:netted",
            source_wallet="house-hot",
            asset="USDT",
            amount=1,
        )
        for n in range(2)
    ]
    world.clock.advance(timedelta(seconds=1))
    payout = await world.approved(client_ref="free", amount=ETH)

    for _ in range(3):
        await world.advance()

    assert (await world.get(payout)).state is PayoutState.SIGNED
    assert {(await world.get(item)).state for item in stuck} == {PayoutState.APPROVED}


async def test_what_waits_for_a_service_of_an_older_policy_does_not_hide_what_waits_for_this_one(
    world: World,
) -> None:
    def allow_by(service: str) -> PolicyDocument:
        rules = (PolicyRule(action=Action.ALLOW),)
        return PolicyDocument(rules=rules, services=(service,))

    now = world.clock.now()
    await world.run(lambda c: set_policy(c, now=now, document=allow_by("cleo")))
    older = await world.request(client_ref="older", amount=ETH, requested_by="ada")
    await world.run(lambda c: set_policy(c, now=now, document=allow_by("dan")))
    payout = await world.request(client_ref="newer", amount=ETH, requested_by="ada")

    async def look(conn: AsyncConnection) -> list[Payout]:
        return await find_allowed_payouts(conn, book=BOOK, by="dan", now=now, limit=1)

    assert [item.id for item in await world.run(look)] == [payout.id]
    assert (await world.get(older)).state is PayoutState.PENDING_APPROVAL


async def test_an_orphaned_payout_is_sent_again_though_its_newest_attempt_was_never_signed(
    world: World,
) -> None:
    payout = await world.approved()
    await world.advance()
    await bump(world, payout)
    await world.mine(3)
    await world.confirm()
    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    assert [item.state for item in await attempts_of(world, payout)] == [
        AttemptState.FINAL,
        AttemptState.SUPERSEDED,
    ]

    world.gateway.reorg(3, [[], [], [], []])
    for tx_hash in world.gateway.pool:
        world.gateway.drop(tx_hash)
    await world.follow()
    assert (await world.get(payout)).state is PayoutState.SIGNED
    await world.advance()

    assert world.gateway.pool
    assert (await bump(world, payout)).attempt == 3
    await world.advance()
    await world.mine(3)
    await world.confirm()
    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    await world.assert_rule_two()
