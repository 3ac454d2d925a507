"""Limits of desks and parties: entered by one person, signed by another, never changed in place.

A version is written under the lock that the checks take, so what is being booked or written now is
judged wholly by the limits before or wholly by those after.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from kernel.events import DomainEvent, next_version, record
from kernel.ids import stable_id
from registry.authority import signing_bytes
from registry.model import Operator, Role
from registry.people import require_operator, require_second
from registry.queries import get_asset, get_party
from risk import store
from risk.errors import LimitsChanged
from risk.model import EVERY, DeskLimits, PartyLimits

DESK_ENTITY: Final = "desk-limits"
PARTY_ENTITY: Final = "party-limits"
REASON_LENGTH_MAX: Final = 500
MAY_SET: Final = (Role.TREASURER, Role.APPROVER, Role.ADMIN)


def desk_limits_bytes(limits: DeskLimits) -> bytes:
    """Return what the second person signs: these limits as the version that they carry."""
    return signing_bytes("risk.desk_limits", _desk_fields(limits))


def party_limits_bytes(limits: PartyLimits) -> bytes:
    """Return what the second person signs: these limits as the version that they carry."""
    return signing_bytes("risk.party_limits", _party_fields(limits))


async def desk_limits_of(conn: AsyncConnection, desk: str) -> DeskLimits | None:
    """Return what limits a desk: its own, else those of `EVERY`; None: nothing does."""
    return await store.find_desk_limits(conn, desk)


async def party_limits_of(conn: AsyncConnection, party: str) -> PartyLimits | None:
    """Return what limits a party: its own, else those of `EVERY`; None: nothing does."""
    found = await store.list_party_limits(conn, {party, EVERY})
    return found.get(party) or found.get(EVERY)


async def list_desk_limits(conn: AsyncConnection) -> list[DeskLimits]:
    """Return the limits in force that are on record, by desk; the default first."""
    return [item for _, item in sorted((await store.list_desk_limits(conn)).items())]


async def list_party_limits(conn: AsyncConnection) -> list[PartyLimits]:
    """Return the limits in force that are on record, by party; the default first."""
    return [item for _, item in sorted((await store.list_party_limits(conn)).items())]


async def set_desk_limits(
    conn: AsyncConnection,
    limits: DeskLimits,
    *,
    by: Operator,
    approver: Operator,
    signature: bytes,
    reason: str,
    now: datetime,
) -> DeskLimits:
    """Put limits of a desk (of all that have none: `EVERY`) into force, as the version they carry.

    Args:
        signature: the approver's, over `desk_limits_bytes`.

    Raises:
        LimitsChanged: the version is not the next one.
        UnknownRecord: the currency or an asset is not registered.
        SamePerson: the two are one.
        NotAuthorised: one of them may not, or the signature is not theirs or not of this.
    """
    _require_reason(reason)
    for code in (limits.currency, *limits.asset_units):
        await get_asset(conn, code)
    # The lock of the checks; of the default, that of every desk.
    if limits.desk == EVERY:
        await store.lock_house(conn)
    else:
        await store.lock_desk(conn, limits.desk)
    known = (await store.list_desk_limits(conn, {limits.desk})).get(limits.desk)
    _require_next(limits.desk, limits.version, 0 if known is None else known.version)
    first = await require_operator(conn, by, *MAY_SET)
    payload = desk_limits_bytes(limits)
    second = await require_second(
        conn, first, approver, *MAY_SET, payload=payload, signature=signature
    )
    approved = _approved(first, second, reason, now)
    if not await store.insert_desk_limits(conn, limits, approved=approved):
        raise LimitsChanged(f"the limits of desk {limits.desk} were changed just now")
    fields = _desk_fields(limits)
    await _record(conn, DESK_ENTITY, limits.desk, "DeskLimitsSet", fields, approved)
    return limits


async def set_party_limits(
    conn: AsyncConnection,
    limits: PartyLimits,
    *,
    by: Operator,
    approver: Operator,
    signature: bytes,
    reason: str,
    now: datetime,
) -> PartyLimits:
    """Put limits of a party (of all that have none: `EVERY`) into force, as the version they carry.

    Args:
        signature: the approver's, over `party_limits_bytes`.

    Raises:
        LimitsChanged: the version is not the next one.
        UnknownRecord: the party or the currency is not registered.
        SamePerson: the two are one.
        NotAuthorised: one of them may not, or the signature is not theirs or not of this.
    """
    _require_reason(reason)
    await get_asset(conn, limits.currency)
    if limits.party != EVERY:
        await get_party(conn, limits.party)
    in_force = await store.lock_party(conn, limits.party)
    _require_next(limits.party, limits.version, in_force)
    first = await require_operator(conn, by, *MAY_SET)
    payload = party_limits_bytes(limits)
    second = await require_second(
        conn, first, approver, *MAY_SET, payload=payload, signature=signature
    )
    approved = _approved(first, second, reason, now)
    await store.insert_party_limits(conn, limits, approved=approved)
    fields = _party_fields(limits)
    await _record(conn, PARTY_ENTITY, limits.party, "PartyLimitsSet", fields, approved)
    return limits


def _approved(first: Operator, second: Operator, reason: str, now: datetime) -> Mapping[str, Any]:
    return {
        "set_by": first.code,
        "approved_by": second.code,
        "reason": reason,
        "set_at": now,
    }


def _require_next(name: str, version: int, in_force: int) -> None:
    if version != in_force + 1:
        raise LimitsChanged(
            f"version {version} of the limits of {name} was signed, {in_force} is in force",
            remedy=f"Look at the limits as they are now and sign version {in_force + 1}",
        )


def _require_reason(reason: str) -> None:
    if not 0 < len(reason.strip()) <= len(reason) <= REASON_LENGTH_MAX:
        raise BadInput(f"limits are set for a reason of 1 to {REASON_LENGTH_MAX} characters")


def _desk_fields(limits: DeskLimits) -> dict[str, object]:
    return {
        "desk": limits.desk,
        "version": limits.version,
        "currency": limits.currency,
        "asset_units": {code: str(units) for code, units in limits.asset_units.items()},
        "venue_units": {code: str(units) for code, units in limits.venue_units.items()},
        "notional_units": _text(limits.notional_units),
        "order_notional_units": _text(limits.order_notional_units),
        "orders_per_minute": limits.orders_per_minute,
        "unknown_orders_max": limits.unknown_orders_max,
        "loss_units": _text(limits.loss_units),
        "book_age_max_ms": limits.book_age_max_ms,
    }


def _party_fields(limits: PartyLimits) -> dict[str, object]:
    return {
        "party": limits.party,
        "version": limits.version,
        "currency": limits.currency,
        "exposure_units": _text(limits.exposure_units),
        "settlement_units": _text(limits.settlement_units),
    }


def _text(units: int | None) -> str | None:
    return None if units is None else str(units)


async def _record(
    conn: AsyncConnection,
    entity: str,
    name: str,
    event: str,
    fields: Mapping[str, object],
    approved: Mapping[str, Any],
) -> None:
    entity_id = stable_id(entity, name)
    await record(
        conn,
        [
            DomainEvent(
                entity_type=entity,
                entity_id=entity_id,
                version=await next_version(conn, entity, entity_id),
                name=event,
                at=approved["set_at"],
                actor=f"{approved['set_by']} and {approved['approved_by']}",
                reason=approved["reason"],
                payload=dict(fields),
            )
        ],
    )
