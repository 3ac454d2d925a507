"""Errors of profit and loss.

::

    Refused
    ├── NoPnlRun        no run of this id is on record
    ├── PnlUntied       the flows are not what the ledger has as the balance of the account
    └── TooManyFlows    the journal of the desk is longer than one run reads
"""

from __future__ import annotations

from kernel.errors import Refused


class NoPnlRun(Refused):
    """No run of this id is on record."""


class PnlUntied(Refused):
    """The flows are not what the ledger has as the balance of the desk's account."""


class TooManyFlows(Refused):
    """The journal of the desk is longer than one run reads."""
