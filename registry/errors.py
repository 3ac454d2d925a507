"""What registry refuses.

::

    kernel.errors.Refused
    ├── UnknownRecord        nothing of that kind has that code
    ├── NotAuthorised        the operator is inactive, lacks the role, or the signature does not hold
    ├── SamePerson           a step for two people was tried by one
    └── ChangeRefused        the change itself is not possible, or not any more
        └── AlreadyFounded   the registry's first records exist
"""

from __future__ import annotations

from kernel.errors import Refused


class UnknownRecord(Refused):
    """Nothing of that kind has that code."""


class NotAuthorised(Refused):
    """The operator is inactive, lacks the role, or the signature does not hold."""


class SamePerson(Refused):
    """The step needs two different people."""


class ChangeRefused(Refused):
    """The change is not possible, or not any more."""


class AlreadyFounded(ChangeRefused):
    """The registry's first records exist: everything further goes through four eyes."""
