"""Questions about what lies between places: in transit and in suspense, item by item."""

from __future__ import annotations

from typing import Final

from app.oracles.model import Check

# Own coins on their way to or from a venue: the sum of what is open, and nothing else.
_IN_TRANSIT: Final = Check(
    counted="SELECT count(*) FROM ledger.account WHERE starts_with(path, 'transit:')",
    faults="""
WITH wanted AS (
    SELECT d.book, 'transit:' || p.source_wallet || '-' || d.venue || '/' || d.account AS path,
           d.asset, CASE WHEN d.state = 'credited' THEN 0 ELSE d.amount END AS units
      FROM custody.venue_deposit d JOIN custody.payout p ON p.id = d.payout_id
     WHERE p.state = 'confirmed' OR (p.state = 'mined' AND p.succeeded)
    UNION ALL
    SELECT w.book, 'transit:' || w.venue || '/' || w.account || '-' || w.wallet, w.asset,
           CASE WHEN w.state IN ('debited', 'sent') THEN w.sent ELSE 0 END
      FROM custody.venue_withdrawal w
), itemised AS (
    SELECT book, path, asset, sum(units) AS units FROM wanted GROUP BY book, path, asset
), booked AS (
    SELECT a.book, a.path, a.asset, b.debits_posted - b.credits_posted AS units
      FROM ledger.account a JOIN ledger.balance b ON b.book = a.book AND b.account = a.number
     WHERE starts_with(a.path, 'transit:') AND NOT starts_with(a.path, 'transit:out:')
)
SELECT format('ledger.balance of book %s, %s %s', coalesce(i.book, b.book),
              coalesce(i.path, b.path), coalesce(i.asset, b.asset)),
       format('%s is in transit by the books, and open transfers make %s', coalesce(b.units, 0),
              coalesce(i.units, 0))
  FROM booked b FULL JOIN itemised i ON (i.book, i.path, i.asset) = (b.book, b.path, b.asset)
 WHERE coalesce(b.units, 0) <> coalesce(i.units, 0)
 ORDER BY 1
""",
)

# Value that came and is nobody's yet: on a chain a receipt that waits, in a bank a line of a statement.
_IN_SUSPENSE: Final = Check(
    counted="""
SELECT (SELECT count(*) FROM custody.receipt) + (SELECT count(*) FROM custody.bank_receipt)
""",
    faults="""
WITH item AS (
    SELECT credit AS path, asset, coalesce(received, amount) AS units
      FROM custody.receipt WHERE state = 'final'
    UNION ALL
    SELECT 'suspense:bank', asset, CASE kind WHEN 'receipt' THEN value ELSE -value END
      FROM custody.bank_receipt WHERE state = 'unmatched'
    UNION ALL
    SELECT 'suspense:unattributed:' || chain, asset, coalesce(received, amount)
      FROM custody.deposit WHERE state = 'unattributed'
    UNION ALL
    -- What a transaction that is not ours took from a wallet, until people say what it was.
    SELECT leg ->> 'account', leg ->> 'asset', -(leg ->> 'amount')::numeric
      FROM custody.foreign_spend s CROSS JOIN LATERAL jsonb_array_elements(s.legs) leg
     WHERE s.state = 'included' AND starts_with(leg ->> 'account', 'suspense:')
), itemised AS (
    SELECT path, asset, sum(units) AS units FROM item GROUP BY path, asset
), booked AS (
    SELECT a.path, a.asset, sum(b.credits_posted - b.debits_posted) AS units
      FROM ledger.account a JOIN ledger.balance b ON b.book = a.book AND b.account = a.number
     WHERE starts_with(a.path, 'suspense:') AND a.path <> 'suspense:dust'
     GROUP BY a.path, a.asset
)
SELECT format('ledger.balance of %s %s', coalesce(i.path, b.path), coalesce(i.asset, b.asset)),
       format('%s is in suspense, and the items that wait make %s', coalesce(b.units, 0),
              coalesce(i.units, 0))
  FROM booked b FULL JOIN itemised i ON (i.path, i.asset) = (b.path, b.asset)
 WHERE coalesce(b.units, 0) <> coalesce(i.units, 0)
 ORDER BY 1
""",
)

PLACES: Final = (_IN_TRANSIT, _IN_SUSPENSE)
