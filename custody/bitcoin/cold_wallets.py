"""Which wallets no process has the keys of."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.rebalance.model import Tier
from custody.rebalance.store import find_active_rules
from registry.model import Wallet


async def is_cold(conn: AsyncConnection, wallet: Wallet) -> bool:
    """Tell whether people sign for a wallet by hand: it has cosigners, or a band says it is cold."""
    if wallet.cosigners:
        return True
    rules = await find_active_rules(conn)
    bands = () if rules is None else rules.bands
    return any(item.wallet == wallet.code and item.tier is Tier.COLD for item in bands)
