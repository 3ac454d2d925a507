"""Posting against PostgreSQL: transactions, locks, what the database itself refuses."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import constraint_name, sqlstate, transact
from kernel.errors import BadInput
from ledger.accounts import ensure_accounts
from ledger.errors import AccountDiffers, BookNotOpen, NotATransaction, NotInChart, PostingRefused
from ledger.model import (
    BATCH_MAX,
    Kind,
    Transfer,
    chain,
    hold,
    post_hold,
    reversal,
    transfer,
    void_hold,
)
from ledger.outcome import Outcome
from ledger.posting import decided, open_book, post, post_reversal, require_applied
from ledger.queries import get_balance, head, list_accounts, list_transfers
from ledger.rules import expiry_id
from ledger.scenarios import START, name_id, play
from ledger.tables import JOURNAL_TABLES
from ledger.testing import LockOrderViolated, enforce_lock_order
from ledger.verification import verify

OPENING = """
o  move  custody:w  client:a  100 X  -> created
p  move  custody:w  client:b  100 X  -> created
z  move  custody:w  in-flight:evm  0 X  -> created
"""


def move(name: str, amount: int, debit: str = "client:a", credit: str = "client:b") -> Transfer:
    return transfer(name_id(name), debit, credit, amount, "X", code="test")


@pytest.fixture
async def book(engine: AsyncEngine) -> AsyncEngine:
    assert await play(engine, OPENING) == OPENING
    return engine


async def rows_of(engine: AsyncEngine) -> dict[str, list[Any]]:
    """Every row of the schema, as text."""
    async with engine.connect() as conn:
        tables = await conn.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'ledger' ORDER BY 1")
        )
        return {
            name: sorted(
                await conn.scalars(text("SELECT t::text FROM ledger.NAME t".replace("NAME", name)))
            )
            for name in tables.all()
        }


async def records_of(engine: AsyncEngine, book: int) -> dict[str, list[str]]:
    """The records of a book and what follows from them, without the book's own number."""
    statement = (
        "SELECT (to_jsonb(t) - 'book' - 'recorded_at')::text FROM ledger.NAME t WHERE book = :book"
    )
    async with engine.connect() as conn:
        return {
            name: sorted(await conn.scalars(text(statement.replace("NAME", name)), {"book": book}))
            for name in ("transfer", "entry", "balance", "hold", "refusal", "transfer_metadata")
        }


def hold_of(name: str, amount: int) -> Transfer:
    return hold(
        name_id(name), "client:a", "in-flight:evm", amount, "X", code="test", purpose="payout"
    )


async def test_a_refused_batch_that_spends_no_id_leaves_every_row_unchanged(
    book: AsyncEngine,
) -> None:
    before = await rows_of(book)

    results = await transact(
        book, lambda conn: post(conn, 1, [move("o", 1), move("bad", 1, "client:a", "client:a")])
    )

    assert [r.outcome for r in results] == [
        Outcome.EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID,
        Outcome.ACCOUNTS_MUST_BE_DIFFERENT,
    ]
    assert await rows_of(book) == before


async def test_what_was_rolled_back_was_never_asked(book: AsyncEngine) -> None:
    before = await rows_of(book)
    async with book.connect() as conn:
        results = await post(conn, 1, [move("a", 60), move("b", 60)])
        assert [r.outcome for r in results] == [Outcome.CREATED, Outcome.EXCEEDS_CREDITS]
        await conn.rollback()

    assert await rows_of(book) == before
    async with book.connect() as conn:
        assert await decided(conn, 1, [name_id("a"), name_id("b")]) == {}
    again = await transact(book, lambda conn: post(conn, 1, [move("b", 60), move("a", 60)]))
    assert [r.outcome for r in again] == [Outcome.CREATED, Outcome.EXCEEDS_CREDITS]


async def test_decided_answers_after_a_lost_commit(book: AsyncEngine) -> None:
    results = await transact(book, lambda conn: post(conn, 1, [move("a", 60), move("b", 60)]))

    async with book.connect() as conn:
        found = await decided(conn, 1, [name_id("a"), name_id("b"), name_id("c")])

    assert found.keys() == {name_id("a"), name_id("b")}
    for result in results:
        same = found[result.transfer_id]
        assert (same.outcome, same.sequence, same.recorded_at, same.amount) == (
            result.outcome,
            result.sequence,
            result.recorded_at,
            result.amount,
        )


async def test_a_statement_that_commits_by_itself_is_refused(book: AsyncEngine) -> None:
    automatic = book.execution_options(isolation_level="AUTOCOMMIT")
    async with automatic.connect() as conn:
        with pytest.raises(NotATransaction):
            await post(conn, 1, [move("a", 1)])


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_an_isolation_level_that_reads_the_past_is_refused(
    book: AsyncEngine, level: str
) -> None:
    past = book.execution_options(isolation_level=level)
    async with past.connect() as conn:
        with pytest.raises(NotATransaction, match=level.lower()):
            await post(conn, 1, [move("a", 1)])


async def test_post_is_a_part_of_the_callers_transaction(book: AsyncEngine) -> None:
    """The domain's row and the posting become visible together."""
    async with book.connect() as conn:
        mine = await conn.scalar(text("SELECT txid_current()"))
        await post(conn, 1, [move("a", 1)])
        assert await conn.scalar(text("SELECT txid_current()")) == mine
        async with book.connect() as other:
            assert (await get_balance(other, 1, "client:a", "X")).posted == 100
        await conn.commit()
        async with book.connect() as other:
            assert (await get_balance(other, 1, "client:a", "X")).posted == 99


async def test_a_poster_waits_and_then_sees_what_the_other_has_done(book: AsyncEngine) -> None:
    """Both want the same 100; read before the wait, both would have got them."""
    async with book.connect() as first, asyncio.TaskGroup() as group:
        _ = await first.begin()
        [won] = await post(first, 1, [move("a", 100)])
        waiting = group.create_task(transact(book, lambda conn: post(conn, 1, [move("b", 100)])))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await first.commit()

    assert won.outcome is Outcome.CREATED
    assert [r.outcome for r in waiting.result()] == [Outcome.EXCEEDS_CREDITS]


async def test_many_posters_lose_and_double_nothing(book: AsyncEngine) -> None:
    async def poster(number: int) -> list[Outcome]:
        outcomes = []
        for n in range(10):
            back = move(f"{number}-{n}-back", n, "client:b", "client:a")
            batch = [
                move(f"{number}-{n}", n),
                move("shared", 3),
                *chain(back, move(f"{number}-{n}-c", 1)),
            ]
            results = await transact(book, lambda conn: post(conn, 1, batch))  # noqa: B023  run at once
            outcomes += [result.outcome for result in results]
        return outcomes

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(poster(number)) for number in range(8)]

    outcomes = [outcome for task in tasks for outcome in task.result()]
    assert outcomes.count(Outcome.EXISTS) == 79
    assert set(outcomes) == {Outcome.CREATED, Outcome.EXISTS}
    async with book.connect() as conn:
        assert (await get_balance(conn, 1, "client:a", "X")).posted == 100 - 3 - 80
        sequences = [t.sequence for t in await list_transfers(conn, 1)]
        now = await head(conn, 1)
    assert sequences == list(range(now.sequence - len(sequences) + 1, now.sequence + 1))
    assert await verify(book, 1) == []


async def test_block_time_never_runs_backwards(book: AsyncEngine) -> None:
    for seconds in (10, 5, 20):
        at = START + timedelta(seconds=seconds)
        await transact(
            book,
            lambda conn: post(conn, 1, [move(f"t{seconds}", 1)], now=at),  # noqa: B023  run at once
        )

    async with book.connect() as conn:
        times = [t.recorded_at for t in await list_transfers(conn, 1)][-3:]
    assert [(at - START).seconds for at in times] == [10, 10, 20]


async def test_an_effective_time_of_an_early_year_is_stored_as_it_was_given(
    book: AsyncEngine,
) -> None:
    early = datetime(1, 2, 3, tzinfo=UTC)
    item = replace(move("then", 5), effective_at=early)
    await transact(book, lambda conn: post(conn, 1, [item], now=START))

    async with book.connect() as conn:
        assert (await list_transfers(conn, 1))[-1].effective_at == early
    assert await verify(book, 1) == []


async def test_the_databases_clock_is_used_where_none_is_given(book: AsyncEngine) -> None:
    [result] = await transact(book, lambda conn: post(conn, 1, [move("a", 1)]))
    async with book.connect() as conn:
        now = await conn.scalar(text("SELECT clock_timestamp()"))
    assert result.recorded_at is not None
    assert timedelta(0) <= now - result.recorded_at < timedelta(seconds=60)


async def test_a_caller_cannot_make_the_ledger_misread_a_request(book: AsyncEngine) -> None:
    bad = [
        move("negative", -3),
        move("all", -1),
        Transfer(id=name_id("x"), debit="client:a", credit="client:b", asset="X", code="a\tb"),
        Transfer(id=name_id("x"), debit="client:a", credit="client:b", asset="X", code="c" * 65),
        Transfer(
            id=name_id("x"),
            debit="client:a",
            credit="client:b",
            asset="X",
            code="c",
            metadata={"f": 1.5},
        ),
        Transfer(
            id=name_id("x"),
            debit="client:a",
            credit="client:b",
            asset="X",
            code="c",
            effective_at=START.replace(tzinfo=None),
        ),
    ]
    for item in bad:
        async with book.connect() as conn:
            with pytest.raises(BadInput):
                await post(conn, 1, [item])
    async with book.connect() as conn:
        with pytest.raises(BadInput, match="at most"):
            await post(conn, 1, [move("many", 1)] * (BATCH_MAX + 1))
        with pytest.raises(BookNotOpen):
            await post(conn, 2, [move("other", 1)])


async def test_metadata_comes_back_as_it_was_given(book: AsyncEngine) -> None:
    metadata = {
        "ref": "BTC/USDT:1#a+b-c.d_e",
        "n": 10**30,
        "list": [1, None, True],
        "map": {"b": 1, "a": 2},
    }
    item = transfer(name_id("m"), "client:a", "client:b", 1, "X", code="c", metadata=metadata)

    [first] = await transact(book, lambda conn: post(conn, 1, [item]))
    [again] = await transact(book, lambda conn: post(conn, 1, [item]))

    assert (first.outcome, again.outcome) == (Outcome.CREATED, Outcome.EXISTS)
    async with book.connect() as conn:
        assert (await list_transfers(conn, 1))[-1].metadata == metadata
    assert await verify(book, 1) == []


async def test_a_batch_of_the_largest_size(book: AsyncEngine) -> None:
    batch = [move(f"n{n}", 0) for n in range(BATCH_MAX)]
    results = await transact(book, lambda conn: post(conn, 1, batch))
    assert {result.outcome for result in results} == {Outcome.CREATED}


async def test_due_holds_expire_before_the_callers_transfers_and_at_most_256_at_once(
    book: AsyncEngine,
) -> None:
    batch = [
        hold(
            name_id(f"h{n}"),
            "custody:w",
            "client:a",
            1,
            "X",
            code="c",
            purpose="quote",
            timeout=timedelta(seconds=300 - n),
        )
        for n in range(300)
    ]
    await transact(book, lambda conn: post(conn, 1, batch, now=START))
    later = START + timedelta(hours=1)
    last = post_hold(name_id("post"), name_id("h0"), code="c")
    [result] = await transact(book, lambda conn: post(conn, 1, [last], now=later))

    assert result.outcome is Outcome.PENDING_TRANSFER_EXPIRED
    async with book.connect() as conn:
        assert (await get_balance(conn, 1, "client:a", "X")).incoming == 44
    await transact(book, lambda conn: post(conn, 1, [], now=later))
    async with book.connect() as conn:
        assert (await get_balance(conn, 1, "client:a", "X")).incoming == 0
        expired = await list_transfers(conn, 1, code="hold.expired")
    assert expired[0].pending_id == name_id("h299")
    assert await verify(book, 1) == []


async def test_the_ledgers_own_record_is_no_callers_to_repeat(book: AsyncEngine) -> None:
    """Neither alone nor in a chain whose every id is recorded."""
    asked = replace(hold_of("h", 1), timeout=timedelta(seconds=5))
    later = START + timedelta(seconds=5)
    await transact(book, lambda conn: post(conn, 1, [asked], now=START))
    await transact(book, lambda conn: post(conn, 1, [], now=later))
    expiry = Transfer(
        id=expiry_id(later, asked.id),
        kind=Kind.EXPIRE,
        debit=asked.debit,
        credit=asked.credit,
        asset="X",
        amount=1,
        code="hold.expired",
        pending_id=asked.id,
    )
    for batch in ([asked, expiry], chain(asked, expiry)):
        results = await transact(book, lambda conn: post(conn, 1, batch, now=later))  # noqa: B023  run at once
        assert [result.outcome for result in results] == [Outcome.EXISTS, Outcome.RESERVED_FLAG]


async def test_require_applied_names_the_refusal_that_counts(book: AsyncEngine) -> None:
    batch = chain(move("a", 1), move("b", 1000), move("c", 1))
    results = await transact(book, lambda conn: post(conn, 1, batch))
    with pytest.raises(PostingRefused, match=f"{name_id('b')}.*exceeds_credits"):
        require_applied(results)
    require_applied(await transact(book, lambda conn: post(conn, 1, [move("a", 1), move("a", 1)])))


def undo(name: str, original: str) -> Transfer:
    return reversal(name_id(name), name_id(original), code="test", correlation=name_id("why"))


async def reverse(book: AsyncEngine, name: str, original: str) -> list[Outcome]:
    """Reverse a transfer; what is missing is owed by a receivable."""
    results = await transact(
        book,
        lambda conn: post_reversal(
            conn,
            1,
            undo(name, original),
            shortfall_id=name_id(f"{name}-short"),
            receivable="receivable:a:reorg",
        ),
    )
    return [result.outcome for result in results]


async def test_a_shortfall_becomes_a_receivable_in_the_same_chain(book: AsyncEngine) -> None:
    await transact(
        book, lambda conn: post(conn, 1, [move("spent", 70), hold_of("kept", 20), move("x", 0)])
    )

    assert await reverse(book, "r", "o") == [Outcome.CREATED, Outcome.CREATED]

    async with book.connect() as conn:
        owed = await get_balance(conn, 1, "receivable:a:reorg", "X")
        short, back = (await list_transfers(conn, 1))[-2:]
        client = await get_balance(conn, 1, "client:a", "X")
    # 100 were credited, 70 are gone and 20 reserved: 90 are missing.
    assert owed.posted == 90
    assert (client.posted, client.available) == (20, 0)
    assert (short.debit, short.amount, short.correlation) == (
        "receivable:a:reorg",
        90,
        name_id("why"),
    )
    assert back.reverses == name_id("o")
    assert await verify(book, 1) == []


async def test_what_a_due_hold_reserves_is_not_missing(book: AsyncEngine) -> None:
    later = START + timedelta(seconds=5)
    kept = replace(hold_of("kept", 100), timeout=timedelta(seconds=5))
    await transact(book, lambda conn: post(conn, 1, [kept], now=START))

    results = await transact(
        book,
        lambda conn: post_reversal(
            conn,
            1,
            undo("r", "o"),
            shortfall_id=name_id("short"),
            receivable="receivable:a:reorg",
            now=later,
        ),
    )

    assert [result.outcome for result in results] == [Outcome.CREATED]
    assert await verify(book, 1) == []


async def test_a_reversal_with_a_shortfall_is_made_once(book: AsyncEngine) -> None:
    await transact(book, lambda conn: post(conn, 1, [move("spent", 70)]))
    await reverse(book, "r", "o")
    before = await rows_of(book)

    assert await reverse(book, "r", "o") == [Outcome.EXISTS]
    assert await rows_of(book) == before
    again = await reverse(book, "s", "o")
    assert again[-1] is Outcome.REVERSED_TRANSFER_ALREADY_REVERSED
    async with book.connect() as conn:
        assert (await get_balance(conn, 1, "receivable:a:reorg", "X")).posted == 70


async def test_a_reversal_without_a_shortfall_is_only_a_reversal(book: AsyncEngine) -> None:
    assert await reverse(book, "r", "o") == [Outcome.CREATED]
    assert await reverse(book, "s", "nothing") == [Outcome.REVERSED_TRANSFER_NOT_FOUND]
    with pytest.raises(BadInput, match="not a reversal"):
        await transact(
            book,
            lambda conn: post_reversal(
                conn, 1, move("m", 1), shortfall_id=name_id("n"), receivable="receivable:a:reorg"
            ),
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"reference": "Jane Doe"},
        {"reference": "jane@example.org"},
        {"reference": "DE89370400440532013000"},
        {"reference": "back\\slash"},
        {"code": "two words"},
        {"purpose": "zwölf"},
        {"metadata": {"Jane Doe": 1}},
        {"metadata": {"payee": "Jane Doe"}},
        {"metadata": {"deep": {"er": ["GB82WEST12345698765432"]}}},
    ],
    ids=lambda changes: str(changes)[:40],
)
async def test_what_could_be_about_a_person_never_enters_the_journal(
    book: AsyncEngine, changes: dict[str, Any]
) -> None:
    before = await rows_of(book)
    batch = [move("good", 1), replace(move("bad", 1), **changes)]

    with pytest.raises(BadInput):
        await transact(book, lambda conn: post(conn, 1, batch))
    assert await rows_of(book) == before


async def test_a_large_batch_leaves_what_small_ones_leave(book: AsyncEngine) -> None:
    """Large ones are COPYed, small ones bring the same rows with their statement."""
    batch = [
        *(move(f"m{n}", 1, "custody:w", "client:a") for n in range(90)),
        *chain(*(hold_of(f"h{n}", 1) for n in range(40))),
        *(post_hold(name_id(f"h{n}"), name_id(f"h{n}"), code="c") for n in range(3)),
        *(post_hold(name_id(f"p{n}"), name_id(f"h{n}"), 0, code="c") for n in range(20)),
        move("much", 10**40),
    ]
    await play(book, OPENING, book=2)

    large = await transact(book, lambda conn: post(conn, 1, batch, now=START))
    small = []
    # The chain of the holds stays whole.
    for part in (batch[:50], batch[50:90], batch[90:130], batch[130:]):
        small += await transact(book, lambda conn: post(conn, 2, part, now=START))  # noqa: B023  run at once

    assert large == small
    assert await records_of(book, 1) == await records_of(book, 2)
    assert await verify(book, 1) == await verify(book, 2) == []


async def test_accounts_are_opened_once_and_keep_their_owner(engine: AsyncEngine) -> None:
    keys = [("custody:w", "X"), ("client:a", "X"), ("custody:w", "Y")]
    owners = {"custody:w": "client"}
    await transact(engine, lambda conn: open_book(conn, 1, entity="acme"))
    for _ in range(2):
        await transact(engine, lambda conn: ensure_accounts(conn, 1, keys, owners=owners))
    await transact(engine, lambda conn: ensure_accounts(conn, 1, keys))

    async with engine.connect() as conn:
        accounts = await list_accounts(conn, 1)
        assert [(a.path, a.asset, a.spec.owner) for a in accounts] == [
            ("client:a", "X", "client:a"),
            ("custody:w", "X", "client"),
            ("custody:w", "Y", "client"),
        ]
        assert (await head(conn, 1)).sequence == 3
        assert [a.path for a in await list_accounts(conn, 1, "client:")] == ["client:a"]
    for bad, error in (
        ({"owners": {"custody:w": "house"}, "keys": keys}, AccountDiffers),
        ({"keys": [("money:under-the-bed", "X")]}, NotInChart),
    ):
        with pytest.raises(error):
            await transact(engine, lambda conn: ensure_accounts(conn, 1, **bad))  # noqa: B023  run at once
    with pytest.raises(AccountDiffers):
        await transact(engine, lambda conn: open_book(conn, 1, entity="other"))


async def test_accounts_opened_by_two_at_once_are_opened_once(engine: AsyncEngine) -> None:
    await transact(engine, lambda conn: open_book(conn, 1, entity="acme"))

    async def open_and_post(number: int) -> list[Outcome]:
        async def work(conn: AsyncConnection) -> list[Outcome]:
            await ensure_accounts(conn, 1, [("custody:w", "X"), (f"client:{number % 3}", "X")])
            item = move(f"n{number}", 1, "custody:w", f"client:{number % 3}")
            return [result.outcome for result in await post(conn, 1, [item])]

        return await transact(engine, work)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(open_and_post(number)) for number in range(12)]

    assert {outcome for task in tasks for outcome in task.result()} == {Outcome.CREATED}
    async with engine.connect() as conn:
        assert (await head(conn, 1)).account_count == 4
    assert await verify(engine, 1) == []


async def test_whoever_opens_an_account_second_is_told_that_it_has_another_owner(
    engine: AsyncEngine,
) -> None:
    """Even if it was not there yet when it was looked for."""
    await transact(engine, lambda conn: open_book(conn, 1, entity="acme"))
    key = ("custody:z", "X")

    async def open_second() -> None:
        with pytest.raises(AccountDiffers, match="belongs to client"):
            await transact(
                engine,
                lambda conn: ensure_accounts(conn, 1, [key], owners={"custody:z": "house"}),
            )

    async with engine.connect() as first, asyncio.TaskGroup() as group:
        transaction = await first.begin()
        await ensure_accounts(first, 1, [key], owners={"custody:z": "client"})
        task = group.create_task(open_second())
        await asyncio.sleep(0.2)
        assert not task.done()
        await transaction.commit()


DENIED = "permission denied"
REFUSED_BY_POSTGRESQL = {
    "change a journal row": ("UPDATE ledger.transfer SET amount = 1", DENIED),
    "delete a journal row": ("DELETE FROM ledger.entry", DENIED),
    "empty a journal table": ("TRUNCATE ledger.block", DENIED),
    "change what an account is": ("UPDATE ledger.account SET owner = 'me'", DENIED),
    "change a guard": ("UPDATE ledger.balance SET debits_must_not_exceed_credits = false", DENIED),
    "change a hold's amount": ("UPDATE ledger.hold SET amount = 1", DENIED),
    "turn the journal back": (
        "UPDATE ledger.head SET sequence = sequence - 1, height = height + 1",
        "head_moves_on",
    ),
    # It sums to zero, so that nothing but the client's own guard is in the way.
    "overdraw a client": (
        (
            "UPDATE ledger.balance b SET debits_posted = debits_posted + 101 * (path = 'client:a')::int,"
            " credits_posted = credits_posted + 101 * (path = 'client:b')::int"
            " FROM ledger.account a WHERE (a.book, a.number) = (b.book, b.account)"
        ),
        "ck_balance_debits_must_not_exceed_credits",
    ),
    "create money": (
        "UPDATE ledger.balance SET debits_posted = debits_posted + 1 WHERE account = 1",
        "balance_zero_sum",
    ),
    "open an account with money": (
        (
            "INSERT INTO ledger.balance SELECT book, 99, asset, 0, 0, 0, 5, 0, 0, false, false, false, false"
            " FROM ledger.balance LIMIT 1"
        ),
        "balance_begins_at_zero",
    ),
}


@pytest.mark.parametrize("act", REFUSED_BY_POSTGRESQL)
async def test_postgresql_itself_refuses_to(book: AsyncEngine, act: str) -> None:
    """Several guards raise the same SQLSTATE, so each act is refused by the guard it names."""
    statement, guard = REFUSED_BY_POSTGRESQL[act]
    async with book.connect() as conn:
        with pytest.raises(DBAPIError) as caught:
            await conn.execute(text(statement))
    if guard is DENIED:
        assert sqlstate(caught.value) == "42501"
        assert DENIED in str(caught.value.orig)
    else:
        assert sqlstate(caught.value) == "23514"
        assert constraint_name(caught.value) == guard


async def test_a_resolved_hold_never_comes_back(book: AsyncEngine) -> None:
    story = """
    q  hold  custody:w  client:a  10 X  -> created

    r  post  q                          -> created
    """
    assert await play(book, story) == story
    async with book.connect() as conn:
        with pytest.raises(DBAPIError) as caught:
            await conn.execute(
                text(
                    "UPDATE ledger.hold"
                    " SET state = 'open', remaining = amount, resolved_sequence = NULL"
                )
            )
    assert sqlstate(caught.value) == "23514"


@pytest.mark.parametrize("table", sorted(JOURNAL_TABLES))
async def test_not_even_the_owner_changes_the_journal(
    book: AsyncEngine, owner_engine: AsyncEngine, table: str
) -> None:
    for statement in (
        "UPDATE ledger.TABLE SET book = book",
        "DELETE FROM ledger.TABLE",
        "TRUNCATE ledger.TABLE",
    ):
        async with owner_engine.connect() as conn:
            with pytest.raises(DBAPIError, match="only grows"):
                await conn.execute(text(statement.replace("TABLE", table)))


async def test_the_lock_order_is_watched(book: AsyncEngine) -> None:
    allowed = [
        "SELECT 1 FROM kernel.job",
        "UPDATE kernel.job SET attempts = attempts",
        "INSERT INTO kernel.history SELECT * FROM kernel.history",
    ]
    refused = [
        "SELECT 1 FROM kernel.job FOR UPDATE",
        "INSERT INTO kernel.lease (name) VALUES ('x')",
        "WITH gone AS (DELETE FROM kernel.job RETURNING 1) SELECT 1",
        "LOCK TABLE kernel.job",
    ]
    with enforce_lock_order(book):
        async with book.begin() as conn:
            await conn.execute(text("INSERT INTO kernel.lease (name) VALUES ('before')"))
            await post(conn, 1, [move("a", 1)])
            await post(conn, 1, [void_hold(name_id("v"), name_id("a"), code="c")])
            for statement in allowed:
                await conn.execute(text(statement))
        for statement in refused:
            async with book.connect() as conn:
                await post(conn, 1, [reversal(name_id("r"), name_id("a"), code="c")])
                with pytest.raises(LockOrderViolated):
                    await conn.execute(text(statement))
        async with book.begin() as conn:
            await conn.execute(text("INSERT INTO kernel.lease (name) VALUES ('next')"))
    async with book.begin() as conn:
        await post(conn, 1, [move("b", 1)])
        await conn.execute(text("INSERT INTO kernel.lease (name) VALUES ('unwatched')"))
