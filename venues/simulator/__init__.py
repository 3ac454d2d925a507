"""A venue to trade on without an account anywhere: a server speaking the Binance spot dialect.

It is complete enough that unmodified ccxt classes trade on it with nothing changed but their URLs:
signed REST, market streams, the user data stream. Orders match in `matching`; what was accepted is
in a journal before it is answered, so a simulator that is killed and started again on the same data
directory has exactly the accepted orders and fills. Faults are injected by schedule, and the true
state can be asked for, so that software under test can be compared with the truth.

It is not a model of a market (its prices are a seeded random walk) nor of Binance as a company: no
margin, futures, sub-accounts, order lists, stop orders, amendments or fiat.

Verbs: `server.VenueSimulator.start`, `stop`; `python -m venues.simulator`; `/control/...` (see
`control`); `testing.point_ccxt_at`.
"""
