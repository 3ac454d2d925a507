"""Profit and loss of a book in its functional currency: lots at average or FIFO cost, realised and not.

A recomputable layer over the journal: it posts nothing, and whoever computes it again from the same
records and prices gets the same lines and the same hash. It is not the desk's own result by deal and hedge,
which `trading.pnl` has. Verbs: `runs.value_book`, `runs.record_valuation`, `runs.verify_valuation`.

Must be preserved: what the lots hold is the house's own position in the ledger, asset by asset, and
cost of the lots and cash together are capital, income, expenses and realised gains, exactly.
"""
