"""Addresses that were given out after a restore's moment: looked for in blocks that were read, withheld."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.follow import get_block, read_again
from chain.model import Block
from custody.model import Address
from custody.restore import store
from custody.restore.model import (
    HANDED_OUT,
    WHAT_LENGTH_MAX,
    Item,
    ItemState,
    Restore,
)
from custody.restore.signer_log import MARGIN
from custody.restore_gate import BY
from custody.skipped import Skip, list_skips, withhold
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id


async def look_after_given(conn: AsyncConnection, standing: Restore, *, now: datetime) -> None:
    """Have blocks of the lost hours read again, and withhold what was given out a second time.

    Called once, in the transaction in which everything that was sent is known again: what is skipped is
    watched by then, and no block was read since the restore was found.
    """
    skips = await list_skips(conn, restore_id=standing.id)
    if standing.worked_on is not False:
        for skip in skips:
            await _withhold(conn, standing, skip, now)
    since = standing.since - MARGIN
    for chain in sorted({skip.chain for skip in skips}):
        first = await read_again(conn, chain, since=since)
        if first is not None and (left := await _find_left_out(conn, chain, first - 1, since)):
            what = f"blocks up to {left.height} of {chain} since {since.isoformat()} are not read again"
            await store.save_item(conn, _item(standing, chain, ItemState.UNRESOLVED, what, now))


async def _find_left_out(
    conn: AsyncConnection, chain: str, height: int, since: datetime
) -> Block | None:
    """Return the highest block since the moment that is not read again: there were too many."""
    block = await get_block(conn, chain, height)
    if block is None or block.time < since or await get_block(conn, chain, height - 1) is None:
        # The very first block that was read is never read again.
        return None
    return block


async def _withhold(conn: AsyncConnection, standing: Restore, skip: Skip, now: datetime) -> None:
    if standing.since <= store.OLDEST:
        # It knows of no moment at all: everything it ever gave out would be nobody's.
        if skip.first:
            what = f"whose the {skip.first} addresses before are, nobody has looked: no moment is known"
            key = f"{skip.wallet}/{skip.branch}"
            await store.save_item(conn, _item(standing, key, ItemState.UNRESOLVED, what, now))
        return
    for address, party in await withhold(conn, skip, since=standing.since):
        what = (
            f"{address.address} was given to {party} ({address.purpose} {address.reference}) at"
            f" {address.assigned_at.isoformat()}, perhaps a second time: it is nobody's until it is"
            " given back"
        )
        item = _item(standing, path_of(address), ItemState.UNRESOLVED, what, now)
        await store.save_item(conn, item)
        await record(conn, [await _withheld(conn, address, party, now)])


def path_of(address: Address) -> str:
    """Return the key of an address among the items of what was handed out."""
    return f"{address.wallet}/{address.branch}/{address.index}"


def given_again(standing: Restore, address: Address, party: str, now: datetime) -> Item:
    """Return the item of an address that two people have given back to whom it was."""
    what = f"{address.address} is {party}'s"
    return _item(standing, path_of(address), ItemState.RESTORED, what, now)


def _item(standing: Restore, key: str, state: ItemState, what: str, now: datetime) -> Item:
    return Item(
        restore_id=standing.id,
        source=HANDED_OUT,
        key=key,
        state=state,
        what=what[:WHAT_LENGTH_MAX],
        found_at=now,
    )


async def _withheld(
    conn: AsyncConnection, address: Address, party: str, now: datetime
) -> DomainEvent:
    entity = derive_id(address.assigned_at, "address", address.chain, address.address)
    return DomainEvent(
        entity_type="address",
        entity_id=entity,
        version=await next_version(conn, "address", entity),
        name="AddressWithheld",
        at=now,
        actor=BY,
        reason="the database was restored, and may have given it to two",
        payload={
            "chain": address.chain,
            "address": address.address,
            "wallet": address.wallet,
            "path": f"{address.branch}/{address.index}",
            "purpose": str(address.purpose),
            "party": party,
        },
    )
