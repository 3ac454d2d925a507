"""The ground floor: values and mechanisms that every room above shares.

Nouns: assets and amounts, prices, ids, clocks, state tables, domain events, jobs, leases, settings.
Verbs: parse and format money, derive ids, run a transaction, record an event, claim work.

It is not a place for business rules: nothing here knows a client, a deposit or a deal. Time, ids and
randomness are always passed in; the only functions that touch the outside are those that take a
database connection.
"""
