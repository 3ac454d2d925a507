"""The cut-over: what another system's books say, brought into a book from CSV files.

A folder holds ``accounts.csv``, ``balances.csv`` (opening balances, against ``equity:opening``),
``transfers.csv`` (history, with effective times), ``holds.csv`` (reservations that are still open),
``obligations.csv`` (what is owed, for the settlement room) and ``totals.csv``: the control totals
that the files have to meet, one line for each file and asset.

Everything is read and checked before anything is posted; every fault is told with file, line, column
and what to do. Then it is posted in batches, imported and in the order of effective time, under ids
that follow from the file's hash and the line: so an import that was interrupted is completed by
running it again, and one that is complete answers ``exists`` for every line.

Decisions: `reading` (bytes to rows), `planning` (rows to accounts and transfers, and all checks).
Verbs: `importing.check_import`, `importing.run_import`, `importing.rehearse_import`;
`holds.resolve_imported_hold`, because no machine of ours resolves a hold that came from elsewhere.

An import is a proposal of one operator that another one has signed, by the hash over all files.
"""
