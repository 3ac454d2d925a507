"""Trading venues: placing orders exactly once, and knowing what became of them.

Nouns: `VenueOrder` with its state machine, `VenueFill`, `VenueBalance`, `Capabilities`.
Verbs: `orders.intend` (write the intent), `orders.submit` (send it once), `orders.send` (both, one
commit before and one after), `orders.try_again` (the next attempt, once the last one is proven not to
exist), `orders.resolve` (find out what became of it), `orders.resume` (start-up and recovery, the same
code), `cancels.cancel`, `cancels.cancel_all`, `cancels.arm_dead_man`, `escalations.decide` (two people),
`account_state.reduce_only`, `halt`, `release`, `fills.collect`, `balances.take_snapshot`.

It states facts and never posts: what a fill means in the books is decided by `trading`. It never
sends the same order twice, and never takes silence for an answer: an outcome that is not known is
the state `unknown`, which only positive evidence closes.

Must be preserved: the intent row, with its client order id, is committed before the order is sent; of
one intent at most one order can ever trade, and an id that was sent is never sent again;
"not found" counts only once the venue can no longer accept the order; every fill is stored once, by
the venue's trade id, whichever way it came.
"""
