"""Where a party's coins may go: proposed by one operator, allowed by another, then a cooling-off.

A destination is (party, chain, address). The second operator signs exactly that, so an address that
is swapped in between is refused. There is no other way for coins to leave to somebody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.evm.addresses import parse_address
from custody.errors import NotPossible, UnknownRow
from custody.payout_model import DESTINATION_STATES, AllowedDestination, ControlState
from custody.payout_tables import allowed_destination
from kernel.errors import BadInput, Refused
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from registry.authority import require_role, signing_bytes, verify_signature
from registry.model import Role
from registry.queries import get_chain, get_operator, get_party

ENTITY: Final = "allowed_destination"
ALLOW_VERB: Final = "destination.allow"
COOLING_OFF_MAX: Final = timedelta(days=30)
LABEL_LENGTH_MAX: Final = 120
PAGE_MAX: Final = 500

PROPOSERS: Final = (Role.OPERATIONS, Role.TREASURER, Role.ADMIN)
APPROVERS: Final = (Role.APPROVER, Role.TREASURER, Role.ADMIN)


async def propose_destination(
    conn: AsyncConnection,
    *,
    party: str,
    chain: str,
    address: str,
    label: str,
    by: str,
    now: datetime,
    cooling_off: timedelta = timedelta(0),
) -> AllowedDestination:
    """Propose that coins of *party* may go to *address*; nothing is allowed yet.

    Raises:
        Refused: it is proposed or allowed already, or the operator may not propose.
        BadAddress: the address is mistyped.
    """
    require_role(await get_operator(conn, by), *PROPOSERS)
    await get_party(conn, party)
    await get_chain(conn, chain)
    if not timedelta(0) <= cooling_off <= COOLING_OFF_MAX or len(label) > LABEL_LENGTH_MAX:
        raise BadInput(
            f"a cooling-off of {cooling_off} and a label of {len(label)} characters",
            remedy=f"At most {COOLING_OFF_MAX} and {LABEL_LENGTH_MAX}",
        )
    new_id = derive_id(now, "destination", party, chain, address)
    values = {
        "id": new_id,
        "party": party,
        "chain": chain,
        "address": parse_address(address),
        "label": label,
        "state": ControlState.PROPOSED,
        "proposed_by": by,
        "proposed_at": now,
        "cooling_off_s": int(cooling_off.total_seconds()),
    }
    done = await conn.execute(insert(allowed_destination).values(**values).on_conflict_do_nothing())
    if done.rowcount != 1:
        raise Refused(f"{address} on {chain} is proposed or allowed for {party} already")
    proposed = await get_destination(conn, new_id)
    await _tell(conn, proposed, None, by, now, "DestinationProposed")
    return proposed


def destination_bytes(destination: AllowedDestination) -> bytes:
    """Return what the second operator signs."""
    return signing_bytes(
        ALLOW_VERB,
        {
            "id": destination.id,
            "party": destination.party,
            "chain": destination.chain,
            "address": destination.address,
            "cooling_off_s": destination.cooling_off_s,
        },
    )


async def approve_destination(
    conn: AsyncConnection, destination_id: UUID, *, by: str, signature: bytes, now: datetime
) -> AllowedDestination:
    """Allow the destination; it can be paid to once its cooling-off is over.

    Raises:
        Refused: the same operator proposed it, the signature is wrong, or it was decided already.
    """
    found = await get_destination(conn, destination_id, lock=True)
    operator = await get_operator(conn, by)
    require_role(operator, *APPROVERS)
    if found.proposed_by == by:
        raise Refused(
            f"{by} proposed this destination", remedy="Ask another operator to approve it"
        )
    verify_signature(operator, destination_bytes(found), signature)
    return await _decide(
        conn,
        found,
        ControlState.ACTIVE,
        by,
        now,
        approved_by=by,
        signature=signature,
        usable_from=now + timedelta(seconds=found.cooling_off_s),
    )


async def reject_destination(
    conn: AsyncConnection, destination_id: UUID, *, by: str, reason: str, now: datetime
) -> AllowedDestination:
    """Refuse a proposed destination."""
    require_role(await get_operator(conn, by), *APPROVERS)
    found = await get_destination(conn, destination_id, lock=True)
    return await _decide(conn, found, ControlState.REJECTED, by, now, reason=reason)


async def revoke_destination(
    conn: AsyncConnection, destination_id: UUID, *, by: str, reason: str, now: datetime
) -> AllowedDestination:
    """Take the permission back, at once and by one person: it only makes things safer."""
    require_role(await get_operator(conn, by), *PROPOSERS, *APPROVERS)
    found = await get_destination(conn, destination_id, lock=True)
    return await _decide(conn, found, ControlState.REVOKED, by, now, reason=reason)


async def get_destination(
    conn: AsyncConnection, destination_id: UUID, *, lock: bool = False
) -> AllowedDestination:
    """Return a destination.

    Raises:
        UnknownRow: there is none with that id.
    """
    statement = select(allowed_destination).where(allowed_destination.c.id == destination_id)
    row = (await conn.execute(statement.with_for_update() if lock else statement)).one_or_none()
    if row is None:
        raise UnknownRow(f"there is no allowed destination {destination_id}")
    return _to_destination(row)


async def list_destinations(
    conn: AsyncConnection, *, party: str | None = None, limit: int = PAGE_MAX
) -> list[AllowedDestination]:
    """Return destinations, oldest first."""
    statement = select(allowed_destination).order_by(
        allowed_destination.c.proposed_at, allowed_destination.c.id
    )
    if party is not None:
        statement = statement.where(allowed_destination.c.party == party)
    rows = await conn.execute(statement.limit(min(limit, PAGE_MAX)))
    return [_to_destination(row) for row in rows]


async def require_allowed(
    conn: AsyncConnection, party: str, chain: str, address: str, *, now: datetime
) -> None:
    """Refuse unless coins of *party* may go to *address* now.

    Raises:
        NotPossible: it was never allowed, was revoked, or is still cooling off.
    """
    row = (
        await conn.execute(
            select(allowed_destination.c.usable_from).where(
                allowed_destination.c.party == party,
                allowed_destination.c.chain == chain,
                allowed_destination.c.address == address,
                allowed_destination.c.state == ControlState.ACTIVE,
            )
        )
    ).one_or_none()
    if row is None:
        raise NotPossible(
            f"{address} on {chain} is not an allowed destination of {party}",
            remedy="Have two operators allow it first",
        )
    if row.usable_from > now:
        raise NotPossible(
            f"{address} cools off until {row.usable_from.isoformat()}", remedy="Wait until then"
        )


async def _decide(
    conn: AsyncConnection,
    found: AllowedDestination,
    to: ControlState,
    by: str,
    now: datetime,
    *,
    reason: str = "",
    **values: Any,
) -> AllowedDestination:
    DESTINATION_STATES.require(found.state, to)
    if found.state is to:
        raise NotPossible(f"destination {found.id} is {to} already")
    await conn.execute(
        update(allowed_destination)
        .where(allowed_destination.c.id == found.id)
        .values(state=to, **values)
    )
    decided = await get_destination(conn, found.id)
    await _tell(conn, decided, found.state, by, now, f"Destination{to.capitalize()}", reason)
    return decided


async def _tell(
    conn: AsyncConnection,
    item: AllowedDestination,
    before: ControlState | None,
    by: str,
    now: datetime,
    name: str,
    reason: str = "",
) -> None:
    payload: Mapping[str, Any] = {
        "party": item.party,
        "chain": item.chain,
        "address": item.address,
        "cooling_off_s": item.cooling_off_s,
    }
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=item.id,
        version=await next_version(conn, ENTITY, item.id),
        name=name,
        at=now,
        actor=by,
        reason=reason,
        from_state=before,
        to_state=item.state,
        payload=payload,
    )
    await record(conn, [event])


def _to_destination(row: Row[Any]) -> AllowedDestination:
    values = {key: value for key, value in row._mapping.items() if key != "signature"}  # noqa: SLF001  the public name of a row's mapping
    return AllowedDestination(**{**values, "state": ControlState(row.state)})
