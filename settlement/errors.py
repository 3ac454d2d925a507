"""What settlement refuses.

::

    Refused
    ├── RunNotFound
    ├── NotAffirmed            seal needs every party of the version to have affirmed
    ├── SamePerson             a step for two people was tried by one
    └── NoStandingInstruction  nobody has said where the party wants to be paid
"""

from __future__ import annotations

from kernel.errors import Refused


class RunNotFound(Refused):
    """There is no settlement run of that id."""


class NotAffirmed(Refused):
    """The version has parties who have not affirmed it."""


class SamePerson(Refused):
    """The step needs two different people."""


class NoStandingInstruction(Refused):
    """Nobody has said where the party wants to be paid."""
