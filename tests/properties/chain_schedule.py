"""Schedules of what a chain and a node may do to a house, and the house that goes through them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Final

from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.databases import Database, Server, cloned
from chain.errors import NodeUnavailable
from chain.follow import follow
from chain.model import Block, BlockContents, ChainStep, FollowPolicy, FollowState, WatchList
from chain.testing import ScriptedGateway, ScriptedTransaction
from custody.addresses import watch_list
from custody.inclusion import apply_step
from kernel.clock import ManualClock
from kernel.db import APP_ROLE, create_engine
from registry.testing import TOKEN
from tests.custody.house import BOOK, ETHER, FAKE_TOKEN, OTHER, STRANGER, House

REREAD_AFTER: Final = 5
DEPTH_MAX: Final = 6
COUNTER = itertools.count(1)

CALM: Final = 40
"""Empty blocks at the end, so that everything is confirmed and read a second time."""
IDLE_MS: Final = 60_000
SHORT: Final = 30
LONG: Final = 90
"""Blocks before the first action: more than are read in one run, with some below finality."""


class Crash(Exception):
    """What stops a step in the middle."""


@dataclass(frozen=True)
class Action:
    """One thing that happens. *a* and *b* are read as the kind of action needs them."""

    kind: str
    a: int
    b: int


KINDS: Final = ("mine", "mine", "reorg", "reorg", "follow", "credit", "crash", "lag", "lie", "fail")

actions = st.lists(
    st.builds(Action, st.sampled_from(KINDS), st.integers(0, 255), st.integers(0, 255)),
    min_size=3,
    max_size=14,
)


@dataclass
class LyingGateway(ScriptedGateway):
    """A node that may leave events out, but only of a block it reads for the first time at the head."""

    lies: int = 0
    told: set[str] = field(default_factory=set)

    async def contents(self, block: Block, watch: WatchList) -> BlockContents:
        """Return what the block holds, or less."""
        found = await ScriptedGateway.contents(self, block, watch)
        depth = len(self.blocks) - 1 - block.height
        new = block.hash not in self.told
        self.told.add(block.hash)
        if self.lies and new and depth < REREAD_AFTER:
            self.lies -= 1
            return replace(found, movements=tuple(m for m in found.movements if not m.contract))
        return found


@dataclass
class ReorgHouse(House):
    """A house that can be stopped in the middle of a step."""

    crash_in: int = 0

    async def walk(self, blocks_max: int = 1_000) -> FollowState:
        """Follow the chain; a crash and trouble with the node end this call and nothing else."""
        self.clock.advance(timedelta(seconds=12))
        try:
            report = await follow(
                self.engine,
                self.gateway,
                "evm",
                watch=lambda conn: watch_list(conn, "evm"),
                apply=self.apply,
                now=self.now,
                blocks_max=blocks_max,
                policy=FollowPolicy(reorg_depth_max=32, reread_after=REREAD_AFTER),
            )
        except (Crash, NodeUnavailable):
            return FollowState.RUNNING
        return report.state

    async def apply(self, conn: AsyncConnection, step: ChainStep) -> None:
        """Write the step, and crash after it when that is due: nothing of it may stay."""
        await apply_step(conn, step, book=BOOK, now=self.now, policy=self.policy)
        if self.crash_in:
            self.crash_in -= 1
            if not self.crash_in:
                raise Crash

    async def settle(self) -> None:
        """Let the chain be calm until everything is confirmed, read again and credited."""
        for _ in range(CALM // REREAD_AFTER):
            for _ in range(REREAD_AFTER):
                self.gateway.mine()
            assert await self.walk() is FollowState.RUNNING
        await self.advance()

    async def story(self) -> dict[str, object]:
        """Return what the books say in the end: balances, holds, and what is whose."""
        there = {item.hash for item in self.gateway.blocks}
        return {
            "balances": await self.balances(),
            "holds": sorted(await self.open_holds()),
            "deposits": sorted(
                (d.tx_hash, d.position, str(d.state), d.party or "", d.asset, d.amount, d.height)
                for d in await self.deposits()
                if d.block_hash in there
            ),
            "receipts": sorted(
                (r.tx_hash, r.position, str(r.state), r.party or "", r.asset, r.amount)
                for r in await self.receipts()
                if r.block_hash in there
            ),
            "differences": await self.differences(),
        }


def open_engine(database: Database) -> AsyncEngine:
    """Connect as the runtime role, as a worker that may not be scheduled for a while."""
    return create_engine(
        database.app_url,
        role=APP_ROLE,
        idle_in_transaction_timeout_ms=IDLE_MS,
        injected_clock=True,
    )


def fund(gateway: ScriptedGateway) -> None:
    """Let the strangers have what they pay."""
    for address in (STRANGER, OTHER):
        gateway.fund(address, 10**6 * ETHER)
        for token in (TOKEN, FAKE_TOKEN):
            gateway.fund(address, 10**15, token)


def payments(house: House) -> list[ScriptedTransaction]:
    """Return the payments that any schedule mines, orphans, drops and mines again."""
    return [
        house.pay(house.acme, 3 * ETHER),
        house.pay(house.birch, 5, sender=OTHER),
        house.pay_token((house.acme, 7_000_000)),
        house.pay_token((house.acme, 1), (house.birch, 2_000_000), (house.hot, 3), sender=OTHER),
        house.pay_token((house.settlement, 40_000_000)),
        house.pay(house.settlement, 11),
        house.pay_token((house.birch, 9), contract=FAKE_TOKEN),
        house.pay(house.acme, 13, succeeded=False),
    ]


@dataclass(frozen=True)
class Founded:
    """A house that was founded in a database, and how to have copies of it."""

    server: Server
    database: Database
    house: ReorgHouse

    @contextmanager
    def copy(
        self,
        runner: asyncio.Runner,
        gateway: LyingGateway,
        kind: type[ReorgHouse] | None = None,
    ) -> Iterator[ReorgHouse]:
        """Give a house of its own, of some *kind*, over *gateway*."""
        name = f"{self.database.name}_{next(COUNTER)}"
        with cloned(self.server, self.database.name, name) as database:
            engine = open_engine(database)
            try:
                clock = ManualClock(self.house.now)
                changes = {"engine": engine, "gateway": gateway, "clock": clock}
                known = {item.name: getattr(self.house, item.name) for item in fields(self.house)}
                yield (kind or ReorgHouse)(**{**known, **changes})
            finally:
                runner.run(engine.dispose())


def found_house(server: Server, database: Database) -> Founded:
    """Found a house in *database*; nobody stays connected to it."""
    engine = open_engine(database)

    async def work() -> ReorgHouse:
        house = ReorgHouse(engine, LyingGateway())
        await house.open()
        await engine.dispose()
        return house

    with asyncio.Runner() as runner:
        return Founded(server, database, runner.run(work()))


async def settle(house: ReorgHouse) -> dict[str, object]:
    """Let the chain be calm, and return what the books say."""
    await house.settle()
    return await house.story()


@dataclass
class Play:
    """A house, its node, and what is on the chain: schedules are played on it."""

    house: ReorgHouse
    gateway: LyingGateway
    payments: Sequence[ScriptedTransaction]
    branch: list[list[int]] = field(default_factory=list)
    """The payments in each block above the first, by number."""

    def begin(self, height: int) -> None:
        """Mine empty blocks before the first action."""
        for _ in range(height):
            self.mine(0)

    async def take(self, action: Action) -> None:
        """Let one thing happen."""
        match action.kind:
            case "mine":
                self.mine(action.a)
            case "reorg":
                self.reorg(action.a, action.b)
            case "follow":
                await self.house.walk(1 + action.a % 8 if action.b % 2 else 1_000)
            case "credit":
                if await self.house.walk(1) is FollowState.RUNNING:
                    await self.house.advance()
            case "crash":
                self.house.crash_in = 1 + action.a % 5
                await self.house.walk()
                self.house.crash_in = 0
            case "lag":
                self.gateway.lag = 1 + action.a % DEPTH_MAX
                await self.house.walk()
                self.gateway.lag = 0
            case "lie":
                self.gateway.lies = 1 + action.a % 3
                await self.house.walk()
                self.gateway.lies = 0
            case "fail":
                self.gateway.faults.extend([NodeUnavailable("down")] * (1 + action.a % 2))
                await self.house.walk()
                self.gateway.faults.clear()
            case other:
                raise AssertionError(f"no action {other}")

    def mine(self, chosen: int) -> None:
        """Mine a block with those of the chosen payments that are in none."""
        self._add(self._free(chosen))

    def reorg(self, a: int, b: int) -> None:
        """Replace some of the newest blocks; payments come back elsewhere, later or never."""
        depth = 1 + a % min(DEPTH_MAX, len(self.branch))
        self.gateway.rollback(depth)
        del self.branch[-depth:]
        blocks = depth + b % 2
        back = self._free(b)
        for at in range(blocks):
            self._add([number for number in back if (number * 7 + a) % blocks == at])

    def _free(self, chosen: int) -> list[int]:
        mined = {number for block in self.branch for number in block}
        return [
            number
            for number in range(len(self.payments))
            if chosen >> number & 1 and number not in mined
        ]

    def _add(self, numbers: list[int]) -> None:
        self.branch.append(numbers)
        self.gateway.mine(*(self.payments[number] for number in numbers))
