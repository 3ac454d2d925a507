"""The writer: many tasks, few commits, every answer after its commit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.clock import ManualClock
from kernel.db import transact
from kernel.errors import BadInput, OutcomeUnknown, OutsideUnavailable
from ledger.accounts import ensure_accounts
from ledger.model import Kind, Transfer, chain
from ledger.outcome import Outcome
from ledger.posting import decided, post
from ledger.queries import get_balance
from ledger.scenarios import START, name_id, play
from ledger.verification import verify
from ledger.writer import Writer

OPENING = """
o  move  custody:w  client:a  100 X  -> created
p  move  custody:w  client:b  100 X  -> created
"""


def move(name: str, amount: int, debit: str = "client:a", credit: str = "client:b") -> Transfer:
    return Transfer(
        id=name_id(name), debit=debit, credit=credit, amount=amount, asset="X", code="test"
    )


@pytest.fixture
async def book(engine: AsyncEngine) -> AsyncEngine:
    assert await play(engine, OPENING) == OPENING
    return engine


async def test_many_tasks_share_few_commits_and_each_gets_its_own_answer(book: AsyncEngine) -> None:
    async with Writer(book, 1) as writer, asyncio.TaskGroup() as group:
        tasks = [group.create_task(writer.submit(move(f"t{n}", 1))) for n in range(150)]

    outcomes = [task.result()[0].outcome for task in tasks]
    assert outcomes.count(Outcome.CREATED) == 100
    assert outcomes.count(Outcome.EXCEEDS_CREDITS) == 50
    assert writer.commits < 10
    assert await verify(book, 1) == []


async def test_what_was_answered_is_committed(book: AsyncEngine) -> None:
    async with Writer(book, 1, clock=ManualClock(START)) as writer:
        [result] = await writer.submit(move("a", 7))
        async with book.connect() as other:
            assert (await decided(other, 1, [name_id("a")]))[
                name_id("a")
            ].sequence == result.sequence


async def test_a_chain_is_never_cut(book: AsyncEngine) -> None:
    async with Writer(book, 1, group_max=3) as writer, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                writer.submit(*chain(move(f"a{n}", 1), move(f"b{n}", 1, "client:b", "client:a")))
            )
            for n in range(10)
        ]

    assert {r.outcome for task in tasks for r in task.result()} == {Outcome.CREATED}
    assert writer.commits == 10
    async with book.connect() as conn:
        assert (await get_balance(conn, 1, "client:a", "X")).posted == 100


async def test_a_submission_that_nothing_could_understand_harms_no_other(book: AsyncEngine) -> None:
    async with Writer(book, 1) as writer:
        with pytest.raises(BadInput):
            await writer.submit(move("negative", -5))
        with pytest.raises(BadInput):
            await writer.submit(chain(move("x", 1), move("y", 1))[0])
        assert (await writer.submit(move("good", 5)))[0].applied
        assert await writer.submit() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"debit": "client:\x00"},
        {"credit": "client:\ud800"},
        {"asset": "X" * 201},
        {"amount": 1.5},
        {"amount": True},
        {"kind": Kind.PENDING, "timeout": timedelta.min},
        {"effective_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))},
        {"effective_at": datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))},
        {"reference": "\ud800"},
        {"metadata": {"note": "\ud800"}},
    ],
    ids=[
        "nul",
        "surrogate",
        "long",
        "float",
        "bool",
        "time",
        "too early",
        "too late",
        "reference",
        "metadata",
    ],
)
async def test_what_postgresql_could_not_read_is_refused_before_it_joins_a_batch(
    book: AsyncEngine, changes: dict[str, Any]
) -> None:
    async with Writer(book, 1) as writer:
        with pytest.raises(BadInput):
            await writer.submit(replace(move("bad", 1), **changes))
        assert (await writer.submit(move("good", 5)))[0].applied


async def test_nobody_waits_for_a_writer_that_ended(book: AsyncEngine) -> None:
    """Its group is cancelled while submitters are held back by a full queue."""
    async with book.begin() as blocker:
        await blocker.exec_driver_sql("SELECT 1 FROM ledger.head FOR UPDATE")
        writer = Writer(book, 1, waiting_max=1)

        async def work_and_end() -> None:
            async with writer:
                await asyncio.sleep(0.05)
                raise KeyError("the process ends")

        async def watch_the_end() -> None:
            with pytest.raises(BaseExceptionGroup):
                await work_and_end()

        async def submit(number: int) -> type[BaseException]:
            with pytest.raises((OutcomeUnknown, OutsideUnavailable)) as caught:
                await writer.submit(move(f"t{number}", 1))
            return caught.type

        async with asyncio.timeout(1.5), asyncio.TaskGroup() as group:
            group.create_task(watch_the_end())
            tasks = [group.create_task(submit(n)) for n in range(6)]

    assert [task.result() for task in tasks] == [OutcomeUnknown] * 6


async def test_a_full_queue_holds_the_submitters_back(book: AsyncEngine) -> None:
    async with book.connect() as blocker:
        transaction = await blocker.begin()
        await blocker.exec_driver_sql("SELECT 1 FROM ledger.head FOR UPDATE")
        async with Writer(book, 1, waiting_max=2) as writer, asyncio.TaskGroup() as group:
            tasks = [group.create_task(writer.submit(move(f"t{n}", 1))) for n in range(8)]
            await asyncio.sleep(0.05)
            assert writer._waiting.qsize() == 2
            assert not any(task.done() for task in tasks)
            await transaction.rollback()

    assert all(task.result()[0].applied for task in tasks)


async def settle(writer: Writer, *names: str) -> list[Outcome]:
    """Submit moves of 10 from client:a to client:b, one after the other."""
    return [(await writer.submit(move(name, 10)))[0].outcome for name in names]


async def test_what_others_do_in_between_counts_for_what_is_carried(book: AsyncEngine) -> None:
    """The balances that a writer carries are its own last word, not the book's."""
    async with Writer(book, 1) as writer:
        assert await settle(writer, "a", "b") == [Outcome.CREATED] * 2
        assert await play(book, "freeze client:b X\n")
        assert await settle(writer, "c", "d") == [Outcome.CREDIT_ACCOUNT_FROZEN] * 2
        assert await play(book, "unfreeze client:b X\n")
        assert await settle(writer, "e") == [Outcome.CREATED]
        [drained] = await transact(
            book, lambda conn: post(conn, 1, [move("x", 70, credit="custody:w")])
        )
        assert drained.applied
        assert await settle(writer, "f", "e", "c") == [
            Outcome.EXCEEDS_CREDITS,
            Outcome.EXISTS,
            Outcome.ID_ALREADY_FAILED,
        ]
        assert await play(book, "limit client:a X 10\n")
        assert await settle(writer, "g", "h") == [Outcome.CREATED, Outcome.EXCEEDS_CREDITS]
    assert await verify(book, 1) == []


async def test_a_hold_that_becomes_due_meanwhile_is_released_first(book: AsyncEngine) -> None:
    clock = ManualClock(START)
    held = replace(move("h", 100), kind=Kind.PENDING, purpose="quote", timeout=timedelta(seconds=5))
    async with Writer(book, 1, clock=clock) as writer:
        await writer.submit(held)
        assert await settle(writer, "a") == [Outcome.EXCEEDS_CREDITS]
        clock.advance(timedelta(seconds=5))
        assert await settle(writer, "b") == [Outcome.CREATED]
    assert await verify(book, 1) == []


async def test_an_id_that_is_in_two_groups_at_once_is_decided_once(book: AsyncEngine) -> None:
    """The second group is decided ahead, before the first is written."""
    async with Writer(book, 1, group_max=2) as writer, asyncio.TaskGroup() as group:
        tasks = [group.create_task(writer.submit(move(f"t{n % 7}", 1))) for n in range(60)]

    results = [task.result()[0] for task in tasks]
    assert [r.outcome for r in results].count(Outcome.CREATED) == 7
    assert {r.outcome for r in results} == {Outcome.CREATED, Outcome.EXISTS}
    assert len({(r.transfer_id, r.sequence) for r in results}) == 7
    assert await verify(book, 1) == []


async def test_what_is_twice_in_a_group_decided_ahead_has_the_time_of_its_block(
    book: AsyncEngine,
) -> None:
    """That time is not known yet when the second of the two is answered by the first."""
    clock = ManualClock(START)
    async with Writer(book, 1, clock=clock) as writer:
        await settle(writer, "a")
        clock.advance(timedelta(seconds=9))
        items = [move("b", 1), move("b", 1), move("c", 1_000), move("c", 1_000)]
        results = await writer.submit(*items)
        assert writer.decided_ahead == 1

    assert [(r.outcome, r.replayed) for r in results] == [
        (Outcome.CREATED, False),
        (Outcome.EXISTS, True),
        (Outcome.EXCEEDS_CREDITS, False),
        (Outcome.ID_ALREADY_FAILED, True),
    ]
    assert {r.recorded_at for r in results} == {START + timedelta(seconds=9)}
    assert results[-1].first is Outcome.EXCEEDS_CREDITS


async def test_history_and_today_are_never_mixed_in_one_commit(book: AsyncEngine) -> None:
    """The first of a batch says whether it is history: somebody else's first is not ours."""
    await play(book, "since custody:old X 2025-12-01\nsince client:old X 2025-12-01\n")
    old = replace(
        move("then", 5, "custody:old", "client:old"),
        imported=True,
        effective_at=START - timedelta(days=9),
    )
    async with Writer(book, 1) as writer, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(writer.submit(item))
            for item in (move("a", 1), old, move("b", 1), replace(old, id=name_id("then too")))
        ]

    assert [task.result()[0].outcome for task in tasks] == [Outcome.CREATED] * 4


async def test_a_closed_writer_takes_nothing_more(book: AsyncEngine) -> None:
    async with Writer(book, 1) as writer:
        pass
    with pytest.raises(OutsideUnavailable):
        await writer.submit(move("late", 1))
    assert await transact(book, lambda conn: decided(conn, 1, [name_id("late")])) == {}


async def test_more_accounts_than_are_carried_are_read_again(book: AsyncEngine) -> None:
    """What is forgotten is what is committed: no balance is lost, no account said to be missing."""
    paths = [f"client:c{n}" for n in range(40)]
    await transact(
        book, lambda conn: ensure_accounts(conn, 1, [(path, "X") for path in paths], now=START)
    )
    funding = [move(f"fund {path}", 20, "custody:w", path) for path in paths]
    moves = [move(f"m{n}", 1, paths[n % 40], paths[(n * 7 + 1) % 40]) for n in range(600)]
    moves = [item for item in moves if item.debit != item.credit]
    async with Writer(book, 1, group_max=25, accounts_max=8) as writer:
        await writer.submit(*funding)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(writer.submit(item)) for item in moves]

    assert {task.result()[0].outcome for task in tasks} == {Outcome.CREATED}
    assert writer.decided_ahead > 0
    assert await verify(book, 1) == []


LOSE_ALL = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE pid <> pg_backend_pid() AND datname = current_database()"
)


async def test_connections_lost_while_it_decides_ahead_end_no_writer(
    book: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    async with Writer(book, 1) as writer:
        assert await settle(writer, "a") == [Outcome.CREATED]
        async with owner_engine.connect() as other:
            await other.execute(LOSE_ALL)
        # An account that is not carried: it would be read ahead, on a connection that is gone.
        [result] = await writer.submit(move("b", 1, "custody:w", "client:new"))
        assert result.outcome is Outcome.CREDIT_ACCOUNT_NOT_FOUND
        assert await settle(writer, "c") == [Outcome.CREATED]


async def test_what_postgresql_refuses_is_answered_and_ends_no_writer(
    book: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    async with owner_engine.begin() as owner:
        await owner.execute(
            text("ALTER TABLE ledger.transfer ADD CONSTRAINT ck_code CHECK (code <> 'refused')")
        )
    async with Writer(book, 1) as writer:
        assert await settle(writer, "a") == [Outcome.CREATED]
        for name in ("b", "c"):
            with pytest.raises(DBAPIError, match="ck_code"):
                await writer.submit(replace(move(name, 10), code="refused"))
        assert await settle(writer, "b", "c") == [Outcome.CREATED] * 2
    assert await verify(book, 1) == []


async def test_who_is_held_back_when_the_writer_closes_is_still_answered(book: AsyncEngine) -> None:
    writer = Writer(book, 1, waiting_max=1, group_max=1)
    async with (
        asyncio.timeout(5),
        asyncio.TaskGroup() as group,
        book.connect() as blocker,
        writer,
    ):
        transaction = await blocker.begin()
        await blocker.exec_driver_sql("SELECT 1 FROM ledger.head FOR UPDATE")
        tasks = [group.create_task(writer.submit(move(f"t{n}", 1))) for n in range(9)]
        await asyncio.sleep(0.1)
        await transaction.rollback()
        # Room has just been made, and who was held back has not had a turn yet.
        while writer._waiting.qsize() > 0:  # noqa: ASYNC110  a moment that nothing announces
            await asyncio.sleep(0)

    assert {task.result()[0].outcome for task in tasks} == {Outcome.CREATED}


async def test_a_writer_that_is_cancelled_while_it_closes_leaves_no_task_behind(
    book: AsyncEngine,
) -> None:
    """Its queue is full, so that not even the end has room in it."""
    writer = Writer(book, 1, waiting_max=1, group_max=1)

    async def submit(name: str) -> None:
        with pytest.raises(OutcomeUnknown):
            await writer.submit(move(name, 1))

    async def work() -> None:
        async with writer:
            await asyncio.sleep(0.1)

    async with book.begin() as blocker, asyncio.timeout(5), asyncio.TaskGroup() as group:
        await blocker.exec_driver_sql("SELECT 1 FROM ledger.head FOR UPDATE")
        working = group.create_task(work())
        await asyncio.sleep(0)
        for n in range(9):
            group.create_task(submit(f"t{n}"))
        await asyncio.sleep(0.2)
        assert not working.done()
        working.cancel()

    assert [t.get_name() for t in asyncio.all_tasks() if "ledger writer" in t.get_name()] == []


async def test_a_writer_whose_book_others_write_to_decides_again(book: AsyncEngine) -> None:
    """Groups are decided ahead, others post in between, and every balance is still the right one."""
    async with Writer(book, 1, group_max=20) as writer, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(writer.submit(*(move(f"w{n}.{k}", 1) for k in range(10))))
            for n in range(40)
        ]
        for n in range(30):
            other = move(f"other {n}", 1)
            await transact(book, lambda conn: post(conn, 1, [other]))  # noqa: B023  run at once

    outcomes = [result.outcome for task in tasks for result in task.result()]
    assert outcomes.count(Outcome.CREATED) + outcomes.count(Outcome.EXCEEDS_CREDITS) == 400
    assert await verify(book, 1) == []
