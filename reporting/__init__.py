"""Reads across the house: the proofs that the books are right, reconciliation, trial balance text.

Nothing here writes. A proof is a value with a name, a verdict and a detail that names every
difference; it is computed from values, so that a test can change one of them and see which proof
fails.
"""
