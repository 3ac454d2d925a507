"""What reporting refuses.

::

    Refused
    ├── NoStatement         no statement of that client and period was issued
    ├── StatementRefused    the period is not over, or the statement on record says something else
    ├── NoValuation         no valuation of that id is on record
    ├── ValuationUntied     lots and ledger differ
    ├── NoRate              something came or went on a day of which no price is on record
    └── MonthEndRefused     something stands in the way of the month's end
"""

from __future__ import annotations

from kernel.errors import Refused


class NoStatement(Refused):
    """No statement of that client and period was issued."""


class StatementRefused(Refused):
    """The period is not over, or the statement on record says something else."""


class NoValuation(Refused):
    """No valuation of that id is on record."""


class ValuationUntied(Refused):
    """The lots are not what the ledger has as the house's own position."""


class NoRate(Refused):
    """Something came or went on a day of which no price is on record."""


class MonthEndRefused(Refused):
    """Something stands in the way of the month's end."""
