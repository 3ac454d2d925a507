"""Rule 6 of the account book: what is held for clients covers what clients are owed."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import payout_store as store
from custody.payout_model import VENUE_PREFIX
from ledger.coverage import count_payable_cover
from registry.queries import get_wallet


async def count_spare(conn: AsyncConnection, book: int, assets: Collection[str]) -> dict[str, int]:
    """Return by how much clients' holdings exceed what clients are owed, by asset.

    Payouts that are signed count as owed until their coins are gone, and so do the fees that live
    payouts may still cost. Coins on their way from clients to the house are gone already.
    """
    spare = await count_payable_cover(conn, book, assets)
    for asset, fees in (await store.sum_fee_caps(conn, book)).items():
        if asset in spare:
            spare[asset] -= fees
    for source, target, asset, amount in await store.list_own_transfers(conn, book):
        if asset in spare and await leaves_clients(conn, source, target):
            spare[asset] -= amount
    return spare


async def leaves_clients(conn: AsyncConnection, source: str, target: str) -> bool:
    """Tell whether coins that go from one place of ours to another leave clients' holdings.

    An account at a venue is the house's.
    """
    held = await get_wallet(conn, source)
    if target.startswith(VENUE_PREFIX):
        return held.holds_client_money
    kept = await get_wallet(conn, target)
    return held.holds_client_money and not kept.holds_client_money
