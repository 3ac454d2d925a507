"""What becomes of a hold that came with the cut-over: no machine of ours resolves it, people do.

Only holds of an import are resolved here; a hold of a payout, a deposit or a move belongs to the row
that made it.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from ledger.imports import store
from ledger.imports.errors import NotImported
from ledger.imports.reading import CODE_OF_HOLDS
from ledger.model import PostResult, post_hold, void_hold
from ledger.people import require_approver, require_proposer
from ledger.posting import post, require_applied
from registry.authority import signing_bytes

ENTITY: Final = "imported-hold"
RESOLVE_HOLD: Final = "ledger.imported-hold.resolve"


class HoldEnd(StrEnum):
    """How a hold ends."""

    POSTED = "posted"
    """What it reserved has moved."""
    VOIDED = "voided"
    """What it reserved is released."""


def hold_bytes(book: int, hold: UUID, end: HoldEnd, *, reason: str, by: str) -> bytes:
    """Return what an approver signs about the end of an imported hold."""
    return signing_bytes(
        RESOLVE_HOLD,
        {"book": book, "hold": hold, "end": str(end), "reason": reason, "by": by},
    )


async def resolve_imported_hold(
    conn: AsyncConnection,
    book: int,
    hold: UUID,
    end: HoldEnd,
    *,
    reason: str,
    by: str,
    approver: str,
    signature: bytes,
    now: datetime,
) -> PostResult:
    """Post or void an imported hold, wanted by one operator and signed by another.

    Args:
        conn: the caller's transaction.
        book: the book.
        hold: id of the hold, as `ledger.queries.list_open_holds` shows it.
        end: what becomes of it.
        reason: why, in words; it stays in the history.
        by: code of the operator, authenticated by the caller.
        approver: code of another operator.
        signature: the approver's, Ed25519, over `hold_bytes`.
        now: block time.

    Raises:
        NotAuthorised: one person, a missing role, or a signature of other content.
        NotImported: the book has no such hold that came with an import.
        PostingRefused: it was resolved before, or an account is closed.
    """
    if not reason.strip():
        raise BadInput("the end of a hold needs a reason")
    operator = await require_proposer(conn, by)
    payload = hold_bytes(book, hold, end, reason=reason, by=operator.code)
    await require_approver(
        conn, approver, proposed_by=operator.code, payload=payload, signature=signature
    )
    if await store.find_code(conn, book, hold) != CODE_OF_HOLDS:
        raise NotImported(
            f"book {book} has no imported hold {hold}",
            remedy="A hold of a payout or a deposit is resolved by what made it",
        )
    make = post_hold if end is HoldEnd.POSTED else void_hold
    item = make(
        derive_id(now, ENTITY, book, hold, str(end)),
        hold,
        code=f"{CODE_OF_HOLDS}.{end}",
        metadata={"approved_by": approver, "by": operator.code},
    )
    (result,) = await post(conn, book, [item], now=now)
    require_applied([result])
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=hold,
        version=await next_version(conn, ENTITY, hold),
        name=f"ImportedHold{end.capitalize()}",
        at=now,
        actor=operator.code,
        reason=reason,
        to_state=end,
        payload={"book": book, "approved_by": approver, "amount": str(result.amount)},
    )
    await record(conn, [event])
    return result
