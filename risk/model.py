"""Values of risk: controls, limits, what is proposed, and what is wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final, TypeAlias

from kernel.errors import BadInput
from kernel.money import Price
from kernel.states import StateTable
from matching.model import Side
from venues.worst_case import OrderExposure

Amount: TypeAlias = tuple[str, int]
"""An asset's code and how much of it, in smallest units."""

EVERY: Final = "*"
"""The name under which the house's own control and the defaults of desks and parties are kept."""
SYSTEM: Final = "system:"
NAME_LENGTH_MAX: Final = 64
UNITS_MAX: Final = 10**60
ORDERS_PER_MINUTE_MAX: Final = 10_000


@unique
class ControlState(StrEnum):
    """What a desk may do, from the loosest to the strictest."""

    ACTIVE = "active"
    REDUCING = "reducing"
    """Only what brings a position nearer to zero."""
    HALTED = "halted"
    """No order at all. Cancels pass."""

    @property
    def strictness(self) -> int:
        """Return a number that is the larger the stricter."""
        return tuple(ControlState).index(self)


CONTROL_STATES: Final = StateTable(
    schema="risk",
    table="desk_control",
    initial=frozenset({ControlState.ACTIVE}),
    edges=frozenset((a, b) for a in ControlState for b in ControlState if a is not b),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The switch that holds for a desk.

    Attributes:
        desk: whose switch it is; `EVERY`: the house's, which holds for every desk.
        by: operator, or ``system:<process>``.
        since: when it was set; None: nobody ever touched it.
        version: of that switch; whoever loosens it signs this.
    """

    desk: str
    state: ControlState
    reason: str = ""
    by: str = ""
    since: datetime | None = None
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskLimits:
    """What a desk's orders may come to; every None is no limit.

    Attributes:
        version: 0 before it is on record.
        currency: in which whatever is not of one asset is valued.
        asset_units: how far from zero a position may be in the worst case, in units of the asset.
        notional_units: the same of all assets together, the currency itself apart.
        order_notional_units: the most that one order may be worth.
        orders_per_minute: orders in any sixty seconds.
        unknown_orders_max: how many orders may at once have no known outcome: unknown, on their way,
            or just written.
        loss_units: the loss of one UTC day from which on only risk is taken off; at twice that, halt.
        book_age_max_ms: the age of the book that an order was planned on.
        venue_units: what may be under way at a venue at once.
    """

    desk: str
    version: int = 0
    currency: str
    asset_units: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    notional_units: int | None = None
    order_notional_units: int | None = None
    orders_per_minute: int | None = None
    unknown_orders_max: int | None = None
    loss_units: int | None = None
    book_age_max_ms: int | None = None
    venue_units: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        require_name(self.desk, "desk")
        amounts = (
            *self.asset_units.values(),
            *self.venue_units.values(),
            self.notional_units,
            self.order_notional_units,
            self.loss_units,
            self.book_age_max_ms,
        )
        if any(units is not None and not 0 <= units <= UNITS_MAX for units in amounts):
            raise BadInput(f"a limit of desk {self.desk} is negative, or larger than any amount")
        if self.loss_units == 0:
            raise BadInput("a loss limit of nothing would halt every desk at once")
        for counted in (self.orders_per_minute, self.unknown_orders_max):
            if counted is not None and not 0 <= counted <= ORDERS_PER_MINUTE_MAX:
                raise BadInput(f"orders are counted from 0 to {ORDERS_PER_MINUTE_MAX}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartyLimits:
    """What a counterparty may owe and be owed; every None is no limit.

    Attributes:
        exposure_units: everything open between us, both ways and pending too, without netting.
        settlement_units: what it owes us: what is lost if we have paid and it does not.
    """

    party: str
    version: int = 0
    currency: str
    exposure_units: int | None = None
    settlement_units: int | None = None

    def __post_init__(self) -> None:
        require_name(self.party, "party")
        for units in (self.exposure_units, self.settlement_units):
            if units is not None and not 0 <= units <= UNITS_MAX:
                raise BadInput(f"a limit of {self.party} is negative, or larger than any amount")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedDeal:
    """A deal that would be booked.

    Attributes:
        receives: what the party would owe us for it.
        pays: what we would owe the party.
        fee: charged on top, if any.
        replaces: the deal that the same chain takes back (an amendment).
    """

    party: str
    desk: str
    receives: Amount
    pays: Amount
    reference: str
    fee: Amount | None = None
    replaces: ProposedDeal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedOrder:
    """An order that would be written.

    Attributes:
        asset: the base asset; its position is what the order changes.
        base_units: its size, in smallest units of *asset*.
        limit_price: the worst price that it may trade at.
        book_age_ms: of the book that it was planned on; None: not known, so older than any limit.
    """

    desk: str
    venue: str
    account: str
    asset: str
    quote: str
    side: Side
    base_units: int
    limit_price: Price
    book_age_ms: int | None = None

    def __post_init__(self) -> None:
        if self.base_units <= 0:
            raise BadInput(f"an order is for more than {self.base_units}")


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The bounds within which a position will turn out, in smallest units; positive is long."""

    low: int
    high: int

    @property
    def size(self) -> int:
        """Return how far from zero it may be."""
        return max(abs(self.low), abs(self.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskBook:
    """What a desk has and what it has under way, all read under its lock.

    Attributes:
        positions: by asset, as the ledger has them, in smallest units; positive is long.
        under_way: by base asset, every order of the desk whose effect is not wholly booked.
    """

    positions: Mapping[str, int]
    under_way: Mapping[str, Sequence[OrderExposure]] = field(
        default_factory=lambda: MappingProxyType({})
    )


@unique
class Violation(StrEnum):
    """What is wrong with proposed orders, in the order in which it is judged."""

    DESK_HALTED = "desk-halted"
    NOT_REDUCING = "not-reducing"
    """The desk only reduces, and the order would not, or would pass zero, in the worst case."""
    VENUE_TRIPPED = "venue-tripped"
    """The breaker of the venue's account is open, or its one trial order is under way."""
    TOO_MANY_UNKNOWN = "too-many-unknown"
    ORDER_RATE = "order-rate"
    BOOK_TOO_OLD = "book-too-old"
    NO_PRICE = "no-price"
    """An amount cannot be valued, so no limit in money can be judged."""
    ORDER_NOTIONAL = "order-notional"
    ASSET_POSITION = "asset-position"
    TOTAL_NOTIONAL = "total-notional"
    VENUE_UNDER_WAY = "venue-under-way"


@dataclass(frozen=True, slots=True)
class Breach:
    """One violation, with the figures: what it would come to and what is allowed.

    Attributes:
        subject: the desk, asset or venue that it is about.
        used, allowed: in the unit of the limit; both 0 where there is no figure.
    """

    violation: Violation
    subject: str
    used: int = 0
    allowed: int = 0

    def __str__(self) -> str:
        """Return it as people read it."""
        text = f"{self.violation} of {self.subject}"
        if self.violation is Violation.NO_PRICE:
            return f"{text}: none on record is fresh enough to judge a limit in money"
        return f"{text}: {self.used} of {self.allowed}" if self.used or self.allowed else text


@unique
class Outcome(StrEnum):
    """How one request to a venue ended, as its health is judged."""

    ANSWERED = "answered"
    """The venue took it, or said no with a reason of its own: it works."""
    FAILED = "failed"
    """It certainly did not happen, and the venue or the way to it is at fault."""
    UNKNOWN = "unknown"


def require_name(name: str, what: str) -> None:
    """Refuse a name that is empty, too long or has spaces."""
    if not 0 < len(name) <= NAME_LENGTH_MAX or any(letter.isspace() for letter in name):
        raise BadInput(f"{name!r} is no name of a {what}")
