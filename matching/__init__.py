"""Order matching: a price-time priority book in integer ticks and lots, without any I/O.

For venues that need an order book of their own: the venue simulator, paper trading, replays.
It is not an exchange: it knows no balances, fees, accounts, sessions, clocks or wire formats;
whoever embeds it checks funds before it submits and settles what the events say.

Verbs: `OrderBook.submit`, `OrderBook.cancel`, `OrderBook.preview`; they answer with frozen
events (`matching.model`). The same commands in the same order always give the same events.
"""
