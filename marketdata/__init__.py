"""What is traded where, at which grid, and what it is worth: instruments, books, prices.

Nouns: `Instrument` (versions kept), `Level`, `BookView`, `RecordedPrice` with its constituents and
quality. Verbs: stitch a book from a snapshot and its deltas, judge how fresh it is, walk its depth,
record a price so that a deal can name it for ever.

It is not a place for orders, balances or postings, and it never opens a socket: venues feed it
through `ports.Feed`.

Must be preserved: prices are integer ticks and quantities integer units, never floats; a book with
a gap or a crossed top is unusable until a new snapshot, never "repaired"; a recorded price is never
changed.
"""
