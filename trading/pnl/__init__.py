"""Profit and loss of a desk: what each deal earned, what its hedge cost, tied to the ledger.

Nouns: `Flow` (what one deal or fill did to ``conversion:<desk>``), `Slice` (a part of it), `Match`,
`Line` (one amount of one component), `Marks`, `Result`, `Run`. Verbs: `journal.read_flows`;
`allocation.allocate`; `result.measure`; `runs.pnl`, `runs.record_run`, `runs.verify_run`,
`runs.day_pnl_units`.

It is a layer over the journal, not a part of it: it posts nothing, and whoever computes it again from the
same records gets the same. It values with recorded prices and finds none itself.

Must be preserved: the lines of a result add up to the change of ``conversion:<desk>`` asset by asset in
whole units, before any mark is looked at; the definitions are those of docs/profit-and-loss.md, whose
example is a test.
"""
