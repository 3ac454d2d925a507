"""Payouts whose nonce a stranger spends, whose blocks vanish late, and whose bytes people take back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from chain.testing import FINALITY_LAG, ScriptedTransaction
from custody import payout_store as store
from custody.payout_model import Attempt, Payout
from custody.payout_model import PayoutState as P
from custody.payout_rules import BumpPolicy
from custody.payout_send import REBROADCAST_AFTER
from custody.payout_worker import LEASE
from tests.crash.matrix.mortal import Mortal
from tests.crash.matrix.stage import Journey, Stage
from tests.custody import test_payout_adversity as adversity
from tests.custody import test_payout_matrix as matrix
from tests.custody.fate import Fate
from tests.custody.payout_world import ETH, PAYEE, STRANGER, World, make_world
from tests.custody.test_payout_guards import SilentSigner

REFUSED_ALWAYS: Final = 10**6
DEEP: Final = 2 * FINALITY_LAG
CONFIRMED_AFTER: Final = 3
"""Blocks that policy asks for here; a branch may still lose them."""
Paid = list[tuple[str, int]]


@dataclass
class Tale:
    """A payout's world, its worker, and whoever acts on it."""

    told: matrix.Stage
    mortal: Mortal

    @property
    def world(self) -> World:
        return self.told.world

    async def sent(self) -> Payout:
        payout = await self.world.approved()
        await self.world.advance()
        return payout

    async def unsigned(self) -> Payout:
        """A payout that has its nonce, and whose signer is down."""
        payout = await self.world.approved()
        self.world.signer = SilentSigner()
        await self.world.advance()
        self.world.signer = self.told.signer
        return payout

    async def cancelled(self, payout: Payout) -> None:
        """Let two people set another spend against the payment; who is cut off looks first."""

        async def cancel() -> None:
            if (await self.world.get(payout)).state is P.SIGNED:
                await matrix.cancel(self.world, payout)

        await self.mortal.act(cancel)

    async def cancelling(self) -> Payout:
        payout = await self.sent()
        await self.cancelled(payout)
        await self.world.advance()
        return payout

    async def attempts(self, payout: Payout) -> Sequence[Attempt]:
        return await self.world.run(lambda conn: store.list_attempts(conn, payout.id))

    async def payment(self, payout: Payout) -> ScriptedTransaction:
        """The first spend that was signed for it, as a node reads it."""
        first, *_ = await self.attempts(payout)
        item: ScriptedTransaction = self.world.gateway.read(first.raw or b"")
        return item

    async def is_robbed(self, payout: Payout) -> ScriptedTransaction:
        thief = adversity.stolen_nonce(self.world)
        self.world.gateway.mine(thief)
        await self.world.follow()
        assert (await self.world.get(payout)).state is P.SECURITY_HOLD
        return thief

    async def is_undone(self, thief: ScriptedTransaction) -> None:
        """The thief's block goes, and two people let the sender go on."""
        self.world.gateway.reorg(1, [[], []])
        self.world.gateway.drop(thief.hash)
        await self.world.follow()
        await adversity.resume(self.world, "the thief's block is gone")

    async def orphans(self, depth: int) -> None:
        """Let a longer branch without any of our transactions take over."""
        self.world.gateway.rollback(depth)
        for _ in range(depth + 1):
            self.world.gateway.mine()
        await self.world.follow(reorg_depth_max=DEEP)

    async def is_confirmed(self, item: ScriptedTransaction) -> None:
        self.world.gateway.mine(item)
        await self.world.mine(CONFIRMED_AFTER - 1)
        await self.world.confirm()

    async def is_final(self) -> None:
        await self.told.live(2, mine=0)
        await self.told.live(2, mine=FINALITY_LAG // 2 + 1)


Story = Callable[[Tale], Awaitable[Paid]]


async def is_held_before_it_is_signed(tale: Tale) -> Paid:
    payout = await tale.unsigned()
    await tale.is_undone(await tale.is_robbed(payout))
    await tale.told.live(6)
    return [(PAYEE, 2 * ETH)]


async def is_given_up_before_it_is_signed(tale: Tale) -> Paid:
    payout = await tale.unsigned()
    thief = await tale.is_robbed(payout)
    await adversity.abandon(tale.world, payout)
    await tale.told.live(2)
    return [(thief.recipient, thief.value)]


async def is_given_up_after_it_was_signed(tale: Tale) -> Paid:
    tale.world.gateway.refuse_broadcasts = REFUSED_ALWAYS
    payout = await tale.sent()
    thief = await tale.is_robbed(payout)
    await adversity.abandon(tale.world, payout)
    await tale.told.live(2)
    return [(thief.recipient, thief.value)]


async def _signed_while_robbed(tale: Tale) -> Payout:
    payout = await tale.world.approved()

    async def robbed() -> None:
        await adversity.follow_thief(tale.world)

    tale.world.signer = adversity.InterruptedSigner(tale.told.signer, robbed)
    await tale.world.advance()
    tale.world.signer = tale.told.signer
    await tale.world.follow()
    assert (await tale.world.get(payout)).state is P.SECURITY_HOLD
    return payout


async def is_signed_while_robbed_and_given_up(tale: Tale) -> Paid:
    payout = await _signed_while_robbed(tale)
    await adversity.abandon(tale.world, payout)
    await tale.told.live(2)
    return [(STRANGER, ETH)]


async def is_signed_while_robbed_and_mined_instead(tale: Tale) -> Paid:
    """The branch with the thief's block loses to one that has our bytes: people had no say in it."""
    payout = await _signed_while_robbed(tale)
    if (await tale.attempts(payout))[0].raw is None:
        # Who asked the signer died before it answered: there are no bytes that a block could have.
        await tale.is_undone(adversity.stolen_nonce(tale.world))
        await tale.told.live(6)
        return [(PAYEE, 2 * ETH)]
    tale.world.gateway.rollback(1)
    tale.world.gateway.mine(await tale.payment(payout))
    tale.world.gateway.mine()
    await tale.world.follow()
    await tale.world.mine(2)
    await tale.world.confirm()
    return [(PAYEE, 2 * ETH)]


async def is_robbed_while_cancelled(tale: Tale) -> Paid:
    payout = await tale.sent()
    await tale.cancelled(payout)
    tale.world.gateway.refuse_broadcasts = REFUSED_ALWAYS
    await tale.world.advance()
    thief = await tale.is_robbed(payout)
    tale.world.gateway.refuse_broadcasts = 0
    await tale.is_undone(thief)
    await tale.is_final()
    return [(payout.sender, 0)]


async def goes_on_when_the_signer_refuses_to_cancel(tale: Tale) -> Paid:
    payout = await tale.sent()
    tale.told.signer.refused.add(payout.id)
    await tale.cancelled(payout)
    await tale.told.live(2, mine=0)
    assert (await tale.world.get(payout)).state is P.SIGNED
    await tale.told.live(4)
    return [(PAYEE, 2 * ETH)]


async def is_paid_after_its_cancellation_is_orphaned(tale: Tale) -> Paid:
    payout = await tale.cancelling()
    payment = await tale.payment(payout)
    await tale.world.mine()
    await tale.orphans(1)
    assert (await tale.world.get(payout)).state is P.CANCELLING
    await tale.is_confirmed(payment)
    return [(PAYEE, 2 * ETH)]


async def is_cancelled_after_its_payment_is_orphaned(tale: Tale) -> Paid:
    payout = await tale.cancelling()
    await tale.is_confirmed(await tale.payment(payout))
    assert (await tale.world.get(payout)).state is P.CONFIRMED
    await tale.orphans(CONFIRMED_AFTER)
    assert (await tale.world.get(payout)).state is P.CANCELLING
    await tale.is_final()
    return [(payout.sender, 0)]


async def is_paid_by_an_older_attempt_after_all(tale: Tale) -> Paid:
    payout = await tale.sent()
    payment = await tale.payment(payout)
    tale.world.clock.advance(BumpPolicy().bump_after)
    await tale.told.live(3, mine=0)
    await tale.world.mine(CONFIRMED_AFTER)
    await tale.world.confirm()
    assert (await tale.world.get(payout)).state is P.CONFIRMED
    await tale.orphans(CONFIRMED_AFTER)
    await tale.is_confirmed(payment)
    return [(PAYEE, 2 * ETH)]


async def is_offered_again_and_not_answered(tale: Tale) -> Paid:
    await tale.sent()
    tale.world.clock.advance(REBROADCAST_AFTER)
    tale.world.gateway.lose_broadcasts = 1
    await tale.told.live(1, mine=0)
    await tale.told.live(4)
    return [(PAYEE, 2 * ETH)]


async def has_failed_for_good_until_that_block_goes(tale: Tale) -> Paid:
    """Its claim is paid back, so a block that has the bytes once more is a fact to look at."""
    payout = await adversity.failing_payout(tale.world)
    failed = await adversity.its_transaction(tale.world, payout, succeeded=False)
    await tale.world.mine(CONFIRMED_AFTER)
    await adversity.confirm_as_final(tale.world)
    await tale.orphans(1 + CONFIRMED_AFTER)
    assert (await tale.world.get(payout)).state is P.SECURITY_HOLD
    tale.world.gateway.mine(failed)
    await tale.world.follow()
    await adversity.abandon(tale.world, payout)
    await tale.told.live(2)
    return [(failed.recipient, 0)]


async def was_cancelled_for_good_until_that_block_goes(tale: Tale) -> Paid:
    payout = await tale.cancelling()
    # One call reads all blocks: it is much quicker than a call for each.
    for _ in range(FINALITY_LAG + 1):
        tale.world.gateway.mine_pool()
    await tale.world.follow()
    await tale.world.confirm()
    assert (await tale.world.get(payout)).state is P.CANCELLED
    await tale.orphans(FINALITY_LAG + 1)
    await tale.told.live(2)
    assert (await tale.world.get(payout)).claim_returned
    return []


async def lapses_before_the_signer_is_asked(tale: Tale) -> Paid:
    lasts = timedelta(hours=1)
    tale.world.signer = SilentSigner()
    payout = await tale.world.approved(expires_at=tale.world.clock.now() + lasts)
    await tale.world.advance()
    tale.world.clock.advance(lasts)
    tale.world.signer = tale.told.signer
    await tale.told.live(2)
    assert (await tale.world.get(payout)).state is P.EXPIRED
    return []


End = Callable[[World], Awaitable[None]]


async def is_given_back(world: World) -> None:
    """What a stranger took is in suspense, the claim has its money, and nothing is on its way."""
    books = await world.books()
    assert [key for key, (_, *pending) in books.items() if any(pending)] == []
    assert not [key for key in books if key[0].startswith(("in-flight:", "transit:"))]
    assert books["client:acme", "ETH"] == (10 * ETH, 0, 0)
    await world.assert_rule_two()


STORIES: Final[tuple[tuple[Story, End], ...]] = (
    (is_held_before_it_is_signed, matrix.assert_settled),
    (is_given_up_before_it_is_signed, is_given_back),
    (is_given_up_after_it_was_signed, is_given_back),
    (is_signed_while_robbed_and_given_up, is_given_back),
    (is_signed_while_robbed_and_mined_instead, matrix.assert_settled),
    (is_robbed_while_cancelled, matrix.assert_settled),
    (goes_on_when_the_signer_refuses_to_cancel, matrix.assert_settled),
    (is_paid_after_its_cancellation_is_orphaned, matrix.assert_settled),
    (is_cancelled_after_its_payment_is_orphaned, matrix.assert_settled),
    (is_paid_by_an_older_attempt_after_all, matrix.assert_settled),
    (is_offered_again_and_not_answered, matrix.assert_settled),
    (has_failed_for_good_until_that_block_goes, is_given_back),
    (was_cancelled_for_good_until_that_block_goes, is_given_back),
    (lapses_before_the_signer_is_asked, is_given_back),
)


async def play(story: Story, end: End, stage: Stage) -> Any:
    mortal = stage.mortal
    async with make_world(mortal.engine, stage.folder) as world:
        mortal.make_mortal(stage.patch, World, "advance", "follow", "confirm")
        mortal.make_asking_mortal(stage.patch, World, "run")
        mortal.pass_lease = partial(world.clock.advance, LEASE + timedelta(seconds=1))
        mortal.rename = partial(setattr, world, "worker")
        fate = Fate()
        signer = matrix.MortalSigner(world.signer, fate)
        world.signer = signer
        paid = await story(Tale(matrix.Stage(world, fate, signer), mortal))
        assert matrix.payments(world) == paid
        await end(world)


JOURNEYS: Final = tuple(
    Journey("payout", story.__name__.replace("_", " "), partial(play, story, end))
    for story, end in STORIES
)
