"""What Kraken answers when it refuses: texts of the form `<severity><category>:<type>[:<detail>]`.

Sources: support.kraken.com, API error messages; docs.kraken.com, REST API reference; texts that the
unmodified ccxt classes match on. The text of a repeated client id is what clients report of the venue.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from venues.simulator.errors import Refusal, VenueRefusal

_Result = TypeVar("_Result")


class KrakenRefusal(Exception):
    """A request the venue answers with one of its error texts."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


INVALID_KEY: Final = "EAPI:Invalid key"
INVALID_SIGNATURE: Final = "EAPI:Invalid signature"
INVALID_NONCE: Final = "EAPI:Invalid nonce"
CALLS_EXCEEDED: Final = "EAPI:Rate limit exceeded"
ORDERS_EXCEEDED: Final = "EOrder:Rate limit exceeded"
OPEN_ORDERS_EXCEEDED: Final = "EOrder:Orders limit exceeded"
PERMISSION_DENIED: Final = "EGeneral:Permission denied"
UNKNOWN_METHOD: Final = "EGeneral:Unknown method"
UNKNOWN_ORDER: Final = "EOrder:Unknown order"
UNKNOWN_PAIR: Final = "EQuery:Unknown asset pair"
UNKNOWN_ASSET: Final = "EQuery:Unknown asset"
DEADLINE_ELAPSED: Final = "EService:Deadline elapsed"
INVALID_SESSION: Final = "ESession:Invalid session"
NOT_UNIQUE: Final = "EGeneral:Invalid arguments:cl_ord_id not unique"
ORDER_MINIMUM: Final = "EOrder:Order minimum not met"
COST_MINIMUM: Final = "EOrder:Cost minimum not met"
MARGIN_REFUSED: Final = "EOrder:Margin trading not allowed"
REDUCE_ONLY_REFUSED: Final = "EOrder:Reduce only:No position exists"
UNKNOWN_WITHDRAW_KEY: Final = "EFunding:Unknown withdraw key"
NO_FUNDING_METHOD: Final = "EFunding:No funding method"

_SPELLED: Final = {
    Refusal.UNKNOWN_SYMBOL: UNKNOWN_PAIR,
    Refusal.UNKNOWN_ASSET: UNKNOWN_ASSET,
    Refusal.UNKNOWN_NETWORK: NO_FUNDING_METHOD,
    Refusal.UNKNOWN_ORDER: UNKNOWN_ORDER,
    Refusal.UNKNOWN_WITHDRAWAL: "EFunding:Unknown reference id",
    Refusal.UNKNOWN_ADDRESS: UNKNOWN_WITHDRAW_KEY,
    Refusal.BELOW_MINIMUM: ORDER_MINIMUM,
    Refusal.DUPLICATE_ORDER: NOT_UNIQUE,
    Refusal.INSUFFICIENT_FUNDS: "EOrder:Insufficient funds",
    Refusal.NO_LIQUIDITY: "EOrder:Insufficient liquidity",
    Refusal.WOULD_TAKE: "EOrder:Post only order",
    Refusal.WOULD_TRIGGER: "EOrder:Invalid price:trigger price already passed",
    Refusal.INVALID_ORDER: "EOrder:Invalid order",
    Refusal.INVALID_AMENDMENT: "EOrder:Invalid order",
}

# Funding says other words than trading for the same reasons.
_SPELLED_OF_FUNDS: Final = {
    Refusal.UNKNOWN_ASSET: "EFunding:Unknown asset",
    Refusal.BELOW_MINIMUM: "EFunding:Invalid amount",
    Refusal.INSUFFICIENT_FUNDS: "EFunding:Insufficient funds",
}


def spelled(refusal: VenueRefusal) -> str:
    """Kraken's words for why the exchange refused a command about an order."""
    return _SPELLED.get(refusal.refusal) or _argument(refusal)


def spelled_of_funds(refusal: VenueRefusal) -> str:
    """Kraken's words for why the exchange refused a movement of funds."""
    return _SPELLED_OF_FUNDS.get(refusal.refusal) or spelled(refusal)


def invalid(argument: str) -> KrakenRefusal:
    """An argument is missing or malformed."""
    return KrakenRefusal(f"EGeneral:Invalid arguments:{argument}")


def too_precise(pair: str, what: str, decimals: int) -> KrakenRefusal:
    """A price or volume has more decimals than the pair allows."""
    return KrakenRefusal(
        f"EOrder:Invalid price:{pair} {what} can only be specified up to {decimals} decimals."
    )


def translated(act: Callable[[], _Result], *, of_funds: bool = False) -> _Result:
    """Do something with the exchange; its refusal is spelled as Kraken's.

    Raises:
        KrakenRefusal: the exchange refused.
    """
    try:
        return act()
    except VenueRefusal as refusal:
        raise KrakenRefusal((spelled_of_funds if of_funds else spelled)(refusal)) from refusal


def _argument(refusal: VenueRefusal) -> str:
    detail = f":{refusal.subject}" if refusal.subject else ""
    return f"EGeneral:Invalid arguments{detail}"
