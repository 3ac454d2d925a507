"""What a payout may not do, and what happens when the outside does not play along."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.testing import ScriptedTransaction, ScriptedTransfer
from custody import payout_store as store
from custody.allow_list import (
    approve_destination,
    destination_bytes,
    revocation_bytes,
    revoke_destination,
)
from custody.compliance.address_list import NOBODY_LISTED
from custody.compliance.screening import screen_payouts
from custody.evm_rail import EvmRail
from custody.payout_allocate import allocate
from custody.payout_allocation import Waiting
from custody.payout_approvals import LIFETIME, LIFETIME_MAX, approval_bytes
from custody.payout_events import WORKER, step_payout
from custody.payout_model import MACHINES, NonceState, Payout, PayoutState
from custody.payout_send import send
from custody.payout_sign import sign
from custody.payout_steps import Bench, Lost, Step, carry_out
from custody.payouts import (
    approval_line,
    approve_payout,
    cancel_payout,
    expire_payouts,
    explain,
    reject_payout,
)
from custody.policy_model import PolicyRule
from custody.ports import PayoutSigner
from custody.signer.testing import local_signer, rules_for
from custody.signer.wire import Intent, SignedApproval
from custody.testing import allow, propose, set_policy
from kernel.errors import CausewayError, OutsideUnavailable, Refused, StaleFence
from kernel.states import trigger_statements
from ledger.accounts import ensure_accounts
from ledger.coverage import coverage
from ledger.model import transfer
from ledger.posting import post, require_applied
from registry.queries import get_operator
from registry.testing import DEMO_OPERATORS, TOKEN, demo_founding, operator_keypair
from tests.custody.payout_world import (
    BOOK,
    ETH,
    PAYEE,
    START,
    STRANGER,
    USDT,
    OneByOne,
    World,
    make_world,
)
from tests.custody.waits import waits_for_a_lock

FEE = 21_000 * (10**9 + 10**8)


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


async def sign_and_approve(
    world: World, payout: Payout, by: str, signed: Payout | None = None
) -> Payout:
    signature = operator_keypair(by).sign(approval_bytes([approval_line(signed or payout)]))

    async def work(conn: AsyncConnection) -> Payout:
        operator = await get_operator(conn, by)
        now = world.clock.now()
        return await approve_payout(
            conn, payout.id, by=operator, signature=signature, book=BOOK, now=now
        )

    return await world.run(work)


async def test_the_same_request_again_is_the_same_payout(world: World) -> None:
    first = await world.request()
    books = await world.books()
    world.clock.advance(timedelta(minutes=1))

    assert await world.request() == first
    assert await world.books() == books


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount": ETH}, "amount"),
        ({"asset": "USDT"}, "asset"),
        ({"destination": STRANGER}, "destination"),
        ({"source_wallet": "house-hot"}, "source_wallet"),
    ],
)
async def test_a_reference_used_for_another_payout_is_refused_by_field(
    world: World, changes: dict[str, Any], field: str
) -> None:
    await world.request()

    with pytest.raises(Refused, match=f"used with another {field}"):
        await world.request(**changes)


REFUSED_REQUESTS = [
    pytest.param({"destination": STRANGER}, "not an allowed destination of acme", id="not allowed"),
    pytest.param({"claim": "client:cedar"}, "not an allowed destination", id="another client"),
    pytest.param({"source_wallet": "house-hot"}, "cannot pay a client", id="house coins"),
    pytest.param({"claim": "payable:birch:netted"}, "cannot pay a payable", id="clients' coins"),
    pytest.param({"claim": "own:house-hot"}, "not an address of our wallet", id="not our address"),
    pytest.param({"destination": PAYEE.lower()}, "EIP-55", id="no checksum"),
    pytest.param({"claim": "income:fee"}, "not a claim", id="no claim"),
    pytest.param({"amount": 0}, "not possible", id="nothing"),
    pytest.param({"source_address": STRANGER}, "not an address of wallet", id="not our source"),
]


@pytest.mark.parametrize(("changes", "says"), REFUSED_REQUESTS)
async def test_a_request_that_must_not_be_is_refused(
    world: World, changes: dict[str, Any], says: str
) -> None:
    before = await world.books()

    with pytest.raises(CausewayError, match=says):
        await world.request(**changes)

    assert await world.books() == before


async def test_a_claim_that_cannot_cover_the_amount_is_rejected(world: World) -> None:
    before = await world.books()

    payout = await world.request(amount=11 * ETH)

    assert payout.state is PayoutState.REJECTED
    assert await world.books() == before
    story = await world.run(lambda conn: explain(conn, payout.id))
    assert "exceeds_credits" in story.timeline[-1].what


async def test_what_is_reserved_cannot_be_reserved_again(world: World) -> None:
    await world.request(client_ref="a", amount=6 * ETH)

    assert (await world.request(client_ref="b", amount=6 * ETH)).state is PayoutState.REJECTED


async def test_an_own_transfer_cannot_promise_coins_twice(world: World) -> None:
    own = {"claim": "own:house-settlement", "source_wallet": "house-hot", "amount": 12 * ETH}
    own["destination"] = world.hot["house-settlement"]

    assert (await world.request(client_ref="a", **own)).state is PayoutState.PENDING_APPROVAL
    assert (await world.request(client_ref="b", **own)).state is PayoutState.REJECTED


async def test_a_destination_cools_off_before_it_can_be_paid(world: World) -> None:
    now = world.clock.now()

    async def work(conn: AsyncConnection) -> None:
        proposed = await propose(conn, "acme", STRANGER, now=now, cooling_off=timedelta(hours=24))
        with pytest.raises(Refused, match="ada proposed this destination"):
            await approve_destination(conn, proposed.id, by="ada", signature=b"", now=now)
        signature = operator_keypair("ben").sign(destination_bytes(proposed))
        await approve_destination(conn, proposed.id, by="ben", signature=signature, now=now)

    await world.run(work)
    with pytest.raises(Refused, match="cools off until"):
        await world.request(destination=STRANGER)
    world.clock.advance(timedelta(hours=24))
    assert (await world.request(destination=STRANGER)).state is PayoutState.PENDING_APPROVAL


async def test_a_destination_that_is_revoked_before_allocation_is_not_paid(world: World) -> None:
    allowed = await world.run(lambda c: allow(c, "acme", STRANGER, now=world.clock.now()))
    payout = await world.approved(destination=STRANGER)
    await world.run(
        lambda c: revoke_destination(
            c,
            allowed.id,
            by="ben",
            signature=operator_keypair("ben").sign(revocation_bytes(allowed.id)),
            reason="stolen key",
            now=world.clock.now(),
        )
    )

    report = await world.advance()

    assert "not an allowed destination" in report.waiting[payout.id]
    assert (await world.get(payout)).state is PayoutState.APPROVED


async def test_the_initiator_cannot_approve(world: World) -> None:
    payout = await world.request(requested_by="ben")

    with pytest.raises(Refused, match="ben requested payout"):
        await world.approve(payout, by="ben")


async def test_an_operator_without_the_role_cannot_approve(world: World) -> None:
    with pytest.raises(Refused, match="dan is not approver or treasurer"):
        await world.approve(await world.request(requested_by="ada"), by="dan")


async def test_a_signature_of_another_payout_does_not_approve(world: World) -> None:
    payout = await world.request()

    for changes in ({"chain_amount": 1}, {"destination": STRANGER}, {"policy_version": 9}):
        with pytest.raises(Refused, match="signature is not ben's"):
            await sign_and_approve(world, payout, "ben", replace(payout, **changes))
    assert (await world.get(payout)).state is PayoutState.PENDING_APPROVAL


async def test_approvals_are_counted_by_person(world: World) -> None:
    rules = (PolicyRule(claim="client", asset="ETH", amount_max=3 * ETH, approvals=2),)
    await world.run(lambda c: set_policy(c, now=world.clock.now(), rules=rules))
    payout = await world.request()

    assert (await sign_and_approve(world, payout, "ben")).state is PayoutState.PENDING_APPROVAL
    assert (await sign_and_approve(world, payout, "ben")).state is PayoutState.PENDING_APPROVAL
    assert (await sign_and_approve(world, payout, "cleo")).state is PayoutState.APPROVED


async def test_what_no_rule_covers_is_rejected(world: World) -> None:
    rules = (PolicyRule(claim="client", asset="ETH", amount_max=ETH),)
    await world.run(lambda c: set_policy(c, now=world.clock.now(), rules=rules))
    before = await world.books()

    large = await world.request()
    other = await world.request(client_ref="other", asset="USDT", amount=1)

    assert (large.state, other.state) == (PayoutState.REJECTED, PayoutState.REJECTED)
    assert await world.books() == before
    story = await world.run(lambda conn: explain(conn, large.id))
    assert "no rule of approval policy 2 covers" in story.timeline[-1].what


async def test_one_signature_approves_a_whole_run(world: World) -> None:
    common = {"claim": "payable:birch:netted", "source_wallet": "house-hot", "asset": "USDT"}
    payouts = [await world.request(client_ref=f"run-{n}", amount=n, **common) for n in (1, 2, 3)]

    approved = await world.approve(*payouts, by="cleo")
    await world.advance()
    await world.mine(3)
    await world.confirm()

    assert {item.state for item in approved} == {PayoutState.APPROVED}
    assert {(await world.get(item)).state for item in payouts} == {PayoutState.CONFIRMED}


@pytest.mark.parametrize("end", ["cancel", "reject", "expire"])
async def test_a_payout_that_is_withdrawn_before_signing_gives_its_reservation_back(
    world: World, end: str
) -> None:
    before = await world.books()
    payout = await world.approved(expires_at=world.clock.now() + timedelta(hours=1))

    async def work(conn: AsyncConnection) -> Payout:
        ben, now = await get_operator(conn, "ben"), world.clock.now()
        if end == "expire":
            assert await expire_payouts(conn, book=BOOK, now=now) == []
            (gone,) = await expire_payouts(conn, book=BOOK, now=now + timedelta(hours=1))
            return gone
        verb = cancel_payout if end == "cancel" else reject_payout
        return await verb(conn, payout.id, by=ben, reason="wrong", book=BOOK, now=now)

    gone = await world.run(work)

    assert gone.state == {"cancel": "cancelled", "reject": "rejected", "expire": "expired"}[end]
    assert await world.books() == before
    assert (await world.advance()).allocated == []


async def test_approvals_that_lapse_before_the_signer_is_asked_end_the_payout_as_expired(
    world: World,
) -> None:
    before, signer = await world.books(), world.signer
    payout = await world.approved(expires_at=world.clock.now() + timedelta(hours=1))
    world.signer = SilentSigner()
    await world.advance()
    assert (await world.get(payout)).state is PayoutState.ALLOCATED
    world.clock.advance(timedelta(hours=1))
    world.signer = signer

    await world.advance()

    ended = await world.get(payout)
    assert (ended.state, ended.nonce) == (PayoutState.EXPIRED, None)
    story = await world.run(lambda conn: explain(conn, payout.id))
    assert any("the approval of ben has lapsed" in item.what for item in story.timeline)
    assert await world.books() == before


async def test_a_payout_whose_signature_was_lost_on_the_way_never_expires(world: World) -> None:
    """The signer has signed, the answer was lost, and the approvals have ended: it is paid, once."""
    payout = await world.approved(expires_at=world.clock.now() + timedelta(hours=1))
    signer = world.signer
    deaf = DeafWorker(signer)
    world.signer = deaf
    await world.advance()
    assert (await world.get(payout)).state is PayoutState.ALLOCATED
    world.clock.advance(timedelta(hours=2))
    gone = await world.run(lambda conn: expire_payouts(conn, now=world.clock.now(), book=BOOK))
    world.signer = signer

    await world.advance()
    found = await world.get(payout)
    (attempt,) = await world.run(lambda conn: store.list_attempts(conn, payout.id))

    assert gone == []
    assert found.state is PayoutState.SIGNED
    assert [attempt.raw] == deaf.lost


async def test_every_payout_ends_even_if_nobody_says_when(world: World) -> None:
    now = world.clock.now()
    assert (await world.request()).expires_at == now + LIFETIME
    late = await world.request(client_ref="late", expires_at=now + timedelta(days=400))
    assert late.expires_at == now + LIFETIME_MAX
    assert (await world.request(client_ref="late", expires_at=now + timedelta(days=400))) == late


async def test_a_signed_payout_cannot_be_cancelled(world: World) -> None:
    payout = await world.approved()
    await world.advance()

    async def work(conn: AsyncConnection) -> Payout:
        ben = await get_operator(conn, "ben")
        return await cancel_payout(
            conn, payout.id, by=ben, reason="no", book=BOOK, now=world.clock.now()
        )

    with pytest.raises(Refused, match="is signed and cannot be cancelled"):
        await world.run(work)


class DeafWorker(OneByOne):
    """A signer that signs, and whose answer is lost."""

    def __init__(self, signer: PayoutSigner) -> None:
        self.signer = signer
        self.lost: list[bytes] = []

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        self.lost.append(await self.signer.sign(intent, unsigned, approvals))
        raise OutsideUnavailable("the signer does not answer")

    async def account_xpub(self, path: str) -> str:
        return await self.signer.account_xpub(path)


class SilentSigner(OneByOne):
    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        raise OutsideUnavailable("the signer does not answer")

    async def account_xpub(self, path: str) -> str:
        raise OutsideUnavailable("the signer does not answer")


async def test_a_payout_waits_allocated_for_a_signer_that_is_down(world: World) -> None:
    payout, signer = await world.approved(), world.signer
    world.signer = SilentSigner()

    report = await world.advance()
    assert report.waiting[payout.id] == "the signer does not answer"
    assert (await world.get(payout)).state is PayoutState.ALLOCATED

    world.signer = signer
    await world.advance()
    assert (await world.get(payout)).state is PayoutState.SIGNED


async def test_what_the_signer_refuses_is_given_back_and_its_nonce_is_taken_next(
    world: World, tmp_path: Path
) -> None:
    founding = demo_founding()
    strict = rules_for(
        founding.chains, founding.chain_assets, DEMO_OPERATORS, amounts_max={"evm:ETH": ETH}
    )
    (tmp_path / "strict").mkdir()
    before = await world.books()
    large = await world.approved(client_ref="large")
    with local_signer(tmp_path / "strict", strict, clock=world.clock) as signer:
        await world.use(signer)
        await world.advance()

        refused = await world.get(large)
        assert refused.state is PayoutState.REJECTED
        assert await world.books() == before
        small = await world.approved(client_ref="small", amount=ETH)
        await world.advance()
    assert (await world.get(small)).nonce == 0


async def test_a_payout_whose_nonce_a_stranger_spends_is_held(world: World) -> None:
    payout = await world.approved()
    world.gateway.refuse_broadcasts = 1
    await world.advance()
    thief = ScriptedTransaction(
        sender=world.hot["client-pool"], recipient=STRANGER, nonce=0, value=3 * ETH
    )
    world.gateway.mine(thief)
    await world.follow()

    held = await world.get(payout)
    assert held.state is PayoutState.SECURITY_HOLD
    assert "is not ours" in held.waiting_for
    books = await world.books()
    assert books["suspense:unattributed:evm", "ETH"][0] == -3 * ETH
    assert books["client:acme", "ETH"][0] == 8 * ETH
    await world.assert_rule_two()
    other = await world.approved(client_ref="later", amount=ETH)
    assert "is frozen" in (await world.advance()).waiting[other.id]

    world.gateway.reorg(1, [[], []])
    world.gateway.drop(thief.hash)
    await world.follow()
    assert ("suspense:unattributed:evm", "ETH") not in await world.books()
    assert (await world.get(payout)).state is PayoutState.SECURITY_HOLD
    await world.assert_rule_two()


async def test_bytes_that_a_node_proves_invalid_are_held(world: World) -> None:
    payout = await world.approved()
    world.gateway.refuse_broadcasts = 1
    await world.advance()
    world.gateway.mine(
        ScriptedTransaction(sender=world.hot["client-pool"], recipient=STRANGER, nonce=0)
    )

    await world.advance()

    held = await world.get(payout)
    assert held.state is PayoutState.SECURITY_HOLD
    assert "can never be valid" in held.waiting_for


async def test_a_token_that_moves_something_else_is_a_fact_that_people_look_at(
    world: World,
) -> None:
    payout = await world.approved(asset="USDT", amount=100 * USDT)
    await world.advance()
    (tx_hash,) = world.gateway.pool
    hot = world.hot["client-pool"]
    odd = ScriptedTransaction(
        sender=hot,
        recipient=TOKEN,
        transfers=(ScriptedTransfer(TOKEN, hot, PAYEE, 250 * USDT),),
        fee=FEE,
        tx_hash=tx_hash,
    )
    world.gateway.mine(odd)
    await world.follow()

    assert (await world.get(payout)).state is PayoutState.SECURITY_HOLD
    books = await world.books()
    assert books["suspense:unattributed:evm", "USDT"][0] == -250 * USDT
    assert books["client:acme", "USDT"] == (4_900 * USDT, 0, 0)
    await world.assert_rule_two()


async def test_a_nonce_that_another_payout_keeps_cannot_be_taken(world: World) -> None:
    first = await world.approved(client_ref="a", amount=ETH)
    second = await world.approved(client_ref="b", amount=ETH)
    hot = world.hot["client-pool"]

    await world.run(lambda conn: store.take_nonce(conn, "evm", hot, 7, first.id, START))
    with pytest.raises(StaleFence, match="nonce 7"):
        await world.run(lambda conn: store.take_nonce(conn, "evm", hot, 7, second.id, START))
    await world.run(lambda conn: store.end_nonce(conn, "evm", hot, 7, NonceState.RELEASED, START))
    await world.run(lambda conn: store.take_nonce(conn, "evm", hot, 7, second.id, START))


async def test_coins_that_a_stranger_pulls_out_are_posted_as_suspense(world: World) -> None:
    pull = ScriptedTransaction(
        sender=STRANGER,
        recipient=TOKEN,
        transfers=(ScriptedTransfer(TOKEN, world.hot["client-pool"], STRANGER, 7 * USDT),),
    )
    world.gateway.mine(pull)
    await world.follow()

    books = await world.books()
    assert books["suspense:unattributed:evm", "USDT"][0] == -7 * USDT
    await world.assert_rule_two()


async def test_a_failure_on_chain_costs_the_fee_and_gives_the_claim_back_when_final(
    world: World,
) -> None:
    before = await world.books()
    payout = await world.approved(asset="USDT", amount=100 * USDT)
    await world.advance()
    (tx_hash,) = world.gateway.pool
    failed = ScriptedTransaction(
        sender=world.hot["client-pool"], recipient=TOKEN, succeeded=False, fee=FEE, tx_hash=tx_hash
    )
    world.gateway.mine(failed)
    await world.follow()

    mined = await world.get(payout)
    assert (mined.state, mined.succeeded) == (PayoutState.MINED, False)
    await world.assert_rule_two()
    await world.mine(10)
    assert await world.confirm() == []
    await world.mine(64)
    await world.confirm()
    assert (await world.get(payout)).state is PayoutState.FAILED_ON_CHAIN
    assert await world.books() == {
        **before,
        ("custody:client-pool", "ETH"): (11 * ETH - FEE, 0, 0),
        ("expense:network-fee", "ETH"): (FEE, 0, 0),
    }


async def test_a_failure_that_is_reorganised_away_may_still_succeed(world: World) -> None:
    payout = await world.approved(asset="USDT", amount=100 * USDT)
    await world.advance()
    signed = await world.books()
    (tx_hash,) = world.gateway.pool
    hot = world.hot["client-pool"]
    world.gateway.mine(
        ScriptedTransaction(sender=hot, recipient=TOKEN, succeeded=False, fee=FEE, tx_hash=tx_hash)
    )
    await world.follow()

    world.gateway.rollback(1)
    world.gateway.mine()
    world.gateway.mine()
    await world.follow()
    assert await world.books() == signed
    await world.advance()
    await world.mine(3)
    await world.confirm()

    assert (await world.get(payout)).state is PayoutState.CONFIRMED


STEPS: tuple[Step, ...] = (allocate, sign, send)


@pytest.mark.parametrize("late", STEPS, ids=lambda step: step.__name__)
async def test_a_worker_whose_lease_is_over_cannot_write(world: World, late: Step) -> None:
    """Whoever claimed it has written nothing yet: nothing but the fence tells."""
    bench = Bench(world.engine, EvmRail(world.gateway), world.signer, world.clock)
    payout = await world.approved()
    await screened(world)
    await world.tell_signer()
    for step in STEPS[: STEPS.index(late)]:
        result = (await step(bench, [payout]))[payout.id]
        assert isinstance(result, Payout)
        payout = result
    await claimed_by_another(world, payout)
    before = await everything_of(world, payout)

    assert await late(bench, [payout]) == {payout.id: Lost()}

    assert await everything_of(world, payout) == before


async def test_a_write_under_an_old_fence_is_refused_without_a_look_at_the_row(
    world: World,
) -> None:
    """Giving a payout back locks nothing first: there the write itself repeats the fence."""
    payout = await world.approved()
    await claimed_by_another(world, payout)
    before = await everything_of(world, payout)

    with pytest.raises(StaleFence):
        await world.run(
            lambda conn: step_payout(
                conn,
                payout,
                PayoutState.ALLOCATED,
                actor=WORKER,
                now=world.clock.now(),
                fence=payout.fence,
            )
        )

    assert await everything_of(world, payout) == before


async def screened(world: World) -> None:
    """What the worker has asked before it takes a step."""
    await screen_payouts(world.engine, NOBODY_LISTED, "evm", now=world.clock.now())


async def claimed_by_another(world: World, payout: Payout) -> None:
    """What a claim does to the row, as far as the worker that had it before is concerned."""
    await world.run(
        lambda conn: conn.execute(
            text("UPDATE custody.payout SET fence = fence + 1 WHERE id = :id"), {"id": payout.id}
        )
    )


async def everything_of(world: World, payout: Payout) -> tuple[object, ...]:
    attempts = await world.run(lambda conn: store.list_attempts(conn, payout.id))
    return await world.get(payout), attempts, await world.books()


async def test_clients_money_is_not_spent_on_fees(world: World) -> None:
    """Without house coins in the pool the fee would be paid from what clients are owed."""
    own = {"claim": "own:house-hot", "source_wallet": "client-pool", "client_ref": "out"}
    moved = await world.approved(**own, amount=ETH, destination=world.hot["house-hot"])

    report = await world.advance()

    assert "clients' ETH would not be covered" in report.waiting[moved.id]


async def test_what_clients_have_to_spare_leaves_them_once(world: World) -> None:
    """The first transfer to the house is under way and in no block yet: its coins are gone all the same."""
    own = {"claim": "own:house-hot", "source_wallet": "client-pool"}
    own |= {"destination": world.hot["house-hot"]}
    first = await world.approved(**own, client_ref="out-1", amount=6 * ETH // 10)
    await world.advance()
    second = await world.approved(**own, client_ref="out-2", amount=6 * ETH // 10)

    report = await world.advance()

    assert (await world.get(first)).state is PayoutState.SIGNED
    assert "clients' ETH would not be covered" in report.waiting[second.id]
    await world.mine()
    await world.advance()
    [eth] = [c for c in await world.run(lambda c: coverage(c, BOOK)) if c.asset == "ETH"]
    assert eth.covered


async def test_cover_that_is_spent_meanwhile_is_not_spent_again(world: World) -> None:
    """Whoever holds the ledger's head takes what is to spare while the payout is being decided."""
    payout = await world.approved(amount=ETH)
    world.clock.advance(timedelta(seconds=2))
    places = "expense:loss", "custody:client-pool"
    loss = transfer(UUID(int=7), *places, ETH, "ETH", code="test")
    await world.run(lambda c: ensure_accounts(c, BOOK, [("expense:loss", "ETH")]))
    await screened(world)
    bench = Bench(world.engine, EvmRail(world.gateway), world.signer, world.clock)
    async with world.engine.connect() as other, asyncio.TaskGroup() as group:
        require_applied(await post(other, BOOK, [loss], now=world.clock.now()))
        deciding = group.create_task(carry_out(allocate, bench, [payout]))
        await waits_for_a_lock(world.engine)
        await other.commit()

    waits = deciding.result()[payout.id]
    assert isinstance(waits, Waiting)
    assert "clients' ETH would not be covered" in waits.reason
    assert (await world.get(payout)).nonce is None


async def test_payouts_of_one_address_take_contiguous_nonces(world: World) -> None:
    payouts = [await world.approved(client_ref=f"{n}", amount=ETH) for n in range(3)]

    await world.advance()

    assert [(await world.get(item)).nonce for item in payouts] == [0, 1, 2]
    await world.mine(3)
    await world.confirm()
    _, rows = await world.run(
        lambda conn: store.load_nonces(conn, "evm", world.hot["client-pool"], 0)
    )
    assert rows == {0: NonceState.SPENT, 1: NonceState.SPENT, 2: NonceState.SPENT}


async def test_explain_tells_the_life_of_a_payout(world: World) -> None:
    payout = await world.approved()
    await world.advance()
    await world.mine(3)
    await world.confirm()

    story = await world.run(lambda conn: explain(conn, payout.id))

    told = [moment.what.split(" ")[0] for moment in story.timeline if moment.kind == "event"]
    assert [name for name in told if name.startswith("Payout")] == [
        "PayoutRequested",
        "PayoutReserved",
        "PayoutPendingApproval",
        "PayoutApproved",
        "PayoutAllocated",
        "PayoutSigned",
        "PayoutMined",
        "PayoutConfirmed",
    ]
    assert [name for name in told if name.startswith("Attempt")] == [
        "AttemptSigned",
        "AttemptBroadcast",
        "AttemptMined",
        "AttemptFinal",
    ]
    assert [item.code for item in story.postings] == [
        "payout.reserved",
        "payout.allocated",
        "payout.fee-cap",
        "payout.signed",
        "payout.mined",
        "payout.fee",
        "payout.confirmed",
    ]
    assert [item.operator for item in story.approvals] == ["ben"]
    assert len(story.attempts) == 1


async def test_the_database_refuses_edges_that_the_machine_does_not_have(world: World) -> None:
    payout = await world.request()

    async def work(conn: AsyncConnection) -> None:
        await conn.execute(
            text("UPDATE custody.payout SET state = 'confirmed' WHERE id = :id"), {"id": payout.id}
        )

    with pytest.raises(DBAPIError, match="cannot go from pending_approval to confirmed"):
        await world.run(work)


def test_the_migrations_triggers_are_those_of_the_model() -> None:
    """The newest revision that writes a machine's trigger writes the model's."""
    written: dict[str, tuple[str, str]] = {}
    for path in sorted((Path(__file__).parents[2] / "alembic/versions").glob("*_pre_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        migration = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(migration)
        for machine in MACHINES:
            name = machine.table.upper()
            function = getattr(migration, f"{name}_FUNCTION", None)
            if function is not None:
                # Who changes the edges replaces the function; the trigger that calls it stays.
                before = written.get(machine.table, ("", ""))[1]
                written[machine.table] = (function, getattr(migration, f"{name}_TRIGGER", before))

    assert written == {machine.table: trigger_statements(machine) for machine in MACHINES}
