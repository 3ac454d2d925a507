"""Hedging: bringing what a desk's deals leave back to its target, whatever fails on the way.

Nouns: `HedgeLine` (one asset of one desk, and the places where it is hedged), `HedgePlan` (what a look
at a line came to), `HandFill` (a trade that a person entered and another approved). Verbs: `lines`
opens lines and places, `hedger` takes one step or works until done, `fills` posts what has traded,
`hand_fills` enters what no venue tells.

It is not where orders are sent (`venues.orders`) nor what decides how much a desk may do (`risk`).
"""
