"""The approval policy as two people make it: proposed by one, put in force by another.

Both sign the same bytes, which are the message that the signer takes: so the pair of signatures is all
that is needed to tell it which policy is in force.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Row, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.control_messages import ControlKind, PolicyInForce, control_bytes, message_of
from custody.errors import NotPossible, UnknownRow
from custody.payout_model import POLICY_STATES, ControlState
from custody.payout_policy import check_document, with_block_all
from custody.payout_tables import payout_policy
from custody.policy_documents import from_document, to_document
from custody.policy_model import ApprovalPolicy, PolicyDocument
from custody.signer_sync import queue_control
from kernel.errors import Refused
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from registry.authority import require_role, verify_signature
from registry.model import Role
from registry.queries import get_operator

ENTITY: Final = "payout_policy"
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def draft_policy(
    conn: AsyncConnection, document: PolicyDocument, *, by: str, now: datetime
) -> ApprovalPolicy:
    """Return the next version with its last rule in place, for its proposer to sign; stores nothing.

    Raises:
        BadInput: the document lets something pass that nobody could mean.
    """
    document = with_block_all(document)
    check_document(document)
    last = await conn.scalar(select(func.max(payout_policy.c.version)))
    return ApprovalPolicy(
        version=int(last or 0) + 1,
        document=document,
        state=ControlState.PROPOSED,
        proposed_by=by,
        proposed_at=now,
    )


async def propose_policy(
    conn: AsyncConnection, document: PolicyDocument, *, by: str, signature: bytes, now: datetime
) -> ApprovalPolicy:
    """Propose the next version of the approval policy; the one in force stays in force.

    Args:
        conn: the caller's transaction.
        document: the rules; the one that blocks everything is added where it is missing.
        by: an administrator.
        signature: of `policy_bytes` of `draft_policy` of the same.
        now: the time.

    Raises:
        Refused: the operator is no administrator, the signature is wrong, or somebody else took
            the version meanwhile.
    """
    operator = await get_operator(conn, by)
    require_role(operator, Role.ADMIN)
    draft = await draft_policy(conn, document, by=by, now=now)
    verify_signature(operator, policy_bytes(draft), signature)
    done = await conn.execute(
        insert(payout_policy)
        .values(
            version=draft.version,
            document=to_document(draft.document),
            state=ControlState.PROPOSED,
            proposed_by=by,
            proposed_at=now,
            proposal_signature=signature,
        )
        .on_conflict_do_nothing()
    )
    if done.rowcount != 1:
        raise Refused(
            f"approval policy {draft.version} was proposed by somebody else just now",
            remedy="Look at it, then propose the next one",
        )
    policy = await get_policy(conn, draft.version)
    await _tell(conn, policy, None, by, now)
    return policy


def policy_bytes(policy: ApprovalPolicy) -> bytes:
    """Return what both administrators sign; the signer takes the same bytes."""
    return control_bytes(ControlKind.POLICY, _in_force(policy).plain())


def _in_force(policy: ApprovalPolicy) -> PolicyInForce:
    return PolicyInForce(version=policy.version, document=to_document(policy.document))


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
    if before is not None and before.version > version:
        raise NotPossible(
            f"approval policy {before.version} is in force, {version} is older",
            remedy="Propose it again: versions only grow",
        )
    if before is not None:
        await _write(conn, before, ControlState.REVOKED, by, now)
    active = await _write(conn, policy, ControlState.ACTIVE, by, now, signature=signature)
    signatures = {policy.proposed_by: policy.proposal_signature, by: signature}
    message = message_of(ControlKind.POLICY, _in_force(policy), signatures)
    await queue_control(conn, message, now=now)
    return active


async def get_policy(conn: AsyncConnection, version: int, *, lock: bool = False) -> ApprovalPolicy:
    """Return one version of the policy."""
    statement = select(payout_policy).where(payout_policy.c.version == version)
    row = (await conn.execute(statement.with_for_update() if lock else statement)).one_or_none()
    if row is None:
        raise UnknownRow(f"there is no approval policy {version}")
    return _to_policy(row)


async def load_policies(
    conn: AsyncConnection, versions: Collection[int]
) -> dict[int, ApprovalPolicy]:
    """Return versions of the policy by number."""
    rows = await conn.execute(select(payout_policy).where(payout_policy.c.version.in_(versions)))
    return {row.version: _to_policy(row) for row in rows}


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
        payload={"version": policy.version, "document": to_document(policy.document)},
    )
    await record(conn, [event])


def _to_policy(row: Row[Any]) -> ApprovalPolicy:
    return ApprovalPolicy(
        version=row.version,
        document=from_document(row.document),
        state=ControlState(row.state),
        proposed_by=row.proposed_by,
        proposed_at=row.proposed_at,
        proposal_signature=row.proposal_signature,
        approved_by=row.approved_by,
        signature=row.signature,
    )
