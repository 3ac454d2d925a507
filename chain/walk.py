"""One walk along a chain: runs of blocks below finality, one block after the other near the head.

Nothing is asked of a node inside a transaction; the transaction compares the cursor instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Final, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.branches import Ancestor, DeepReorg, NotLinked, find_ancestor, linked_prefix
from chain.errors import ChainHalted, CursorMoved, IncompleteAnswer, NodeTrouble, RangeTooLarge
from chain.halts import halt, note
from chain.model import (
    Block,
    BlockContents,
    BlockState,
    ChainStep,
    FollowPolicy,
    FollowReport,
    FollowState,
    Included,
    Orphaned,
    WatchList,
)
from chain.ports import ChainReader
from chain.rereading import Contradicted, compare
from chain.runs import RUN_FIRST, holds_something, next_length, shorter, transactions
from chain.store import (
    Cursor,
    FollowingRow,
    complete_block,
    ensure_following,
    include_blocks,
    load_canonical,
    load_canonical_below,
    load_canonical_between,
    load_contents,
    load_cursor,
    load_following,
    move_cursor,
    orphan_block,
    withdraw_depth,
    write_reread,
    write_reread_failure,
)
from kernel.db import transact

READ_AHEAD: Final = 32
"""Blocks whose contents are read, near the head, before the first of them is booked."""
READS_AT_ONCE: Final = 8
"""Questions that one follower has open at a node."""
REREAD_MAX: Final = 256
"""Blocks read a second time in one call."""
ACTOR: Final = "system:follower"
REREAD_FAILURES_MAX: Final = 10
"""Turns in a row in which the second reading gets no further, before people are told."""
REASON_LENGTH_MAX: Final = 400

T = TypeVar("T")
Watch = Callable[[AsyncConnection], Awaitable[WatchList]]
Apply = Callable[[AsyncConnection, ChainStep], Awaitable[None]]


@dataclass(slots=True)
class Walk:
    """One call of `chain.follow.follow`: where it stands and what it has done."""

    engine: AsyncEngine
    gateway: ChainReader
    chain: str
    watch: Watch
    apply: Apply
    now: datetime
    policy: FollowPolicy
    at: Cursor | None = None
    included: int = 0
    orphaned: int = 0
    head: Block | None = None
    reread: int = 0
    completed: int = 0
    reread_trouble: str = ""
    _reread_from: int = 0
    """Up to here everything had been read a second time when this call began to."""
    _seats: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READS_AT_ONCE))

    async def follow(self, steps_max: int) -> FollowReport:
        """Take at most *steps_max* steps towards the head, then read again what is due."""
        row = await self._begin()
        if row.state is FollowState.HALTED:
            return self._report(FollowState.HALTED, row.reason, caught_up=False)
        depth_max = max(self.policy.reorg_depth_max, row.depth_granted or 0)
        head = self.head = await self.gateway.head()
        if self._is_behind(head):
            return self._report(reason=self._behind(head), caught_up=False)
        await self._catch_up(head, steps_max)
        while (left := steps_max - self.included - self.orphaned) > 0:
            if self._is_behind(head):
                return self._report(reason=self._behind(head), caught_up=False)
            blocks = await self._blocks_ahead(head, min(left, READ_AHEAD))
            if blocks:
                await self._include(blocks)
                continue
            found = await self._find_ancestor(depth_max)
            if isinstance(found, DeepReorg):
                return await self._halt(found.reason)
            if not found.orphans:
                break
            await self._orphan(found.orphans[:left])
        contradiction = await self._read_again()
        if contradiction is not None:
            return await self._halt(contradiction.reason, looked_at=contradiction.height)
        return self._report(caught_up=self._is_at(head))

    async def _catch_up(self, head: Block, steps_max: int) -> None:
        """Take what is final in runs, each written while the next one is read."""
        height = self.policy.start_height if self.at is None else self.at.block.height
        if head.height - height <= READ_AHEAD:
            return
        if self.at is None:
            await self._include(await self._blocks_ahead(head, min(1, steps_max)))
        if self.at is None:
            return
        final = min(await self.gateway.finalized_height(), head.height)
        # Each block is a step: what lies beyond the last one is not read in vain.
        final = min(final, self.at.block.height + steps_max - self.included)
        ahead = await self._read_run(self.at.block, RUN_FIRST, final)
        while ahead is not None:
            run, length = ahead[0][: steps_max - self.included], ahead[1]
            if not run:
                return
            ahead = await self._write_while_reading(run, length, final)

    async def _write_while_reading(
        self, run: Sequence[BlockContents], length: int, final: int
    ) -> tuple[list[BlockContents], int] | None:
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(
                    self._attempt(self._read_run(run[-1].block, length, final))
                )
                await self._write(run)
        except BaseExceptionGroup as errors:
            # The reader gives its trouble back as a value, so what is raised is the writer's.
            raise errors.exceptions[0] from None
        return _unwrap(reading.result())

    async def _read_run(
        self, after: Block, length: int, final: int
    ) -> tuple[list[BlockContents], int] | None:
        """Return the run above *after* and the length of the next; None: go on block by block."""
        clock = asyncio.get_running_loop()
        while after.height < final:
            last = min(after.height + length, final)
            began = clock.time()
            try:
                run = await self._read_range(after, last)
            except RangeTooLarge:
                if length == 1:
                    return None
                length = shorter(length)
                continue
            if run is None:
                return None
            return run, next_length(length, clock.time() - began)
        return None

    async def _read_range(self, after: Block, height: int) -> list[BlockContents] | None:
        first, last = await self._block_at(after.height + 1), await self._block_at(height)
        if first is None or last is None or first.parent != after.hash:
            return None
        watch = await transact(self.engine, self.watch)
        run = await self.gateway.contents_of_range(first, last, watch)
        blocks = [after, *(contents.block for contents in run)]
        linked = all(upper.parent == lower.hash for lower, upper in pairwise(blocks))
        if (
            not linked
            or (blocks[1], blocks[-1]) != (first, last)
            or len(run) != height - after.height
        ):
            raise IncompleteAnswer(
                f"the blocks of {self.chain} from {first.height} to {height} do not fit together"
            )
        return run

    async def _write(self, run: Sequence[BlockContents]) -> None:
        for piece in transactions(run):

            async def work(conn: AsyncConnection, piece: list[BlockContents] = piece) -> Cursor:
                row = await self._lock(conn)
                to = await self._take_in(conn, row, piece)
                if row.reread is not None and row.reread >= piece[0].block.height - 1:
                    await write_reread(conn, self.chain, to.height)
                moved = await move_cursor(conn, self.chain, self.at, to)
                if holds_something(piece[-1]):
                    await self.apply(conn, Included(piece[-1]))
                return moved

            self.at = await transact(self.engine, work)
            self.included += len(piece)

    def _is_behind(self, head: Block) -> bool:
        return self.at is not None and head.height < self.at.block.height

    def _behind(self, head: Block) -> str:
        height = 0 if self.at is None else self.at.block.height
        return f"the node is at height {head.height}, the books at {height}"

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
        if not blocks:
            return
        watch = await transact(self.engine, self.watch)
        for contents in await self._read_contents(blocks, watch):
            await self._step(Included(_unwrap(contents)))

    async def _read_contents(
        self, blocks: Sequence[Block], watch: WatchList
    ) -> list[BlockContents | NodeTrouble]:
        """Return what each block holds, or the trouble there was with it."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._attempt(self._contents(block, watch))) for block in blocks
            ]
        return [task.result() for task in tasks]

    async def _contents(self, block: Block, watch: WatchList) -> BlockContents:
        if self.at is None and block.height < self.policy.start_height:
            return BlockContents(block)
        contents = await self.gateway.contents(block, watch)
        if contents.block != block:
            raise IncompleteAnswer(f"asked what {block.hash} holds, got {contents.block.hash}")
        return contents

    async def _read_again(self) -> Contradicted | None:
        """Read once more what was not final when it was read, as deep as policy says."""
        if self.at is None or not self.policy.reread_after:
            return None
        last = self.at.block.height - self.policy.reread_after
        try:
            return await self._reread_to(last)
        except NodeTrouble as trouble:
            self.reread_trouble = trouble.what
            await transact(self.engine, self._note_trouble)
            return None

    async def _note_trouble(self, conn: AsyncConnection) -> None:
        """Count that the second reading got no further, and tell of it once where it lasts.

        Until then what the first reading missed is in no books, and nobody would look for it.
        """
        row, trouble = await self._lock(conn), self.reread_trouble
        await write_reread_failure(conn, self.chain, trouble[:REASON_LENGTH_MAX])
        if row.reread_failures + 1 == REREAD_FAILURES_MAX:
            payload = {"height": None if row.reread is None else row.reread + 1}
            await note(
                conn,
                row,
                "RereadingFails",
                None,
                ACTOR,
                self.now,
                reason=trouble[:REASON_LENGTH_MAX],
                payload=payload,
            )

    async def _reread_to(self, last: int) -> Contradicted | None:
        async def load(conn: AsyncConnection) -> Sequence[Block]:
            row = await load_following(conn, self.chain)
            if row is None or row.reread is None or row.reread >= last:
                return []
            first = row.reread + 1
            return await load_canonical_between(
                conn, self.chain, first, min(last, first + REREAD_MAX - 1)
            )

        blocks = await transact(self.engine, load)
        if not blocks:
            return None
        self._reread_from = blocks[0].height - 1
        watch = await transact(self.engine, self.watch)
        for answer in await self._read_contents(blocks, watch):
            decided = await self._judge(_unwrap(answer), watch)
            if isinstance(decided, Contradicted):
                return decided
            self.completed += holds_something(decided)
            self.reread += 1

        async def done(conn: AsyncConnection) -> None:
            await self._write_reread(conn, await self._lock(conn), blocks[-1].height)

        await transact(self.engine, done)
        return None

    async def _judge(self, again: BlockContents, watch: WatchList) -> BlockContents | Contradicted:
        """Hold a second reading against the first, and include what it adds."""

        async def look(conn: AsyncConnection) -> BlockContents | Contradicted:
            return await self._missed(conn, again, watch)

        async def complete(conn: AsyncConnection) -> None:
            await self._complete(conn, again, watch)

        decided = await transact(self.engine, look)
        if not isinstance(decided, Contradicted) and holds_something(decided):
            await transact(self.engine, complete)
        return decided

    async def _missed(
        self, conn: AsyncConnection, again: BlockContents, watch: WatchList
    ) -> BlockContents | Contradicted:
        compared = compare(await load_contents(conn, again.block), again, watch)
        return compared if isinstance(compared, Contradicted) else compared.contents

    async def _complete(
        self, conn: AsyncConnection, again: BlockContents, watch: WatchList
    ) -> None:
        """Include late what the first reading of a block missed."""
        row = await self._lock(conn)
        missed = await self._missed(conn, again, watch)
        if isinstance(missed, Contradicted):
            raise IncompleteAnswer(missed.reason)
        await complete_block(conn, missed)
        await self._write_reread(conn, row, missed.block.height)
        payload = {
            "height": missed.block.height,
            "hash": missed.block.hash,
            "movements": len(missed.movements),
            "outcomes": len(missed.outcomes),
        }
        await note(conn, row, "BlockCompleted", None, ACTOR, self.now, payload=payload)
        await self.apply(conn, Included(missed, late=True))

    async def _write_reread(self, conn: AsyncConnection, row: FollowingRow, height: int) -> None:
        """Write how far the second reading got, unless it was set back meanwhile."""
        if row.reread is not None and row.reread >= self._reread_from:
            await write_reread(conn, self.chain, height)

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
        row = await self._lock(conn)
        if isinstance(step, Included):
            to = await self._take_in(conn, row, [step.contents])
            if self._is_deep(to) and row.reread == to.height - 1:
                await write_reread(conn, self.chain, to.height)
        else:
            to = await self._take_out(conn, row, step.contents.block)
        moved = await move_cursor(conn, self.chain, self.at, to)
        await self.apply(conn, step)
        return moved

    def _is_deep(self, block: Block) -> bool:
        """Tell whether so many blocks stood on *block* that it needs no second reading."""
        depth = 0 if self.head is None else self.head.height - block.height
        return 0 < self.policy.reread_after <= depth

    async def _lock(self, conn: AsyncConnection) -> FollowingRow:
        row = await load_following(conn, self.chain, lock=True)
        if row is None or row.state is FollowState.HALTED:
            raise ChainHalted(f"{self.chain} was halted meanwhile")
        if await load_cursor(conn, self.chain) != self.at:
            # Before anything is written: on another branch the rows would contradict each other.
            raise CursorMoved(
                f"another follower has moved the cursor of {self.chain}",
                remedy="Follow again: the next call goes on from where the cursor is",
            )
        return row

    async def _take_in(
        self, conn: AsyncConnection, row: FollowingRow, run: Sequence[BlockContents]
    ) -> Block:
        for restored in await include_blocks(conn, run):
            await self._note(conn, row, "BlockRestored", restored)
        if self.at is None:
            # The first block of all is one that is final, or policy was not heeded.
            await write_reread(conn, self.chain, run[-1].block.height)
        if row.depth_granted is not None:
            await withdraw_depth(conn, self.chain)
        return run[-1].block

    async def _take_out(self, conn: AsyncConnection, row: FollowingRow, block: Block) -> Block:
        below = await load_canonical(conn, self.chain, block.height - 1)
        if below is None or below.hash != block.parent:
            raise AssertionError(f"the parent of {block.hash} is not stored")
        await orphan_block(conn, block)
        if row.reread is not None and row.reread >= block.height:
            await write_reread(conn, self.chain, below.height)
        await self._note(conn, row, "BlockOrphaned", block)
        return below

    async def _note(
        self, conn: AsyncConnection, row: FollowingRow, name: str, block: Block
    ) -> None:
        """Record that a block left the chain or came back: rare, and somebody may ask."""
        away = name == "BlockOrphaned"
        change = (BlockState.CANONICAL, BlockState.ORPHANED)
        payload = {"height": block.height, "hash": block.hash}
        await note(
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

    async def _halt(self, reason: str, *, looked_at: int | None = None) -> FollowReport:
        """Halt the chain; *looked_at*: up to here two people decide, not another second reading."""

        async def work(conn: AsyncConnection) -> None:
            await halt(conn, self.chain, by=ACTOR, reason=reason, now=self.now)
            if looked_at is not None:
                # Else the same block would halt the chain again as soon as it is resumed.
                await write_reread(conn, self.chain, looked_at)

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
            reread=self.reread,
            completed=self.completed,
            reread_trouble=self.reread_trouble,
        )


def _unwrap(answer: T | NodeTrouble) -> T:
    if isinstance(answer, NodeTrouble):
        raise answer
    return answer
