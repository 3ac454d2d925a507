"""API keys of accounts at venues, sealed in the database.

Each key is in an envelope of its own (`kernel.envelope`), bound to the venue, the account, what the
key is for and its version; the key-encryption key is a file of the processes that trade, and a copy
of the database without it opens nothing. Two purposes have two keys: one trades, the other withdraws.

Verbs (`credentials.vault`): `enrol`, `reveal`, `retire`, `rewrap_all`, `list_keys`.
"""
