"""The SQL of the posting path, read and written in a fixed number of statements.

Rows of transfers and entries cross as text, as COPY takes them: PostgreSQL reads a row's text several
times faster than asyncpg encodes its values one by one. Large batches are really COPYed; small ones
bring the same text as a parameter of their one statement, which saves two exchanges.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from ledger.points import account_by_number, fill

# $2: the caller's time or null; $3: due holds wanted; $4: ids asked for; $5 and $6: accounts named.
# One row, with nulls where there is no such book: see the function.
LOCK_AND_READ: Final = """
SELECT * FROM ledger.lock_and_read($1::smallint, $2, $3, $4, $5, $6)
"""

_TRANSFER: Final = """
t.sequence, t.id, t.kind, t.flags, t.debit, t.credit, t.amount::text AS amount, t.code,
t.pending_id, t.reverses, t.purpose, t.timeout_us, t.effective_at, t.reference, t.correlation,
t.metadata_hash, t.recorded_at"""

_HOLD: Final = """
h.id AS hold_id, h.sequence AS hold_sequence, h.debit AS hold_debit, h.credit AS hold_credit,
h.amount::text AS held, h.state AS hold_state, h.flags AS hold_flags, h.purpose AS hold_purpose,
h.correlation AS hold_correlation, h.expires_at, h.resolved_sequence"""

# LATERAL … LIMIT 1 and `book + 0` make each look-up one by key, whatever the planner believes about the
# tables (revision 0011 says why): a plan that was cached while they were small would otherwise scan
# them when they are large.

# The holds of pending transfers, and those that posts, voids and expiries among the found resolved.
READ_TRANSFERS: Final = """
SELECT <transfer>, <hold>, r.id AS reversed_by,
       f.id AS refused_id, f.sequence AS refused_sequence, f.outcome AS refused_outcome,
       f.recorded_at AS refused_at
  FROM unnest($2::text::uuid[]) AS asked (id)
  LEFT JOIN LATERAL (
      SELECT * FROM ledger.transfer WHERE id = asked.id AND book + 0 = $1 LIMIT 1
  ) t ON true
  LEFT JOIN LATERAL (
      SELECT * FROM ledger.refusal WHERE id = asked.id AND book + 0 = $1 LIMIT 1
  ) f ON true
  LEFT JOIN LATERAL (
      SELECT * FROM ledger.hold WHERE book = t.book AND id = coalesce(t.pending_id, t.id) LIMIT 1
  ) h ON true
  LEFT JOIN LATERAL (
      SELECT id FROM ledger.transfer WHERE reverses = t.id AND book + 0 = t.book LIMIT 1
  ) r ON true
 WHERE t.id IS NOT NULL OR f.id IS NOT NULL
""".replace("<transfer>", _TRANSFER).replace("<hold>", _HOLD)

# As in `ledger.lock_and_read`.
_ACCOUNT: Final = r"""concat_ws(
    E'\t', a.number, a.path, a.asset, coalesce(a.effective_at, a.opened_at),
    b.debits_must_not_exceed_credits, b.credits_must_not_exceed_debits, b.credit_limit,
    b.frozen, b.closed, b.version, b.sequence,
    b.debits_pending, b.debits_posted, b.credits_pending, b.credits_posted)"""

READ_ACCOUNTS: Final = """
SELECT <account>
  FROM unnest($2::text::text[], $3::text::text[]) AS asked (path, asset)
  JOIN LATERAL (
      SELECT * FROM ledger.account
       WHERE path = asked.path AND asset = asked.asset AND book + 0 = $1 LIMIT 1
  ) a ON true
  JOIN LATERAL (
      SELECT * FROM ledger.balance WHERE book = $1 AND account = a.number LIMIT 1
  ) b ON true
""".replace("<account>", _ACCOUNT)

READ_ACCOUNTS_BY_NUMBER: Final = fill(
    """
SELECT <account>
  FROM unnest($2::text::bigint[]) AS asked (number)
  JOIN LATERAL (<found>) a ON true
  JOIN LATERAL (
      SELECT * FROM ledger.balance WHERE book = $1 AND account = a.number LIMIT 1
  ) b ON true
""",
    account=_ACCOUNT,
    found=account_by_number("asked.number"),
)

# The parts of a block's one statement. Only those that have rows are sent: starting a part costs more
# than a row of it. <1>, <2> … are a part's own parameters, numbered when it is put into a statement.
_TRANSFERS: Final = r"""transfers AS (
    INSERT INTO ledger.transfer (
        book, sequence, id, kind, flags, debit, credit, amount, code, pending_id, reverses,
        purpose, timeout_us, effective_at, reference, correlation, metadata_hash, recorded_at)
    SELECT f[1]::smallint, f[2]::bigint, f[3]::uuid, f[4]::smallint, f[5]::smallint, f[6]::bigint,
           f[7]::bigint, f[8]::numeric, f[9], f[10]::uuid, f[11]::uuid, f[12], f[13]::bigint,
           f[14]::timestamptz, f[15], f[16]::uuid, f[17], f[18]::timestamptz
      FROM (
          SELECT string_to_array(line, E'\t', '\N') AS f
            FROM string_to_table(<1>, E'\n') AS line OFFSET 0
      ) AS row
)"""

_ENTRIES: Final = r"""entries AS (
    INSERT INTO ledger.entry (
        book, account, sequence, version,
        debits_pending, debits_posted, credits_pending, credits_posted)
    SELECT f[1]::smallint, f[2]::bigint, f[3]::bigint, f[4]::bigint,
           f[5]::numeric, f[6]::numeric, f[7]::numeric, f[8]::numeric
      FROM (
          SELECT string_to_array(line, E'\t') AS f
            FROM string_to_table(<1>, E'\n') AS line OFFSET 0
      ) AS row
)"""

_POSTED: Final = """balances AS (
    UPDATE ledger.balance AS b
       SET debits_posted = n.d, credits_posted = n.c, version = n.version, sequence = n.sequence
      FROM unnest(
          <1>::text::bigint[], <2>::text::bigint[], <3>::text::bigint[],
          <4>::text::numeric[], <5>::text::numeric[]
      ) AS n (account, sequence, version, d, c)
      JOIN LATERAL (
          SELECT ctid FROM ledger.balance WHERE book = $1 AND account = n.account LIMIT 1
      ) found ON true
     WHERE b.ctid = found.ctid
)"""

_STANDINGS: Final = """balances AS (
    UPDATE ledger.balance AS b
       SET debits_posted = n.d, credits_posted = n.c, version = n.version, sequence = n.sequence,
           debits_pending = n.dp, credits_pending = n.cp, closed = n.closed
      FROM unnest(
          <1>::text::bigint[], <2>::text::bigint[], <3>::text::bigint[],
          <4>::text::numeric[], <5>::text::numeric[],
          <6>::text::numeric[], <7>::text::numeric[], <8>::text::boolean[]
      ) AS n (account, sequence, version, d, c, dp, cp, closed)
      JOIN LATERAL (
          SELECT ctid FROM ledger.balance WHERE book = $1 AND account = n.account LIMIT 1
      ) found ON true
     WHERE b.ctid = found.ctid
)"""

_HOLDS: Final = """holds AS (
    INSERT INTO ledger.hold (
        book, id, sequence, debit, credit, amount, remaining, state, flags, purpose,
        correlation, expires_at, resolved_sequence)
    SELECT $1, h.id, h.sequence, h.debit, h.credit, h.amount,
           CASE WHEN h.state = 'open' THEN h.amount ELSE 0 END, h.state, h.flags,
           h.purpose, h.correlation, h.expires_at, h.resolved
      FROM unnest(
          <1>::text::uuid[], <2>::text::bigint[], <3>::text::bigint[], <4>::text::bigint[],
          <5>::text::numeric[], <6>::text::text[], <7>::text::smallint[], <8>::text::text[],
          <9>::text::uuid[], <10>::text::timestamptz[], <11>::text::bigint[]
      ) AS h (id, sequence, debit, credit, amount, state, flags, purpose, correlation,
              expires_at, resolved)
)"""

_RESOLVED: Final = """resolved AS (
    UPDATE ledger.hold AS h
       SET state = n.state, remaining = 0, resolved_sequence = n.resolved
      FROM unnest(<1>::text::uuid[], <2>::text::text[], <3>::text::bigint[])
           AS n (id, state, resolved)
      JOIN LATERAL (
          SELECT ctid FROM ledger.hold WHERE book = $1 AND id = n.id LIMIT 1
      ) found ON true
     WHERE h.ctid = found.ctid
)"""

_REFUSALS: Final = r"""refusals AS (
    INSERT INTO ledger.refusal (book, sequence, id, outcome, recorded_at)
    SELECT f[1]::smallint, f[2]::bigint, f[3]::uuid, f[4], f[5]::timestamptz
      FROM (
          SELECT string_to_array(line, E'\t') AS f
            FROM string_to_table(<1>, E'\n') AS line OFFSET 0
      ) AS row
)"""

_METADATA: Final = """metadata AS (
    INSERT INTO ledger.transfer_metadata (book, sequence, data)
    SELECT $1, m.sequence, m.data::jsonb
      FROM unnest(<1>::text::bigint[], <2>::text::text[]) AS m (sequence, data)
)"""

_EFFECTIVE: Final = """effective AS (
    INSERT INTO ledger.effective_entry (book, account, effective_on, sequence, debits, credits)
    SELECT $1, e.account, e.effective_on, e.sequence, e.debits, e.credits
      FROM unnest(<1>::text::bigint[], <2>::text::date[], <3>::text::bigint[],
                  <4>::text::numeric[], <5>::text::numeric[])
           AS e (account, effective_on, sequence, debits, credits)
)"""

PARTS: Final = {
    "transfers": _TRANSFERS,
    "entries": _ENTRIES,
    "posted": _POSTED,
    "standings": _STANDINGS,
    "holds": _HOLDS,
    "resolved": _RESOLVED,
    "refusals": _REFUSALS,
    "metadata": _METADATA,
    "effective": _EFFECTIVE,
}

# The new head comes last, so that what it needs is checked first.
_WRITE: Final = """
WITH <parts>
block AS (
    INSERT INTO ledger.block (book, height, recorded_at, first_sequence, last_sequence, root)
    VALUES ($1, $2, $3, $4, $5, $6)
)
UPDATE ledger.head
   SET sequence = $5, height = $2, block_time = $3, account_count = $7, frontier = $8,
       imported_through = $9
 WHERE book = $1
"""

_OWN_PARAMETERS: Final = 9
_PLACE: Final = re.compile(r"<(\d+)>")


@cache
def write_statement(parts: tuple[str, ...]) -> str:
    """Return the statement that writes a block of these `PARTS`, their parameters in this order."""
    numbered = []
    before = _OWN_PARAMETERS
    for name in parts:
        numbered.append(_number(PARTS[name], before) + ",")
        before += len(set(_PLACE.findall(PARTS[name])))
    return _WRITE.replace("<parts>", "\n".join(numbered))


def _number(part: str, before: int) -> str:
    return _PLACE.sub(lambda place: f"${int(place[1]) + before}", part)


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

# As `ledger.lock_and_read` does, for those who look up without the lock.
KEYS_ONLY: Final = """
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)
"""

READ_SPECS: Final = """
SELECT a.number, a.path, a.asset, a.side, a.owner, a.debits_must_not_exceed_credits,
       a.credits_must_not_exceed_debits, a.purpose, a.metadata::text AS metadata, a.effective_at,
       opened.sequence, b.credit_limit::text AS credit_limit, b.frozen
  FROM unnest($2::text::text[], $3::text::text[]) AS asked (path, asset)
  JOIN LATERAL (
      SELECT * FROM ledger.account
       WHERE path = asked.path AND asset = asked.asset AND book + 0 = $1 LIMIT 1
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
