"""Venues through ccxt: the unmodified classes, with nothing changed but their URLs.

`gateway.BinanceGateway` is the `venues.ports.VenueGateway`; `feed.BookFeed` the
`marketdata.ports.Feed`; `fill_stream.FillStream` brings fills as they happen. Between them and ccxt
stand two pure modules: `classify` says what an error means, `normalise` reads the venue's own texts
out of ccxt's ``info``, because the numbers that ccxt makes of them are floats.

Must be preserved: one instance trades and never repeats a request by itself, another one reads; no
float becomes an amount of money; an error that is not in the table means that the outcome is
unknown.
"""
