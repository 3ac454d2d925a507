"""Two people let an obstacle of a month's end pass, with a reason; and packs are kept on record."""

from __future__ import annotations

import hashlib
from datetime import date, datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from kernel.events import DomainEvent, record
from kernel.ids import derive_id
from ledger.people import require_approver, require_proposer
from registry.authority import signing_bytes, verify_signature
from reporting.errors import MonthEndRefused
from reporting.month_end import store
from reporting.month_end.model import MonthEnd, Obstacle, Waiver

ENTITY: Final = "month-end"

list_waivers = store.list_waivers
list_month_ends = store.list_month_ends


def waiver_bytes(book: int, month: date, obstacle: Obstacle, reason: str) -> bytes:
    """Return what both people sign: the obstacle in its words, and why it may pass."""
    return signing_bytes(
        "month-end.waive",
        {
            "book": book,
            "month": month.isoformat(),
            "obstacle": obstacle.key,
            "what": obstacle.what,
            "reason": reason,
        },
    )


async def waive(
    conn: AsyncConnection,
    book: int,
    month: date,
    obstacle: Obstacle,
    *,
    reason: str,
    by: str,
    proposal: bytes,
    approved_by: str,
    approval: bytes,
    now: datetime,
) -> Waiver:
    """Let an obstacle of a month pass.

    Args:
        proposal, approval: Ed25519 signatures of the two over `waiver_bytes`.

    Raises:
        BadInput: no reason.
        MonthEndRefused: nobody may let this pass, or two people have already.
        NotAuthorised: a missing role, one person twice, or a signature of something else.
    """
    if not reason.strip():
        raise BadInput("say why it may pass", remedy="Give a reason")
    if not obstacle.may_pass:
        raise MonthEndRefused(f"nobody may let this pass: {obstacle.key}: {obstacle.what}")
    payload = waiver_bytes(book, month, obstacle, reason)
    proposer = await require_proposer(conn, by)
    verify_signature(proposer, payload, proposal)
    await require_approver(conn, approved_by, proposed_by=by, payload=payload, signature=approval)
    item = Waiver(
        id=derive_id(now, "month-end-waiver", book, month.isoformat(), obstacle.key),
        book=book,
        month=month,
        obstacle=obstacle.key,
        reason=reason,
        proposed_by=by,
        proposal=proposal,
        approved_by=approved_by,
        approval=approval,
        at=now,
    )
    if not await store.insert_waiver(conn, item):
        raise MonthEndRefused(f"two people have let {obstacle.key} of {month:%Y-%m} pass already")
    facts = {"obstacle": obstacle.key, "approved_by": approved_by}
    event = _event(item, "month-end-waiver", "MonthEndObstacleWaived", by, reason, facts, now)
    await record(conn, [event])
    return item


async def record_month_end(
    conn: AsyncConnection, book: int, month: date, manifest: str, *, by: str, now: datetime
) -> MonthEnd:
    """Keep a pack's manifest; the same manifest again changes nothing."""
    digest = hashlib.sha256(manifest.encode()).hexdigest()
    item = MonthEnd(
        id=derive_id(now, ENTITY, book, month.isoformat(), digest),
        book=book,
        month=month,
        manifest=manifest,
        manifest_sha256=digest,
        built_by=by,
        built_at=now,
    )
    if not await store.insert_month_end(conn, item):
        known = await store.list_month_ends(conn, book, month=month)
        return next(pack for pack in known if pack.manifest_sha256 == digest)
    await record(
        conn, [_event(item, ENTITY, "MonthEndBuilt", by, "", {"manifest_sha256": digest}, now)]
    )
    return item


def _event(
    item: Waiver | MonthEnd,
    entity: str,
    name: str,
    by: str,
    reason: str,
    payload: dict[str, str],
    now: datetime,
) -> DomainEvent:
    return DomainEvent(
        entity_type=entity,
        entity_id=item.id,
        version=1,
        name=name,
        at=now,
        actor=by,
        reason=reason,
        payload={"book": item.book, "month": f"{item.month:%Y-%m}", **payload},
    )
