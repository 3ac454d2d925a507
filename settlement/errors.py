"""What settlement refuses.

::

    Refused
    ├── RunNotFound
    ├── CycleNotFound
    ├── NotYet                 a clock has not come to it: the cut-off of a window
    ├── TooLate                a clock is over: the time to affirm
    ├── NotTheirs              a signature, or a file, is not the party's, or not of this
    ├── NothingOwed            a run needs something to calculate
    ├── NotAffirmed            seal needs every party of the version to have affirmed
    ├── Defaulted              the party is in default: nothing is released to it
    ├── NotReleasable          value only against value, or the instruction is in another state
    ├── NotCovered             clients' money, or the paying wallet, would fall short
    └── ChangedMeanwhile       somebody else was faster; look again
"""

from __future__ import annotations

from kernel.errors import Refused


class RunNotFound(Refused):
    """There is no settlement run of that id."""


class CycleNotFound(Refused):
    """There is no settlement cycle of that id."""


class NotYet(Refused):
    """A clock of the cycle has not come to it."""


class TooLate(Refused):
    """A clock of the cycle is over."""


class NotTheirs(Refused):
    """What came back was not signed by the party, or was not about this statement."""


class NothingOwed(Refused):
    """There is nothing to calculate for the window."""


class NotAffirmed(Refused):
    """The version has parties who have not affirmed it."""


class NotReleasable(Refused):
    """The instruction is in another state, or what the party owes is not final."""


class Defaulted(Refused):
    """Two people have declared the party in default."""


class NotCovered(Refused):
    """What would pay, or what is held for clients, falls short."""


class ChangedMeanwhile(Refused):
    """Somebody else changed it since it was read."""

    def __init__(self, what: str) -> None:
        super().__init__(what, remedy="Look at it as it is now, and decide again")
