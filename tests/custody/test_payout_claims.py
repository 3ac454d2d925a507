"""Many payouts at once: one of them is bad, and the others are paid all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.model import BroadcastOutcome, BroadcastReport, CallResult
from chain.testing import ScriptedGateway
from custody.evm_rail import PLAIN_FOR_BLOCKS, EvmRail
from custody.payout_allocation import find_token_refusal
from custody.payout_model import PayoutState
from custody.payout_send import AMBIGUOUS_RETRY_MAX, wait_after
from custody.ports import PayoutSigner
from custody.signer.wire import Intent, No, Signed, SignedApproval, SignRequest
from ledger.accounts import set_frozen
from registry.testing import TOKEN
from tests.custody.payout_world import BOOK, ETH, PAYEE, USDT, OneByOne, World, make_world

FALSE = bytes(32)
TRUE = (1).to_bytes(32, "big")


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


@dataclass
class CountingSigner(OneByOne):
    """Counts its questions; answers nonsense for one payout."""

    signer: PayoutSigner
    nonsense_for: UUID | None = None
    questions: list[int] = field(default_factory=list)

    async def sign_many(
        self, requests: Sequence[SignRequest], approvals: Sequence[SignedApproval]
    ) -> list[Signed | No]:
        self.questions.append(len(requests))
        answers = await self.signer.sign_many(requests, approvals)
        return [
            Signed(b"\x02\xc0") if item.intent.payout_id == self.nonsense_for else answer
            for item, answer in zip(requests, answers, strict=True)
        ]

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        return await self.signer.sign(intent, unsigned, approvals)

    async def account_xpub(self, path: str) -> str:
        return await self.signer.account_xpub(path)


async def test_a_claim_is_one_question_to_the_signer_and_one_transaction_for_each_step(
    world: World,
) -> None:
    asked = [await world.request(client_ref=f"{n}", amount=10**15) for n in range(20)]
    await world.approve(*asked)
    signer = world.signer = CountingSigner(world.signer)
    await world.tell_signer()
    commits: list[object] = []
    event.listen(world.engine.sync_engine, "commit", commits.append)

    report = await world.advance()

    assert len(report.sent) == 20
    assert signer.questions == [20]
    # Handing over to the signer, claiming, screening, the three steps, and giving back.
    assert len(commits) <= 8
    assert {(await world.get(item)).nonce for item in asked} == set(range(20))


async def test_a_payout_whose_signature_is_nonsense_waits_and_the_others_are_sent(
    world: World,
) -> None:
    payouts = [await world.approved(client_ref=f"{n}", amount=ETH) for n in range(3)]
    world.signer = CountingSigner(world.signer, nonsense_for=payouts[1].id)

    report = await world.advance()

    assert set(report.sent) == {payouts[0].id, payouts[2].id}
    assert list(report.waiting) == [payouts[1].id]
    assert (await world.get(payouts[1])).state is PayoutState.ALLOCATED


async def test_a_payout_that_the_ledger_refuses_waits_and_the_others_are_sent(
    world: World,
) -> None:
    bad = await world.approved(
        claim="payable:birch:netted", source_wallet="house-hot", asset="USDT", amount=USDT
    )
    good = [await world.approved(client_ref=f"{n}", amount=ETH) for n in range(2)]
    await world.run(
        lambda conn: set_frozen(
            conn,
            BOOK,
            "custody:house-hot",
            "USDT",
            frozen=True,
            reason="looked into",
            now=world.clock.now(),
        )
    )

    report = await world.advance()

    assert set(report.sent) == {item.id for item in good}
    assert bad.id in report.waiting
    assert (await world.get(bad)).state is PayoutState.APPROVED


async def test_a_broadcast_that_nobody_answers_is_the_fate_of_its_own_payout(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    payouts = [await world.approved(client_ref=f"{n}", amount=ETH) for n in range(3)]
    admit = ScriptedGateway.broadcast_many

    async def broadcast_many(
        self: ScriptedGateway, items: Sequence[tuple[bytes, str]]
    ) -> list[BroadcastReport]:
        reports = await admit(self, items)
        reports[1] = BroadcastReport(BroadcastOutcome.UNKNOWN, "time-out")
        return reports

    monkeypatch.setattr(ScriptedGateway, "broadcast_many", broadcast_many)
    report = await world.advance()

    assert set(report.sent) == {payouts[0].id, payouts[2].id}
    assert report.waiting == {payouts[1].id: "time-out"}


# Tokens that would not move coins, though a receipt would call it a success.


@pytest.mark.parametrize(
    ("result", "has_code", "refusal"),
    [
        pytest.param(CallResult(succeeded=True, returned=TRUE), True, "", id="returns true"),
        pytest.param(CallResult(succeeded=True), True, "", id="returns nothing"),
        pytest.param(CallResult(succeeded=True), False, "no contract", id="no code"),
        pytest.param(
            CallResult(succeeded=True, returned=FALSE), True, "returns false", id="returns false"
        ),
        pytest.param(CallResult(succeeded=False, revert="paused"), True, "paused", id="reverts"),
    ],
)
def test_a_token_is_believed_when_it_returns_true_or_nothing(
    result: CallResult,
    has_code: bool,  # noqa: FBT001  a column of the table
    refusal: str,
) -> None:
    found = find_token_refusal(result, has_code=has_code)

    assert refusal in found
    assert bool(found) == bool(refusal)


async def test_a_token_that_returns_false_without_reverting_is_not_sent(world: World) -> None:
    world.gateway.simulated[TOKEN] = CallResult(succeeded=True, returned=FALSE)
    token = await world.approved(client_ref="t", asset="USDT", amount=3 * USDT)
    coins = await world.approved(client_ref="c", amount=ETH)

    report = await world.advance()

    assert "returns false" in report.waiting[token.id]
    assert report.sent == [coins.id]
    world.gateway.simulated.clear()
    assert (await world.advance()).sent == [token.id]


async def test_an_address_without_code_is_asked_for_once_and_costs_a_bare_transfer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rail, asked = EvmRail(world.gateway), []
    code_at = ScriptedGateway.code_at

    async def counted(self: ScriptedGateway, address: str) -> bytes:
        asked.append(address)
        return await code_at(self, address)

    monkeypatch.setattr(ScriptedGateway, "code_at", counted)
    payouts = [await world.approved(client_ref=f"{n}", amount=ETH) for n in range(2)]
    for _ in range(2):
        views = await rail.look(payouts)
        assert {getattr(view, "gas", None) for view in views.values()} == {21_000}
    assert asked == [PAYEE]

    for _ in range(PLAIN_FOR_BLOCKS):
        world.gateway.mine()
    await rail.look(payouts)
    assert asked == [PAYEE, PAYEE]


def test_bytes_of_which_nobody_knows_are_offered_again_for_ever_within_bounds() -> None:
    waits = [wait_after(count) for count in range(40)]

    assert waits == sorted(waits)
    assert waits[-1] == AMBIGUOUS_RETRY_MAX
