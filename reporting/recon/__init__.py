"""Reconciliation of everything at one instant: the ledger against chains, venues and banks.

The outside was read by those who speak to it (`custody.reconciliation`, `trading.venue_reconciliation`,
`custody.banks`), each at its own moment. A run here takes the newest word on every place where the
house holds anything, sets it against the books of that moment and of now, and says of each place what
is there, what moved since, and what nobody explains. What differs is a break with a life of its own:
assigned to somebody, aged by business days, resolved with a reason by two people, or over when it is
not found any more.

Verbs: `runs.reconcile_house`, `breaks.assign`, `breaks.resolve`.
"""
