"""What orders may still do: the bounds within which everything unbooked will turn out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matching.model import Side
from venues.model import UNSETTLED_STATES, VenueOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderExposure:
    """An order whose effect is not wholly booked; units of the base asset."""

    order: VenueOrder
    filled: int
    booked: int

    @property
    def certain(self) -> int:
        """Return what has traded and is not booked: by our fills or by the venue's own figure."""
        return max(self.order.executed_units, self.filled) - self.booked

    @property
    def possible(self) -> int:
        """Return the most that may turn out to have traded and is not booked."""
        if self.order.may_be_alive:
            return max(self.certain, self.order.base_units - self.booked)
        return self.certain

    @property
    def is_unsettled(self) -> bool:
        """Whether nobody knows if the venue has the order."""
        return self.order.state in UNSETTLED_STATES or self.order.revived_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """Between which bounds what is not booked will change a holding, in units of the base asset."""

    low: int
    high: int


def uncertainty(exposures: Sequence[OrderExposure]) -> Uncertainty:
    """Return the worst case on either side: every order filled as far as it may, or as little."""
    low = high = 0
    for item in exposures:
        if item.order.side is Side.BUY:
            low, high = low + item.certain, high + item.possible
        else:
            low, high = low - item.possible, high - item.certain
    return Uncertainty(low=low, high=high)
