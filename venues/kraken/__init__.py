"""Kraken's public WebSocket v2: the machine of `marketdata.ports.FeedMachine`, without sockets.

Nouns: the frames as they are typed (`frames`), numbers kept digit for digit (`numbers`), the machine
(`feed`) with one follower a stream: `books`, `trades`, `tickers`, `candles`. Whoever opens sockets and
asks by REST is `venues.feeds`.

Must be preserved: the checksum is made of the digits that the venue wrote; a book that does not have
it shows nothing until the next snapshot; one symbol's fault leaves every other symbol alone; nothing
here reads a clock.
"""
