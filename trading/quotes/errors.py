"""Errors of quotes.

::

    Refused
    ├── NoQuote              no quote of this id is on record
    ├── NoAcceptance         nobody has tried to take a quote by this reference
    ├── QuoteConflict        the reference is taken by a request or acceptance of other content
    ├── QuotesTooMany        the party has as many open quotes as it may have
    ├── NotOffered           there is no offer, or none on this side
    └── NotTaken             the quote could not be taken
        ├── QuoteTaken       another acceptance was first
        ├── QuoteExpired     its time was over
        ├── QuoteWithdrawn   the desk had taken it back
        └── QuoteDeclined    the last look, a limit or a control of the desk said no
"""

from __future__ import annotations

from kernel.errors import Refused


class NoQuote(Refused):
    """No quote of this id is on record."""


class NoAcceptance(Refused):
    """Nobody has tried to take a quote by this reference."""


class QuoteConflict(Refused):
    """The reference names a request or an acceptance of other content."""


class QuotesTooMany(Refused):
    """The party has as many open quotes as it may have at a time."""


class NotOffered(Refused):
    """The quote has no offer, or none on the side that is asked for."""


class NotTaken(Refused):
    """The quote could not be taken."""


class QuoteTaken(NotTaken):
    """Another acceptance of the quote was first."""


class QuoteExpired(NotTaken):
    """The quote's time was over."""


class QuoteWithdrawn(NotTaken):
    """The desk had taken the quote back."""


class QuoteDeclined(NotTaken):
    """The last look, a limit or a control of the desk said no."""
