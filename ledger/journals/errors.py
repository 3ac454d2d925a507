"""What the rooms of manual journals and periods refuse.

::

    Refused
    ├── NoSuchProposal         there is no manual journal or period proposal of that id
    ├── ReferenceTaken         the reference names a journal of other content
    ├── NotOpen                it was decided before, or is too old to be
    ├── NotOurs                the accounts of a journal do not belong to the house, or have less
    └── PeriodNotClosable      something has to be done before the period can be closed or opened
"""

from __future__ import annotations

from kernel.errors import Refused


class NoSuchProposal(Refused):
    """There is no manual journal or period proposal of that id."""


class ReferenceTaken(Refused):
    """The reference names a journal of other content."""


class NotOpen(Refused):
    """It was decided before, or is too old to be decided."""


class NotOurs(Refused):
    """The accounts of the journal do not belong to the house, or have less than is taken."""


class PeriodNotClosable(Refused):
    """Something has to be done before the period can be closed or opened again."""
