"""Looks across the house: the proofs that the books are right, reconciliation, trial balance text.

And the alarm of rule 6: `client_money_watch.watch_client_money` follows the journal of a book and records
an event where clients become short of an asset, or covered again; `list_client_money` tells how it stands.

Nothing else here writes, and nothing posts. A proof is a value with a name, a verdict and a detail that names every
difference; it is computed from values, so that a test can change one of them and see which proof
fails.
"""
