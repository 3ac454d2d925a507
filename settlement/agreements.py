"""Netting agreements and standing settlement instructions: two people each.

One operator enters, another one signs exactly what was entered. A payout snapshots the version of
the instruction that it was made from, so a later change never redirects it.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.events import DomainEvent, next_version, record
from kernel.ids import stable_id
from registry.authority import require_role, signing_bytes, verify_signature
from registry.model import Operator, Role
from settlement import store
from settlement.errors import SamePerson
from settlement.model import Agreement, Rail


def agreement_bytes(agreement: Agreement, document_hash: str) -> bytes:
    """Return what the second operator signs to accept a netting agreement."""
    return signing_bytes(
        "settlement.agreement",
        {
            "party": agreement.party,
            "effective_from": agreement.effective_from.isoformat(),
            "prefunded": agreement.prefunded,
            "document": document_hash,
        },
    )


def standing_instruction_bytes(party: str, asset: str, rail: Rail, destination: str) -> bytes:
    """Return what the second operator signs to accept where a party is paid."""
    return signing_bytes(
        "settlement.standing_instruction",
        {"party": party, "asset": asset, "rail": str(rail), "destination": destination},
    )


async def agree(
    conn: AsyncConnection,
    agreement: Agreement,
    *,
    document_hash: str,
    by: Operator,
    approver: Operator,
    signature: bytes,
    now: datetime,
) -> None:
    """Put a netting agreement into force.

    Args:
        document_hash: SHA-256 of the signed agreement, kept elsewhere.
        signature: the approver's, over `agreement_bytes`.
    """
    _require_two(by, approver, agreement_bytes(agreement, document_hash), signature)
    await store.upsert_agreement(
        conn,
        party=agreement.party,
        effective_from=agreement.effective_from,
        prefunded=agreement.prefunded,
        agreed_by=by.code,
        approved_by=approver.code,
        document_hash=document_hash,
        at=now,
    )
    await _record(conn, "netting-agreement", agreement.party, "NettingAgreed", by, approver, now)


async def instruct(
    conn: AsyncConnection,
    *,
    party: str,
    asset: str,
    rail: Rail,
    destination: str,
    by: Operator,
    approver: Operator,
    signature: bytes,
    now: datetime,
) -> int:
    """Write where *party* is paid in *asset* from now on and return the version."""
    payload = standing_instruction_bytes(party, asset, rail, destination)
    _require_two(by, approver, payload, signature)
    version = await store.insert_standing_instruction(
        conn,
        party=party,
        asset=asset,
        rail=rail,
        destination=destination,
        proposed_by=by.code,
        approved_by=approver.code,
        at=now,
    )
    key = f"{party}/{asset}/{rail}"
    await _record(conn, "standing-instruction", key, "StandingInstructionSet", by, approver, now)
    return version


def _require_two(by: Operator, approver: Operator, payload: bytes, signature: bytes) -> None:
    if by.code == approver.code:
        raise SamePerson(f"{by.code} cannot approve what {by.code} entered")
    require_role(by, Role.TREASURER, Role.OPERATIONS)
    require_role(approver, Role.TREASURER, Role.APPROVER)
    verify_signature(approver, payload, signature)


async def _record(
    conn: AsyncConnection,
    entity_type: str,
    key: str,
    name: str,
    by: Operator,
    approver: Operator,
    now: datetime,
) -> None:
    entity_id = stable_id(entity_type, key)
    await record(
        conn,
        [
            DomainEvent(
                entity_type=entity_type,
                entity_id=entity_id,
                version=await next_version(conn, entity_type, entity_id),
                name=name,
                at=now,
                actor=by.code,
                reason=f"approved by {approver.code}",
                payload={"key": key},
            )
        ],
    )
