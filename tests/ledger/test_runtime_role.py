# ruff: noqa: S608  the names of tables come from our own metadata
"""What the runtime role may do to the ledger's tables: PostgreSQL itself refuses the rest.

First all of it, from PostgreSQL's own catalogue; then writes that go round the Python code.
"""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import APP_ROLE, constraint_name, metadata, sqlstate, transact
from ledger.accounts import open_accounts
from ledger.model import AccountSpec, Side, Transfer
from ledger.posting import post, require_applied
from ledger.scenarios import name_id
from ledger.tables import JOURNAL_TABLES, head
from ledger.verification import verify

TABLES = sorted(t.name for t in metadata.tables.values() if t.schema == head.schema)
WRITTEN = {
    "head": {
        *("sequence", "height", "block_time", "account_count", "frontier"),
        *("closed_through", "imported_through"),
    },
    "balance": {
        *("debits_pending", "debits_posted", "credits_pending", "credits_posted"),
        *("version", "sequence", "frozen", "closed", "credit_limit"),
    },
    "hold": {"state", "remaining", "resolved_sequence"},
}


@pytest.mark.parametrize("table", TABLES)
async def test_rows_are_added_and_only_what_moves_is_updated(
    engine: AsyncEngine, table: str
) -> None:
    async with engine.connect() as conn:
        on_table = await conn.execute(
            text(
                "SELECT privilege_type FROM information_schema.table_privileges WHERE"
                " grantee = :role AND table_schema = 'ledger' AND table_name = :table"
            ),
            {"role": APP_ROLE, "table": table},
        )
        updated = await conn.execute(
            text(
                "SELECT column_name FROM information_schema.column_privileges WHERE"
                " grantee = :role AND table_schema = 'ledger' AND table_name = :table"
                " AND privilege_type = 'UPDATE'"
            ),
            {"role": APP_ROLE, "table": table},
        )

        assert set(on_table.scalars()) == {"SELECT", "INSERT"}
        assert set(updated.scalars()) == WRITTEN.get(table, set())


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("act", ["DELETE FROM", "TRUNCATE", "ALTER TABLE"])
async def test_nothing_is_taken_away(engine: AsyncEngine, table: str, act: str) -> None:
    end = " DISABLE TRIGGER ALL" if act == "ALTER TABLE" else ""
    async with engine.connect() as conn:
        with pytest.raises(DBAPIError) as caught:
            await conn.execute(text(f"{act} ledger.{table}{end}"))

    assert sqlstate(caught.value) == "42501"


@pytest.mark.parametrize("table", sorted(JOURNAL_TABLES))
@pytest.mark.parametrize("act", ["UPDATE", "DELETE FROM", "TRUNCATE"])
async def test_even_the_owner_only_adds_to_the_journal(
    busy: AsyncEngine, owner_engine: AsyncEngine, table: str, act: str
) -> None:
    """Until he switches the trigger off, which he alone can."""
    end = " SET book = book" if act == "UPDATE" else ""
    async with owner_engine.connect() as conn:
        with pytest.raises(DBAPIError, match="only grows") as caught:
            await conn.execute(text(f"{act} ledger.{table}{end}"))

    assert sqlstate(caught.value) is not None


NUMBER = "(SELECT number FROM ledger.account WHERE book = 1 AND path = '{}' AND asset = 'ETH')"
A, B, C, CUSTODY, IN_FLIGHT = (
    NUMBER.format(path)
    for path in ("client:a", "client:b", "client:c", "custody:client", "in-flight:evm")
)


def both(amount: int, debit: str, credit: str, column: str) -> str:
    """An update of two balances that sums to zero."""
    return (
        f"UPDATE ledger.balance SET debits_{column} = debits_{column}"
        f" + CASE account WHEN {debit} THEN {amount} ELSE 0 END,"
        f" credits_{column} = credits_{column}"
        f" + CASE account WHEN {credit} THEN {amount} ELSE 0 END"
        f" WHERE book = 1 AND account IN ({debit}, {credit})"
    )


HUGE = 10**30
TRANSFER = (
    "INSERT INTO ledger.transfer (book, sequence, id, kind, flags, debit, credit, amount, code,"
    " pending_id, reverses, purpose, reference, metadata_hash, recorded_at)"
    " SELECT 1, 9999, {id}, {kind}, 0, debit, {credit}, {amount}, 'c', {pending}, {reverses}, '', '',"
    " '', now() FROM ledger.transfer WHERE id = '{like}'"
)


def row(
    *,
    kind: int = 1,
    id: str = "gen_random_uuid()",  # noqa: A002  the column's name
    credit: str = "credit",
    amount: str = "amount",
    pending: str = "NULL::uuid",
    reverses: str = "NULL::uuid",
) -> str:
    """A transfer's row, like one that is there."""
    return TRANSFER.format(
        kind=kind,
        id=id,
        credit=credit,
        amount=amount,
        pending=pending,
        reverses=reverses,
        like=name_id("a"),
    )


REFUSED = {
    "an overdraft": (both(HUGE, A, B, "posted"), "ck_balance_debits_must_not_exceed_credits"),
    "an overdraft by a hold": (
        both(HUGE, A, B, "pending"),
        "ck_balance_debits_must_not_exceed_credits",
    ),
    "more than the credit limit": (
        both(6, C, CUSTODY, "posted"),
        "ck_balance_debits_must_not_exceed_credits",
    ),
    "credits beyond debits": (
        both(
            1, CUSTODY, "(SELECT number FROM ledger.account WHERE path = 'bank:capped')", "posted"
        ),
        "ck_balance_credits_must_not_exceed_debits",
    ),
    "a limit that takes credit back": (
        f"UPDATE ledger.balance SET credit_limit = 2 WHERE account = {C}",
        "ck_balance_debits_must_not_exceed_credits",
    ),
    "a limit below zero": (
        f"UPDATE ledger.balance SET credit_limit = -1 WHERE account = {C}",
        "ck_balance_credit_limit",
    ),
    "money from nowhere": (
        f"UPDATE ledger.balance SET credits_posted = credits_posted + 1 WHERE account = {A}",
        "balance_zero_sum",
    ),
    "a hold from nowhere": (
        f"UPDATE ledger.balance SET debits_pending = debits_pending + 1 WHERE account = {A}",
        "balance_zero_sum",
    ),
    "one asset for another": (
        (
            "UPDATE ledger.balance SET debits_posted = debits_posted + 5 WHERE account IN"
            " (SELECT number FROM ledger.account WHERE path = 'bank:main' AND asset = 'USD')"
            f" OR account = {CUSTODY}"
        ),
        "balance_zero_sum",
    ),
    "a balance below zero": (both(-HUGE, CUSTODY, IN_FLIGHT, "posted"), "ck_balance_not_negative"),
    "an account that begins rich": (
        (
            "INSERT INTO ledger.balance (book, account, asset, debits_pending, debits_posted,"
            " credits_pending, credits_posted, version, sequence, debits_must_not_exceed_credits,"
            " credits_must_not_exceed_debits) VALUES (1, 999, 'ETH', 0, 0, 0, 5, 0, 0, false, false)"
        ),
        "balance_begins_at_zero",
    ),
    "a hold that is resolved again": (
        f"UPDATE ledger.hold SET state = 'voided' WHERE id = '{name_id('h')}'",
        "hold_resolved_once",
    ),
    "a hold that opens again": (
        (
            "UPDATE ledger.hold SET state = 'open', remaining = amount, resolved_sequence = NULL"
            f" WHERE id = '{name_id('h')}'"
        ),
        "hold_resolved_once",
    ),
    "a hold that is resolved by nothing": (
        f"UPDATE ledger.hold SET state = 'posted', remaining = 0 WHERE id = '{name_id('k')}'",
        "ck_hold_resolved",
    ),
    "a hold that shrinks": (
        f"UPDATE ledger.hold SET remaining = remaining - 1 WHERE id = '{name_id('k')}'",
        "ck_hold_resolved",
    ),
    "a hold in a state that is none": (
        (
            "UPDATE ledger.hold SET state = 'lost', remaining = 0, resolved_sequence = 1"
            f" WHERE id = '{name_id('k')}'"
        ),
        "ck_hold_state",
    ),
    "a head that goes back": (
        "UPDATE ledger.head SET sequence = sequence - 1, height = height + 1",
        "head_moves_on",
    ),
    "a head that stands still": ("UPDATE ledger.head SET height = height + 1", "head_moves_on"),
    "a head that leaves a block out": (
        "UPDATE ledger.head SET sequence = sequence + 1, height = height + 2",
        "head_moves_on",
    ),
    "a head whose time goes back": (
        (
            "UPDATE ledger.head SET sequence = sequence + 1, height = height + 1,"
            " block_time = block_time - interval '1 second'"
        ),
        "head_moves_on",
    ),
    "a head that loses accounts": (
        (
            "UPDATE ledger.head SET sequence = sequence + 1, height = height + 1,"
            " account_count = account_count - 1"
        ),
        "head_moves_on",
    ),
    "an id that is spent": (row(id=f"'{name_id('a')}'"), "uq_transfer_id_book"),
    "an account on both sides": (row(credit="debit"), "ck_transfer_accounts_differ"),
    "an amount below zero": (row(amount="-1"), "ck_transfer_amount"),
    "a hold posted twice": (
        row(kind=3, pending=f"'{name_id('h')}'::uuid"),
        "uq_transfer_pending_id",
    ),
    "a transfer reversed twice": (
        row(kind=6, reverses=f"'{name_id('b')}'::uuid"),
        "uq_transfer_reverses",
    ),
    "a post of nothing": (row(kind=3), "ck_transfer_pending_id"),
    "a reversal of nothing": (row(kind=6), "ck_transfer_reverses"),
    "a limit of nothing": (
        (
            "INSERT INTO ledger.account_event (book, sequence, account, kind, reason, recorded_at)"
            " VALUES (1, 9999, 1, 'limited', '', now())"
        ),
        "ck_account_event_credit_limit",
    ),
    "a period that is neither": (
        (
            "INSERT INTO ledger.period_event (book, sequence, kind, through, reason, proposed_by,"
            " approved_by, recorded_at) VALUES (1, 9999, 'lost', now(), '', '', '', now())"
        ),
        "ck_period_event_kind",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_write_round_the_code_is_refused(busy: AsyncEngine, name: str) -> None:
    await transact(busy, _credit)
    statement, constraint = REFUSED[name]

    async with busy.connect() as conn:
        with pytest.raises(DBAPIError) as caught:
            await conn.execute(text(statement))

    assert sqlstate(caught.value) in {"23505", "23514"}
    assert constraint_name(caught.value) == constraint
    assert await verify(busy, 1) == []


@pytest.mark.parametrize(
    "column", ["debits_must_not_exceed_credits", "credits_must_not_exceed_debits", "asset", "book"]
)
async def test_what_guards_a_balance_cannot_be_taken_away(busy: AsyncEngine, column: str) -> None:
    async with busy.connect() as conn:
        with pytest.raises(DBAPIError) as caught:
            await conn.execute(text(f"UPDATE ledger.balance SET {column} = {column}"))

    assert sqlstate(caught.value) == "42501"


async def _credit(conn: AsyncConnection) -> None:
    """A client with a credit limit of 5 units, 3 of them used, and an account with the other flag."""
    limited = AccountSpec(
        path="client:c",
        asset="ETH",
        side=Side.CREDIT,
        owner="client:c",
        debits_must_not_exceed_credits=True,
        credit_limit=5,
    )
    capped = AccountSpec(
        path="bank:capped", asset="ETH", side=Side.DEBIT, credits_must_not_exceed_debits=True
    )
    await open_accounts(conn, 1, [limited, capped])
    used = Transfer(
        id=name_id("used"),
        debit="client:c",
        credit="custody:client",
        asset="ETH",
        amount=3,
        code="t",
    )
    require_applied(await post(conn, 1, [used]))
