"""The crash matrix of payouts: every edge of the machines, cut short at every point, in three ways.

A story takes payouts along some edges. At each point of the worker's turn (before a commit, after
it, after an act outside) the worker dies, or loses its connection after COMMIT, or is overtaken by
another because its lease is over. However it goes, the story ends with one payment at most and
with the books of a clean run.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.model import BroadcastReport
from chain.testing import FINALITY_LAG, ScriptedGateway, ScriptedTransaction
from custody import (
    payout_allocate,
    payout_line,
    payout_replace,
    payout_send,
    payout_sign,
    payout_worker,
)
from custody.payout_events import ATTEMPT, PAYOUT
from custody.payout_model import ATTEMPT_STATES, PAYOUT_STATES, Payout
from custody.payout_model import AttemptState as A
from custody.payout_model import PayoutState as P
from custody.payout_replace import cancel_by_conflict, cancel_bytes
from custody.payout_rules import FILL_AFTER, BumpPolicy
from custody.payout_worker import LEASE
from custody.payouts import list_payouts
from custody.ports import PayoutSigner
from custody.signer.errors import SignerRefused
from custody.signer.wire import Intent, No, Signed, SignedApproval, SignRequest
from kernel.errors import CommitUnknown
from kernel.tables import history
from registry.testing import TOKEN, operator_keypair
from tests.custody.fate import Died, Fate
from tests.custody.payout_world import ETH, PAYEE, USDT, OneByOne, World, make_world

STEPS: Final = (
    payout_worker,
    payout_allocate,
    payout_sign,
    payout_send,
    payout_replace,
    payout_line,
)
Edge = tuple[str, str]


@dataclass
class MortalSigner(OneByOne):
    """Signs what it is not told to refuse; its caller may not live to see the answer."""

    signer: PayoutSigner
    fate: Fate
    refused: set[UUID] = field(default_factory=set)

    async def sign_many(
        self, requests: Sequence[SignRequest], approvals: Sequence[SignedApproval]
    ) -> list[Signed | No]:
        answers = await super().sign_many(requests, approvals)
        await self.fate.point()
        return answers

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        if intent.payout_id in self.refused:
            raise SignerRefused("no")
        return await self.signer.sign(intent, unsigned, approvals)

    async def account_xpub(self, path: str) -> str:
        return await self.signer.account_xpub(path)


@dataclass
class Stage:
    """A world, the worker's fate in it, and its signer."""

    world: World
    fate: Fate
    signer: MortalSigner

    async def live(self, lives: int = 10, *, mine: int = 1) -> None:
        """Let workers come and go, each with a lease of its own, and blocks be mined."""
        for life in range(lives):
            self.world.worker = f"worker-{life}"
            # Who runs the worker calls it again, whatever it raised.
            with contextlib.suppress(Died, CommitUnknown):
                await self.world.advance()
            self.fate.armed = False
            self.world.clock.advance(LEASE / 2)
            if mine:
                await self.world.mine(mine)
                await self.world.assert_rule_two()
                await self.world.confirm()

    async def arm(self) -> None:
        self.fate.armed = True


@pytest.fixture
async def stage(
    engine: AsyncEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    fate = Fate()
    for module in STEPS:
        monkeypatch.setattr(module, "transact", fate.transact)
    admit = ScriptedGateway.broadcast_many

    async def broadcast_many(
        self: ScriptedGateway, items: Sequence[tuple[bytes, str]]
    ) -> list[BroadcastReport]:
        reports = await admit(self, items)
        if items:
            await fate.point()
        return reports

    monkeypatch.setattr(ScriptedGateway, "broadcast_many", broadcast_many)
    async with make_world(engine, tmp_path) as world:
        signer = MortalSigner(world.signer, fate)
        world.signer = signer
        other = replace(world, worker="overtaker")

        async def overtake() -> None:
            world.clock.advance(LEASE)
            other.signer = world.signer
            await other.advance()

        fate.overtake = overtake
        yield Stage(world, fate, signer)


# The stories. Each returns what must have been paid from the clients' pool in the end.


async def pays(stage: Stage) -> list[tuple[str, int]]:
    await stage.world.approved()
    await stage.arm()
    await stage.live(8)
    return [(PAYEE, 2 * ETH)]


async def is_refused(stage: Stage) -> list[tuple[str, int]]:
    payout = await stage.world.approved()
    stage.signer.refused.add(payout.id)
    await stage.arm()
    await stage.live(4)
    return []


async def is_cancelled(stage: Stage) -> list[tuple[str, int]]:
    world = stage.world
    payout = await world.approved()
    await world.advance()
    await cancel(world, payout)
    await stage.arm()
    await stage.live(4, mine=0)
    await stage.live(4, mine=FINALITY_LAG // 2 + 1)
    return [(payout.sender, 0)]


async def is_bumped(stage: Stage) -> list[tuple[str, int]]:
    world = stage.world
    await world.approved()
    await world.advance()
    world.clock.advance(BumpPolicy().bump_after)
    await stage.arm()
    await stage.live(3, mine=0)
    await stage.live(4)
    return [(PAYEE, 2 * ETH)]


async def leaves_a_gap(stage: Stage) -> list[tuple[str, int]]:
    world = stage.world
    refused = await world.approved(client_ref="refused", amount=ETH)
    stage.signer.refused.add(refused.id)
    world.clock.advance(timedelta(seconds=1))
    await world.approved()
    await world.advance()
    world.clock.advance(FILL_AFTER)
    await stage.arm()
    await stage.live(8)
    return [(refused.sender, 0), (PAYEE, 2 * ETH)]


async def fails_on_chain(stage: Stage) -> list[tuple[str, int]]:
    world = stage.world
    payout = await world.approved(asset="USDT", amount=3 * USDT)
    await stage.arm()
    await stage.live(4, mine=0)
    (tx_hash,) = world.gateway.pool
    world.gateway.mine(
        ScriptedTransaction(
            sender=payout.sender, recipient=TOKEN, succeeded=False, fee=10**13, tx_hash=tx_hash
        )
    )
    await world.follow()
    await stage.live(2, mine=FINALITY_LAG // 2 + 1)
    return [(TOKEN, 0)]


async def is_reorganised(stage: Stage) -> list[tuple[str, int]]:
    world = stage.world
    await world.approved()
    await world.advance()
    await world.mine()
    world.gateway.reorg(1, [[], []])
    await world.follow()
    await stage.arm()
    await stage.live(6)
    return [(PAYEE, 2 * ETH)]


async def cancel(world: World, payout: Payout) -> None:
    reason = "sent to the wrong person"
    signed = cancel_bytes(payout.id, reason)
    await cancel_by_conflict(
        world.engine,
        world.gateway,
        payout.id,
        signatures={code: operator_keypair(code).sign(signed) for code in ("ada", "ben")},
        reason=reason,
        clock=world.clock,
    )


Story = Callable[[Stage], Awaitable[list[tuple[str, int]]]]


@dataclass(frozen=True)
class Told:
    """A story, how many points the armed worker passes in its first turn, and its edges."""

    story: Story
    points: int
    payout: frozenset[Edge]
    attempt: frozenset[Edge]


_SIGNING: Final = {(P.APPROVED, P.ALLOCATED), (P.ALLOCATED, P.SIGNED)}
_PAID: Final = {(P.SIGNED, P.MINED), (P.MINED, P.CONFIRMED)}
_SENT: Final = {(A.BUILT, A.SIGNED), (A.SIGNED, A.BROADCAST)}
_FINAL: Final = {(A.BROADCAST, A.MINED), (A.MINED, A.FINAL)}


def told(story: Story, points: int, payout: set[Edge], attempt: set[Edge]) -> Told:
    return Told(story, points, frozenset(payout), frozenset(attempt))


STORIES: Final = (
    told(pays, 12, _SIGNING | _PAID, _SENT | _FINAL),
    told(
        is_refused,
        9,
        {(P.APPROVED, P.ALLOCATED), (P.ALLOCATED, P.REJECTED)},
        {(A.BUILT, A.SUPERSEDED)},
    ),
    told(
        is_cancelled,
        10,
        _SIGNING | {(P.SIGNED, P.CANCELLING), (P.CANCELLING, P.MINED), (P.MINED, P.CANCELLED)},
        _SENT | _FINAL | {(A.BROADCAST, A.SUPERSEDED)},
    ),
    told(is_bumped, 9, _SIGNING | _PAID, _SENT | _FINAL | {(A.BROADCAST, A.SUPERSEDED)}),
    told(
        leaves_a_gap,
        9,
        _SIGNING | _PAID | {(P.REQUESTED, P.ALLOCATED), (P.ALLOCATED, P.REJECTED)},
        _SENT | _FINAL | {(A.BUILT, A.SUPERSEDED)},
    ),
    told(
        fails_on_chain,
        12,
        _SIGNING | {(P.SIGNED, P.MINED), (P.MINED, P.FAILED_ON_CHAIN)},
        _SENT | _FINAL,
    ),
    told(
        is_reorganised,
        7,
        _SIGNING | _PAID | {(P.MINED, P.SIGNED)},
        _SENT | _FINAL | {(A.MINED, A.AMBIGUOUS), (A.AMBIGUOUS, A.BROADCAST)},
    ),
)
MODES: Final = ("dies", "cut", "overtaken")
CASES: Final = [
    pytest.param(item, mode, at, id=f"{item.story.__name__}-{mode}-{at}")
    for item in STORIES
    for mode in MODES
    if mode == "dies" or item.story is pays
    for at in range(1, item.points + 1)
]


@pytest.mark.parametrize("item", STORIES, ids=lambda item: item.story.__name__)
async def test_a_story_takes_its_edges_and_passes_all_its_points(stage: Stage, item: Told) -> None:
    expected = await item.story(stage)

    assert stage.fate.passed == item.points
    assert payments(stage.world) == expected
    # Every story begins where people have approved: what comes before has no worker in it.
    begun = {(P.RESERVED, P.PENDING_APPROVAL), (P.REQUESTED, P.RESERVED)}
    begun |= {(P.PENDING_APPROVAL, P.APPROVED)}
    assert await edges(stage.world, PAYOUT) - begun == item.payout
    assert await edges(stage.world, ATTEMPT) == item.attempt


@pytest.mark.parametrize(("item", "mode", "at"), CASES)
async def test_a_worker_that_is_cut_short_pays_once_and_leaves_the_books_of_a_clean_run(
    stage: Stage, item: Told, mode: str, at: int
) -> None:
    stage.fate.mode, stage.fate.left = mode, at

    expected = await item.story(stage)

    assert payments(stage.world) == expected
    await assert_settled(stage.world)


def test_the_stories_take_every_edge_that_a_worker_and_the_chain_take() -> None:
    """What is left has a test of its own: people's decisions, holds, and blocks deeper than policy."""
    payout = frozenset[Edge]().union(*(item.payout for item in STORIES))
    attempt = frozenset[Edge]().union(*(item.attempt for item in STORIES))
    before = {P.REQUESTED, P.RESERVED, P.PENDING_APPROVAL}
    ended = {P.REJECTED, P.CANCELLED, P.EXPIRED}
    elsewhere = {
        (a, b)
        for a, b in PAYOUT_STATES.edges
        if a in {*before, P.APPROVED} and (b in ended or b in {*before, P.APPROVED})
    }
    # tests/custody/test_payout_rescue.py, test_payout_adversity.py and test_payout_replace.py.
    elsewhere |= {(a, b) for a, b in PAYOUT_STATES.edges if P.SECURITY_HOLD in {a, b}}
    # tests/custody/bitcoin/test_spend_sign.py: only payouts that share a transaction.
    elsewhere |= {(P.ALLOCATED, P.APPROVED)}
    # tests/custody/test_payout_guards.py: its approvals lapsed before the signer was asked.
    elsewhere |= {(P.ALLOCATED, P.EXPIRED)}
    elsewhere |= {
        (P.CANCELLING, P.SIGNED),
        (P.MINED, P.CANCELLING),
        (P.CONFIRMED, P.SIGNED),
        (P.CONFIRMED, P.CANCELLING),
    }
    # tests/custody/banks/test_pay_outcomes.py: only what a bank pays ends by its word.
    elsewhere |= {(P.SIGNED, P.CONFIRMED), (P.SIGNED, P.REFUSED)}
    rare = {
        (A.SIGNED, A.AMBIGUOUS),
        (A.BROADCAST, A.AMBIGUOUS),
        (A.SIGNED, A.MINED),
        (A.AMBIGUOUS, A.MINED),
        (A.FINAL, A.AMBIGUOUS),
        (A.SUPERSEDED, A.MINED),
        (A.SIGNED, A.SUPERSEDED),
        (A.AMBIGUOUS, A.SUPERSEDED),
    }

    assert PAYOUT_STATES.edges - elsewhere == payout
    assert ATTEMPT_STATES.edges - rare == attempt


async def edges(world: World, entity: str) -> set[Edge]:
    """Return the edges that entities have taken, as their history tells."""
    rows = await world.run(
        lambda conn: conn.execute(
            select(history.c.from_state, history.c.to_state).where(history.c.entity_type == entity)
        )
    )
    return {
        (row.from_state, row.to_state)
        for row in rows
        if row.from_state is not None and row.from_state != row.to_state
    }


def payments(world: World) -> list[tuple[str, int]]:
    """Return every transaction on the chain that the pool's address sent: (recipient, value)."""
    return [
        (item.recipient, item.value)
        for mined in world.gateway._branch
        for item in mined.transactions
        if item.sender == world.hot["client-pool"]
    ]


async def assert_settled(world: World) -> None:
    """Everything is over: no hold is open, nothing is in flight, and every wei is accounted for."""
    found = await world.run(lambda conn: list_payouts(conn, book=1))
    fees = sum(item.fee_paid or 0 for item in found)
    done = [item for item in found if item.state is P.CONFIRMED]
    paid = sum(item.amount for item in done if item.asset == "ETH")
    books = await world.books()
    assert [key for key, (_, *pending) in books.items() if any(pending)] == []
    assert not [key for key in books if key[0].startswith(("in-flight:", "transit:"))]
    assert books["client:acme", "ETH"][0] == 10 * ETH - paid
    assert books["client:acme", "USDT"][0] == 5_000 * USDT
    assert books["custody:client-pool", "ETH"][0] == 11 * ETH - paid - fees
    assert books.get(("expense:network-fee", "ETH"), (0, 0, 0))[0] == fees
    assert {item.state for item in found} <= {
        P.CONFIRMED,
        P.CANCELLED,
        P.REJECTED,
        P.FAILED_ON_CHAIN,
    }
    await world.assert_rule_two()
