"""What settlement refuses.

::

    Refused
    ├── RunNotFound
    ├── NothingOwed            a run needs something to calculate
    ├── NotAffirmed            seal needs every party of the version to have affirmed
    ├── SamePerson             a step for two people was tried by one
    ├── NoStandingInstruction  nobody has said where the party wants to be paid
    ├── NotReleasable          value only against value, or the instruction is in another state
    ├── NotCovered             clients' money, or the paying wallet, would fall short
    └── ChangedMeanwhile       somebody else was faster; look again
"""

from __future__ import annotations

from kernel.errors import Refused


class RunNotFound(Refused):
    """There is no settlement run of that id."""


class NothingOwed(Refused):
    """There is nothing to calculate for the window."""


class NotAffirmed(Refused):
    """The version has parties who have not affirmed it."""


class SamePerson(Refused):
    """The step needs two different people."""


class NoStandingInstruction(Refused):
    """Nobody has said where the party wants to be paid."""


class NotReleasable(Refused):
    """The instruction is in another state, or what the party owes is not final."""


class NotCovered(Refused):
    """What would pay, or what is held for clients, falls short."""


class ChangedMeanwhile(Refused):
    """Somebody else changed it since it was read."""

    def __init__(self, what: str) -> None:
        super().__init__(what, remedy="Look at it as it is now, and decide again")
