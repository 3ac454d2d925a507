"""Watchers that are processes of their own, killed at crash points: SIGKILL for them, and for PostgreSQL.

Node, signer, database and worker are real processes; the wire stands between worker and database. Each
round people ask for a payout and a client pays in; the worker is struck at one point, another goes on,
and at the end the chain has one transaction for each payout and the books one credit for each deposit.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, Final

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.faults.edges import Edge, Kind, Point, points_of
from app.faults.killing import Doom
from app.faults.postgres_wire import wired
from app.local import process_table
from app.local.postgres import LocalPostgres
from app.oracles.outside import EvmView, Outside
from app.oracles.run import examine
from chain.follow import get_cursor
from chain.simulators.testing import dev_account, sign_transaction
from custody.addresses import assign_address
from custody.deposit_model import DepositState
from custody.model import AddressPurpose
from custody.payout_model import Payout, PayoutState
from custody.payout_tables import payout as payout_table
from custody.payout_worker import LEASE
from custody.tables import deposit
from kernel.errors import CommitUnknown, OutsideUnavailable
from tests.crash.matrix.telling import Databases
from tests.crash.matrix.test_matrix import ALL, ASKED, SEED
from tests.crash.payer import Order
from tests.crash.test_payouts_killed import Desk, assert_sent_once, opened_desk
from tests.custody.payout_world import BOOK, ETH

STRIKES: Final = 4
"""How many points a usual run strikes at."""
PROCESS_KINDS: Final = (Kind.WORKER_KILLED, Kind.SERVER_KILLED, Kind.CUT)
REST_WITHIN_S: Final = 150.0
LOOK_EVERY_S: Final = 0.2
GONE_S: Final = 10.0
SERVER_IS_GONE: Final = (OutsideUnavailable, CommitUnknown)
"""What the test itself is told while PostgreSQL is killed: it looks again."""
PAID_IN: Final = ETH // 10


@dataclass
class Watched:
    """A desk, its client's address, and the watcher that is at work."""

    desk: Desk
    client: str = ""
    deposits: int = 0
    pid: int = 0
    identity: str = ""
    born: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    lives: list[int] = field(default_factory=list)

    async def found(self) -> None:
        world = self.desk.world

        async def work(conn: AsyncConnection) -> str:
            given = await assign_address(
                conn,
                "client-pool",
                purpose=AddressPurpose.DEPOSIT,
                party="acme",
                now=world.clock.now(),
            )
            return given.address

        self.client = await world.run(work)

    async def ask(self) -> None:
        """People approve a payout, and the client pays in."""
        await self.desk.ask(1)
        rpc, giver = self.desk.world.rpc, dev_account(8)
        assert rpc is not None
        nonce = await rpc.number("eth_getTransactionCount", giver.address, "pending")
        raw = sign_transaction(giver, nonce, to=self.client, value=PAID_IN)
        await rpc.call("eth_sendRawTransaction", raw)
        self.deposits += 1

    async def bear(self, url: str) -> None:
        """Start a watcher over the wire, unless one lives; the leases of the dead have ended."""
        if self.pid and process_table.identity(self.pid) == self.identity:
            return
        world = self.desk.world
        # A worker's clock has run since it was born: the next one's begins behind its leases.
        passed = asyncio.get_running_loop().time() - self.born
        world.clock.advance(LEASE + timedelta(seconds=1 + passed))
        self.born += passed
        order = Order(
            url=url,
            node=self.desk.node,
            socket=str(self.desk.socket),
            book=BOOK,
            holder=f"watcher-{len(self.lives)}",
            now=world.clock.now().isoformat(),
            start=world.start_height,
        )
        self.pid, self.identity = await self.desk.nursery.bear(order)
        self.lives.append(self.pid)

    async def end(self) -> None:
        """Let nobody work any more."""
        process_table.send(self.pid, self.identity, signal.SIGKILL)
        assert await asyncio.to_thread(
            process_table.wait_gone, self.pid, self.identity, timeout_seconds=GONE_S
        )
        self.pid = 0

    async def until_rest(self, url: str) -> None:
        """Let blocks be mined and watchers work until everything asked for is done."""
        rpc = self.desk.world.rpc
        assert rpc is not None
        async with asyncio.timeout(REST_WITHIN_S):
            while not await self.is_at_rest():
                await self.bear(url)
                # A block at a time: the chain does not run away from a watcher that is slow.
                if await self.is_followed():
                    await rpc.call("evm_mine")
                await asyncio.sleep(LOOK_EVERY_S)

    async def is_followed(self) -> bool:
        """Tell whether the books have the chain's newest block."""
        rpc = self.desk.world.rpc
        assert rpc is not None
        try:
            cursor = await self.desk.world.run(lambda conn: get_cursor(conn, "evm"))
        except SERVER_IS_GONE:
            return False
        return cursor is not None and cursor.height >= await rpc.number("eth_blockNumber")

    async def is_at_rest(self) -> bool:
        async def read(conn: AsyncConnection) -> tuple[Counter[str], Counter[str]]:
            found = []
            for table in (payout_table, deposit):
                rows = await conn.execute(
                    select(table.c.state, func.count().label("many")).group_by(table.c.state)
                )
                found.append(Counter({str(row.state): int(row.many) for row in rows}))
            return found[0], found[1]

        try:
            payouts, deposits = await self.desk.world.run(read)
        except SERVER_IS_GONE:
            return False
        return payouts == {PayoutState.CONFIRMED: len(self.desk.payouts)} and deposits == {
            DepositState.CREDITED: self.deposits
        }


@pytest.mark.timeout(7_200 if ASKED == ALL else 600)
async def test_processes_killed_at_crash_points_pay_each_payout_once_and_credit_each_deposit_once(
    databases: Databases,
    mortal_server: LocalPostgres,
    record_property: Callable[[str, object], None],
) -> None:
    async def kill_postmaster(_: int) -> None:
        os.kill(mortal_server.pid, signal.SIGKILL)
        assert await asyncio.to_thread(mortal_server.restart_if_dead)

    struck = Counter[str]()
    with databases() as database:
        async with opened_desk(database) as desk, wired(database.app_url) as wire:
            watched = Watched(desk)
            await watched.found()
            await watched.ask()
            await watched.until_rest(wire.url)
            for point in chosen(set(wire.taken)):
                doom = Doom(point, wire, kill_server=kill_postmaster)
                wire.watch = doom.watch
                await watched.ask()
                await watched.until_rest(wire.url)
                assert doom.struck.is_set(), f"never came to the point: {point}, seed {SEED}"
                struck[str(point.kind)] += 1
            await watched.end()
            await assert_true(watched)
    record_property(
        "counts",
        f"crash matrix, processes: {sum(struck.values())} points"
        f" ({', '.join(f'{kind} {n}' for kind, n in sorted(struck.items()))}),"
        f" {len(watched.lives)} watchers, {len(desk.payouts)} payouts, seed {SEED}",
    )


def chosen(edges: set[Edge]) -> list[Point]:
    """Return where this run strikes: at other edges each time, at every one if all is asked for."""
    every = [
        point for edge in sorted(edges) for point in points_of(edge) if point.kind in PROCESS_KINDS
    ]
    if ASKED:
        return every if ASKED == ALL else []
    random = Random(f"{SEED} processes")
    picked = random.sample(sorted(edges), STRIKES)
    found: list[Any] = []
    for number, edge in enumerate(picked):
        kind = PROCESS_KINDS[number % len(PROCESS_KINDS)]
        found.append(random.choice([p for p in every if p.edge == edge and p.kind is kind]))
    return found


async def assert_true(watched: Watched) -> None:
    """The chain has what the rows say, once each, and no oracle finds anything."""
    desk = watched.desk
    world = desk.world
    await assert_sent_once(desk)
    head = await world.gateway.head()
    held = sum(
        [
            await world.gateway.balance(address, None, at=head)
            for address in (world.hot["client-pool"], watched.client)
        ]
    )
    books = await world.books()
    paid = sum(
        item.amount for item in desk.payouts if item.claim == "client:acme" and is_ether(item)
    )
    assert books["client:acme", "ETH"] == (10 * ETH + watched.deposits * PAID_IN - paid, 0, 0)
    assert books["custody:client-pool", "ETH"] == (held, 0, 0)
    report = await examine(world.engine, outside=Outside(chains=[EvmView("evm", world.gateway)]))
    assert [str(item) for item in report.findings] == []


def is_ether(payout: Payout) -> bool:
    return payout.asset == "ETH"
