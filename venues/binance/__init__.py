"""Binance spot's public streams: the machine of `marketdata.ports.FeedMachine`, without sockets.

Nouns: the frames as they are typed (`frames`), the machine (`feed.BinanceFeed`) with a follower for
each stream: `books`, `trades`, `quotes`. Verbs: `feed.lanes` (machines for any number of symbols),
`wire.wire` (where the venue is). Whoever opens sockets and asks by REST is `venues.feeds`.

Sources: binance-spot-api-docs, web-socket-streams.md and rest-api.md.

Must be preserved: a book is shown only while every update since its snapshot has been applied in
order; what cannot be read is a gap of the stream that it is of, and of no other.
"""
