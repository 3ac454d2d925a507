"""The guided demo: the house on one machine, provoked chapter by chapter, and proven after each.

`tour` is what a chapter plays on, `chapters` are the stories, each of which ends in assertions that
are printed as proofs, `screen` shows them, `places` says where the money is.
"""
