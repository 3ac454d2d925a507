"""Values of what is agreed with a party: terms of dealing, netting, standing instructions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final

from kernel.errors import BadInput
from kernel.money import AMOUNT_MAX, Asset
from marketdata.price_model import PPM
from registry.calendars import TENOR_DAYS_MAX

ANY: Final = "*"
"""In a spread rule: whatever asset."""

SPREADS_MAX: Final = 200
QUOTE_SECONDS_MAX: Final = 600
LAST_LOOK_MS_MAX: Final = 10_000
"""A longer look would be an option that the client gives away."""
HALF_SPREAD_PPM_MAX: Final = PPM // 2


class Rail(StrEnum):
    """How value moves."""

    EVM = "evm"
    BITCOIN = "bitcoin"
    BANK = "bank"
    BOOK = "book"
    """Between accounts in our own books: nothing leaves the house."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A netting agreement over everything: the party's obligations net across trades.

    From *effective_from* on, until *ends_on* if it ends: that day still nets.
    """

    party: str
    effective_from: date
    prefunded: bool
    """The party settles by book transfer, from funds it holds here."""
    ends_on: date | None = None

    def covers(self, day: date) -> bool:
        """Tell whether the agreement is in force on *day*."""
        return self.effective_from <= day and (self.ends_on is None or day <= self.ends_on)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallBack:
    """What the party said when it was called back at a number that was known before.

    *reference* is an opaque token: where the note of the call is kept.
    """

    confirmed: bool
    reference: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingInstruction:
    """Where a party is paid in an asset by a rail: one version, never rewritten.

    Attributes:
        version: counts from 1 for each (party, asset, rail).
        effective_from: the first day (UTC) on which it may be in force.
        needs_call_back: it is not in force before the party confirmed it in a call back.
        proposed_by, approved_by: the two operators.
        at: when it was approved.
        call_back: None: nobody has called back.
    """

    party: str
    asset: str
    rail: Rail
    version: int
    destination: str
    effective_from: date
    needs_call_back: bool
    proposed_by: str
    approved_by: str
    at: datetime
    call_back: CallBack | None = None


class StandingState(StrEnum):
    """What a version of a standing instruction is on a day."""

    AWAITING_CALL_BACK = "awaiting_call_back"
    COOLING_OFF = "cooling_off"
    IN_FORCE = "in_force"
    REPLACED = "replaced"
    """By a later version, after it was in force or while it waited to be."""
    DENIED = "denied"
    """The party did not ask for it."""


def _require_within(what: str, figure: int, low: int, high: int, unit: str) -> None:
    if not low <= figure <= high:
        raise BadInput(f"{what} of {figure} {unit} is not possible", remedy=f"Use {low} to {high}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadRule:
    """What is put on either side of the market's cost, in millionths of it.

    Attributes:
        base, quote: asset codes; ``*`` is any.
        from_units: the rule is for deals of so many smallest units of *base* and more; 0 where
            *base* is any, since assets have units of different size.
    """

    base: str
    quote: str
    from_units: int = 0
    half_spread_ppm: int

    def __post_init__(self) -> None:
        if not 0 <= self.half_spread_ppm <= HALF_SPREAD_PPM_MAX:
            raise BadInput(
                f"a half spread of {self.half_spread_ppm} millionths is not possible",
                remedy=f"Use 0 to {HALF_SPREAD_PPM_MAX}",
            )
        if not 0 <= self.from_units <= AMOUNT_MAX:
            raise BadInput(f"a spread from {self.from_units} units on is not possible")
        if self.base == ANY and self.from_units:
            raise BadInput(
                "a spread of any asset cannot depend on the size",
                remedy="Name the base asset; a unit of one is not a unit of another",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LastLook:
    """How long the desk may look at an accepted quote, and what movement it bears.

    Attributes:
        window_ms: from the acceptance; over without a look, the deal is declined.
        tolerance_ppm: of the price; a movement up to this is the desk's own.
    """

    window_ms: int
    tolerance_ppm: int

    def __post_init__(self) -> None:
        if not 0 < self.window_ms <= LAST_LOOK_MS_MAX:
            raise BadInput(
                f"a last look of {self.window_ms} ms is not possible",
                remedy=f"Use 1 to {LAST_LOOK_MS_MAX} ms",
            )
        if not 0 <= self.tolerance_ppm < PPM:
            raise BadInput(f"a tolerance of {self.tolerance_ppm} millionths is not possible")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTerms:
    """On what terms the desk deals with a party: one version, never rewritten.

    Attributes:
        version: counts from 1; 0 are the house's terms for whoever has none of their own.
        effective_from: the first day (UTC) on which they may apply; the newest that may, applies.
        tenor_days: business days from the trade to its value date (T+n).
        fee_ppm: charged on top of a deal, in millionths of its amount in the quote asset.
        spreads: the last word on what a quote costs beyond the market; one rule fits anything.
        quote_seconds: how long a quote can be accepted.
        last_look: None: an accepted quote is a deal.
        off_market_ppm: a deal whose price is further from the market needs a reason.
        desk: whose position the party's deals change.
    """

    party: str
    version: int
    effective_from: date
    tenor_days: int
    fee_ppm: int
    spreads: tuple[SpreadRule, ...]
    quote_seconds: int
    last_look: LastLook | None
    off_market_ppm: int
    desk: str

    def __post_init__(self) -> None:
        _require_within("a tenor", self.tenor_days, 0, TENOR_DAYS_MAX, "business days")
        _require_within("a fee", self.fee_ppm, 0, PPM - 1, "millionths")
        _require_within("a quote", self.quote_seconds, 1, QUOTE_SECONDS_MAX, "seconds")
        _require_within("an off-market bound", self.off_market_ppm, 0, PPM - 1, "millionths")
        self._require_spreads()

    def _require_spreads(self) -> None:
        keys = {(rule.base, rule.quote, rule.from_units) for rule in self.spreads}
        if len(keys) != len(self.spreads) or len(self.spreads) > SPREADS_MAX:
            raise BadInput(
                "two spreads are for the same thing, or there are too many",
                remedy=f"Give at most {SPREADS_MAX}, each for another pair or size",
            )
        if (ANY, ANY, 0) not in keys:
            raise BadInput(
                "the terms leave deals without a spread", remedy="Add one for any pair: */*"
            )


DEFAULT_TERMS: Final = ClientTerms(
    party="",
    version=0,
    effective_from=date.min,
    tenor_days=0,
    fee_ppm=0,
    spreads=(SpreadRule(base=ANY, quote=ANY, half_spread_ppm=1_000),),
    quote_seconds=10,
    last_look=None,
    off_market_ppm=20_000,
    desk="otc",
)
"""The house's terms for a party that has none of its own: settled the same day, firm quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementTarget:
    """How one asset of a deal moves: by which rail, to which version of a standing instruction.

    *version* is None where nobody has said where the party is paid, and where it settles by book.
    """

    asset: str
    rail: Rail
    version: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """When and how a deal settles, as it was known when it was made.

    Attributes:
        calendars: whose business days the value date was chosen by, and by which version of the
            rules: ``2026.1:fedwire+target``.
    """

    value_date: date
    calendars: str
    instructions: tuple[SettlementTarget, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementQuestion:
    """A deal of *trade_date* for which somebody asks when and how it settles.

    Attributes:
        value_date: what both sides agreed; None: as the terms have it.
        agreed_at: the moment of the agreement, for the cut-offs of that day; None: they do not
            count.
    """

    party: str
    base: Asset
    quote: Asset
    trade_date: date
    value_date: date | None
    terms: ClientTerms
    agreed_at: datetime | None = None
