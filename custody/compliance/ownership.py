"""Proof that a self-hosted address is a client's own: it signs a message that only we could have asked.

The message names the client, the address, a nonce and an end; it moves nothing and permits nothing.
Contracts that hold coins cannot sign so: for those the signed return of a test payment stands.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.errors import BadKey
from chain.evm.addresses import parse_address
from chain.keys.messages import recover_signer
from custody.compliance import store
from custody.compliance.model import AddressProof, ProofState
from custody.errors import NotPossible
from kernel.clock import iso
from kernel.errors import BadInput
from kernel.events import DomainEvent, record
from kernel.ids import derive_id
from registry.queries import get_chain, get_party

ENTITY: Final = "address_proof"
GOOD_FOR: Final = timedelta(days=1)
NONCE_BYTES: Final = 16

list_proofs = store.list_proofs
get_proof = store.get_proof


async def challenge(
    conn: AsyncConnection,
    party: str,
    chain: str,
    address: str,
    *,
    nonce: bytes,
    by: str,
    now: datetime,
) -> AddressProof:
    """Return the message that the holder of *address* has to sign within a day.

    Args:
        nonce: 16 random bytes, so that no signature made before can answer.

    Raises:
        BadAddress: the address is mistyped.
        Refused: the party or the chain is not registered.
    """
    if len(nonce) != NONCE_BYTES:
        raise BadInput(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
    await get_party(conn, party)
    await get_chain(conn, chain)
    address = parse_address(address)
    ends = now + GOOD_FOR
    new = AddressProof(
        id=derive_id(now, ENTITY, party, chain, address, nonce),
        party=party,
        chain=chain,
        address=address,
        message=compose(party, chain, address, nonce, ends),
        state=ProofState.ASKED,
        asked_at=now,
        expires_at=ends,
        signature=None,
        proven_at=None,
        version=1,
    )
    await store.insert_proof(conn, new)
    await record(conn, [_event(None, new, by, now)])
    return new


async def prove(
    conn: AsyncConnection, proof_id: UUID, signature: bytes, *, by: str, now: datetime
) -> AddressProof:
    """Take the signed message; the same signature again changes nothing.

    Raises:
        NotPossible: another key signed it, or its time is over.
    """
    proof = await store.get_proof(conn, proof_id, lock=True)
    if proof.state is ProofState.PROVEN and proof.signature == signature:
        return proof
    if proof.state is not ProofState.ASKED:
        raise NotPossible(f"the proof {proof.id} is {proof.state} already")
    if now >= proof.expires_at:
        raise NotPossible(
            f"the challenge ended at {iso(proof.expires_at)}", remedy="Ask for a new one"
        )
    try:
        signer = recover_signer(proof.message, signature)
    except BadKey as error:
        raise NotPossible(error.what, remedy=error.remedy) from error
    if signer != proof.address:
        raise NotPossible(
            f"{signer} signed the message, not {proof.address}",
            remedy="Sign exactly the message with the key of that address",
        )
    after = replace(
        proof,
        state=ProofState.PROVEN,
        signature=signature,
        proven_at=now,
        version=proof.version + 1,
    )
    await store.save_proof(conn, after)
    await record(conn, [_event(proof, after, by, now)])
    return after


def compose(party: str, chain: str, address: str, nonce: bytes, ends: datetime) -> str:
    """Return the message: for people to read before they sign it."""
    return (
        f"I hold the key of {address} on {chain} for the client {party}.\n"
        "Signing this moves no coins and permits nothing.\n"
        f"Nonce: {nonce.hex()}\n"
        f"Good until: {iso(ends)}"
    )


def _event(before: AddressProof | None, after: AddressProof, by: str, now: datetime) -> DomainEvent:
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=after.id,
        version=after.version,
        name=f"AddressProof{after.state.capitalize()}",
        at=now,
        actor=by,
        from_state=None if before is None else str(before.state),
        to_state=str(after.state),
        payload={"party": after.party, "chain": after.chain, "address": after.address},
    )
