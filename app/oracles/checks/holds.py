"""Questions about reservations: each open hold has a live owner, and each owner holds what it should."""

from __future__ import annotations

from typing import Final

from app.oracles.model import Check

# What each machine must have reserved in its state, by the account book. A hold is known by what it is
# for (*purpose*) and the row behind it (*correlation*).
_WANTED: Final = """
    SELECT NULL::int AS book, id, 'deposit' AS purpose, amount, 'custody.deposit' AS owner, state
      FROM custody.deposit
     WHERE state IN ('included', 'confirmed', 'screened') AND credit <> ''
    UNION ALL
    SELECT NULL, id, 'deposit', amount, 'custody.receipt', state
      FROM custody.receipt WHERE state = 'included'
    UNION ALL
    SELECT p.book, p.id, h.purpose, h.amount, 'custody.payout', p.state
      FROM custody.payout p
     CROSS JOIN LATERAL (SELECT starts_with(p.claim, 'own:') AS own,
           p.state = 'security_hold' AND NOT EXISTS (
               SELECT 1 FROM ledger.transfer s
                WHERE s.book = p.book AND s.correlation = p.id AND s.code = 'payout.signed')
           AND NOT EXISTS (
               SELECT 1 FROM custody.payout_attempt a
                WHERE a.payout_id = p.id AND a.raw IS NOT NULL)
           AND NOT EXISTS (
               SELECT 1 FROM custody.spend_payout sp
                 JOIN custody.spend_attempt a ON a.spend_id = sp.spend_id
                WHERE sp.payout_id = p.id AND a.raw IS NOT NULL) AS unsigned) c
     CROSS JOIN LATERAL (VALUES
           -- The claim, until it is signed; of an own transfer, which has none, its coins.
           ('payout', p.amount, p.amount > 0
            AND (p.state IN ('reserved', 'pending_approval', 'approved', 'allocated')
                 OR (c.unsigned AND p.rail <> 'bank'))),
           -- The coins, until a block has them gone; they are freed when a failure is final.
           ('payout', p.amount, p.amount > 0 AND p.rail <> 'bank'
            AND (p.state = 'mined' AND p.succeeded IS NOT TRUE
                 OR p.state IN ('allocated', 'signed', 'cancelling', 'security_hold')
                    AND NOT (c.own AND (p.state = 'allocated' OR c.unsigned)))),
           ('network-fee', p.fee_cap, p.rail <> 'bank'
            AND p.state IN ('allocated', 'signed', 'cancelling', 'security_hold'))
           ) h (purpose, amount, is_held)
     WHERE h.is_held AND NOT p.claim_returned
    UNION ALL
    SELECT w.book, w.id, h.purpose, h.amount, 'custody.venue_withdrawal', w.state
      FROM custody.venue_withdrawal w
     CROSS JOIN LATERAL (VALUES ('venue-withdrawal', w.amount), ('venue-fee', w.fee_max))
           h (purpose, amount)
     WHERE w.released_at IS NULL AND h.amount > 0
       AND w.state IN ('pending_approval', 'approved', 'submitting', 'acked', 'unknown',
                       'escalated')
    UNION ALL
    SELECT m.from_book, m.id, 'between-books', m.amount, 'books.book_move', m.state
      FROM books.book_move m
     CROSS JOIN LATERAL (VALUES (m.claim_from), (m.funds_from)) leg (account)
     WHERE m.state IN ('held', 'arrived', 'bounced') AND leg.account <> ''
    UNION ALL
    SELECT i.book, i.id, 'settlement', i.amount, 'settlement.instruction', i.state
      FROM settlement.instruction i WHERE i.state = 'released' AND i.rail = 'book'
    UNION ALL
    SELECT e.book, i.id, 'settlement', e.amount, 'settlement.instruction', i.state
      FROM settlement.instruction i
      JOIN settlement.earmark e ON e.instruction_id = i.id AND e.ended_at IS NULL
     WHERE i.state = 'funded'
"""

_OWNED: Final = Check(
    counted="SELECT count(*) FROM ledger.hold WHERE state = 'open'",
    faults=f"""
WITH wanted AS (
    SELECT id, purpose, min(owner) AS owner, min(state) AS state, count(*) AS holds,
           sum(amount) AS amount
      FROM ({_WANTED}) each_ GROUP BY id, purpose
), open_ AS (
    SELECT correlation AS id, purpose, min(book) AS book, min(h.id::text) AS example,
           count(*) AS holds, sum(amount) AS amount
      FROM ledger.hold h
     WHERE state = 'open' AND flags & 16 = 0
       AND (correlation IS NOT NULL OR expires_at IS NULL)
     GROUP BY correlation, purpose
)
SELECT CASE WHEN w.id IS NULL THEN format('ledger.hold of book %s, %s', o.book, o.example)
            ELSE format('%s %s', w.owner, w.id) END,
       CASE WHEN w.id IS NULL
            THEN format('%s held for %s, and no row that is under way is behind it (%s)', o.amount,
                        coalesce(nullif(o.purpose, ''), 'nothing'),
                        coalesce(o.id::text, 'no correlation'))
            ELSE format('it is %s: %s in %s holds for %s are open, and %s in %s should be',
                        w.state, coalesce(o.amount, 0), coalesce(o.holds, 0), w.purpose, w.amount,
                        w.holds) END
  FROM wanted w FULL JOIN open_ o ON o.id = w.id AND o.purpose = w.purpose
 WHERE w.id IS NULL OR o.holds IS DISTINCT FROM w.holds OR o.amount <> w.amount
 ORDER BY 1, 2
""",  # noqa: S608  put together from text of this module
)

HOLDS_OWNED: Final = (_OWNED,)
