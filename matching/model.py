"""Values of the matching core: orders, the vocabulary of outcomes, events.

Units: `price_ticks` counts the instrument's tick size, `quantity_lots` its lot size; both are
plain integers and their product is the notional in tick-lots. No identifier is made here: order
ids and the first trade id of a command come from the caller.
"""

from dataclasses import dataclass
from enum import Enum, unique


@unique
class Side(Enum):
    """The side of an order."""

    BUY = "buy"
    SELL = "sell"

    @property
    def opposite(self) -> "Side":
        """The side this one trades against."""
        return Side.SELL if self is Side.BUY else Side.BUY


@unique
class TimeInForce(Enum):
    """How long what does not trade at once may live."""

    GTC = "good-till-cancelled"
    IOC = "immediate-or-cancel"
    FOK = "fill-or-kill"


@unique
class SelfTradePrevention(Enum):
    """What happens when an order would trade with a resting order of its own owner.

    The mode of the taker decides, as on the venues that offer it.
    """

    NONE = "none"
    EXPIRE_MAKER = "expire-maker"
    EXPIRE_TAKER = "expire-taker"
    EXPIRE_BOTH = "expire-both"


@unique
class RejectReason(Enum):
    """Why a command changed nothing, in order of precedence."""

    ORDER_ID_ALREADY_RESTING = "an order of this id rests in the book"
    QUANTITY_NOT_POSITIVE = "the quantity must be positive"
    PRICE_NOT_POSITIVE = "the price of a limit order must be positive"
    MARKET_ORDER_MUST_NOT_REST = "a market order cannot be good-till-cancelled"
    POST_ONLY_MUST_REST = "a post-only order must be good-till-cancelled with a price"
    POST_ONLY_WOULD_TRADE = "a post-only order would trade at once"
    ORDER_NOT_RESTING = "no order of this id rests in the book"


@unique
class ExpireReason(Enum):
    """Why the venue, not the client, ended what was left of an order."""

    NOT_FILLED_AT_ONCE = "the rest of an immediate-or-cancel or market order found no counterpart"
    NOT_FILLABLE_WHOLE = "a fill-or-kill order could not be filled in whole"
    SELF_TRADE = "the order would have traded with its own owner"


@dataclass(frozen=True, slots=True)
class NewOrder:
    """A command to trade. `price_ticks` None means a market order."""

    order_id: int
    owner: str
    side: Side
    quantity_lots: int
    price_ticks: int | None
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    self_trade_prevention: SelfTradePrevention = SelfTradePrevention.NONE


@dataclass(frozen=True, slots=True)
class RestingOrder:
    """An order in the book. `remaining_lots` is positive as long as it rests."""

    order_id: int
    owner: str
    side: Side
    price_ticks: int
    remaining_lots: int


@dataclass(frozen=True, slots=True)
class Level:
    """All that rests at one price."""

    price_ticks: int
    quantity_lots: int


@dataclass(frozen=True, slots=True)
class Match:
    """One fill an order would get: what `OrderBook.preview` answers."""

    maker_order_id: int
    maker_owner: str
    price_ticks: int
    quantity_lots: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The order was taken; its trades, expiry or rest in the book follow."""

    order_id: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """The command changed nothing."""

    order_id: int
    reason: RejectReason


@dataclass(frozen=True, slots=True)
class Traded:
    """A maker and a taker exchanged `quantity_lots` at the maker's price."""

    trade_id: int
    maker_order_id: int
    taker_order_id: int
    taker_side: Side
    price_ticks: int
    quantity_lots: int
    maker_remaining_lots: int
    taker_remaining_lots: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The client took `remaining_lots` off the book."""

    order_id: int
    remaining_lots: int


@dataclass(frozen=True, slots=True)
class Expired:
    """The venue ended the order with `remaining_lots` untraded."""

    order_id: int
    remaining_lots: int
    reason: ExpireReason


Event = Accepted | Rejected | Traded | Cancelled | Expired
