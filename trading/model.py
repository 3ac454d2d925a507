"""Values of trading: deals, what they leave to settle, where and how assets are hedged."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from kernel.errors import BadInput
from kernel.money import Asset, Price, Rounding
from kernel.states import StateTable
from ledger.opaque import require_token
from venues.lifecycle import ResolvePolicy
from venues.model import VenueOrder


class DealSide(StrEnum):
    """Which way the base asset goes."""

    DESK_SELLS = "desk_sells"
    DESK_BUYS = "desk_buys"


class DealState(StrEnum):
    """Where a deal is."""

    BOOKED = "booked"
    AMENDED = "amended"
    """Reversed and replaced by another deal."""
    CANCELLED = "cancelled"
    SETTLING = "settling"
    SETTLED = "settled"


DEAL_STATES: Final = StateTable(
    schema="trading",
    table="deal",
    initial=frozenset({DealState.BOOKED}),
    edges=frozenset(
        {
            (DealState.BOOKED, DealState.AMENDED),
            (DealState.BOOKED, DealState.CANCELLED),
            (DealState.BOOKED, DealState.SETTLING),
            (DealState.SETTLING, DealState.SETTLED),
        }
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DealRequest:
    """A deal agreed with a party, to be booked.

    Attributes:
        client_ref: an opaque token of whoever books it (`ledger.opaque`); the same reference is the
            same deal, for ever.
        base_units: what is sold or bought, in smallest units of *base*.
        price: of *base* in *quote*.
        fee_units: charged on top, in smallest units of *quote*; the party owes it to us.
        price_id: the recorded price that the deal was made on, if there is one.
        booked_by: operator id, or ``system:<process>``.
    """

    client_ref: str
    desk: str
    party: str
    side: DealSide
    base: Asset
    quote: Asset
    base_units: int
    price: Price
    fee_units: int = 0
    price_id: UUID | None = None
    value_date: date
    booked_by: str
    reason: str = ""

    def __post_init__(self) -> None:
        require_token(self.client_ref, "client reference")
        if self.base_units <= 0 or self.fee_units < 0:
            raise BadInput("a deal needs a positive amount and a fee that is not negative")
        if (self.price.base, self.price.quote) != (self.base, self.quote):
            raise BadInput("the price is not one of the deal's two assets")
        if self.base.code == self.quote.code:
            raise BadInput("a deal exchanges two different assets")
        if self.quote_units <= 0:
            raise BadInput("the deal is worth less than the smallest unit of its quote asset")

    @property
    def quote_units(self) -> int:
        """Return what the base is exchanged for; the remainder below one unit favours the party."""
        pays = self.side is DealSide.DESK_SELLS
        return self.price.to_quote(self.base_units, Rounding.DOWN if pays else Rounding.UP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """A deal on record.

    Attributes:
        pulled_at: when settlement took its legs; None: not yet.
        amends: the deal that this one replaced.
    """

    id: UUID
    book: int
    request: DealRequest
    quote_units: int
    state: DealState
    pulled_at: datetime | None
    amends: UUID | None
    created_at: datetime
    updated_at: datetime


class Direction(StrEnum):
    """Who owes whom."""

    OWED_BY_US = "owed_by_us"
    OWED_TO_US = "owed_to_us"


class LegKind(StrEnum):
    """Which part of a deal a leg is."""

    BASE = "base"
    QUOTE = "quote"
    FEE = "fee"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementLeg:
    """One amount that a deal makes somebody owe; `account` is where the ledger has it now."""

    deal_id: UUID
    client_ref: str
    kind: LegKind
    party: str
    asset: str
    amount: int
    direction: Direction
    value_date: date
    account: str


class HedgeState(StrEnum):
    """Whether a line may place orders."""

    ACTIVE = "active"
    HALTED = "halted"


HEDGE_STATES: Final = StateTable(
    schema="trading",
    table="hedge",
    initial=frozenset({HedgeState.ACTIVE}),
    edges=frozenset(
        {(HedgeState.ACTIVE, HedgeState.HALTED), (HedgeState.HALTED, HedgeState.ACTIVE)}
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeLine:
    """Where the position of one asset of one desk is hedged.

    Every fill of the venue's instrument in that account belongs to this line.

    Attributes:
        target: the position that hedging works towards; 0 is flat.
        sequence: of the last order planned.
    """

    desk: str
    asset: str
    venue: str
    account: str
    symbol: str
    target: int = 0
    state: HedgeState = HedgeState.ACTIVE
    sequence: int = 0

    @property
    def reference(self) -> str:
        """Return the reference that the line's orders carry."""
        return f"hedge:{self.desk}:{self.asset}"


PPM: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgePolicy:
    """Within which limits a line is hedged.

    Attributes:
        book_age_max: a book older than this is not traded on.
        slippage_ppm: how far from the mid an order may go, in millionths.
        order_units_max: the most one order may be for, in smallest units of the asset; None: the
            venue's own limit.
        band_units: a need up to this is left alone.
        unsettled_max: orders of unknown outcome at which no further one is sent.
        recv_window: how long the venue may accept an order after it was signed.
        intent_age_max: an order not sent by then is given up; its price is old.
        resolve: how unknown outcomes are cleared up.
    """

    book_age_max: timedelta = timedelta(seconds=5)
    slippage_ppm: int = 5_000
    order_units_max: int | None = None
    band_units: int = 0
    unsettled_max: int = 1
    recv_window: timedelta = timedelta(seconds=3)
    intent_age_max: timedelta = timedelta(seconds=10)
    resolve: ResolvePolicy = field(default_factory=ResolvePolicy)

    def __post_init__(self) -> None:
        if not 0 <= self.slippage_ppm < PPM:
            raise BadInput(f"a slippage of {self.slippage_ppm} millionths is not possible")
        if self.order_units_max is not None and self.order_units_max <= 0:
            raise BadInput(
                f"orders of at most {self.order_units_max} units cannot be placed",
                remedy="Halt the line to place none; leave the limit out to have only the venue's",
            )


class HedgeVerdict(StrEnum):
    """What a look at a line came to, and why."""

    ORDER = "order"
    FLAT = "flat"
    IN_FLIGHT = "in_flight"
    """What is under way may be enough: wait for it."""
    BELOW_MINIMUM = "below_minimum"
    """Less than a lot, or than the venue accepts: carried as residual."""
    BOOK_UNUSABLE = "book_unusable"
    TOO_EXPENSIVE = "too_expensive"
    """Nothing to trade with within the slippage cap."""
    UNSETTLED = "unsettled"
    """Too many orders whose outcome nobody knows."""
    HALTED = "halted"
    REFUSED = "refused"
    """The venue refused the order: look at why before the next one."""
    VENUE_DOWN = "venue_down"


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeReport:
    """What one pass over a line did.

    Attributes:
        before, after: the position, in smallest units of the asset; negative is short.
        residual: what is still to be hedged, in the same units; positive: to buy.
        order: the order that was placed, as it stands.
    """

    verdict: HedgeVerdict
    detail: str
    before: int
    after: int
    residual: int
    order: VenueOrder | None
    fills_posted: int
