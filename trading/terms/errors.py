"""Errors of terms.

::

    Refused
    ├── NoStandingInstruction  nobody has said where the party wants to be paid, or it waits
    ├── NoSuchVersion          no version of that number is on record
    └── TermsChanged           somebody else was faster; look again
"""

from __future__ import annotations

from kernel.errors import Refused


class NoStandingInstruction(Refused):
    """Nobody has said where the party wants to be paid, or what was said is not in force."""


class NoSuchVersion(Refused):
    """No version of that number is on record."""


class TermsChanged(Refused):
    """Somebody else changed it since it was read."""

    def __init__(self, what: str) -> None:
        super().__init__(what, remedy="Look at it as it is now, and decide again")
