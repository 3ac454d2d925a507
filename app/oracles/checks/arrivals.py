"""Questions about what arrives: each credited once, from a block that stands, and where its state says."""

from __future__ import annotations

from typing import Final

from app.oracles.model import Check

# A hold is not posted: only what moved counts, and what was reversed counts against it.
_BOOKED_ONCE: Final = Check(
    counted="SELECT (SELECT count(*) FROM custody.deposit) + (SELECT count(*) FROM custody.receipt)",
    faults="""
WITH arrival AS (
    SELECT 'custody.deposit ' || id AS where_, id, state, coalesce(received, amount) AS value,
           'custody:' || wallet AS holding,
           CASE WHEN state = 'credited' THEN credit
                WHEN state IN ('held', 'refunding', 'refunded') THEN 'client:' || party || ':held'
                WHEN state = 'dust' THEN 'suspense:dust'
                WHEN state = 'unattributed' THEN 'suspense:unattributed:' || chain
           END AS target,
           state IN ('credited', 'held', 'refunding', 'refunded', 'dust', 'unattributed',
                     'attributed', 'arrived') AS is_posted
      FROM custody.deposit
    UNION ALL
    SELECT 'custody.receipt ' || id, id, state, coalesce(received, amount), 'custody:' || wallet,
           NULL, state IN ('final', 'matched')
      FROM custody.receipt
), moved AS MATERIALIZED (
    SELECT t.correlation, a.path,
           sum(CASE WHEN a.number = t.debit THEN t.amount ELSE -t.amount END) AS net
      FROM ledger.transfer t
      JOIN arrival ON arrival.id = t.correlation
      JOIN ledger.account a ON a.book = t.book AND a.number IN (t.debit, t.credit)
     WHERE t.kind IN (1, 3, 6)
       AND t.code NOT IN ('deposit.shortfall', 'deposit.shortfall-settled', 'receipt.shortfall')
     GROUP BY t.correlation, a.path
)
SELECT v.where_,
       format('it is %s: %s booked into %s, of %s', v.state, coalesce(h.net, 0), v.holding,
              CASE WHEN v.is_posted THEN v.value ELSE 0 END)
  FROM arrival v LEFT JOIN moved h ON h.correlation = v.id AND h.path = v.holding
 WHERE coalesce(h.net, 0) <> CASE WHEN v.is_posted THEN v.value ELSE 0 END
UNION ALL
SELECT v.where_,
       format('it is %s: %s credited to %s, of %s', v.state, coalesce(-m.net, 0), v.target,
              v.value)
  FROM arrival v LEFT JOIN moved m ON m.correlation = v.id AND m.path = v.target
 WHERE v.target IS NOT NULL AND coalesce(-m.net, 0) <> v.value
 ORDER BY 1
""",
)

_BLOCK_STANDS: Final = Check(
    counted="""
SELECT (SELECT count(*) FROM custody.deposit WHERE state <> 'orphaned' AND state <> 'reversed')
     + (SELECT count(*) FROM custody.receipt WHERE state <> 'orphaned' AND state <> 'reversed')
""",
    faults="""
SELECT v.where_,
       format('it is %s, and its block %s at height %s of %s is %s', v.state, v.block_hash,
              v.height, v.chain, coalesce(b.state, 'unknown'))
  FROM (SELECT 'custody.deposit ' || id AS where_, chain, block_hash, height, state
          FROM custody.deposit
        UNION ALL
        SELECT 'custody.receipt ' || id, chain, block_hash, height, state FROM custody.receipt) v
  LEFT JOIN chain.block b ON b.chain = v.chain AND b.hash = v.block_hash
 WHERE v.state NOT IN ('orphaned', 'reversed') AND b.state IS DISTINCT FROM 'canonical'
 ORDER BY 1
""",
)

# What lay at an address that was nobody's is taken back as a deposit, and comes in again as a receipt.
_IN_TWO_MACHINES: Final = Check(
    counted="SELECT count(*) FROM custody.receipt",
    faults="""
SELECT 'custody.receipt ' || r.id, format('the same arrival is deposit %s', d.id)
  FROM custody.receipt r
  JOIN custody.deposit d ON (d.chain, d.tx_hash, d.position) = (r.chain, r.tx_hash, r.position)
 WHERE d.state NOT IN ('orphaned', 'reversed') AND r.state NOT IN ('orphaned', 'reversed')
 ORDER BY 1
""",
)

DEPOSITED_ONCE: Final = (_BOOKED_ONCE, _BLOCK_STANDS, _IN_TWO_MACHINES)
