"""The crash matrix of spends: every edge that the worker and the chain take, cut short at every point.

A story takes payouts along some edges. At each point of the worker's turn (before a commit, after it,
after an act outside) the worker dies, or loses its connection after COMMIT, or is overtaken because its
lease is over. However it goes, each payout is paid once at most and the books are those of a clean run.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.bitcoin.addresses import address_of
from chain.bitcoin.blocks import FINAL_DEPTH
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.testing import ScriptedBitcoin
from chain.model import BroadcastReport
from custody.bitcoin import (
    spend_allocate,
    spend_replace,
    spend_send,
    spend_sign,
    spend_worker,
)
from custody.bitcoin.spend_model import SPEND_STATES
from custody.bitcoin.spend_model import SpendState as S
from custody.bitcoin.spend_moves import SPEND
from custody.bitcoin.spend_plan import SpendPolicy
from custody.bitcoin.spend_worker import LEASE
from custody.payout_model import Payout
from custody.payout_model import PayoutState as P
from custody.signer.errors import SignerRefused
from custody.signer.wire import SignedApproval, SpendIntent
from kernel.errors import CommitUnknown
from kernel.tables import history
from tests.custody.bitcoin.spend_world import (
    BTC,
    CAPITAL,
    DEPOSITS,
    PAYEES,
    SpendWorld,
    make_spend_world,
)
from tests.custody.fate import Died, Fate

STEPS: Final = (spend_worker, spend_allocate, spend_sign, spend_send, spend_replace)
RATE: Final = ScriptedBitcoin().rate
Edge = tuple[str, str]


@dataclass
class MortalSigner:
    """Signs what it is not told to refuse; its caller may not live to see the answer."""

    signer: Any
    fate: Fate
    refused: set[UUID] = field(default_factory=set)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.signer, name)

    async def sign_spend(
        self, intent: SpendIntent, psbt: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        if self.refused & {line.payout_id for line in intent.lines}:
            raise SignerRefused("no")
        raw: bytes = await self.signer.sign_spend(intent, psbt, approvals)
        await self.fate.point()
        return raw


@dataclass
class MortalNode:
    """A node whose caller may not live to hear that it took the bytes."""

    node: Any
    fate: Fate

    def __getattr__(self, name: str) -> Any:
        return getattr(self.node, name)

    async def broadcast(self, raw: bytes, tx_hash: str) -> BroadcastReport:
        report: BroadcastReport = await self.node.broadcast(raw, tx_hash)
        await self.fate.point()
        return report


@dataclass
class Stage:
    """A world, the worker's fate in it, its signer and its node."""

    world: SpendWorld
    fate: Fate
    signer: MortalSigner
    reference: str = "w"
    lives: int = 0

    async def request(self) -> list[Payout]:
        """Return two approved payouts, small: one world sees a story many times."""
        return await self.world.several(BTC // 20, 50_000, reference=self.reference)

    async def live(self, times: int = 3, *, mine: int = 1, after: float = 0) -> None:
        """Let workers come and go, each with a lease of its own, and blocks be mined."""
        for _ in range(times):
            self.lives += 1
            self.world.worker = f"{self.reference}-worker-{self.lives}"
            # Who runs the worker calls it again, whatever it raised.
            with contextlib.suppress(Died, CommitUnknown):
                await self.world.advance(after=timedelta(seconds=2 + after))
            self.fate.armed = False
            self.world.clock.advance(LEASE)
            if mine:
                await self.world.mine(mine)

    async def finish(self) -> None:
        await self.live(3)
        await self.world.mine(3)
        await self.world.confirm()


@dataclass(frozen=True)
class Story:
    name: str
    play: Callable[[Stage], Awaitable[None]]
    edges: frozenset[Edge]


async def pays(stage: Stage) -> None:
    await stage.request()
    stage.fate.armed = True
    await stage.finish()


async def refuses(stage: Stage) -> None:
    payouts = await stage.request()
    stage.signer.refused = {payouts[1].id}
    stage.fate.armed = True
    await stage.live(3, mine=0)
    await stage.finish()


async def bumps(stage: Stage) -> None:
    await stage.request()
    await stage.live(1, mine=0)
    stage.world.node.node.rate = 30_000
    stage.fate.armed = True
    await stage.live(1, mine=0, after=660)
    await stage.live(2, mine=0)
    await stage.finish()


async def cancels(stage: Stage) -> None:
    await stage.request()
    await stage.live(1, mine=0)
    stage.world.policy = SpendPolicy(cancel_after=timedelta(hours=1))
    stage.fate.armed = True
    await stage.live(1, mine=0, after=3_700)
    await stage.live(2, mine=0)
    await stage.finish()
    for _ in range(FINAL_DEPTH):
        stage.world.node.mine()
    await stage.world.follow()  # one call reads them all: it is much quicker than a call for each
    await stage.world.confirm()


async def is_orphaned(stage: Stage) -> None:
    await stage.request()
    await stage.live(1)
    node = stage.world.node.node
    node.rollback(1)
    node.mine()
    node.mine()
    await stage.world.follow()
    stage.fate.armed = True
    await stage.finish()


STORIES: Final = (
    Story(
        "pays", pays, frozenset({(S.ALLOCATED, S.SIGNED), (S.SIGNED, S.MINED), (S.MINED, S.FINAL)})
    ),
    Story("refuses", refuses, frozenset({(S.ALLOCATED, S.DROPPED)})),
    Story("bumps", bumps, frozenset({(S.SIGNED, S.MINED)})),
    Story("cancels", cancels, frozenset({(S.SIGNED, S.CANCELLING), (S.CANCELLING, S.MINED)})),
    Story("is orphaned", is_orphaned, frozenset({(S.MINED, S.SIGNED)})),
)


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[SpendWorld]:
    async with make_spend_world(engine, tmp_path) as made:
        yield made


@contextlib.contextmanager
def set_stage(world: SpendWorld, fate: Fate, reference: str = "w") -> Iterator[Stage]:
    """Let fate into the worker, the signer and the node of a world; it leaves with the stage."""
    signer, node, policy = world.signer, world.node, world.policy
    mortal = MortalSigner(signer, fate)
    world.signer = cast("Any", mortal)  # it hands on what it does not change
    world.node = MortalNode(node, fate)
    node.rate = RATE
    with pytest.MonkeyPatch.context() as patch:
        for step in STEPS:
            patch.setattr(step, "transact", fate.transact)
        yield Stage(world, fate, mortal, reference)
    world.signer, world.node, world.policy = signer, node, policy


CUTS: Final = {
    "dies": (1, 2, 3, 5, 6, 8, 11),
    "cut": (2, 4, 7),
    "overtaken": (2, 4, 6),
}
"""Before a commit, after it, after the signer, after the node: the points of one turn."""
POINTS_MAX: Final = {"pays": 16, "refuses": 26, "bumps": 18, "cancels": 18, "is orphaned": 10}
"""Points that a clean run passes at most."""


@pytest.mark.parametrize("mode", CUTS)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_a_worker_that_is_cut_short_anywhere_pays_each_payout_once(
    world: SpendWorld, story: Story, mode: str
) -> None:
    """One world sees the story cut short at each point: what one leaves would trip up the next."""
    for point in CUTS[mode]:
        fate = Fate(mode, point)

        async def overtake() -> None:
            before, world.worker = world.worker, "another"
            world.clock.advance(LEASE * 2)
            await world.advance()
            world.worker = before

        fate.overtake = overtake
        with named(f"{story.name}, {mode} at point {point}"):
            with set_stage(world, fate, f"p{point}") as stage:
                await story.play(stage)
            await assert_settled(world)


@contextlib.contextmanager
def named(case: str) -> Iterator[None]:
    """Name the case in what fails."""
    try:
        yield
    except Exception as error:
        error.add_note(case)
        raise


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_a_clean_run_takes_the_edges_of_its_story(world: SpendWorld, story: Story) -> None:
    fate = Fate()
    with set_stage(world, fate) as stage:
        await story.play(stage)

    assert story.edges <= await edges_of(world)
    assert fate.passed <= POINTS_MAX[story.name]
    await assert_settled(world)


def test_the_stories_take_every_edge_that_a_worker_and_the_chain_take() -> None:
    """What is left has a test of its own: people's decisions, holds, and blocks deeper than policy."""
    told = frozenset[Edge]().union(*(story.edges for story in STORIES))
    # tests/custody/bitcoin/test_spend_adversity.py, test_spend_sign.py and test_spend_orphans.py.
    elsewhere = {(a, b) for a, b in SPEND_STATES.edges if S.SECURITY_HOLD in {a, b}}
    elsewhere |= {
        (S.CANCELLING, S.SIGNED),
        (S.MINED, S.CANCELLING),
        (S.FINAL, S.SIGNED),
        (S.FINAL, S.CANCELLING),
    }

    assert SPEND_STATES.edges - elsewhere == told


async def edges_of(world: SpendWorld) -> set[Edge]:
    rows = await world.run(
        lambda conn: conn.execute(
            select(history.c.from_state, history.c.to_state).where(history.c.entity_type == SPEND)
        )
    )
    return {(r.from_state, r.to_state) for r in rows if r.from_state and r.from_state != r.to_state}


async def assert_settled(world: SpendWorld) -> None:
    """Everything is over: each confirmed payout was paid once, and every satoshi is accounted for."""
    found = [item async for item in world._every()]
    fees = sum(item.fee_paid or 0 for item in found)
    done = [item for item in found if item.state is P.CONFIRMED]
    assert {item.state for item in found} <= {P.CONFIRMED, P.CANCELLED, P.REJECTED}
    paid = sum(item.amount for item in done)
    books = await world.books()
    assert [key for key, (_, *pending) in books.items() if any(pending)] == []
    assert not [key for key in books if key.startswith(("in-flight:", "transit:", "suspense:"))]
    assert books["client:acme"][0] == sum(DEPOSITS) - paid
    assert books["custody:btc-pool"][0] == sum(DEPOSITS) + CAPITAL - paid - fees
    mined = [
        (address_of(output.script, REGTEST), output.amount)
        for block in world.node._branch
        for item in block.transactions
        for output in item.outputs
    ]
    sent = sorted(item for item in mined if item[0] in PAYEES)
    assert sent == sorted((item.destination, item.chain_amount) for item in done)
    await world.assert_exact()
