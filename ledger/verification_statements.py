"""The SQL of verification. Each statement reads a bounded range of keys by an index.

``$1`` is the book; the other numbers are ranges or keys. Statements of a chunk are run by COPY, whose
text is the journal's own (`ledger.records`); their parameters are integers put into the text.
"""

from __future__ import annotations

from typing import Final

from ledger import tables


def filled(statement: str, *numbers: int) -> str:
    """Return a statement with integers in place of its parameters: COPY takes none."""
    for place in range(len(numbers), 0, -1):
        statement = statement.replace(f"${place}", str(int(numbers[place - 1])))
    return statement


_TRANSFER: Final = ", ".join(tables.transfer.c.keys())
_OTHER: Final = ", ".join(f"o.{name}" for name in tables.transfer.c.keys())  # noqa: SIM118  a collection of columns has no names of its own
_RANGE: Final = "WHERE book = $1 AND sequence BETWEEN $2 AND $3"

TRANSFERS: Final = "SELECT <columns> FROM ledger.transfer <range> ORDER BY sequence".replace(
    "<columns>", _TRANSFER
).replace("<range>", _RANGE)

ENTRIES: Final = """
SELECT book, account, sequence, version,
       debits_pending, debits_posted, credits_pending, credits_posted
  FROM ledger.entry <range>
""".replace("<range>", _RANGE)

# What transfers of other kinds than the plain one refer to. Of a PENDING: how many holds it has.
LINKS: Final = """
SELECT t.sequence, h.found,
       EXISTS (SELECT FROM ledger.transfer x WHERE x.book = t.book
                  AND x.pending_id = t.pending_id AND x.sequence < t.sequence)
       OR EXISTS (SELECT FROM ledger.transfer x WHERE x.book = t.book
                     AND x.reverses = t.reverses AND x.sequence < t.sequence),
       <columns>
  FROM ledger.transfer t
  LEFT JOIN LATERAL (
      SELECT * FROM ledger.transfer
       WHERE book = t.book AND id = coalesce(t.pending_id, t.reverses) AND sequence < t.sequence
       LIMIT 1
  ) o ON true
  LEFT JOIN LATERAL (
      SELECT count(*) AS found FROM (
          SELECT FROM ledger.hold
           WHERE book = t.book AND id = CASE WHEN t.kind = 2 THEN t.id END LIMIT 2
      ) same
  ) h ON true
 WHERE t.book = $1 AND t.sequence BETWEEN $2 AND $3 AND t.kind <> 1
""".replace("<columns>", _OTHER)

EFFECTIVE: Final = """
SELECT e.account, e.effective_on, e.sequence, e.debits, e.credits
  FROM ledger.transfer t
  JOIN LATERAL (
      SELECT * FROM ledger.effective_entry
       WHERE book = t.book AND account IN (t.debit, t.credit) AND sequence = t.sequence LIMIT 4
  ) e ON true
 WHERE t.book = $1 AND t.sequence BETWEEN $2 AND $3 AND t.effective_at IS NOT NULL
"""

METADATA: Final = """
SELECT sequence, data::text AS data FROM ledger.transfer_metadata
 WHERE book = $1 AND sequence BETWEEN $2 AND $3
"""

# An account's limit is that of its last event up to this one that set it. Behind the line's fields:
# the account's metadata, and the time at which the account's row says that it was opened.
EVENTS: Final = """
SELECT 'account', e.book, e.sequence, e.account, e.kind, a.path, a.asset, a.side, a.owner,
       concat(CASE WHEN a.debits_must_not_exceed_credits THEN 'd' END,
              CASE WHEN a.credits_must_not_exceed_debits THEN 'c' END),
       coalesce(e.credit_limit, (
           SELECT l.credit_limit FROM ledger.account_event l
            WHERE l.book = e.book AND l.account = e.account AND l.sequence < e.sequence
              AND l.credit_limit IS NOT NULL
            ORDER BY l.sequence DESC LIMIT 1)),
       a.purpose, a.effective_at, e.reason, e.recorded_at, a.metadata, a.opened_at
  FROM ledger.account_event e
  LEFT JOIN LATERAL (
      SELECT * FROM ledger.account WHERE book = e.book AND number = e.account LIMIT 2
  ) a ON true
 WHERE e.book = $1 AND e.sequence BETWEEN $2 AND $3 ORDER BY e.sequence
"""

REFUSALS: Final = """
SELECT 'refusal', book, sequence, id, outcome, recorded_at
  FROM ledger.refusal WHERE book = $1 AND sequence BETWEEN $2 AND $3 ORDER BY sequence
"""

# Ids that were spent by a refusal and by a transfer too.
REFUSED_TOO: Final = """
SELECT f.id, f.sequence FROM ledger.refusal f
  JOIN LATERAL (
      SELECT FROM ledger.transfer WHERE book = f.book AND id = f.id LIMIT 1
  ) t ON true
 WHERE f.book = $1 AND f.sequence BETWEEN $2 AND $3
"""

PERIODS: Final = """
SELECT 'period', book, sequence, kind, through, reason, proposed_by, approved_by, recorded_at
  FROM ledger.period_event WHERE book = $1 AND sequence BETWEEN $2 AND $3 ORDER BY sequence
"""

BLOCKS: Final = """
SELECT height, recorded_at, first_sequence, last_sequence, root FROM ledger.block
 WHERE book = $1 AND last_sequence BETWEEN $2 AND $3 ORDER BY height
"""

TILES: Final = """
SELECT level, position, hashes, root FROM ledger.tile
 WHERE book = $1 AND level = $2 AND position BETWEEN $3 AND $4
"""

HEAD: Final = """
SELECT h.*, h.block_time::text AS block_time_text,
       h.closed_through::text AS closed_through_text,
       h.imported_through::text AS imported_through_text,
       (SELECT recorded_at FROM ledger.block b WHERE b.book = h.book ORDER BY height LIMIT 1)
       AS first_block_at
  FROM ledger.head h WHERE h.book = $1
"""

# One statement, so one instant: rows of keys that no book's head has come to.
BEYOND: Final = """
WITH newest AS (SELECT sequence AS at, height, account_count FROM ledger.head WHERE book = $1)
SELECT 'transfer', 'sequence ' || sequence FROM ledger.transfer, newest
 WHERE book = $1 AND (sequence > newest.at OR sequence < 1)
UNION ALL
SELECT 'transfer_metadata', 'sequence ' || sequence FROM ledger.transfer_metadata, newest
 WHERE book = $1 AND (sequence > newest.at OR sequence < 1)
UNION ALL
SELECT 'refusal', 'sequence ' || sequence FROM ledger.refusal, newest
 WHERE book = $1 AND (sequence > newest.at OR sequence < 1)
UNION ALL
SELECT 'account_event', 'sequence ' || sequence FROM ledger.account_event, newest
 WHERE book = $1 AND (sequence > newest.at OR sequence < 1)
UNION ALL
SELECT 'period_event', 'sequence ' || sequence FROM ledger.period_event, newest
 WHERE book = $1 AND (sequence > newest.at OR sequence < 1)
UNION ALL
SELECT 'entry', 'account ' || account || ', sequence ' || sequence FROM ledger.entry, newest
 WHERE book = $1 AND (sequence > newest.at OR sequence < 1)
UNION ALL
SELECT 'block', 'height ' || block.height FROM ledger.block, newest
 WHERE book = $1 AND (block.height > newest.height OR block.height < 1)
UNION ALL
SELECT 'block', 'height ' || block.height FROM ledger.block, newest
 WHERE book = $1 AND (last_sequence > newest.at OR last_sequence < 1)
UNION ALL
SELECT 'tile', 'level ' || level || ' index ' || position FROM ledger.tile, newest
 WHERE book = $1 AND level < 7
   AND (position >= newest.at >> (8 * (level + 1)) OR position < 0)
UNION ALL
SELECT 'tile', 'level ' || level || ' index ' || position FROM ledger.tile
 WHERE book = $1 AND (level > 6 OR level < 0)
UNION ALL
SELECT 'account', path || ' ' || asset FROM ledger.account, newest
 WHERE book = $1 AND (number > newest.account_count OR number < 1)
UNION ALL
SELECT 'balance', 'account ' || account FROM ledger.balance, newest
 WHERE book = $1 AND (account > newest.account_count OR account < 1)
LIMIT 1000
"""
# What the balance rows of a range of accounts are, as COPY prints them.
BALANCES: Final = """
SELECT book, account, asset, debits_pending, debits_posted, credits_pending, credits_posted,
       version, sequence, frozen, closed, debits_must_not_exceed_credits,
       credits_must_not_exceed_debits, credit_limit
  FROM ledger.balance WHERE book = $1 AND account BETWEEN $2 AND $3 ORDER BY account
"""

# One account at one instant: its balance, the entry that it names as its last, its last events, and
# whether a closing hold was made or resolved since the watermark $3.
BALANCE: Final = """
SELECT b.asset, b.debits_pending::text, b.debits_posted::text, b.credits_pending::text,
       b.credits_posted::text, b.version, b.sequence, b.frozen, b.closed,
       b.debits_must_not_exceed_credits, b.credits_must_not_exceed_debits,
       b.credit_limit::text, e.version AS entry_version,
       e.debits_pending::text AS entry_debits_pending,
       e.debits_posted::text AS entry_debits_posted,
       e.credits_pending::text AS entry_credits_pending,
       e.credits_posted::text AS entry_credits_posted,
       (SELECT kind FROM ledger.account_event v WHERE v.book = b.book AND v.account = b.account
           AND v.kind IN ('frozen', 'unfrozen') ORDER BY v.sequence DESC LIMIT 1) AS freezing,
       (SELECT v.credit_limit::text FROM ledger.account_event v
         WHERE v.book = b.book AND v.account = b.account AND v.credit_limit IS NOT NULL
         ORDER BY v.sequence DESC LIMIT 1) AS limit_set,
       EXISTS (
           SELECT FROM ledger.entry n
             JOIN ledger.transfer t ON t.book = n.book AND t.sequence = n.sequence
             LEFT JOIN ledger.transfer p ON p.book = t.book AND p.id = t.pending_id
            WHERE n.book = b.book AND n.account = b.account AND n.sequence > $3
              AND (coalesce(p.flags, 0) | t.flags) & 12 <> 0) AS closing_moved,
       EXISTS (SELECT FROM ledger.entry n
                WHERE n.book = b.book AND n.account = b.account AND n.sequence > b.sequence)
       AS entries_beyond
  FROM ledger.balance b
  LEFT JOIN ledger.entry e
    ON e.book = b.book AND e.account = b.account AND e.sequence = b.sequence
 WHERE b.book = $1 AND b.account = $2
"""

# A page of holds that are not what their transfer and its resolution make them, and the page's last
# id. A hold is written in the transaction of its transfers, so one statement sees both or neither.
HOLDS: Final = """
WITH page AS MATERIALIZED (
    SELECT * FROM ledger.hold WHERE book = $1 AND id > $2 ORDER BY id LIMIT $3
)
SELECT (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last_id,
       (SELECT count(*) FROM page WHERE sequence <= $4) AS counted,
       h.id, h.state, h.remaining::text AS remaining, h.resolved_sequence,
       t.sequence, r.sequence AS resolver, r.kind AS resolver_kind
  FROM (SELECT 1 AS one) AS page_row
  LEFT JOIN (
      page h
      LEFT JOIN LATERAL (
          SELECT * FROM ledger.transfer WHERE book = h.book AND id = h.id AND kind = 2 LIMIT 1
      ) t ON true
      LEFT JOIN LATERAL (
          SELECT * FROM ledger.transfer WHERE book = h.book AND pending_id = h.id
           ORDER BY sequence LIMIT 1
      ) r ON true
  ) ON (h.sequence, h.debit, h.credit, h.amount, h.flags, h.purpose, h.correlation, h.expires_at,
        h.state, h.remaining, h.resolved_sequence)
     IS DISTINCT FROM
       (t.sequence, t.debit, t.credit, t.amount, t.flags, t.purpose, t.correlation,
        t.recorded_at + t.timeout_us * interval '1 microsecond',
        CASE r.kind WHEN 3 THEN 'posted' WHEN 4 THEN 'voided' WHEN 5 THEN 'expired' ELSE 'open' END,
        CASE WHEN r.kind IS NULL THEN t.amount ELSE 0 END, r.sequence)
 WHERE EXISTS (SELECT FROM page)
"""

# One statement, so one instant: what the open holds of a range of accounts come to, where that is not
# what is pending.
HOLD_TOTALS: Final = """
WITH held AS (
    SELECT account, sum(debits) AS debits, sum(credits) AS credits FROM (
        SELECT debit AS account, remaining AS debits, 0 AS credits FROM ledger.hold
         WHERE book = $1 AND state = 'open' AND debit BETWEEN $2 AND $3
        UNION ALL
        SELECT credit, 0, remaining FROM ledger.hold
         WHERE book = $1 AND state = 'open' AND credit BETWEEN $2 AND $3
    ) sides GROUP BY account
)
SELECT b.account, coalesce(held.debits, 0)::text AS held_debits,
       coalesce(held.credits, 0)::text AS held_credits,
       b.debits_pending::text, b.credits_pending::text
  FROM ledger.balance b
  LEFT JOIN held ON held.account = b.account
 WHERE b.book = $1 AND b.account BETWEEN $2 AND $3
   AND (b.debits_pending <> coalesce(held.debits, 0)
        OR b.credits_pending <> coalesce(held.credits, 0))
 LIMIT 1000
"""

# A page of effective entries that belong to no transfer, and the page's last key.
SURPLUS_EFFECTIVE: Final = """
WITH page AS MATERIALIZED (
    SELECT account, sequence FROM ledger.effective_entry
     WHERE book = $1 AND (account, sequence) > ($2, $3) ORDER BY account, sequence LIMIT $4
)
SELECT l.account AS last_account, l.sequence AS last_sequence, e.account, e.sequence
  FROM (SELECT * FROM page ORDER BY account DESC, sequence DESC LIMIT 1) l
  LEFT JOIN page e ON NOT EXISTS (
      SELECT FROM ledger.transfer t
       WHERE t.book = $1 AND t.sequence = e.sequence AND e.account IN (t.debit, t.credit)
         AND t.effective_at IS NOT NULL)
"""

SUMMARIZE: Final = "SELECT ledger.summarize_entries()"
