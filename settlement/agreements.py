"""Netting agreements and standing settlement instructions: two people each.

One operator enters, another one signs exactly what was entered, version number included, so that no
signature puts an old version back into force. A payout snapshots the version of the standing
instruction that it was made from, so a later change never redirects it.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.evm.addresses import parse_address
from kernel.errors import Refused
from kernel.events import DomainEvent, next_version, record
from kernel.ids import stable_id
from registry.authority import signing_bytes
from registry.model import Operator, PartyKind, Role
from registry.queries import get_asset, get_party
from settlement import store
from settlement.errors import ChangedMeanwhile
from settlement.model import Agreement, Rail
from settlement.people import require_operator, require_second, require_sha256


def agreement_bytes(agreement: Agreement, document_hash: str, *, version: int = 1) -> bytes:
    """Return what the second operator signs to accept *version* of a party's agreement."""
    return signing_bytes(
        "settlement.agreement",
        {
            "party": agreement.party,
            "effective_from": agreement.effective_from.isoformat(),
            "prefunded": agreement.prefunded,
            "document": document_hash,
            "version": version,
        },
    )


def standing_instruction_bytes(
    party: str, asset: str, rail: Rail, destination: str, *, version: int = 1
) -> bytes:
    """Return what the second operator signs to accept *version* of where a party is paid."""
    return signing_bytes(
        "settlement.standing_instruction",
        {
            "party": party,
            "asset": asset,
            "rail": str(rail),
            "destination": destination,
            "version": version,
        },
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
) -> int:
    """Put a netting agreement into force and return its version; the same one again: nothing.

    Args:
        document_hash: SHA-256 of the signed agreement, kept elsewhere.
        signature: the approver's, over `agreement_bytes` of the party's next version.

    Raises:
        Refused: the party cannot be prefunded, the people may not, or the signature is of
            another version.
    """
    require_sha256(document_hash, "agreement")
    party = await get_party(conn, agreement.party)
    if agreement.prefunded and party.kind is not PartyKind.CLIENT:
        raise Refused(
            f"{party.code} is a {party.kind} and holds no funds here to settle by book",
            remedy="Only a client can be prefunded",
        )
    known = await store.find_agreement(conn, agreement.party)
    if known is not None and known[:2] == (agreement, document_hash):
        return known[2]
    version = 1 if known is None else known[2] + 1
    payload = agreement_bytes(agreement, document_hash, version=version)
    first, second = await _two(conn, by, approver, payload, signature)
    if not await store.write_agreement(
        conn,
        agreement,
        version=version,
        agreed_by=first.code,
        approved_by=second.code,
        document_hash=document_hash,
        at=now,
    ):
        raise ChangedMeanwhile(f"the agreement of {agreement.party} was changed just now")
    details = {
        "effective_from": agreement.effective_from.isoformat(),
        "prefunded": agreement.prefunded,
        "document": document_hash,
    }
    await _record(
        conn, "netting-agreement", agreement.party, "NettingAgreed", details, first, second, now
    )
    return version


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
    """Write where *party* is paid in *asset* from now on and return the version.

    What is in force already is left as it is.

    Args:
        signature: the approver's, over `standing_instruction_bytes` of the next version.

    Raises:
        BadAddress: the destination is no address of the rail.
        Refused: the people may not, or the signature is of another version.
    """
    await get_party(conn, party)
    await get_asset(conn, asset)
    if rail is not Rail.EVM:
        raise Refused(
            f"nobody is paid out by {rail}", remedy="A book settlement credits the party's account"
        )
    parse_address(destination)
    known = await store.find_standing_instruction(conn, party, asset, rail)
    if known is not None and known[0] == destination:
        return known[1]
    version = 1 if known is None else known[1] + 1
    payload = standing_instruction_bytes(party, asset, rail, destination, version=version)
    first, second = await _two(conn, by, approver, payload, signature)
    if not await store.insert_standing_instruction(
        conn,
        party=party,
        asset=asset,
        rail=rail,
        version=version,
        destination=destination,
        proposed_by=first.code,
        approved_by=second.code,
        at=now,
    ):
        raise ChangedMeanwhile(f"where {party} is paid in {asset} was changed just now")
    key = f"{party}/{asset}/{rail}"
    await _record(
        conn,
        "standing-instruction",
        key,
        "StandingInstructionSet",
        {"destination": destination, "standing_version": version},
        first,
        second,
        now,
    )
    return version


async def _two(
    conn: AsyncConnection, by: Operator, approver: Operator, payload: bytes, signature: bytes
) -> tuple[Operator, Operator]:
    first = await require_operator(conn, by, Role.TREASURER, Role.OPERATIONS)
    second = await require_second(
        conn,
        first,
        approver,
        Role.TREASURER,
        Role.APPROVER,
        payload=payload,
        signature=signature,
    )
    return first, second


async def _record(
    conn: AsyncConnection,
    entity_type: str,
    key: str,
    name: str,
    details: dict[str, object],
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
                payload={"key": key, **details},
            )
        ],
    )
