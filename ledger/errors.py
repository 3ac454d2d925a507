"""Errors of the ledger.

::

    CausewayError
    ├── Refused
    │   ├── PostingRefused          a chain that had to be applied was not
    │   ├── AccountDiffers          the account exists with another owner
    │   └── PeriodRefused           these effective days cannot be closed or reopened
    └── BadInput
        ├── NotInChart              the path is not in the chart of accounts
        ├── BookNotOpen             there is no such book
        └── NotATransaction         posting needs a READ COMMITTED transaction of the caller
"""

from __future__ import annotations

from kernel.errors import BadInput, Refused


class PostingRefused(Refused):
    """A transfer that had to be applied was refused."""


class AccountDiffers(Refused):
    """The account was opened with other properties before."""


class PeriodRefused(Refused):
    """The effective days cannot be closed, or not be reopened."""


class NotInChart(BadInput):
    """The path is not in the chart of accounts."""


class BookNotOpen(BadInput):
    """There is no such book, or no such account in it."""


class NotATransaction(BadInput):
    """Posting needs a READ COMMITTED transaction that the caller has begun."""
