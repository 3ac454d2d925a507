"""The simulated venue as Kraken spot: REST and WebSocket v2 over the same exchange as any dialect.

Not an exchange of its own: books, orders, fills, balances and movements are read from the core's
state, and every change is a core command. What lives here only is the spelling (names, ids, numbers,
times, errors), the request rules (signatures, nonces, call counters) and the streams' framing.

Base for clients: `http://host:port/0/...`, public sockets on `/v2`, private ones on `/auth/v2`
(the venue has two hosts for them; one port has two paths).

Sources: docs.kraken.com, REST API reference, WebSocket v2 reference, guides on client order ids,
rate limits and checksums; field shapes as the unmodified ccxt classes read them.
"""
