"""Several claims on their way at once: what one call carries out, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.evm.transactions import decode_signed
from chain.model import BroadcastReport
from chain.testing import ScriptedGateway
from custody.payout_model import Payout, PayoutState
from custody.payout_worker import CLAIMS_AT_ONCE, LEASE, WorkReport, advance_payouts
from custody.ports import PayoutSigner
from custody.signer.wire import No, Signed, SignedApproval, SignRequest
from kernel.errors import OutsideUnavailable
from tests.custody.payout_world import BOOK, ETH, World, make_world

LIMIT = 2
CLAIMS = 4
COUNT = LIMIT * CLAIMS - 1


async def pause(nonce: int) -> None:
    """Keep every other claim long enough for the one behind it to overtake it, if that is possible."""
    if nonce // LIMIT % 2 == 0:
        await asyncio.sleep(0.05)


class Died(BaseException):
    """What no handler catches: the process is gone."""


@dataclass
class Watched:
    """The signer of the desk, and which nonces each question was about."""

    inner: Any
    asked: list[list[int]] = field(default_factory=list)
    busy: bool = False
    away_at: int = 0
    dies_at: int = 0

    async def sign_many(
        self, requests: Sequence[SignRequest], approvals: Sequence[SignedApproval]
    ) -> list[Signed | No]:
        assert not self.busy, "two claims were with the signer at once"
        self.asked.append([item.intent.nonce for item in requests])
        if len(self.asked) == self.away_at:
            raise OutsideUnavailable("the signer does not answer")
        if len(self.asked) == self.dies_at:
            raise Died
        self.busy = True
        await pause(self.asked[-1][0])
        answers: list[Signed | No] = await self.inner.sign_many(requests, approvals)
        self.busy = False
        return answers


@dataclass
class Lanes:
    """The desk, its signer watched, and the nonces in the order in which a node was given them."""

    world: World
    signer: Watched
    sent: list[int] = field(default_factory=list)

    async def advance(self, claims: int = CLAIMS) -> WorkReport:
        """Do what a worker does who may take more than one claim."""
        self.world.clock.advance(timedelta(seconds=2))
        return await advance_payouts(
            self.world.engine,
            self.world.gateway,
            cast("PayoutSigner", self.signer),
            chain="evm",
            book=BOOK,
            holder="lanes",
            clock=self.world.clock,
            limit=LIMIT,
            claims=claims,
        )

    async def approved(self) -> list[Payout]:
        """Return payouts that may be taken, oldest first."""
        found = [
            await self.world.approved(client_ref=f"{n}", amount=ETH // 10 + n) for n in range(COUNT)
        ]
        await self.world.tell_signer()
        return found


@pytest.fixture
async def lanes(
    engine: AsyncEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Lanes]:
    async with make_world(engine, tmp_path) as world:
        made = Lanes(world, Watched(world.signer))
        offer = ScriptedGateway.broadcast

        async def broadcast(self: ScriptedGateway, raw: bytes, tx_hash: str) -> BroadcastReport:
            nonce = decode_signed(raw, chain_id=31337).unsigned.nonce
            await pause(nonce)
            made.sent.append(nonce)
            return await offer(self, raw, tx_hash)

        monkeypatch.setattr(ScriptedGateway, "broadcast", broadcast)
        yield made


async def test_one_call_takes_as_many_claims_as_it_may_and_keeps_their_order(lanes: Lanes) -> None:
    payouts = await lanes.approved()

    report = await lanes.advance()

    assert report.waiting == {}
    assert set(report.sent) == {item.id for item in payouts}
    assert [len(item) for item in lanes.signer.asked] == [2, 2, 2, 1]
    assert [n for asked in lanes.signer.asked for n in asked] == list(range(COUNT))
    assert lanes.sent == list(range(COUNT))
    nonces = {(await lanes.world.get(item)).nonce for item in payouts}
    assert nonces == set(range(COUNT))
    await lanes.world.assert_live_rows()


async def test_one_call_takes_no_more_claims_than_it_was_told(lanes: Lanes) -> None:
    payouts = await lanes.approved()

    report = await lanes.advance(claims=3)

    assert len(report.sent) == 3 * LIMIT
    states = [(await lanes.world.get(item)).state for item in payouts]
    assert states.count(PayoutState.APPROVED) == COUNT - 3 * LIMIT


async def test_a_claim_that_the_signer_does_not_answer_holds_no_other_back(lanes: Lanes) -> None:
    await lanes.approved()
    lanes.signer.away_at = 2

    report = await lanes.advance()

    assert len(report.waiting) == LIMIT
    assert lanes.sent == [0, 1, 4, 5, 6]
    assert len((await lanes.advance()).sent) == LIMIT
    assert lanes.sent[-LIMIT:] == [2, 3]


async def test_a_worker_that_dies_with_two_claims_leaves_both_to_the_next(lanes: Lanes) -> None:
    assert CLAIMS_AT_ONCE == 2
    payouts = await lanes.approved()
    lanes.signer.dies_at = 2

    with pytest.raises(Died):
        await lanes.advance()
    lanes.world.clock.advance(LEASE)
    await lanes.advance()

    found = [await lanes.world.get(item) for item in payouts]
    assert {item.state for item in found} == {PayoutState.SIGNED}
    assert sorted(item.nonce for item in found if item.nonce is not None) == list(range(COUNT))
    assert set(lanes.sent) == set(range(COUNT))
    await lanes.world.mine()
    assert {(await lanes.world.get(item)).state for item in payouts} == {PayoutState.MINED}
    await lanes.world.assert_rule_two()
