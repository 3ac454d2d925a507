"""What a client is told when it asks "how much for ten", and what it may still take of it.

Nouns: `QuoteRequest` (whom, what, how much, which sides), `Quote` (what was asked, the offer that was
made, what became of it), `Acceptance` (one attempt to take it, by its own reference), `QuotePolicy`.
Verbs: `requesting.request_quote`, `making.make_quote`, `accepting.accept_quote`, `looking.look`,
`ending.expire_quotes`, `ending.withdraw_quote`, `ending.withdraw_all`; `queries` reads them;
`maker.serve_quotes` is one turn of the process that has the books.

It is not where the market is watched (`marketdata`) nor where a deal is booked (`trading.deals`): it
prices what is asked from books that it is handed, and hands what was taken to the deals.

Sides are the desk's, as everywhere in trading: the desk sells at the ask and buys at the bid.

Must be preserved: an offer never changes once made; it is valid *before* `valid_until` by the clock
of PostgreSQL, read after the quote's row is locked; one acceptance wins, and every attempt has an
outcome that its reference brings back; a last look is symmetric and ends by itself.
"""
