"""Manual prices: proposed by one person with a reason and an expiry, approved by another.

Approval signs exactly what was proposed and records the price, so that what used it can name it for
ever; when the override ends, nothing that used it changes.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.clock import iso
from kernel.errors import BadInput
from kernel.events import REASON_LENGTH_MAX, DomainEvent, next_version, record
from kernel.ids import derive_id
from kernel.money import Asset, Price
from marketdata.errors import NoOverride, OverrideRefused
from marketdata.model import PriceRecord, Quality
from marketdata.price_model import (
    OVERRIDE_LIFETIME_MAX,
    OVERRIDE_STATES,
    PROPOSAL_LIFETIME,
    Override,
    OverrideRequest,
    OverrideState,
    OverrideUse,
    PriceKind,
)
from marketdata.price_tables import price_override as table
from marketdata.prices import record_price
from registry.authority import require_role, signing_bytes, verify_signature
from registry.model import Operator, Role
from registry.queries import get_operator

ENTITY: Final = "price-override"
PROPOSERS: Final = (Role.DEALER, Role.FINANCE, Role.TREASURER)
DECIDERS: Final = (Role.APPROVER, Role.FINANCE, Role.TREASURER)
"""A dealer may propose a price; that it stands is for others to say."""

EVIDENCE_LENGTH_MAX: Final = 500
LISTED_MAX: Final = 500


async def propose_override(
    conn: AsyncConnection, request: OverrideRequest, *, by: str, now: datetime
) -> Override:
    """Propose a price; it stands once another person approved it. Again: the one there is.

    Raises:
        BadInput: no reason, no future, or a longer one than `OVERRIDE_LIFETIME_MAX`.
        NotAuthorised: the operator may not.
    """
    _require_possible(request, now)
    operator = await get_operator(conn, by)
    require_role(operator, *PROPOSERS)
    price = request.price
    item = Override(
        id=derive_id(
            now,
            *("price-override", price.base.code, price.quote.code, by),
            *(price.numerator, price.denominator, str(request.use), request.reason),
            *(iso(request.valid_from), iso(request.expires_at)),
        ),
        request=request,
        state=OverrideState.PROPOSED,
        proposed_by=operator.code,
        proposed_at=now,
    )
    done = await conn.execute(insert(table).values(**_row(item)).on_conflict_do_nothing())
    if done.rowcount:
        await _say(conn, item, None, "PriceOverrideProposed", by, request.reason, now)
    return await get_override(conn, item.id)


def override_bytes(item: Override, verb: str) -> bytes:
    """Return what the second person signs: *verb* is ``approve`` or ``reject``."""
    asked = item.request
    return signing_bytes(
        f"price-override.{verb}",
        {
            "override": item.id,
            "base": asked.price.base.code,
            "base_scale": asked.price.base.scale,
            "quote": asked.price.quote.code,
            "quote_scale": asked.price.quote.scale,
            "numerator": asked.price.numerator,
            "denominator": asked.price.denominator,
            "use": str(asked.use),
            "reason": asked.reason,
            "evidence": asked.evidence,
            "valid_from": asked.valid_from,
            "expires_at": asked.expires_at,
            "proposed_by": item.proposed_by,
        },
    )


async def approve_override(
    conn: AsyncConnection, override_id: UUID, *, by: str, signature: bytes, now: datetime
) -> Override:
    """Approve a proposed price: it is recorded, and stands from now or from when it says.

    Args:
        signature: Ed25519, over `override_bytes` with ``approve``.

    Raises:
        NoOverride: there is none.
        OverrideRefused: the same person, decided before, proposed too long ago, or expired.
        NotAuthorised: the operator may not, or did not sign exactly this.
    """
    item = await get_override(conn, override_id, lock=True)
    await _decider(conn, item, by, override_bytes(item, "approve"), signature)
    _require_open(item, now, OverrideState.APPROVED)
    recorded = await record_price(conn, _record_of(item, by, now), now=now)
    after = replace(
        item,
        state=OverrideState.APPROVED,
        decided_by=by,
        decided_at=now,
        price_id=recorded.id,
    )
    await _save(conn, after, signature)
    await _say(conn, after, item.state, "PriceOverrideApproved", by, item.request.reason, now)
    return after


async def reject_override(
    conn: AsyncConnection,
    override_id: UUID,
    *,
    by: str,
    signature: bytes,
    reason: str,
    now: datetime,
) -> Override:
    """Reject a proposed price: it can never stand.

    Args:
        signature: Ed25519, over `override_bytes` with ``reject``.

    Raises:
        NoOverride: there is none.
        OverrideRefused: the same person, or decided before.
        NotAuthorised: the operator may not, or did not sign exactly this.
    """
    item = await get_override(conn, override_id, lock=True)
    await _decider(conn, item, by, override_bytes(item, "reject"), signature)
    _require_state(item, OverrideState.REJECTED)
    after = replace(item, state=OverrideState.REJECTED, decided_by=by, decided_at=now)
    await _save(conn, after, signature)
    await _say(conn, after, item.state, "PriceOverrideRejected", by, _reason(reason), now)
    return after


async def revoke_override(
    conn: AsyncConnection, override_id: UUID, *, by: str, reason: str, now: datetime
) -> Override:
    """End an approved price before it expires: one who may decide is enough to stop it.

    Raises:
        NoOverride: there is none.
        OverrideRefused: it does not stand.
        NotAuthorised: the operator may not.
    """
    item = await get_override(conn, override_id, lock=True)
    require_role(await get_operator(conn, by), *DECIDERS)
    _require_state(item, OverrideState.REVOKED)
    if now >= item.request.expires_at:
        raise OverrideRefused(f"manual price {item.id} expired at {iso(item.request.expires_at)}")
    after = replace(item, state=OverrideState.REVOKED, ended_by=by, ended_at=now)
    await conn.execute(
        update(table)
        .where(table.c.id == item.id)
        .values(state=str(after.state), ended_by=by, ended_at=now)
    )
    await _say(conn, after, item.state, "PriceOverrideRevoked", by, _reason(reason), now)
    return after


async def get_override(conn: AsyncConnection, override_id: UUID, *, lock: bool = False) -> Override:
    """Return a manual price, locked for this transaction if asked.

    Raises:
        NoOverride: there is none.
    """
    query = select(table).where(table.c.id == override_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NoOverride(f"no manual price {override_id} is on record")
    return _override(row)


async def find_override(
    conn: AsyncConnection,
    base: str,
    quote: str,
    *,
    at: datetime,
    use: OverrideUse,
    known_at: datetime | None = None,
) -> Override | None:
    """Return the manual price of a pair that stands at a moment; of several, the newest approval.

    Args:
        known_at: take also one that was approved after the moment, by then, if two people signed
            that it stands at the moment and nobody has ended it.
    """
    rows = await conn.execute(
        select(table)
        .where(
            table.c.base == base,
            table.c.quote == quote,
            table.c.use == str(use),
            table.c.price_id.is_not(None),
            table.c.expires_at > at,
            table.c.valid_from <= at,
        )
        .order_by(table.c.decided_at.desc(), table.c.id.desc())
        .limit(LISTED_MAX)
    )
    return next((item for item in map(_override, rows) if item.stands(at, known_at)), None)


async def list_overrides(
    conn: AsyncConnection, *, standing_at: datetime | None = None, limit: int = LISTED_MAX
) -> list[Override]:
    """Return manual prices, newest first; with *standing_at* those that stand, or may come to."""
    query = select(table)
    if standing_at is not None:
        query = query.where(
            table.c.expires_at > standing_at, table.c.state.in_(("proposed", "approved"))
        )
    ordered = query.order_by(table.c.proposed_at.desc(), table.c.id.desc())
    return [_override(row) for row in await conn.execute(ordered.limit(min(limit, LISTED_MAX)))]


def _require_possible(request: OverrideRequest, now: datetime) -> None:
    _reason(request.reason)
    if len(request.evidence) > EVIDENCE_LENGTH_MAX:
        raise BadInput(f"evidence is at most {EVIDENCE_LENGTH_MAX} characters long")
    if request.price.base.code == request.price.quote.code:
        raise BadInput(f"{request.price.base.code} has no price in itself")
    if request.expires_at <= max(now, request.valid_from):
        raise BadInput("a manual price ends after it begins, and in the future")
    if request.expires_at - request.valid_from > OVERRIDE_LIFETIME_MAX:
        raise BadInput(f"a manual price stands for at most {OVERRIDE_LIFETIME_MAX.days} days")


def _require_open(item: Override, now: datetime, to: OverrideState) -> None:
    _require_state(item, to)
    if now - item.proposed_at > PROPOSAL_LIFETIME or now >= item.request.expires_at:
        raise OverrideRefused(
            f"manual price {item.id} was proposed at {iso(item.proposed_at)} to stand until"
            f" {iso(item.request.expires_at)}",
            remedy="Propose it again as the market is now",
        )


def _require_state(item: Override, to: OverrideState) -> None:
    if item.state is to or not OVERRIDE_STATES.allows(item.state, to):
        raise OverrideRefused(f"manual price {item.id} is {item.state}")


async def _decider(
    conn: AsyncConnection, item: Override, by: str, payload: bytes, signature: bytes
) -> Operator:
    operator, proposer = await get_operator(conn, by), await get_operator(conn, item.proposed_by)
    require_role(operator, *DECIDERS)
    if operator.code == proposer.code or operator.public_key == proposer.public_key:
        raise OverrideRefused(
            f"{operator.code} cannot decide what {proposer.code} proposed",
            remedy="Ask another operator",
        )
    verify_signature(operator, payload, signature)
    return operator


def _record_of(item: Override, by: str, now: datetime) -> PriceRecord:
    asked = item.request
    return PriceRecord(
        price=asked.price,
        kind=PriceKind.MANUAL,
        quality=Quality.MANUAL,
        constituents=(
            {
                "override": str(item.id),
                "proposed_by": item.proposed_by,
                "approved_by": by,
                "reason": asked.reason,
                "evidence": asked.evidence,
                "use": str(asked.use),
                "expires_at": asked.expires_at.isoformat(),
            },
        ),
        observed_at=now,
    )


def _reason(reason: str) -> str:
    if not 0 < len(reason.strip()) <= REASON_LENGTH_MAX:
        raise BadInput(f"a manual price has a reason of 1 to {REASON_LENGTH_MAX} characters")
    return reason


async def _save(conn: AsyncConnection, item: Override, signature: bytes) -> None:
    await conn.execute(
        update(table)
        .where(table.c.id == item.id)
        .values(
            state=str(item.state),
            decided_by=item.decided_by,
            decided_at=item.decided_at,
            signature=signature,
            price_id=item.price_id,
        )
    )


async def _say(
    conn: AsyncConnection,
    item: Override,
    before: OverrideState | None,
    name: str,
    by: str,
    reason: str,
    now: datetime,
) -> None:
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=item.id,
        version=await next_version(conn, ENTITY, item.id),
        name=name,
        at=now,
        actor=by,
        reason=reason,
        from_state=None if before is None else str(before),
        to_state=str(item.state),
        payload={
            "price": item.request.price.format(),
            "use": str(item.request.use),
            "price_id": "" if item.price_id is None else str(item.price_id),
        },
    )
    await record(conn, [event])


def _row(item: Override) -> dict[str, Any]:
    asked = item.request
    return {
        "id": item.id,
        "base": asked.price.base.code,
        "base_scale": asked.price.base.scale,
        "quote": asked.price.quote.code,
        "quote_scale": asked.price.quote.scale,
        "numerator": asked.price.numerator,
        "denominator": asked.price.denominator,
        "use": str(asked.use),
        "reason": asked.reason,
        "evidence": asked.evidence,
        "valid_from": asked.valid_from,
        "expires_at": asked.expires_at,
        "state": str(item.state),
        "proposed_by": item.proposed_by,
        "proposed_at": item.proposed_at,
    }


def _override(row: Row[Any]) -> Override:
    return Override(
        id=row.id,
        request=OverrideRequest(
            price=Price(
                Asset(row.base, row.base_scale),
                Asset(row.quote, row.quote_scale),
                row.numerator,
                row.denominator,
            ),
            use=OverrideUse(row.use),
            reason=row.reason,
            evidence=row.evidence,
            valid_from=row.valid_from,
            expires_at=row.expires_at,
        ),
        state=OverrideState(row.state),
        proposed_by=row.proposed_by,
        proposed_at=row.proposed_at,
        decided_by=row.decided_by,
        decided_at=row.decided_at,
        price_id=row.price_id,
        ended_by=row.ended_by,
        ended_at=row.ended_at,
    )
