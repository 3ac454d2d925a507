"""Whether a quote can be taken, and what a last look comes to. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from kernel.money import Price, Rounding, divide
from risk.model import ControlState
from trading.model import DealSide
from trading.quotes.model import DeclineReason, Offer, Quote, QuoteState, Verdict
from trading.quotes.pricing import is_reducing, moved_parts

_OVER: Final = {
    QuoteState.EXPIRED: (Verdict.EXPIRED, "the quote had expired"),
    QuoteState.WITHDRAWN: (Verdict.WITHDRAWN, "the desk had withdrawn the quote"),
    QuoteState.ACCEPTED: (Verdict.TAKEN, "the quote was taken by another acceptance"),
    QuoteState.BOOKED: (Verdict.TAKEN, "the quote was taken by another acceptance"),
    QuoteState.DECLINED: (Verdict.TAKEN, "the quote was taken by another acceptance"),
}


@dataclass(frozen=True, slots=True)
class Ruling:
    """What an attempt to take a quote comes to, before anything is booked."""

    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What a last look comes to: `decline` is None where the deal stands.

    Attributes:
        moved_ppm: how far the mid has moved; above zero is up. Rounded to zero.
    """

    moved_ppm: int
    decline: DeclineReason | None
    detail: str = ""


def is_over(offer: Offer, at: datetime) -> bool:
    """Tell whether the time of an offer is over; at `valid_until` itself it is.

    It is over, too, before it was made: the clock went back since, and nobody knows how long ago that was.
    """
    return at >= offer.valid_until or at < offer.made_at


def is_overdue(quote: Quote, at: datetime) -> bool:
    """Tell whether the time is over in which somebody had to answer, take or look at a quote."""
    match quote.state:
        case QuoteState.REQUESTED:
            return at >= quote.answer_until
        case QuoteState.QUOTED:
            return quote.offer is not None and is_over(quote.offer, at)
        case QuoteState.ACCEPTED:
            taken = quote.taken
            return taken is not None and not (
                taken.look_until is not None and taken.at <= at < taken.look_until
            )
        case _:
            return False


def rule(quote: Quote, offer: Offer, at: datetime) -> Ruling:
    """Return whether *quote* can be taken at a moment, as far as the quote itself is concerned."""
    if quote.state in _OVER:
        return Ruling(*_OVER[quote.state])
    if is_over(offer, at):
        why = f"the quote had expired at {offer.valid_until.isoformat()}"
        if at < offer.made_at:
            why = f"the clock went back behind {offer.made_at.isoformat()}, when the quote was made"
        return Ruling(Verdict.EXPIRED, why)
    return Ruling(Verdict.WON)


def forbidden(control: ControlState, position: int, side: DealSide, base_units: int) -> str | None:
    """Return why the desk may not make a deal that it offered, if it may not."""
    match control:
        case ControlState.ACTIVE:
            return None
        case ControlState.HALTED:
            return "the desk is halted"
        case ControlState.REDUCING:
            if is_reducing(position, side, base_units):
                return None
            return "the desk only takes what brings its position nearer zero"


def judge_look(side: DealSide, tolerance_ppm: int, offered_at: Price, now_at: Price) -> Look:
    """Return whether the market stands where it stood, within the tolerance, either way.

    Args:
        side: of the deal.
        tolerance_ppm: of the mid that the offer was made around.
        offered_at: that mid.
        now_at: the market's mid now.
    """
    parts = moved_parts(offered_at, now_at)
    whole = offered_at.numerator * now_at.denominator
    moved = divide(parts, whole, Rounding.DOWN)
    if abs(parts) <= tolerance_ppm * whole:
        return Look(moved, None)
    is_against_desk = (parts > 0) is (side is DealSide.DESK_SELLS)
    reason = (
        DeclineReason.MOVED_AGAINST_DESK if is_against_desk else DeclineReason.MOVED_AGAINST_CLIENT
    )
    detail = f"the mid moved by {moved} millionths; {tolerance_ppm} either way are borne"
    return Look(moved, reason, detail)
