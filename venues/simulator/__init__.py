"""A venue to trade on without an account anywhere: a server speaking Binance spot or Kraken.

It is complete enough that unmodified ccxt classes trade on it with nothing changed but their URLs.
One core keeps accounts and books and knows no dialect's words; `binance` and `kraken` spell it. Orders
match in `matching`; what was accepted is in a journal on the disk before it is answered, so a
simulator that is killed and started again on the same data directory has exactly the accepted orders
and fills. Faults happen one by one or by a seeded random schedule, and the true state can be asked
for, so that software under test can be compared with the truth.

Markets are synthetic from a seed, or a recording is replayed. It is no model of a company: no margin,
futures, sub-accounts or fiat rails. See docs/venue-simulator.md.

Verbs: `server.VenueSimulator.start`, `stop`; `python -m venues.simulator`; `/control/...` (see
`control`); `testing.point_ccxt_at`; `replay.Recorder`, `replay.Replay`.
"""
