"""Custody of Bitcoin: the outputs that are ours, and the transactions that spend them.

Deposits, payouts, policy, freezes and postings are those of `custody`; this room adds what a chain of
outputs needs. An output that pays an address of ours is a *coin*: `coin_inclusion` keeps the table of
them exact at the block where the cursor stands, `coins` lists and locks what may be spent, and
`scan_reconciliation` holds ledger, table and node against each other.

It is not the chain (`chain.bitcoin` knows scripts, transactions and nodes) and holds no keys.
"""
