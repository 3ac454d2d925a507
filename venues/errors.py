"""Errors of venues.

::

    OutsideUnavailable
    └── VenueUnavailable      the venue does not answer, or not in a way that can be read
        └── VenueBusy         we may not ask it now, so it was not asked
    Refused
    ├── KeyRefused            an API key may do more, or less, than it should
    ├── NoOrder               no order of this id is on record
    ├── OrderConflict         the client order id is taken by another order
    ├── AttemptRefused        an earlier order of the same intent may exist, or was refused for good
    ├── AccountHalted         a person has halted the account: nothing is ordered for it
    ├── AccountNotClear       orders of the account are not cleared up, so it is not released
    ├── NotEscalated          only an escalated order is decided by people
    └── TooManyExposures      more orders are open than can be reckoned with
"""

from __future__ import annotations

from kernel.errors import OutsideUnavailable, Refused


class VenueUnavailable(OutsideUnavailable):
    """The venue does not answer, or its answer cannot be read. Says nothing about any order."""


class VenueBusy(VenueUnavailable):
    """We may not ask now: the venue's limits are used up, or too many calls wait already."""


class KeyRefused(Refused):
    """An API key may withdraw, or may not trade or read, or nobody can tell."""


class NoOrder(Refused):
    """No order of this id is on record."""


class OrderConflict(Refused):
    """An order of the same id but other content is on record."""


class AttemptRefused(Refused):
    """Another order of the intent may be at the venue, or the venue refused it for good."""


class AccountHalted(Refused):
    """Nothing is ordered for the account until a person releases it; cancels pass."""


class AccountNotClear(Refused):
    """An order of the account is escalated or alive against the evidence."""


class NotEscalated(Refused):
    """People decide about escalated orders only; all others are resolved by the venue's word."""


class TooManyExposures(Refused):
    """More orders are open than a worst case can be reckoned from."""
