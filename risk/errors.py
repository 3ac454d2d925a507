"""Errors of risk.

::

    Refused
    ├── LimitExceeded     what is proposed would go beyond a limit
    ├── NotValued         a limit cannot be judged: an amount has no price
    ├── NotLooser         the switch is as loose as that already
    ├── TwoPeopleNeeded   one person cannot do this alone
    ├── LimitsChanged     the limits were changed meanwhile
    └── DeskNotStill      fills were posted all the while that the desk was looked at
"""

from __future__ import annotations

from kernel.errors import Refused


class LimitExceeded(Refused):
    """What is proposed would go beyond a limit."""


class NotValued(Refused):
    """A limit cannot be judged, because an amount has no price in the limit's currency."""

    def __init__(self, asset: str, currency: str) -> None:
        self.asset = asset
        super().__init__(
            f"no recorded price of {asset} in {currency} is fresh enough, so no limit in {currency}"
            " can be judged",
            remedy="Publish an index, import rates, or let two people approve a price",
        )


class NotLooser(Refused):
    """The switch is as loose already as what is asked for."""


class TwoPeopleNeeded(Refused):
    """It takes two different people, each with a role that may."""


class LimitsChanged(Refused):
    """Somebody else changed the limits meanwhile."""


class DeskNotStill(Refused):
    """Fills were posted all the while that the desk was looked at."""
