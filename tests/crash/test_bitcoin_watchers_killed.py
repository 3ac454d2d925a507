"""Whole watchers on Bitcoin killed by SIGKILL, from a deposit and a request to the last confirmation.

Blocks are followed and undone, coins become rows, deposits are booked and credited, payouts are sent,
included, orphaned and confirmed. Between two stages nobody works and the chain moves, in every run in
the same way, so the books of a run in which nobody is killed are what they have to be.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.local.databases import Database, Server, cloned
from chain.simulators.bitcoind import COOKIE, start_bitcoind
from custody.bitcoin.spend_model import SpendState
from custody.bitcoin.spend_tables import spend_attempt
from custody.bitcoin.spend_worker import LEASE
from custody.payout_model import Payout
from custody.payout_tables import payout
from custody.signer_sync import push_control
from custody.tables import deposit
from kernel.clock import SystemClock
from ledger.queries import list_open_holds
from ledger.verification import verify
from tests.chain.bitcoin.conftest import bitcoind_binary
from tests.chain.bitcoin.yard import STRANGER, Coin, split
from tests.crash.spender import DEPTH, Order
from tests.crash.test_payouts_killed import engine_of
from tests.crash.test_spends_killed import bear, nursery, signer_of_bitcoin
from tests.custody.bitcoin.spend_world import BOOK, BTC, DEPOSITS, PAYEES
from tests.custody.bitcoin.test_spend_real import RealSpendWorld, make_real_world

__all__ = ["bitcoind_binary"]

PAYOUTS: Final = 3
KILLS_PER_STAGE: Final = 3
LIFE_MAX_S: Final = 0.4
MOMENT_MAX_S: Final = 0.03
DONE_WITHIN_S: Final = 30.0

Seen = Counter[str]
Done = Callable[[Seen], bool]


@dataclass
class Play:
    """One run of the story: the same chain, with or without the kills."""

    world: RealSpendWorld
    order: Order
    nursery: asyncio.subprocess.Process
    kills: int
    random: Random
    coin: Coin
    payouts: list[Payout] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)

    async def ask(self) -> None:
        """Approve payouts, and let the client pay two coins to us in one transaction."""
        for number in range(PAYOUTS):
            self.payouts.append(
                await self.world.approved(
                    client_ref=f"k-{number}",
                    amount=BTC // 50 + number,
                    destination=PAYEES[number % len(PAYEES)],
                )
            )
        await push_control(self.world.engine, self.world.vault, now=self.world.clock.now())
        paid = [(self.world.acme, BTC // 7), (self.world.acme, BTC // 9)]
        await self.world.real.send(split(self.coin, paid))

    async def stage(self, **wanted: int) -> None:
        """Let watchers work, and die, until exactly this is seen; ``_`` stands for a blank."""
        expected = Counter({name.replace("_", " "): count for name, count in wanted.items()})
        for life in range(self.kills):
            before = await self.seen()
            async with self._watcher():
                within = self.random.uniform(0, LIFE_MAX_S)
                if life % 2 and before != expected:
                    # A moment after it has committed something.
                    await self._until(lambda seen, old=before: seen != old, LIFE_MAX_S)  # type: ignore[misc]  # bound by the loop
                    within = self.random.uniform(0, MOMENT_MAX_S)
                await asyncio.sleep(within)
            self.met.update((await self.seen()).keys())
        async with self._watcher():
            assert await self._until(lambda seen: seen == expected, DONE_WITHIN_S), (
                await self.seen()
            )

    async def _until(self, done: Done, within_s: float) -> bool:
        end = asyncio.get_running_loop().time() + within_s
        while not done(await self.seen()):
            if asyncio.get_running_loop().time() > end:
                return False
            await asyncio.sleep(0.005)
        return True

    @contextlib.asynccontextmanager
    async def _watcher(self) -> AsyncIterator[None]:
        """Let a watcher live as long as the block; the leases of the dead have ended."""
        self.world.clock.advance(LEASE + timedelta(seconds=1))
        self.met["lives"] += 1
        named = {
            "holder": f"watcher-{self.met['lives']}",
            "now": self.world.clock.now().isoformat(),
        }
        pid = await bear(self.nursery, Order(**{**vars_of(self.order), **named}))
        try:
            yield
        finally:
            os.kill(pid, signal.SIGKILL)

    async def seen(self) -> Seen:
        """Count payouts, their transactions and the deposits of the story by state."""

        async def read(conn: AsyncConnection) -> Seen:
            found: Seen = Counter()
            for name, table in (
                ("payout", payout),
                ("attempt", spend_attempt),
                ("deposit", deposit),
            ):
                query = select(table.c.state)
                if table is deposit:
                    query = query.where(table.c.amount.in_([BTC // 7, BTC // 9]))
                found.update(f"{name} {state}" for state in await conn.scalars(query))
            return found

        return await self.world.run(read)


def vars_of(order: Order) -> dict[str, Any]:
    return {name: getattr(order, name) for name in Order.__slots__}


async def tell_story(play: Play) -> None:
    """Deposits and payouts: in the pool, in blocks, out of them, in again, credited and confirmed."""
    yard, all_ = play.world.real, PAYOUTS
    await play.ask()
    await play.stage(payout_signed=all_, attempt_broadcast=1)
    await yard.mine(2)
    await play.stage(payout_mined=all_, attempt_mined=1, deposit_included=2)
    await yard.rewind(2)
    for _ in range(3):
        await yard.mine_exactly()
    await play.stage(payout_signed=all_, attempt_broadcast=1, deposit_orphaned=2)
    await yard.mine(1)
    await play.stage(payout_mined=all_, attempt_mined=1, deposit_included=2)
    await yard.mine(DEPTH)
    await play.stage(payout_confirmed=all_, attempt_final=1, deposit_credited=2)


async def tell(
    database: Database, folder: Path, binary: Path, kills: int, seed: int
) -> tuple[Any, Counter[str]]:
    """Return the books after the story, and what the kills met."""
    engine = engine_of(database)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(engine.dispose)
        node = await stack.enter_async_context(start_bitcoind(binary, folder / "node"))
        signer = stack.enter_context(signer_of_bitcoin(folder))
        began = SystemClock().now()
        world = await stack.enter_async_context(
            make_real_world(engine, folder, node, signer=signer, began=began)
        )
        [coin] = await world.real.fund(STRANGER)
        await world.follow()
        order = Order(
            url=database.app_url,
            node=node.url,
            cookie=str(node.folder / COOKIE),
            socket=str(folder / "signer"),
            book=BOOK,
            holder="",
            now="",
            start=world.start_height,
        )
        process = await stack.enter_async_context(nursery())
        play = Play(world, order, process, kills, Random(seed), coin)
        await tell_story(play)
        await assert_ended(play)
        return await world.books(), play.met


async def assert_ended(play: Play) -> None:
    """Nothing is held, the journal is whole, each payout is paid once, and the coins are the books."""
    world = play.world
    assert await world.run(lambda conn: list_open_holds(conn, BOOK)) == []
    assert not await verify(world.engine, BOOK)
    [one] = await world.spends()
    assert one.spend.state is SpendState.FINAL
    assert sorted(p.id for p in one.payouts) == sorted(p.id for p in play.payouts)
    paid = sum(item.amount for item in play.payouts)
    arrived = sum(DEPOSITS) + BTC // 7 + BTC // 9
    assert (await world.books())["client:acme"] == (arrived - paid, 0, 0)
    await world.assert_exact()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1])
async def test_watchers_killed_at_any_moment_leave_the_books_of_a_watcher_that_lives(
    database: Database,
    database_server: Server,
    database_template: str,
    bitcoind_binary: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    seed: int,
) -> None:
    for name in ("k", "l"):
        (tmp_path / name).mkdir()
    killed, met = await tell(database, tmp_path / "k", bitcoind_binary, KILLS_PER_STAGE, seed)
    with cloned(database_server, database_template, f"causeway_lived_{os.getpid()}") as other:
        lived, _ = await tell(other, tmp_path / "l", bitcoind_binary, 0, seed)
    assert killed == lived
    record_property("counts", f"watchers killed, and what they were met in: {dict(met)}")
