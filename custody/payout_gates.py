"""What may stop a payout between its approval and its block, asked anew at each step.

What was true when it was requested may not be any more: something is frozen, its destination is
revoked, a venue does not name it any more, compliance has not let it go, the wallet is above its cap or lacks coins. Then it waits, and
says why. Bytes that went out once are held back like those that did not: what is stopped is offered
to no node by us, and people may cancel it by conflict.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.compliance.cases import find_uncleared
from custody.freeze_model import find_match
from custody.freezes import load_freezes, refusal
from custody.lost_payouts import find_lost, reference_of
from custody.payout_model import ClaimKind, ControlState, Payout, PayoutState
from custody.payout_tables import allowed_destination
from custody.restore_gate import list_found_outside
from custody.signing_stops import find_signing_stop
from custody.venues.gates import find_unverified


async def find_frozen(conn: AsyncConnection, payouts: Sequence[Payout]) -> dict[UUID, str]:
    """Return which payouts a freeze switch stops, and why."""
    freezes = await load_freezes(conn)
    if not freezes:
        return {}
    found: dict[UUID, str] = {}
    for payout in payouts:
        claim = payout.parsed_claim
        match = find_match(
            freezes,
            chain=payout.chain,
            asset=payout.asset,
            wallet=payout.source_wallet,
            client="" if claim.kind is ClaimKind.OWN else claim.name,
        )
        if match is not None:
            found[payout.id] = refusal(match).what
    return found


async def find_stopped(
    conn: AsyncConnection, payouts: Sequence[Payout], *, now: datetime
) -> dict[UUID, str]:
    """Return which payouts may not get a nonce or a signature now, and why."""
    found = await _find_wallet_stops(conn, payouts)
    return found | await find_unsendable(conn, payouts, now=now)


async def find_unsendable(
    conn: AsyncConnection, payouts: Sequence[Payout], *, now: datetime
) -> dict[UUID, str]:
    """Return which payouts' bytes may not be offered to a node now, for the first time or again."""
    found = await _find_disallowed(conn, payouts, now)
    found |= await find_unverified(conn, payouts, now=now)
    found |= await find_uncleared(conn, payouts)
    found |= await _find_sent(conn, payouts)
    return found | await find_frozen(conn, payouts)


async def _find_sent(conn: AsyncConnection, payouts: Sequence[Payout]) -> dict[UUID, str]:
    """Return the payouts that are not sent here, and that a restore has found to be sent."""
    states = {PayoutState.APPROVED, PayoutState.ALLOCATED}
    unsent = {item.id: item for item in payouts if item.state in states}
    found = await list_found_outside(conn, unsent)
    # It may have been asked for again, under the same reference, before the restore was found.
    asked = {key: reference_of(item) for key, item in unsent.items()}
    lost = await find_lost(conn, set(asked.values()))
    found |= {key for key, reference in asked.items() if reference in lost}
    return dict.fromkeys(
        sorted(found),
        "it was sent before the database was restored, as `causeway restore` has found: cancel it",
    )


async def _find_disallowed(
    conn: AsyncConnection, payouts: Sequence[Payout], now: datetime
) -> dict[UUID, str]:
    """Return the payouts to destinations that are not, or no longer, on the party's allow-list."""
    to_others = [item for item in payouts if item.parsed_claim.kind is not ClaimKind.OWN]
    if not to_others:
        return {}
    table = allowed_destination
    keys = {(item.parsed_claim.name, item.chain, item.destination) for item in to_others}
    rows = await conn.execute(
        select(table.c.party, table.c.chain, table.c.address).where(
            table.c.state == ControlState.ACTIVE,
            table.c.usable_from <= now,
            table.c.party.in_({key[0] for key in keys}),
            table.c.address.in_({key[2] for key in keys}),
        )
    )
    allowed = {(row.party, row.chain, row.address) for row in rows}
    return {
        item.id: f"{item.destination} is not an allowed destination of {item.parsed_claim.name}"
        for item in to_others
        if (item.parsed_claim.name, item.chain, item.destination) not in allowed
    }


async def _find_wallet_stops(conn: AsyncConnection, payouts: Sequence[Payout]) -> dict[UUID, str]:
    """Return the payouts of wallets that sign nothing now."""
    asked = {_stop_key(item) for item in payouts}
    reasons = {
        key: await find_signing_stop(conn, key[1], key[2], own=key[3], book=key[0])
        for key in sorted(asked)
    }
    return {item.id: reasons[_stop_key(item)] for item in payouts if reasons[_stop_key(item)]}


def _stop_key(payout: Payout) -> tuple[int, str, str, bool]:
    own = payout.parsed_claim.kind is ClaimKind.OWN
    return payout.book, payout.source_wallet, payout.asset, own
