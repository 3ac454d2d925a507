"""Jobs, leases, fences: work is claimed by one, and a worker that comes too late writes nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import constraint_name, transact
from kernel.errors import Refused, StaleFence
from kernel.events import list_history
from kernel.jobs import (
    ERROR_LENGTH_MAX,
    JOB_ATTEMPTS_MAX,
    JOB_STATES,
    RETRY_MAX,
    Job,
    JobState,
    claim_due,
    complete,
    enqueue,
    list_dead,
    retry_later,
    revive,
)
from kernel.leases import give_back, take
from kernel.states import trigger_name, trigger_statements

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


async def add(engine: AsyncEngine, name: str = "settle", at: datetime = NOW) -> bool:
    return await transact(engine, lambda conn: enqueue(conn, name, at, {"n": 1}))


async def due(
    engine: AsyncEngine, *, holder: str = "a", now: datetime = NOW, limit: int = 10
) -> list[Job]:
    return await transact(
        engine,
        lambda conn: claim_due(
            conn, ["settle"], holder=holder, now=now, lease_for=MINUTE, limit=limit
        ),
    )


async def row(engine: AsyncEngine, what: str) -> object:
    async with engine.connect() as conn:
        return await conn.scalar(text(f"SELECT {what} FROM kernel.job"))  # noqa: S608  of this file


async def fail(engine: AsyncEngine, job: Job, now: datetime) -> JobState | None:
    return await transact(engine, lambda c: retry_later(c, job, now=now, error="x" * 5_000))


async def test_a_slot_exists_once_however_many_schedulers_tick(engine: AsyncEngine) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(add(engine)) for _ in range(4)]

    assert sorted(task.result() for task in tasks) == [False, False, False, True]
    assert await add(engine, at=NOW + MINUTE)


async def test_due_jobs_are_claimed_oldest_first_by_one_worker(engine: AsyncEngine) -> None:
    for minutes in (2, 0, 1, 9):
        await add(engine, at=NOW + minutes * MINUTE)
    await add(engine, name="other")

    first = await due(engine, now=NOW + 5 * MINUTE, limit=2)
    second = await due(engine, holder="b", now=NOW + 5 * MINUTE)

    assert [j.scheduled_for for j in first] == [NOW, NOW + MINUTE]
    assert [j.scheduled_for for j in second] == [NOW + 2 * MINUTE]
    assert first[0].payload == {"n": 1}


async def test_a_job_that_is_done_is_done_once(engine: AsyncEngine) -> None:
    await add(engine)
    (job,) = await due(engine)
    await transact(engine, lambda conn: complete(conn, job, now=NOW))

    assert await due(engine, now=NOW + 60 * MINUTE) == []
    assert (await row(engine, "state"), await row(engine, "finished_at")) == ("done", NOW)


async def test_a_job_that_is_done_has_not_failed_because_the_answer_to_that_was_lost(
    engine: AsyncEngine,
) -> None:
    await add(engine)
    (job,) = await due(engine)
    await transact(engine, lambda conn: complete(conn, job, now=NOW))

    assert await fail(engine, job, NOW + MINUTE) is None
    assert (await row(engine, "state"), await row(engine, "finished_at")) == ("done", NOW)
    assert (await row(engine, "attempts"), await row(engine, "last_error")) == (0, None)


async def test_a_worker_that_slept_beyond_its_lease_reports_nothing(engine: AsyncEngine) -> None:
    await add(engine)
    (slow,) = await due(engine)
    (quick,) = await due(engine, holder="b", now=NOW + MINUTE)

    with pytest.raises(StaleFence, match="taken over"):
        await transact(engine, lambda conn: complete(conn, slow, now=NOW))
    assert await fail(engine, slow, NOW) is None
    await transact(engine, lambda conn: complete(conn, quick, now=NOW))


async def test_a_failed_job_is_tried_again_later_and_later(engine: AsyncEngine) -> None:
    await add(engine)
    now, pauses = NOW, []
    for _ in range(4):
        (job,) = await due(engine, now=now)
        await fail(engine, job, now)
        again = await row(engine, "run_after")
        assert isinstance(again, datetime)
        pauses.append((again - now).total_seconds())
        assert await due(engine, now=again - timedelta(milliseconds=1)) == []
        now = again
    assert pauses == [2, 4, 8, 16]


async def test_after_its_last_attempt_a_job_is_dead_and_visible(engine: AsyncEngine) -> None:
    await add(engine)
    now, states = NOW, []
    for _ in range(JOB_ATTEMPTS_MAX):
        (job,) = await due(engine, now=now)
        states.append(await fail(engine, job, now))
        now += RETRY_MAX
    assert states == [JobState.READY] * (JOB_ATTEMPTS_MAX - 1) + [JobState.DEAD]
    assert await due(engine, now=now + RETRY_MAX) == []
    assert await row(engine, "length(last_error)") == ERROR_LENGTH_MAX
    assert await row(engine, "finished_at") is not None


async def test_a_dead_job_is_revived_by_a_person_and_runs_again(engine: AsyncEngine) -> None:
    await add(engine)
    (late,) = await due(engine, now=NOW)
    await fail(engine, late, NOW)
    now = NOW + RETRY_MAX
    for _ in range(JOB_ATTEMPTS_MAX - 1):
        (late,) = await due(engine, now=now)
        await fail(engine, late, now)
        now += RETRY_MAX
    (dead,) = await transact(engine, list_dead)
    assert (dead.name, dead.scheduled_for, dead.attempts) == ("settle", NOW, JOB_ATTEMPTS_MAX)

    await transact(
        engine, lambda c: revive(c, dead.name, NOW, by="ann", reason="bank is back", now=now)
    )

    assert await transact(engine, list_dead) == []
    with pytest.raises(StaleFence):
        await transact(engine, lambda conn: complete(conn, late, now=now))
    (again,) = await due(engine, now=now)
    assert (again.id, again.attempts) == (late.id, 0)
    await transact(engine, lambda conn: complete(conn, again, now=now))
    (told,) = await transact(engine, lambda conn: list_history(conn, "job", again.id))
    assert (told.name, told.actor, told.reason) == ("JobRevived", "ann", "bank is back")


@pytest.mark.parametrize(("slot", "message"), [(NOW, "ready, not dead"), (NOW + MINUTE, "no job")])
async def test_only_a_dead_job_is_revived(
    engine: AsyncEngine, slot: datetime, message: str
) -> None:
    await add(engine)
    with pytest.raises(Refused, match=message):
        await transact(engine, lambda c: revive(c, "settle", slot, by="a", reason="x", now=NOW))


async def test_postgresql_refuses_an_edge_that_does_not_exist(
    engine: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    await add(engine)
    (job,) = await due(engine)
    await transact(engine, lambda conn: complete(conn, job, now=NOW))
    async with owner_engine.connect() as conn:
        with pytest.raises(DBAPIError) as refused:
            await conn.execute(text("UPDATE kernel.job SET state = 'ready'"))
        await conn.rollback()
        source = await conn.scalar(
            text("SELECT prosrc FROM pg_proc WHERE proname = :name"),
            {"name": trigger_name(JOB_STATES)},
        )
    assert constraint_name(refused.value) == "job_state_edges"
    assert source in trigger_statements(JOB_STATES)[0]


# Named leases.


async def lease(
    engine: AsyncEngine, holder: str, at: timedelta = timedelta(0), lease_for: timedelta = MINUTE
) -> int | None:
    return await transact(
        engine,
        lambda conn: take(conn, "leader", holder=holder, now=NOW + at, lease_for=lease_for),
    )


async def test_a_lease_has_one_holder_until_it_ends(engine: AsyncEngine) -> None:
    assert await lease(engine, "a") == 1
    assert await lease(engine, "b", MINUTE - timedelta(microseconds=1)) is None
    assert await lease(engine, "b", MINUTE) == 2
    assert await lease(engine, "a", MINUTE) is None


async def test_renewing_keeps_the_fence_and_coming_back_late_raises_it(engine: AsyncEngine) -> None:
    assert await lease(engine, "a") == 1
    assert await lease(engine, "a", MINUTE / 2) == 1
    assert await lease(engine, "a", 2 * MINUTE) == 2


async def test_a_lease_that_is_given_back_is_free_at_once(engine: AsyncEngine) -> None:
    fence = await lease(engine, "a")
    assert fence is not None
    await transact(engine, lambda c: give_back(c, "leader", holder="a", fence=fence))
    assert await lease(engine, "b") == 2


async def test_what_is_not_ours_any_more_is_not_given_back(engine: AsyncEngine) -> None:
    old = await lease(engine, "a")
    assert old is not None
    assert await lease(engine, "b", MINUTE) == 2
    await transact(engine, lambda c: give_back(c, "leader", holder="a", fence=old))
    assert await lease(engine, "c", MINUTE) is None


async def test_of_many_who_reach_for_a_lease_at_once_one_has_it(engine: AsyncEngine) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(lease(engine, name)) for name in "abcd"]

    fences = [task.result() for task in tasks]
    assert sorted(fence or 0 for fence in fences) == [0, 0, 0, 1]
