"""Errors of venues.

::

    OutsideUnavailable
    └── VenueUnavailable      the venue does not answer, or not in a way that can be read
    Refused
    ├── NoOrder               no order of this id is on record
    ├── OrderConflict         the client order id is taken by another order
    ├── ContradictingFill     the venue tells two stories about one trade
    └── TooManyExposures      more orders are open than can be reckoned with
"""

from __future__ import annotations

from kernel.errors import OutsideUnavailable, Refused


class VenueUnavailable(OutsideUnavailable):
    """The venue does not answer, or its answer cannot be read. Says nothing about any order."""


class NoOrder(Refused):
    """No order of this id is on record."""


class OrderConflict(Refused):
    """An order of the same id but other content is on record."""


class ContradictingFill(Refused):
    """The venue reports a trade id again with other content; the first report stays."""


class TooManyExposures(Refused):
    """More orders are open than a worst case can be reckoned from."""
