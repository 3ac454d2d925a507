"""The SQL of the posting path, read and written in a fixed number of statements.

Rows of transfers and entries cross as text, as COPY takes them: PostgreSQL reads a row's text several
times faster than asyncpg encodes its values one by one. Large batches are really COPYed; small ones
bring the same text as a parameter of `WRITE`, which saves two exchanges.
"""

from __future__ import annotations

from typing import Final

# now() is when the transaction began: read again in the next statement, it tells whether both ran
# in one transaction.
LOCK_HEAD: Final = """
SELECT sequence, height, block_time, account_count, frontier, entity, closed_through,
       imported_through, current_setting('transaction_isolation') AS isolation, now() AS began_at
  FROM ledger.head WHERE book = $1 FOR NO KEY UPDATE
"""

# $2: time of the last block; $3: the caller's time or null; $4: due holds wanted; $5: ids asked for.
# One row: the time, the holds due then, and which of the ids are spent. Ids are ordered by time, so
# most are newer than any that the book knows, and only the others have to be looked up.
READ_CLOCK: Final = """
WITH clock AS MATERIALIZED (
    SELECT coalesce($3::timestamptz, clock_timestamp()) AS told
), block AS MATERIALIZED (
    SELECT told, greatest($2::timestamptz, told) AS at,
           (SELECT id FROM ledger.transfer WHERE book = $1 ORDER BY id DESC LIMIT 1) AS newest,
           (SELECT id FROM ledger.refusal WHERE book = $1 ORDER BY id DESC LIMIT 1) AS refused
      FROM clock
)
SELECT block.at, block.told, now() AS began_at,
       ARRAY(
           SELECT id FROM ledger.hold
            WHERE book = $1 AND state = 'open' AND expires_at IS NOT NULL AND expires_at <= block.at
            ORDER BY expires_at, sequence LIMIT $4
       ) AS due,
       ARRAY(
           SELECT found.id FROM unnest($5::text::uuid[]) AS asked (id)
             JOIN LATERAL (
                 SELECT id FROM ledger.transfer WHERE book = $1 AND id = asked.id LIMIT 1
             ) found ON true
            WHERE asked.id <= block.newest
       ) || ARRAY(
           SELECT found.id FROM unnest($5::text::uuid[]) AS asked (id)
             JOIN LATERAL (
                 SELECT id FROM ledger.refusal WHERE book = $1 AND id = asked.id LIMIT 1
             ) found ON true
            WHERE asked.id <= block.refused
       ) AS spent
  FROM block
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
a.number, a.path, a.asset, coalesce(a.effective_at, a.opened_at) AS opened_at,
b.debits_must_not_exceed_credits, b.credits_must_not_exceed_debits, b.credit_limit::text, b.frozen,
b.closed, b.version, b.sequence, b.debits_pending::text, b.debits_posted::text,
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

# $10 and $11: rows of transfers and entries as lines; empty where they have been COPYed already.
# The new head comes last, so that what it needs is checked first.
WRITE: Final = r"""
WITH transfers AS (
    INSERT INTO ledger.transfer (
        book, sequence, id, kind, flags, debit, credit, amount, code, pending_id, reverses,
        purpose, timeout_us, effective_at, reference, correlation, metadata_hash, recorded_at)
    SELECT f[1]::smallint, f[2]::bigint, f[3]::uuid, f[4]::smallint, f[5]::smallint, f[6]::bigint,
           f[7]::bigint, f[8]::numeric, f[9], f[10]::uuid, f[11]::uuid, f[12], f[13]::bigint,
           f[14]::timestamptz, f[15], f[16]::uuid, f[17], f[18]::timestamptz
      FROM (
          SELECT string_to_array(line, E'\t', '\N') AS f
            FROM string_to_table($10, E'\n') AS line OFFSET 0
      ) AS row
), entries AS (
    INSERT INTO ledger.entry (
        book, account, sequence, version,
        debits_pending, debits_posted, credits_pending, credits_posted)
    SELECT f[1]::smallint, f[2]::bigint, f[3]::bigint, f[4]::bigint,
           f[5]::numeric, f[6]::numeric, f[7]::numeric, f[8]::numeric
      FROM (
          SELECT string_to_array(line, E'\t') AS f
            FROM string_to_table($11, E'\n') AS line OFFSET 0
      ) AS row
), balances AS (
    UPDATE ledger.balance AS b
       SET debits_pending = n.dp, debits_posted = n.d,
           credits_pending = n.cp, credits_posted = n.c,
           version = n.version, closed = n.closed, sequence = n.sequence
      FROM unnest(
          $12::text::bigint[], $13::text::bigint[], $14::text::bigint[], $15::text::boolean[],
          $16::text::numeric[], $17::text::numeric[], $18::text::numeric[], $19::text::numeric[]
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
          $20::text::uuid[], $21::text::bigint[], $22::text::bigint[], $23::text::bigint[],
          $24::text::numeric[], $25::text::text[], $26::text::smallint[], $27::text::text[],
          $28::text::uuid[], $29::text::timestamptz[], $30::text::bigint[]
      ) AS h (id, sequence, debit, credit, amount, state, flags, purpose, correlation,
              expires_at, resolved)
), resolved AS (
    UPDATE ledger.hold AS h
       SET state = n.state, remaining = 0, resolved_sequence = n.resolved
      FROM unnest($31::text::uuid[], $32::text::text[], $33::text::bigint[])
           AS n (id, state, resolved)
      JOIN LATERAL (
          SELECT ctid FROM ledger.hold WHERE book = $1 AND id = n.id LIMIT 1
      ) found ON true
     WHERE h.ctid = found.ctid
), refusals AS (
    INSERT INTO ledger.refusal (book, sequence, id, outcome, recorded_at)
    SELECT f[1]::smallint, f[2]::bigint, f[3]::uuid, f[4], f[5]::timestamptz
      FROM (
          SELECT string_to_array(line, E'\t') AS f
            FROM string_to_table($34, E'\n') AS line OFFSET 0
      ) AS row
), metadata AS (
    INSERT INTO ledger.transfer_metadata (book, sequence, data)
    SELECT $1, m.sequence, m.data::jsonb
      FROM unnest($35::text::bigint[], $36::text::text[]) AS m (sequence, data)
), effective AS (
    INSERT INTO ledger.effective_entry (book, account, effective_on, sequence, debits, credits)
    SELECT $1, e.account, e.effective_on, e.sequence, e.debits, e.credits
      FROM unnest($37::text::bigint[], $38::text::date[], $39::text::bigint[],
                  $40::text::numeric[], $41::text::numeric[])
           AS e (account, effective_on, sequence, debits, credits)
), block AS (
    INSERT INTO ledger.block (book, height, recorded_at, first_sequence, last_sequence, root)
    VALUES ($1, $2, $3, $4, $5, $6)
)
UPDATE ledger.head
   SET sequence = $5, height = $2, block_time = $3, account_count = $7, frontier = $8,
       imported_through = $9
 WHERE book = $1
"""

TRANSFER_COLUMNS: Final = (
    "book",
    "sequence",
    "id",
    "kind",
    "flags",
    "debit",
    "credit",
    "amount",
    "code",
    "pending_id",
    "reverses",
    "purpose",
    "timeout_us",
    "effective_at",
    "reference",
    "correlation",
    "metadata_hash",
    "recorded_at",
)

ENTRY_COLUMNS: Final = (
    "book",
    "account",
    "sequence",
    "version",
    "debits_pending",
    "debits_posted",
    "credits_pending",
    "credits_posted",
)

WRITE_TILES: Final = """
INSERT INTO ledger.tile (book, level, position, hashes, root)
SELECT $1, t.level, t.position, t.hashes, t.root
  FROM unnest($2::smallint[], $3::integer[], $4::bytea[], $5::bytea[])
       AS t (level, position, hashes, root)
"""

WRITE_ACCOUNTS: Final = """
WITH asked AS (
    SELECT * FROM unnest(
        $2::text::bigint[], $3::text::bigint[], $4::text::text[], $5::text::text[],
        $6::text::text[], $7::text::text[], $8::text::boolean[], $9::text::boolean[],
        $10::text::numeric[], $11::text::text[], $12::text::text[], $13::text::timestamptz[]
    ) AS a (number, sequence, path, asset, side, owner, debits_capped, credits_capped,
            credit_limit, purpose, metadata, effective_at)
), accounts AS (
    INSERT INTO ledger.account (
        book, number, path, asset, side, owner, debits_must_not_exceed_credits,
        credits_must_not_exceed_debits, purpose, metadata, opened_at, effective_at)
    SELECT $1, number, path, asset, side, owner, debits_capped, credits_capped,
           purpose, metadata::jsonb, $14, effective_at FROM asked
), balances AS (
    INSERT INTO ledger.balance (
        book, account, asset, debits_pending, debits_posted, credits_pending, credits_posted,
        version, sequence, debits_must_not_exceed_credits, credits_must_not_exceed_debits,
        credit_limit)
    SELECT $1, number, asset, 0, 0, 0, 0, 0, sequence, debits_capped, credits_capped,
           credit_limit FROM asked
)
INSERT INTO ledger.account_event (book, sequence, account, kind, reason, recorded_at, credit_limit)
SELECT $1, sequence, number, 'opened', '', $14, credit_limit FROM asked
"""

# A block that holds account events or a period event only.
WRITE_BLOCK: Final = """
WITH block AS (
    INSERT INTO ledger.block (book, height, recorded_at, first_sequence, last_sequence, root)
    VALUES ($1, $2, $3, $4, $5, $6)
)
UPDATE ledger.head
   SET sequence = $5, height = $2, block_time = $3, account_count = $7, frontier = $8,
       closed_through = $9
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

# An account's limit is that of its last event up to this one that set it.
READ_EVENT_RANGE: Final = """
SELECT e.sequence, e.account, e.kind, e.reason, e.recorded_at, a.path, a.asset, a.side, a.owner,
       a.debits_must_not_exceed_credits, a.credits_must_not_exceed_debits, a.purpose,
       a.metadata::text AS metadata, a.effective_at,
       coalesce(e.credit_limit, (
           SELECT l.credit_limit FROM ledger.account_event l
            WHERE l.book = e.book AND l.account = e.account AND l.sequence < e.sequence
              AND l.credit_limit IS NOT NULL
            ORDER BY l.sequence DESC LIMIT 1
       ))::text AS credit_limit
  FROM ledger.account_event e JOIN ledger.account a ON a.book = e.book AND a.number = e.account
 WHERE e.book = $1 AND e.sequence BETWEEN $2 AND $3
"""

READ_PERIOD_RANGE: Final = """
SELECT sequence, kind, through, reason, proposed_by, approved_by, recorded_at
  FROM ledger.period_event WHERE book = $1 AND sequence BETWEEN $2 AND $3
"""

READ_TILE_ROOTS: Final = """
SELECT position, root FROM ledger.tile
 WHERE book = $1 AND level = $2 AND position BETWEEN $3 AND $4 ORDER BY position
"""

READ_SPECS: Final = """
SELECT a.number, a.path, a.asset, a.side, a.owner, a.debits_must_not_exceed_credits,
       a.credits_must_not_exceed_debits, a.purpose, a.metadata::text AS metadata, a.effective_at,
       opened.sequence, b.credit_limit::text AS credit_limit, b.frozen
  FROM unnest($2::text::text[], $3::text::text[]) AS asked (path, asset)
  JOIN LATERAL (
      SELECT * FROM ledger.account
       WHERE book = $1 AND path = asked.path AND asset = asked.asset LIMIT 1
  ) a ON true
  JOIN LATERAL (
      SELECT * FROM ledger.balance WHERE book = $1 AND account = a.number LIMIT 1
  ) b ON true
  JOIN LATERAL (
      SELECT sequence FROM ledger.account_event
       WHERE book = $1 AND account = a.number ORDER BY sequence LIMIT 1
  ) opened ON true
"""

WRITE_ACCOUNT_EVENT: Final = """
WITH event AS (
    INSERT INTO ledger.account_event (
        book, sequence, account, kind, reason, recorded_at, credit_limit)
    VALUES ($1, $2, $3, $4, $5, $6, $7::text::numeric)
)
UPDATE ledger.balance SET frozen = $8, credit_limit = $9::text::numeric
 WHERE book = $1 AND account = $3
"""

WRITE_PERIOD_EVENT: Final = """
INSERT INTO ledger.period_event (
    book, sequence, kind, through, reason, proposed_by, approved_by, recorded_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
