"""Whole watchers killed by SIGKILL, from the request of a payout to its last confirmation.

What a watcher does is killed while it does it: blocks are followed and undone, deposits are booked
and credited, payouts are sent, bumped, cancelled, included, orphaned and confirmed. Between two
stages nobody works and the chain moves, in every run in the same way, so the books of a run in which
nobody is killed are what they have to be.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, Final

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.local.databases import Database, Server, cloned
from chain.simulators.testing import dev_account, sign_transaction, transfer_token
from custody.addresses import assign_address
from custody.deposit_model import DepositState
from custody.model import AddressPurpose
from custody.payout_model import AttemptKind, AttemptState, NonceState, PayoutState
from custody.payout_tables import payout as payout_table
from custody.payout_tables import payout_attempt, payout_nonce
from custody.tables import deposit
from ledger.queries import list_open_holds
from ledger.verification import verify
from tests.crash.payer import DEPTH
from tests.crash.test_payouts_killed import Desk, opened_desk
from tests.custody.payout_world import BOOK, ETH, USDT

NODE: Final = ("--slots-in-an-epoch", "2")
FINAL: Final = 4
"""Blocks until the node of this test calls one final: twice that."""
COINS, TOKENS = 3, 2
KILLS_PER_STAGE: Final = 3
LIFE_MAX_S: Final = 0.6
MOMENT_MAX_S: Final = 0.03
DONE_WITHIN_S: Final = 30.0
BUMP_S: Final = 3_600
"""Longer than all lives of the stages between two of its jumps: a head is bumped once."""

Seen = Counter[str]
Done = Callable[[Seen], bool]


@dataclass
class Play:
    """One run of the story: the same chain, with or without the kills."""

    desk: Desk
    kills: int
    random: Random
    met: Counter[str] = field(default_factory=Counter)
    client: str = ""

    async def found(self) -> None:
        """Give the client an address, and the chain what it pays to us."""
        world = self.desk.world
        now = world.clock.now()

        async def work(conn: AsyncConnection) -> str:
            given = await assign_address(
                conn, "client-pool", purpose=AddressPurpose.DEPOSIT, party="acme", now=now
            )
            return given.address

        self.client = await world.run(work)

    async def deposit(self) -> None:
        """Let the client pay coins and tokens to us."""
        rpc, token = self.desk.world.rpc, self.desk.world.token
        assert rpc is not None
        giver, holder = dev_account(8), dev_account(9)
        for raw in (
            sign_transaction(giver, 0, to=self.client, value=ETH),
            transfer_token(
                holder,
                await rpc.number("eth_getTransactionCount", holder.address, "pending"),
                token,
                to=self.client,
                amount=7 * USDT,
            ),
        ):
            await rpc.call("eth_sendRawTransaction", raw)

    async def ask(self) -> None:
        """Approve payouts: those of one address are alike, so it is the same which goes first."""
        for number in range(COINS + TOKENS):
            changes: dict[str, Any] = {"client_ref": f"p-{len(self.desk.payouts)}"}
            if number < TOKENS:
                changes |= {
                    "claim": "payable:birch:netted",
                    "source_wallet": "house-hot",
                    "asset": "USDT",
                    "amount": USDT,
                }
            else:
                changes["amount"] = ETH // 100
            self.desk.payouts.append(await self.desk.world.approved(**changes))

    async def stage(self, done: Done, **orders: int) -> None:
        """Let watchers work, and die, until *done*."""
        for life in range(self.kills):
            before = await self.seen()
            async with self._watcher(orders):
                # At a random moment of its life, or a moment after it has committed something.
                within = self.random.uniform(0, LIFE_MAX_S)
                if life % 2 and not done(before):
                    await self._until(other_than(before), LIFE_MAX_S)
                    within = self.random.uniform(0, MOMENT_MAX_S)
                await asyncio.sleep(within)
            self.met.update((await self.seen()).keys())
        async with self._watcher(orders):
            assert await self._until(done, DONE_WITHIN_S), await self.seen()

    async def _until(self, done: Done, within_s: float) -> bool:
        end = asyncio.get_running_loop().time() + within_s
        while not done(await self.seen()):
            if asyncio.get_running_loop().time() > end:
                return False
            await asyncio.sleep(0.005)
        return True

    @asynccontextmanager
    async def _watcher(self, orders: dict[str, int]) -> AsyncIterator[None]:
        world = self.desk.world
        async with self.desk.worker(100, start=world.start_height, **orders):
            yield

    async def seen(self) -> Seen:
        """Count the payouts by their state and their newest attempt's, and the deposits."""

        async def read(conn: AsyncConnection) -> Seen:
            newest = (payout_attempt.c.payout_id == payout_table.c.id) & (
                payout_attempt.c.number == payout_table.c.attempt
            )
            rows = await conn.execute(
                select(
                    payout_table.c.state, payout_attempt.c.state, payout_attempt.c.number
                ).outerjoin(payout_attempt, newest)
            )
            found = Counter(" ".join(str(item) for item in row if item) for row in rows)
            deposits = await conn.execute(select(deposit.c.state))
            return found + Counter(f"deposit {state}" for state in deposits.scalars())

        return await self.desk.world.run(read)

    async def mine(self, blocks: int) -> None:
        """Let the chain grow; nobody looks."""
        assert self.desk.world.rpc is not None
        for _ in range(blocks):
            await self.desk.world.rpc.call("evm_mine")

    async def later(self, seconds: int) -> None:
        """Let time pass."""
        self.desk.world.clock.advance(timedelta(seconds=seconds))


def other_than(before: Seen) -> Done:
    """Return what tells whether anything was committed since *before*."""
    return lambda seen: seen != before


def exactly(**counts: int) -> Done:
    """Return what tells whether exactly these are seen; ``_`` stands for a blank."""
    wanted = Counter({name.replace("_", " "): count for name, count in counts.items()})
    return lambda seen: seen == wanted


async def first_story(play: Play) -> None:
    """Deposits, and payouts that are bumped, included, orphaned, included again and confirmed."""
    all_ = COINS + TOKENS
    await play.ask()
    await play.deposit()
    await play.stage(exactly(signed_broadcast_1=all_), bump_s=BUMP_S)
    await play.later(BUMP_S)
    await play.stage(exactly(signed_broadcast_1=all_ - 2, signed_broadcast_2=2), bump_s=BUMP_S)
    await play.mine(2)
    await play.stage(
        exactly(mined_mined_1=all_ - 2, mined_mined_2=2, deposit_included=2), bump_s=BUMP_S
    )
    assert play.desk.world.rpc is not None
    await play.desk.world.rpc.call("anvil_reorg", 2, [])
    await play.stage(
        exactly(signed_broadcast_1=all_ - 2, signed_broadcast_2=2, deposit_orphaned=2),
        bump_s=BUMP_S,
    )
    await play.mine(1)
    await play.stage(
        exactly(mined_mined_1=all_ - 2, mined_mined_2=2, deposit_included=2), bump_s=BUMP_S
    )
    await play.mine(DEPTH)
    await play.stage(
        exactly(confirmed_final_1=all_ - 2, confirmed_final_2=2, deposit_credited=2), bump_s=BUMP_S
    )


async def second_story(play: Play) -> None:
    """Payouts of which the first of each address is cancelled by conflict."""
    all_, before = COINS + TOKENS, {"confirmed_final_2": 2, "deposit_credited": 2}
    await play.ask()
    before["confirmed_final_1"] = all_ - 2
    await play.stage(exactly(signed_broadcast_1=all_, **before), bump_s=BUMP_S)
    await play.later(2 * BUMP_S)
    await play.stage(
        exactly(signed_broadcast_1=all_ - 2, cancelling_broadcast_2=2, **before),
        bump_s=BUMP_S,
        cancel_s=2 * BUMP_S,
    )
    await play.mine(1)
    await play.stage(exactly(mined_mined_1=all_ - 2, mined_mined_2=2, **before), bump_s=BUMP_S)
    await play.mine(2 * FINAL)
    before["confirmed_final_1"] += all_ - 2
    await play.stage(exactly(cancelled_final_2=2, **before), bump_s=BUMP_S)


async def tell(database: Database, kills: int, seed: int) -> tuple[Any, Counter[str]]:
    """Return the books after both stories, and what the kills met."""
    async with opened_desk(database, *NODE) as desk:
        play = Play(desk, kills, Random(seed))
        await play.found()
        await first_story(play)
        await second_story(play)
        await assert_ended(play)
        play.met["lives"] = desk.lives
        return await desk.world.books(), play.met


async def assert_ended(play: Play) -> None:
    """Nothing is held or open, the journal is whole, and the chain has what the rows say."""
    desk = play.desk

    async def read(conn: AsyncConnection) -> tuple[list[Any], list[Any]]:
        attempts = (await conn.execute(select(payout_attempt))).all()
        return list(attempts), list((await conn.execute(select(payout_nonce))).all())

    attempts, nonces = await desk.world.run(read)
    assert {item.state for item in nonces} == {NonceState.SPENT}
    final = [item for item in attempts if item.state == AttemptState.FINAL]
    rest = [item.state for item in attempts if item.state != AttemptState.FINAL]
    assert rest == [AttemptState.SUPERSEDED] * 4
    assert [item.kind for item in final].count(AttemptKind.CANCEL) == 2
    own = sorted((item.sender.lower(), item.nonce) for item in final)
    assert await desk.transactions() == own
    assert await desk.world.run(lambda conn: list_open_holds(conn, BOOK)) == []
    assert not await verify(desk.world.engine, BOOK)
    states = Counter([(await desk.world.get(item)).state for item in desk.payouts])
    assert states == {PayoutState.CONFIRMED: len(desk.payouts) - 2, PayoutState.CANCELLED: 2}
    assert (await play.seen())[f"deposit {DepositState.CREDITED}"] == 2


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1])
async def test_watchers_killed_at_any_moment_leave_the_books_of_a_watcher_that_lives(
    database: Database,
    database_server: Server,
    database_template: str,
    record_property: Callable[[str, object], None],
    seed: int,
) -> None:
    killed, met = await tell(database, KILLS_PER_STAGE, seed)
    with cloned(database_server, database_template, f"causeway_lived_{os.getpid()}") as other:
        lived, _ = await tell(other, 0, seed)
    assert killed == lived
    record_property("counts", f"watchers killed, and what they were met in: {dict(met)}")
