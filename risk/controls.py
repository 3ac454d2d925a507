"""The switches of desks: one person or a machine tightens, two people loosen.

The house has a switch of its own (`EVERY`) that holds for every desk; the stricter of the two counts.

Locks: an order check holds the row of its desk until its orders are committed. Whoever tightens the
desk's switch locks that row, so what passes before is seen by the cancels that follow, and nothing
passes after. The house's switch is tightened under its own row and then the row of every desk; a desk
that had no row makes it under a share of the house's row, so that it can neither be missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from kernel.events import DomainEvent, next_version, record
from kernel.ids import stable_id
from registry.authority import require_role, signing_bytes, verify_signature
from registry.model import Role
from registry.queries import get_operator
from risk import store
from risk.errors import NotLooser, TwoPeopleNeeded
from risk.model import CONTROL_STATES, EVERY, SYSTEM, Control, ControlState, require_name

ENTITY: Final = "desk-control"
REASON_LENGTH_MAX: Final = 500
LOOSENERS: Final = 2
MAY_TIGHTEN: Final = (
    Role.DEALER,
    Role.OPERATIONS,
    Role.TREASURER,
    Role.APPROVER,
    Role.FINANCE,
    Role.ADMIN,
)
MAY_LOOSEN: Final = (Role.TREASURER, Role.APPROVER, Role.ADMIN)
_EVENTS: Final = {
    ControlState.ACTIVE: "DeskResumed",
    ControlState.REDUCING: "DeskReducing",
    ControlState.HALTED: "DeskHalted",
}


def loosen_bytes(desk: str, state: ControlState, reason: str, *, version: int) -> bytes:
    """Return what each of the two who loosen signs: of this very version, so it counts once."""
    return signing_bytes(
        "risk.loosen",
        {"desk": desk, "state": str(state), "reason": reason, "version": version},
    )


async def control_of(conn: AsyncConnection, desk: str, *, lock: bool = False) -> Control:
    """Return the switch that holds for *desk*: its own or the house's, whichever is stricter.

    Args:
        lock: take the desk's row for this transaction; what is read after that is what the next one
            to have the lock cannot change any more.
    """
    require_name(desk, "desk")
    if lock and desk != EVERY:
        await store.lock_desk(conn, desk)
    found = await store.list_controls(conn, {desk, EVERY})
    return stricter(found.get(desk), found.get(EVERY), desk)


def stricter(own: Control | None, house: Control | None, desk: str) -> Control:
    """Return the stricter of a desk's own switch and the house's; the desk's own where alike."""
    mine = own or Control(desk=desk, state=ControlState.ACTIVE)
    if house is None or house.state.strictness <= mine.state.strictness:
        return mine
    return house


async def own_control(conn: AsyncConnection, desk: str) -> Control:
    """Return exactly this switch, whatever the house's says; `EVERY` is the house's."""
    found = await store.list_controls(conn, {desk})
    return found.get(desk, Control(desk=desk, state=ControlState.ACTIVE))


async def list_controls(conn: AsyncConnection) -> list[Control]:
    """Return every switch that is on record, the house's first."""
    return sorted((await store.list_controls(conn)).values(), key=lambda item: item.desk)


async def set_control(
    conn: AsyncConnection,
    desk: str,
    state: ControlState,
    *,
    by: str,
    reason: str,
    now: datetime,
) -> Control:
    """Tighten a switch: one person, or a process of ours, does. One as strict stays as it is.

    Raises:
        TwoPeopleNeeded: it would loosen the switch.
        NotAuthorised: the operator is not active or may not.
        BadInput: there is no reason.
    """
    _require_reason(reason)
    if not by.startswith(SYSTEM):
        require_role(await get_operator(conn, by), *MAY_TIGHTEN)
    before = await _lock(conn, desk)
    if state is before.state:
        return before
    if state.strictness < before.state.strictness:
        raise TwoPeopleNeeded(
            f"desk {desk} is {before.state}: {before.reason}", remedy="Two people can loosen it"
        )
    return await _write(conn, before, state, by=by, reason=reason, now=now)


async def loosen(
    conn: AsyncConnection,
    desk: str,
    state: ControlState,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    now: datetime,
) -> Control:
    """Loosen a switch: two people each sign `loosen_bytes` of its version as it stands now.

    Raises:
        NotLooser: it is as loose already.
        TwoPeopleNeeded: they are not two different people.
        NotAuthorised: one may not, or a signature is not theirs or not of this.
    """
    _require_reason(reason)
    before = await _lock(conn, desk)
    if state.strictness >= before.state.strictness:
        raise NotLooser(f"desk {desk} is {before.state} already")
    payload = loosen_bytes(desk, state, reason, version=before.version)
    await _require_two(conn, signatures, payload)
    by = " and ".join(sorted(signatures))
    return await _write(conn, before, state, by=by, reason=reason, now=now)


async def _lock(conn: AsyncConnection, desk: str) -> Control:
    require_name(desk, "desk")
    if desk == EVERY:
        await store.lock_house(conn)
    else:
        await store.lock_desk(conn, desk)
    return (await store.list_controls(conn, {desk}))[desk]


async def _require_two(
    conn: AsyncConnection, signatures: Mapping[str, bytes], payload: bytes
) -> None:
    people = [await get_operator(conn, code) for code in sorted(signatures)]
    if len({person.public_key for person in people}) < LOOSENERS:
        raise TwoPeopleNeeded(
            f"{len(people)} of {LOOSENERS} people signed", remedy="Ask another operator"
        )
    for person in people:
        require_role(person, *MAY_LOOSEN)
        verify_signature(person, payload, signatures[person.code])


async def _write(
    conn: AsyncConnection,
    before: Control,
    state: ControlState,
    *,
    by: str,
    reason: str,
    now: datetime,
) -> Control:
    CONTROL_STATES.require(before.state, state)
    after = Control(
        desk=before.desk, state=state, reason=reason, by=by, since=now, version=before.version + 1
    )
    await store.update_control(conn, after)
    entity_id = stable_id(ENTITY, before.desk)
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=entity_id,
        version=await next_version(conn, ENTITY, entity_id),
        name=_EVENTS[state],
        at=now,
        actor=by,
        reason=reason,
        from_state=str(before.state),
        to_state=str(state),
        payload={"desk": before.desk, "version": after.version},
    )
    await record(conn, [event])
    return after


def _require_reason(reason: str) -> None:
    if not 0 < len(reason.strip()) <= len(reason) <= REASON_LENGTH_MAX:
        raise BadInput(f"a switch is turned for a reason of 1 to {REASON_LENGTH_MAX} characters")
