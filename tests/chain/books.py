"""A scripted chain followed into real PostgreSQL; `apply` keeps a log in the same transaction."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.follow import follow, get_cursor
from chain.model import (
    Block,
    BlockContents,
    ChainStep,
    FollowPolicy,
    FollowReport,
    Included,
    WatchList,
)
from chain.store import load_canonical_below, load_contents, load_following
from chain.testing import ScriptedGateway, ScriptedTransaction, ScriptedTransfer
from kernel.db import transact
from kernel.events import DomainEvent, list_history

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
OURS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
STRANGER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
TOKEN = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
WATCH = WatchList(frozenset({OURS}), frozenset({TOKEN}))


class Crash(Exception):
    """What a test throws to stop a step."""


@dataclass
class Books:
    """The caller's side of `follow`: a log table that is written in the step's transaction."""

    engine: AsyncEngine
    gateway: ScriptedGateway
    policy: FollowPolicy = field(default_factory=lambda: FollowPolicy(reorg_depth_max=8))
    crash_at: set[int] = field(default_factory=set)
    watch_list: WatchList = WATCH
    calls: int = 0

    async def watch(self, conn: AsyncConnection) -> WatchList:
        return self.watch_list

    async def apply(self, conn: AsyncConnection, step: ChainStep) -> None:
        self.calls += 1
        block = step.contents.block
        await conn.execute(
            text("INSERT INTO log (chain, included, height, hash) VALUES (:c, :i, :h, :x)"),
            {"c": block.chain, "i": isinstance(step, Included), "h": block.height, "x": block.hash},
        )
        if self.calls in self.crash_at:
            raise Crash

    async def run(self, blocks_max: int = 1_000) -> FollowReport:
        return await follow(
            self.engine,
            self.gateway,
            self.gateway.chain,
            watch=self.watch,
            apply=self.apply,
            now=NOW,
            blocks_max=blocks_max,
            policy=self.policy,
        )

    async def log(self) -> list[tuple[str, int]]:
        """``+`` for a block included, ``-`` for one orphaned, with the height."""
        query = text("SELECT included, height FROM log WHERE chain = :c ORDER BY position")
        async with self.engine.connect() as conn:
            rows = await conn.execute(query, {"c": self.gateway.chain})
            return [("+" if row.included else "-", row.height) for row in rows]

    async def hashes(self) -> list[tuple[bool, str]]:
        query = text("SELECT included, hash FROM log WHERE chain = :c ORDER BY position")
        async with self.engine.connect() as conn:
            rows = await conn.execute(query, {"c": self.gateway.chain})
            return [(row.included, row.hash) for row in rows]

    async def stored(self) -> list[BlockContents]:
        """The canonical blocks with their stored contents, lowest first."""

        async def work(conn: AsyncConnection) -> list[BlockContents]:
            blocks = await load_canonical_below(conn, self.gateway.chain, 10**9, 10_000)
            return [await load_contents(conn, block) for block in reversed(blocks)]

        return await transact(self.engine, work)

    async def events(self) -> list[DomainEvent]:
        """The life of the chain."""

        async def work(conn: AsyncConnection) -> list[DomainEvent]:
            row = await load_following(conn, self.gateway.chain)
            assert row is not None
            return await list_history(conn, "chain", row.id)

        return await transact(self.engine, work)

    async def cursor(self) -> Block | None:
        return await transact(self.engine, lambda conn: get_cursor(conn, self.gateway.chain))


async def make_books(engine: AsyncEngine, owner_engine: AsyncEngine) -> Books:
    """Make the log table, and books over an empty chain."""
    async with owner_engine.begin() as conn:
        await conn.execute(
            text(
                "CREATE TABLE log (position bigint GENERATED ALWAYS AS IDENTITY, chain text, "
                "included boolean, height bigint, hash text)"
            )
        )
        await conn.execute(text("GRANT SELECT, INSERT ON log TO causeway_app"))
    return Books(engine, ScriptedGateway())


def pay(nonce: int, amount: int = 5, **other: Any) -> ScriptedTransaction:
    return ScriptedTransaction(sender=STRANGER, recipient=OURS, nonce=nonce, value=amount, **other)


def pay_token(nonce: int, amount: int = 7, **other: Any) -> ScriptedTransaction:
    transfer = ScriptedTransfer(TOKEN, STRANGER, OURS, amount)
    return ScriptedTransaction(
        sender=STRANGER, recipient=TOKEN, nonce=nonce, transfers=(transfer,), **other
    )
