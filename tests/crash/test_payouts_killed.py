"""Payout workers killed by SIGKILL at any moment: each payout is paid once, in the books of a clean run.

Node, signer, database and worker are processes of their own. Nothing is mined while workers die, so
that fees are the same whoever paid them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

import aiohttp
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local import process_table
from app.local.databases import Database, Server, cloned
from chain.evm.addresses import address_from_node
from chain.evm.gateway import EvmGateway
from chain.simulators.testing import (
    JsonRpc,
    deploy_test_dollar,
    dev_account,
    start_evm_process,
)
from custody.payout_model import AttemptState, NonceState, Payout, PayoutState
from custody.payout_tables import payout as payout_table
from custody.payout_tables import payout_attempt, payout_nonce
from custody.payout_worker import LEASE
from kernel.clock import ManualClock, SystemClock
from kernel.db import APP_ROLE, create_engine
from ledger.queries import list_open_holds
from tests.crash.payer import Order, as_line
from tests.custody.payout_world import BOOK, ETH, PAYEE, USDT, RealWorld, found_house
from tests.custody.test_payout_processes import fund, signer_process

REPOSITORY: Final = Path(__file__).absolute().parents[2]
KILLS: Final = 26
STEPS: Final = ("approved", "claimed", "built", "signed", "broadcast")
"""What a payout goes through; a worker dies a random moment after one of its payouts got there."""
MOMENT_MAX_S: Final = 0.03
LIMITS: Final = (1, 2, 5, 100)
REACHED_WITHIN_S: Final = 30.0
GONE_S: Final = 10.0
IDLE_MS: Final = 60_000


@dataclass(slots=True)
class Nursery:
    """Where workers come from; see `tests.crash.payer`."""

    process: asyncio.subprocess.Process

    async def bear(self, order: Order) -> tuple[int, str]:
        """Start a worker; return what it is known by."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(as_line(order))
        pid = int(await self.process.stdout.readline())
        return pid, process_table.identity(pid) or ""


@contextlib.asynccontextmanager
async def opened_nursery() -> AsyncIterator[Nursery]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.crash.payer"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    try:
        yield Nursery(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


@dataclass
class Desk:
    """A house on a node, a signer and a database of its own."""

    world: RealWorld
    node: str
    socket: Path
    url: str
    nursery: Nursery
    payee_had: int
    payouts: list[Payout] = field(default_factory=list)
    lives: int = 0

    async def ask(self, count: int) -> set[UUID]:
        """Approve so many payouts more, of coins and of tokens; return which."""
        before = len(self.payouts)
        for _ in range(count):
            number = len(self.payouts)
            changes: dict[str, Any] = {"client_ref": f"w-{number}", "amount": ETH // 100 + number}
            if number % 3 == 0:
                changes |= {
                    "claim": "payable:birch:netted",
                    "source_wallet": "house-hot",
                    "asset": "USDT",
                    "amount": USDT + number,
                }
            self.payouts.append(await self.world.approved(**changes))
        return {item.id for item in self.payouts[before:]}

    @contextlib.asynccontextmanager
    async def worker(self, limit: int, **orders: Any) -> AsyncIterator[None]:
        """Let a worker live as long as the block, and kill it; the leases of the dead have ended."""
        self.world.clock.advance(LEASE + timedelta(seconds=1))
        await self.world.tell_signer()
        self.lives += 1
        order = Order(
            url=self.url,
            node=self.node,
            socket=str(self.socket),
            book=BOOK,
            holder=f"worker-{self.lives}",
            now=self.world.clock.now().isoformat(),
            limit=limit,
            **orders,
        )
        pid, identity = await self.nursery.bear(order)
        try:
            yield
            assert process_table.identity(pid) == identity, "the worker ended by itself"
        finally:
            process_table.send(pid, identity, signal.SIGKILL)
            assert await asyncio.to_thread(
                process_table.wait_gone, pid, identity, timeout_seconds=GONE_S
            )

    async def until(self, step: str, ids: set[UUID], *, every: bool = False) -> None:
        """Wait until one of these payouts, or every one, went through *step*."""
        wanted = STEPS.index(step)
        async with asyncio.timeout(REACHED_WITHIN_S):
            while True:
                reached = [STEPS.index(item) >= wanted for item in (await self.steps(ids)).values()]
                if all(reached) if every else any(reached):
                    return
                await asyncio.sleep(0.002)

    async def steps(self, ids: set[UUID]) -> dict[UUID, str]:
        """Return how far each of these payouts has come."""

        async def read(conn: AsyncConnection) -> dict[UUID, str]:
            rows = await conn.execute(
                select(
                    payout_table.c.id,
                    payout_table.c.lease_until > self.world.clock.now(),
                    payout_attempt.c.state,
                )
                .outerjoin(payout_attempt, payout_attempt.c.payout_id == payout_table.c.id)
                .where(payout_table.c.id.in_(ids))
            )
            return {
                key: str(attempt) if attempt else "claimed" if leased else "approved"
                for key, leased, attempt in rows
            }

        return await self.world.run(read)

    async def settle(self) -> None:
        """Have everything mined, followed and confirmed."""
        # The same time in every run: how many lives there were is not to show.
        self.world.clock.advance(timedelta(days=1))
        await self.world.mine(3)
        await self.world.confirm()

    async def transactions(self) -> list[tuple[str, int]]:
        """Return (sender, nonce) of every transaction that our hot addresses have in a block."""
        assert self.world.rpc is not None
        ours = {address.lower() for address in self.world.hot.values()}
        found = []
        for height in range(await self.world.rpc.number("eth_blockNumber") + 1):
            block = await self.world.rpc.call("eth_getBlockByNumber", hex(height), True)
            found += [
                (item["from"].lower(), int(item["nonce"], 16))
                for item in block["transactions"]
                if item["from"].lower() in ours
            ]
        return sorted(found)


@contextlib.asynccontextmanager
async def opened_desk(database: Database, *node: str) -> AsyncIterator[Desk]:
    """Give a founded desk whose wallets are funded and whose node mines when it is told.

    Args:
        database: a database of its own.
        node: arguments of ``python -m chain.simulators.evm``.
    """
    async with contextlib.AsyncExitStack() as stack:
        process = stack.enter_context(start_evm_process(*node))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cw")))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        gateway = await stack.enter_async_context(
            EvmGateway(process.url, chain="evm", network_id=31337)
        )
        rpc = JsonRpc(process.url, session)
        token = address_from_node(
            await deploy_test_dollar(rpc, dev_account(9), supply=10**9 * USDT)
        )
        signer = stack.enter_context(signer_process(folder, token))
        nursery = await stack.enter_async_context(opened_nursery())
        engine = engine_of(database)
        stack.push_async_callback(engine.dispose)
        xpubs = [await signer.account_xpub(f"m/44'/60'/{n}'") for n in range(3)]
        world = RealWorld(
            engine,
            gateway,
            signer,
            ManualClock(SystemClock().now()),
            token=token,
            xpubs=tuple(xpubs),
            rpc=rpc,
            vault=signer,
        )
        await world.run(lambda conn: found_house(conn, world))
        await fund(rpc, world)
        await rpc.call("evm_setAutomine", False)
        world.start_height = await rpc.number("eth_blockNumber") + 1
        await world.mine()
        payee_had = await rpc.number("eth_getBalance", PAYEE, "latest")
        yield Desk(world, process.url, folder / "signer", database.app_url, nursery, payee_had)


def engine_of(database: Database) -> AsyncEngine:
    return create_engine(
        database.app_url,
        role=APP_ROLE,
        idle_in_transaction_timeout_ms=IDLE_MS,
        injected_clock=True,
    )


async def clean_run(database: Database, counts: list[int]) -> dict[Any, Any]:
    """Return the books of a worker that nobody kills, for so many payouts in each round."""
    async with opened_desk(database) as desk:
        for count in counts:
            await desk.ask(count)
        async with desk.worker(100):
            await desk.until("broadcast", {item.id for item in desk.payouts}, every=True)
        await desk.settle()
        return await desk.world.books()


async def assert_paid_once(desk: Desk) -> None:
    """The chain has every payout once, and each wallet what the books say."""
    await assert_sent_once(desk)
    await desk.world.assert_rule_two()


async def assert_sent_once(desk: Desk) -> None:
    """Every payout is confirmed, and what the chain has of us is what the rows say."""
    world, payouts = desk.world, desk.payouts

    async def read(conn: AsyncConnection) -> tuple[list[Any], list[Any]]:
        attempts = (await conn.execute(select(payout_attempt))).all()
        return list(attempts), list((await conn.execute(select(payout_nonce))).all())

    ended = [await world.get(item) for item in payouts]
    assert {item.state for item in ended} == {PayoutState.CONFIRMED}
    attempts, nonces = await world.run(read)
    assert [item.state for item in attempts] == [AttemptState.FINAL] * len(payouts)
    assert [item.state for item in nonces] == [NonceState.SPENT] * len(payouts)
    # What the chain has of us is what the rows say, and nothing else.
    own = sorted((item.sender.lower(), item.nonce) for item in attempts)
    assert await desk.transactions() == own
    assert world.rpc is not None
    coins = sum(item.amount for item in ended if item.asset == "ETH")
    assert await world.rpc.number("eth_getBalance", PAYEE, "latest") - desk.payee_had == coins
    assert await world.run(lambda conn: list_open_holds(conn, BOOK)) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1])
async def test_workers_killed_at_any_moment_pay_each_payout_once_in_the_books_of_a_clean_run(
    database: Database,
    database_server: Server,
    database_template: str,
    record_property: Callable[[str, object], None],
    seed: int,
) -> None:
    random, seen, ids = Random(seed), Counter[str](), set[UUID]()
    counts = [random.randrange(1, 4) for _ in range(KILLS)]
    async with opened_desk(database) as desk:
        for count in counts:
            ids |= await desk.ask(count)
            ids = {key for key, step in (await desk.steps(ids)).items() if step != "broadcast"}
            async with desk.worker(random.choice(LIMITS)):
                await desk.until(random.choice(STEPS), ids)
                await asyncio.sleep(random.uniform(0, MOMENT_MAX_S))
            seen.update((await desk.steps(ids)).values())
        assert desk.lives == KILLS
        async with desk.worker(100):
            await desk.until("broadcast", {item.id for item in desk.payouts}, every=True)
        await desk.settle()
        await assert_paid_once(desk)
        killed = await desk.world.books()
    with cloned(database_server, database_template, f"causeway_clean_{os.getpid()}") as other:
        assert await clean_run(other, counts) == killed
    # The kills met payouts before and after each of their steps.
    assert len(seen) >= len(STEPS) - 1, seen
    record_property(
        "counts", f"payout workers killed: {KILLS}, {sum(counts)} payouts, {dict(seen)}"
    )
