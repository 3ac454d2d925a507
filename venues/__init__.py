"""Trading venues: placing orders exactly once, and knowing what became of them.

Nouns: `VenueOrder` with its state machine, `VenueFill`, `VenueBalance`, `Capabilities`.
Verbs: `orders.intend` (write the intent), `orders.submit` (send it once), `orders.resolve` (find
out what became of it), `orders.resume` (start-up and recovery, the same code), `fills.collect`,
`balances.take_snapshot`.

It states facts and never posts: what a fill means in the books is decided by `trading`. It never
sends the same order twice, and never takes silence for an answer: an outcome that is not known is
the state `unknown`, which only positive evidence closes.

Must be preserved: the intent row, with its client order id, is committed before the order is sent;
"not found" counts only once the venue can no longer accept the order; every fill is stored once, by
the venue's trade id, whichever way it came.
"""
