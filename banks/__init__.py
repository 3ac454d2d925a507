"""Banks: what they are told and what they say, in their own formats, and a bank to try it on.

Facts only: what a file says. Who posts it is `custody`. Nothing here imports the ledger.
"""
