"""The SQL of the posting path, read and written in a fixed number of statements.

A column crosses as one text, a PostgreSQL array literal (`ledger.arrays`): PostgreSQL reads that
several times faster than asyncpg encodes a list element by element.
"""

from __future__ import annotations

from typing import Final

# now() is when the transaction began: read again in the next statement, it tells whether both ran
# in one transaction.
LOCK_HEAD: Final = """
SELECT sequence, height, block_time, account_count, frontier, entity,
       current_setting('transaction_isolation') AS isolation, now() AS began_at
  FROM ledger.head WHERE book = $1 FOR NO KEY UPDATE
"""

# $2: time of the last block; $3: the caller's time or null. One row at least, for the clock.
READ_CLOCK_AND_DUE: Final = """
WITH clock AS MATERIALIZED (
    SELECT greatest($2::timestamptz, coalesce($3::timestamptz, clock_timestamp())) AS at
)
SELECT clock.at, now() AS began_at, h.id, h.sequence, h.debit, h.credit, h.amount::text AS amount,
       h.state, h.flags, h.purpose, h.correlation, h.expires_at, h.resolved_sequence
  FROM clock LEFT JOIN LATERAL (
      SELECT * FROM ledger.hold
       WHERE book = $1 AND state = 'open' AND expires_at IS NOT NULL AND expires_at <= clock.at
       ORDER BY expires_at, sequence LIMIT $4
  ) h ON true
"""

_TRANSFER: Final = """
t.sequence, t.id, t.kind, t.flags, t.debit, t.credit, t.amount::text AS amount, t.code,
t.pending_id, t.reverses, t.purpose, t.timeout_us, t.effective_at, t.reference, t.correlation,
t.metadata_hash, t.recorded_at"""

_HOLD: Final = """
h.id AS hold_id, h.sequence AS hold_sequence, h.debit AS hold_debit, h.credit AS hold_credit,
h.amount::text AS held, h.state AS hold_state, h.flags AS hold_flags, h.purpose AS hold_purpose,
h.correlation AS hold_correlation, h.expires_at, h.resolved_sequence"""

# LATERAL … LIMIT 1 makes each look-up one by key, whatever the planner believes about the tables: a
# plan that was cached while they were small would otherwise scan them when they are large.

# The holds of pending transfers, and those that posts, voids and expiries among the found resolved.
READ_TRANSFERS: Final = """
SELECT <transfer>, <hold>, r.id AS reversed_by,
       f.id AS refused_id, f.sequence AS refused_sequence, f.outcome AS refused_outcome,
       f.recorded_at AS refused_at
  FROM unnest($2::text::uuid[]) AS asked (id)
  LEFT JOIN LATERAL (
      SELECT * FROM ledger.transfer WHERE book = $1 AND id = asked.id LIMIT 1
  ) t ON true
  LEFT JOIN LATERAL (
      SELECT * FROM ledger.refusal WHERE book = $1 AND id = asked.id LIMIT 1
  ) f ON true
  LEFT JOIN LATERAL (
      SELECT * FROM ledger.hold WHERE book = t.book AND id = coalesce(t.pending_id, t.id) LIMIT 1
  ) h ON true
  LEFT JOIN LATERAL (
      SELECT id FROM ledger.transfer WHERE book = t.book AND reverses = t.id LIMIT 1
  ) r ON true
 WHERE t.id IS NOT NULL OR f.id IS NOT NULL
""".replace("<transfer>", _TRANSFER).replace("<hold>", _HOLD)

_ACCOUNT: Final = """
a.number, a.path, a.asset, b.debits_must_not_exceed_credits, b.credits_must_not_exceed_debits,
b.frozen, b.closed, b.version, b.debits_pending::text, b.debits_posted::text,
b.credits_pending::text, b.credits_posted::text"""

# UNION ALL: an account may come twice; the reader keeps it by number.
READ_ACCOUNTS: Final = """
SELECT <account>
  FROM (
      SELECT found.* FROM unnest($2::text::text[], $3::text::text[]) AS asked (path, asset)
        JOIN LATERAL (
            SELECT * FROM ledger.account
             WHERE book = $1 AND path = asked.path AND asset = asked.asset LIMIT 1
        ) found ON true
      UNION ALL
      SELECT found.* FROM unnest($4::text::bigint[]) AS asked (number)
        JOIN LATERAL (
            SELECT * FROM ledger.account WHERE book = $1 AND number = asked.number LIMIT 1
        ) found ON true
  ) a
  JOIN LATERAL (
      SELECT * FROM ledger.balance WHERE book = a.book AND account = a.number LIMIT 1
  ) b ON true
""".replace("<account>", _ACCOUNT)

# The new head comes last, so that what it needs is checked first.
WRITE: Final = """
WITH transfers AS (
    INSERT INTO ledger.transfer (
        book, sequence, id, kind, flags, debit, credit, amount, code, pending_id, reverses,
        purpose, timeout_us, effective_at, reference, correlation, metadata_hash, recorded_at)
    SELECT $1, t.sequence, t.id, t.kind, t.flags, t.debit, t.credit, t.amount, t.code,
           t.pending_id, t.reverses, t.purpose, t.timeout_us, t.effective_at, t.reference,
           t.correlation, t.metadata_hash, $3
      FROM unnest(
          $9::text::bigint[], $10::text::uuid[], $11::text::smallint[], $12::text::smallint[], $13::text::bigint[],
          $14::text::bigint[], $15::text::numeric[], $16::text::text[], $17::text::uuid[], $18::text::uuid[], $19::text::text[],
          $20::text::bigint[], $21::text::timestamptz[], $22::text::text[], $23::text::uuid[], $24::text::text[]
      ) AS t (sequence, id, kind, flags, debit, credit, amount, code, pending_id, reverses,
              purpose, timeout_us, effective_at, reference, correlation, metadata_hash)
), entries AS (
    INSERT INTO ledger.entry (
        book, account, sequence, version,
        debits_pending, debits_posted, credits_pending, credits_posted)
    SELECT $1, e.account, e.sequence, e.version,
           e.dp, e.d, e.cp, e.c
      FROM unnest(
          $25::text::bigint[], $26::text::bigint[], $27::text::bigint[],
          $28::text::numeric[], $29::text::numeric[], $30::text::numeric[], $31::text::numeric[]
      ) AS e (account, sequence, version, dp, d, cp, c)
), balances AS (
    UPDATE ledger.balance AS b
       SET debits_pending = n.dp, debits_posted = n.d,
           credits_pending = n.cp, credits_posted = n.c,
           version = n.version, closed = n.closed, sequence = n.sequence
      FROM unnest(
          $32::text::bigint[], $33::text::bigint[], $34::text::bigint[], $35::text::boolean[],
          $36::text::numeric[], $37::text::numeric[], $38::text::numeric[], $39::text::numeric[]
      ) AS n (account, sequence, version, closed, dp, d, cp, c)
      JOIN LATERAL (
          SELECT ctid FROM ledger.balance WHERE book = $1 AND account = n.account LIMIT 1
      ) found ON true
     WHERE b.ctid = found.ctid
), holds AS (
    INSERT INTO ledger.hold (
        book, id, sequence, debit, credit, amount, remaining, state, flags, purpose,
        correlation, expires_at, resolved_sequence)
    SELECT $1, h.id, h.sequence, h.debit, h.credit, h.amount,
           CASE WHEN h.state = 'open' THEN h.amount ELSE 0 END, h.state, h.flags,
           h.purpose, h.correlation, h.expires_at, h.resolved
      FROM unnest(
          $40::text::uuid[], $41::text::bigint[], $42::text::bigint[], $43::text::bigint[], $44::text::numeric[], $45::text::text[],
          $46::text::smallint[], $47::text::text[], $48::text::uuid[], $49::text::timestamptz[], $50::text::bigint[]
      ) AS h (id, sequence, debit, credit, amount, state, flags, purpose, correlation,
              expires_at, resolved)
), resolved AS (
    UPDATE ledger.hold AS h
       SET state = n.state, remaining = 0, resolved_sequence = n.resolved
      FROM unnest($51::text::uuid[], $52::text::text[], $53::text::bigint[]) AS n (id, state, resolved)
      JOIN LATERAL (
          SELECT ctid FROM ledger.hold WHERE book = $1 AND id = n.id LIMIT 1
      ) found ON true
     WHERE h.ctid = found.ctid
), refusals AS (
    INSERT INTO ledger.refusal (book, sequence, id, outcome, recorded_at)
    SELECT $1, r.sequence, r.id, r.outcome, $3
      FROM unnest($54::text::bigint[], $55::text::uuid[], $56::text::text[]) AS r (sequence, id, outcome)
), metadata AS (
    INSERT INTO ledger.transfer_metadata (book, sequence, data)
    SELECT $1, m.sequence, m.data::jsonb
      FROM unnest($57::text::bigint[], $58::text::text[]) AS m (sequence, data)
), block AS (
    INSERT INTO ledger.block (book, height, recorded_at, first_sequence, last_sequence, root)
    VALUES ($1, $2, $3, $4, $5, $6)
)
UPDATE ledger.head
   SET sequence = $5, height = $2, block_time = $3, account_count = $7, frontier = $8
 WHERE book = $1
"""

WRITE_TILES: Final = """
INSERT INTO ledger.tile (book, level, position, hashes, root)
SELECT $1, t.level, t.position, t.hashes, t.root
  FROM unnest($2::smallint[], $3::integer[], $4::bytea[], $5::bytea[])
       AS t (level, position, hashes, root)
"""

WRITE_ACCOUNTS: Final = """
WITH asked AS (
    SELECT * FROM unnest(
        $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[],
        $8::boolean[], $9::boolean[]
    ) AS a (number, sequence, path, asset, side, owner, debits_capped, credits_capped)
), accounts AS (
    INSERT INTO ledger.account (
        book, number, path, asset, side, owner,
        debits_must_not_exceed_credits, credits_must_not_exceed_debits)
    SELECT $1, number, path, asset, side, owner, debits_capped, credits_capped FROM asked
), balances AS (
    INSERT INTO ledger.balance (
        book, account, asset, debits_pending, debits_posted, credits_pending, credits_posted,
        version, sequence, debits_must_not_exceed_credits, credits_must_not_exceed_debits)
    SELECT $1, number, asset, 0, 0, 0, 0, 0, sequence, debits_capped, credits_capped FROM asked
)
INSERT INTO ledger.account_event (book, sequence, account, kind, reason, recorded_at)
SELECT $1, sequence, number, 'opened', '', $10 FROM asked
"""

# A block that holds account events only.
WRITE_BLOCK: Final = """
WITH block AS (
    INSERT INTO ledger.block (book, height, recorded_at, first_sequence, last_sequence, root)
    VALUES ($1, $2, $3, $4, $5, $6)
)
UPDATE ledger.head
   SET sequence = $5, height = $2, block_time = $3, account_count = $7, frontier = $8
 WHERE book = $1
"""

# Every record of a range, as the columns of its kind: what tiles and proofs are rebuilt from.
READ_TRANSFER_RANGE: Final = """
SELECT <transfer> FROM ledger.transfer t
 WHERE t.book = $1 AND t.sequence BETWEEN $2 AND $3
""".replace("<transfer>", _TRANSFER)

READ_REFUSAL_RANGE: Final = """
SELECT sequence, id, outcome, recorded_at FROM ledger.refusal
 WHERE book = $1 AND sequence BETWEEN $2 AND $3
"""

READ_EVENT_RANGE: Final = """
SELECT e.sequence, e.account, e.kind, e.reason, e.recorded_at,
       a.path, a.asset, a.side, a.owner,
       a.debits_must_not_exceed_credits, a.credits_must_not_exceed_debits
  FROM ledger.account_event e JOIN ledger.account a ON a.book = e.book AND a.number = e.account
 WHERE e.book = $1 AND e.sequence BETWEEN $2 AND $3
"""

READ_TILE_ROOTS: Final = """
SELECT position, root FROM ledger.tile
 WHERE book = $1 AND level = $2 AND position BETWEEN $3 AND $4 ORDER BY position
"""

READ_OWNERS: Final = """
SELECT a.path, a.asset, a.owner FROM unnest($2::text[], $3::text[]) AS asked (path, asset)
  JOIN ledger.account a ON a.book = $1 AND a.path = asked.path AND a.asset = asked.asset
"""

READ_ACCOUNT: Final = """
SELECT a.*, b.frozen
  FROM ledger.account a JOIN ledger.balance b ON b.book = a.book AND b.account = a.number
 WHERE a.book = $1 AND a.path = $2 AND a.asset = $3
"""

WRITE_FROZEN: Final = """
WITH event AS (
    INSERT INTO ledger.account_event (book, sequence, account, kind, reason, recorded_at)
    VALUES ($1, $2, $3, $4, $5, $6)
)
UPDATE ledger.balance SET frozen = $7 WHERE book = $1 AND account = $3
"""
