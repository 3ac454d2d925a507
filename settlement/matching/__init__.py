"""What arrived against what is awaited, on chains and through banks.

`decide.match_all` is the whole of the decision, pure: exact by reference, exact by amount, within the
tolerance of the rail, the only thing awaited, one for many and many for one; what is ambiguous is a
suggestion and never a match. `posting.match_receipts` carries out what was decided, `by_hand` what two
people decide instead, `unapplied` what pays for nothing, `rules` keeps the versions of the rules. It is not for payments: what leaves is
paid by `custody`, and what vanished or was sent back is for `settlement.reopening` and
`settlement.returns`.
"""
