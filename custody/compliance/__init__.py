"""Compliance as a queue: what is screened, held back, let go or given back, and by whom.

Nouns: cases (one for each deposit and payout, and for what a newer list finds), opinions, legal holds,
travel-rule records, proofs of self-hosted addresses.
Verbs: `screening.screen_waiting` and `screening.rescreen` ask whoever screens; `cases.require_cleared`
is asked before coins leave; `decisions.hold`, `release`, `refund`, `place_legal_hold`,
`lift_legal_hold`; `travel_rule.write_record`, `ownership.challenge` and `prove`.

It is not a list of sanctions and not a risk score: those are behind the port. What nobody has answered
waits; it is never taken for a yes.
"""
