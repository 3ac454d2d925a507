"""Writing confirmations: each economic state of a trade once, in order, newest last."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from trading.confirmations import store
from trading.confirmations.errors import NoConfirmation, NotConfirmed
from trading.confirmations.facts import read_facts, read_lines
from trading.confirmations.model import Confirmation, ConfirmationState, Due
from trading.confirmations.versions import Version, is_confirmed, versions_of
from trading.confirmations.wording import TradeFacts, confirm
from trading.store import get_deal

ISSUE_MAX: Final = 50
"""Versions written in one transaction, about; the older versions of their trades come on top."""

DUE_OF_TRADES_MAX: Final = 5_000
_ONE_AT_A_TIME: Final = func.hashtextextended("trading.confirmations.issue", 0)
SYSTEM: Final = "system:confirmations"


async def issue_due(
    conn: AsyncConnection,
    *,
    now: datetime,
    by: str = SYSTEM,
    limit: int = ISSUE_MAX,
) -> list[Confirmation]:
    """Write what is due longest and return it; nothing while another process is at it.

    Args:
        conn: the caller's transaction.
        now: when it is issued.
        by: operator id, or ``system:<process>``.
        limit: versions, at most.
    """
    if not await conn.scalar(select(func.pg_try_advisory_xact_lock(_ONE_AT_A_TIME))):
        return []
    due = await store.list_due(conn, limit=min(limit, ISSUE_MAX))
    return await _issue(conn, due, by=by, now=now)


async def issue_confirmation(
    conn: AsyncConnection,
    deal_id: UUID,
    *,
    now: datetime,
    by: str = SYSTEM,
) -> Confirmation:
    """Return the newest version that speaks of a deal; what is due of its trade is written first.

    Again, it returns the same one. Waits for whoever else is writing.

    Raises:
        NoDeal: there is none of this id.
        NotConfirmed: the deal is a transfer within the house.
        NoConfirmation: the deal was settled before confirmations were kept.
    """
    item = await get_deal(conn, deal_id)
    if not is_confirmed(item):
        raise NotConfirmed(
            f"deal {item.request.client_ref} is within the house: nobody else reads of it",
            remedy="`causeway desk explain` tells its life",
        )
    await conn.execute(select(func.pg_advisory_xact_lock(_ONE_AT_A_TIME)))
    due = await store.list_due(conn, limit=2, deal_ids=[deal_id])
    await _issue(conn, due, by=by, now=now)
    found = await store.list_of_deals(conn, [deal_id])
    if not found:
        raise NoConfirmation(
            f"deal {item.request.client_ref} was over before confirmations were kept",
            remedy="`causeway desk explain` tells its life",
        )
    return found[-1]


async def _issue(
    conn: AsyncConnection, due: Sequence[Due], *, by: str, now: datetime
) -> list[Confirmation]:
    """Write *due*, and before each version those of its trade that are due as well."""
    if not due:
        return []
    lines = await read_lines(conn, {item.deal_id for item in due})
    members = {deal.id for line in lines.values() for deal in line}
    all_due = await store.list_due(conn, limit=DUE_OF_TRADES_MAX, deal_ids=members)
    lines |= await read_lines(conn, members - set(lines)) if members - set(lines) else {}
    versions = versions_of(all_due, lines)
    facts = await read_facts(conn, versions, by=by, now=now)
    items = [_draft(version, told) for version, told in zip(versions, facts, strict=True)]
    await store.insert_confirmations(conn, items)
    for item in items:
        await _supersede(conn, item, by=by, now=now)
    await store.delete_due(conn, all_due)
    superseded = {item.supersedes for item in items}
    return [item for item in items if item.id not in superseded]


def _draft(version: Version, facts: TradeFacts) -> Confirmation:
    """Return the confirmation of *version*, whose PDF is drawn later: that takes a while."""
    text = confirm(facts).to_text()
    deal = version.deal
    return Confirmation(
        id=version.id,
        book=deal.book,
        deal_id=deal.id,
        trade_id=version.trade_id,
        version=version.number,
        kind=version.kind,
        party=deal.request.party,
        state=ConfirmationState.ISSUED,
        supersedes=version.supersedes,
        text=text,
        text_sha256=hashlib.sha256(text.encode()).hexdigest(),
        pdf_sha256=None,
        value_date=deal.value_date,
        issued_by=facts.issued_by,
        issued_at=facts.issued_at,
        updated_at=facts.issued_at,
    )


async def _supersede(conn: AsyncConnection, item: Confirmation, *, by: str, now: datetime) -> None:
    """Put the version before *item* out of force."""
    if item.supersedes is None:
        return
    before = await store.get_confirmation(conn, item.supersedes, lock=True)
    reason = f"version {item.version} takes its place"
    await store.advance(conn, before, ConfirmationState.SUPERSEDED, by=by, reason=reason, now=now)
