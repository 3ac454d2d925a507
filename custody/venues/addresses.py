"""Where venues take our coins: registered by two people, confirmed by the venue before each use.

A registration binds an account at a venue, an asset and the venue's network to a chain of ours and an
address on it. Both people sign exactly that; the address itself is an allowed destination of the party
``own``, signed by the same two, which is what the signer goes by. Where one address takes several
assets, one allowed destination serves them all.

The venue's own answer is asked for before a payment is requested, and again while it is on its way:
an address that the venue does not name any more is never paid to, and comes back only by being
registered anew.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.addressing import canonical_address
from custody.allow_list import (
    APPROVERS,
    PROPOSERS,
    approve_destination,
    draft_destination,
    get_destination,
    propose_destination,
)
from custody.errors import NotPossible
from custody.payout_model import OWN_PARTY, AllowedDestination, ControlState
from custody.payout_tables import allowed_destination
from custody.venues import store
from custody.venues.model import (
    ADDRESS_STATES,
    REASON_LENGTH_MAX,
    AddressState,
    Place,
    RegisteredAddress,
)
from kernel.clock import Clock, iso
from kernel.db import transact
from kernel.errors import BadInput, Refused
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from registry.authority import require_role, signing_bytes, verify_signature
from registry.queries import get_chain, get_chain_asset, get_operator, get_wallet
from venues.treasury_model import VenueAddress, same_address
from venues.treasury_ports import VenueTreasury

ENTITY: Final = "venue_address"
WORKER: Final = "system:venue-transfers"
REGISTER_VERB: Final = "venue_address.register"
WORD_LENGTH_MAX: Final = 64
NO_COOLING_OFF: Final = timedelta(0)


@dataclass(frozen=True, slots=True)
class Draft:
    """What a proposal would make; *destination* is None where the address is allowed already."""

    address: RegisteredAddress
    destination: AllowedDestination | None


async def draft_address(
    conn: AsyncConnection,
    *,
    place: Place,
    asset: str,
    network: str,
    chain: str,
    address: str,
    by: str,
    now: datetime,
    tag: str = "",
    cooling_off: timedelta = NO_COOLING_OFF,
    acknowledged: Sequence[str] = (),
) -> Draft:
    """Return the registration that a proposal at *now* would make, for its proposer to sign.

    Raises:
        Refused: the asset is not on the chain, the address must never be paid, or it needs a tag,
            which no transaction of ours can carry.
    """
    for what, word in (("venue", place.venue), ("account", place.account), ("network", network)):
        if not 0 < len(word) <= WORD_LENGTH_MAX:
            raise BadInput(f"{what} {word!r} has not 1 to {WORD_LENGTH_MAX} characters")
    on = await get_chain(conn, chain)
    await get_chain_asset(conn, chain, asset)
    if tag:
        raise NotPossible(
            f"{address} needs the tag {tag!r}, which no transaction on {chain} carries",
            remedy="Coins without it would be lost: ask the venue for an address of your own",
        )
    right = canonical_address(address, kind=on.kind, network_id=on.network_id)
    there = await _find_destination(conn, chain, right)
    draft = there or await draft_destination(
        conn,
        party=OWN_PARTY,
        chain=chain,
        address=right,
        label=f"our account {place}",
        by=by,
        now=now,
        cooling_off=cooling_off,
        acknowledged=acknowledged,
    )
    item = RegisteredAddress(
        id=derive_id(now, ENTITY, str(place), asset, chain, right),
        venue=place.venue,
        account=place.account,
        asset=asset,
        network=network,
        chain=chain,
        address=right,
        tag="",
        destination_id=draft.id,
        state=AddressState.PROPOSED,
        proposed_by=by,
        proposed_at=now,
        proposal_signature=b"",
    )
    return Draft(item, None if there else draft)


def address_bytes(item: RegisteredAddress) -> bytes:
    """Return what both people sign to register an address."""
    return signing_bytes(
        REGISTER_VERB,
        {
            "id": item.id,
            "venue": item.venue,
            "account": item.account,
            "asset": item.asset,
            "network": item.network,
            "chain": item.chain,
            "address": item.address,
            "tag": item.tag,
            "destination": item.destination_id,
            "proposed_at": iso(item.proposed_at),
        },
    )


async def propose_address(
    conn: AsyncConnection,
    *,
    place: Place,
    asset: str,
    network: str,
    chain: str,
    address: str,
    by: str,
    signature: bytes,
    destination_signature: bytes,
    now: datetime,
    tag: str = "",
    cooling_off: timedelta = NO_COOLING_OFF,
    acknowledged: Sequence[str] = (),
) -> RegisteredAddress:
    """Propose where the venue takes *asset*; nothing may go there yet.

    Args:
        place: our account at the venue.
        network: the venue's word for *chain*.
        by: the operator.
        signature: Ed25519 over `address_bytes` of `draft_address` of the same at *now*.
        destination_signature: over ``destination_bytes`` of the draft's destination; b"" where it has
            none.
        cooling_off: from the approval to the first use.
        acknowledged: known addresses that begin and end like this one.

    Raises:
        Refused: see `draft_address`; or one is proposed for the same already, the operator may not
            propose, or a signature is not theirs or not of this.
    """
    operator = await get_operator(conn, by)
    require_role(operator, *PROPOSERS)
    draft = await draft_address(
        conn,
        place=place,
        asset=asset,
        network=network,
        chain=chain,
        address=address,
        by=by,
        now=now,
        tag=tag,
        cooling_off=cooling_off,
        acknowledged=acknowledged,
    )
    verify_signature(operator, address_bytes(draft.address), signature)
    if draft.destination is not None:
        await propose_destination(
            conn,
            party=OWN_PARTY,
            chain=chain,
            address=draft.address.address,
            label=draft.destination.label,
            by=by,
            signature=destination_signature,
            now=now,
            cooling_off=cooling_off,
            acknowledged=acknowledged,
        )
    item = replace(draft.address, proposal_signature=signature)
    if not await store.insert_address(conn, item):
        raise Refused(f"an address of {place} for {asset} on {chain} is proposed already")
    await _tell(conn, item, None, by, now, "VenueAddressProposed")
    return item


async def approve_address(
    conn: AsyncConnection,
    address_id: UUID,
    *,
    by: str,
    signature: bytes,
    destination_signature: bytes,
    now: datetime,
) -> RegisteredAddress:
    """Let coins go there, once the venue confirms it and its cooling-off is over.

    Args:
        by: another operator than who proposed it.
        signature: over `address_bytes`.
        destination_signature: over ``destination_bytes`` of its destination, where that is only
            proposed; b"" where it is allowed already.

    Raises:
        Refused: the same operator proposed it, a signature is wrong, it was decided already, or
            another address is registered for the same, which has to be revoked first.
    """
    found = await store.get_address(conn, address_id, lock=True)
    operator = await get_operator(conn, by)
    require_role(operator, *APPROVERS)
    if found.proposed_by == by:
        raise Refused(f"{by} proposed this address", remedy="Ask another operator to approve it")
    ADDRESS_STATES.require(found.state, AddressState.ACTIVE)
    if found.state is not AddressState.PROPOSED:
        raise NotPossible(f"address {found.id} is {found.state} already")
    verify_signature(operator, address_bytes(found), signature)
    others = await store.list_addresses(
        conn,
        place=found.place,
        states={AddressState.ACTIVE},
        asset=found.asset,
        chain=found.chain,
    )
    if others:
        raise NotPossible(
            f"{others[0].address} is registered for {found.asset} on {found.chain} of {found.place}",
            remedy="Revoke it first",
        )
    destination = await get_destination(conn, found.destination_id, lock=True)
    if destination.state is ControlState.PROPOSED:
        await approve_destination(
            conn, destination.id, by=by, signature=destination_signature, now=now
        )
    elif destination.state is not ControlState.ACTIVE:
        raise NotPossible(
            f"{found.address} is a {destination.state} destination",
            remedy="Register the address anew",
        )
    return await _move(
        conn,
        found,
        AddressState.ACTIVE,
        by,
        now,
        "VenueAddressApproved",
        approved_by=by,
        approved_at=now,
        signature=signature,
    )


async def reject_address(
    conn: AsyncConnection, address_id: UUID, *, by: str, reason: str, now: datetime
) -> RegisteredAddress:
    """Refuse a proposed address."""
    require_role(await get_operator(conn, by), *APPROVERS)
    found = await store.get_address(conn, address_id, lock=True)
    return await _end(conn, found, AddressState.REJECTED, by, reason, now)


async def revoke_address(
    conn: AsyncConnection, address_id: UUID, *, by: str, reason: str, now: datetime
) -> RegisteredAddress:
    """Take it back, at once and by one person: it only makes things safer.

    The allowed destination of the signer is another row, which other assets may share:
    `custody.allow_list.revoke_destination` ends it.
    """
    require_role(await get_operator(conn, by), *PROPOSERS, *APPROVERS)
    found = await store.get_address(conn, address_id, lock=True)
    return await _end(conn, found, AddressState.REVOKED, by, reason, now)


async def verify_address(
    engine: AsyncEngine, treasury: VenueTreasury, address_id: UUID, *, clock: Clock
) -> RegisteredAddress:
    """Ask the venue for its deposit address and write down whether it still is this one.

    Return the registration as it is then: CHANGED where the venue names another address.

    Raises:
        VenueUnavailable: the venue does not answer; its last word stands.
        NotPossible: the registration is of another account.
    """
    found = await transact(engine, partial(store.get_address, address_id=address_id))
    if found.place != Place(treasury.venue, treasury.account):
        raise NotPossible(f"address {found.id} is of {found.place}")
    asked_at = clock.now()
    answer = await treasury.deposit_address(found.asset, found.network)
    return await transact(
        engine, partial(_write_answer, address_id=address_id, answer=answer, now=asked_at)
    )


async def find_route(
    conn: AsyncConnection, place: Place, wallet: str, asset: str
) -> RegisteredAddress:
    """Return the registration in force for an asset between a wallet and an account at a venue.

    It says where the venue takes the asset, and what it calls the wallet's chain.

    Raises:
        NotPossible: none is in force.
    """
    chain = (await get_wallet(conn, wallet)).chain
    found = await store.list_addresses(
        conn, place=place, states={AddressState.ACTIVE}, asset=asset, chain=chain
    )
    if not found:
        raise NotPossible(
            f"no address of {place} for {asset} on {chain} is registered: nobody has said where the"
            " venue takes it, and what it calls that network",
            remedy="Have two people register the address that the venue names",
        )
    return found[0]


async def find_registered(
    conn: AsyncConnection, places: Collection[str]
) -> list[RegisteredAddress]:
    """Return the addresses in force of these places (``<venue>/<account>``)."""
    found: list[RegisteredAddress] = []
    for text in sorted(places):
        found += await store.list_addresses(
            conn, place=Place.parse(text), states={AddressState.ACTIVE}
        )
    return found


async def _write_answer(
    conn: AsyncConnection, *, address_id: UUID, answer: VenueAddress, now: datetime
) -> RegisteredAddress:
    found = await store.get_address(conn, address_id, lock=True)
    if same_address(found.address, answer.address) and answer.tag == found.tag:
        later = found.verified_at is None or found.verified_at < now
        if later:
            await store.update_address(conn, found.id, verified_at=now)
        return await store.get_address(conn, found.id)
    if found.state is not AddressState.ACTIVE:
        return found
    tag = f" with the tag {answer.tag!r}" if answer.tag else ""
    reason = f"{found.place} names {answer.address}{tag}, not {found.address}"
    return await _end(conn, found, AddressState.CHANGED, WORKER, reason, now)


async def _end(
    conn: AsyncConnection,
    found: RegisteredAddress,
    to: AddressState,
    by: str,
    reason: str,
    now: datetime,
) -> RegisteredAddress:
    if found.state is to:
        return found
    reason = reason[:REASON_LENGTH_MAX]
    name = f"VenueAddress{to.capitalize()}"
    return await _move(conn, found, to, by, now, name, why=reason, reason=reason)


async def _move(
    conn: AsyncConnection,
    found: RegisteredAddress,
    to: AddressState,
    by: str,
    now: datetime,
    name: str,
    *,
    why: str = "",
    **values: object,
) -> RegisteredAddress:
    ADDRESS_STATES.require(found.state, to)
    await store.update_address(conn, found.id, state=to, **values)
    moved = await store.get_address(conn, found.id)
    await _tell(conn, moved, found.state, by, now, name, why)
    return moved


async def _find_destination(
    conn: AsyncConnection, chain: str, address: str
) -> AllowedDestination | None:
    table = allowed_destination
    row = await conn.scalar(
        select(table.c.id).where(
            table.c.party == OWN_PARTY,
            table.c.chain == chain,
            table.c.address == address,
            table.c.state.in_([ControlState.PROPOSED, ControlState.ACTIVE]),
        )
    )
    return None if row is None else await get_destination(conn, row)


async def _tell(
    conn: AsyncConnection,
    item: RegisteredAddress,
    before: AddressState | None,
    by: str,
    now: datetime,
    name: str,
    reason: str = "",
) -> None:
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
        payload={
            "place": str(item.place),
            "asset": item.asset,
            "network": item.network,
            "chain": item.chain,
            "address": item.address,
        },
    )
    await record(conn, [event])
