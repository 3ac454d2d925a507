"""Questions about payments: at most once each, and the journal says of each what its state says."""

from __future__ import annotations

from typing import Final

from app.oracles.model import Check
from ledger.points import fill

_PAYOUTS: Final = "SELECT count(*) FROM custody.payout"

_STANDING: Final = """
SELECT t.book, t.correlation, t.code, t.amount
  FROM ledger.transfer t
 WHERE t.kind IN (1, 3) AND t.correlation IS NOT NULL AND t.code IN (<codes>)
   AND NOT EXISTS (SELECT 1 FROM ledger.transfer r WHERE r.reverses = t.id AND r.book = t.book)
"""
"""What is posted and not reversed."""

_ONE_MINED: Final = Check(
    counted="SELECT count(*) FROM custody.payout_attempt",
    faults="""
SELECT format('custody.payout %s', payout_id),
       format('%s of its transactions are in blocks: %s', count(*),
              string_agg(tx_hash, ', ' ORDER BY number))
  FROM custody.payout_attempt WHERE state IN ('mined', 'final')
 GROUP BY payout_id HAVING count(*) > 1
UNION ALL
SELECT format('custody.spend %s', spend_id),
       format('%s of its transactions are in blocks: %s', count(*),
              string_agg(tx_id, ', ' ORDER BY number))
  FROM custody.spend_attempt WHERE state IN ('mined', 'final')
 GROUP BY spend_id HAVING count(*) > 1
UNION ALL
SELECT format('custody.payout_nonce %s/%s/%s', chain, sender, nonce),
       format('%s transactions with this nonce are in blocks: payouts %s', count(*),
              string_agg(payout_id::text, ', ' ORDER BY payout_id))
  FROM custody.payout_attempt WHERE state IN ('mined', 'final')
 GROUP BY chain, sender, nonce HAVING count(*) > 1
 ORDER BY 1
""",
)

# Two transactions that could both be mined would pay twice: on a chain with accounts they must have one
# nonce, on Bitcoin one coin in common, for which the anchor stands.
_CONFLICTING: Final = Check(
    counted="SELECT count(*) FROM custody.spend_attempt",
    faults="""
SELECT format('custody.payout %s', payout_id),
       format('signed transactions of it have the nonces %s',
              string_agg(DISTINCT nonce::text, ', '))
  FROM custody.payout_attempt
 WHERE state IN ('signed', 'broadcast', 'ambiguous', 'mined', 'final')
 GROUP BY payout_id HAVING count(DISTINCT (chain, sender, nonce)) > 1
UNION ALL
SELECT format('custody.spend_attempt %s', a.id),
       format('it does not spend %s:%s, the coin that all of spend %s must spend', s.anchor_tx,
              s.anchor_index, s.id)
  FROM custody.spend_attempt a JOIN custody.spend s ON s.id = a.spend_id
 WHERE NOT EXISTS (SELECT 1 FROM jsonb_array_elements(a.coins) coin
                    WHERE coin ->> 'tx_id' = s.anchor_tx
                      AND (coin ->> 'index')::int = s.anchor_index)
 ORDER BY 1
""",
)

_ONE_CARRIER: Final = Check(
    counted="SELECT count(*) FROM custody.spend_payout",
    faults="""
SELECT format('custody.payout %s', sp.payout_id),
       format('%s spends that carry it are in blocks: %s', count(*),
              string_agg(sp.spend_id::text, ', ' ORDER BY sp.spend_id))
  FROM custody.spend_payout sp JOIN custody.spend s ON s.id = sp.spend_id
 WHERE sp.live AND s.state IN ('mined', 'final')
 GROUP BY sp.payout_id HAVING count(*) > 1
UNION ALL
SELECT format('custody.payout %s', payout_id),
       format('a bank has booked %s lines of it', count(*))
  FROM custody.payment_line WHERE booked_entry IS NOT NULL
 GROUP BY payout_id HAVING count(*) > 1
 ORDER BY 1
""",
)

_COINS_OUT: Final = fill(_STANDING, codes="'payout.mined', 'own-transfer.mined', 'payout.booked'")
_OUT_ONCE: Final = Check(
    counted=_PAYOUTS,
    faults=fill(
        """
SELECT format('custody.payout %s', p.id),
       format('of its %s %s, %s left by %s postings', p.amount, p.asset, sum(o.amount), count(*))
  FROM custody.payout p
  JOIN (<left>) o ON o.book = p.book AND o.correlation = p.id
 GROUP BY p.id HAVING count(*) > 1 OR sum(o.amount) <> p.amount
 ORDER BY 1
""",
        left=_COINS_OUT,
    ),
)

PAID_ONCE: Final = (_ONE_MINED, _CONFLICTING, _ONE_CARRIER, _OUT_ONCE)

# Whether the claim is debited and not given back: from the first signature until the payment is final,
# its amount is in flight. A hold for security may begin before the signature.
_IN_FLIGHT: Final = Check(
    counted=_PAYOUTS,
    faults=fill(
        """
WITH signed AS MATERIALIZED (<signed>),
flow AS MATERIALIZED (
    SELECT t.book, t.correlation,
           sum(CASE WHEN starts_with(a.path, 'in-flight:')
                    THEN CASE WHEN a.number = t.credit THEN t.amount ELSE -t.amount END
                    ELSE 0 END) AS in_flight,
           sum(CASE WHEN starts_with(a.path, 'transit:out:')
                    THEN CASE WHEN a.number = t.debit THEN t.amount ELSE -t.amount END
                    ELSE 0 END) AS in_transit
      FROM ledger.account a
      JOIN ledger.transfer t ON t.book = a.book AND a.number IN (t.debit, t.credit)
     WHERE t.kind IN (1, 3, 6) AND t.correlation IS NOT NULL
       AND (starts_with(a.path, 'in-flight:') OR starts_with(a.path, 'transit:out:'))
     GROUP BY t.book, t.correlation
),
wanted AS (
    SELECT p.id, p.book, p.state,
           CASE WHEN starts_with(p.claim, 'own:') OR p.claim_returned THEN 0
                WHEN p.state IN ('signed', 'cancelling', 'mined') THEN p.amount
                WHEN p.state = 'security_hold' AND EXISTS (
                     SELECT 1 FROM signed s WHERE s.book = p.book AND s.correlation = p.id)
                THEN p.amount
                ELSE 0 END AS in_flight,
           CASE WHEN starts_with(p.claim, 'own:') OR p.rail = 'bank' THEN 0
                WHEN p.state = 'mined' AND p.succeeded THEN p.amount
                ELSE 0 END AS in_transit
      FROM custody.payout p
)
SELECT format('custody.payout %s', w.id),
       format('it is %s: %s in flight and %s in transit by the journal, %s and %s by its state',
              w.state, coalesce(f.in_flight, 0), coalesce(f.in_transit, 0), w.in_flight,
              w.in_transit)
  FROM wanted w LEFT JOIN flow f ON f.book = w.book AND f.correlation = w.id
 WHERE coalesce(f.in_flight, 0) <> w.in_flight OR coalesce(f.in_transit, 0) <> w.in_transit
 ORDER BY w.id
""",
        signed=fill(_STANDING, codes="'payout.signed'"),
    ),
)

_FINAL: Final = Check(
    counted="SELECT count(*) FROM custody.payout WHERE state IN ('mined', 'confirmed')",
    faults=fill(
        """
WITH gone AS (SELECT DISTINCT book, correlation FROM (<left>) o)
SELECT format('custody.payout %s', p.id), format('it is %s, and %s', p.state, said.what)
  FROM custody.payout p
  LEFT JOIN gone ON gone.book = p.book AND gone.correlation = p.id
 CROSS JOIN LATERAL (VALUES
       (p.rail = 'evm' AND NOT EXISTS (
            SELECT 1 FROM custody.payout_attempt a
             WHERE a.payout_id = p.id AND a.tx_hash = p.tx_hash
               AND a.state = CASE p.state WHEN 'mined' THEN 'mined' ELSE 'final' END),
        'no transaction of it is'),
       (p.rail = 'bitcoin' AND NOT EXISTS (
            SELECT 1 FROM custody.spend_payout sp JOIN custody.spend s ON s.id = sp.spend_id
             WHERE sp.payout_id = p.id AND sp.live
               AND s.state = CASE p.state WHEN 'mined' THEN 'mined' ELSE 'final' END),
        'no spend that carries it is'),
       (p.rail = 'bank' AND NOT EXISTS (
            SELECT 1 FROM custody.payment_line l
             WHERE l.payout_id = p.id AND l.state IN ('booked', 'returned')
               AND l.booked_entry IS NOT NULL),
        'no bank has booked a line of it'),
       (p.amount > 0 AND gone.book IS NULL
        AND (p.state = 'confirmed' OR p.succeeded)
        AND p.claim <> 'own:' || p.source_wallet,
        'the journal does not have its coins out')
       ) said (wrong, what)
 WHERE p.state IN ('mined', 'confirmed') AND said.wrong
 ORDER BY p.id
""",
        left=_COINS_OUT,
    ),
)

_NONCES: Final = Check(
    counted="SELECT count(*) FROM custody.payout_nonce",
    faults="""
SELECT format('custody.payout_nonce %s/%s/%s', n.chain, n.sender, n.nonce),
       format('it is %s, and its payout %s is %s', n.state, p.id, p.state)
  FROM custody.payout_nonce n JOIN custody.payout p ON p.id = n.payout_id
 WHERE (n.state = 'spent' AND p.state IN ('allocated', 'signed', 'approved'))
    OR (n.state = 'live' AND p.state = 'confirmed')
 ORDER BY 1
""",
)

AGREE: Final = (_IN_FLIGHT, _FINAL, _NONCES)
