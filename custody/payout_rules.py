"""When a payment that waits for a block is offered again for more, and when people decide. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from chain.model import FeeQuote
from custody.payout_allocation import FEE_PER_GAS_MAX
from custody.payout_model import Attempt, AttemptKind
from kernel.errors import BadInput

HEAD_OF_LINE_AFTER: Final = timedelta(minutes=10)
"""The lowest open nonce of an address is an alarm when it is older than this."""
FILL_AFTER: Final = timedelta(minutes=2)
"""A nonce that was given back and that others wait behind is filled after this."""


class Bump(Enum):
    """What is to be done about a payment, or a transaction of many, that no block has."""

    NOT_YET = "not yet"
    NOW = "now"
    CANCEL = "cancel"
    PEOPLE = "people"
    """The rule's means are exhausted: its deadline is over, or more would exceed its caps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BumpPolicy:
    """When the worker offers more by itself, and up to what.

    Attributes:
        bump_after: age of the newest attempt, at the head of its address's line.
        underpriced_after: the same where the network asks more than twice what it offers.
        fee_per_gas_max: wei; above it people decide.
        times_first_max: the fee may grow to so many times the first attempt's.
        deadline: age of the first attempt from which on people decide.
        cancel_after: the same from which on the payment is cancelled by a transaction that pays
            nobody; None: only two people cancel.
    """

    bump_after: timedelta = timedelta(minutes=3)
    underpriced_after: timedelta = timedelta(seconds=30)
    fee_per_gas_max: int = FEE_PER_GAS_MAX
    times_first_max: int = 10
    deadline: timedelta = timedelta(hours=2)
    cancel_after: timedelta | None = None

    def __post_init__(self) -> None:
        if self.underpriced_after <= timedelta(0) or self.bump_after < self.underpriced_after:
            raise BadInput("a payment is bumped after some time, a cheap one no later than others")
        if self.deadline <= self.bump_after or self.times_first_max < 1:
            raise BadInput("a rule that never bumps: leave the rule out instead")

    def decide(
        self, first: Attempt, newest: Attempt, offer: int, quote: FeeQuote, now: datetime
    ) -> Bump:
        """Say what is to be done about a payment at the head of its address's line.

        Args:
            first: its first attempt.
            newest: its newest attempt, signed.
            offer: wei per gas that the next attempt would offer at most.
            quote: what the network asks now.
            now: the time.
        """
        age = now - (newest.signed_at or newest.built_at)
        # A quote has room for the base fee to double; below its half there is none at all.
        is_cheap = 2 * newest.max_fee_per_gas < quote.max_fee_per_gas
        if age < (self.underpriced_after if is_cheap else self.bump_after):
            return Bump.NOT_YET
        whole = now - (first.signed_at or first.built_at)
        limit = min(self.fee_per_gas_max, self.times_first_max * first.max_fee_per_gas)
        if offer > limit:
            return Bump.PEOPLE
        is_payment = newest.kind is AttemptKind.PAY
        if self.cancel_after is not None and whole >= self.cancel_after and is_payment:
            return Bump.CANCEL
        return Bump.PEOPLE if whole >= self.deadline else Bump.NOW


ASKED_AGAIN_MIN: Final = timedelta(seconds=1)
ASKED_AGAIN_MAX: Final = timedelta(minutes=1)


def ask_again_after(built_at: datetime, now: datetime) -> timedelta:
    """Return when the signer is asked again that would not sign yet what was built at *built_at*.

    A tenth of how long it waits already: every question is a row here and a record there, for ever, and
    a full window or an address that cools off lasts for hours.
    """
    return min(max((now - built_at) / 10, ASKED_AGAIN_MIN), ASKED_AGAIN_MAX)
