"""What stops a payout to a venue, asked anew at each step like every other gate of payouts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.payout_model import OWN_PARTY, ControlState, Payout
from custody.payout_tables import allowed_destination
from custody.venues.model import DEFAULT_POLICY, AddressState, TransferPolicy
from custody.venues.tables import venue_address


async def find_unverified(
    conn: AsyncConnection,
    payouts: Sequence[Payout],
    *,
    now: datetime,
    policy: TransferPolicy = DEFAULT_POLICY,
) -> dict[UUID, str]:
    """Return the payouts to venues whose address is not in force and lately confirmed, and why.

    The venue's word has to be there and not older than ``policy.verified_for``; the destination has to
    be allowed and past its cooling-off still.
    """
    going = [item for item in payouts if item.parsed_claim.venue is not None]
    if not going:
        return {}
    allowed, registered = allowed_destination, venue_address
    rows = await conn.execute(
        select(
            registered.c.venue,
            registered.c.account,
            registered.c.chain,
            registered.c.asset,
            registered.c.address,
            registered.c.verified_at,
        )
        .join(allowed, allowed.c.id == registered.c.destination_id)
        .where(
            registered.c.state == AddressState.ACTIVE,
            registered.c.address.in_({item.destination for item in going}),
            allowed.c.party == OWN_PARTY,
            allowed.c.state == ControlState.ACTIVE,
            allowed.c.usable_from <= now,
        )
    )
    words = {
        (f"{row.venue}/{row.account}", row.chain, row.asset, row.address): row.verified_at
        for row in rows
    }
    found: dict[UUID, str] = {}
    for item in going:
        venue = item.parsed_claim.venue or ""
        key = (venue, item.chain, item.asset, item.destination)
        if key not in words:
            found[item.id] = (
                f"{item.destination} is not a registered address of {venue} for {item.asset}"
            )
        elif words[key] is None or words[key] + policy.verified_for < now:
            found[item.id] = f"{venue} has not confirmed {item.destination} lately"
    return found
