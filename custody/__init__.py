"""Where chain facts become money that somebody owns, and where money leaves.

Nouns: addresses, deposits, receipts, payouts and their attempts.
Verbs: `addresses.assign_address`; `inclusion.apply_step` (what a block did to our wallets),
`deposits.advance_deposits` (included, confirmed, screened, credited), `attributions.attribute`,
`quarantine.adopt` and `dismiss`, what `compliance` decides, `receipts.mark_matched`;
`payouts.request_payout` and what follows it; `reconciliation.reconcile_chain`.

It is not a chain client (`chain` states facts and knows no client), it does not net or schedule
(`settlement` does), and only `custody.signer` ever sees a private key.
"""
