"""Private streams: what happens to our orders, fills and balances, as the venue tells it.

Nouns: `FillSeen`, `OrderSeen`, `BalanceSeen`, `FundsMoved`, `SymbolSeen`, `StreamGap`. Verbs:
`factory.private_stream` (of an account, by its venue's record), `supervisor.Supervisor.run` (listen
for ever, rebuild what has gone silent, fill gaps by asking), `gaps.list_gaps`.

A stream only makes things known sooner. Nothing relies on it: every gap is a row, and is filled by
asking the venue for trades and orders. What is streamed goes the same way in as what is asked for
(`venues.fills.record_fills`, `venues.reports.record_report`), so nothing is counted twice.

Must be preserved: a socket that is open is not taken for one that speaks; reading a frame never
raises into the client library, whose receiving loop would end without a word; the queue between
socket and database is bounded, and what does not fit in is a gap, never a wait.
"""
