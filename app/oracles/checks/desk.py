"""Questions about the desk and settlement: each deal, trade, seal and move is booked as its row says."""

from __future__ import annotations

from typing import Final

from app.oracles.model import Check

_DEALS: Final = Check(
    counted="SELECT count(*) FROM trading.deal",
    faults="""
WITH standing AS (
    SELECT t.book, t.correlation, count(*) AS lines
      FROM ledger.transfer t
     WHERE t.kind = 1 AND t.code = 'deal.booked'
       AND NOT EXISTS (SELECT 1 FROM ledger.transfer r
                        WHERE r.reverses = t.id AND r.book = t.book)
     GROUP BY t.book, t.correlation
)
SELECT 'trading.deal ' || d.id,
       format('it is %s, and %s lines of its booking stand', d.state, coalesce(s.lines, 0))
  FROM trading.deal d
  LEFT JOIN standing s ON s.book = d.book AND s.correlation = d.id
 WHERE coalesce(s.lines, 0)
       <> CASE WHEN d.state IN ('booked', 'settling', 'settled') THEN 2 ELSE 0 END
 ORDER BY 1
""",
)

# The position of each desk, told by its deals and trades, and by the account that holds it.
_POSITIONS: Final = Check(
    counted="SELECT count(*) FROM trading.fill_posting",
    faults="""
WITH deal AS (
    SELECT book, 'conversion:' || desk AS path, asset, units
      FROM trading.deal d
     CROSS JOIN LATERAL (SELECT CASE side WHEN 'desk_sells' THEN -1 ELSE 1 END AS sign) s
     CROSS JOIN LATERAL (VALUES (base, sign * base_units), (quote, -sign * quote_units))
           leg (asset, units)
     WHERE state IN ('booked', 'settling', 'settled')
    UNION ALL
    -- In a transfer the other side is a position of ours, and pays the fee.
    SELECT book, 'conversion:' || party, asset, units
      FROM trading.deal d
     CROSS JOIN LATERAL (SELECT CASE side WHEN 'desk_sells' THEN 1 ELSE -1 END AS sign) s
     CROSS JOIN LATERAL (VALUES (base, sign * base_units), (quote, -sign * quote_units),
                                (quote, -fee_units)) leg (asset, units)
     WHERE state IN ('booked', 'settling', 'settled') AND purpose = 'transfer'
), trade AS (
    SELECT p.book, 'conversion:' || p.desk AS path, leg.asset, leg.units
      FROM trading.fill_posting p
      JOIN venues.fill f USING (venue, account, symbol, trade_id)
     CROSS JOIN LATERAL (SELECT CASE f.side WHEN 'sell' THEN -1 ELSE 1 END AS sign) s
     CROSS JOIN LATERAL (VALUES
           (f.base, s.sign * f.base_units),
           (f.quote, -s.sign * f.quote_units),
           (f.fee_asset, CASE WHEN f.fee_asset <> f.quote AND p.fee_value IS NOT NULL
                              THEN -f.fee_units ELSE 0 END),
           (f.quote, CASE WHEN f.fee_asset <> f.quote THEN coalesce(p.fee_value, 0) ELSE 0 END)
           ) leg (asset, units)
), told AS (
    SELECT book, path, asset, sum(units) AS units
      FROM (SELECT * FROM deal UNION ALL SELECT * FROM trade) moved
     GROUP BY book, path, asset
), booked AS (
    SELECT t.book, a.path, a.asset,
           sum(CASE WHEN a.number = t.credit THEN t.amount ELSE -t.amount END) AS units
      FROM ledger.account a
      JOIN ledger.transfer t ON t.book = a.book AND a.number IN (t.debit, t.credit)
     WHERE starts_with(a.path, 'conversion:') AND t.kind IN (1, 3, 6)
       AND t.code IN ('deal.booked', 'deal.fee', 'deal.reversed', 'hedge.fill', 'hedge.fee')
     GROUP BY t.book, a.path, a.asset
)
SELECT format('ledger.balance of book %s, %s %s', coalesce(t.book, b.book),
              coalesce(t.path, b.path), coalesce(t.asset, b.asset)),
       format('deals and trades make a position of %s, and %s is booked', coalesce(t.units, 0),
              coalesce(b.units, 0))
  FROM told t FULL JOIN booked b ON (b.book, b.path, b.asset) = (t.book, t.path, t.asset)
 WHERE coalesce(t.units, 0) <> coalesce(b.units, 0)
 ORDER BY 1
""",
)

_TRADES: Final = Check(
    counted="SELECT count(*) FROM venues.fill",
    faults="""
SELECT format('venues.fill %s/%s %s %s', f.venue, f.account, f.symbol, f.trade_id),
       CASE WHEN p.fill_id IS NULL THEN 'it is marked as booked, and nothing is posted for it'
            ELSE 'it is posted, and not marked as booked' END
  FROM venues.fill f
  FULL JOIN trading.fill_posting p USING (venue, account, symbol, trade_id)
 WHERE (f.booked_at IS NULL) <> (p.fill_id IS NULL)
 ORDER BY 1
""",
)

_SEALED: Final = Check(
    counted="SELECT count(*) FROM settlement.obligation",
    faults="""
WITH line AS (
    SELECT m.data ->> 'pay' AS pay, m.data ->> 'receive' AS receive, t.amount
      FROM ledger.transfer t
      JOIN ledger.transfer_metadata m ON m.book = t.book AND m.sequence = t.sequence
     WHERE t.code IN ('settlement.netted', 'settlement.offset')
), discharge AS (
    SELECT id, sum(amount) AS amount
      FROM (SELECT pay AS id, amount FROM line UNION ALL SELECT receive, amount FROM line) named
     WHERE id <> ''
     GROUP BY id
)
SELECT 'settlement.obligation ' || o.id,
       format('it is %s: %s of its %s %s discharged by seals', o.state, coalesce(d.amount, 0),
              o.amount, o.asset)
  FROM settlement.obligation o LEFT JOIN discharge d ON d.id = o.id::text
 WHERE coalesce(d.amount, 0)
       <> CASE WHEN o.state IN ('sealed', 'discharged') THEN o.amount ELSE 0 END
 ORDER BY 1
""",
)

_INSTRUCTIONS: Final = Check(
    counted="SELECT count(*) FROM settlement.instruction",
    faults="""
SELECT 'settlement.instruction ' || i.id, said.what
  FROM settlement.instruction i
  LEFT JOIN custody.payout p ON p.id = i.payout_id
  LEFT JOIN LATERAL (SELECT sum(applied) AS matched FROM settlement.receipt_match m
                      WHERE m.instruction_id = i.id AND m.undone_at IS NULL) r ON true
 CROSS JOIN LATERAL (VALUES
       (i.payout_id IS NOT NULL AND p.id IS NULL, 'its payout does not exist'),
       (p.id IS NOT NULL AND (p.amount > i.amount OR p.asset <> i.asset),
        format('it pays %s %s, and its payout %s pays %s %s', i.amount, i.asset, p.id, p.amount,
               p.asset)),
       (i.applied > i.amount, format('%s is applied to its %s', i.applied, i.amount)),
       (i.state = 'final' AND i.applied <> i.amount AND i.direction = 'receive',
        format('it is final, and %s of its %s came', i.applied, i.amount))
       ) said (wrong, what)
 WHERE said.wrong
 ORDER BY 1
""",
)

_MOVES: Final = Check(
    counted="SELECT count(*) FROM books.book_move",
    faults="""
SELECT 'books.book_move ' || m.id,
       format('it is %s: %s lines arrived and %s are settled, of %s', m.state, l.arrived,
              l.settled, l.legs)
  FROM books.book_move m
 CROSS JOIN LATERAL (SELECT
       (m.claim_from <> '')::int + (m.funds_from <> '')::int AS legs,
       (SELECT count(*) FROM ledger.transfer t
         WHERE t.book = m.to_book AND t.correlation = m.id AND t.kind = 1
           AND t.code LIKE 'between-books.%.arrived') AS arrived,
       (SELECT count(*) FROM ledger.transfer t
         WHERE t.book = m.from_book AND t.correlation = m.id AND t.kind = 3
           AND t.code LIKE 'between-books.%.settled') AS settled) l
 WHERE l.arrived <> CASE WHEN m.state IN ('arrived', 'settled') THEN l.legs ELSE 0 END
    OR l.settled <> CASE WHEN m.state = 'settled' THEN l.legs ELSE 0 END
 ORDER BY 1
""",
)

AGREE: Final = (_DEALS, _POSITIONS, _TRADES, _SEALED, _INSTRUCTIONS, _MOVES)
