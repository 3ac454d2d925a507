"""Banks: what is paid through them, and what their statements say.

Not here: the formats (`banks`), and whom a receipt settles (`settlement`). Verbs: `importing` takes a
file in, `receipts` lists and marks what waits in suspense, `continuity` says what is missing.
"""
