"""Feeds of market data: sockets, requests, back-off and a watchdog around any venue's machine.

Nouns: `FeedRunner` (one venue, any `marketdata.ports.FeedMachine`), `Transport` and `FrameSocket`
(how the venue is reached), `VenueWire` and `WebTransport` (the same over HTTP and WebSockets, from a
description), `FeedPolicy`. Verbs: `runner.FeedRunner.run` (keep listening until cancelled), `latest`,
`book`, `events`, `raw`, `status` (be told), `keeper.Keeper.run` (write gaps and status down).

Nothing is decided here about data: whatever happens is handed to the machine as a `RawItem`, and to
whoever records, in the same order; so a recording through the same machine tells the same story.

Must be preserved: the machine is called by one task at a time and never waits; a consumer never
slows a socket; a request that hangs holds up no other symbol; every pause and every attempt is
bounded; a venue that says when to come back is not asked before.
"""
