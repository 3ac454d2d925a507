"""The desk: deals with clients, the position they leave, and the hedges that close it.

Nouns: `Deal` and its legs, `HedgeLine` (which asset of which desk is hedged where), `HedgePlan`.
Verbs: `deals.book_deal`, `deals.amend_deal`, `deals.cancel_deal`; `legs.list_settlement_legs` and
its marks, from which settlement pulls; `position.position`; `fills.post_fills`;
`hedging_loop.hedge_once`; `venue_accounts.open_venue_account`;
`venue_reconciliation.reconcile_account`, and what people say to its breaks.

It is not a place for settling what is owed, nor for talking to a venue: it decides what to hedge
and posts what happened.

Sign: the position of an asset is credits less debits of ``conversion:<desk>``. Positive is long (the
desk has more than it sold), negative is short (it owes and has still to buy).

Must be preserved: a deal is one chain in the ledger; every fill is posted once; a hedge is planned
under the line's lock from the worst case of all that is not known, so two hedgers never double; what
cannot be hedged (below a lot or the venue's minimum) is shown as residual, never dropped.
"""
