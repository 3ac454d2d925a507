"""The statements of who may pay what: known addresses, what was reserved, statements, decisions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, func, insert, literal, or_, select, union_all
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.control_tables import (
    approval_statement,
    payout_decision,
    receivable_due,
    velocity_lane,
)
from custody.deposit_model import DepositState, ReceiptState
from custody.destinations import LOOK, SAME_FOR_ALL, Known
from custody.payout_model import TO_VENUES, Approval, ClaimKind
from custody.payout_tables import allowed_destination, payout, payout_approval
from custody.policy_model import ANY, VENUE, Window
from custody.tables import address, deposit, receipt
from custody.venues.store import sum_open
from registry.queries import list_chain_assets, list_chains

LOOK_ALIKES_MAX: Final = 50
_IDS: Final = bindparam("ids", type_=ARRAY(Uuid))
_OWN: Final = payout.c.claim.startswith(f"{ClaimKind.OWN}:")
_TO_VENUES: Final = payout.c.claim.startswith(TO_VENUES)


async def list_known_addresses(conn: AsyncConnection, look: str) -> list[Known]:
    """Return the addresses we know that begin and end with the digits of *look*.

    They are other parties' destinations, whatever became of them, and our own addresses: those are
    looked through one by one, which a rare act of two people can afford.
    """
    digits = func.regexp_replace(address.c.address, SAME_FOR_ALL, "")
    mine = func.lower(func.concat(func.left(digits, LOOK), func.right(digits, LOOK)))
    rows = await conn.execute(
        union_all(
            select(allowed_destination.c.address, allowed_destination.c.party.label("whose")).where(
                allowed_destination.c.look == look
            ),
            select(
                address.c.address, (literal("our wallet ") + address.c.wallet).label("whose")
            ).where(mine == look),
        ).limit(LOOK_ALIKES_MAX)
    )
    return [Known(row.address, row.whose) for row in rows]


async def find_ours_and_contracts(
    conn: AsyncConnection, text: str
) -> tuple[frozenset[str], frozenset[str]]:
    """Return *text* among our own addresses, on any chain, and the contracts of every token."""
    rows = await conn.execute(select(address.c.address).where(address.c.address == text).limit(1))
    ours = frozenset(row.address for row in rows)
    contracts = {
        asset.contract
        for chain in await list_chains(conn)
        for asset in await list_chain_assets(conn, chain.code)
        if asset.contract is not None
    }
    return ours, frozenset(contracts)


async def has_arrived_from(conn: AsyncConnection, chain: str, sender: str, tx_hash: str) -> bool:
    """Tell whether a block has a movement from *sender* to one of our addresses in *tx_hash*."""
    gone = (
        (deposit, (DepositState.ORPHANED, DepositState.REVERSED, DepositState.QUARANTINED)),
        (receipt, (ReceiptState.ORPHANED, ReceiptState.REVERSED, ReceiptState.NOT_RECEIVED)),
    )
    for table, states in gone:
        found = await conn.scalar(
            select(table.c.id)
            .where(
                table.c.chain == chain,
                table.c.tx_hash == tx_hash,
                table.c.sender == sender,
                table.c.state.not_in([str(state) for state in states]),
            )
            .limit(1)
        )
        if found is not None:
            return True
    return False


async def lock_lanes(conn: AsyncConnection, book: int, assets: Collection[str]) -> None:
    """Let nobody else count what is reserved of these assets until this transaction ends."""
    for asset in sorted(assets):
        lane = pg_insert(velocity_lane).values(book=book, asset=asset).on_conflict_do_nothing()
        await conn.execute(lane)
    await conn.execute(
        select(velocity_lane.c.asset)
        .where(velocity_lane.c.book == book, velocity_lane.c.asset.in_(assets))
        .order_by(velocity_lane.c.asset)
        .with_for_update()
    )


async def sum_reserved(conn: AsyncConnection, book: int, window: Window, *, now: datetime) -> int:
    """Return what is reserved of the window that ends now; the lane of its asset is locked.

    A payout of another process whose clock is ahead counts too.
    """
    statement = _reserved_since(book, window, now).where(payout.c.released_at.is_(None))
    paid = int(await conn.scalar(statement) or 0)
    if window.claim != VENUE:
        return paid
    since = now - timedelta(seconds=window.seconds)
    return paid + await sum_open(conn, window.asset, book, since)


async def sum_reserved_before(
    conn: AsyncConnection, book: int, window: Window, *, payout_id: UUID, at: datetime
) -> int:
    """Return what was reserved in the window when a past payout was decided at *at*.

    What was released since counts: it was reserved then. Of the same moment, those count that were
    decided before.
    """
    number = select(payout_decision.c.number).where(payout_decision.c.payout_id == payout_id)
    later = select(payout_decision.c.payout_id).where(
        payout_decision.c.payout_id == payout.c.id,
        payout_decision.c.number >= number.scalar_subquery(),
    )
    statement = _reserved_since(book, window, at).where(
        payout.c.created_at <= at,
        or_(payout.c.released_at.is_(None), payout.c.released_at > at),
        ~later.exists(),
    )
    paid = int(await conn.scalar(statement) or 0)
    if window.claim != VENUE:
        return paid
    since = at - timedelta(seconds=window.seconds)
    return paid + await sum_open(conn, window.asset, book, since, at=at)


def _reserved_since(book: int, window: Window, end: datetime) -> Any:
    statement = select(func.coalesce(func.sum(payout.c.amount), 0)).where(
        payout.c.book == book,
        payout.c.asset == window.asset,
        payout.c.created_at > end - timedelta(seconds=window.seconds),
        _claims(window.claim),
    )
    if window.party is not None:
        statement = statement.where(payout.c.party == window.party)
    return statement


async def insert_decisions(conn: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert what the policy said to new payouts, and on what facts."""
    if rows:
        await conn.execute(insert(payout_decision), list(rows))


async def insert_statement(
    conn: AsyncConnection,
    *,
    statement_id: UUID,
    operator: str,
    signature: bytes,
    lines: Sequence[Mapping[str, Any]],
    payout_ids: Sequence[UUID],
    at: datetime,
) -> None:
    """Store what an operator signed, once, and each payout that it approves."""
    await conn.execute(
        pg_insert(approval_statement)
        .values(id=statement_id, operator=operator, signature=signature, lines=list(lines), at=at)
        .on_conflict_do_nothing()
    )
    ids = func.unnest(bindparam("ids", type_=ARRAY(Uuid))).column_valued("payout_id")
    names = ["payout_id", "operator", "statement_id", "at"]
    given = select(
        ids,
        bindparam("operator", type_=payout_approval.c.operator.type),
        bindparam("statement_id", type_=Uuid),
        bindparam("at", type_=payout_approval.c.at.type),
    )
    await conn.execute(
        insert(payout_approval).from_select(names, given),
        {
            "ids": list(payout_ids),
            "operator": operator,
            "statement_id": statement_id,
            "at": at,
        },
    )


async def list_approvals(
    conn: AsyncConnection, payout_ids: Collection[UUID]
) -> dict[UUID, list[Approval]]:
    """Return the approvals of each payout, oldest first; those of one statement share its lines."""
    found: dict[UUID, list[Approval]] = {key: [] for key in payout_ids}
    links = (
        await conn.execute(
            select(payout_approval)
            .where(payout_approval.c.payout_id == any_(_IDS))
            .order_by(payout_approval.c.at, payout_approval.c.operator),
            {"ids": list(payout_ids)},
        )
    ).all()
    statements = (
        await conn.execute(
            select(approval_statement).where(approval_statement.c.id == any_(_IDS)),
            {"ids": list({link.statement_id for link in links})},
        )
    ).all()
    signed = {row.id: (row.signature, tuple(row.lines)) for row in statements}
    for link in links:
        signature, lines = signed[link.statement_id]
        found[link.payout_id].append(
            Approval(
                payout_id=link.payout_id,
                operator=link.operator,
                signature=signature,
                lines=lines,
                at=link.at,
                statement_id=link.statement_id,
            )
        )
    return found


async def list_approvers(
    conn: AsyncConnection, payout_ids: Collection[UUID]
) -> dict[UUID, list[str]]:
    """Return who has approved each payout."""
    found: dict[UUID, list[str]] = {key: [] for key in payout_ids}
    rows = await conn.execute(
        select(payout_approval.c.payout_id, payout_approval.c.operator)
        .where(payout_approval.c.payout_id == any_(_IDS))
        .order_by(payout_approval.c.operator),
        {"ids": list(payout_ids)},
    )
    for row in rows:
        found[row.payout_id].append(row.operator)
    return found


async def save_due(conn: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store what is owed and when it is due; what is known by its reference stays as it is."""
    if rows:
        await conn.execute(pg_insert(receivable_due).on_conflict_do_nothing(), list(rows))


async def sum_due(
    conn: AsyncConnection, book: int, parties: Collection[str], *, now: datetime
) -> dict[tuple[str, str], tuple[int, int]]:
    """Return by (party, asset) what was ever due before now, and what is due later."""
    if not parties:
        return {}
    past = receivable_due.c.due_at < now
    amount = receivable_due.c.amount
    rows = await conn.execute(
        select(
            receivable_due.c.party,
            receivable_due.c.asset,
            func.coalesce(func.sum(amount).filter(past), 0).label("past"),
            func.coalesce(func.sum(amount).filter(~past), 0).label("later"),
        )
        .where(receivable_due.c.book == book, receivable_due.c.party.in_(parties))
        .group_by(receivable_due.c.party, receivable_due.c.asset)
    )
    return {(row.party, row.asset): (int(row.past), int(row.later)) for row in rows}


def _claims(kind: str) -> Any:
    match kind:
        case _ if kind == ANY:
            return ~_OWN
        case ClaimKind.CLIENT:
            return payout.c.claim.startswith("client:") & ~payout.c.claim.endswith(":held")
        case ClaimKind.HELD:
            return payout.c.claim.startswith("client:") & payout.c.claim.endswith(":held")
        case ClaimKind.OWN:
            return _OWN & ~_TO_VENUES
        case _ if kind == VENUE:
            return _TO_VENUES
        case _:
            return payout.c.claim.startswith(f"{kind}:")
