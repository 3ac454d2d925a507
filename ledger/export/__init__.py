"""Exports: a book's journal for other programs, and its periods for a general ledger.

Nouns: a `model.Frame` (one book up to one sequence number, its accounts and assets), the records
that are written, the totals they must come to. Verbs: `exporting.export_journal` writes a journal
as beancount, hledger, CSV or Parquet; `general_ledger.export_gl` writes one period as a balanced
batch of another chart's accounts. What each format cannot express stands in docs/exports.md.

Not here: the journal file that is verified without a database (it keeps every byte of every
record); this package writes what people and accounting programs read.

Must preserve: the same book up to the same sequence number gives the same bytes, for ever; what is
written has been summed on the way and equals the trial balance, else there is no file; a file
appears whole or not at all; memory is bounded by accounts, never by transfers.
"""
