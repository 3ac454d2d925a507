"""Walking a chain block by block, with the books exact at every block.

One block is one database transaction: the chain's row is locked, the cursor is moved by
compare-and-set, the block and its contents are stored, and then the caller's `apply` writes what
follows from it. A crash anywhere replays the block to no effect.

Decisions:

- *Each orphaned block is a transaction of its own*, from the tip down. One transaction for the
  whole walk-back would post for one block and then wait for the next block's rows, against the
  lock order (nothing waits after a posting), and hold the book for as long as the walk takes.
  Stopping half-way is harmless: the books are exact at the block where the cursor stands, and the
  next call goes on walking back.
- *A block is orphaned only on the evidence of another, linked branch* at least as high as the
  cursor. A node that is merely behind, that has no answer, or whose answers do not link, proves
  nothing.
- *The block below the first one is read as well*, without its contents: a reorganisation that
  replaces the first block then ends at a block that is known. One that goes deeper halts the chain,
  because nothing says how deep it is.
- *The watch list is read after the blocks are known.* An address is given out after it was
  committed, so it is on every list that is read after the block that pays it was mined.
- *Nothing is asked of a node inside a transaction*; the transaction compares the cursor instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.branches import Ancestor, DeepReorg, NotLinked, find_ancestor, linked_prefix
from chain.errors import ChainHalted, CursorMoved, IncompleteAnswer, NodeTrouble
from chain.model import (
    BLOCKS_MAX,
    REORG_DEPTH_MAX,
    Block,
    BlockContents,
    BlockState,
    ChainStep,
    Following,
    FollowPolicy,
    FollowReport,
    FollowState,
    Included,
    Orphaned,
    WatchList,
)
from chain.ports import ChainGateway
from chain.store import (
    Cursor,
    FollowingRow,
    ensure_following,
    include_block,
    load_block_state,
    load_canonical,
    load_canonical_below,
    load_contents,
    load_cursor,
    load_following,
    move_cursor,
    orphan_block,
    withdraw_depth,
    write_following,
)
from kernel.db import transact
from kernel.errors import Refused
from kernel.events import DomainEvent, next_version, record

READ_AHEAD: Final = 32
"""Blocks whose contents are read before the first of them is booked."""
READS_AT_ONCE: Final = 8
"""Questions that one follower has open at a node."""
ACTOR: Final = "system:follower"

T = TypeVar("T")
Watch = Callable[[AsyncConnection], Awaitable[WatchList]]
Apply = Callable[[AsyncConnection, ChainStep], Awaitable[None]]


async def follow(
    engine: AsyncEngine,
    gateway: ChainGateway,
    chain: str,
    *,
    watch: Watch,
    apply: Apply,
    now: datetime,
    blocks_max: int = 1_000,
    policy: FollowPolicy | None = None,
) -> FollowReport:
    """Follow *chain* from its cursor towards the node's head; return what was done.

    Args:
        engine: the database, as the runtime role.
        gateway: the node.
        chain: the chain's code in the registry.
        watch: returns whose movements count; called in a short transaction of its own.
        apply: writes what follows from a step, in the step's transaction; the chain's own rows are
            locked and written before it is called. It may be called again for the same step when
            the transaction did not commit, so it must not act on the outside world.
        now: the time that events carry.
        blocks_max: steps to take, at most; the next call goes on.
        policy: how deep a reorganisation may be, and where to begin.

    Raises:
        NodeTrouble: the node cannot be relied on now; steps already taken stay. Call again later.
        CursorMoved: another follower works on this chain.
    """
    run = _Run(engine, gateway, chain, watch, apply, now, policy or FollowPolicy())
    return await run.follow(min(blocks_max, BLOCKS_MAX))


async def get_cursor(conn: AsyncConnection, chain: str) -> Block | None:
    """Return the block at which the books are exact; None when no block was ever read."""
    at = await load_cursor(conn, chain)
    return None if at is None else at.block


async def get_following(conn: AsyncConnection, chain: str) -> Following:
    """Return whether the chain is followed, and why not."""
    row = await load_following(conn, chain)
    if row is None:
        return Following(chain, FollowState.RUNNING)
    return Following(chain, row.state, row.reason)


async def require_running(conn: AsyncConnection, chain: str) -> None:
    """Refuse to credit or to send anything on a chain that is halted."""
    following = await get_following(conn, chain)
    if following.state is FollowState.HALTED:
        raise ChainHalted(
            f"{chain} is halted: {following.reason}",
            remedy="Two operators look at it and resume it",
        )


async def get_block(conn: AsyncConnection, chain: str, height: int) -> Block | None:
    """Return the canonical block at *height*, if it was read."""
    return await load_canonical(conn, chain, height)


async def is_canonical(conn: AsyncConnection, chain: str, block_hash: str) -> bool:
    """Tell whether the block was read and is on the chain that we follow."""
    found = await load_block_state(conn, chain, block_hash)
    return found is not None and found[1] is BlockState.CANONICAL


def confirmations(tip: Block, height: int) -> int:
    """Return how many blocks, counting its own, stand on a transaction at *height*; 0 if none."""
    return max(0, tip.height - height + 1)


async def resume(
    conn: AsyncConnection,
    chain: str,
    *,
    by: tuple[str, str],
    reason: str,
    depth: int,
    now: datetime,
) -> None:
    """Let a halted chain be followed again, and the next walk-back go as deep as *depth* blocks.

    Args:
        conn: a transaction of the caller's.
        chain: the chain's code.
        by: two different operators, authenticated by the caller.
        reason: why it is right to go on.
        depth: blocks that the next walk-back may orphan; spent by it, or by the next block read.
        now: the time that the event carries.
    """
    if len(set(by)) != len(by) or not all(by):
        raise Refused("a chain is resumed by two different operators")
    if not 0 <= depth <= REORG_DEPTH_MAX:
        raise Refused(f"a walk-back of {depth} blocks is not possible, at most {REORG_DEPTH_MAX}")
    row = await load_following(conn, chain, lock=True)
    if row is None or row.state is not FollowState.HALTED:
        raise Refused(f"{chain} is not halted")
    await write_following(conn, chain, FollowState.RUNNING, "", depth)
    payload = {"approved_by": by[1], "depth": depth}
    change = (FollowState.HALTED, FollowState.RUNNING)
    await _record(conn, row, "ChainResumed", change, by[0], now, reason=reason, payload=payload)


async def halt(conn: AsyncConnection, chain: str, *, by: str, reason: str, now: datetime) -> None:
    """Stop following *chain* until two operators resume it; halting twice changes nothing."""
    await ensure_following(conn, chain, now=now)
    row = await load_following(conn, chain, lock=True)
    if row is None or row.state is FollowState.HALTED:
        return
    await write_following(conn, chain, FollowState.HALTED, reason, None)
    change = (FollowState.RUNNING, FollowState.HALTED)
    await _record(conn, row, "ChainHalted", change, by, now, reason=reason)


async def _record(
    conn: AsyncConnection,
    row: FollowingRow,
    name: str,
    change: tuple[StrEnum, StrEnum],
    actor: str,
    now: datetime,
    *,
    reason: str = "",
    payload: Mapping[str, object] | None = None,
) -> None:
    """Record an event of the chain, whose row the caller has locked."""
    event = DomainEvent(
        entity_type="chain",
        entity_id=row.id,
        version=await next_version(conn, "chain", row.id),
        name=name,
        at=now,
        actor=actor,
        reason=reason,
        from_state=change[0],
        to_state=change[1],
        payload={"chain": row.chain, **(payload or {})},
    )
    await record(conn, [event])


@dataclass(slots=True)
class _Run:
    """One call of `follow`: where it stands and what it has done."""

    engine: AsyncEngine
    gateway: ChainGateway
    chain: str
    watch: Watch
    apply: Apply
    now: datetime
    policy: FollowPolicy
    at: Cursor | None = None
    included: int = 0
    orphaned: int = 0
    head: Block | None = None
    _seats: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READS_AT_ONCE))

    async def follow(self, steps_max: int) -> FollowReport:
        row = await self._begin()
        if row.state is FollowState.HALTED:
            return self._report(FollowState.HALTED, row.reason, caught_up=False)
        depth_max = max(self.policy.reorg_depth_max, row.depth_granted or 0)
        head = self.head = await self.gateway.head()
        while (left := steps_max - self.included - self.orphaned) > 0:
            if self.at is not None and head.height < self.at.block.height:
                why = f"the node is at height {head.height}, the books at {self.at.block.height}"
                return self._report(reason=why, caught_up=False)
            blocks = await self._blocks_ahead(head, min(left, READ_AHEAD))
            if blocks:
                await self._include(blocks)
                continue
            found = await self._find_ancestor(depth_max)
            if isinstance(found, DeepReorg):
                return await self._halt(found)
            if not found.orphans:
                break
            await self._orphan(found.orphans[:left])
        return self._report(caught_up=self._is_at(head))

    async def _begin(self) -> FollowingRow:
        async def work(conn: AsyncConnection) -> tuple[FollowingRow | None, Cursor | None]:
            row = await load_following(conn, self.chain)
            if row is None:
                await ensure_following(conn, self.chain, now=self.now)
                row = await load_following(conn, self.chain)
            return row, await load_cursor(conn, self.chain)

        row, self.at = await transact(self.engine, work)
        if row is None:
            raise AssertionError(f"{self.chain} has no row after it was made")
        return row

    async def _blocks_ahead(self, head: Block, count: int) -> Sequence[Block]:
        """Return the node's blocks that continue the cursor, in order; none if they do not."""
        # Below the first block one more is read, so that the first one may be replaced.
        below = max(0, self.policy.start_height - 1)
        first = below if self.at is None else self.at.block.height + 1
        last = min(head.height, first + count - 1)
        if first > last:
            return []
        blocks = await self._blocks(range(first, last + 1))
        return linked_prefix(None if self.at is None else self.at.block.hash, blocks)

    async def _blocks(self, heights: Sequence[int]) -> list[Block | None]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._attempt(self._block_at(height))) for height in heights]
        return [_unwrap(task.result()) for task in tasks]

    async def _block_at(self, height: int) -> Block | None:
        found = await self.gateway.block_at(height)
        if found is not None and (found.height, found.chain) != (height, self.chain):
            raise IncompleteAnswer(
                f"asked for block {height} of {self.chain}, got {found.height} of {found.chain}"
            )
        return found

    async def _attempt(self, question: Awaitable[T]) -> T | NodeTrouble:
        """Return the answer or the trouble: inside a group an error would come out wrapped."""
        async with self._seats:
            try:
                return await question
            except NodeTrouble as trouble:
                return trouble

    async def _include(self, blocks: Sequence[Block]) -> None:
        watch = await transact(self.engine, self.watch)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._attempt(self._contents(block, watch))) for block in blocks
            ]
        for block, task in zip(blocks, tasks, strict=True):
            contents = _unwrap(task.result())
            if contents.block != block:
                raise IncompleteAnswer(f"asked what {block.hash} holds, got {contents.block.hash}")
            await self._step(Included(contents))

    async def _contents(self, block: Block, watch: WatchList) -> BlockContents:
        if self.at is None and block.height < self.policy.start_height:
            return BlockContents(block)
        return await self.gateway.contents(block, watch)

    async def _orphan(self, orphans: Sequence[Block]) -> None:
        for orphan in orphans:

            async def work(conn: AsyncConnection, orphan: Block = orphan) -> BlockContents:
                return await load_contents(conn, orphan)

            await self._step(Orphaned(await transact(self.engine, work)))

    async def _step(self, step: ChainStep) -> None:
        async def work(conn: AsyncConnection) -> Cursor:
            return await self._take(conn, step)

        self.at = await transact(self.engine, work)
        if isinstance(step, Included):
            self.included += 1
        else:
            self.orphaned += 1

    async def _take(self, conn: AsyncConnection, step: ChainStep) -> Cursor:
        """Write one step: locks first, the chain's rows next, the caller's postings last."""
        row = await load_following(conn, self.chain, lock=True)
        if row is None or row.state is FollowState.HALTED:
            raise ChainHalted(f"{self.chain} was halted meanwhile")
        if await load_cursor(conn, self.chain) != self.at:
            # Before anything is written: on another branch the rows would contradict each other.
            raise CursorMoved(
                f"another follower has moved the cursor of {self.chain}",
                remedy="Follow again: the next call goes on from where the cursor is",
            )
        block = step.contents.block
        if isinstance(step, Included):
            to = block
            if await include_block(conn, step.contents) > 1:
                await self._note(conn, row, "BlockRestored", block)
            if row.depth_granted is not None:
                await withdraw_depth(conn, self.chain)
        else:
            below = await load_canonical(conn, self.chain, block.height - 1)
            if below is None or below.hash != block.parent:
                raise AssertionError(f"the parent of {block.hash} is not stored")
            to = below
            await orphan_block(conn, block)
            await self._note(conn, row, "BlockOrphaned", block)
        moved = await move_cursor(conn, self.chain, self.at, to)
        await self.apply(conn, step)
        return moved

    async def _note(
        self, conn: AsyncConnection, row: FollowingRow, name: str, block: Block
    ) -> None:
        """Record that a block left the chain or came back: rare, and somebody may ask."""
        away = name == "BlockOrphaned"
        change = (BlockState.CANONICAL, BlockState.ORPHANED)
        payload = {"height": block.height, "hash": block.hash}
        await _record(
            conn, row, name, change if away else change[::-1], ACTOR, self.now, payload=payload
        )

    async def _find_ancestor(self, depth_max: int) -> Ancestor | DeepReorg:
        """Compare what is stored with what the node has, from the cursor downwards, by hash."""
        if self.at is None:
            return Ancestor(orphans=())
        height = self.at.block.height

        async def work(conn: AsyncConnection) -> Sequence[Block]:
            return await load_canonical_below(conn, self.chain, height, depth_max + 1)

        stored = await transact(self.engine, work)
        theirs: list[Block | None] = []
        for ours in stored:
            theirs.append(await self._block_at(ours.height))
            found = theirs[-1]
            if found is None or found.hash == ours.hash:
                break
        decided = find_ancestor(stored, theirs, depth_max)
        if isinstance(decided, NotLinked):
            raise IncompleteAnswer(f"the node's answers about {self.chain} do not fit together")
        return decided

    async def _halt(self, deep: DeepReorg) -> FollowReport:
        reason = deep.reason

        async def work(conn: AsyncConnection) -> None:
            await halt(conn, self.chain, by=ACTOR, reason=reason, now=self.now)

        await transact(self.engine, work)
        return self._report(FollowState.HALTED, reason, caught_up=False)

    def _is_at(self, head: Block) -> bool:
        return self.at is not None and self.at.block.hash == head.hash

    def _report(
        self, state: FollowState = FollowState.RUNNING, reason: str = "", *, caught_up: bool
    ) -> FollowReport:
        return FollowReport(
            included=self.included,
            orphaned=self.orphaned,
            cursor=None if self.at is None else self.at.block,
            head=self.head,
            caught_up=caught_up,
            state=state,
            reason=reason,
        )


def _unwrap(answer: T | NodeTrouble) -> T:
    if isinstance(answer, NodeTrouble):
        raise answer
    return answer
