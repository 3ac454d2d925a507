"""Where our own coins should lie: bands of hot, warm and cold wallets, sweeps, gas top-ups.

Nouns: rules (bands and sweeps, made by two people), proposals, windows.
Verbs: `rules.propose_rules`, `rules.approve_rules`; `planning.plan` (pure);
`worker.advance_rebalance`, `proposals.carried_out`, `proposals.dismiss`; `custody.signing_stops`
asks the bands for the hot float's cap.

It moves no coins: what it proposes becomes a payout of claim ``own:<wallet>`` and needs the approvals
that the payout policy asks for. From a cold wallet it only proposes; people carry that out.
"""
