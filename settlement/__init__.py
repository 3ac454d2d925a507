"""What is owed, netted, released and final: the treasury's room.

Nouns: obligations (pulled from deals), netting agreements, standing settlement instructions, runs
with immutable calculation versions, net items, instructions, breaks.
Verbs: pull → calculate → affirm or dispute → seal (posts) → release (creates payouts, or awaits
receipts, or settles by book) → match → final. Beside the way: withdraw a deal's obligations,
resolve a dispute, reschedule what failed, cancel a book settlement, take back what rested on a
block that vanished.

Invariants:

* Without a netting agreement nothing nets across trades.
* A calculation version never changes; a dispute makes the next version of the rest.
* Only an affirmed version is sealed, and what is sealed never changes.
* Value only against value: what the desk owes a party leaves once what that party owes in the same
  run is final, unless the party settles by book from funds held here.
* Crediting a client by book needs holdings of clients that cover it.
* Every payment out is a payout of `custody`; this room holds no keys and talks to no chain.
* Every verb is one transaction, and the same command again has no second effect.
"""
