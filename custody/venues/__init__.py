"""Own coins on their way to accounts at venues and back: in transit until both sides show them.

To a venue goes a payout (claim ``own:venue:<venue>/<account>``) like any other, to an address that two
people registered and that the venue itself confirms. From a venue comes a withdrawal: a machine of
its own, whose request is under the same policy, is sent once, and of which only evidence says what
became of it.

Nouns: registered addresses, venue deposits, venue withdrawals.
Verbs: `addresses.propose_address`, `approve_address`, `verify_address`; `deposits.send_to_venue`;
`withdrawals.request_withdrawal` and what people say to it; `worker.advance_venue_transfers`.

It is not a connector (`venues` speaks to venues and knows no ledger), and it never decides by time:
what is late is told to people and stays open.
"""
