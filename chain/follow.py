"""Walking a chain block by block, with the books exact at every block.

Near the head one block is one database transaction: the chain's row is locked, the cursor is moved
by compare-and-set, the block and its contents are stored, and then the caller's `apply` writes what
follows from it. Below finality blocks are read and written in runs. A crash anywhere replays the
block, or the run, to no effect. `chain.walk` does it.

Decisions:

- *A run is cut after each block that holds something for us.* Two blocks posted for in one
  transaction would be against the lock order: the second one's rows are waited for after the first
  one's postings. Blocks that hold nothing cost a row of a statement that stores hundreds, and are
  not handed to `apply`.
- *Every block that was read near the head is read a second time*, when more stand on it. A node that answers too early with no events gives itself away then; what was missed is included
  late, through the same `apply`, and stored with its block, so the books are those of a clean
  sync. What was booked and is not in the block any more halts the chain.

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

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.errors import ChainHalted
from chain.model import (
    BLOCKS_MAX,
    Block,
    BlockContents,
    BlockState,
    Following,
    FollowPolicy,
    FollowReport,
    FollowState,
)
from chain.ports import ChainReader
from chain.store import (
    load_block_state,
    load_canonical,
    load_contents,
    load_cursor,
    load_following,
    load_height_before,
    load_untraced,
    write_reread,
)
from chain.walk import Apply, Walk, Watch

UNTRACED_MAX = 10_000
"""Blocks listed in one call, at most."""
READ_AGAIN_MAX = 100_000
"""Blocks that are read once more for addresses which are watched only now, at most: two weeks where a
block comes every twelve seconds."""


async def follow(
    engine: AsyncEngine,
    gateway: ChainReader,
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
            the transaction did not commit, so it must not act on the outside world. A block below
            finality that holds nothing for *watch* is not a step.
        now: the time that events carry.
        blocks_max: steps to take, at most; the next call goes on.
        policy: how deep a reorganisation may be, where to begin, and when blocks are read again.

    Raises:
        NodeTrouble: the node cannot be relied on now; steps already taken stay. Call again later.
        CursorMoved: another follower works on this chain.
    """
    walk = Walk(engine, gateway, chain, watch, apply, now, policy or FollowPolicy())
    return await walk.follow(min(blocks_max, BLOCKS_MAX))


async def get_cursor(conn: AsyncConnection, chain: str) -> Block | None:
    """Return the block at which the books are exact; None when no block was ever read."""
    at = await load_cursor(conn, chain)
    return None if at is None else at.block


async def get_following(conn: AsyncConnection, chain: str, *, lock: bool = False) -> Following:
    """Return whether the chain is followed, and why not; with *lock* nobody steps meanwhile."""
    row = await load_following(conn, chain, lock=lock)
    if row is None:
        return Following(chain, FollowState.RUNNING)
    return Following(
        chain, row.state, row.reason, row.reread, row.reread_failures, row.reread_trouble
    )


async def read_again(conn: AsyncConnection, chain: str, *, since: datetime) -> int | None:
    """Have every block that was read, and is not older than *since*, read once more; return from where.

    For addresses that are watched now and that somebody may have paid before they were: what the first
    reading did not look for is included late. At most `READ_AGAIN_MAX` blocks are.

    Args:
        conn: a transaction of the caller's; the chain's row is locked until it ends.
        chain: the chain's code.
        since: by the blocks' own times.

    Returns:
        The height of the first block that is read again; None where no block was read yet.
    """
    row, at = await load_following(conn, chain, lock=True), await load_cursor(conn, chain)
    if row is None or row.reread is None or at is None:
        return None
    before = await load_height_before(conn, chain, since)
    first = await load_height_before(conn, chain, datetime.min.replace(tzinfo=UTC))
    lowest = max(before, at.block.height - READ_AGAIN_MAX)
    # One less at least: a second reading that goes on meanwhile sees that it was set back. What is
    # below the first block to be read (see above) is never read.
    height = max(first, min(lowest, row.reread - 1))
    await write_reread(conn, chain, height)
    return height + 1


async def require_running(conn: AsyncConnection, chain: str, *, lock: bool = False) -> None:
    """Refuse to credit or to send anything on a chain that is halted.

    Args:
        lock: whether no block is taken in, and none vanishes, until the transaction ends.
    """
    following = await get_following(conn, chain, lock=lock)
    if following.state is FollowState.HALTED:
        raise ChainHalted(
            f"{chain} is halted: {following.reason}",
            remedy="Two operators look at it and resume it",
        )


async def get_block(conn: AsyncConnection, chain: str, height: int) -> Block | None:
    """Return the canonical block at *height*, if it was read."""
    return await load_canonical(conn, chain, height)


async def get_contents(conn: AsyncConnection, chain: str, block_hash: str) -> BlockContents | None:
    """Return what was stored of a block that is on the chain that we follow; None: it is not."""
    found = await load_block_state(conn, chain, block_hash)
    if found is None or found[1] is not BlockState.CANONICAL:
        return None
    return await load_contents(conn, found[0])


async def is_canonical(conn: AsyncConnection, chain: str, block_hash: str) -> bool:
    """Tell whether the block was read and is on the chain that we follow."""
    found = await load_block_state(conn, chain, block_hash)
    return found is not None and found[1] is BlockState.CANONICAL


def confirmations(tip: Block, height: int) -> int:
    """Return how many blocks, counting its own, stand on a transaction at *height*; 0 if none."""
    return max(0, tip.height - height + 1)


async def list_untraced(
    conn: AsyncConnection, chain: str, *, first: int, last: int, limit: int = UNTRACED_MAX
) -> Sequence[Block]:
    """Return canonical blocks from height *first* to *last* that were read without traces.

    In those, native value that contracts passed on is in no movement: only balances show it.
    """
    return await load_untraced(conn, chain, first, last, min(limit, UNTRACED_MAX))
