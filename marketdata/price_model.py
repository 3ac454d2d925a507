"""Values of prices: how one is made, what it is wanted for, where it may come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum, unique
from typing import Final
from uuid import UUID

from kernel.errors import BadInput
from kernel.money import Asset, Price
from kernel.states import StateTable

PPM: Final = 1_000_000


@unique
class PriceKind(StrEnum):
    """How a recorded price was made."""

    INDEX = "index"
    """The weighted median of several venues (`marketdata.index_price`)."""
    VENUE_MID = "venue-mid"
    """The middle of one venue's book."""
    JOINT_MID = "joint-mid"
    """The middle of the best bid and the best ask of several venues (`marketdata.merged`)."""
    VWAP = "vwap"
    TWAP = "twap"
    REFERENCE_RATE = "reference-rate"
    """Of trades over a window (`marketdata.benchmarks`)."""
    FIAT_RATE = "fiat-rate"
    """From the published reference rates of a central bank."""
    CROSS = "cross"
    """A price in one currency times a fiat rate."""
    MANUAL = "manual"
    """Typed in by one person and approved by another."""
    AGREED = "agreed"
    """What a deal says itself: evidence of the deal, never of the market."""
    FILL = "fill"
    """What a venue's trade of ours says itself; likewise."""


@unique
class Purpose(StrEnum):
    """What a price is wanted for; the later, the more is asked of it."""

    INDICATIVE = "indicative"
    """To look at, to quote from."""
    VALUATION = "valuation"
    """To value fees, positions and reports with."""
    SETTLEMENT = "settlement"
    """To settle, margin or liquidate on: never from fewer than the agreed number of venues."""


@unique
class OverrideState(StrEnum):
    """Where a manual price is."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    REJECTED = "rejected"
    REVOKED = "revoked"
    """It was in force, and was ended before it expired."""


OVERRIDE_STATES: Final = StateTable(
    schema="marketdata",
    table="price_override",
    initial=frozenset({OverrideState.PROPOSED}),
    edges=frozenset(
        {
            (OverrideState.PROPOSED, OverrideState.APPROVED),
            (OverrideState.PROPOSED, OverrideState.REJECTED),
            (OverrideState.APPROVED, OverrideState.REVOKED),
        }
    ),
)


@unique
class OverrideUse(StrEnum):
    """When a manual price is taken."""

    INSTEAD = "instead"
    """Before everything else: what the market data says is wrong."""
    LAST = "last"
    """Only where nothing else has a price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideRequest:
    """A price that somebody wants to stand.

    Attributes:
        evidence: what shows it: a broker's quote, a document's name or hash.
        valid_from, expires_at: it stands from the one until just before the other.
    """

    price: Price
    use: OverrideUse
    reason: str
    evidence: str = ""
    valid_from: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """A manual price on record.

    Attributes:
        price_id: of the recorded price; None before it is approved.
        ended_at: when it was revoked.
    """

    id: UUID
    request: OverrideRequest
    state: OverrideState
    proposed_by: str
    proposed_at: datetime
    decided_by: str | None = None
    decided_at: datetime | None = None
    price_id: UUID | None = None
    ended_by: str | None = None
    ended_at: datetime | None = None

    def stands(self, at: datetime, known_at: datetime | None = None) -> bool:
        """Tell whether it was approved, not expired and not revoked at that moment.

        Args:
            known_at: an approval that came after the moment counts too if it came by then, the
                moment is one that it was signed for, and it was not revoked since.
        """
        if self.decided_at is None or self.price_id is None:
            return False
        end = self.request.expires_at if self.ended_at is None else self.ended_at
        if known_at is not None and self.ended_at is None and self.decided_at <= known_at:
            return self.request.valid_from <= at < end
        return max(self.request.valid_from, self.decided_at) <= at < end


@dataclass(frozen=True, slots=True, kw_only=True)
class FiatRate:
    """What one unit of the source's own currency was worth in another, on one day.

    Attributes:
        mantissa, scale: the published decimal: ``mantissa / 10 ** scale``.
        version: counts what was published for the day and currency, from 1.
        import_id: of the document that it was read from.
    """

    source: str
    day: date
    currency: str
    mantissa: int
    scale: int
    version: int
    import_id: UUID

    @property
    def text(self) -> str:
        """Return the decimal as it was published."""
        digits = str(self.mantissa).rjust(self.scale + 1, "0")
        whole = digits[: len(digits) - self.scale]
        return f"{whole}.{digits[len(whole) :]}" if self.scale else whole


@dataclass(frozen=True, slots=True)
class Pair:
    """Two different assets: what is priced, and in what."""

    base: Asset
    quote: Asset

    def __post_init__(self) -> None:
        if self.base.code == self.quote.code:
            raise BadInput(f"{self.base.code} has no price in itself")

    def __str__(self) -> str:
        return f"{self.base.code}/{self.quote.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotLine:
    """One pair of a locked snapshot."""

    price_id: UUID
    price: Price
    kind: str
    quality: str
    observed_at: datetime

    @property
    def pair(self) -> str:
        """Return ``ETH/USDT``."""
        return f"{self.price.base.code}/{self.price.quote.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSnapshot:
    """The prices of a month's end, never changed again.

    Attributes:
        month: its first day.
        as_of: the first moment after it; no price observed later is in it.
        content_hash: SHA-256 over the lines (`marketdata.price_snapshots.hash_lines`), hexadecimal.
    """

    id: UUID
    month: date
    as_of: datetime
    content_hash: str
    locked_by: str
    locked_at: datetime
    signature: bytes
    lines: tuple[SnapshotLine, ...] = field(default=())


OVERRIDE_LIFETIME_MAX: Final = timedelta(days=31)
"""A manual price that is needed for longer is looked at again."""

PROPOSAL_LIFETIME: Final = timedelta(days=1)
"""What nobody has approved by then describes another market."""
