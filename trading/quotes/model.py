"""Values of quotes: what is asked, what is offered and why, what became of it.

Units: an amount is whole smallest units of its asset; a part is in millionths (``ppm``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum, unique
from typing import Final
from uuid import UUID

from kernel.errors import BadInput
from kernel.money import Asset, Price
from kernel.states import StateTable
from ledger.opaque import require_token
from marketdata.price_model import PPM
from risk.model import require_name
from trading.model import DealSide
from trading.terms.model import HALF_SPREAD_PPM_MAX


@unique
class QuoteState(StrEnum):
    """Where a quote is."""

    REQUESTED = "requested"
    """Nobody has priced it yet."""
    REFUSED = "refused"
    """There is no offer, and it says why."""
    QUOTED = "quoted"
    """Firm until its time is over."""
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    ACCEPTED = "accepted"
    """Taken, under the last look that the party's terms allow."""
    BOOKED = "booked"
    DECLINED = "declined"


QUOTE_STATES: Final = StateTable(
    schema="trading",
    table="quote",
    initial=frozenset({QuoteState.REQUESTED}),
    edges=frozenset(
        {
            (QuoteState.REQUESTED, QuoteState.QUOTED),
            (QuoteState.REQUESTED, QuoteState.REFUSED),
            (QuoteState.QUOTED, QuoteState.ACCEPTED),
            (QuoteState.QUOTED, QuoteState.EXPIRED),
            (QuoteState.QUOTED, QuoteState.WITHDRAWN),
            (QuoteState.ACCEPTED, QuoteState.BOOKED),
            (QuoteState.ACCEPTED, QuoteState.DECLINED),
        }
    ),
)

OPEN_STATES: Final = (QuoteState.REQUESTED, QuoteState.QUOTED, QuoteState.ACCEPTED)


@unique
class SizedIn(StrEnum):
    """Which of the two assets the size is an amount of."""

    BASE = "base"
    QUOTE = "quote"


@unique
class QuoteSides(StrEnum):
    """What the desk is asked to offer."""

    TWO_WAY = "two_way"
    BUY = "desk_buys"
    SELL = "desk_sells"

    @property
    def sides(self) -> tuple[DealSide, ...]:
        """Return the sides, the bid before the ask."""
        if self is QuoteSides.TWO_WAY:
            return (DealSide.DESK_BUYS, DealSide.DESK_SELLS)
        return (DealSide(self.value),)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteRequest:
    """What a party asks for.

    Attributes:
        client_ref: an opaque token of whoever asks (`ledger.opaque`); the same reference is the same
            quote, for ever.
        units: how much, in smallest units of the asset that *sized_in* names.
        requested_by: operator id, or ``system:<process>``.
    """

    client_ref: str
    desk: str
    party: str
    base: Asset
    quote: Asset
    units: int
    sized_in: SizedIn = SizedIn.BASE
    sides: QuoteSides = QuoteSides.TWO_WAY
    requested_by: str
    reason: str = ""

    def __post_init__(self) -> None:
        require_token(self.client_ref, "client reference")
        require_name(self.desk, "desk")
        if self.units <= 0:
            raise BadInput("a quote is asked for a positive amount")
        if self.base.code == self.quote.code:
            raise BadInput("a quote exchanges two different assets")


@unique
class RefusalReason(StrEnum):
    """Why there is no offer, the first that applies."""

    DESK_HALTED = "desk_halted"
    DESK_REDUCING = "desk_reducing"
    """The desk only takes what brings its position nearer zero."""
    BOOK_MISSING = "book_missing"
    BOOK_STALE = "book_stale"
    BOOK_CROSSED = "book_crossed"
    """Crossed within one venue: what it shows cannot be true."""
    BOOK_ONE_SIDED = "book_one_sided"
    """No venue shows one of the sides: there is no mid."""
    TOO_FEW_VENUES = "too_few_venues"
    TOO_WIDE = "too_wide"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"
    TOO_THIN = "too_thin"
    """The venues show less than the size, or only too far from the mid."""
    NOT_ANSWERED = "not_answered"
    """Nobody priced it in time."""
    WITHDRAWN = "withdrawn"
    """The desk took its quotes back before it was priced."""


@unique
class DeclineReason(StrEnum):
    """Why an accepted quote was not dealt on."""

    MOVED_AGAINST_DESK = "moved_against_desk"
    MOVED_AGAINST_CLIENT = "moved_against_client"
    """The same tolerance, the other way: a last look that spares only the desk is none."""
    NOT_LOOKED_AT = "not_looked_at"
    """The window was over before anybody looked."""
    REFUSED = "refused"
    """A limit or a control of the desk."""
    WITHDRAWN = "withdrawn"


SKEW_PPM_BELOW: Final = PPM - HALF_SPREAD_PPM_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class SkewPolicy:
    """How far the desk leans against a position that grows.

    Attributes:
        full_units: the position, long or short, at which the whole skew is applied.
        ppm_max: the whole skew, of the price; with the widest spread of all it leaves a bid.
    """

    full_units: int
    ppm_max: int

    def __post_init__(self) -> None:
        if self.full_units <= 0 or not 0 <= self.ppm_max < SKEW_PPM_BELOW:
            raise BadInput(f"a skew of {self.ppm_max} millionths at {self.full_units} is not one")


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeLimits:
    """What the desk makes prices for, in smallest units of the base asset."""

    units_min: int = 1
    units_max: int | None = None


NO_SKEW: Final = SkewPolicy(full_units=1, ppm_max=0)
ANY_SIZE: Final = SizeLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotePolicy:
    """When the desk makes a price at all, and how it leans.

    Attributes:
        book_age_max: a venue whose book is older is left out.
        venues_min: of fewer usable venues no price is made.
        width_ppm_max: how far apart the best bid and ask may be, of the mid.
        slippage_ppm_max: how far from the mid what the size costs may be.
        sizes, skews: by the code of the base asset; any size and no skew for others.
    """

    book_age_max: timedelta = timedelta(seconds=2)
    venues_min: int = 1
    width_ppm_max: int = 10_000
    slippage_ppm_max: int = 20_000
    sizes: Mapping[str, SizeLimits] = field(default_factory=dict)
    skews: Mapping[str, SkewPolicy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.venues_min < 1 or not 0 < self.slippage_ppm_max < PPM or self.width_ppm_max <= 0:
            raise BadInput("quotes need a venue, and a width and slippage above zero")


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferSide:
    """One side of an offer: everything that is exchanged if it is taken.

    Attributes:
        price: of the base in the quote asset, on the pair's tick.
        base_units, quote_units: what changes hands.
        fee_units: on top, in the quote asset; the party pays it.
        cost: what the venues would have had the size for on average, their fees counted.
        worst: the last price that the size reached there, their fees counted.
    """

    price: Price
    base_units: int
    quote_units: int
    fee_units: int
    cost: Price
    worst: Price


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasons:
    """What made the price what it is, beside what the market costs.

    Attributes:
        half_spread_ppm: of the party's terms, added to the ask and taken off the bid.
        skew_ppm: added to both; below zero while the desk is long.
        fee_ppm: of the party's terms.
        position: the desk's, of the base asset, when the price was made.
        venues: whose books it was made of.
        left_out: venues whose books were not, and why.
    """

    half_spread_ppm: int
    skew_ppm: int
    fee_ppm: int
    position: int
    venues: tuple[str, ...]
    left_out: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the desk stands by until *valid_until*; it never changes.

    Attributes:
        valid_until: by the clock of PostgreSQL; at this very moment it is over.
        mid_price_id: the market's mid that it was made around, on record.
        look_ms: how long a last look may take after it is taken; None: there is none.
        tolerance_ppm: how far the mid may have moved by then, either way.
    """

    bid: OfferSide | None
    ask: OfferSide | None
    made_at: datetime
    valid_until: datetime
    terms_version: int
    mid_price_id: UUID
    why: Reasons
    look_ms: int | None = None
    tolerance_ppm: int | None = None

    def side(self, side: DealSide) -> OfferSide | None:
        """Return what is offered on a side, if it is."""
        return self.ask if side is DealSide.DESK_SELLS else self.bid


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The acceptance that won.

    Attributes:
        look_until: when a last look is over; None: there was none.
        look_price_id: the mid that was looked at.
        moved_ppm: how far it had moved from the offer's mid; above zero is up. Rounded to zero.
    """

    side: DealSide
    accept_ref: str
    by: str
    at: datetime
    look_until: datetime | None
    look_price_id: UUID | None = None
    moved_ppm: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A quote on record.

    Attributes:
        answer_until: a request that is not priced by then is refused.
        why_not: why it was refused or declined, by name; None otherwise.
        detail: the same in words.
        deal_id: what it became.
    """

    id: UUID
    book: int
    request: QuoteRequest
    state: QuoteState
    answer_until: datetime
    offer: Offer | None = None
    taken: Taken | None = None
    why_not: RefusalReason | DeclineReason | None = None
    detail: str = ""
    deal_id: UUID | None = None
    created_at: datetime
    updated_at: datetime


@unique
class Verdict(StrEnum):
    """What came of an attempt to take a quote, at the moment it was made."""

    WON = "won"
    TAKEN = "taken"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    REFUSED = "refused"
    """A limit or a control of the desk; the quote stands as long as it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """An attempt to take a quote; its reference brings back the same one, for ever.

    Attributes:
        quote: as it stands now: what the winner's became is said by its state.
        detail: why not, in words.
    """

    accept_ref: str
    quote: Quote
    side: DealSide
    by: str
    at: datetime
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclineRate:
    """How often a party's acceptances were declined, and why.

    Attributes:
        looked_at: quotes that were taken under a last look and are decided.
        declined: by reason.
    """

    party: str
    looked_at: int
    declined: Mapping[DeclineReason, int]

    @property
    def ppm(self) -> int:
        """Return the declined ones of all, in millionths, rounded down; 0 of none."""
        return sum(self.declined.values()) * PPM // self.looked_at if self.looked_at else 0
