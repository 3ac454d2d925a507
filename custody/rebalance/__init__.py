"""Where our own coins should lie: bands of hot, warm and cold wallets, sweeps, consolidations.

Nouns: rules (bands, sweeps, consolidations of Bitcoin, made by two people), proposals, windows.
Verbs: `rules.propose_rules`, `rules.approve_rules`; `planning.plan` (pure);
`worker.advance_rebalance`, `worker.advance_coins`, `proposals.carried_out`, `proposals.dismiss`;
`custody.signing_stops` asks the bands for the hot float's cap.

It moves no coins: what it proposes becomes a payout of claim ``own:<wallet>`` and needs the approvals
that the payout policy asks for. From a cold wallet it only proposes, and people carry that
out; on Bitcoin that too is a payout, whose transaction people sign.
"""
