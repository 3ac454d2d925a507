"""Whether an API key may be used for trading: a key that can take the money away must not be."""

from __future__ import annotations

from venues.errors import KeyRefused
from venues.model import KeyPermissions
from venues.ports import VenueGateway


def key_fault(permissions: KeyPermissions, *, accept_unknown: bool) -> str | None:
    """Return what is wrong with a key for trading; None: nothing."""
    if permissions.withdraw:
        return "can withdraw"
    if permissions.withdraw is None and not accept_unknown:
        return "may be able to withdraw: the venue does not tell"
    if not permissions.trade:
        return "cannot trade"
    if not permissions.read:
        return "cannot read all that it has to"
    return None


async def require_trading_key(
    gateway: VenueGateway, *, accept_unknown: bool = False
) -> KeyPermissions:
    """Return what the gateway's key may do, if that is what a trading key should.

    Args:
        gateway: whose key is looked at.
        accept_unknown: somebody has made sure by other means that the key cannot withdraw, at a
            venue that does not tell.

    Raises:
        KeyRefused: the key may withdraw, or cannot trade or read.
        VenueUnavailable: the venue does not answer.
    """
    permissions = await gateway.permissions()
    fault = key_fault(permissions, accept_unknown=accept_unknown)
    if fault is None:
        return permissions
    remedy = (
        "Make sure in the venue's settings that it cannot, and accept that in the configuration"
        if permissions.withdraw is None
        else "Make a key for trading and for reading funds, orders, trades and ledger entries only; "
        "withdrawals have one of their own"
    )
    raise KeyRefused(f"the trading key of {gateway.venue}/{gateway.account} {fault}", remedy=remedy)
