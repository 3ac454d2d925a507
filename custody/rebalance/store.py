"""Rows of rebalancing to values and back. Private to this package."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.errors import UnknownRow
from custody.payout_model import ControlState
from custody.rebalance.document import from_document, to_document
from custody.rebalance.model import (
    OwnTransfer,
    Proposal,
    ProposalState,
    RebalanceRules,
    RulesRow,
    TransferKind,
)
from custody.rebalance.tables import rebalance_proposal, rebalance_rules, rebalance_window

PAGE_MAX: Final = 500


# Rules.


async def next_rules_version(conn: AsyncConnection) -> int:
    """Return the version that the next proposal gets."""
    last = await conn.scalar(select(func.max(rebalance_rules.c.version)))
    return int(last or 0) + 1


async def insert_rules(
    conn: AsyncConnection, rules: RebalanceRules, *, by: str, now: datetime
) -> None:
    """Write a proposed version."""
    await conn.execute(
        insert(rebalance_rules).values(
            version=rules.version,
            rules=to_document(rules),
            state=ControlState.PROPOSED,
            proposed_by=by,
            proposed_at=now,
        )
    )


async def get_rules(conn: AsyncConnection, version: int, *, lock: bool = False) -> RulesRow:
    """Return one version.

    Raises:
        UnknownRow: there is none.
    """
    query = select(rebalance_rules).where(rebalance_rules.c.version == version)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise UnknownRow(f"there are no rebalancing rules {version}")
    return _to_rules(row)


async def find_active(conn: AsyncConnection, *, lock: bool = False) -> RulesRow | None:
    """Return the version in force and who made it; None before there is one."""
    query = select(rebalance_rules).where(rebalance_rules.c.state == ControlState.ACTIVE)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    return None if row is None else _to_rules(row)


async def find_active_rules(conn: AsyncConnection) -> RebalanceRules | None:
    """Return the rules in force; None before there are any."""
    found = await find_active(conn)
    return None if found is None else found.rules


async def list_rules(conn: AsyncConnection, *, limit: int = PAGE_MAX) -> list[RulesRow]:
    """Return the versions, the newest first."""
    query = select(rebalance_rules).order_by(rebalance_rules.c.version.desc())
    rows = await conn.execute(query.limit(min(limit, PAGE_MAX)))
    return [_to_rules(row) for row in rows]


async def write_rules_state(
    conn: AsyncConnection, version: int, state: ControlState, **values: Any
) -> None:
    """Write the state of a version whose row is locked."""
    await conn.execute(
        update(rebalance_rules)
        .where(rebalance_rules.c.version == version)
        .values(state=state, **values)
    )


def _to_rules(row: Row[Any]) -> RulesRow:
    return RulesRow(
        rules=from_document(row.version, row.rules),
        state=ControlState(row.state),
        proposed_by=row.proposed_by,
        proposed_at=row.proposed_at,
        approved_by=row.approved_by,
    )


# Windows and proposals.


async def has_window(
    conn: AsyncConnection, book: int, chain: str, version: int, window: datetime
) -> bool:
    """Tell whether the window was planned."""
    table = rebalance_window
    found = await conn.scalar(
        select(table.c.height).where(
            table.c.book == book,
            table.c.chain == chain,
            table.c.rules_version == version,
            table.c.window == window,
        )
    )
    return found is not None


async def insert_window(
    conn: AsyncConnection,
    *,
    book: int,
    chain: str,
    version: int,
    window: datetime,
    height: int,
    block_hash: str,
    left_over: int,
    now: datetime,
) -> bool:
    """Write that a window is planned; tell whether this call was the first."""
    done = await conn.execute(
        upsert(rebalance_window)
        .values(
            book=book,
            chain=chain,
            rules_version=version,
            window=window,
            height=height,
            block_hash=block_hash,
            planned_at=now,
            left_over=left_over,
        )
        .on_conflict_do_nothing()
    )
    return done.rowcount == 1


async def insert_proposals(conn: AsyncConnection, proposals: Collection[Proposal]) -> None:
    """Write what a window proposes."""
    if proposals:
        await conn.execute(insert(rebalance_proposal), [_to_row(item) for item in proposals])


async def get_proposal(conn: AsyncConnection, proposal_id: UUID, *, lock: bool = False) -> Proposal:
    """Return a proposal.

    Raises:
        UnknownRow: there is none with that id.
    """
    query = select(rebalance_proposal).where(rebalance_proposal.c.id == proposal_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise UnknownRow(f"there is no rebalancing proposal {proposal_id}")
    return _to_proposal(row)


async def list_proposals(
    conn: AsyncConnection,
    *,
    book: int,
    chain: str | None = None,
    states: Collection[ProposalState] = (),
    by_hand: bool | None = None,
    limit: int = PAGE_MAX,
) -> list[Proposal]:
    """Return proposals, the oldest first where states are named, else the newest first."""
    table = rebalance_proposal
    query = select(table).where(table.c.book == book)
    if chain is not None:
        query = query.where(table.c.chain == chain)
    if states:
        query = query.where(table.c.state.in_([str(state) for state in states]))
    if by_hand is not None:
        query = query.where(table.c.by_hand == by_hand)
    order = (table.c.window, table.c.id) if states else (table.c.window.desc(), table.c.id.desc())
    rows = await conn.execute(query.order_by(*order).limit(min(limit, PAGE_MAX)))
    return [_to_proposal(row) for row in rows]


async def write_proposal(
    conn: AsyncConnection, proposal_id: UUID, state: ProposalState, **values: Any
) -> None:
    """Write the state of a proposal whose row is locked."""
    await conn.execute(
        update(rebalance_proposal)
        .where(rebalance_proposal.c.id == proposal_id)
        .values(state=state, **values)
    )


def _to_row(item: Proposal) -> dict[str, Any]:
    move = item.transfer
    return {
        "id": item.id,
        "book": item.book,
        "chain": item.chain,
        "rules_version": item.rules_version,
        "window": item.window,
        "kind": move.kind,
        "wallet": move.wallet,
        "address": move.address,
        "to_wallet": move.to_wallet,
        "to_address": move.to_address,
        "asset": move.asset,
        "amount": move.amount,
        "reason": move.reason,
        "by_hand": move.by_hand,
        "state": item.state,
        "expires_at": item.expires_at,
        "payout_id": item.payout_id,
        "detail": item.detail,
    }


def _to_proposal(row: Row[Any]) -> Proposal:
    return Proposal(
        id=row.id,
        book=row.book,
        chain=row.chain,
        rules_version=row.rules_version,
        window=row.window,
        transfer=OwnTransfer(
            kind=TransferKind(row.kind),
            wallet=row.wallet,
            address=row.address,
            to_wallet=row.to_wallet,
            to_address=row.to_address,
            asset=row.asset,
            amount=int(row.amount),
            reason=row.reason,
            by_hand=row.by_hand,
        ),
        state=ProposalState(row.state),
        expires_at=row.expires_at,
        payout_id=row.payout_id,
        detail=row.detail,
    )
