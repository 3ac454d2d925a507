"""Errors of trading.

::

    Refused
    ├── NoDeal               no deal of this id is on record
    ├── DealConflict         the client reference is taken by a deal of other content
    ├── DealNotCancellable   it is being settled, settled, amended or cancelled
    ├── NoHedgeLine          nobody has said where this asset is hedged
    ├── HedgeLineConflict    the line, or the venue's instrument, is in use otherwise
    └── VenueAccountOpen     the venue account is in the books already
"""

from __future__ import annotations

from kernel.errors import Refused


class NoDeal(Refused):
    """No deal of this id is on record."""


class DealConflict(Refused):
    """A deal of the same client reference but other content is on record."""


class DealNotCancellable(Refused):
    """The deal has gone too far to be cancelled or amended."""


class NoHedgeLine(Refused):
    """Nobody has said where this asset of this desk is hedged."""


class HedgeLineConflict(Refused):
    """The line exists with another venue, or the venue's instrument hedges something else."""


class VenueAccountOpen(Refused):
    """The venue account is in the books already."""
