"""What stops a payout, stops it wherever it stands: before its nonce, its signature, each broadcast."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.model import BroadcastReport
from chain.testing import ScriptedGateway
from custody import payout_store as store
from custody.allow_list import revocation_bytes, revoke_destination
from custody.compliance.cases import get_case
from custody.compliance.decisions import hold
from custody.compliance.model import Answer, Question
from custody.compliance.people import HOLD_VERB, case_bytes
from custody.control_messages import ScopeKind
from custody.freeze_model import GLOBAL, thaw_bytes
from custody.freezes import Scope, close_automatically, get_closed, open_again
from custody.payout_model import Attempt, AttemptState, Payout, PayoutState
from custody.payout_replace import cancel_by_conflict, cancel_bytes
from custody.payout_rules import BumpPolicy
from custody.payout_send import REBROADCAST_AFTER
from custody.payout_worker import advance_payouts
from custody.ports import PayoutSigner
from custody.signer.wire import Intent, SignedApproval
from kernel.errors import OutsideUnavailable
from registry.testing import operator_keypair
from tests.custody.payout_world import BOOK, OneByOne, World, make_world

REASON = "odd traffic"


class Stage(StrEnum):
    """What a payout is about to get."""

    NONCE = "its nonce"
    SIGNATURE = "its signature"
    FIRST_BROADCAST = "its first broadcast"
    REBROADCAST = "its next broadcast"


STANDS_AT = {
    Stage.NONCE: PayoutState.APPROVED,
    Stage.SIGNATURE: PayoutState.ALLOCATED,
    Stage.FIRST_BROADCAST: PayoutState.SIGNED,
    Stage.REBROADCAST: PayoutState.SIGNED,
}
SCOPES = [
    pytest.param(GLOBAL, id="global"),
    pytest.param(Scope(ScopeKind.CHAIN, "evm"), id="chain"),
    pytest.param(Scope(ScopeKind.ASSET, "ETH"), id="asset"),
    pytest.param(Scope(ScopeKind.WALLET, "client-pool"), id="wallet"),
    pytest.param(Scope(ScopeKind.CLIENT, "acme"), id="client"),
]


@dataclass
class Outside(OneByOne):
    """Signer and node of the desk: each can be away, and what they are asked for is counted."""

    signer: PayoutSigner
    gateway: ScriptedGateway
    signer_away: bool = False
    node_away: bool = False
    signatures: int = 0
    broadcasts: int = 0

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        if self.signer_away:
            raise OutsideUnavailable("the signer is away")
        self.signatures += 1
        return await self.signer.sign(intent, unsigned, approvals)

    async def broadcast_many(self, items: Sequence[tuple[bytes, str]]) -> list[BroadcastReport]:
        if self.node_away:
            raise OutsideUnavailable("the node is away")
        self.broadcasts += len(items)
        return [await self.gateway.broadcast(raw, tx_hash) for raw, tx_hash in items]

    async def account_xpub(self, path: str) -> str:
        return await self.signer.account_xpub(path)


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


@pytest.fixture
def outside(world: World, monkeypatch: pytest.MonkeyPatch) -> Outside:
    made = Outside(world.signer, world.gateway)
    world.signer = made

    async def broadcast_many(
        _: ScriptedGateway, items: Sequence[tuple[bytes, str]]
    ) -> list[BroadcastReport]:
        return await made.broadcast_many(items)

    monkeypatch.setattr(ScriptedGateway, "broadcast_many", broadcast_many)
    return made


async def bring_to(world: World, outside: Outside, stage: Stage) -> Payout:
    """Return a payout that was screened and is about to get what *stage* names."""
    payout = await world.approved()
    outside.signer_away = stage is Stage.SIGNATURE
    outside.node_away = stage is Stage.FIRST_BROADCAST
    if stage is not Stage.NONCE:
        await world.advance()
    outside.signer_away = outside.node_away = False
    # What went out is due again, for whoever does not ask what stops it.
    world.clock.advance(REBROADCAST_AFTER)
    found = await world.get(payout)
    assert found.state is STANDS_AT[stage]
    return found


async def freeze(world: World, scope: Scope) -> None:
    """Close a switch of the desk: the signer, which has its own, is not told of it."""
    now = world.clock.now()
    await world.run(
        lambda c: close_automatically(c, scope, by="system:test", reason=REASON, now=now)
    )


async def thaw(world: World, scope: Scope) -> None:
    found = await world.run(lambda c: get_closed(c, scope))
    signed = thaw_bytes(found.id, REASON)
    signatures = {code: operator_keypair(code).sign(signed) for code in ("ada", "ben")}
    await world.run(
        lambda c: open_again(c, scope, signatures=signatures, reason=REASON, now=world.clock.now())
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


async def hold_in_compliance(world: World, payout: Payout) -> None:
    case = await world.run(lambda c: get_case(c, payout.id))
    signatures = {"dan": operator_keypair("dan").sign(case_bytes(HOLD_VERB, case, REASON))}
    await world.run(
        lambda c: hold(c, payout.id, signatures=signatures, reason=REASON, now=world.clock.now())
    )


async def newest_attempt(world: World, payout: Payout) -> Attempt:
    return (await world.run(lambda c: store.list_attempts(c, payout.id)))[-1]


async def assert_stands_still(
    world: World, outside: Outside, payout: Payout, stage: Stage, why: str
) -> None:
    asked = outside.signatures, outside.broadcasts
    for _ in range(2):
        report = await world.advance()
        assert why in report.waiting[payout.id]
    assert (outside.signatures, outside.broadcasts) == asked
    found = await world.get(payout)
    assert (found.state, why in found.waiting_for) == (STANDS_AT[stage], True)


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("scope", SCOPES)
async def test_a_freeze_stops_a_payout_at_every_step_until_two_people_open_it(
    world: World, outside: Outside, scope: Scope, stage: Stage
) -> None:
    payout = await bring_to(world, outside, stage)
    sent_before = outside.broadcasts
    await freeze(world, scope)

    await assert_stands_still(world, outside, payout, stage, f"{scope} is frozen")

    await thaw(world, scope)
    await world.advance()
    assert (await world.get(payout)).state is PayoutState.SIGNED
    assert outside.broadcasts == sent_before + 1


@pytest.mark.parametrize("stage", Stage)
async def test_a_freeze_of_something_else_stops_nothing(
    world: World, outside: Outside, stage: Stage
) -> None:
    payout = await bring_to(world, outside, stage)
    sent_before = outside.broadcasts
    others = {"chain": "evm2", "asset": "USDT", "wallet": "house-hot", "client": "birch"}
    for kind, name in others.items():
        await freeze(world, Scope(ScopeKind(kind), name))

    report = await world.advance()

    assert (report.waiting, outside.broadcasts) == ({}, sent_before + 1)
    assert (await world.get(payout)).state is PayoutState.SIGNED


@pytest.mark.parametrize("stage", Stage)
async def test_a_revoked_destination_stops_a_payout_at_every_step(
    world: World, outside: Outside, stage: Stage
) -> None:
    payout = await bring_to(world, outside, stage)
    await revoke(world, payout)

    await assert_stands_still(world, outside, payout, stage, "is not an allowed destination")


@pytest.mark.parametrize("stage", [s for s in Stage if s is not Stage.NONCE])
async def test_a_case_that_is_held_stops_a_payout_at_every_step(
    world: World, outside: Outside, stage: Stage
) -> None:
    payout = await bring_to(world, outside, stage)
    await hold_in_compliance(world, payout)

    await assert_stands_still(world, outside, payout, stage, f"it is held: {REASON}")


class NobodyAnswers:
    """Who screens is away."""

    name = "away"

    async def version(self) -> str:
        raise OutsideUnavailable("who screens is away")

    async def screen(self, questions: Sequence[Question]) -> Sequence[Answer]:
        raise OutsideUnavailable("who screens is away")


async def test_a_case_without_an_answer_stops_a_payout_before_it_gets_a_nonce(
    world: World, outside: Outside
) -> None:
    payout = await bring_to(world, outside, Stage.NONCE)

    report = await advance_payouts(
        world.engine,
        world.gateway,
        world.signer,
        chain="evm",
        book=BOOK,
        holder=world.worker,
        clock=world.clock,
        screening=NobodyAnswers(),
    )

    assert "nobody has screened it yet" in report.waiting[payout.id]
    assert (await world.get(payout)).state is PayoutState.APPROVED
    assert outside.signatures == 0


async def test_a_payment_that_is_stopped_after_it_went_out_can_be_cancelled_meanwhile(
    world: World, outside: Outside
) -> None:
    payout = await bring_to(world, outside, Stage.REBROADCAST)
    await freeze(world, GLOBAL)
    signed = cancel_bytes(payout.id, REASON)

    await cancel_by_conflict(
        world.engine,
        world.gateway,
        payout.id,
        signatures={code: operator_keypair(code).sign(signed) for code in ("ada", "ben")},
        reason=REASON,
        clock=world.clock,
    )
    await world.advance()

    assert (await newest_attempt(world, payout)).state is AttemptState.BROADCAST


async def test_the_rule_offers_no_more_for_what_is_stopped_and_calls_people(
    world: World, outside: Outside
) -> None:
    payout = await bring_to(world, outside, Stage.REBROADCAST)
    await freeze(world, GLOBAL)
    world.clock.advance(BumpPolicy().bump_after + timedelta(minutes=1))

    report = await world.advance()

    assert report.bumped == []
    assert any("global is frozen" in alarm.reason for alarm in report.alarms)
    assert (await newest_attempt(world, payout)).number == 1
    await thaw(world, GLOBAL)
    assert (await world.advance()).bumped == [payout.id]
