"""Where a party's coins may go: proposed by one operator, allowed by another, then a cooling-off.

A destination is (party, chain, address, kind). Both operators sign exactly that, the network id and
the cooling-off; the pair of signatures is the message that the signer takes. There is no other way
for coins to leave to somebody else, and an entry of one chain never counts on another: a contract has
to be there on that very chain (`record_code`) and to have sent something back (`record_return`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from banks.payee import Payee
from chain.addressing import canonical_address
from custody import control_store
from custody.control_messages import (
    ControlKind,
    DestinationAllowed,
    DestinationRevoked,
    control_bytes,
    message_of,
)
from custody.destinations import (
    find_look_alikes,
    is_contract,
    look_of,
    require_acknowledged,
    require_payable,
    told_as,
)
from custody.errors import NotPossible, UnknownRow
from custody.payout_control import find_active_policy
from custody.payout_model import (
    BANK_NETWORK_ID,
    DESTINATION_STATES,
    OWN_PARTY,
    AllowedDestination,
    ControlState,
    DestinationKind,
)
from custody.payout_tables import allowed_destination
from custody.signer_sync import queue_control
from kernel.clock import iso
from kernel.errors import BadInput, Refused
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from registry.authority import require_role, verify_signature
from registry.model import BANK, BITCOIN, Role
from registry.queries import find_bank_account, get_chain, get_operator, get_party

ENTITY: Final = "allowed_destination"
COOLING_OFF_MAX: Final = timedelta(days=30)
LABEL_LENGTH_MAX: Final = 120
ACKNOWLEDGED_MAX: Final = 20
PAGE_MAX: Final = 500

PROPOSERS: Final = (Role.OPERATIONS, Role.TREASURER, Role.ADMIN)
APPROVERS: Final = (Role.APPROVER, Role.TREASURER, Role.ADMIN)
KINDS: Final = frozenset({DestinationKind.EOA, DestinationKind.CONTRACT, DestinationKind.BANK})


async def draft_destination(
    conn: AsyncConnection,
    *,
    party: str,
    chain: str,
    address: str,
    label: str,
    by: str,
    now: datetime,
    cooling_off: timedelta = timedelta(0),
    kind: DestinationKind = DestinationKind.EOA,
    acknowledged: Sequence[str] = (),
) -> AllowedDestination:
    """Return the destination that a proposal at *now* would make, for its proposer to sign.

    Raises:
        Refused: it must never be paid, could be mistaken for another address that the proposer
            does not name, or cools off for less than the policy asks.
        BadAddress: the address is mistyped.
    """
    if party != OWN_PARTY:
        await get_party(conn, party)
    _require_form(kind, label, cooling_off, acknowledged)
    if (chain == BANK) != (kind is DestinationKind.BANK):
        raise BadInput(
            f"{kind} on {chain}", remedy=f"An account at a bank is of kind {BANK}, on {BANK}"
        )
    await _require_cooling_off(conn, cooling_off)
    if chain == BANK:
        right, chain_id = await _payee(conn, address), BANK_NETWORK_ID
    else:
        right, chain_id = await _address(conn, chain, address, kind)
    known = await control_store.list_known_addresses(conn, look_of(right))
    require_acknowledged(right, find_look_alikes(right, known), acknowledged)
    return AllowedDestination(
        id=derive_id(now, "destination", party, chain, right),
        party=party,
        chain=chain,
        chain_id=chain_id,
        address=right,
        kind=kind,
        label=label,
        state=ControlState.PROPOSED,
        proposed_by=by,
        proposed_at=now,
        cooling_off_s=int(cooling_off.total_seconds()),
        acknowledged=tuple(acknowledged),
    )


async def _payee(conn: AsyncConnection, text: str) -> str:
    """Return an account at a bank in its one spelling; refuse our own."""
    payee = Payee.parse(text)
    ours = await find_bank_account(conn, payee.iban)
    if ours is not None:
        raise NotPossible(f"{payee.iban} is our own account {ours.code}")
    return payee.text


async def _address(
    conn: AsyncConnection, chain: str, text: str, kind: DestinationKind
) -> tuple[str, int]:
    """Return an address in its one spelling, and the network id of its chain."""
    on = await get_chain(conn, chain)
    if on.kind == BITCOIN and kind is not DestinationKind.EOA:
        raise BadInput(f"{chain} has no contracts", remedy="Propose it as an eoa")
    right = canonical_address(text, kind=on.kind, network_id=on.network_id)
    ours, contracts = await control_store.find_ours_and_contracts(conn, right)
    require_payable(right, ours=ours, contracts=contracts)
    return right, on.network_id


async def propose_destination(
    conn: AsyncConnection,
    *,
    party: str,
    chain: str,
    address: str,
    label: str,
    by: str,
    signature: bytes,
    now: datetime,
    cooling_off: timedelta = timedelta(0),
    kind: DestinationKind = DestinationKind.EOA,
    acknowledged: Sequence[str] = (),
) -> AllowedDestination:
    """Propose that coins of *party* may go to *address*; nothing is allowed yet.

    Args:
        conn: the caller's transaction.
        party, chain: codes; ``bank`` for an account at a bank.
        address: in EIP-55; on Bitcoin any valid address of its network; of an account at a bank
            ``IBAN|BIC|name``.
        label: what people call it.
        by: the operator.
        signature: Ed25519 over `destination_bytes` of `draft_destination` of the same at *now*.
        now: the time.
        cooling_off: from the approval to the first use; at least what the policy asks.
        kind: ``eoa``, ``contract`` or ``bank``; a contract is proved before it is approved.
        acknowledged: known addresses that begin and end like this one, named by the proposer.

    Raises:
        Refused: see `draft_destination`; or it is proposed or allowed already, the operator may not
            propose, or the signature is not theirs or not of this.
    """
    operator = await get_operator(conn, by)
    require_role(operator, *PROPOSERS)
    draft = await draft_destination(
        conn,
        party=party,
        chain=chain,
        address=address,
        label=label,
        by=by,
        now=now,
        cooling_off=cooling_off,
        kind=kind,
        acknowledged=acknowledged,
    )
    verify_signature(operator, destination_bytes(draft), signature)
    values = {
        "id": draft.id,
        "party": party,
        "chain": chain,
        "chain_id": draft.chain_id,
        "address": draft.address,
        "kind": kind,
        "look": look_of(draft.address),
        "acknowledged": list(acknowledged),
        "label": label,
        "state": ControlState.PROPOSED,
        "proposed_by": by,
        "proposed_at": now,
        "proposal_signature": signature,
        "cooling_off_s": draft.cooling_off_s,
    }
    done = await conn.execute(insert(allowed_destination).values(**values).on_conflict_do_nothing())
    if done.rowcount != 1:
        raise Refused(f"{address} on {chain} is proposed or allowed for {party} already")
    proposed = await get_destination(conn, draft.id)
    await _tell(conn, proposed, None, by, now, "DestinationProposed")
    return proposed


def destination_bytes(destination: AllowedDestination) -> bytes:
    """Return what both operators sign; the signer takes the same bytes."""
    return control_bytes(ControlKind.DESTINATION_ALLOW, _terms(destination).plain())


def _terms(destination: AllowedDestination) -> DestinationAllowed:
    return DestinationAllowed(
        id=destination.id,
        party=destination.party,
        chain=destination.chain,
        chain_id=destination.chain_id,
        address=destination.address,
        kind=str(destination.kind),
        cooling_off_s=destination.cooling_off_s,
        proposed_at=iso(destination.proposed_at),
    )


def revocation_bytes(destination_id: UUID) -> bytes:
    """Return what the one who revokes signs; the signer takes the same bytes."""
    body = DestinationRevoked(id=destination_id)
    return control_bytes(ControlKind.DESTINATION_REVOKE, body.plain())


async def record_code(
    conn: AsyncConnection, destination_id: UUID, code: bytes, *, now: datetime
) -> AllowedDestination:
    """Store what is at a proposed destination: *code* as a gateway of its chain has just said.

    The question is asked outside any transaction (`chain.ports.ChainGateway.code_at`).

    Raises:
        NotPossible: a contract without code on this chain, a plain address with code, or decided.
    """
    found = await _lock_proposed(conn, destination_id)
    if is_contract(code) != (found.kind is DestinationKind.CONTRACT):
        there = f"code of {len(code)} bytes" if code else "no code"
        raise NotPossible(
            f"there is {there} at {found.address} on {found.chain}, so it is no {found.kind}",
            remedy="Reject it, and propose it as what it is on this chain",
        )
    digest = sha256(code).hexdigest()
    await _write(conn, found, code_hash=digest, code_checked_at=now)
    return await get_destination(conn, destination_id)


async def record_return(
    conn: AsyncConnection, destination_id: UUID, tx_hash: str, *, now: datetime
) -> AllowedDestination:
    """Store that a proposed contract has sent something back to us in transaction *tx_hash*.

    What it sent is a deposit, receipt or unattributed arrival whose sender is that contract on that
    chain: only who controls it there can have signed that.

    Raises:
        NotPossible: no such arrival is in a block, or the destination is decided.
    """
    found = await _lock_proposed(conn, destination_id)
    if not await control_store.has_arrived_from(conn, found.chain, found.address, tx_hash):
        raise NotPossible(
            f"nothing has come from {found.address} on {found.chain} in {tx_hash}",
            remedy="Have the contract itself send a small amount to one of our addresses there",
        )
    await _write(conn, found, return_tx=tx_hash, returned_at=now)
    return await get_destination(conn, destination_id)


async def approve_destination(
    conn: AsyncConnection, destination_id: UUID, *, by: str, signature: bytes, now: datetime
) -> AllowedDestination:
    """Allow the destination; it can be paid to once its cooling-off is over.

    Raises:
        Refused: the same operator proposed it, the signature is wrong, it was decided already, or
            a contract has not been proved to be there and to answer.
    """
    found = await get_destination(conn, destination_id, lock=True)
    operator = await get_operator(conn, by)
    require_role(operator, *APPROVERS)
    if found.proposed_by == by:
        raise Refused(
            f"{by} proposed this destination", remedy="Ask another operator to approve it"
        )
    verify_signature(operator, destination_bytes(found), signature)
    proved = found.code_hash is not None and found.return_tx is not None
    if found.kind is DestinationKind.CONTRACT and not proved:
        raise NotPossible(
            f"contract {found.address} is not proved to be on {found.chain} and to send back",
            remedy="Record its code and a transaction in which it has paid us",
        )
    allowed = await _decide(
        conn,
        found,
        ControlState.ACTIVE,
        by,
        now,
        approved_by=by,
        approved_at=now,
        signature=signature,
        usable_from=now + timedelta(seconds=found.cooling_off_s),
    )
    signatures = {found.proposed_by: found.proposal_signature, by: signature}
    # No key of the signer's pays through a bank.
    if found.kind is not DestinationKind.BANK:
        message = message_of(ControlKind.DESTINATION_ALLOW, _terms(found), signatures)
        await queue_control(conn, message, now=now)
    return allowed


async def reject_destination(
    conn: AsyncConnection, destination_id: UUID, *, by: str, reason: str, now: datetime
) -> AllowedDestination:
    """Refuse a proposed destination."""
    require_role(await get_operator(conn, by), *APPROVERS)
    found = await get_destination(conn, destination_id, lock=True)
    return await _decide(conn, found, ControlState.REJECTED, by, now, reason=reason)


async def revoke_destination(
    conn: AsyncConnection,
    destination_id: UUID,
    *,
    by: str,
    signature: bytes,
    reason: str,
    now: datetime,
) -> AllowedDestination:
    """Take the permission back, at once and by one person: it only makes things safer.

    Args:
        conn: the caller's transaction.
        destination_id: the entry; its id never comes back.
        by: the operator.
        signature: Ed25519 over ``revocation_bytes(destination_id)``.
        reason: why.
        now: the time.
    """
    operator = await get_operator(conn, by)
    require_role(operator, *PROPOSERS, *APPROVERS)
    found = await get_destination(conn, destination_id, lock=True)
    verify_signature(operator, revocation_bytes(destination_id), signature)
    revoked = await _decide(
        conn,
        found,
        ControlState.REVOKED,
        by,
        now,
        reason=reason,
        revoked_by=by,
        revoke_signature=signature,
    )
    if found.kind is not DestinationKind.BANK:
        body = DestinationRevoked(id=destination_id)
        message = message_of(ControlKind.DESTINATION_REVOKE, body, {by: signature})
        await queue_control(conn, message, now=now)
    return revoked


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


Place = tuple[str, str, str]
"""(party, chain, address)."""


async def find_allowed(
    conn: AsyncConnection, places: Collection[Place]
) -> dict[Place, AllowedDestination]:
    """Return the entries in force among (party, chain, address), cooling off or not."""
    if not places:
        return {}
    wanted = {address for _, _, address in places}
    rows = await conn.execute(
        select(allowed_destination).where(
            allowed_destination.c.address.in_(wanted),
            allowed_destination.c.party.in_({party for party, _, _ in places}),
            allowed_destination.c.state == ControlState.ACTIVE,
        )
    )
    found = {(row.party, row.chain, row.address): _to_destination(row) for row in rows}
    return {place: item for place, item in found.items() if place in places}


def require_usable(
    found: AllowedDestination | None, place: Place, *, now: datetime
) -> AllowedDestination:
    """Refuse unless there is an entry that has cooled off."""
    party, chain, address = place
    if found is None or found.usable_from is None:
        raise NotPossible(
            f"{address} on {chain} is not an allowed destination of {party}",
            remedy="Have two operators allow it first",
        )
    if found.usable_from > now:
        raise NotPossible(
            f"{address} cools off until {found.usable_from.isoformat()}", remedy="Wait until then"
        )
    return found


def _require_form(
    kind: DestinationKind, label: str, cooling_off: timedelta, acknowledged: Sequence[str]
) -> None:
    if kind not in KINDS:
        raise BadInput(f"a destination is an eoa, a contract or an account at a bank, not {kind}")
    if not timedelta(0) <= cooling_off <= COOLING_OFF_MAX or len(label) > LABEL_LENGTH_MAX:
        raise BadInput(
            f"a cooling-off of {cooling_off} and a label of {len(label)} characters",
            remedy=f"At most {COOLING_OFF_MAX} and {LABEL_LENGTH_MAX}",
        )
    if len(acknowledged) > ACKNOWLEDGED_MAX:
        raise BadInput(f"at most {ACKNOWLEDGED_MAX} similar addresses are acknowledged")


async def _require_cooling_off(conn: AsyncConnection, cooling_off: timedelta) -> None:
    policy = await find_active_policy(conn)
    asked = 0 if policy is None else policy.document.cooling_off_min_s
    if cooling_off.total_seconds() < asked:
        raise Refused(
            f"a cooling-off of {cooling_off} is shorter than the {timedelta(seconds=asked)}"
            " of the approval policy",
            remedy="Propose it with a longer one",
        )


async def _lock_proposed(conn: AsyncConnection, destination_id: UUID) -> AllowedDestination:
    found = await get_destination(conn, destination_id, lock=True)
    if found.state is not ControlState.PROPOSED:
        raise NotPossible(f"destination {destination_id} is {found.state} already")
    return found


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
    await _write(conn, found, state=to, **values)
    decided = await get_destination(conn, found.id)
    await _tell(conn, decided, found.state, by, now, f"Destination{to.capitalize()}", reason)
    return decided


async def _write(conn: AsyncConnection, found: AllowedDestination, **values: Any) -> None:
    await conn.execute(
        update(allowed_destination).where(allowed_destination.c.id == found.id).values(**values)
    )


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
        "address": told_as(item.address),
        "kind": item.kind,
        "cooling_off_s": item.cooling_off_s,
        "acknowledged": [told_as(text) for text in item.acknowledged],
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
    values = {key: value for key, value in row._mapping.items() if key != "look"}  # noqa: SLF001  the public name of a row's mapping
    return AllowedDestination(
        **{
            **values,
            "state": ControlState(row.state),
            "kind": DestinationKind(row.kind),
            "acknowledged": tuple(row.acknowledged),
        }
    )
