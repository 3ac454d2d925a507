"""Errors of confirmations.

::

    Refused
    ├── NoConfirmation       none of this id, or of this deal, is on record
    ├── NotConfirmed         a deal within the house has no confirmation
    ├── NotAffirmable        it is superseded, or affirmed already
    ├── NoConfirmationKey    the party has no such key, or none that is in force
    ├── KeyTaken             the key is in use: of this party, another one, or an operator
    └── OwnDeal              whoever booked or cancelled the deal cannot affirm it for the other side
    BadInput
    └── NotADocument         the text is not one that confirmations are written in
"""

from __future__ import annotations

from kernel.errors import BadInput, Refused


class NoConfirmation(Refused):
    """No such confirmation is on record."""


class NotConfirmed(Refused):
    """A deal within the house has no confirmation: there is nobody else to read it."""


class NotAffirmable(Refused):
    """Nothing can be said to this version any more."""


class NoConfirmationKey(Refused):
    """The party has no such key, or none that is in force."""


class KeyTaken(Refused):
    """The key is in use already."""


class OwnDeal(Refused):
    """Whoever booked or cancelled the deal cannot affirm it for the other side."""


class NotADocument(BadInput):
    """The text is not one that confirmations are written in."""
