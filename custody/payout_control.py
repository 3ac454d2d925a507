"""The approval policy as two people make it: proposed by one, put in force by another."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.errors import NotPossible, UnknownRow
from custody.payout_model import POLICY_STATES, ApprovalPolicy, ControlState, PolicyRule
from custody.payout_policy import check_rules, from_document, to_document
from custody.payout_tables import payout_policy
from kernel.errors import Refused
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from registry.authority import require_role, signing_bytes, verify_signature
from registry.model import Role
from registry.queries import get_operator

ENTITY: Final = "payout_policy"
POLICY_VERB: Final = "payout_policy.approve"
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def propose_policy(
    conn: AsyncConnection, rules: tuple[PolicyRule, ...], *, by: str, now: datetime
) -> ApprovalPolicy:
    """Propose the next version of the approval policy; the one in force stays in force."""
    require_role(await get_operator(conn, by), Role.ADMIN)
    check_rules(rules)
    last = await conn.scalar(select(func.max(payout_policy.c.version)))
    version = int(last or 0) + 1
    await conn.execute(
        insert(payout_policy).values(
            version=version,
            rules=to_document(rules),
            state=ControlState.PROPOSED,
            proposed_by=by,
            proposed_at=now,
        )
    )
    policy = await get_policy(conn, version)
    await _tell(conn, policy, None, by, now)
    return policy


def policy_bytes(policy: ApprovalPolicy) -> bytes:
    """Return what the second administrator signs."""
    fields = {"version": policy.version, "rules": to_document(policy.rules)}
    return signing_bytes(POLICY_VERB, fields)


async def approve_policy(
    conn: AsyncConnection, version: int, *, by: str, signature: bytes, now: datetime
) -> ApprovalPolicy:
    """Put a proposed policy in force in place of the one before.

    Raises:
        Refused: the same administrator proposed it, the signature is wrong, or it was decided.
    """
    policy = await get_policy(conn, version, lock=True)
    operator = await get_operator(conn, by)
    require_role(operator, Role.ADMIN)
    if policy.proposed_by == by:
        raise Refused(f"{by} proposed this policy", remedy="Ask another administrator")
    if policy.state is not ControlState.PROPOSED:
        raise NotPossible(f"approval policy {version} is {policy.state} already")
    verify_signature(operator, policy_bytes(policy), signature)
    before = await find_active_policy(conn, lock=True)
    if before is not None:
        await _write(conn, before, ControlState.REVOKED, by, now)
    return await _write(conn, policy, ControlState.ACTIVE, by, now, signature=signature)


async def get_policy(conn: AsyncConnection, version: int, *, lock: bool = False) -> ApprovalPolicy:
    """Return one version of the policy."""
    statement = select(payout_policy).where(payout_policy.c.version == version)
    row = (await conn.execute(statement.with_for_update() if lock else statement)).one_or_none()
    if row is None:
        raise UnknownRow(f"there is no approval policy {version}")
    return _to_policy(row)


async def find_active_policy(conn: AsyncConnection, *, lock: bool = False) -> ApprovalPolicy | None:
    """Return the policy in force; None before there is one."""
    statement = select(payout_policy).where(payout_policy.c.state == ControlState.ACTIVE)
    row = (await conn.execute(statement.with_for_update() if lock else statement)).one_or_none()
    return None if row is None else _to_policy(row)


async def get_active_policy(conn: AsyncConnection) -> ApprovalPolicy:
    """Return the policy in force.

    Raises:
        NotPossible: there is none, so nothing may be paid.
    """
    policy = await find_active_policy(conn)
    if policy is None:
        raise NotPossible(
            "no approval policy is in force", remedy="Have two administrators make one"
        )
    return policy


async def _write(
    conn: AsyncConnection,
    policy: ApprovalPolicy,
    to: ControlState,
    by: str,
    now: datetime,
    **values: Any,
) -> ApprovalPolicy:
    POLICY_STATES.require(policy.state, to)
    if to is ControlState.ACTIVE:
        values["approved_by"] = by
    await conn.execute(
        update(payout_policy)
        .where(payout_policy.c.version == policy.version)
        .values(state=to, **values)
    )
    written = await get_policy(conn, policy.version)
    await _tell(conn, written, policy.state, by, now)
    return written


async def _tell(
    conn: AsyncConnection,
    policy: ApprovalPolicy,
    before: ControlState | None,
    by: str,
    now: datetime,
) -> None:
    # The entity's id must not depend on the time of the event: all versions of it share one life.
    entity = derive_id(EPOCH, ENTITY, policy.version)
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=entity,
        version=await next_version(conn, ENTITY, entity),
        name=f"PayoutPolicy{policy.state.capitalize()}",
        at=now,
        actor=by,
        from_state=before,
        to_state=policy.state,
        payload={"version": policy.version, "rules": to_document(policy.rules)},
    )
    await record(conn, [event])


def _to_policy(row: Row[Any]) -> ApprovalPolicy:
    return ApprovalPolicy(
        version=row.version,
        rules=from_document(row.rules),
        state=ControlState(row.state),
        proposed_by=row.proposed_by,
        approved_by=row.approved_by,
    )
