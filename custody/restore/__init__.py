"""A restore must not pay twice: what is found, what stays shut, what is taken in again, who opens.

Nouns: a *mark* (the house's line of what it was about to have signed), the *watch* (which server and
which moment of it was compared last), a *restore* (the database is older than what it did outside), its
*sources* (places that did not go back: the signer's log, files that a bank was given, chains, venues,
statements) and *items* (what was done and the database had lost). Verbs: `watching.look`,
`finding.begin`, `signed_payouts.take_signed`, `bank_files.take_bank_file`, `coverage.cover_…`,
`opening.open_restore`.

Must preserve: a door asks `custody.restore_gate` before it lets money out, and while a restore stands it
is shut. Facts (blocks, statements) wait until it is known again what was sent, so that our own payments
are recognised when they are read a second time. Nothing is posted for an act but what the act itself
would have posted, under the same ids.
"""
