"""Risk: what the desk may still do. It decides; whoever acts asks first and obeys.

It is not trading (which acts) and knows no deal, quote or order of its own: it is told what is
proposed, reads the ledger, the recorded prices and its own rows, and answers with what is wrong.

Nouns: a `Control` says whether a desk is active, reducing or halted; `DeskLimits` bound what its orders
may come to; `PartyLimits` bound what one counterparty may owe and be owed; a `Breaker` says whether a
venue's account is fit to trade at.

Verbs: `pre_deal.check_deals` before deals are booked, `order_checks.check_orders` before orders are
written, `controls.tighten` and `controls.loosen`, `loss.watch_losses`, `venue_health.record_outcome`,
`limits.set_desk_limits` and `limits.set_party_limits`, `counterparty.exposures`.

Must preserve:

1. Whoever checks holds the lock of the desk (or of the party) until what was checked is committed, and
   reads only after it has the lock. So two that pass one limit together do not exist.
2. What is unknown counts as it hurts most: an order of unknown outcome as filled and as not filled.
3. A machine only tightens. To loosen takes two people.
4. What brings a position nearer to zero is never refused for a limit that is passed already.
"""
