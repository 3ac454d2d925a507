"""Questions about idempotency: one row, and one effect, for each key that somebody may send twice."""

from __future__ import annotations

from typing import Final

from app.oracles.model import Check
from ledger.points import fill

_KEYS: Final = (
    ("ledger.transfer", "book, id", "true"),
    ("ledger.transfer", "book, pending_id", "pending_id IS NOT NULL"),
    ("ledger.transfer", "book, reverses", "reverses IS NOT NULL"),
    ("ledger.refusal", "book, id", "true"),
    ("kernel.history", "entity_type, entity_id, version", "true"),
    ("kernel.outbox", "id", "true"),
    ("kernel.job", "name, scheduled_for", "true"),
    ("books.book_move", "from_book, reference", "true"),
    ("books.manual_journal", "book, reference", "true"),
    ("custody.payout", "book, claim, client_ref", "true"),
    ("custody.payout", "book, party, client_ref", "party IS NOT NULL"),
    ("custody.payout_attempt", "payout_id, number", "true"),
    ("custody.payout_attempt", "chain, tx_hash", "tx_hash IS NOT NULL"),
    ("custody.payout_nonce", "chain, sender, nonce", "true"),
    ("custody.payout_nonce", "payout_id", "state <> 'released'"),
    ("custody.spend_attempt", "chain, tx_id", "raw IS NOT NULL"),
    ("custody.spend_payout", "payout_id", "live"),
    ("custody.coin_lock", "chain, tx_id, index", "true"),
    ("custody.deposit", "chain, tx_hash, position", "true"),
    ("custody.receipt", "chain, tx_hash, position", "true"),
    ("custody.payment_file", "message_id", "true"),
    ("custody.payment_line", "end_to_end", "state <> 'discarded'"),
    ("custody.payment_line", "payout_id", "state <> 'discarded'"),
    ("custody.payment_line", "booked_entry", "booked_entry IS NOT NULL"),
    ("custody.bank_file", "sha256", "true"),
    ("custody.bank_entry", "account, key", "true"),
    ("custody.bank_receipt", "entry_id, line", "true"),
    ("custody.venue_deposit", "payout_id", "true"),
    ("custody.venue_withdrawal", "book, venue, account, client_ref", "true"),
    ("custody.venue_withdrawal", "arrival_id", "arrival_id IS NOT NULL"),
    ("venues.venue_order", "venue, account, client_order_id", "true"),
    (
        "venues.venue_order",
        "venue, account, symbol, venue_order_id",
        "venue_order_id IS NOT NULL",
    ),
    (
        "venues.venue_order",
        "venue, account, intent",
        "state NOT IN ('not_placed', 'refused')",
    ),
    ("venues.fill", "venue, account, symbol, trade_id", "true"),
    ("trading.fill_posting", "venue, account, symbol, trade_id", "true"),
    ("trading.fill_posting", "fill_id", "true"),
    ("trading.hand_fill", "venue, account, symbol, trade_id", "true"),
    ("trading.deal", "book, client_ref", "true"),
    ("trading.deal", "quote_id", "quote_id IS NOT NULL"),
    ("trading.quote_acceptance", "book, accept_ref", "true"),
    ("trading.quote_acceptance", "quote_id", "verdict = 'won'"),
    ("settlement.obligation", "deal_id, leg", "true"),
    ("settlement.run", 'book, value_date, "window", party, netting_set', "true"),
    ("settlement.instruction", "payout_id", "payout_id IS NOT NULL"),
    ("settlement.instruction", "hold_id", "hold_id IS NOT NULL"),
    ("settlement.receipt_match", "receipt_id, instruction_id", "undone_at IS NULL"),
    ("settlement.payment_return", "item_id", "true"),
)
"""Table, key, and for which rows it is one."""


def _one_row(table: str, key: str, where: str) -> Check:
    parts = {"table": table, "key": key, "where": where}
    return Check(
        counted=fill("SELECT count(*) FROM <table> WHERE <where>", **parts),
        faults=fill(
            """
SELECT format('<table> (<key>) = (%s)', concat_ws(', ', <key>)),
       format('%s rows have this key', count(*))
  FROM <table> WHERE <where> GROUP BY <key> HAVING count(*) > 1 ORDER BY 1
""",
            **parts,
        ),
    )


_DECIDED_ONCE: Final = Check(
    counted="SELECT count(*) FROM ledger.refusal",
    faults="""
SELECT format('ledger.refusal of book %s, %s', r.book, r.id),
       format('the id was refused at %s and posted at %s', r.sequence, t.sequence)
  FROM ledger.refusal r JOIN ledger.transfer t ON t.id = r.id AND t.book = r.book
 ORDER BY r.book, r.sequence
""",
)

ONE_EFFECT: Final = (*(_one_row(*key) for key in _KEYS), _DECIDED_ONCE)
