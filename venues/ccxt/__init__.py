"""Venues through ccxt: the unmodified classes, told by each venue's record how to be used.

`gateway.CcxtGateway` is the `venues.ports.VenueGateway` of every venue; `feed.CcxtTransport` with
`unified.UnifiedMachine` the market data of venues that are a record only, taken from ccxt.pro frame by
frame by `tap`. Between them and ccxt stand pure modules: `classify` says what an error
proves, `requests` what an order looks like on the wire, and a `reading.Reading` makes our values of
the answers: `generic` of what ccxt has unified, `normalise` (Binance) and `kraken` of the venue's own
rows, where those say more. `instance` makes ccxt's classes keep numbers as texts; `lists` reads lists
to their end; `clock` and `nonce` keep the time and the numbers that requests are signed with.

Must be preserved: one instance trades and never repeats a request by itself, another one reads; no
float becomes an amount of money; an error that is in no table means that the outcome is unknown; a
list that was cut off is no evidence; nobody asks for a venue's name.
"""
