"""What custody refuses.

::

    kernel.errors.Refused
    ├── UnknownRow           no deposit, receipt, payout or address with that id
    ├── NotPossible          the state of the row does not allow it, or not for this wallet
    ├── ClientsUncovered     clients would be owed more than is held for them
    ├── Frozen               a freeze switch is closed for it: one person closes, two open
    └── NotOurs              an address or wallet that custody does not hold
"""

from __future__ import annotations

from kernel.errors import Refused


class UnknownRow(Refused):
    """No deposit, receipt, payout or address with that id."""


class NotPossible(Refused):
    """The state of the row does not allow it, or not for this wallet."""


class ClientsUncovered(Refused):
    """Clients would be owed more than is held for them (rule 6 of the account book)."""


class Frozen(Refused):
    """A freeze switch is closed for it: one person closes, two open."""


class NotOurs(Refused):
    """An address or wallet that custody does not hold."""
