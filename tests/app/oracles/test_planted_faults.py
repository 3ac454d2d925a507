# ruff: noqa: S608  the names of tables come from the scenarios below
"""Each promise is broken once in every way that its questions know, and the row that broke it is named.

What keeps the fault out (triggers, constraints, unique indexes) is taken away first, as a superuser
could. All of it happens in one transaction that is rolled back.
"""

from __future__ import annotations

import re

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from app.oracles.catalogue import ORACLES
from app.oracles.run import ask
from tests.app.oracles.planting import Plant, copied, sow

BY_NAME = {oracle.name: oracle for oracle in ORACLES}


def paid(condition: str) -> str:
    return f"(SELECT id FROM custody.payout WHERE {condition} ORDER BY id LIMIT 1)"


EVM = paid("state = 'confirmed' AND rail = 'evm'")
BANK = paid("state = 'confirmed' AND rail = 'bank'")
UUID = "'00000000-0000-8000-8000-000000000001'"
TRANSFER = "custody.payout [0-9a-f-]+"

PLANTS = [
    Plant(
        "a balance that nobody else lost",
        "zero-sums",
        ("UPDATE ledger.balance SET credits_posted = credits_posted + 7 WHERE account = 1",),
        r"ledger.balance of book 1, \w+",
        r"debits \d+, credits \d+",
    ),
    Plant(
        "a client that has spent more than it has",
        "no-forbidden-negatives",
        (
            (
                "UPDATE ledger.balance SET debits_posted = credits_posted + 5"
                " WHERE (book, account) IN (SELECT book, number FROM ledger.account"
                " WHERE path = 'client:acme' AND asset = 'ETH')"
            ),
        ),
        "ledger.balance of book 1, client:acme ETH",
        "debits [0-9]+ exceed credits [0-9]+",
    ),
    Plant(
        "a column below zero",
        "no-forbidden-negatives",
        (
            (
                "UPDATE ledger.balance SET debits_pending = -1 WHERE (book, account) IN"
                " (SELECT book, number FROM ledger.account WHERE path = 'custody:house-hot'"
                " AND asset = 'ETH')"
            ),
        ),
        "ledger.balance of book 1, custody:house-hot ETH",
        "a column is below zero: -1",
    ),
    Plant(
        "flags that were taken from a balance",
        "no-forbidden-negatives",
        (
            (
                "UPDATE ledger.balance SET debits_must_not_exceed_credits = false"
                " WHERE debits_must_not_exceed_credits"
            ),
        ),
        "ledger.balance of book 1, client:acme ETH",
        "has other flags than its account",
    ),
    Plant(
        "a reference that was paid for twice",
        "one-effect",
        (copied("custody.payout", f"id = {UUID}", f"id = {EVM}"),),
        r"custody.payout \(book, claim, client_ref\) = \(1, payable:acme:netted, .*\)",
        "2 rows have this key",
    ),
    Plant(
        "an id that was posted twice",
        "one-effect",
        (copied("ledger.transfer", "sequence = 999999"),),
        r"ledger.transfer \(book, id\) = \(1, .*\)",
        "2 rows have this key",
    ),
    Plant(
        "an id that was refused and posted",
        "one-effect",
        (
            (
                "INSERT INTO ledger.refusal SELECT book, 999999, id, 'exceeds_credits', recorded_at"
                " FROM ledger.transfer WHERE sequence ="
                " (SELECT min(sequence) FROM ledger.transfer)"
            ),
        ),
        "ledger.refusal of book 1, .*",
        r"the id was refused at 999999 and posted at \d+",
    ),
    Plant(
        "a slot that has two jobs",
        "one-effect",
        (
            *(
                "INSERT INTO kernel.job (id, name, scheduled_for, state, run_after, payload)"
                f" VALUES ('00000000-0000-8000-8000-00000000000{n}', 'daily', '2026-01-05',"
                " 'done', '2026-01-05', '{}')"
                for n in (1, 2)
            ),
        ),
        r"kernel.job \(name, scheduled_for\) = \(daily, 2026-01-05.*\)",
        "2 rows have this key",
    ),
    Plant(
        "an entry of a statement that was read twice",
        "one-effect",
        (copied("custody.bank_entry", f"id = {UUID}"),),
        r"custody.bank_entry \(account, key\) = \(house-eur, .*\)",
        "2 rows have this key",
    ),
    Plant(
        "a deal that was captured twice",
        "one-effect",
        (copied("trading.deal", f"id = {UUID}", "client_ref = 'birch'"),),
        r"trading.deal \(book, client_ref\) = \(1, birch\)",
        "2 rows have this key",
    ),
    Plant(
        "a leg that is owed twice",
        "one-effect",
        (copied("settlement.obligation", f"id = {UUID}"),),
        r"settlement.obligation \(deal_id, leg\) = .*",
        "2 rows have this key",
    ),
    Plant(
        "two transactions of one payout in blocks",
        "paid-once",
        (
            copied(
                "custody.payout_attempt",
                f"id = {UUID}; number = 99; tx_hash = 'again'",
                f"payout_id = {EVM}",
            ),
        ),
        TRANSFER,
        "2 of its transactions are in blocks: 0x[0-9a-f]+, again",
    ),
    Plant(
        "a second nonce for one payout",
        "paid-once",
        (
            copied(
                "custody.payout_attempt",
                f"id = {UUID}; number = 99; nonce = 77; tx_hash = 'again'; state = 'broadcast'",
                f"payout_id = {EVM}",
            ),
        ),
        TRANSFER,
        "signed transactions of it have the nonces .*77",
    ),
    Plant(
        "a line of a file that a bank booked twice",
        "paid-once",
        (copied("custody.payment_line", f"number = 9; booked_entry = {UUID}"),),
        TRANSFER,
        "a bank has booked 2 lines of it",
    ),
    Plant(
        "two transactions of one spend in blocks",
        "paid-once",
        (copied("custody.spend_attempt", f"id = {UUID}; number = 99; tx_id = 'again'"),),
        "custody.spend [0-9a-f-]+",
        "2 of its transactions are in blocks: [0-9a-f]+, again",
        house="coins",
    ),
    Plant(
        "a transaction of a spend that could be mined beside the others",
        "paid-once",
        (
            copied(
                "custody.spend_attempt",
                f"id = {UUID}; number = 99; tx_id = 'again'; state = 'broadcast'; coins = '[]'",
            ),
        ),
        f"custody.spend_attempt {UUID[1:-1]}",
        r"it does not spend [0-9a-f]+:\d+, the coin that all of spend [0-9a-f-]+ must spend",
        house="coins",
    ),
    Plant(
        "a payout that two spends have carried",
        "paid-once",
        (
            copied("custody.spend", f"id = {UUID}"),
            copied("custody.spend_payout", f"spend_id = {UUID}"),
        ),
        TRANSFER,
        "2 spends that carry it are in blocks: .*",
        house="coins",
    ),
    Plant(
        "coins that left twice by the journal",
        "paid-once",
        (
            copied(
                "ledger.transfer",
                f"id = {UUID}; sequence = 999999; pending_id = {UUID}",
                "code = 'payout.mined'",
            ),
        ),
        TRANSFER,
        r"of its \d+ ETH, \d+ left by 2 postings",
    ),
    Plant(
        "a deposit that was credited twice",
        "deposited-once",
        (
            copied(
                "ledger.transfer",
                f"id = {UUID}; sequence = 999999; pending_id = {UUID}",
                "code = 'deposit.credited'",
            ),
        ),
        "custody.deposit [0-9a-f-]+",
        r"it is credited: \d+ credited to client:acme, of \d+",
    ),
    Plant(
        "a deposit that is said to be credited, and is not",
        "deposited-once",
        (
            (
                "UPDATE custody.deposit SET received = 1 WHERE id ="
                " (SELECT min(id::text)::uuid FROM custody.deposit)"
            ),
        ),
        "custody.deposit [0-9a-f-]+",
        r"it is credited: \d+ booked into custody:client-pool, of 1",
    ),
    Plant(
        "a deposit of a block that is gone",
        "deposited-once",
        (
            (
                "UPDATE chain.block SET state = 'orphaned' WHERE hash IN"
                " (SELECT block_hash FROM custody.deposit)"
            ),
        ),
        "custody.deposit [0-9a-f-]+",
        r"it is credited, and its block 0x\w+ at height \d+ of evm is orphaned",
    ),
    Plant(
        "an arrival that pays a client and an obligation",
        "deposited-once",
        (
            (
                "UPDATE custody.receipt SET (tx_hash, position) = (SELECT tx_hash, position"
                " FROM custody.deposit LIMIT 1)"
            ),
        ),
        "custody.receipt [0-9a-f-]+",
        "the same arrival is deposit [0-9a-f-]+",
    ),
    Plant(
        "an event that nobody was told",
        "outbox",
        (
            (
                "DELETE FROM kernel.outbox WHERE aggregatetype = 'payout' AND position ="
                " (SELECT max(position) FROM kernel.outbox WHERE aggregatetype = 'payout')"
            ),
        ),
        "kernel.history payout [0-9a-f-]+",
        r"its event \d+, Payout\w+, is not in the outbox",
    ),
    Plant(
        "an event that never happened",
        "outbox",
        (
            (
                "INSERT INTO kernel.outbox (id, aggregatetype, aggregateid, type, payload, recorded_at)"
                f" VALUES ({UUID}, 'payout', 'x', 'PayoutConfirmed', '{{}}', '2026-01-05')"
            ),
        ),
        "kernel.history payout x",
        r"the outbox tells of PayoutConfirmed at \d+, and it never happened",
    ),
    Plant(
        "an event that is missing in a life",
        "outbox",
        (
            "DELETE FROM kernel.history WHERE entity_type = 'payout' AND version = 2",
            (
                "DELETE FROM kernel.outbox WHERE aggregatetype = 'payout' AND position IN"
                " (SELECT position FROM (SELECT position, row_number() OVER"
                " (PARTITION BY aggregateid ORDER BY position) AS n FROM kernel.outbox"
                " WHERE aggregatetype = 'payout') o WHERE n = 2)"
            ),
        ),
        "kernel.history payout [0-9a-f-]+",
        r"\d+ events, the last is number \d+",
    ),
    Plant(
        "an event that was told before an earlier one",
        "outbox",
        (
            (
                "UPDATE kernel.outbox SET delivered_at = NULL WHERE position ="
                " (SELECT min(position) FROM kernel.outbox WHERE aggregatetype = 'payout')"
            ),
        ),
        r"kernel.outbox \d+",
        r"Payout\w+ of payout [0-9a-f-]+ is delivered, and what came before it is not",
    ),
    Plant(
        "a hold that nobody stands behind",
        "holds-owned",
        ("UPDATE custody.payout SET state = 'cancelled' WHERE state = 'pending_approval'",),
        "ledger.hold of book 1, [0-9a-f-]+",
        r"\d+ held for payout, and no row that is under way is behind it \([0-9a-f-]+\)",
    ),
    Plant(
        "a claim that is approved and not held",
        "holds-owned",
        ("UPDATE ledger.hold SET state = 'voided' WHERE state = 'open'",),
        TRANSFER,
        r"it is pending_approval: 0 in 0 holds for payout are open, and \d+ in 1 should be",
    ),
    Plant(
        "a state that no event tells",
        "states-and-postings",
        ("UPDATE custody.payout SET state = 'rejected' WHERE state = 'pending_approval'",),
        TRANSFER,
        "it is rejected, and the last event says pending_approval",
    ),
    Plant(
        "a payout that is confirmed without a posting",
        "states-and-postings",
        ("DELETE FROM ledger.transfer WHERE code = 'payout.confirmed'",),
        TRANSFER,
        r"it is confirmed: \d+ in flight and \d+ in transit by the journal, 0 and 0 by its state",
    ),
    Plant(
        "a payout that is confirmed without a transaction",
        "states-and-postings",
        ("UPDATE custody.payout SET tx_hash = 'another' WHERE rail = 'evm'",),
        TRANSFER,
        "it is confirmed, and no transaction of it is",
    ),
    Plant(
        "a payout in coins that is confirmed without a spend",
        "states-and-postings",
        ("UPDATE custody.spend_payout SET live = false",),
        TRANSFER,
        "it is confirmed, and no spend that carries it is",
        house="coins",
    ),
    Plant(
        "a payout whose coins the journal still has",
        "states-and-postings",
        ("UPDATE ledger.transfer SET code = 'payout.kept' WHERE code = 'payout.mined'",),
        TRANSFER,
        "it is confirmed, and the journal does not have its coins out",
    ),
    Plant(
        "a payout that no bank has booked",
        "states-and-postings",
        ("UPDATE custody.payment_line SET booked_entry = NULL",),
        TRANSFER,
        "it is confirmed, and no bank has booked a line of it",
    ),
    Plant(
        "a nonce that is free for another payout",
        "states-and-postings",
        ("UPDATE custody.payout_nonce SET state = 'live'",),
        r"custody.payout_nonce evm/0x\w+/\d+",
        "it is live, and its payout [0-9a-f-]+ is confirmed",
    ),
    Plant(
        "a deal that was booked by half",
        "states-and-postings",
        (
            (
                "DELETE FROM ledger.transfer WHERE code = 'deal.booked' AND sequence ="
                " (SELECT max(sequence) FROM ledger.transfer WHERE code = 'deal.booked')"
            ),
        ),
        "trading.deal [0-9a-f-]+",
        "it is settl(ing|ed), and 1 lines of its booking stand",
    ),
    Plant(
        "a position that no deal made",
        "states-and-postings",
        ("UPDATE trading.deal SET base_units = base_units + 1 WHERE client_ref = 'birch'",),
        "ledger.balance of book 1, conversion:otc ETH",
        r"deals and trades make a position of -?\d+, and -?\d+ is booked",
    ),
    Plant(
        "a trade that is booked and posted nowhere",
        "states-and-postings",
        (
            (
                "INSERT INTO venues.fill (venue, account, symbol, trade_id, id, venue_order_id, side,"
                " price, base, base_units, quote, quote_units, quote_dust, fee_asset, fee_units,"
                " fee_dust, is_maker, executed_at, source, recorded_at, booked_at)"
                f" VALUES ('sim', 'desk', 'ETHUSDT', 't-1', {UUID}, 'o-1', 'buy', '3000', 'ETH', 1,"
                " 'USDT', 1, 0, 'USDT', 0, 0, false, '2026-01-05', 'poll', '2026-01-05',"
                " '2026-01-05')"
            ),
        ),
        "venues.fill sim/desk ETHUSDT t-1",
        "it is marked as booked, and nothing is posted for it",
    ),
    Plant(
        "an obligation that was discharged twice",
        "states-and-postings",
        (
            (
                "INSERT INTO ledger.transfer_metadata SELECT book, 999999, data FROM"
                " ledger.transfer_metadata WHERE data ->> 'pay' <> '' LIMIT 1"
            ),
            (
                "INSERT INTO ledger.transfer SELECT (jsonb_populate_record(t, jsonb_build_object("
                f"'sequence', 999999, 'id', {UUID}))).* FROM ledger.transfer t JOIN"
                " ledger.transfer_metadata m USING (book, sequence) WHERE data ->> 'pay' <> ''"
                " AND code LIKE 'settlement.%' LIMIT 1"
            ),
        ),
        "settlement.obligation [0-9a-f-]+",
        r"it is (sealed|discharged): \d+ of its \d+ \w+ discharged by seals",
    ),
    Plant(
        "an instruction that its payout overpays",
        "states-and-postings",
        ("UPDATE custody.payout SET amount = amount + 1 WHERE rail = 'bank'",),
        "settlement.instruction [0-9a-f-]+",
        r"it pays \d+ EUR, and its payout [0-9a-f-]+ pays \d+ EUR",
    ),
    Plant(
        "a move between books that never arrived",
        "states-and-postings",
        (
            (
                "INSERT INTO books.book_move (id, reference, from_book, to_book, asset, amount,"
                " claim_from, claim_to, funds_from, funds_to, reason, state, outcome, requested_by,"
                f" approved_by, signature, created_at) VALUES ({UUID}, 'm-1', 1, 2, 'ETH', 1, 'a',"
                " 'b', '', '', 'x', 'settled', '', 'ada', 'ben', '', '2026-01-05')"
            ),
        ),
        "books.book_move 00000000-0000-8000-8000-000000000001",
        "it is settled: 0 lines arrived and 0 are settled, of 1",
    ),
    Plant(
        "clients who are owed more than is held for them",
        "client-money",
        ("UPDATE ledger.account SET owner = 'house' WHERE path = 'custody:client-pool'",),
        r"ledger.balance of book 1, \w+",
        r"0 is held for clients and 0 owed by them, \d+ is owed to them",
    ),
    Plant(
        "coins in transit that nobody sent",
        "places",
        (
            (
                "UPDATE ledger.account SET path = 'transit:house-hot-sim/main'"
                " WHERE path = 'custody:house-hot' AND asset = 'ETH'"
            ),
        ),
        "ledger.balance of book 1, transit:house-hot-sim/main ETH",
        r"\d+ is in transit by the books, and open transfers make 0",
    ),
    Plant(
        "a receipt that is in suspense and not itemised",
        "places",
        ("UPDATE custody.receipt SET state = 'final'",),
        r"ledger.balance of suspense:\w+ USDT",
        r"0 is in suspense, and the items that wait make \d+",
    ),
    Plant(
        "value between books when everything rests",
        "at-rest",
        (
            (
                "UPDATE ledger.account SET path = 'clearing:2' WHERE path = 'custody:house-hot'"
                " AND asset = 'ETH'"
            ),
        ),
        "ledger.balance of book 1, clearing:2 ETH",
        r"-?\d+ posted and \d+ pending lie between the books",
        at_rest=True,
    ),
    Plant(
        "a payout that its worker left",
        "at-rest",
        ("UPDATE custody.payout SET state = 'signed' WHERE rail = 'evm'",),
        TRANSFER,
        "it is signed",
        at_rest=True,
    ),
    Plant(
        "a payout whose worker is gone",
        "at-rest",
        (
            (
                "UPDATE custody.payout SET state = 'signed', lease_holder = 'gone',"
                " lease_until = '2026-01-05' WHERE rail = 'evm'"
            ),
        ),
        TRANSFER,
        "gone has leased it until 2026-01-05.*, and it is signed",
        at_rest=True,
    ),
    Plant(
        "an event that still waits",
        "outbox",
        (
            (
                "UPDATE kernel.outbox SET delivered_at = NULL WHERE position ="
                " (SELECT max(position) FROM kernel.outbox)"
            ),
        ),
        r"kernel.outbox \d+",
        r"\w+ of .* is not delivered",
        at_rest=True,
    ),
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.says)
async def test_a_planted_fault_is_found_and_named(planting: AsyncConnection, plant: Plant) -> None:
    oracle = BY_NAME[plant.oracle]
    await sow(planting, plant.statements)
    found = (await ask(planting, oracle, at_rest=plant.at_rest)).findings

    named = [
        item
        for item in found
        if re.fullmatch(plant.where, item.where) and re.fullmatch(plant.what + ".*", item.what)
    ]
    assert named, "\n".join(map(str, found)) or "nothing was found"
    assert {item.oracle for item in found} == {plant.oracle}


def test_every_oracle_that_asks_in_sql_has_a_planted_fault() -> None:
    assert {plant.oracle for plant in PLANTS} == {o.name for o in ORACLES if o.checks}
