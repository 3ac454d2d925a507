"""The books: accounts, transfers, holds, balances, and the proof that none of it was changed.

One *book* is one legal entity's totally ordered journal. Its unit is the `model.Transfer`: one debit
account, one credit account, one amount of one asset, so it balances by construction. Several
transfers that stand or fall together are a *chain*. A reservation is an open pending transfer, a
*hold*.

Verbs: `posting.open_book`, `accounts.ensure_accounts`, `posting.post`, `posting.decided`,
`accounts.set_frozen`; `writer` groups submissions; `queries`, `holds`, `account_statement`, `search`,
`trial`, `tree` and `coverage` read; `proofs` and `verification` prove; `scenarios` plays stories written as text. Whoever
imports `ledger.posting` moves money.

It is not a place for business events: it knows no deposit, payout or deal, only the paths of
`chart` and the references its callers give it.

Invariants: debits equal credits per asset; sequence numbers have no gaps and follow commit order; a
journal row never changes; an id is decided once; an account that must not be overdrawn never is.
"""
