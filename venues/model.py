"""Values of venues: orders and their states, fills, balances, what a venue can do.

Units: quantities are smallest units of the base asset, money smallest units of its asset. A venue
may count finer than an asset's scale; what is beyond it is kept as *dust*, in units of
``10 ** -DUST_SCALE`` of a smallest unit, so that nothing is lost and nothing is rounded silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from kernel.errors import BadInput
from kernel.ids import derive_id
from kernel.states import StateTable
from matching.model import Side, TimeInForce

DUST_SCALE: Final = 18
ATTEMPTS_MAX: Final = 5
"""Orders sent for one intent, at most."""


class OrderKind(StrEnum):
    """How an order meets the book."""

    LIMIT = "limit"
    MARKET = "market"
    """At whatever price there is; it has no price of its own."""
    POST_ONLY = "post-only"
    """Rests or is refused: it never takes."""


class OrderState(StrEnum):
    """Where an order is, as far as we know."""

    INTENT = "intent"
    """Written down, not sent."""
    SUBMITTING = "submitting"
    """Being sent: from here on the venue may have it."""
    ACKED = "acked"
    """The venue has it."""
    REFUSED = "refused"
    """The venue said no."""
    UNKNOWN = "unknown"
    """Sent, without an answer that could be believed."""
    NOT_PLACED = "not_placed"
    """Shown never to have reached the venue's book."""
    ESCALATED = "escalated"
    """Unknown for too long: a person must look; it still counts as possibly live."""
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


S = OrderState

ORDER_STATES: Final = StateTable(
    schema="venues",
    table="venue_order",
    # Sent in the transaction that wrote it down, or written first and sent by whoever takes it.
    initial=frozenset({S.INTENT, S.SUBMITTING}),
    edges=frozenset(
        {
            (S.INTENT, S.SUBMITTING),
            (S.INTENT, S.NOT_PLACED),
            (S.SUBMITTING, S.ACKED),
            (S.SUBMITTING, S.REFUSED),
            (S.SUBMITTING, S.UNKNOWN),
            (S.UNKNOWN, S.ACKED),
            (S.UNKNOWN, S.NOT_PLACED),
            (S.UNKNOWN, S.ESCALATED),
            (S.ESCALATED, S.ACKED),
            (S.ESCALATED, S.NOT_PLACED),
            (S.ACKED, S.PARTIALLY_FILLED),
            (S.ACKED, S.FILLED),
            (S.ACKED, S.CANCELLED),
            (S.ACKED, S.EXPIRED),
            (S.PARTIALLY_FILLED, S.FILLED),
            (S.PARTIALLY_FILLED, S.CANCELLED),
            (S.PARTIALLY_FILLED, S.EXPIRED),
        }
    ),
)

UNSETTLED_STATES: Final = frozenset({S.SUBMITTING, S.UNKNOWN, S.ESCALATED})
"""Nobody knows yet whether the venue has the order."""

NEVER_PLACED_STATES: Final = frozenset({S.NOT_PLACED, S.REFUSED})
"""Proven not to exist at the venue: only after one of these may the intent be tried again."""

OPEN_STATES: Final = frozenset({S.INTENT, S.ACKED, S.PARTIALLY_FILLED}) | UNSETTLED_STATES
"""The order may still trade."""

FINAL_STATES: Final = frozenset(OrderState) - OPEN_STATES


class VenueStatus(StrEnum):
    """What a venue says about an order."""

    OPEN = "open"
    FILLED = "filled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REJECTED = "rejected"


class RefusalKind(StrEnum):
    """What a refusal calls for."""

    FINAL = "final"
    BACK_OFF = "back-off"
    """Too many requests: wait before anything else is sent."""
    CLOCK = "clock"
    """Our time is off the venue's: measure it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderTicket:
    """An order to be placed, on the instrument's grid. `reference` is the caller's, opaque.

    Attributes:
        intent: what is wanted; the same intent is the same want, for ever, and at most one order of
            it can ever trade.
        attempt: counts the orders made for the intent, from 1; each has a client order id of its
            own, because an id that was sent once is never sent again.
        price: None for a market order.
    """

    venue: str
    account: str
    symbol: str
    instrument_version: int
    kind: OrderKind = OrderKind.LIMIT
    side: Side
    base_units: int
    quantity: str
    price: str | None
    time_in_force: TimeInForce
    reference: str
    intent: str
    attempt: int = 1

    def __post_init__(self) -> None:
        if (self.kind is OrderKind.MARKET) is not (self.price is None):
            raise BadInput(f"a {self.kind} order has {'a' if self.price else 'no'} price")
        if not 1 <= self.attempt <= ATTEMPTS_MAX:
            raise BadInput(f"an intent is tried at most {ATTEMPTS_MAX} times")

    def order_id(self, at: datetime) -> UUID:
        """Return the id of the order row, whose time part is *at*."""
        return derive_id(at, "venue-order", self.venue, self.account, self.intent, self.attempt)

    def named(self) -> UUID:
        """Return what the client order id is made of: see `Capabilities.client_id`."""
        return derive_id(EPOCH, "client-order", self.venue, self.account, self.intent, self.attempt)


EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class VenueOrder(Struct, frozen=True, kw_only=True, gc=False):
    """An order as it is on record.

    A Struct of msgspec is immutable as a frozen dataclass is, and this one is made in a fifth of the
    time: two are made on every order's way. `msgspec.structs.replace` changes it.

    Attributes:
        intent, attempt: see `OrderTicket`.
        signed_at: venue time written into the request, which bounds how long it can be accepted.
        recv_window: how long after `signed_at` the venue accepts it.
        executed_units: the most that the venue has reported as executed.
        cancel_requested_at: when a cancel was first asked for; fills may come all the same.
        revived_at: when the venue showed an order alive that was proven not placed, or over; None
            again once the venue says that it is over.
        refusal: what a refusal called for.
        sought_since: since when somebody has looked for it without a long pause.
        looked_at: when the venue was last asked about it.
        version: how many events of it are on record.
        fence: the claim under which the row was read.
    """

    id: UUID
    venue: str
    account: str
    symbol: str
    instrument_version: int
    kind: OrderKind = OrderKind.LIMIT
    side: Side
    base_units: int
    quantity: str
    price: str | None
    time_in_force: TimeInForce
    reference: str
    intent: str
    attempt: int = 1
    client_order_id: str
    venue_order_id: str | None
    state: OrderState
    state_reason: str
    signed_at: datetime | None
    recv_window: timedelta
    executed_units: int
    cancel_requested_at: datetime | None = None
    revived_at: datetime | None = None
    refusal: RefusalKind | None = None
    sought_since: datetime | None = None
    looked_at: datetime | None = None
    version: int = 0
    created_at: datetime
    updated_at: datetime
    fence: int

    @property
    def may_be_alive(self) -> bool:
        """Whether the order may still trade, as far as anybody can tell."""
        return self.state in OPEN_STATES or self.revived_at is not None


class AccountMode(StrEnum):
    """What may be ordered for an account at a venue. Cancels always pass."""

    ACTIVE = "active"
    REDUCING = "reducing"
    """Only what brings the position nearer to zero."""
    HALTED = "halted"
    """Nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountState:
    """The mode of an account, since when, by whom and why; an account nobody spoke of is active."""

    venue: str
    account: str
    mode: AccountMode
    reason: str
    since: datetime | None
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderReport:
    """What the venue says about one order; `executed_units` of the base asset have traded.

    Attributes:
        side, base_units, price: what was ordered, where the answer tells; the price is the venue's
            decimal text, "" for an order without one.
    """

    client_order_id: str
    venue_order_id: str
    status: VenueStatus
    executed_units: int
    side: Side | None = None
    base_units: int | None = None
    price: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The venue has the order."""

    report: OrderReport


@dataclass(frozen=True, slots=True)
class PlacementRefused:
    """The venue said no: the order does not and will not exist."""

    reason: str
    kind: RefusalKind = RefusalKind.FINAL


@dataclass(frozen=True, slots=True)
class PlacementUnknown:
    """The order may or may not exist."""

    reason: str


Placement = Accepted | PlacementRefused | PlacementUnknown


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueFill:
    """One trade of ours at a venue.

    Cost and fee are rounded up, proceeds down, each with its dust: what the venue's own figure is
    better than ours by, never negative.

    Attributes:
        trade_id: the venue's; unique per symbol.
        price: the venue's decimal text.
        fee_asset: code of what the fee was taken in.
    """

    venue: str
    account: str
    symbol: str
    trade_id: str
    venue_order_id: str
    side: Side
    price: str
    base: str
    base_units: int
    quote: str
    quote_units: int
    quote_dust: int
    fee_asset: str
    fee_units: int
    fee_dust: int
    is_maker: bool
    executed_at: datetime

    @property
    def id(self) -> UUID:
        """Return the fill's own id, the same whichever way the fill came."""
        return derive_id(
            self.executed_at, "fill", self.venue, self.account, self.symbol, self.trade_id
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueBalance:
    """What a venue says it holds for us of one asset; `dust` belongs to free plus locked."""

    asset: str
    free: int
    locked: int
    dust: int

    @property
    def total(self) -> int:
        """Return free plus locked, in smallest units."""
        return self.free + self.locked


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownBalance:
    """What a venue says it holds for us of an asset that is not registered.

    Attributes:
        asset: by the code that the venue's dialect has for it.
        amount: free and locked together, as decimal text; in the venue's own words if that is none.
    """

    asset: str
    amount: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadFill:
    """A trade of ours that cannot be read yet, as its asset or instrument is not known.

    Attributes:
        venue_order_id: the order it belongs to, if that much can be read.
        reason: why it cannot be read.
        raw: the venue's own words, JSON.
    """

    trade_id: str
    venue_order_id: str | None
    reason: str
    raw: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FillPage:
    """A page of our trades, oldest first.

    Attributes:
        unread: rows of the page that cannot be read; the others are not held back by them.
        cursor: where the next page begins; opaque, and kept as it is. The page after it may repeat
            fills, it never leaves one out.
        is_last: whether there was nothing more when it was asked for.
    """

    fills: tuple[VenueFill, ...]
    cursor: str
    is_last: bool
    unread: tuple[UnreadFill, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPermissions:
    """What an API key may do; `withdraw` is None where the venue does not tell."""

    trade: bool
    withdraw: bool | None
    read: bool
