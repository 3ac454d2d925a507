"""Freeze switches: one person closes, two open, and every door asks before it lets coins pass.

A switch is closed for everything (global), a chain, an asset, a wallet or a client. `close` waits
for nobody: it is one row, in force for every door that looks once it is committed. A door that had
looked before ends as it would have without the freeze, and the next door on the way stops what it
let in: request, allocation, signing, the sending of bytes and the crediting of deposits each look
anew, and the signer has switches of its own that the same signatures close.

A process of ours may close without a signature, and then the signer knows nothing of it. Whoever closes
the same scope under a key makes it known: a person's freeze takes the place of the automatic one, and
where the house has a service, its key signs what processes closed (`sign_automatic`). A service closes
and never opens, here as in the signer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

from sqlalchemy import Row, and_, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from custody import errors, freeze_model
from custody.control_messages import ControlKind, Frozen, ScopeKind, Thawed, message_of
from custody.control_tables import freeze as freeze_table
from custody.errors import NotPossible, UnknownRow
from custody.freeze_model import FREEZE_STATES, FreezeState, freeze_bytes, thaw_bytes
from custody.payout_tables import payout_policy
from custody.restore_gate import BY as RESTORE
from custody.restore_gate import find_gate
from custody.signer_sync import queue_control
from kernel.clock import iso
from kernel.errors import BadInput, Refused
from kernel.events import DomainEvent, record
from kernel.ids import derive_id
from registry.authority import require_role, signatures_document, verify_signature
from registry.model import Operator, Role
from registry.queries import get_operator

Scope: TypeAlias = freeze_model.Scope
Freeze: TypeAlias = freeze_model.Freeze

ENTITY: Final = "freeze"
PAGE_MAX: Final = 500
REASON_LENGTH_MAX: Final = 500
OPENERS: Final = 2
SYSTEM: Final = "system:"

CLOSERS: Final = (
    Role.OPERATIONS,
    Role.TREASURER,
    Role.APPROVER,
    Role.FINANCE,
    Role.DEALER,
    Role.ADMIN,
)
MAY_OPEN: Final = (Role.TREASURER, Role.APPROVER, Role.ADMIN)


def derive_freeze_id(scope: Scope, now: datetime) -> UUID:
    """Return the id of the freeze that `close` makes at *now*; it is part of what is signed."""
    return derive_id(now, ENTITY, scope.kind, scope.name)


async def close(
    conn: AsyncConnection,
    scope: Scope,
    *,
    by: str,
    signature: bytes,
    reason: str,
    now: datetime,
) -> Freeze:
    """Stop everything of *scope*: one person does. What is closed already is returned as it is.

    Only what a process closed, and nobody signed, gives way: from now on this one stands, in the signer
    too.

    Args:
        conn: the caller's transaction.
        scope: what to stop.
        by: the operator.
        signature: Ed25519 over ``freeze_bytes(derive_freeze_id(scope, now), scope, reason)``.
        reason: why, for those who have to decide about opening it.
        now: the time.

    Raises:
        NotPossible: a freeze of the scope and of this very millisecond was opened or superseded.
        Refused: the operator is not active, or the signature is not theirs or not of this.
    """
    _require_reason(reason)
    operator = await get_operator(conn, by)
    require_role(operator, *CLOSERS)
    verify_signature(operator, freeze_bytes(derive_freeze_id(scope, now), scope, reason), signature)
    await _supersede(conn, scope, by=by, now=now)
    closed = await _close(conn, scope, by=by, signature=signature, reason=reason, now=now)
    if closed.closed_signature == signature:
        await _tell_signer(conn, closed, now)
    return closed


async def close_automatically(
    conn: AsyncConnection, scope: Scope, *, by: str, reason: str, now: datetime
) -> Freeze:
    """Stop everything of *scope* because a process of ours (``system:…``) found it unsafe.

    Raises:
        NotPossible: as for `close`; with a later time it is possible.
    """
    if not by.startswith(SYSTEM):
        raise BadInput(f"{by} is a person: a person signs", remedy="Call close")
    _require_reason(reason)
    return await _close(conn, scope, by=by, signature=None, reason=reason, now=now)


async def sign_automatic(
    conn: AsyncConnection, *, by: Operator, sign: Callable[[bytes], bytes], now: datetime
) -> list[Freeze]:
    """Sign, as the service *by*, what processes of ours closed; return what the signer is told now.

    Args:
        by: whose key it is; the signer takes it where it knows the operator.
        sign: the key; a computation, not a question to somebody outside.

    Raises:
        Refused: the operator is not active, or may not close.
    """
    require_role(by, *CLOSERS)
    unsigned = _in_force().where(freeze_table.c.signed_by.is_(None))
    rows = await conn.execute(
        unsigned.order_by(freeze_table.c.closed_at)
        .limit(PAGE_MAX)
        .with_for_update(skip_locked=True)
    )
    signed = []
    for item in [_to_freeze(row) for row in rows]:
        signature = sign(freeze_bytes(item.id, item.scope, item.closed_reason))
        await conn.execute(
            update(freeze_table)
            .where(freeze_table.c.id == item.id)
            .values(service_signature=signature, signed_by=by.code)
        )
        after = replace(item, closed_signature=signature, signed_by=by.code)
        await _tell_signer(conn, after, now)
        signed.append(after)
    return signed


async def open_again(
    conn: AsyncConnection,
    scope: Scope,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    now: datetime,
) -> Freeze:
    """Let things move again: two people each sign ``thaw_bytes(id of the freeze, reason)``.

    Raises:
        NotPossible: it is not closed.
        Refused: not two different people, one may not, or a signature is not theirs or not of this.
    """
    _require_reason(reason)
    found = await get_closed(conn, scope, lock=True)
    await _require_openers(conn, found, signatures, reason)
    FREEZE_STATES.require(found.state, FreezeState.OPEN)
    signed = signatures_document(signatures)
    await conn.execute(
        update(freeze_table)
        .where(freeze_table.c.id == found.id)
        .values(state=FreezeState.OPEN, opened_by=signed, opened_reason=reason, opened_at=now)
    )
    body = Thawed(id=found.id, reason=reason)
    await queue_control(conn, message_of(ControlKind.THAW, body, signatures), now=now)
    opened = await get_freeze(conn, found.id)
    await record(conn, [_event(opened, 2, "FreezeOpened", " and ".join(signed), reason, now)])
    return opened


async def get_closed(conn: AsyncConnection, scope: Scope, *, lock: bool = False) -> Freeze:
    """Return the freeze of exactly this scope that is in force.

    Raises:
        NotPossible: it is not frozen.
    """
    statement = _in_force().where(
        freeze_table.c.kind == scope.kind, freeze_table.c.name == scope.name
    )
    row = (await conn.execute(statement.with_for_update() if lock else statement)).one_or_none()
    if row is None:
        raise NotPossible(f"{scope} is not frozen")
    return _to_freeze(row)


async def find_freeze(
    conn: AsyncConnection, *, chain: str = "", asset: str = "", wallet: str = "", client: str = ""
) -> Freeze | None:
    """Return a freeze that is in force for any of these; a global one always is."""
    named = (
        (ScopeKind.GLOBAL, ""),
        (ScopeKind.CHAIN, chain),
        (ScopeKind.ASSET, asset),
        (ScopeKind.WALLET, wallet),
        (ScopeKind.CLIENT, client),
    )
    scopes = [
        and_(freeze_table.c.kind == kind, freeze_table.c.name == name)
        for kind, name in named
        if name or kind is ScopeKind.GLOBAL
    ]
    rows = await conn.execute(
        _in_force().where(or_(*scopes)).order_by(freeze_table.c.closed_at).limit(1)
    )
    row = rows.one_or_none()
    return await _find_restored(conn) if row is None else _to_freeze(row)


async def load_freezes(conn: AsyncConnection) -> tuple[Freeze, ...]:
    """Return every freeze in force, for a door that many pass at once (`freeze_model.find_match`).

    All of them, however many: of one scope there is one at most, and one that is left out does not hold.
    """
    rows = await conn.execute(_in_force().order_by(freeze_table.c.closed_at))
    restored = await _find_restored(conn)
    found = tuple(_to_freeze(row) for row in rows)
    return found if restored is None else (restored, *found)


async def require_open(
    conn: AsyncConnection, *, chain: str = "", asset: str = "", wallet: str = "", client: str = ""
) -> None:
    """Refuse while anything of these is frozen.

    Raises:
        Frozen: says what, since when and why.
    """
    found = await find_freeze(conn, chain=chain, asset=asset, wallet=wallet, client=client)
    if found is not None:
        raise refusal(found)


def refusal(found: Freeze) -> errors.Frozen:
    """Return the error that says what is frozen."""
    return errors.Frozen(
        f"{found.scope} is frozen since {iso(found.closed_at)} by {found.closed_by}:"
        f" {found.closed_reason}",
        where=f"freeze {found.id}",
        remedy="Two people can open it",
    )


async def get_freeze(conn: AsyncConnection, freeze_id: UUID) -> Freeze:
    """Return a freeze.

    Raises:
        UnknownRow: there is none with that id.
    """
    row = (
        await conn.execute(select(freeze_table).where(freeze_table.c.id == freeze_id))
    ).one_or_none()
    if row is None:
        raise UnknownRow(f"there is no freeze {freeze_id}")
    return _to_freeze(row)


async def list_freezes(
    conn: AsyncConnection, *, past: bool = False, limit: int = PAGE_MAX
) -> list[Freeze]:
    """Return the freezes in force, newest first; with *past* also those that were opened."""
    statement = select(freeze_table)
    if not past:
        statement = statement.where(freeze_table.c.state == FreezeState.CLOSED)
    ordered = statement.order_by(freeze_table.c.closed_at.desc(), freeze_table.c.id)
    return [_to_freeze(row) for row in await conn.execute(ordered.limit(min(limit, PAGE_MAX)))]


async def _close(
    conn: AsyncConnection,
    scope: Scope,
    *,
    by: str,
    signature: bytes | None,
    reason: str,
    now: datetime,
) -> Freeze:
    new_id = derive_freeze_id(scope, now)
    done = await conn.execute(
        insert(freeze_table)
        .values(
            id=new_id,
            kind=scope.kind,
            name=scope.name,
            state=FreezeState.CLOSED,
            closed_by=by,
            closed_signature=signature,
            signed_by=None if signature is None else by,
            closed_reason=reason,
            closed_at=now,
        )
        .on_conflict_do_nothing()
    )
    if done.rowcount != 1:
        rows = await conn.execute(
            _in_force().where(freeze_table.c.kind == scope.kind, freeze_table.c.name == scope.name)
        )
        row = rows.one_or_none()
        if row is None:
            raise NotPossible(
                f"{scope} had a freeze of this millisecond that no longer stands",
                where=f"freeze {new_id}",
                remedy="Close it again: a moment later it is another freeze",
            )
        return _to_freeze(row)
    closed = await get_freeze(conn, new_id)
    await record(conn, [_event(closed, 1, "FreezeClosed", by, reason, now)])
    return closed


async def _require_openers(
    conn: AsyncConnection, found: Freeze, signatures: Mapping[str, bytes], reason: str
) -> None:
    if len(signatures) < OPENERS:
        raise Refused(
            f"{len(signatures)} of {OPENERS} people would open {found.scope}",
            remedy="Two people open what one has closed",
        )
    payload = thaw_bytes(found.id, reason)
    for code, signature in sorted(signatures.items()):
        operator = await get_operator(conn, code)
        await _require_person(conn, code)
        require_role(operator, *MAY_OPEN)
        verify_signature(operator, payload, signature)


async def _require_person(conn: AsyncConnection, code: str) -> None:
    """Refuse an operator that any policy, in force now or before, names as a service."""
    named = payout_policy.c.document["services"].contains([code])
    in_force = payout_policy.c.state.not_in(("proposed", "rejected"))
    query = select(payout_policy.c.version).where(named, in_force).limit(1)
    if (await conn.execute(query)).first() is not None:
        raise Refused(f"{code} is a service, not a person", remedy="Two people open")


async def _supersede(conn: AsyncConnection, scope: Scope, *, by: str, now: datetime) -> None:
    """Let an automatic freeze that nobody signed give way to the one that is closed now."""
    unsigned = _in_force().where(
        freeze_table.c.kind == scope.kind,
        freeze_table.c.name == scope.name,
        freeze_table.c.signed_by.is_(None),
    )
    row = (await conn.execute(unsigned.with_for_update())).one_or_none()
    if row is None:
        return
    before = _to_freeze(row)
    FREEZE_STATES.require(before.state, FreezeState.SUPERSEDED)
    await conn.execute(
        update(freeze_table)
        .where(freeze_table.c.id == before.id)
        .values(state=FreezeState.SUPERSEDED)
    )
    after = replace(before, state=FreezeState.SUPERSEDED)
    reason = f"freeze {derive_freeze_id(scope, now)} stands in its place"
    await record(conn, [_event(after, 2, "FreezeSuperseded", by, reason, now)])


async def _tell_signer(conn: AsyncConnection, closed: Freeze, now: datetime) -> None:
    assert closed.closed_signature is not None
    assert closed.signed_by is not None
    scope = closed.scope
    body = Frozen(id=closed.id, scope=scope.kind, name=scope.name, reason=closed.closed_reason)
    signatures = {closed.signed_by: closed.closed_signature}
    await queue_control(conn, message_of(ControlKind.FREEZE, body, signatures), now=now)


async def _find_restored(conn: AsyncConnection) -> Freeze | None:
    """Return what the gate of a restore closes, as the global freeze that it is."""
    gate = await find_gate(conn)
    if gate is None:
        return None
    return Freeze(
        id=gate.id,
        scope=freeze_model.GLOBAL,
        state=FreezeState.CLOSED,
        closed_by=RESTORE,
        closed_signature=None,
        closed_reason=f"{gate.reason}. {gate.remedy}",
        closed_at=gate.since,
    )


def _require_reason(reason: str) -> None:
    if not 0 < len(reason) <= REASON_LENGTH_MAX:
        raise BadInput(f"a freeze has a reason of 1 to {REASON_LENGTH_MAX} characters")


def _in_force() -> Any:
    return select(freeze_table).where(freeze_table.c.state == FreezeState.CLOSED)


def _event(
    item: Freeze, version: int, name: str, by: str, reason: str, now: datetime
) -> DomainEvent:
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=item.id,
        version=version,
        name=name,
        at=now,
        actor=by,
        reason=reason,
        from_state=None if version == 1 else FreezeState.CLOSED,
        to_state=item.state,
        payload={"scope": str(item.scope)},
    )


def _to_freeze(row: Row[Any]) -> Freeze:
    return Freeze(
        id=row.id,
        scope=Scope(ScopeKind(row.kind), row.name),
        state=FreezeState(row.state),
        closed_by=row.closed_by,
        closed_signature=row.closed_signature or row.service_signature,
        signed_by=row.signed_by,
        closed_reason=row.closed_reason,
        closed_at=row.closed_at,
        opened_by=None
        if row.opened_by is None
        else {code: bytes.fromhex(text) for code, text in row.opened_by.items()},
        opened_reason=row.opened_reason,
        opened_at=row.opened_at,
    )
