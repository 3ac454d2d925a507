"""Value from one book to another: from one legal entity of the house to another one.

No transaction touches two books. A move is held in the first book, posted in the second one, and
then posted in the first; a job drives it from step to step. What the second book refuses is
given back in the first. Between the steps ``clearing:<book>`` carries what is on its way.

Verbs: `moving.request_move`, `moving.advance_move` (one step in one book), `moving.list_moves`;
`standing.clearing_standings` shows what is in flight between which books, and every difference.

Each step is one transaction over the move's row and one book, with ids that follow from the row: so a
crash between any two steps, a lost COMMIT or a second worker changes nothing.

What is moved is a *claim* (debited here, credited there: a client, an equity account), *funds* (a
holding credited here, debited there), or both. Of a claim with its funds ``clearing`` is zero on
either side once it is settled; of one without the other the two entities owe each other, and the
pair of accounts sums to zero. Clients' claims never go where clients' holdings do not cover them.
"""
