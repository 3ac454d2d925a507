"""Rows of the chain schema, read and written as values of `chain.model`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, Select, func, insert, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.errors import CursorMoved
from chain.model import (
    Block,
    BlockContents,
    BlockState,
    FollowState,
    Movement,
    Spend,
    TransactionOutcome,
)
from chain.tables import block, cursor, following, movement, outcome, spend
from kernel.ids import derive_id

INCLUDE_BLOCKS: Final = text(
    """
    WITH stored AS (
        INSERT INTO chain.block (chain, hash, height, parent, time, state, inclusion, traced)
        SELECT CAST(:chain AS text), b.hash, b.height, b.parent, b.time, 'canonical', 1, b.traced
        FROM unnest(
            CAST(:hashes AS text[]), CAST(:heights AS bigint[]), CAST(:parents AS text[]),
            CAST(:times AS timestamptz[]), CAST(:traced AS boolean[])
        ) AS b (hash, height, parent, time, traced)
        ON CONFLICT (chain, hash) DO UPDATE SET
            state = 'canonical', inclusion = block.inclusion + 1, traced = excluded.traced
        RETURNING hash, inclusion
    )
    SELECT hash, inclusion FROM stored WHERE inclusion > 1
    """
)
"""Arrays, so that the statement is the same, and planned once, whatever the length of the run."""


@dataclass(frozen=True, slots=True)
class FollowingRow:
    """The row that says whether a chain is followed."""

    chain: str
    id: UUID
    state: FollowState
    reason: str
    depth_granted: int | None
    reread: int | None
    reread_failures: int = 0
    reread_trouble: str = ""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the books are, and how often the cursor has moved."""

    block: Block
    version: int


async def ensure_following(conn: AsyncConnection, chain: str, *, now: datetime) -> None:
    """Make the chain's row, running, unless there is one."""
    await conn.execute(
        postgresql.insert(following)
        .values(
            chain=chain, id=derive_id(now, "chain", chain), state=FollowState.RUNNING, reason=""
        )
        .on_conflict_do_nothing()
    )


async def load_following(
    conn: AsyncConnection, chain: str, *, lock: bool = False
) -> FollowingRow | None:
    """Return the chain's row; with *lock* nobody else steps, halts or resumes meanwhile."""
    query = select(following).where(following.c.chain == chain)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        return None
    return FollowingRow(
        chain=row.chain,
        id=row.id,
        state=FollowState(row.state),
        reason=row.reason,
        depth_granted=row.depth_granted,
        reread=row.reread,
        reread_failures=row.reread_failures,
        reread_trouble=row.reread_trouble,
    )


async def write_following(
    conn: AsyncConnection, chain: str, state: FollowState, reason: str, depth_granted: int | None
) -> None:
    """Change the chain's row; the caller has locked it."""
    await conn.execute(
        update(following)
        .where(following.c.chain == chain)
        .values(state=state, reason=reason, depth_granted=depth_granted)
    )


async def withdraw_depth(conn: AsyncConnection, chain: str) -> None:
    """Take back what was granted for one walk-back; the caller has locked the chain's row."""
    await conn.execute(
        update(following).where(following.c.chain == chain).values(depth_granted=None)
    )


async def write_reread(conn: AsyncConnection, chain: str, height: int | None) -> None:
    """Write up to which height no block needs a second reading; the caller has locked the row."""
    moved = {"reread": height, "reread_failures": 0, "reread_trouble": ""}
    await conn.execute(update(following).where(following.c.chain == chain).values(moved))


async def write_reread_failure(conn: AsyncConnection, chain: str, trouble: str) -> None:
    """Write that the second reading got no further once more; the caller has locked the row."""
    failed = {"reread_failures": following.c.reread_failures + 1, "reread_trouble": trouble}
    await conn.execute(update(following).where(following.c.chain == chain).values(failed))


async def load_cursor(conn: AsyncConnection, chain: str) -> Cursor | None:
    """Return where the books are; None when no block was ever read."""
    query = (
        select(block, cursor.c.version)
        .join_from(
            cursor, block, (cursor.c.chain == block.c.chain) & (cursor.c.hash == block.c.hash)
        )
        .where(cursor.c.chain == chain)
    )
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else Cursor(_block(row), int(row.version))


async def move_cursor(
    conn: AsyncConnection, chain: str, current: Cursor | None, to: Block
) -> Cursor:
    """Move the cursor from *current* to *to* by compare-and-set.

    Raises:
        CursorMoved: it is not (any more) where *current* says.
    """
    if current is None:
        statement = (
            postgresql.insert(cursor)
            .values(chain=chain, height=to.height, hash=to.hash, version=1)
            .on_conflict_do_nothing()
        )
        moved = (await conn.execute(statement)).rowcount
        version = 1
    else:
        version = current.version + 1
        where = (
            (cursor.c.chain == chain)
            & (cursor.c.version == current.version)
            & (cursor.c.hash == current.block.hash)
        )
        change = update(cursor).where(where)
        result = await conn.execute(change.values(height=to.height, hash=to.hash, version=version))
        moved = result.rowcount
    if moved != 1:
        raise CursorMoved(f"another follower has moved the cursor of {chain}")
    return Cursor(to, version)


async def include_blocks(conn: AsyncConnection, run: Sequence[BlockContents]) -> list[Block]:
    """Store the blocks of one chain as canonical, and what they hold, in one statement each.

    Returns:
        Those of the blocks that had been included, and orphaned, before.
    """
    blocks = [contents.block for contents in run]
    rows = await conn.execute(
        INCLUDE_BLOCKS,
        {
            "chain": blocks[0].chain,
            "hashes": [item.hash for item in blocks],
            "heights": [item.height for item in blocks],
            "parents": [item.parent for item in blocks],
            "times": [item.time for item in blocks],
            "traced": [contents.traced for contents in run],
        },
    )
    again = {row.hash: int(row.inclusion) for row in rows}
    for contents in run:
        await _insert_contents(conn, contents, again.get(contents.block.hash, 1), 0)
    return [item for item in blocks if item.hash in again]


async def complete_block(conn: AsyncConnection, missed: BlockContents) -> None:
    """Append to a canonical block what a second reading found: only what is missing."""
    at = missed.block
    where = (block.c.chain == at.chain) & (block.c.hash == at.hash)
    change = update(block).where(where).values(traced=block.c.traced | missed.traced)
    inclusion = int((await conn.execute(change.returning(block.c.inclusion))).scalar_one())
    taken = [
        select(func.max(table.c.ordinal))
        .where(
            table.c.chain == at.chain,
            table.c.block_hash == at.hash,
            table.c.inclusion == inclusion,
        )
        .scalar_subquery()
        for table in (movement, outcome, spend)
    ]
    last = (await conn.execute(select(func.coalesce(func.greatest(*taken), -1)))).scalar_one()
    await _insert_contents(conn, missed, inclusion, int(last) + 1)


async def _insert_contents(
    conn: AsyncConnection, contents: BlockContents, inclusion: int, first: int
) -> None:
    key = {
        "chain": contents.block.chain,
        "block_hash": contents.block.hash,
        "inclusion": inclusion,
    }
    movements = [
        _movement_row(m) | key | {"ordinal": i} for i, m in enumerate(contents.movements, first)
    ]
    outcomes = [
        _outcome_row(o) | key | {"ordinal": i} for i, o in enumerate(contents.outcomes, first)
    ]
    if movements:
        await conn.execute(insert(movement), movements)
    spends = [_spend_row(s) | key | {"ordinal": i} for i, s in enumerate(contents.spends, first)]
    if outcomes:
        await conn.execute(insert(outcome), outcomes)
    if spends:
        await conn.execute(insert(spend), spends)


async def orphan_block(conn: AsyncConnection, orphan: Block) -> None:
    """Mark a canonical block as orphaned."""
    where = (block.c.chain == orphan.chain) & (block.c.hash == orphan.hash)
    await conn.execute(update(block).where(where).values(state=BlockState.ORPHANED))


async def load_contents(conn: AsyncConnection, item: Block) -> BlockContents:
    """Return what was stored when the block was included last, and completed since."""
    where = (block.c.chain == item.chain) & (block.c.hash == item.hash)
    row = (await conn.execute(select(block.c.inclusion, block.c.traced).where(where))).one()

    def contents_of(table: Any) -> Select[Any]:
        return (
            select(table)
            .where(
                table.c.chain == item.chain,
                table.c.block_hash == item.hash,
                table.c.inclusion == row.inclusion,
            )
            .order_by(table.c.ordinal)
        )

    movements = (await conn.execute(contents_of(movement))).all()
    outcomes = (await conn.execute(contents_of(outcome))).all()
    spends = (await conn.execute(contents_of(spend))).all()
    return BlockContents(
        item,
        tuple(_movement(row) for row in movements),
        tuple(_outcome(row) for row in outcomes),
        traced=bool(row.traced),
        spends=tuple(_spend(row) for row in spends),
    )


async def load_canonical(conn: AsyncConnection, chain: str, height: int) -> Block | None:
    """Return the canonical block at *height*, if it was read."""
    row = (await conn.execute(_canonical(chain).where(block.c.height == height))).one_or_none()
    return None if row is None else _block(row)


async def load_canonical_below(
    conn: AsyncConnection, chain: str, height: int, limit: int
) -> Sequence[Block]:
    """Return canonical blocks from *height* downwards, highest first, at most *limit*."""
    query = _canonical(chain).where(block.c.height <= height)
    rows = await conn.execute(query.order_by(block.c.height.desc()).limit(limit))
    return [_block(row) for row in rows]


async def load_canonical_between(
    conn: AsyncConnection, chain: str, first: int, last: int
) -> Sequence[Block]:
    """Return the canonical blocks from height *first* to *last*, lowest first."""
    query = _canonical(chain).where(block.c.height.between(first, last))
    return [_block(row) for row in await conn.execute(query.order_by(block.c.height))]


async def load_height_before(conn: AsyncConnection, chain: str, moment: datetime) -> int:
    """Return the height of the highest canonical block that is older than *moment*, else of the first.

    A block was read before.
    """
    query = select(block.c.height).where(block.c.chain == chain, block.c.state == "canonical")
    older = query.where(block.c.time < moment).order_by(block.c.height.desc()).limit(1)
    first = query.order_by(block.c.height).limit(1)
    return int((await conn.scalar(older)) or (await conn.scalar(first)) or 0)


async def load_untraced(
    conn: AsyncConnection, chain: str, first: int, last: int, limit: int
) -> Sequence[Block]:
    """Return canonical blocks between the heights that were read without traces, lowest first."""
    query = _canonical(chain).where(block.c.height.between(first, last), ~block.c.traced)
    rows = await conn.execute(query.order_by(block.c.height).limit(limit))
    return [_block(row) for row in rows]


async def load_block_state(
    conn: AsyncConnection, chain: str, block_hash: str
) -> tuple[Block, BlockState] | None:
    """Return a block that was read, and whether it is canonical now."""
    query = select(block).where(block.c.chain == chain, block.c.hash == block_hash)
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else (_block(row), BlockState(row.state))


def _canonical(chain: str) -> Select[Any]:
    return select(block).where(block.c.chain == chain, block.c.state == BlockState.CANONICAL)


def _block(row: Row[Any]) -> Block:
    return Block(row.chain, int(row.height), row.hash, row.parent, row.time)


def _movement(row: Row[Any]) -> Movement:
    return Movement(
        row.tx_hash, row.position, row.sender, row.recipient, row.contract, int(row.amount)
    )


def _outcome(row: Row[Any]) -> TransactionOutcome:
    return TransactionOutcome(
        row.tx_hash, row.sender, int(row.nonce), row.succeeded, int(row.fee), row.recipient
    )


def _spend(row: Row[Any]) -> Spend:
    # A row is a tuple too, and a tuple has an `index` of its own.
    at = row._mapping  # noqa: SLF001  documented name of SQLAlchemy's mapping view
    return Spend(
        at["tx_hash"],
        int(at["index"]),
        at["spent_tx"],
        int(at["spent_index"]),
        at["address"],
        int(at["amount"]),
    )


def _movement_row(item: Movement) -> dict[str, Any]:
    return {
        "tx_hash": item.tx_hash,
        "position": item.position,
        "sender": item.sender,
        "recipient": item.recipient,
        "contract": item.contract,
        "amount": item.amount,
    }


def _outcome_row(item: TransactionOutcome) -> dict[str, Any]:
    return {
        "tx_hash": item.tx_hash,
        "sender": item.sender,
        "nonce": item.nonce,
        "succeeded": item.succeeded,
        "fee": item.fee,
        "recipient": item.recipient,
    }


def _spend_row(item: Spend) -> dict[str, Any]:
    return {
        "tx_hash": item.tx_hash,
        "index": item.index,
        "spent_tx": item.spent_tx,
        "spent_index": item.spent_index,
        "address": item.address,
        "amount": item.amount,
    }
