"""Jobs: rows that say what has to be done and when; the clock only inserts them.

A slot is ``(name, scheduled_for)``: however many schedulers tick, one insert wins. A worker claims
due jobs with a lease and a fence; a job that fails is retried with a growing pause and ends as
``dead``, visibly, when its attempts are used up, until a person revives it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import CursorResult, Row, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel import tracing
from kernel.errors import Refused
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from kernel.leases import CLAIM_MAX, claim, require_one
from kernel.states import StateTable
from kernel.tables import job

JOB_ATTEMPTS_MAX: Final = 20
RETRY_BASE: Final = timedelta(seconds=1)
RETRY_MAX: Final = timedelta(minutes=10)
ERROR_LENGTH_MAX: Final = 2_000


class JobState(StrEnum):
    """Where a job is."""

    READY = "ready"
    DONE = "done"
    DEAD = "dead"


JOB_STATES: Final = StateTable(
    schema="kernel",
    table="job",
    initial=frozenset({JobState.READY}),
    edges=frozenset(
        {
            (JobState.READY, JobState.DONE),
            (JobState.READY, JobState.DEAD),
            (JobState.DEAD, JobState.READY),
        }
    ),
)


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed job: *fence* must be repeated by whoever reports its end."""

    id: UUID
    name: str
    scheduled_for: datetime
    attempts: int
    fence: int
    payload: Mapping[str, Any]
    traceparent: str | None = None
    """Where it was asked for, if that was traced."""


@dataclass(frozen=True, slots=True)
class DeadJob:
    """A job that is not done: its attempts are used up, or it is late; and how the last one failed."""

    name: str
    scheduled_for: datetime
    attempts: int
    last_error: str


async def enqueue(
    conn: AsyncConnection,
    name: str,
    scheduled_for: datetime,
    payload: Mapping[str, Any] | None = None,
    *,
    run_after: datetime | None = None,
) -> bool:
    """Insert the slot unless it exists; tell whether this call inserted it."""
    statement = (
        insert(job)
        .values(
            id=derive_id(scheduled_for, "job", name),
            name=name,
            scheduled_for=scheduled_for,
            state=JobState.READY,
            run_after=run_after or scheduled_for,
            payload=dict(payload or {}),
            traceparent=tracing.current_header(),
        )
        # Whichever unique index two who tick at once meet in first: the id follows from the slot.
        .on_conflict_do_nothing()
    )
    return (await conn.execute(statement)).rowcount == 1


async def find_last_slot(conn: AsyncConnection, name: str) -> datetime | None:
    """Return the newest slot of a job that has a row; None before the first."""
    last: datetime | None = await conn.scalar(
        select(func.max(job.c.scheduled_for)).where(job.c.name == name)
    )
    return last


async def claim_due(
    conn: AsyncConnection,
    names: Sequence[str],
    *,
    holder: str,
    now: datetime,
    lease_for: timedelta,
    limit: int = CLAIM_MAX,
) -> list[Job]:
    """Claim due jobs of the given *names*, oldest slot first."""
    rows = await claim(
        conn,
        job,
        where=(job.c.state == JobState.READY) & job.c.name.in_(names) & (job.c.run_after <= now),
        order_by=(job.c.scheduled_for, job.c.name),
        holder=holder,
        now=now,
        lease_for=lease_for,
        limit=limit,
    )
    return [_to_job(row) for row in rows]


async def claim_in_order(
    conn: AsyncConnection, name: str, *, holder: str, now: datetime, lease_for: timedelta
) -> Job | None:
    """Claim the oldest slot of a job that is not done; None while that one cannot be claimed.

    No slot overtakes another: while the oldest is somebody else's, or waits for its next attempt, the
    later ones wait as well. A dead one waits for a person and holds nobody up.
    """
    oldest = (
        select(func.min(job.c.scheduled_for))
        .where(job.c.name == name, job.c.state == JobState.READY)
        .scalar_subquery()
    )
    rows = await claim(
        conn,
        job,
        where=(job.c.name == name)
        & (job.c.state == JobState.READY)
        & (job.c.run_after <= now)
        & (job.c.scheduled_for == oldest),
        order_by=(job.c.scheduled_for,),
        holder=holder,
        now=now,
        lease_for=lease_for,
        limit=1,
    )
    return next((_to_job(row) for row in rows), None)


async def complete(conn: AsyncConnection, done: Job, *, now: datetime) -> None:
    """Record that *done* has been done.

    Raises:
        StaleFence: another worker has taken the job over; the caller's transaction must not commit.
    """
    result = await _finish(conn, done, state=JobState.DONE, finished_at=now)
    require_one(result, f"job {done.name} of {done.scheduled_for.isoformat()}")


async def retry_later(
    conn: AsyncConnection, failed: Job, *, now: datetime, error: str
) -> JobState | None:
    """Record a failed attempt: the job runs again after a pause, or is dead.

    Returns:
        Where the job is then. None: nothing is recorded, as another worker has taken it over, or it is done
        after all and only the answer to that was lost.
    """
    attempts = failed.attempts + 1
    state = JobState.DEAD if attempts >= JOB_ATTEMPTS_MAX else JobState.READY
    pause = min(RETRY_MAX, RETRY_BASE * 2 ** min(attempts, 16))
    result = await _finish(
        conn,
        failed,
        state=state,
        attempts=attempts,
        run_after=now + pause,
        last_error=error[:ERROR_LENGTH_MAX],
        finished_at=now if state is JobState.DEAD else None,
    )
    return state if result.rowcount else None


async def list_dead(conn: AsyncConnection, *, limit: int = CLAIM_MAX) -> list[DeadJob]:
    """Return jobs that wait for a person, oldest slot first."""
    columns = (job.c.name, job.c.scheduled_for, job.c.attempts, job.c.last_error)
    query = select(*columns).where(job.c.state == JobState.DEAD)
    query = query.order_by(job.c.scheduled_for, job.c.name).limit(min(limit, CLAIM_MAX))
    return [DeadJob(*row) for row in await conn.execute(query)]


async def list_late(
    conn: AsyncConnection, *, before: datetime, limit: int = CLAIM_MAX
) -> list[DeadJob]:
    """Return jobs whose slot was before *before* and that are still to be done, oldest slot first."""
    columns = (job.c.name, job.c.scheduled_for, job.c.attempts, job.c.last_error)
    query = select(*columns).where(job.c.state == JobState.READY, job.c.scheduled_for <= before)
    query = query.order_by(job.c.scheduled_for, job.c.name).limit(min(limit, CLAIM_MAX))
    return [DeadJob(*row) for row in await conn.execute(query)]


async def revive(
    conn: AsyncConnection,
    name: str,
    scheduled_for: datetime,
    *,
    by: str,
    reason: str,
    now: datetime,
) -> None:
    """Let a dead job run again at once, with all its attempts before it.

    Args:
        by: operator id, authenticated by the caller.
        reason: what was put right.

    Raises:
        Refused: there is no such slot, or it is not dead.
    """
    slot = (job.c.name == name) & (job.c.scheduled_for == scheduled_for)
    row = (await conn.execute(select(job).where(slot).with_for_update())).one_or_none()
    what = f"job {name} of {scheduled_for.isoformat()}"
    if row is None or row.state != JobState.DEAD:
        raise Refused(
            f"{what} is {row.state}, not dead" if row else f"there is no {what}",
            where="kernel.job",
            remedy="Only a job whose attempts are used up is revived",
        )
    await conn.execute(
        update(job)
        .where(slot)
        .values(
            state=JobState.READY,
            attempts=0,
            run_after=now,
            finished_at=None,
            # Whoever gave the job up may still be at it: what it reports now comes too late.
            fence=job.c.fence + 1,
        )
    )
    event = DomainEvent(
        entity_type="job",
        entity_id=row.id,
        version=await next_version(conn, "job", row.id),
        name="JobRevived",
        at=now,
        actor=by,
        reason=reason,
        from_state=JobState.DEAD,
        to_state=JobState.READY,
        payload={"name": name, "scheduled_for": scheduled_for.isoformat()},
    )
    await record(conn, [event])


def _to_job(row: Row[Any]) -> Job:
    return Job(
        row.id,
        row.name,
        row.scheduled_for,
        row.attempts,
        row.fence,
        row.payload,
        row.traceparent,
    )


async def _finish(conn: AsyncConnection, item: Job, **values: object) -> CursorResult[Any]:
    """End an attempt, unless the job has ended or another worker has it."""
    return await conn.execute(
        update(job)
        .where(job.c.id == item.id, job.c.fence == item.fence, job.c.state == JobState.READY)
        .values(lease_holder=None, lease_until=None, **values)
    )
