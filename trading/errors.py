"""Errors of trading.

::

    Refused
    ├── NoDeal               no deal of this id is on record
    ├── DealConflict         the client reference is taken by a deal of other content
    ├── OffMarketPrice       the price is far from the market's and nobody says why
    ├── DealNotCancellable   it is being settled, settled, amended or cancelled
    ├── NoHedgeLine          nobody has said where this asset is hedged
    ├── HedgeLineConflict    the line, or the venue's instrument, is in use otherwise
    ├── NoHandFill           no fill of this id was entered by hand
    ├── HandFillRefused      it is decided, its trade is known, or it takes another person
    ├── VenueAccountOpen     the venue account is in the books already
    ├── NoVenueBreak         no break of this id is on record
    └── BreakNotStanding     the break is closed, or it takes another person to dismiss it
"""

from __future__ import annotations

from kernel.errors import Refused


class NoDeal(Refused):
    """No deal of this id is on record."""


class DealConflict(Refused):
    """A deal of the same client reference but other content is on record."""


class OffMarketPrice(Refused):
    """The price is further from the market's than the terms allow, and no reason is given."""


class DealNotCancellable(Refused):
    """The deal has gone too far to be cancelled or amended."""


class NoHedgeLine(Refused):
    """Nobody has said where this asset of this desk is hedged."""


class HedgeLineConflict(Refused):
    """The line exists with another venue, or the venue's instrument hedges something else."""


class NoHandFill(Refused):
    """No fill of this id was entered by hand."""


class HandFillRefused(Refused):
    """The fill is decided, its trade is on record with other content, or it takes another person."""


class VenueAccountOpen(Refused):
    """The venue account is in the books already."""


class NoVenueBreak(Refused):
    """No break of this id is on record."""


class BreakNotStanding(Refused):
    """What is asked for is not possible with this break, or not for this person."""
