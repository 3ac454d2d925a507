"""Statements to clients: opening, every posting with trade and value date, closing; CSV and PDF.

Both documents are written from one reading of the journal (`gathering.gather_statement`) and have the same
bytes whenever they are written again. What was issued is kept with its hashes and never changes; it is not
a valuation, and it posts nothing. Verbs: `issuing.issue_statement`, `issuing.get_statement_pdf`,
`issuing.verify_statement`.
"""
