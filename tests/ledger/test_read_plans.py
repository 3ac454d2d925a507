"""The plans of every read: no large table is gone through, whether its arguments are known or not."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.ids import derive_id
from ledger.account_statement import page_effective_statement, page_statement
from ledger.accounts import ensure_accounts
from ledger.coverage import coverage, page_coverage
from ledger.export import journal
from ledger.holds import get_position, page_open_holds
from ledger.model import Kind, Transfer, hold, transfer, void_hold
from ledger.points import Point
from ledger.posting import open_book, post
from ledger.queries import (
    get_balance,
    page_accounts,
    page_periods,
    sequence_at,
)
from ledger.search import find_refusal, find_transfer, page_transfers
from ledger.tree import account_tree
from ledger.trial import page_trial_balance, sum_trial_balance
from ledger.views import TransferFilter

START = datetime(2026, 1, 5, tzinfo=UTC)
DAY = timedelta(days=1)
TRANSFERS, HOLDS, CLIENTS = 16_000, 4_000, 4_000
LARGE = "transfer|entry|hold|transfer_metadata|effective_entry|account_event|balance"
READS_A_WHOLE_TABLE = re.compile(rf"Seq Scan on (?:{LARGE})\b.*")
# A look-up that goes through rows of its book and throws them away.
WALKS = re.compile(
    r"Index (?:Only )?Scan using (\w+ on (?:account|transfer|balance))\b[^\n]*\n"
    r"(?:(?! *->)[^\n]*\n)*? *Rows Removed by Filter: (\d{3,})"
)
WASTEFUL_JOIN = re.compile(r"Rows Removed by Join Filter: \d{4,}")

Read = Callable[[AsyncConnection], Awaitable[Any]]
MIDDLE = START + timedelta(minutes=1)


def found(**wanted: Any) -> Read:
    return lambda conn: page_transfers(conn, 1, TransferFilter(**wanted), after=100)


def found_before(**wanted: Any) -> Read:
    return lambda conn: page_transfers(conn, 1, TransferFilter(**wanted), before=9_000)


READS: dict[str, Read] = {
    "sequence": lambda conn: sequence_at(conn, 1, MIDDLE),
    "balance now": lambda conn: get_balance(conn, 1, "client:c7", "X"),
    "balance at a sequence": lambda conn: get_balance(conn, 1, "custody:w", "X", at_sequence=9_000),
    "balance at a time": lambda conn: get_balance(conn, 1, "custody:w", "X", at_time=MIDDLE),
    "balance on a date": lambda conn: get_balance(
        conn, 1, "custody:w", "X", effective_on=date(2026, 1, 3)
    ),
    "balance and holds": lambda conn: get_position(conn, 1, "client:c7", "X"),
    "balance and holds then": lambda conn: get_position(
        conn, 1, "client:c7", "X", at_sequence=9_000
    ),
    "accounts": lambda conn: page_accounts(conn, 1, "client:c1", at_sequence=9_000),
    "open holds": lambda conn: page_open_holds(conn, 1),
    "open holds then": lambda conn: page_open_holds(conn, 1, at_sequence=19_000),
    "open holds of a path": lambda conn: page_open_holds(conn, 1, path="client:c9"),
    "trial balance": lambda conn: page_trial_balance(conn, 1, Point(at_sequence=9_000)),
    "totals": lambda conn: sum_trial_balance(conn, 1, Point(effective_on=date(2026, 1, 3))),
    "tree": lambda conn: account_tree(conn, 1, "client", depth=2),
    "coverage": lambda conn: coverage(conn, 1, at_sequence=9_000),
    "history of coverage": lambda conn: page_coverage(conn, 1, after=4),
    "statement": lambda conn: page_statement(conn, 1, "custody:w", "X", MIDDLE, MIDDLE + DAY),
    "statement by effective date": lambda conn: page_effective_statement(
        conn, 1, "custody:w", "X", date(2026, 1, 1), date(2026, 1, 9)
    ),
    "transfer": lambda conn: find_transfer(conn, 1, derive_id(START, "t", 7)),
    "refusal": lambda conn: find_refusal(conn, 1, derive_id(START, "t", 7)),
    "periods": lambda conn: page_periods(conn, 1),
    "transfers": found(),
    "transfers by path": found(path="custody:w"),
    "transfers by a client's path": found(path="client:c7"),
    "transfers by code": found(code="code.3"),
    "transfers by reference": found(reference="ref-77"),
    "transfers by correlation": found(correlation=derive_id(START, "row", 77)),
    "transfers by metadata": found(metadata={"order": "o-120"}),
    "transfers by recorded time": found(recorded_from=MIDDLE, recorded_to=MIDDLE + DAY),
    "transfers by effective time": found(effective_from=START - 3 * DAY, effective_to=START - DAY),
    "transfers by kind": found(kind=Kind.VOID),
    "transfers by asset": found(asset="X"),
    "transfers by all": found(
        path="custody:w", code="code.3", reference="ref-77", metadata={"order": "o-120"}
    ),
    "transfers backwards": found_before(),
    "transfers backwards by path": found_before(path="custody:w"),
    "transfers backwards by code": found_before(code="code.3"),
    "transfers backwards by effective time": found_before(effective_to=START - DAY),
}

LED_BY = {
    "balance at a time": "pk_entry",
    "balance on a date": "pk_entry",
    "accounts": "_account_",
    "open holds": "ix_hold_open_debit",
    "open holds of a path": "ix_hold_open_credit",
    "statement": "pk_entry",
    "transfer": "uq_transfer_id_book",
    "transfers": "pk_transfer",
    "transfers by path": "pk_entry",
    "transfers by a client's path": "pk_entry",
    "transfers by code": "ix_transfer_code",
    "transfers by reference": "ix_transfer_reference",
    "transfers by correlation": "ix_transfer_correlation",
    "transfers by metadata": "ix_transfer_metadata_data",
    "transfers by effective time": "ix_transfer_effective_at",
    "transfers by all": "ix_transfer_reference",
    "transfers backwards by path": "pk_entry",
    "transfers backwards by code": "ix_transfer_code",
    "transfers backwards by effective time": "ix_transfer_effective_at",
}
"""The index that must be in the plan; elsewhere there is no choice but the key."""


@pytest.fixture
async def grown(engine: AsyncEngine, owner_engine: AsyncEngine) -> AsyncEngine:
    """A book large enough that reading a whole table of it would be a choice."""
    await grow(engine, 1)
    async with owner_engine.begin() as conn:
        await conn.execute(text("ANALYZE"))
    return engine


@pytest.fixture
async def grown_since(engine: AsyncEngine, owner_engine: AsyncEngine) -> AsyncEngine:
    """The same book, of which the planner knows nothing: all that it has seen is another one."""
    await grow(engine, 2)
    async with owner_engine.begin() as conn:
        await conn.execute(text("ANALYZE"))
    await grow(engine, 1)
    return engine


async def grow(engine: AsyncEngine, book: int) -> None:
    keys = [("custody:w", "X"), *((f"client:c{n}", "X") for n in range(CLIENTS))]

    async def prepare(conn: AsyncConnection) -> None:
        await open_book(conn, book, entity=f"desk-{book}", now=START)
        await ensure_accounts(conn, book, keys, owners={"custody:w": "client"}, now=START)

    await transact(engine, prepare)
    moved = [a_transfer(n) for n in range(TRANSFERS)]
    held = [
        hold(derive_id(START, "h", n), "custody:w", client(n), 1, "X", code="h", purpose="p")
        for n in range(HOLDS)
    ]
    freed = [
        void_hold(derive_id(START, "v", n), derive_id(START, "h", n), code="v")
        for n in range(HOLDS * 3 // 4)
    ]
    batches: list[list[Transfer]] = [moved[n : n + 4_000] for n in range(0, TRANSFERS, 4_000)]
    for minute, batch in enumerate([*batches, held, freed]):
        now = START + timedelta(minutes=minute)
        await transact(engine, lambda conn, batch=batch, now=now: post(conn, book, batch, now=now))  # type: ignore[misc]


def client(number: int) -> str:
    return f"client:c{number % CLIENTS}"


def a_transfer(n: int) -> Transfer:
    return transfer(
        derive_id(START, "t", n),
        "custody:w",
        client(n),
        5,
        "X",
        code=f"code.{n % 20}",
        reference=f"ref-{n % 2_000}",
        correlation=derive_id(START, "row", n % 2_000),
        metadata={"order": f"o-{n}"} if n % 10 == 0 else {},
        effective_at=START - DAY * (n % 5 + 1) if n % 50 == 0 else None,
    )


@contextmanager
def seen(engine: AsyncEngine) -> Iterator[list[tuple[str, Any]]]:
    """Yield the statements that run within the block, with their arguments."""
    found: list[tuple[str, Any]] = []

    def note(_conn: Any, _cursor: Any, statement: str, arguments: Any, *_more: Any) -> None:
        found.append((statement, arguments))

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", note)


async def test_no_read_goes_through_a_whole_table(grown: AsyncEngine) -> None:
    """With the arguments known and unknown to the planner; and each read is one statement."""
    wrong = []
    async with grown.connect() as conn:
        raw = (await conn.get_raw_connection()).driver_connection
        assert raw is not None
        for name, read in READS.items():
            with seen(grown) as ran:
                await read(conn)
            assert len(ran) == (3 if name == "history of coverage" else 1), name
            for mode in ("force_custom_plan", "force_generic_plan"):
                await raw.execute(f"SET plan_cache_mode = {mode}")
                for statement, arguments in ran:
                    rows = await raw.fetch(f"EXPLAIN {statement}", *arguments)
                    plan = "\n".join(row[0] for row in rows)
                    wrong += [(name, mode, line) for line in READS_A_WHOLE_TABLE.findall(plan)]
                    index = LED_BY.get(name, "")
                    wrong += [(name, mode, f"without {index}")] if index not in plan else []

    assert wrong == []


async def test_no_look_up_in_a_book_newer_than_its_statistics_walks_through_it(
    grown_since: AsyncEngine,
) -> None:
    """The planner believes such a book empty, and any index that begins with the book good enough."""
    wrong = []
    async with grown_since.connect() as conn:
        raw = (await conn.get_raw_connection()).driver_connection
        assert raw is not None
        # The candidates of a page may be sought in the order of the journal: one pass for the page.
        for name, read in READS.items():
            with seen(grown_since) as ran:
                await read(conn)
            for statement, arguments in ran:
                rows = await raw.fetch(f"EXPLAIN (ANALYZE) {statement}", *arguments)
                plan = "\n".join(row[0] for row in rows)
                # One pass over what the read is of, for the whole answer, is no look-up.
                if "Rows Removed" in plan and name not in {"totals", "history of coverage"}:
                    passes = WALKS.findall(plan.partition("CTE scanned")[2] or plan)
                    wrong += [(name, *walk) for walk in passes]
                    wrong += [(name, line) for line in WASTEFUL_JOIN.findall(plan)]
    assert wrong == []


async def test_an_export_of_a_book_newer_than_its_statistics_looks_up_holds_by_key(
    grown_since: AsyncEngine,
) -> None:
    async with grown_since.connect() as conn:
        raw = (await conn.get_raw_connection()).driver_connection
        assert raw is not None
        rows = await raw.fetch(f"EXPLAIN (ANALYZE) {journal._TRANSFERS}", 1, 1, 4_096)
    plan = "\n".join(row[0] for row in rows)
    assert WALKS.findall(plan) == []
    assert WASTEFUL_JOIN.findall(plan) == []
