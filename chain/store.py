"""Rows of the chain schema, read and written as values of `chain.model`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.errors import CursorMoved
from chain.model import (
    Block,
    BlockContents,
    BlockState,
    FollowState,
    Movement,
    TransactionOutcome,
)
from chain.tables import block, cursor, following, movement, outcome
from kernel.ids import derive_id


@dataclass(frozen=True, slots=True)
class FollowingRow:
    """The row that says whether a chain is followed."""

    chain: str
    id: UUID
    state: FollowState
    reason: str
    depth_granted: int | None


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
    return FollowingRow(row.chain, row.id, FollowState(row.state), row.reason, row.depth_granted)


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


async def include_block(conn: AsyncConnection, contents: BlockContents) -> int:
    """Store the block as canonical, and what it holds; return for the how-manieth time."""
    item = contents.block
    statement = postgresql.insert(block).values(
        chain=item.chain,
        hash=item.hash,
        height=item.height,
        parent=item.parent,
        time=item.time,
        state=BlockState.CANONICAL,
        inclusion=1,
    )
    again = statement.on_conflict_do_update(
        index_elements=[block.c.chain, block.c.hash],
        set_={"state": BlockState.CANONICAL, "inclusion": block.c.inclusion + 1},
    )
    inclusion = int((await conn.execute(again.returning(block.c.inclusion))).scalar_one())
    key = {"chain": item.chain, "block_hash": item.hash, "inclusion": inclusion}
    movements = [_movement_row(m) | key | {"ordinal": i} for i, m in enumerate(contents.movements)]
    outcomes = [_outcome_row(o) | key | {"ordinal": i} for i, o in enumerate(contents.outcomes)]
    if movements:
        await conn.execute(insert(movement), movements)
    if outcomes:
        await conn.execute(insert(outcome), outcomes)
    return inclusion


async def orphan_block(conn: AsyncConnection, orphan: Block) -> None:
    """Mark a canonical block as orphaned."""
    where = (block.c.chain == orphan.chain) & (block.c.hash == orphan.hash)
    await conn.execute(update(block).where(where).values(state=BlockState.ORPHANED))


async def load_contents(conn: AsyncConnection, item: Block) -> BlockContents:
    """Return what was stored when the block was included last."""
    inclusion = (
        select(block.c.inclusion)
        .where(block.c.chain == item.chain, block.c.hash == item.hash)
        .scalar_subquery()
    )

    def contents_of(table: Any) -> Select[Any]:
        return (
            select(table)
            .where(
                table.c.chain == item.chain,
                table.c.block_hash == item.hash,
                table.c.inclusion == inclusion,
            )
            .order_by(table.c.ordinal)
        )

    movements = (await conn.execute(contents_of(movement))).all()
    outcomes = (await conn.execute(contents_of(outcome))).all()
    return BlockContents(
        item, tuple(_movement(row) for row in movements), tuple(_outcome(row) for row in outcomes)
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
