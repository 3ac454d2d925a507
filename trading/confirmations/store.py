"""Rows of confirmations: read into values, written with their events."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, delete, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.events import DomainEvent, next_version, record
from kernel.rows import insert_rows
from trading.confirmations.errors import NoConfirmation, NoConfirmationKey
from trading.confirmations.model import (
    CONFIRMATION_STATES,
    Affirmation,
    Confirmation,
    ConfirmationKey,
    ConfirmationKind,
    ConfirmationState,
    Due,
    Verdict,
)
from trading.confirmations.tables import (
    affirmation,
    confirmation,
    confirmation_due,
    confirmation_key,
)

CONFIRMATION = "confirmation"
_SHOWN = [column for column in confirmation.c if column.name != "pdf"]
_EVENTS = {
    ConfirmationState.AFFIRMED: "ConfirmationAffirmed",
    ConfirmationState.DISPUTED: "ConfirmationDisputed",
    ConfirmationState.SUPERSEDED: "ConfirmationSuperseded",
}


async def list_due(
    conn: AsyncConnection,
    *,
    limit: int,
    deal_ids: Collection[UUID] | Select[tuple[UUID]] | None = None,
) -> list[Due]:
    """Return what is due, longest first; of some deals only, if asked."""
    query = select(confirmation_due)
    if deal_ids is not None:
        query = query.where(confirmation_due.c.deal_id.in_(deal_ids))
    order = (
        *(confirmation_due.c.since, confirmation_due.c.deal_id),
        confirmation_due.c.is_cancellation,
    )
    rows = await conn.execute(query.order_by(*order).limit(limit))
    return [
        Due(deal_id=row.deal_id, is_cancellation=row.is_cancellation, since=row.since)
        for row in rows
    ]


async def count_due(conn: AsyncConnection) -> int:
    """Return how many versions have still to be written."""
    return int(await conn.scalar(select(func.count()).select_from(confirmation_due)) or 0)


async def delete_due(conn: AsyncConnection, done: Sequence[Due]) -> None:
    """Delete what is due no more."""
    if done:
        key = tuple_(confirmation_due.c.deal_id, confirmation_due.c.is_cancellation)
        keys = [(item.deal_id, item.is_cancellation) for item in done]
        await conn.execute(delete(confirmation_due).where(key.in_(keys)))


async def insert_confirmations(conn: AsyncConnection, items: Sequence[Confirmation]) -> None:
    """Insert confirmations, without a PDF, and record their events."""
    if items:
        await insert_rows(conn, confirmation, [_columns(item) for item in items])
    await record(conn, [_event(item, 1, item.issued_by, "", item.issued_at) for item in items])


async def get_confirmation(
    conn: AsyncConnection, confirmation_id: UUID, *, lock: bool = False
) -> Confirmation:
    """Return a confirmation, locked for this transaction if asked.

    Raises:
        NoConfirmation: none has this id.
    """
    query = select(*_SHOWN).where(confirmation.c.id == confirmation_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NoConfirmation(
            f"no confirmation {confirmation_id} is on record",
            remedy="Look at `causeway desk confirmations`; `desk confirm DEAL` issues what is due",
        )
    return confirmation_of(row)


async def list_of_deals(conn: AsyncConnection, deal_ids: Collection[UUID]) -> list[Confirmation]:
    """Return the confirmations of some deals, by trade and version."""
    return await _list(conn, _query().where(confirmation.c.deal_id.in_(deal_ids)))


async def list_of_trade(conn: AsyncConnection, trade_id: UUID) -> list[Confirmation]:
    """Return the versions of a trade, in order."""
    return await _list(conn, _query().where(confirmation.c.trade_id == trade_id))


async def read_pdf(conn: AsyncConnection, confirmation_id: UUID) -> bytes | None:
    """Return the PDF that was drawn of a confirmation, if one was."""
    pdf: bytes | None = await conn.scalar(
        select(confirmation.c.pdf).where(confirmation.c.id == confirmation_id)
    )
    return pdf


async def list_undrawn(conn: AsyncConnection, *, limit: int) -> list[Confirmation]:
    """Return the confirmations that have no PDF yet, oldest first."""
    query = select(*_SHOWN).where(confirmation.c.pdf_sha256.is_(None))
    return await _list(
        conn, query.order_by(confirmation.c.issued_at, confirmation.c.id).limit(limit)
    )


async def write_pdf(
    conn: AsyncConnection, item: Confirmation, pdf: bytes, pdf_sha256: str, *, now: datetime
) -> None:
    """Keep the PDF of the locked *item*, which has none yet."""
    await conn.execute(
        update(confirmation)
        .where(confirmation.c.id == item.id)
        .values(pdf=pdf, pdf_sha256=pdf_sha256, updated_at=now)
    )


async def advance(
    conn: AsyncConnection,
    item: Confirmation,
    state: ConfirmationState,
    *,
    by: str,
    reason: str,
    now: datetime,
) -> Confirmation:
    """Take the locked *item* to *state* and record the event."""
    CONFIRMATION_STATES.require(item.state, state)
    row = (
        await conn.execute(
            update(confirmation)
            .where(confirmation.c.id == item.id)
            .values(state=str(state), updated_at=now)
            .returning(*_SHOWN)
        )
    ).one()
    done = confirmation_of(row)
    version = await next_version(conn, CONFIRMATION, item.id)
    await record(conn, [_event(done, version, by, reason, now, before=item.state)])
    return done


async def insert_affirmation(conn: AsyncConnection, item: Affirmation, party: str) -> None:
    """Insert what somebody said to a confirmation; *party* is whose key signed, if one did."""
    await insert_rows(
        conn,
        affirmation,
        [
            {
                "id": item.id,
                "confirmation_id": item.confirmation_id,
                "verdict": str(item.verdict),
                "key_party": None if item.key_version is None else party,
                "key_version": item.key_version,
                "signature": item.signature,
                "evidence": item.evidence,
                "entered_by": item.entered_by,
                "approved_by": item.approved_by,
                "approval": item.approval,
                "reason": item.reason,
                "at": item.at,
            }
        ],
    )


async def list_affirmations(conn: AsyncConnection, confirmation_id: UUID) -> list[Affirmation]:
    """Return what was said to a confirmation, oldest first."""
    rows = await conn.execute(
        select(affirmation)
        .where(affirmation.c.confirmation_id == confirmation_id)
        .order_by(affirmation.c.at, affirmation.c.id)
    )
    return [
        Affirmation(
            id=row.id,
            confirmation_id=row.confirmation_id,
            verdict=Verdict(row.verdict),
            key_version=row.key_version,
            signature=row.signature,
            evidence=row.evidence,
            entered_by=row.entered_by,
            approved_by=row.approved_by,
            approval=row.approval,
            reason=row.reason,
            at=row.at,
        )
        for row in rows
    ]


async def insert_key(conn: AsyncConnection, item: ConfirmationKey, approval: bytes) -> bool:
    """Insert a key; False: its version or the key itself was taken just now."""
    return bool(
        await insert_rows(
            conn,
            confirmation_key,
            [
                {
                    "party": item.party,
                    "version": item.version,
                    "label": item.label,
                    "public_key": item.public_key,
                    "enrolled_by": item.enrolled_by,
                    "approved_by": item.approved_by,
                    "approval": approval,
                    "enrolled_at": item.enrolled_at,
                }
            ],
            known="ON CONFLICT DO NOTHING",
        )
    )


async def get_key(conn: AsyncConnection, party: str, version: int) -> ConfirmationKey:
    """Return a key of a party, locked for this transaction.

    Raises:
        NoConfirmationKey: the party has no such key.
    """
    query = select(confirmation_key).where(
        confirmation_key.c.party == party, confirmation_key.c.version == version
    )
    row = (await conn.execute(query.with_for_update())).one_or_none()
    if row is None:
        raise NoConfirmationKey(
            f"{party} has no confirmation key {version}",
            remedy="Look at `causeway desk confirmation-keys`",
        )
    return key_of(row)


async def list_keys(conn: AsyncConnection, party: str | None = None) -> list[ConfirmationKey]:
    """Return every key, those of before too, by party and version; of one party, if asked."""
    query = select(confirmation_key)
    if party is not None:
        query = query.where(confirmation_key.c.party == party)
    order = (confirmation_key.c.party, confirmation_key.c.version)
    return [key_of(row) for row in await conn.execute(query.order_by(*order))]


async def find_key_in_force(conn: AsyncConnection, public_key: bytes) -> ConfirmationKey | None:
    """Return the key that stands for these bytes now, whosesoever it is."""
    row = (
        await conn.execute(
            select(confirmation_key).where(
                confirmation_key.c.public_key == public_key,
                confirmation_key.c.revoked_at.is_(None),
            )
        )
    ).one_or_none()
    return None if row is None else key_of(row)


async def revoke_key(
    conn: AsyncConnection, item: ConfirmationKey, *, by: str, now: datetime
) -> ConfirmationKey:
    """Put the locked key out of force."""
    row = (
        await conn.execute(
            update(confirmation_key)
            .where(
                confirmation_key.c.party == item.party,
                confirmation_key.c.version == item.version,
            )
            .values(revoked_at=now, revoked_by=by)
            .returning(confirmation_key)
        )
    ).one()
    return key_of(row)


def confirmation_of(row: Row[Any]) -> Confirmation:
    """Return the value of a confirmation's row."""
    return Confirmation(
        id=row.id,
        book=row.book,
        deal_id=row.deal_id,
        trade_id=row.trade_id,
        version=row.version,
        kind=ConfirmationKind(row.kind),
        party=row.party,
        state=ConfirmationState(row.state),
        supersedes=row.supersedes,
        text=row.text,
        text_sha256=row.text_sha256,
        pdf_sha256=row.pdf_sha256,
        value_date=row.value_date,
        issued_by=row.issued_by,
        issued_at=row.issued_at,
        updated_at=row.updated_at,
    )


def key_of(row: Row[Any]) -> ConfirmationKey:
    """Return the value of a key's row."""
    return ConfirmationKey(
        party=row.party,
        version=row.version,
        label=row.label,
        public_key=row.public_key,
        enrolled_by=row.enrolled_by,
        approved_by=row.approved_by,
        enrolled_at=row.enrolled_at,
        revoked_at=row.revoked_at,
        revoked_by=row.revoked_by,
    )


def shown_columns() -> list[Any]:
    """Return the columns of a confirmation without its PDF, for queries that join it."""
    return list(_SHOWN)


def _query() -> Select[Any]:
    return select(*_SHOWN).order_by(confirmation.c.trade_id, confirmation.c.version)


async def _list(conn: AsyncConnection, query: Select[Any]) -> list[Confirmation]:
    return [confirmation_of(row) for row in await conn.execute(query)]


def _columns(item: Confirmation) -> dict[str, Any]:
    return {
        "id": item.id,
        "book": item.book,
        "deal_id": item.deal_id,
        "trade_id": item.trade_id,
        "version": item.version,
        "kind": str(item.kind),
        "party": item.party,
        "state": str(item.state),
        "supersedes": item.supersedes,
        "text": item.text,
        "text_sha256": item.text_sha256,
        "value_date": item.value_date,
        "issued_by": item.issued_by,
        "issued_at": item.issued_at,
        "updated_at": item.updated_at,
    }


def _event(
    item: Confirmation,
    version: int,
    by: str,
    reason: str,
    now: datetime,
    *,
    before: ConfirmationState | None = None,
) -> DomainEvent:
    return DomainEvent(
        entity_type=CONFIRMATION,
        entity_id=item.id,
        version=version,
        name="ConfirmationIssued" if before is None else _EVENTS[item.state],
        at=now,
        actor=by,
        reason=reason,
        from_state=None if before is None else str(before),
        to_state=str(item.state),
        payload={
            "deal": str(item.deal_id),
            "trade": str(item.trade_id),
            "version": item.version,
            "kind": str(item.kind),
            "party": item.party,
            "text_sha256": item.text_sha256,
        },
    )
