"""What people post by hand: manual journals from typed templates, and the close of periods.

A manual journal is one of the `templates` with its fields filled in: capital, a loan, a write-off,
tax, a staking reward, an airdrop, a bank's fee. One operator proposes it with a reason, the hash of
an attachment and the day from which it counts; another one approves it with a signature over exactly
that, and it is posted as one chain. A period is closed or opened again by three people: who proposes
it, and two others who sign.

Verbs: `manual.propose_journal`, `manual.approve_journal`, `manual.reject_journal`;
`periods.propose_close`, `periods.propose_reopen`, `periods.approve_period`,
`periods.reject_period`.

It is not a way round the account book: a template names the accounts, a person never does so freely.
What was written as a reason stays in these rows; the journal holds only the opaque id of the row.

Invariants: nobody approves what they proposed; what was signed is what is posted; a row is posted
once, whatever is repeated; a refusal of the ledger is recorded with its outcome.
"""
