"""Many posters of one book, side by side: no deadlock, no lost update, one answer for each id."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.databases import Database
from kernel.db import APP_ROLE, POOL_SIZE_MAX, create_engine, sqlstate, transact
from kernel.errors import CommitUnknown
from ledger.accounts import ensure_accounts
from ledger.model import PostResult, Transfer, chain, transfer
from ledger.outcome import Outcome
from ledger.posting import decided, post
from ledger.queries import head, list_transfers, trial_balance
from ledger.scenarios import name_id, play
from ledger.verification import verify
from ledger.writer import Writer
from tests.crash.ledger.wire import Step, is_lock, wired

CLIENTS = tuple(f"client:{name}" for name in "abcdef")
OPENING = "".join(f"o{path}  move  custody:w  {path}  1000 X  -> created\n" for path in CLIENTS)
TASKS = 40
SUBMITTERS = 20
BATCHES = 5
IDLE_MS = 60_000
DEADLOCK = "40P01"


def move(name: str, amount: int, debit: str = "client:a", credit: str = "client:b") -> Transfer:
    return transfer(name_id(name), debit, credit, amount, "X", code="test")


@pytest.fixture
async def book(engine: AsyncEngine) -> AsyncEngine:
    assert await play(engine, OPENING) == OPENING
    return engine


@asynccontextmanager
async def engines(database: Database, connections: int) -> AsyncIterator[list[AsyncEngine]]:
    """Give engines that have so many connections together; none of them may meet a deadlock."""
    met: list[str | None] = []

    def note(context: ExceptionContext) -> None:
        met.append(sqlstate(context.original_exception))

    async with AsyncExitStack() as stack:
        made = []
        for _ in range(connections // POOL_SIZE_MAX):
            engine = create_engine(
                database.app_url,
                role=APP_ROLE,
                pool_size=POOL_SIZE_MAX,
                idle_in_transaction_timeout_ms=IDLE_MS,
            )
            stack.push_async_callback(engine.dispose)
            event.listen(engine.sync_engine, "handle_error", note)
            made.append(engine)
        yield made
    assert DEADLOCK not in met


@dataclass
class Crowd:
    """What everybody posts, and every answer that anybody got."""

    chance: random.Random
    answers: dict[str, list[PostResult]] = field(default_factory=dict)
    asked: dict[str, Transfer] = field(default_factory=dict)

    def batch(self, who: str, number: int) -> list[tuple[str, Transfer]]:
        """Return a batch in any order of accounts: some items are everybody's, some only ours."""
        items: list[tuple[str, int, str, str]] = []
        for n in range(self.chance.randint(1, 5)):
            debit, credit = self.chance.sample([*CLIENTS, "custody:w"], 2)
            items.append((f"{who}-{number}-{n}", self.chance.randint(0, 400), debit, credit))
        shared = self.chance.randrange(30)
        items.insert(
            self.chance.randint(0, len(items)),
            (f"shared-{shared}", 3, CLIENTS[shared % 6], CLIENTS[(shared + 1) % 6]),
        )
        batch = [(item[0], move(*item)) for item in items]
        if self.chance.random() < 0.3:
            linked = chain(*(item for _, item in batch))
            batch = [(name, item) for (name, _), item in zip(batch, linked, strict=True)]
        self.asked |= dict(batch)
        return batch

    def heard(self, batch: list[tuple[str, Transfer]], results: list[PostResult]) -> None:
        """Note the answers to a batch."""
        for (name, _), result in zip(batch, results, strict=True):
            self.answers.setdefault(name, []).append(result)


async def test_two_writers_and_forty_tasks_lose_and_double_nothing(
    book: AsyncEngine, database: Database, record_property: Callable[[str, object], None]
) -> None:
    crowd = Crowd(random.Random(random.getrandbits(32)))

    async def task(number: int, engine: AsyncEngine) -> None:
        for n in range(BATCHES):
            batch = crowd.batch(f"task-{number}", n)
            items = [item for _, item in batch]
            crowd.heard(batch, await transact(engine, lambda conn: post(conn, 1, items)))  # noqa: B023  run at once

    async def submitter(number: int, writer: Writer) -> None:
        for n in range(BATCHES):
            batch = crowd.batch(f"submitter-{number}", n)
            crowd.heard(batch, await writer.submit(*(item for _, item in batch)))

    async with (
        engines(database, TASKS) as many,
        engines(database, 2 * POOL_SIZE_MAX) as own,
        Writer(own[0], 1) as first,
        Writer(own[1], 1) as second,
        asyncio.TaskGroup() as group,
    ):
        for number in range(TASKS):
            group.create_task(task(number, many[number % len(many)]))
        for number in range(SUBMITTERS):
            group.create_task(submitter(number, (first, second)[number % 2]))

    outcomes = Counter(result.outcome for said in crowd.answers.values() for result in said)
    told = ", ".join(f"{times} {outcome}" for outcome, times in sorted(outcomes.items()))
    record_property("counts", f"two writers and forty tasks: {told}")
    assert set(outcomes) >= {Outcome.CREATED, Outcome.EXISTS, Outcome.EXCEEDS_CREDITS}
    await one_answer_for_each_id(book, crowd)
    await nothing_is_lost(book, crowd)
    assert await verify(book, 1) == []


async def one_answer_for_each_id(engine: AsyncEngine, crowd: Crowd) -> None:
    """Whoever asks, and however often: it is decided once, and everybody is told the same."""
    ids = {item.id: name for name, item in crowd.asked.items()}
    async with engine.connect() as conn:
        recorded = await decided(conn, 1, ids)
    for transfer_id, name in ids.items():
        said = crowd.answers[name]
        first = [r for r in said if r.sequence is not None and not r.replayed]
        assert len(first) == (transfer_id in recorded)
        for result in said:
            if result.sequence is not None:
                assert result.sequence == recorded[transfer_id].sequence
                assert result.amount == recorded[transfer_id].amount
        assert sum(result.outcome is Outcome.CREATED for result in said) <= 1


async def nothing_is_lost(engine: AsyncEngine, crowd: Crowd) -> None:
    """Every balance is the sum of the transfers that were answered `created`, and no other."""
    expected = dict.fromkeys([*CLIENTS, "custody:w"], 0)
    for path in CLIENTS:
        expected[path], expected["custody:w"] = 1000, expected["custody:w"] + 1000
    for name, said in crowd.answers.items():
        if any(result.outcome is Outcome.CREATED for result in said):
            item = crowd.asked[name]
            expected[item.debit] += item.amount if item.debit == "custody:w" else -item.amount
            expected[item.credit] -= item.amount if item.credit == "custody:w" else -item.amount
    async with engine.connect() as conn:
        rows = await trial_balance(conn, 1)
        sequences = [row.sequence for row in await list_transfers(conn, 1)]
        assert (await head(conn, 1)).sequence >= len(sequences)
    assert {row.path: row.balance for row in rows} == expected
    assert sum(row.debits - row.credits for row in rows) == 0
    assert min(row.balance for row in rows if row.path in CLIENTS) >= 0
    assert sequences == sorted(set(sequences))


async def test_what_two_submit_at_once_is_created_for_one_and_exists_for_the_other(
    book: AsyncEngine, database: Database
) -> None:
    async with (
        engines(database, 2 * POOL_SIZE_MAX) as own,
        Writer(own[0], 1) as first,
        Writer(own[1], 1) as second,
        asyncio.TaskGroup() as group,
    ):
        tasks = [
            (
                group.create_task(first.submit(move(f"t{n}", 1))),
                group.create_task(second.submit(move(f"t{n}", 1))),
            )
            for n in range(60)
        ]

    pairs = [tuple(task.result()[0] for task in pair) for pair in tasks]
    for pair in pairs:
        assert sorted(result.outcome for result in pair) == [Outcome.CREATED, Outcome.EXISTS]
        assert len({(r.sequence, r.amount, r.recorded_at) for r in pair}) == 1
    async with book.connect() as conn:
        assert (await list_transfers(conn, 1))[-1].sequence == (await head(conn, 1)).sequence
    assert await verify(book, 1) == []


async def test_accounts_in_opposite_order_do_not_deadlock(
    book: AsyncEngine, database: Database
) -> None:
    """Each opens two accounts and posts between them, first one way round, then the other."""

    async def there_and_back(engine: AsyncEngine, number: int) -> None:
        paths = [f"client:x{number % 5}", f"client:x{(number + 1) % 5}"]
        ordered = paths if number % 2 else paths[::-1]

        async def work(conn: AsyncConnection) -> list[PostResult]:
            await ensure_accounts(conn, 1, [(path, "X") for path in ordered])
            return await post(conn, 1, [move(f"x{number}", 0, *ordered)])

        assert (await transact(engine, work, attempts_max=1))[0].applied

    async with engines(database, 20) as many, asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(there_and_back(many[number % 2], number))


def at_commit(*, answered: bool) -> Callable[[Step], bool]:
    """Cut the first COMMIT after a posting, before the server has it or before its answer comes."""
    posted, done = [False], [False]

    def watch(step: Step) -> bool:
        posted[0] |= is_lock(step)
        if done[0] or not (posted[0] and step.sql.startswith("COMMIT")):
            return False
        done[0] = step.answered is answered
        return done[0]

    return watch


@pytest.mark.parametrize("answered", [True, False], ids=["committed", "never committed"])
async def test_decided_answers_after_a_lost_commit(
    book: AsyncEngine, database: Database, *, answered: bool
) -> None:
    items = [move("a", 600), move("b", 600), move("c", 0, "client:a", "client:a")]
    async with wired(database.app_url) as wire:
        engine = create_engine(wire.url, role=APP_ROLE)
        wire.watch = at_commit(answered=answered)
        with pytest.raises(CommitUnknown):
            await transact(engine, lambda conn: post(conn, 1, items))
        assert wire.cuts == 1
        found = await transact(engine, lambda conn: decided(conn, 1, [i.id for i in items]))
        again = await transact(engine, lambda conn: post(conn, 1, items))
        await engine.dispose()

    outcomes = {result.transfer_id: result.outcome for result in found.values()}
    first = {name_id("a"): Outcome.CREATED, name_id("b"): Outcome.EXCEEDS_CREDITS}
    assert outcomes == (first if answered else {})
    assert [result.outcome for result in again] == (
        [Outcome.EXISTS, Outcome.ID_ALREADY_FAILED, Outcome.ACCOUNTS_MUST_BE_DIFFERENT]
        if answered
        else [Outcome.CREATED, Outcome.EXCEEDS_CREDITS, Outcome.ACCOUNTS_MUST_BE_DIFFERENT]
    )
    assert await verify(book, 1) == []


@pytest.mark.parametrize("answered", [True, False], ids=["committed", "never committed"])
async def test_a_writer_tells_every_submitter_of_a_lost_commit_and_goes_on(
    book: AsyncEngine, database: Database, *, answered: bool
) -> None:
    async def submit(writer: Writer, number: int) -> bool:
        """Return whether the answer was lost; then the same ids are asked again."""
        item = move(f"t{number}", 1)
        try:
            assert (await writer.submit(item))[0].outcome is Outcome.CREATED
        except CommitUnknown:
            there = await transact(book, lambda conn: decided(conn, 1, [item.id]))
            [result] = await writer.submit(item)
            assert result.outcome is (Outcome.EXISTS if there else Outcome.CREATED)
            assert bool(there) is answered
            return True
        return False

    async with wired(database.app_url) as wire:
        engine = create_engine(wire.url, role=APP_ROLE)
        wire.watch = at_commit(answered=answered)
        async with Writer(engine, 1) as writer, asyncio.TaskGroup() as group:
            tasks = [group.create_task(submit(writer, number)) for number in range(50)]
        await engine.dispose()

    assert any(task.result() for task in tasks)
    async with book.connect() as conn:
        rows = await trial_balance(conn, 1)
    assert {row.path: row.balance for row in rows}["client:b"] == 1050
    assert await verify(book, 1) == []


async def test_a_head_held_too_long_is_an_error_that_says_so(book: AsyncEngine) -> None:
    """Nobody waits for ever: PostgreSQL ends the wait, and `transact` asks again."""
    async with book.connect() as blocker:
        transaction = await blocker.begin()
        await blocker.exec_driver_sql("SELECT 1 FROM ledger.head FOR UPDATE")
        async with book.connect() as conn:
            await conn.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
            with pytest.raises(DBAPIError, match="lock timeout") as caught:
                await post(conn, 1, [move("a", 1)])
        assert sqlstate(caught.value) == "55P03"
        await transaction.rollback()
    [result] = await transact(book, lambda conn: post(conn, 1, [move("a", 1)]))
    assert result.outcome is Outcome.CREATED
