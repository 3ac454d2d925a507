"""Errors of market data.

::

    BadInput
    └── OffGrid          a price or quantity that the instrument's grid does not have
    Refused
    ├── NoBackfill       nobody has asked for this piece of the past
    ├── NoInstrument     nobody has recorded this symbol
    ├── NoOverride       nobody has proposed this manual price
    ├── NoPrice          no usable price is on record
    ├── OverrideRefused  the manual price cannot be decided, or not by this person
    └── SnapshotRefused  the month is locked, not over, or has pairs without a price
"""

from __future__ import annotations

from kernel.errors import BadInput, Refused


class OffGrid(BadInput):
    """A price is not a whole number of ticks, or a quantity not a whole number of lots."""


class NoBackfill(Refused):
    """No backfill of this id was asked for."""


class NoInstrument(Refused):
    """Nobody has recorded an instrument of this venue and symbol."""


class NoPrice(Refused):
    """No price of this id, or none that is fresh enough, is on record."""


class NoOverride(Refused):
    """No manual price of this id was proposed."""


class OverrideRefused(Refused):
    """A manual price cannot be decided: not in this state, not by this person, or not any more."""


class SnapshotRefused(Refused):
    """A month's prices cannot be locked, or are not."""
