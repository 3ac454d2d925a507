"""Values of hedging: lines, their places, the policy, what a look came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from kernel.errors import BadInput
from kernel.states import StateTable
from marketdata.price_model import PPM
from trading.pacing import Pace, PacePolicy
from trading.routing import LEGS_MAX
from venues.lifecycle import ResolvePolicy
from venues.model import VenueFill, VenueOrder

PLACES_MAX: Final = 20
"""Places of one line, at most: each costs questions to its venue at every pass."""


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


class HandFillState(StrEnum):
    """Whether a trade that a person entered counts."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    REJECTED = "rejected"


HAND_FILL_STATES: Final = StateTable(
    schema="trading",
    table="hand_fill",
    initial=frozenset({HandFillState.PROPOSED}),
    edges=frozenset(
        {
            (HandFillState.PROPOSED, HandFillState.APPROVED),
            (HandFillState.PROPOSED, HandFillState.REJECTED),
        }
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandFill:
    """A trade that no venue tells us, as a person entered it.

    Attributes:
        fill: as any other; posted as any other once it is approved.
        evidence: what shows that it happened: a confirmation, a statement.
    """

    id: UUID
    book: int
    fill: VenueFill
    evidence: str
    state: HandFillState
    proposed_by: str
    decided_by: str | None
    decided_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True, order=True)
class HedgePlace:
    """One symbol of one account at a venue, in the venue's spelling.

    Every trade of it belongs to the line that has the place.

    Attributes:
        is_open: whether new orders may go there; trades of a closed place are posted as before.
    """

    venue: str
    account: str
    symbol: str
    is_open: bool = True

    @property
    def name(self) -> str:
        """Return how people speak of the account."""
        return f"{self.venue}/{self.account}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeLook:
    """What the last look at a line saw, for whoever watches it.

    Attributes:
        position: what the ledger said, in smallest units; negative is short.
        low, high: between which bounds what is under way will move it.
        need: what had to be bought (positive) or sold (negative).
        waiting: the part of the need that was left to opposite flow or to a later slice.
        residual: what of the need no order was placed for.
    """

    at: datetime
    verdict: HedgeVerdict
    detail: str
    position: int
    low: int
    high: int
    need: int
    waiting: int
    residual: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeLine:
    """Where the position of one asset of one desk is hedged.

    Attributes:
        quote: what is paid with at every place; None: nobody has said, the first place tells.
        target: the position that hedging works towards; 0 is flat.
        sequence: of the last order planned.
        pace: of the hedge that is under way; None: none is.
        look: what the last look came to; None: nobody has looked yet.
    """

    desk: str
    asset: str
    places: tuple[HedgePlace, ...]
    quote: str | None = None
    target: int = 0
    state: HedgeState = HedgeState.ACTIVE
    sequence: int = 0
    pace: Pace | None = None
    look: HedgeLook | None = None

    @property
    def reference(self) -> str:
        """Return the reference that the line's orders carry."""
        return f"hedge:{self.desk}:{self.asset}"

    def places_at(self, venue: str, account: str) -> list[HedgePlace]:
        """Return the places of one account."""
        return [item for item in self.places if (item.venue, item.account) == (venue, account)]


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgePolicy:
    """Within which limits a line is hedged.

    Attributes:
        book_age_max: a book older than this is not traded on.
        slippage_ppm: how far from the mid an order may go, in millionths.
        client_loss_ppm: how much worse than what clients got an order may be; None: no such limit.
        order_units_max: the most one order may be for, in smallest units of the asset; None: the
            venue's own limit.
        band_units: a need up to this is left alone.
        internalise: how long a client's flow waits for opposite flow before it is hedged.
        urgent_units: a need beyond this waits for no opposite flow; None: every need does.
        pace: which hedges are stretched over time, and how long; None: all are placed at once.
        legs_max: orders of one pass, at most.
        residual_max: a need that no place takes is told as an alarm beyond this; None: never.
        unsettled_max: orders of unknown outcome at which no further one is sent.
        recv_window: how long the venue may accept an order after it was signed.
        intent_age_max: an order not sent by then is given up; its price is old.
        resolve: how unknown outcomes are cleared up.
    """

    book_age_max: timedelta = timedelta(seconds=5)
    slippage_ppm: int = 5_000
    client_loss_ppm: int | None = None
    order_units_max: int | None = None
    band_units: int = 0
    internalise: timedelta = timedelta()
    urgent_units: int | None = None
    pace: PacePolicy | None = None
    legs_max: int = 10
    residual_max: int | None = None
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
        if not 1 <= self.legs_max <= LEGS_MAX:
            raise BadInput(f"a pass places 1 to {LEGS_MAX} orders, not {self.legs_max}")


class HedgeVerdict(StrEnum):
    """What a look at a line came to, and why."""

    ORDER = "order"
    FLAT = "flat"
    IN_FLIGHT = "in_flight"
    """What is under way may be enough: wait for it."""
    INTERNALISING = "internalising"
    """Young flow of clients waits for opposite flow."""
    PACED = "paced"
    """The next slice is not due yet."""
    BELOW_MINIMUM = "below_minimum"
    """Less than a lot, or than the venue accepts: carried as residual."""
    BOOK_UNUSABLE = "book_unusable"
    TOO_EXPENSIVE = "too_expensive"
    """Nothing to trade with within the slippage cap."""
    NO_FUNDS = "no_funds"
    """No place has what would be paid with: treasury has to move some there."""
    UNSETTLED = "unsettled"
    """Too many orders whose outcome nobody knows."""
    LIMITED = "limited"
    """A limit of the desk forbids it."""
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
        orders: those that were placed, as they stand.
        left_out: places that took no part, and why, in words.
        alarm: why a person should look at the line; empty: nobody has to.
        funding: what treasury would have to move so that money is not in the way, in words.
    """

    verdict: HedgeVerdict
    detail: str
    before: int
    after: int
    residual: int
    orders: Sequence[VenueOrder] = ()
    fills_posted: int = 0
    left_out: Sequence[str] = ()
    alarm: str = ""
    funding: Sequence[str] = ()

    @property
    def order(self) -> VenueOrder | None:
        """Return the first order that was placed; None: there was none."""
        return self.orders[0] if self.orders else None
