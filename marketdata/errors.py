"""Errors of market data.

::

    BadInput
    └── OffGrid          a price or quantity that the instrument's grid does not have
    Refused
    ├── NoInstrument     nobody has recorded this symbol
    └── NoPrice          no usable price is on record
"""

from __future__ import annotations

from kernel.errors import BadInput, Refused


class OffGrid(BadInput):
    """A price is not a whole number of ticks, or a quantity not a whole number of lots."""


class NoInstrument(Refused):
    """Nobody has recorded an instrument of this venue and symbol."""


class NoPrice(Refused):
    """No price of this id, or none that is fresh enough, is on record."""
