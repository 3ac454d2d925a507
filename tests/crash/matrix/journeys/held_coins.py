"""Payouts on Bitcoin whose coins strangers spend, whose blocks vanish late, and what people take back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, Final

from chain.bitcoin.blocks import FINAL_DEPTH
from chain.bitcoin.transactions import Outpoint, Transaction
from custody.bitcoin.spend_model import SpendState
from custody.bitcoin.spend_rescue import resume_spend, spend_resume_bytes
from custody.bitcoin.spend_worker import LEASE
from custody.bitcoin.testing import POOL
from custody.freezes import find_freeze
from custody.payout_model import PayoutState as P
from custody.payout_send import REBROADCAST_AFTER
from custody.signer.errors import SignerRefused
from kernel.errors import OutsideUnavailable
from tests.crash.matrix.stage import Journey, Stage
from tests.custody.bitcoin import test_spend_adversity as adversity
from tests.custody.bitcoin import test_spend_again as again
from tests.custody.bitcoin import test_spend_orphans as orphans
from tests.custody.bitcoin.spend_world import BTC, SpendWorld, make_spend_world
from tests.custody.bitcoin.test_spend_matrix import assert_settled

CONFIRMED_AFTER: Final = 3
BUMPED_AFTER: Final = timedelta(minutes=11)
DEAR: Final = 50_000
"""Satoshi per 1,000 virtual bytes: what was offered before is outbid."""

Story = Callable[[SpendWorld], Awaitable[None]]


@dataclass
class Answering:
    """The signer, during whose answer something else happens first, once."""

    signer: Any
    meanwhile: Callable[[], Awaitable[None]]
    happened: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.signer, name)

    async def sign_spend(self, *asked: Any) -> bytes:
        if not self.happened:
            self.happened = True
            await self.meanwhile()
        signed: bytes = await self.signer.sign_spend(*asked)
        return signed


@dataclass
class Refusing:
    """The signer while it signs no spend."""

    signer: Any
    error: Exception

    def __getattr__(self, name: str) -> Any:
        return getattr(self.signer, name)

    async def sign_spend(self, *_: Any) -> bytes:
        raise self.error


async def unsigned(world: SpendWorld) -> None:
    """Let a spend be put together while the signer is down."""
    signer = world.signer
    await world.approved()
    world.signer = Refusing(signer, OutsideUnavailable("the signer does not answer"))
    await world.advance()
    world.signer = signer


async def is_robbed(world: SpendWorld) -> None:
    """A stranger spends the spend's coin."""
    coin = (await world.only()).current.coins[0]
    world.node.mine(
        world.node.pay((adversity.STRANGER, coin.amount - 1_000), spend=[coin.outpoint])
    )
    await world.follow()
    assert (await world.only()).spend.state is SpendState.SECURITY_HOLD


async def is_undone(world: SpendWorld) -> None:
    """The thief's block goes, and two people let the wallet and the spend go on."""
    await orphans.reorg(world, 1)
    await again.thaw(world)
    spend, reason = (await world.only()).spend, "the thief's block is gone"
    signatures = again.both(spend_resume_bytes(spend.id, reason))
    await world.run(
        lambda conn: resume_spend(
            conn, spend.id, signatures=signatures, reason=reason, now=world.clock.now()
        )
    )


async def is_mined(world: SpendWorld, item: Transaction, blocks: int = CONFIRMED_AFTER) -> None:
    world.node.mine(item)
    await world.follow()
    await world.mine(blocks - 1)
    await world.confirm()


async def is_paid(world: SpendWorld) -> None:
    for _ in range(2):
        await world.advance(after=LEASE)
    await world.mine(CONFIRMED_AFTER)
    await world.confirm()
    await ends(world, P.CONFIRMED)


async def ends(world: SpendWorld, state: P) -> None:
    assert {item.state for item in (await world.only()).payouts} == {state}
    await world.assert_exact()


async def is_held_before_it_is_signed(world: SpendWorld) -> None:
    await unsigned(world)
    await is_robbed(world)
    await is_undone(world)
    await is_paid(world)


async def is_held_after_it_was_sent(world: SpendWorld) -> None:
    await world.approved()
    await world.advance()
    await is_robbed(world)
    await is_undone(world)
    await is_paid(world)


async def is_held_while_cancelled(world: SpendWorld) -> None:
    await orphans.cancelling(world)
    await is_robbed(world)
    await is_undone(world)
    for _ in range(2):
        await world.advance(after=LEASE)
    await world.mine(1 + FINAL_DEPTH)
    await world.confirm()
    await ends(world, P.CANCELLED)


async def signed_while_robbed(world: SpendWorld) -> None:
    signer = world.signer
    await world.approved()
    world.signer = Answering(signer, partial(is_robbed, world))
    await world.advance()
    world.signer = signer
    await world.follow()
    assert (await world.only()).spend.state is SpendState.SECURITY_HOLD


async def is_signed_while_robbed_and_given_up(world: SpendWorld) -> None:
    await signed_while_robbed(world)
    await world.mine(FINAL_DEPTH)
    await again.give_up(world, (await world.only()).spend.id)
    await ends(world, P.FAILED_ON_CHAIN)


async def is_signed_while_robbed_and_mined_instead(world: SpendWorld) -> None:
    """The branch with the thief's block loses to one that has our bytes: people had no say in it."""
    await signed_while_robbed(world)
    if not (await world.only()).signed:
        # Who asked the signer died before it answered: there are no bytes that a block could have.
        await is_undone(world)
        await is_paid(world)
        return
    world.node.rollback(1)
    world.node.mine(orphans.bytes_of(await world.only()))
    world.node.mine()
    await world.follow()
    await world.mine(CONFIRMED_AFTER)
    await world.confirm()
    await ends(world, P.CONFIRMED)


async def is_given_up_after_it_was_sent(world: SpendWorld) -> None:
    await again.robbed_and_given_up(world)
    await world.assert_exact()


async def goes_on_when_the_signer_refuses_to_cancel(world: SpendWorld) -> None:
    signer = world.signer
    await world.approved()
    await world.advance()
    await world.cancel((await world.only()).spend)
    world.signer = Refusing(signer, SignerRefused("no"))
    for _ in range(2):
        await world.advance(after=LEASE)
    assert (await world.only()).spend.state is SpendState.SIGNED
    world.signer = signer
    await is_paid(world)


async def is_paid_by_an_older_attempt_after_all(world: SpendWorld) -> None:
    await world.approved()
    await world.advance()
    payment = orphans.bytes_of(await world.only())
    world.node.rate = DEAR
    for _ in range(2):
        await world.advance(after=BUMPED_AFTER)
    await world.mine(CONFIRMED_AFTER)
    await world.confirm()
    await ends(world, P.CONFIRMED)
    await orphans.reorg(world, CONFIRMED_AFTER)
    await is_mined(world, payment)
    await ends(world, P.CONFIRMED)


async def is_mined_before_the_node_has_answered(world: SpendWorld) -> None:
    world.node.lose_broadcasts = 1
    await world.approved()
    await world.advance()
    await world.mine(CONFIRMED_AFTER)
    await world.confirm()
    await is_paid(world)


async def is_offered_again_and_not_answered(world: SpendWorld) -> None:
    await world.approved()
    await world.advance()
    world.node.lose_broadcasts = 1
    await world.advance(after=REBROADCAST_AFTER)
    await is_paid(world)


async def is_confirmed_and_orphaned(world: SpendWorld) -> None:
    await world.approved()
    await world.advance()
    await world.mine(CONFIRMED_AFTER)
    await world.confirm()
    await ends(world, P.CONFIRMED)
    await orphans.reorg(world, CONFIRMED_AFTER)
    await is_paid(world)


async def is_paid_after_its_payment_was_orphaned(world: SpendWorld) -> None:
    await orphans.cancelling(world)
    payment = orphans.bytes_of(await world.only())
    await is_mined(world, payment, 1)
    await orphans.reorg(world, 1)
    assert (await world.only()).spend.state is SpendState.CANCELLING
    await is_mined(world, payment)
    await ends(world, P.CONFIRMED)


async def is_cancelled_after_its_payment_was_orphaned(world: SpendWorld) -> None:
    """The payment was mined under an id that no attempt has: nothing of it can be sent again."""
    await orphans.cancelling(world)
    await is_mined(world, replace(orphans.bytes_of(await world.only()), lock_time=1))
    await ends(world, P.CONFIRMED)
    await orphans.reorg(world, CONFIRMED_AFTER)
    for _ in range(2):
        await world.advance(after=LEASE)
    await world.mine(1 + FINAL_DEPTH)
    await world.confirm()
    await ends(world, P.CANCELLED)


async def was_cancelled_for_good_until_that_block_goes(world: SpendWorld) -> None:
    await orphans.cancelling(world)
    await world.mine(1 + FINAL_DEPTH)
    await world.confirm()
    await ends(world, P.CANCELLED)
    await orphans.reorg(world, 1 + FINAL_DEPTH)
    await ends(world, P.SECURITY_HOLD)
    assert await world.run(lambda conn: find_freeze(conn, wallet=POOL)) is not None
    await world.advance()
    assert world.node.pool == frozenset()


async def is_paid_in_and_stolen_within_a_block(world: SpendWorld) -> None:
    """Who has a key of ours spends a coin in the block that brings it; another branch says the same."""
    paid = world.node.pay((world.acme, BTC))
    stolen = world.node.pay((adversity.STRANGER, BTC - 1_000), spend=[Outpoint(paid.tx_id, 0)])
    world.node.mine(paid, stolen)
    await world.follow()
    await orphans.reorg(world, 1)
    world.node.mine(paid, stolen)
    await world.mine(CONFIRMED_AFTER)
    assert await world.run(lambda conn: find_freeze(conn, wallet=POOL)) is not None
    await again.thaw(world)
    await world.credit()
    await world.assert_exact()


SETTLED: Final[tuple[Story, ...]] = (
    is_held_before_it_is_signed,
    is_held_after_it_was_sent,
    is_held_while_cancelled,
    is_signed_while_robbed_and_mined_instead,
    goes_on_when_the_signer_refuses_to_cancel,
    is_paid_by_an_older_attempt_after_all,
    is_mined_before_the_node_has_answered,
    is_offered_again_and_not_answered,
    is_confirmed_and_orphaned,
    is_paid_after_its_payment_was_orphaned,
    is_cancelled_after_its_payment_was_orphaned,
)
LEFT_TO_PEOPLE: Final[tuple[Story, ...]] = (
    is_signed_while_robbed_and_given_up,
    is_given_up_after_it_was_sent,
    was_cancelled_for_good_until_that_block_goes,
    is_paid_in_and_stolen_within_a_block,
)


async def play(story: Story, stage: Stage) -> Any:
    mortal = stage.mortal
    async with make_spend_world(mortal.engine, stage.folder) as world:
        mortal.make_mortal(stage.patch, SpendWorld, "advance", "follow", "credit", "confirm")
        mortal.make_asking_mortal(stage.patch, SpendWorld, "run")
        mortal.pass_lease = partial(world.clock.advance, LEASE + timedelta(seconds=1))
        mortal.rename = partial(setattr, world, "worker")
        await story(world)
        if story in SETTLED:
            await assert_settled(world)


JOURNEYS: Final = tuple(
    Journey("payout-bitcoin", story.__name__.replace("_", " "), partial(play, story))
    for story in (*SETTLED, *LEFT_TO_PEOPLE)
)
