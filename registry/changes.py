"""Changing the registry: founded once, then every change is proposed by one and decided by another.

Locks are taken in one order: the proposal, the operators, the record.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from kernel.events import DomainEvent, record
from kernel.ids import derive_id
from kernel.money import Asset
from registry import store
from registry.decisions import (
    decide_approval,
    decide_coin,
    decide_contract,
    decide_founding,
    decide_keys,
    decide_proposal,
    decide_rejection,
    decide_scale,
)
from registry.errors import ChangeRefused, UnknownRecord
from registry.model import (
    BankAccount,
    Chain,
    ChainAsset,
    Founding,
    Operator,
    Proposal,
    ProposalState,
    Record,
    RecordKind,
    Versioned,
    Wallet,
)
from registry.records import kind_of, record_id, to_content

FOUNDER: Final = "system:founding"


async def found(conn: AsyncConnection, founding: Founding, *, now: datetime) -> None:
    """Write the first records of a database, as version 1.

    Raises:
        AlreadyFounded: anything is registered already.
        ChangeRefused: fewer than two administrators, a code twice, or a missing reference.
    """
    decide_founding(founding)
    await store.insert_genesis(conn, now)
    for item in founding.records:
        await _require_bookable(conn, item)
        await store.save_record(conn, item, version=1, proposal_id=None, now=now)
    await record(
        conn, [_registered(item, 1, FOUNDER, "founding", now) for item in founding.records]
    )


async def propose(
    conn: AsyncConnection, change: Record, *, by: str, reason: str, now: datetime
) -> Proposal:
    """Propose that *change* shall stand as it is given: a new record, or the next version of one.

    Args:
        by: code of an active administrator.
        reason: why; it is shown to whoever decides and is part of what they sign.

    Raises:
        NotAuthorised: *by* is no active administrator.
        ChangeRefused: nothing would change, or something that can never change.
    """
    if not reason.strip():
        raise BadInput("a change needs a reason", remedy="Say why, for whoever decides it")
    kind = kind_of(change)
    proposer = await _operator(conn, by)
    current = await store.find_record(conn, kind, change.code)
    decide_proposal(change, current, by=proposer)
    await _require_bookable(conn, change)
    base_version = 0 if current is None else current.version
    content = to_content(change)
    proposal = Proposal(
        id=derive_id(now, "proposal", kind, change.code, base_version, by, repr(content)),
        kind=kind,
        code=change.code,
        base_version=base_version,
        content=content,
        proposed_by=by,
        reason=reason,
        proposed_at=now,
        state=ProposalState.PROPOSED,
    )
    if not await store.insert_proposal(conn, proposal):
        return await store.get_proposal(conn, proposal.id)
    await record(conn, [_step(proposal, None, by=by, reason=reason, now=now)])
    return proposal


async def approve(
    conn: AsyncConnection, proposal_id: UUID, *, by: str, signature: bytes, now: datetime
) -> Versioned:
    """Approve a proposal and put it in force; return the record as it now stands.

    Args:
        by: code of an active administrator who did not propose it.
        signature: Ed25519, over `registry.decisions.approval_bytes`.

    Raises:
        NotAuthorised: the same person, no administrator, or a signature that does not hold.
        ChangeRefused: decided before, too old, overtaken, or in conflict with another record.
    """
    proposal = await store.get_proposal(conn, proposal_id, lock=True)
    operators = await _lock_operators(conn)
    current = await store.find_record(conn, proposal.kind, proposal.code, lock=True)
    changed = decide_approval(
        proposal,
        current,
        by=_of(operators, by),
        proposer=_of(operators, proposal.proposed_by),
        operators=operators.values(),
        signature=signature,
        now=now,
    )
    await _require_bookable(conn, changed)
    version = proposal.base_version + 1
    await store.save_record(conn, changed, version=version, proposal_id=proposal.id, now=now)
    await _close(conn, proposal, ProposalState.APPROVED, by, signature, proposal.reason, now)
    await record(conn, [_registered(changed, version, by, proposal.reason, now)])
    return Versioned(changed, version, now)


async def reject(
    conn: AsyncConnection,
    proposal_id: UUID,
    *,
    by: str,
    signature: bytes,
    reason: str,
    now: datetime,
) -> None:
    """Reject a proposal: it can never come into force.

    Args:
        signature: Ed25519, over `registry.decisions.approval_bytes` with verb `REJECT`.

    Raises:
        NotAuthorised: the same person, no administrator, or a signature that does not hold.
        ChangeRefused: it was decided before.
    """
    if not reason.strip():
        raise BadInput("a rejection needs a reason", remedy="Say why, for whoever proposed it")
    proposal = await store.get_proposal(conn, proposal_id, lock=True)
    operators = await _lock_operators(conn)
    decide_rejection(
        proposal,
        by=_of(operators, by),
        proposer=_of(operators, proposal.proposed_by),
        signature=signature,
    )
    await _close(conn, proposal, ProposalState.REJECTED, by, signature, reason, now)


async def _close(
    conn: AsyncConnection,
    proposal: Proposal,
    state: ProposalState,
    by: str,
    signature: bytes,
    reason: str,
    now: datetime,
) -> None:
    await store.decide_proposal(
        conn, proposal, state=state, by=by, signature=signature, reason=reason, now=now
    )
    await record(conn, [_step(proposal, state, by=by, reason=reason, now=now)])


async def _require_bookable(conn: AsyncConnection, item: Record) -> None:
    if isinstance(item, Wallet | BankAccount):
        await _require_own_name(conn, item)
    if isinstance(item, Wallet):
        found = await store.find_record(conn, RecordKind.CHAIN, item.chain)
        if found is not None and isinstance(found.record, Chain):
            decide_keys(item, found.record)
    if not isinstance(item, ChainAsset):
        return
    decide_contract(item)
    asset = await store.find_record(conn, RecordKind.ASSET, item.asset)
    chain = await store.find_record(conn, RecordKind.CHAIN, item.chain)
    # What is missing is refused by its own name, when the row is written.
    if asset is not None and isinstance(asset.record, Asset):
        decide_scale(item, asset.record)
    if chain is not None and isinstance(chain.record, Chain):
        decide_coin(item, chain.record)


async def _require_own_name(conn: AsyncConnection, item: Wallet | BankAccount) -> None:
    """Refuse a place of money that is called like one of the other sort: freezes know only the name."""
    other = RecordKind.WALLET if isinstance(item, BankAccount) else RecordKind.BANK_ACCOUNT
    if await store.find_record(conn, other, item.code) is not None:
        raise ChangeRefused(
            f"there is a {other.replace('_', ' ')} {item.code!r}", remedy="Choose another code"
        )


async def _operator(conn: AsyncConnection, code: str) -> Operator:
    operator = await store.get_record(conn, RecordKind.OPERATOR, code)
    assert isinstance(operator, Operator)
    return operator


async def _lock_operators(conn: AsyncConnection) -> dict[str, Operator]:
    # All of them, so that two changes at once cannot each remove the other's last administrator.
    found = await store.list_records(conn, RecordKind.OPERATOR, lock=True)
    return {v.record.code: v.record for v in found if isinstance(v.record, Operator)}


def _of(operators: dict[str, Operator], code: str) -> Operator:
    if code not in operators:
        raise UnknownRecord(f"there is no operator {code!r}", where="registry")
    return operators[code]


def _registered(item: Record, version: int, actor: str, reason: str, now: datetime) -> DomainEvent:
    kind = kind_of(item)
    return DomainEvent(
        entity_type=f"registry.{kind}",
        entity_id=record_id(kind, item.code),
        version=version,
        name="RecordRegistered" if version == 1 else "RecordChanged",
        at=now,
        actor=actor,
        reason=reason,
        payload=to_content(item),
    )


def _step(
    proposal: Proposal, decided: ProposalState | None, *, by: str, reason: str, now: datetime
) -> DomainEvent:
    names = {
        None: "ChangeProposed",
        ProposalState.APPROVED: "ChangeApproved",
        ProposalState.REJECTED: "ChangeRejected",
    }
    if decided is ProposalState.PROPOSED:
        raise ChangeRefused("a decision does not leave a proposal open")
    return DomainEvent(
        entity_type="registry.proposal",
        entity_id=proposal.id,
        version=1 if decided is None else 2,
        name=names[decided],
        at=now,
        actor=by,
        reason=reason,
        from_state=None if decided is None else str(ProposalState.PROPOSED),
        to_state=str(decided or ProposalState.PROPOSED),
        payload={"kind": str(proposal.kind), "code": proposal.code},
    )
