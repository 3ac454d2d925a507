"""Questions to the ledger: sums, flags, clients' money, what lies between books."""

from __future__ import annotations

from typing import Final

from app.oracles.model import Check

_BALANCES: Final = "SELECT count(*) FROM ledger.balance"

ZERO_SUMS: Final = Check(
    counted="SELECT count(*) FROM (SELECT DISTINCT book, asset FROM ledger.balance) sums",
    faults="""
SELECT format('ledger.balance of book %s, %s', book, asset),
       format('debits %s, credits %s; pending debits %s, pending credits %s',
              sum(debits_posted), sum(credits_posted), sum(debits_pending), sum(credits_pending))
  FROM ledger.balance
 GROUP BY book, asset
HAVING sum(debits_posted) <> sum(credits_posted) OR sum(debits_pending) <> sum(credits_pending)
 ORDER BY book, asset
""",
)

NO_FORBIDDEN_NEGATIVES: Final = Check(
    counted=_BALANCES,
    faults="""
SELECT format('ledger.balance of book %s, %s %s', b.book, coalesce(a.path, 'account ' || b.account),
              b.asset), said.what
  FROM ledger.balance b
  LEFT JOIN ledger.account a ON a.book = b.book AND a.number = b.account
 CROSS JOIN LATERAL (VALUES
       (a.number IS NULL, 'has no account'),
       (least(b.debits_pending, b.debits_posted, b.credits_pending, b.credits_posted) < 0,
        format('a column is below zero: %s %s %s %s', b.debits_pending, b.debits_posted,
               b.credits_pending, b.credits_posted)),
       (a.debits_must_not_exceed_credits
        AND b.debits_pending + b.debits_posted > b.credits_posted + b.credit_limit,
        format('debits %s exceed credits %s', b.debits_pending + b.debits_posted,
               b.credits_posted + b.credit_limit)),
       (a.credits_must_not_exceed_debits
        AND b.credits_pending + b.credits_posted > b.debits_posted + b.credit_limit,
        format('credits %s exceed debits %s', b.credits_pending + b.credits_posted,
               b.debits_posted + b.credit_limit)),
       (a.debits_must_not_exceed_credits IS DISTINCT FROM b.debits_must_not_exceed_credits
        OR a.credits_must_not_exceed_debits IS DISTINCT FROM b.credits_must_not_exceed_debits,
        'has other flags than its account')
       ) said (wrong, what)
 WHERE said.wrong
 ORDER BY b.book, b.account
""",
)

# What clients owe since a deposit of theirs vanished after its credit is theirs to bring back: the books
# name it, and it does not count as money that is missing.
CLIENT_MONEY: Final = Check(
    counted="""
SELECT count(*) FROM (SELECT DISTINCT book, asset FROM ledger.account
                       WHERE starts_with(path, 'client:')) covered
""",
    faults="""
SELECT format('ledger.balance of book %s, %s', book, asset),
       format('%s is held for clients and %s owed by them, %s is owed to them', held, reorg, owed)
  FROM (SELECT a.book, a.asset,
               coalesce(sum(b.debits_posted - b.credits_posted) FILTER (
                   WHERE (a.owner = 'client' OR starts_with(a.owner, 'client:'))
                     AND a.path ~ '^(custody|venue|bank|transit):'), 0) AS held,
               coalesce(sum(b.debits_posted - b.credits_posted) FILTER (
                   WHERE a.path ~ '^receivable:[^:]+:reorg$'), 0) AS reorg,
               coalesce(sum(b.credits_posted - b.debits_posted) FILTER (
                   WHERE starts_with(a.path, 'client:')), 0) AS owed
          FROM ledger.account a JOIN ledger.balance b ON b.book = a.book AND b.account = a.number
         GROUP BY a.book, a.asset) covered
 WHERE held + reorg < owed
 ORDER BY book, asset
""",
)

CLEARING_ZERO: Final = Check(
    at_rest=True,
    counted="SELECT count(*) FROM ledger.account WHERE starts_with(path, 'clearing:')",
    faults="""
SELECT format('ledger.balance of book %s, %s %s', a.book, a.path, a.asset),
       format('%s posted and %s pending lie between the books', b.debits_posted - b.credits_posted,
              b.debits_pending + b.credits_pending)
  FROM ledger.account a JOIN ledger.balance b ON b.book = a.book AND b.account = a.number
 WHERE starts_with(a.path, 'clearing:')
   AND (b.debits_posted <> b.credits_posted OR b.debits_pending + b.credits_pending <> 0)
 ORDER BY a.book, a.number
""",
)
