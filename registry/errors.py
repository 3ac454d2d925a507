"""What registry refuses.

::

    kernel.errors.Refused
    ├── UnknownRecord        nothing of that kind has that code
    ├── NotAuthorised        the operator is inactive, lacks the role, or the signature does not hold
    └── ChangeRefused        the change itself is not possible, or not any more
        └── AlreadyFounded   the registry's first records exist
"""

from __future__ import annotations

from kernel.errors import Refused


class UnknownRecord(Refused):
    """Nothing of that kind has that code."""


class NotAuthorised(Refused):
    """The operator is inactive, lacks the role, or the signature does not hold."""


class ChangeRefused(Refused):
    """The change is not possible, or not any more."""


class AlreadyFounded(ChangeRefused):
    """The registry's first records exist: everything further goes through four eyes."""
