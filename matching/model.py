"""Values of the matching core: orders, the vocabulary of outcomes, events.

Units: `price_ticks` counts the instrument's tick size, `quantity_lots` its lot size; both are
plain integers and their product is the notional in tick-lots. No identifier is made here: order
ids and the first trade id of a command come from the caller.

The values are msgspec Structs: immutable as frozen dataclasses are, and made in a quarter of the
time. They hold no containers, so the garbage collector need not look at them (`gc=False`).
"""

from enum import Enum, unique

from msgspec import Struct


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

    The mode of the taker decides, as on the venues that offer it. Kraken's words for the first
    three are cancel-oldest, cancel-newest and cancel-both; Binance has all of them:
    https://developers.binance.com/docs/binance-spot-api-docs/faqs/stp_faq
    """

    NONE = "none"
    EXPIRE_MAKER = "expire-maker"
    EXPIRE_TAKER = "expire-taker"
    EXPIRE_BOTH = "expire-both"
    DECREMENT = "decrement"


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


class NewOrder(Struct, frozen=True, gc=False):
    """A command to trade. `price_ticks` None means a market order.

    `display_lots` makes an iceberg: at most so many rest in sight at a time, and when they have
    traded the next ones enter behind all others at the price. 0 or less shows all.
    """

    order_id: int
    owner: str
    side: Side
    quantity_lots: int
    price_ticks: int | None
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    self_trade_prevention: SelfTradePrevention = SelfTradePrevention.NONE
    display_lots: int = 0


class RestingOrder(Struct, frozen=True, gc=False):
    """An order in the book. `remaining_lots` is positive as long as it rests.

    `hidden_lots` are those of them that nobody sees yet. The three fields before are how it was
    sent: they matter again when it is replaced.
    """

    order_id: int
    owner: str
    side: Side
    price_ticks: int
    remaining_lots: int
    post_only: bool = False
    self_trade_prevention: SelfTradePrevention = SelfTradePrevention.NONE
    display_lots: int = 0
    hidden_lots: int = 0


class Level(Struct, frozen=True, gc=False):
    """All that rests in sight at one price."""

    price_ticks: int
    quantity_lots: int


class Match(Struct, frozen=True, gc=False):
    """One fill an order would get: what `OrderBook.preview` answers."""

    maker_order_id: int
    maker_owner: str
    price_ticks: int
    quantity_lots: int


class Accepted(Struct, frozen=True, gc=False):
    """The order was taken; its trades, expiry or rest in the book follow."""

    order_id: int


class Rejected(Struct, frozen=True, gc=False):
    """The command changed nothing."""

    order_id: int
    reason: RejectReason


class Traded(Struct, frozen=True, gc=False):
    """A maker and a taker exchanged `quantity_lots` at the maker's price."""

    trade_id: int
    maker_order_id: int
    taker_order_id: int
    taker_side: Side
    price_ticks: int
    quantity_lots: int
    maker_remaining_lots: int
    taker_remaining_lots: int


class Decremented(Struct, frozen=True, gc=False):
    """Two orders of one owner met: each lost `quantity_lots`, and nothing was traded.

    An order with no lots remaining has ended by this event.
    """

    maker_order_id: int
    taker_order_id: int
    quantity_lots: int
    maker_remaining_lots: int
    taker_remaining_lots: int


class Replaced(Struct, frozen=True, gc=False):
    """The client gave the order a new price or quantity; its trades, expiry or rest follow.

    Attributes:
        remaining_lots: what it has left now, before those trades.
        kept_priority: it stays where it was in the queue; else it arrived anew.
    """

    order_id: int
    price_ticks: int
    remaining_lots: int
    kept_priority: bool


class Cancelled(Struct, frozen=True, gc=False):
    """The client took `remaining_lots` off the book."""

    order_id: int
    remaining_lots: int


class Expired(Struct, frozen=True, gc=False):
    """The venue ended the order with `remaining_lots` untraded."""

    order_id: int
    remaining_lots: int
    reason: ExpireReason


Event = Accepted | Rejected | Replaced | Traded | Decremented | Cancelled | Expired
