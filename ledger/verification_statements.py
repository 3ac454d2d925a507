"""The SQL of verification: each record with everything that is stored about it elsewhere."""

from __future__ import annotations

from typing import Final

EVENTS: Final = """
SELECT e.sequence, e.account, e.kind, e.reason, e.recorded_at, a.path, a.asset, a.side, a.owner,
       a.debits_must_not_exceed_credits, a.credits_must_not_exceed_debits
  FROM ledger.account_event e
  LEFT JOIN ledger.account a ON a.book = e.book AND a.number = e.account
 WHERE e.book = $1 AND e.sequence BETWEEN $2 AND $3
"""

TRANSFERS: Final = """
SELECT t.sequence, t.id, t.kind, t.flags, t.debit, t.credit, t.amount::text AS amount, t.code,
       t.pending_id, t.reverses, t.purpose, t.timeout_us, t.effective_at, t.reference,
       t.correlation, t.metadata_hash, t.recorded_at,
       de.version AS debit_version, de.debits_pending::text AS debit_debits_pending,
       de.debits_posted::text AS debit_debits_posted,
       de.credits_pending::text AS debit_credits_pending,
       de.credits_posted::text AS debit_credits_posted,
       ce.version AS credit_version, ce.debits_pending::text AS credit_debits_pending,
       ce.debits_posted::text AS credit_debits_posted,
       ce.credits_pending::text AS credit_credits_pending,
       ce.credits_posted::text AS credit_credits_posted,
       CASE WHEN t.kind = 2 THEN t.amount ELSE p.amount END::text AS held,
       CASE WHEN t.kind = 2 THEN t.flags ELSE p.flags END AS held_flags,
       h.id AS hold_id, h.sequence AS hold_sequence, h.debit AS hold_debit,
       h.credit AS hold_credit, h.amount::text AS hold_amount, h.remaining::text AS remaining,
       h.state AS hold_state, h.flags AS hold_flags, h.purpose AS hold_purpose,
       h.correlation AS hold_correlation, h.expires_at, h.resolved_sequence,
       r.sequence AS resolver_sequence, r.kind AS resolver_kind,
       o.debit AS original_debit, o.credit AS original_credit, o.amount::text AS original_amount,
       m.data::text AS data, f.id IS NOT NULL AS refused
  FROM ledger.transfer t
  LEFT JOIN ledger.entry de
    ON de.book = t.book AND de.account = t.debit AND de.sequence = t.sequence
  LEFT JOIN ledger.entry ce
    ON ce.book = t.book AND ce.account = t.credit AND ce.sequence = t.sequence
  LEFT JOIN ledger.transfer p ON p.book = t.book AND p.id = t.pending_id AND p.kind = 2
  LEFT JOIN ledger.hold h
    ON h.book = t.book AND h.id = CASE WHEN t.kind = 2 THEN t.id END
  LEFT JOIN ledger.transfer r
    ON r.book = t.book AND r.pending_id = CASE WHEN t.kind = 2 THEN t.id END
  LEFT JOIN ledger.transfer o
    ON o.book = t.book AND o.id = t.reverses AND o.kind IN (1, 3)
  LEFT JOIN ledger.transfer_metadata m ON m.book = t.book AND m.sequence = t.sequence
  LEFT JOIN ledger.refusal f ON f.book = t.book AND f.id = t.id
 WHERE t.book = $1 AND t.sequence BETWEEN $2 AND $3
"""

REFUSALS: Final = """
SELECT sequence, id, outcome, recorded_at FROM ledger.refusal
 WHERE book = $1 AND sequence BETWEEN $2 AND $3
"""

BLOCKS: Final = """
SELECT height, recorded_at, first_sequence, last_sequence, root FROM ledger.block
 WHERE book = $1 AND last_sequence BETWEEN $2 AND $3 ORDER BY height
"""

TILES: Final = """
SELECT position, hashes, root FROM ledger.tile
 WHERE book = $1 AND level = $2 AND position BETWEEN $3 AND $4
"""

# With the entry it names as its last, for accounts that have moved on since the watermark.
BALANCES: Final = """
SELECT b.account, b.asset, b.version, b.sequence, b.frozen, b.closed,
       b.debits_must_not_exceed_credits, b.credits_must_not_exceed_debits,
       b.debits_pending::text, b.debits_posted::text,
       b.credits_pending::text, b.credits_posted::text,
       e.version AS entry_version, e.debits_pending::text AS entry_debits_pending,
       e.debits_posted::text AS entry_debits_posted,
       e.credits_pending::text AS entry_credits_pending,
       e.credits_posted::text AS entry_credits_posted, h.sequence AS head_sequence
  FROM ledger.balance b
  JOIN ledger.head h ON h.book = b.book
  LEFT JOIN ledger.entry e
    ON e.book = b.book AND e.account = b.account AND e.sequence = b.sequence
 WHERE b.book = $1 AND b.account = ANY ($2::bigint[])
"""

SURPLUS_ENTRIES: Final = """
SELECT e.account, e.sequence FROM ledger.entry e
 WHERE e.book = $1 AND e.sequence <= $2 AND NOT EXISTS (
     SELECT FROM ledger.transfer t
      WHERE t.book = e.book AND t.sequence = e.sequence AND e.account IN (t.debit, t.credit))
 LIMIT 1000
"""

SURPLUS_HOLDS: Final = """
SELECT h.id FROM ledger.hold h
 WHERE h.book = $1 AND h.sequence <= $2 AND NOT EXISTS (
     SELECT FROM ledger.transfer t WHERE t.book = h.book AND t.id = h.id AND t.kind = 2)
 LIMIT 1000
"""

SURPLUS_METADATA: Final = """
SELECT m.sequence FROM ledger.transfer_metadata m
 WHERE m.book = $1 AND m.sequence <= $2 AND NOT EXISTS (
     SELECT FROM ledger.transfer t WHERE t.book = m.book AND t.sequence = m.sequence)
 LIMIT 1000
"""

SURPLUS_ACCOUNTS: Final = """
SELECT a.path, a.asset FROM ledger.account a
 WHERE a.book = $1 AND NOT EXISTS (
     SELECT FROM ledger.account_event e
      WHERE e.book = a.book AND e.account = a.number AND e.kind = 'opened')
 LIMIT 1000
"""

# One statement, so one instant: what open holds come to beside the pending columns.
HOLD_TOTALS: Final = """
WITH held AS (
    SELECT account, sum(debits) AS debits, sum(credits) AS credits FROM (
        SELECT debit AS account, remaining AS debits, 0 AS credits
          FROM ledger.hold WHERE book = $1 AND state = 'open'
        UNION ALL
        SELECT credit, 0, remaining FROM ledger.hold WHERE book = $1 AND state = 'open'
    ) sides GROUP BY account
)
SELECT a.path, a.asset, coalesce(held.debits, 0)::text AS held_debits,
       coalesce(held.credits, 0)::text AS held_credits,
       b.debits_pending::text, b.credits_pending::text
  FROM ledger.balance b
  JOIN ledger.account a ON a.book = b.book AND a.number = b.account
  LEFT JOIN held ON held.account = b.account
 WHERE b.book = $1
   AND (b.debits_pending <> coalesce(held.debits, 0)
        OR b.credits_pending <> coalesce(held.credits, 0))
 LIMIT 1000
"""
