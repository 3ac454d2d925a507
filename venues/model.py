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

from kernel.ids import derive_id
from kernel.states import StateTable
from matching.model import Side, TimeInForce

DUST_SCALE: Final = 18


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
    initial=frozenset({S.INTENT}),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderTicket:
    """An order to be placed, on the instrument's grid. `reference` is the caller's, opaque.

    Attributes:
        key: what makes this order this one; the same key is the same order, for ever.
    """

    venue: str
    account: str
    symbol: str
    instrument_version: int
    side: Side
    base_units: int
    quantity: str
    price: str
    time_in_force: TimeInForce
    reference: str
    key: str

    def order_id(self, at: datetime) -> UUID:
        """Return the id of the order row, whose time part is *at*."""
        return derive_id(at, "venue-order", self.venue, self.account, self.key)

    def client_order_id(self) -> str:
        """Return the id the venue will know the order by: 34 characters of ``[a-z0-9]``."""
        named = derive_id(EPOCH, "client-order", self.venue, self.account, self.key)
        return f"cw{named.hex}"


EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueOrder:
    """An order as it is on record.

    Attributes:
        signed_at: venue time written into the request, which bounds how long it can be accepted.
        recv_window: how long after `signed_at` the venue accepts it.
        executed_units: the most that the venue has reported as executed.
        fence: the claim under which the row was read.
    """

    id: UUID
    venue: str
    account: str
    symbol: str
    instrument_version: int
    side: Side
    base_units: int
    quantity: str
    price: str
    time_in_force: TimeInForce
    reference: str
    client_order_id: str
    venue_order_id: str | None
    state: OrderState
    state_reason: str
    signed_at: datetime | None
    recv_window: timedelta
    executed_units: int
    created_at: datetime
    updated_at: datetime
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderReport:
    """What the venue says about one order; `executed_units` of the base asset have traded."""

    client_order_id: str
    venue_order_id: str
    status: VenueStatus
    executed_units: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The venue has the order."""

    report: OrderReport


class RefusalKind(StrEnum):
    """What a refusal calls for."""

    FINAL = "final"
    BACK_OFF = "back-off"
    """Too many requests: wait before anything else is sent."""
    CLOCK = "clock"
    """Our time is off the venue's: measure it again."""


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
class Capabilities:
    """What a venue can do, so that nobody asks for its name.

    Attributes:
        client_id_pattern: regular expression of client order ids.
        client_ids_unique_for_ever: whether a used id is refused after the order has ended.
        finds_by_client_id: whether a single order can be asked for by client id.
        trade_ids_unique_per: ``symbol`` or ``venue``.
        expiry: how a request says until when it may be accepted.
        book_rule: how books are stitched.
    """

    client_id_pattern: str
    client_ids_unique_for_ever: bool
    finds_by_client_id: bool
    trade_ids_unique_per: str
    expiry: str
    book_rule: str
    has_dead_man_switch: bool
