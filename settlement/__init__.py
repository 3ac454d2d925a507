"""What is owed, netted, released and final: the treasury's room.

Nouns: obligations (pulled from deals), netting agreements, standing settlement instructions, runs
with immutable calculation versions, net items, instructions.
Verbs: pull → calculate → affirm or dispute → seal (posts) → release (creates payouts, or awaits
receipts, or settles by book) → match → final.

Invariants:

* Without a netting agreement nothing nets across trades.
* A calculation version never changes; a dispute makes the next version of the rest.
* Only an affirmed version is sealed, and a sealed run never changes.
* Value only against value: what the desk owes a party leaves once what that party owes in the same
  run is final, unless the party settles by book from funds held here.
* Every payment out is a payout of `custody`; this room holds no keys and talks to no chain.
"""
