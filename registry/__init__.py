"""Reference data under four eyes: what exists, before anything is done with it.

Nouns: legal entities, assets, chains, assets on chains, parties, operators with roles and keys,
wallets with their owner class. Each is versioned; every version is kept.
Verbs: `changes.found` (once per database), `changes.propose`, `changes.approve`, `changes.reject`;
reading is in `queries`; who may do what is decided in `authority`.

It is not a settings store (see `kernel.settings`), and it knows no balance, deposit or deal.
"""
