"""The verbs of a period: one operator proposes to close or reopen it, two others sign.

With the second signature the journal gets its record. Locks: the row, then the book's head.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from ledger.journals import store
from ledger.journals.decisions import (
    approvals_complete,
    decide_period,
    period_bytes,
    require_open_period,
    require_reason,
)
from ledger.journals.errors import NotOpen
from ledger.journals.model import PeriodProposal, PeriodState
from ledger.model import PeriodEventKind
from ledger.people import may_approve, require_approver, require_proposer, require_rejecter
from ledger.periods import close_period, reopen_period
from ledger.posting import lock_book
from ledger.queries import head

ENTITY: Final = "period"

get_period = store.get_period
list_periods = store.list_periods


async def propose_close(
    conn: AsyncConnection, book: int, through: date, *, by: str, reason: str, now: datetime
) -> PeriodProposal:
    """Propose to close every effective day up to *through* (UTC).

    Raises:
        NotAuthorised: the operator may not propose.
        PeriodNotClosable: names everything that stands in the way.
        NotOpen: another proposal of the book waits for its decision.
    """
    return await _propose(
        conn, book, PeriodEventKind.CLOSED, through, by=by, reason=reason, now=now
    )


async def propose_reopen(
    conn: AsyncConnection, book: int, through: date, *, by: str, reason: str, now: datetime
) -> PeriodProposal:
    """Propose to open the effective days after *through* again; it and what is before stay closed.

    Raises:
        NotAuthorised: the operator may not propose.
        PeriodNotClosable: those days are not closed.
        NotOpen: another proposal of the book waits for its decision.
    """
    return await _propose(
        conn, book, PeriodEventKind.REOPENED, through, by=by, reason=reason, now=now
    )


async def approve_period(
    conn: AsyncConnection, proposal_id: UUID, *, by: str, signature: bytes, now: datetime
) -> PeriodProposal:
    """Add a signature; with the second one of operators who may still sign the journal gets its record.

    The same operator's approval again changes nothing.

    Args:
        conn: the caller's transaction.
        proposal_id: the proposal.
        by: code of an operator who did not propose it.
        signature: theirs, Ed25519, over `decisions.period_bytes`.
        now: the time of the approval.

    Raises:
        NotAuthorised: the same person, a missing role, or a signature of other content.
        NotOpen: it was rejected, or is too old.
        PeriodNotClosable: something is not in order any more; nothing is recorded.
    """
    item = await store.get_period(conn, proposal_id, lock=True)
    await require_approver(
        conn, by, proposed_by=item.proposed_by, payload=period_bytes(item), signature=signature
    )
    if item.state is not PeriodState.REJECTED and by in item.approvers:
        return item
    require_open_period(item, now)
    await store.insert_approval(conn, item, operator=by, signature=signature, at=now)
    # Who has been revoked since, or lost the role, does not count any more.
    given = (*[code for code in item.approvers if await may_approve(conn, code)], by)
    if not approvals_complete(given):
        after = await store.get_period(conn, proposal_id)
        await _record(conn, after, item.state, by=by, name="PeriodApprovalGiven", now=now)
        return after
    # The head first: what is checked is then what is closed.
    await lock_book(conn, item.book)
    await _require_in_order(conn, item.book, item.kind, item.through, now)
    write = close_period if item.kind is PeriodEventKind.CLOSED else reopen_period
    await write(
        conn,
        item.book,
        item.through,
        reason=str(item.id),
        proposed_by=item.proposed_by,
        approved_by="+".join(given),
        now=now,
    )
    after = await store.move_period(conn, item, PeriodState.RECORDED, decided_at=now)
    await _record(conn, after, item.state, by=by, name=_name(item), now=now)
    return after


async def reject_period(
    conn: AsyncConnection, proposal_id: UUID, *, by: str, reason: str, now: datetime
) -> PeriodProposal:
    """Say no to a proposal, or take back one's own; the periods stay as they are.

    Raises:
        NotAuthorised: neither an approver nor the proposer.
        NotOpen: it is in the journal already.
    """
    require_reason(reason)
    item = await store.get_period(conn, proposal_id, lock=True)
    await require_rejecter(conn, by, proposed_by=item.proposed_by)
    if item.state is PeriodState.REJECTED:
        return item
    require_open_period(item)
    after = await store.move_period(
        conn,
        item,
        PeriodState.REJECTED,
        decided_at=now,
        rejected_by=by,
        rejection_reason=reason,
    )
    await _record(
        conn, after, item.state, by=by, name="PeriodProposalRejected", reason=reason, now=now
    )
    return after


async def _propose(
    conn: AsyncConnection,
    book: int,
    kind: PeriodEventKind,
    through: date,
    *,
    by: str,
    reason: str,
    now: datetime,
) -> PeriodProposal:
    require_reason(reason)
    operator = await require_proposer(conn, by)
    await _require_in_order(conn, book, kind, through, now)
    item = PeriodProposal(
        id=derive_id(now, ENTITY, book, kind.value, through.isoformat(), by),
        book=book,
        kind=kind,
        through=through,
        reason=reason,
        state=PeriodState.PROPOSED,
        proposed_by=operator.code,
        proposed_at=now,
    )
    if not await store.insert_period(conn, item):
        raise NotOpen(
            f"another proposal about the periods of book {book} waits for its decision",
            remedy="Approve or reject that one first",
        )
    await _record(conn, item, None, by=by, name="PeriodProposed", now=now)
    return item


async def _require_in_order(
    conn: AsyncConnection, book: int, kind: PeriodEventKind, through: date, now: datetime
) -> None:
    standing = await head(conn, book)
    decide_period(
        kind,
        through,
        closed_through=standing.closed_through,
        block_time=standing.block_time,
        now=now,
        open_journals=await store.list_waiting(conn, book, through, limit=store.PAGE_MAX),
        sums=await store.sum_assets(conn, book),
    )


def _name(item: PeriodProposal) -> str:
    return f"Period{item.kind.value.capitalize()}"


async def _record(
    conn: AsyncConnection,
    item: PeriodProposal,
    before: PeriodState | None,
    *,
    by: str,
    name: str,
    now: datetime,
    reason: str | None = None,
) -> None:
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=item.id,
        version=await next_version(conn, ENTITY, item.id),
        name=name,
        at=now,
        actor=by,
        reason=item.reason if reason is None else reason,
        from_state=before,
        to_state=item.state,
        payload={
            "book": item.book,
            "kind": item.kind.value,
            "through": item.through.isoformat(),
            "proposed_by": item.proposed_by,
            "approved_by": list(item.approvers),
        },
    )
    await record(conn, [event])
