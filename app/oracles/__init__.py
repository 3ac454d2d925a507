"""Oracles: what must hold in a whole house, whatever failed in it, asked of the rows themselves.

An oracle is a promise and the questions in SQL that would show it broken. The questions share no code
with the verbs that keep the promise, so neither a bug there nor a hand in the database answers for
itself. Asked after every fault in tests and simulations, and of a living house by
``causeway verify --deep``: `run.examine` asks them all, `catalogue.ORACLES` lists them, `places.positions`
compares wallets, venues and banks with the books. Nothing here writes.
"""
