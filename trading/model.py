"""Values of trading: deals, and what they leave to settle."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum, unique
from typing import Final
from uuid import UUID

from kernel.errors import BadInput
from kernel.money import AMOUNT_MAX, Asset, Price, Rounding
from kernel.states import StateTable
from ledger.opaque import require_token
from trading.terms.model import SettlementTarget

TREASURY: Final = "treasury"
"""Who has the house's inventory: the other side of a transfer, with an account like a desk's."""


class DealSide(StrEnum):
    """Which way the base asset goes."""

    DESK_SELLS = "desk_sells"
    DESK_BUYS = "desk_buys"


@unique
class DealOrigin(StrEnum):
    """How a deal came to the desk."""

    QUOTE = "quote"
    """A client accepted a quote of ours."""
    VOICE = "voice"
    """Somebody typed in what was agreed by telephone or in writing."""
    FILE = "file"


@unique
class DealPurpose(StrEnum):
    """Whom a deal is made with, and so what it means for the house."""

    CLIENT = "client"
    HEDGE = "hedge"
    """With a liquidity provider, to close a position; it settles like any other."""
    TRANSFER = "transfer"
    """Between a desk and treasury: nobody outside owes anything, nothing is settled. It stays booked,
    because what is never settled can always be taken back."""


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
        party: code of the party; of a transfer `TREASURY`.
        fee_units: charged on top, in smallest units of *quote*; the party owes it to us.
        price_id: the recorded price that the deal was made on; None: what was agreed is recorded
            as one, of kind ``agreed``.
        value_date: when it settles; None: by the party's terms.
        quote_id: the quote that was accepted; of origin ``quote`` and of no other.
        agreed_at: when the two agreed; None: when it is booked.
        mid_price_id: the market's mid at that moment; None: the recorded one that is fit, if any.
        off_market_reason: why a price so far from the market is right; needed only then.
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
    value_date: date | None = None
    origin: DealOrigin = DealOrigin.VOICE
    purpose: DealPurpose = DealPurpose.CLIENT
    quote_id: UUID | None = None
    agreed_at: datetime | None = None
    mid_price_id: UUID | None = None
    off_market_reason: str = ""
    booked_by: str
    reason: str = ""

    def __post_init__(self) -> None:
        require_token(self.client_ref, "client reference")
        if (self.origin is DealOrigin.QUOTE) is (self.quote_id is None):
            raise BadInput("a deal from a quote names the quote, and no other deal does")
        if self.purpose is DealPurpose.TRANSFER:
            self._require_transfer()
        if self.base_units <= 0 or self.fee_units < 0:
            raise BadInput("a deal needs a positive amount and a fee that is not negative")
        if (self.price.base, self.price.quote) != (self.base, self.quote):
            raise BadInput("the price is not one of the deal's two assets")
        if self.base.code == self.quote.code:
            raise BadInput("a deal exchanges two different assets")
        if self.quote_units <= 0:
            raise BadInput("the deal is worth less than the smallest unit of its quote asset")
        self._require_storable()

    def _require_transfer(self) -> None:
        if self.party != TREASURY or self.desk == TREASURY:
            raise BadInput(
                f"a transfer is between a desk and {TREASURY}, not {self.desk} and {self.party}"
            )
        if self.fee_units:
            raise BadInput("a transfer has a price and no fee: nobody outside would owe it")

    def _require_storable(self) -> None:
        """Refuse what no row can hold: found only there, it would end the batch it is in."""
        price = (self.price.numerator, self.price.denominator)
        if max(self.base_units, self.quote_units, self.fee_units, *price) > AMOUNT_MAX:
            raise BadInput("the deal's amounts or its price are larger than can be stored")
        for name in ("off_market_reason", "booked_by", "reason"):
            if "\0" in getattr(self, name):
                raise BadInput(f"the {name} of a deal has a zero byte in it")
        if self.agreed_at is not None and self.agreed_at.tzinfo is None:
            raise BadInput("the moment at which a deal was agreed has no zone")

    @property
    def quote_units(self) -> int:
        """Return what the base is exchanged for; the remainder below one unit favours the party."""
        pays = self.side is DealSide.DESK_SELLS
        return self.price.to_quote(self.base_units, Rounding.DOWN if pays else Rounding.UP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """A deal on record.

    Attributes:
        request: what was asked for, with what it left open filled in.
        price_id: what it was made on; of kind ``agreed`` if nothing was named.
        mid_price_id: the market's mid when it was agreed; None: there was none.
        terms_version: of the party's terms that it was booked under; 0: those of anybody.
        calendars: by which calendars its value date was found; "": the date was only given.
        instructions: by which rail each of its assets moves, by which version of where to.
        off_market_ppm: by how much the price is above (negative: below) the market's, in millionths;
            None: it is within the tolerance of the terms, or there was no market to judge it by.
        pulled_at: when settlement took its legs; None: not yet.
        amends: the deal that this one replaced.
    """

    id: UUID
    book: int
    request: DealRequest
    quote_units: int
    value_date: date
    agreed_at: datetime
    price_id: UUID
    mid_price_id: UUID | None
    terms_version: int
    calendars: str
    instructions: tuple[SettlementTarget, ...]
    off_market_ppm: int | None
    state: DealState
    pulled_at: datetime | None
    amends: UUID | None
    created_at: datetime
    updated_at: datetime

    @property
    def receives(self) -> tuple[str, int]:
        """Return what the other side gives, without the fee: asset code and smallest units."""
        return self._quote if self.request.side is DealSide.DESK_SELLS else self._base

    @property
    def pays(self) -> tuple[str, int]:
        """Return what the desk gives: asset code and smallest units."""
        return self._base if self.request.side is DealSide.DESK_SELLS else self._quote

    @property
    def fee(self) -> tuple[str, int] | None:
        """Return what the other side owes on top, if anything."""
        units = self.request.fee_units
        return (self.request.quote.code, units) if units else None

    @property
    def _base(self) -> tuple[str, int]:
        return self.request.base.code, self.request.base_units

    @property
    def _quote(self) -> tuple[str, int]:
        return self.request.quote.code, self.quote_units


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
    trade_date: date
    value_date: date
    account: str
    booked_at: datetime
