"""Rows of settlement to values and back; private to the package."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    CursorResult,
    Row,
    Text,
    Uuid,
    any_,
    bindparam,
    func,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.db import Timestamp, Units
from kernel.rows import insert_new_rows, insert_rows
from settlement.errors import ChangedMeanwhile, RunNotFound
from settlement.model import (
    OBLIGATION_STATES,
    RUN_STATES,
    Direction,
    Obligation,
    ObligationState,
    Run,
    RunState,
)
from settlement.tables import (
    obligation,
    run,
)

OBLIGATIONS_PER_RUN_MAX = 4_000
"""Of a run of all parties; a cycle of runs takes more (`settlement.cycles`)."""
PAGE_MAX: Final = 1_000

_IDS: Final = bindparam("ids", type_=ARRAY(Uuid))
_RUNS: Final = bindparam("runs", type_=ARRAY(Uuid))


# The rows are named one by one, so the look-up is one in the index whatever the plan.
_MOVE_MEMBERS: Final = text(
    "UPDATE settlement.obligation AS o SET state = :state, run_id = new.run_id,"
    " version = o.version + 1"
    " FROM unnest(CAST(:ids AS uuid[]), CAST(:runs AS uuid[])) AS new (id, run_id)"
    " WHERE o.id = new.id AND o.state = ANY (CAST(:before AS text[]))"
)


_REOPEN: Final = (
    text(
        "UPDATE settlement.obligation AS o SET state = 'open', version = o.version + 1"
        " FROM unnest(CAST(:deals AS uuid[]), CAST(:legs AS text[])) AS given (deal_id, leg)"
        " WHERE o.deal_id = given.deal_id AND o.leg = given.leg AND o.state = 'withdrawn'"
        " RETURNING o.*"
    )
    .bindparams(bindparam("deals", type_=ARRAY(Uuid)), bindparam("legs", type_=ARRAY(Text)))
    .columns(amount=Units(), created_at=Timestamp())
)


async def insert_obligations(
    conn: AsyncConnection, book: int, items: Sequence[Obligation]
) -> list[Obligation]:
    """Insert what is new (by deal and leg) and return it.

    What was withdrawn and is owed after all is open again, and returned too.
    """
    if not items:
        return []
    reopened = await conn.execute(
        _REOPEN, {"deals": [o.deal_id for o in items], "legs": [o.leg for o in items]}
    )
    again = [to_obligation(row) for row in reopened]
    new = await insert_new_rows(conn, obligation, [_obligation_row(book, o) for o in items])
    return [o for o in items if o.id in new] + again


async def lock_open_obligations(
    conn: AsyncConnection,
    book: int,
    value_date: date,
    *,
    known_by: datetime | None = None,
    limit: int = OBLIGATIONS_PER_RUN_MAX,
) -> list[Obligation]:
    """Lock and return what is open, due on *value_date* or before, and known by a moment."""
    rows = await conn.execute(
        select(obligation)
        .where(*_is_due(book, value_date, known_by))
        .order_by(obligation.c.value_date, obligation.c.id)
        .limit(limit)
        .with_for_update()
    )
    return [to_obligation(row) for row in rows]


async def count_open_obligations(
    conn: AsyncConnection, book: int, value_date: date, *, known_by: datetime | None = None
) -> int:
    """Return how many obligations `lock_open_obligations` would find without a limit."""
    query = select(func.count()).select_from(obligation)
    return int(await conn.scalar(query.where(*_is_due(book, value_date, known_by))) or 0)


def _is_due(
    book: int, value_date: date, known_by: datetime | None
) -> tuple[ColumnElement[bool], ...]:
    due = (
        obligation.c.book == book,
        obligation.c.state == ObligationState.OPEN,
        obligation.c.value_date <= value_date,
    )
    return due if known_by is None else (*due, obligation.c.created_at <= known_by)


async def lock_run_obligations(conn: AsyncConnection, *run_ids: UUID) -> list[Obligation]:
    """Lock and return the obligations that belong to runs, disputed ones included."""
    return [item for item, _ in await lock_members(conn, run_ids)]


async def lock_members(
    conn: AsyncConnection, run_ids: Collection[UUID]
) -> list[tuple[Obligation, UUID]]:
    """Lock and return the obligations that belong to runs, each with its run."""
    rows = await conn.execute(
        select(obligation)
        .where(obligation.c.run_id == any_(_IDS))
        .order_by(obligation.c.value_date, obligation.c.id)
        .with_for_update(),
        {_IDS.key: list(run_ids)},
    )
    return [(to_obligation(row), row.run_id) for row in rows]


async def lock_deal_obligations(conn: AsyncConnection, deal_id: UUID) -> list[Obligation]:
    """Lock and return the obligations of a deal."""
    rows = await conn.execute(
        select(obligation)
        .where(obligation.c.deal_id == deal_id)
        .order_by(obligation.c.value_date, obligation.c.id)
        .with_for_update()
    )
    return [to_obligation(row) for row in rows]


async def list_obligations(
    conn: AsyncConnection,
    book: int,
    states: Collection[ObligationState],
    *,
    party: str | None = None,
    due_by: date | None = None,
    after: tuple[date, UUID] | None = None,
    limit: int = PAGE_MAX,
) -> list[Obligation]:
    """Return a page of obligations in the given states, by value date and id.

    Args:
        conn: a connection.
        book: the book.
        states: those asked for.
        party: only what is owed to or by it.
        due_by: only what is due by then.
        after: value date and id of the last one of the page before.
        limit: at most `PAGE_MAX`.
    """
    query = select(obligation).where(obligation.c.book == book, obligation.c.state.in_(states))
    if party is not None:
        query = query.where(obligation.c.party == party)
    if due_by is not None:
        query = query.where(obligation.c.value_date <= due_by)
    if after is not None:
        query = query.where(tuple_(obligation.c.value_date, obligation.c.id) > tuple_(*after))
    rows = await conn.execute(
        query.order_by(obligation.c.value_date, obligation.c.id).limit(min(limit, PAGE_MAX))
    )
    return [to_obligation(row) for row in rows]


async def every_obligation(
    conn: AsyncConnection, book: int, states: Collection[ObligationState]
) -> AsyncIterator[Obligation]:
    """Give every obligation in the given states, by value date and id, a page at a time."""
    page = await list_obligations(conn, book, states)
    while page:
        for item in page:
            yield item
        last = page[-1]
        page = await list_obligations(conn, book, states, after=(last.value_date, last.id))


async def list_obligations_of(conn: AsyncConnection, deal_id: UUID) -> list[Obligation]:
    """Return the obligations of a deal, by leg."""
    rows = await conn.execute(
        select(obligation).where(obligation.c.deal_id == deal_id).order_by(obligation.c.leg)
    )
    return [to_obligation(row) for row in rows]


async def find_obligation(
    conn: AsyncConnection, obligation_id: UUID
) -> tuple[Obligation, UUID | None] | None:
    """Return an obligation and the run it is in, if there is one of that id."""
    query = select(obligation).where(obligation.c.id == obligation_id)
    row = (await conn.execute(query)).first()
    return None if row is None else (to_obligation(row), row.run_id)


async def find_obligations(conn: AsyncConnection, ids: Collection[UUID]) -> list[Obligation]:
    """Return the obligations of these ids, by value date."""
    rows = await conn.execute(
        select(obligation)
        .where(obligation.c.id == any_(_IDS))
        .order_by(obligation.c.value_date, obligation.c.id),
        {_IDS.key: list(ids)},
    )
    return [to_obligation(row) for row in rows]


async def move_obligations(
    conn: AsyncConnection,
    items: Collection[Obligation],
    state: ObligationState,
    *,
    run_id: UUID | None,
) -> None:
    """Move locked obligations along an edge; each counts one event more."""
    for item in items:
        OBLIGATION_STATES.require(item.state, state)
    if items:
        result = await conn.execute(
            update(obligation)
            .where(
                obligation.c.id == any_(_IDS),
                obligation.c.state.in_({item.state for item in items}),
            )
            .values(state=state, run_id=run_id, version=obligation.c.version + 1),
            {_IDS.key: [item.id for item in items]},
        )
        require_rows(result, len(items), "obligations")


async def move_members(
    conn: AsyncConnection, items: Collection[tuple[Obligation, UUID | None]], state: ObligationState
) -> None:
    """Move locked obligations along an edge, each to a run of its own, in one statement."""
    for item, _ in items:
        OBLIGATION_STATES.require(item.state, state)
    if not items:
        return
    result = await conn.execute(
        _MOVE_MEMBERS,
        {
            "state": str(state),
            "before": sorted({str(item.state) for item, _ in items}),
            _IDS.key: [item.id for item, _ in items],
            _RUNS.key: [run_id for _, run_id in items],
        },
    )
    require_rows(result, len(items), "obligations")


async def sum_unsealed(
    conn: AsyncConnection, book: int, parties: Collection[str]
) -> dict[tuple[str, str, Direction], int]:
    """Return what the unsealed obligations of *parties* come to, by party, asset and direction."""
    unsealed = (
        ObligationState.OPEN,
        ObligationState.CALCULATED,
        ObligationState.AFFIRMED,
        ObligationState.DISPUTED,
    )
    keys = (obligation.c.party, obligation.c.asset, obligation.c.direction)
    rows = await conn.execute(
        select(*keys, func.sum(obligation.c.amount).label("total"))
        .where(
            obligation.c.book == book,
            obligation.c.party.in_(parties),
            obligation.c.state.in_(unsealed),
        )
        .group_by(*keys)
    )
    return {(r.party, r.asset, Direction(r.direction)): int(r.total) for r in rows}


async def discharged_deals(conn: AsyncConnection, deal_ids: Collection[UUID]) -> list[UUID]:
    """Return those of the deals of which every obligation is discharged, by id."""
    rows = await conn.execute(
        select(obligation.c.deal_id)
        .where(obligation.c.deal_id == any_(_IDS))
        .group_by(obligation.c.deal_id)
        .having(func.bool_and(obligation.c.state == ObligationState.DISCHARGED))
        .order_by(obligation.c.deal_id),
        {_IDS.key: list(deal_ids)},
    )
    return list(rows.scalars())


async def insert_run(conn: AsyncConnection, new: Run) -> bool:
    """Insert the run unless its slot has one; tell whether it was new."""
    known = "ON CONFLICT DO NOTHING"
    return await insert_rows(conn, run, [_run_row(new)], known=known) == 1


async def insert_runs(conn: AsyncConnection, items: Sequence[Run]) -> None:
    """Insert the runs of a cycle; its row is locked, so nobody else inserts the same."""
    await insert_rows(conn, run, [_run_row(item) for item in items])


async def lock_runs(
    conn: AsyncConnection,
    *,
    cycle_id: UUID | None = None,
    only: Collection[UUID] | None = None,
    states: Collection[RunState] | None = None,
) -> list[Run]:
    """Lock and return runs, by id."""
    query = select(run).order_by(run.c.id).with_for_update()
    values: dict[str, Any] = {}
    if cycle_id is not None:
        query = query.where(run.c.cycle_id == cycle_id)
    if only is not None:
        query = query.where(run.c.id == any_(_IDS))
        values[_IDS.key] = list(only)
    if states is not None:
        query = query.where(run.c.state.in_(states))
    return [to_run(row) for row in await conn.execute(query, values)]


async def list_cycle_runs(conn: AsyncConnection, cycle_id: UUID) -> list[Run]:
    """Return the runs of a cycle, by party and netting set."""
    rows = await conn.execute(
        select(run).where(run.c.cycle_id == cycle_id).order_by(run.c.party, run.c.netting_set)
    )
    return [to_run(row) for row in rows]


async def count_members(conn: AsyncConnection, run_ids: Collection[UUID]) -> dict[UUID, int]:
    """Return how many obligations are in each run."""
    rows = await conn.execute(
        select(obligation.c.run_id, func.count().label("members"))
        .where(obligation.c.run_id == any_(_IDS))
        .group_by(obligation.c.run_id),
        {_IDS.key: list(run_ids)},
    )
    return {row.run_id: int(row.members) for row in rows}


async def lock_run(conn: AsyncConnection, run_id: UUID) -> Run:
    """Lock and return a run."""
    row = (await conn.execute(select(run).where(run.c.id == run_id).with_for_update())).first()
    if row is None:
        raise RunNotFound(f"there is no settlement run {run_id}")
    return to_run(row)


async def get_run(conn: AsyncConnection, run_id: UUID) -> Run:
    """Return a run."""
    row = (await conn.execute(select(run).where(run.c.id == run_id))).first()
    if row is None:
        raise RunNotFound(f"there is no settlement run {run_id}")
    return to_run(row)


async def find_run(conn: AsyncConnection, book: int, value_date: date, window: str) -> Run | None:
    """Return the run of a window, if it has been calculated."""
    row = (
        await conn.execute(
            select(run).where(
                run.c.book == book,
                run.c.value_date == value_date,
                run.c.window == window,
                run.c.party == "",
            )
        )
    ).first()
    return None if row is None else to_run(row)


async def list_runs(
    conn: AsyncConnection,
    book: int,
    states: Collection[RunState],
    *,
    after: tuple[date, UUID] | None = None,
    limit: int = PAGE_MAX,
) -> list[Run]:
    """Return a page of runs in the given states, by value date and id; at most `PAGE_MAX`."""
    query = select(run).where(run.c.book == book, run.c.state.in_(states))
    if after is not None:
        query = query.where(tuple_(run.c.value_date, run.c.id) > tuple_(*after))
    rows = await conn.execute(
        query.order_by(run.c.value_date, run.c.id).limit(min(limit, PAGE_MAX))
    )
    return [to_run(row) for row in rows]


async def every_run(
    conn: AsyncConnection, book: int, states: Collection[RunState]
) -> AsyncIterator[Run]:
    """Give every run in the given states, by value date and id, a page at a time."""
    page = await list_runs(conn, book, states)
    while page:
        for item in page:
            yield item
        page = await list_runs(conn, book, states, after=(page[-1].value_date, page[-1].id))


async def move_run(
    conn: AsyncConnection,
    item: Run,
    state: RunState,
    *,
    version: int,
    affirm_until: datetime | None = None,
) -> None:
    """Move a locked run along an edge, or to its next version; its time to affirm may change."""
    RUN_STATES.require(item.state, state)
    result = await conn.execute(
        update(run)
        .where(run.c.id == item.id, run.c.state == item.state)
        .values(state=state, version=version, affirm_until=affirm_until or item.affirm_until)
    )
    require_rows(result, 1, f"run {item.id}")


async def move_runs(conn: AsyncConnection, items: Collection[Run], state: RunState) -> None:
    """Move locked runs along an edge in one statement."""
    for item in items:
        RUN_STATES.require(item.state, state)
    if items:
        result = await conn.execute(
            update(run)
            .where(run.c.id == any_(_IDS), run.c.state.in_({item.state for item in items}))
            .values(state=state),
            {_IDS.key: [item.id for item in items]},
        )
        require_rows(result, len(items), "runs")


def require_rows(result: CursorResult[Any], count: int, what: str) -> None:
    """Refuse to go on when a write met other rows than were read."""
    if result.rowcount != count:
        raise ChangedMeanwhile(
            f"{what} changed meanwhile: {result.rowcount} of {count} rows were as read"
        )


def _obligation_row(book: int, o: Obligation) -> dict[str, Any]:
    return {
        "id": o.id,
        "book": book,
        "deal_id": o.deal_id,
        "leg": o.leg,
        "party": o.party,
        "asset": o.asset,
        "amount": o.amount,
        "direction": o.direction,
        "value_date": o.value_date,
        "state": o.state,
        "version": o.version,
        "created_at": o.created_at,
        "trade_date": o.trade_date,
        "product": o.product,
    }


def to_obligation(row: Row[Any]) -> Obligation:
    """Return an obligation from its row."""
    return Obligation(
        id=row.id,
        deal_id=row.deal_id,
        leg=row.leg,
        party=row.party,
        asset=row.asset,
        amount=row.amount,
        direction=Direction(row.direction),
        value_date=row.value_date,
        created_at=row.created_at,
        state=ObligationState(row.state),
        version=row.version,
        trade_date=row.trade_date,
        product=row.product,
    )


def _run_row(item: Run) -> dict[str, Any]:
    return {
        "id": item.id,
        "book": item.book,
        "value_date": item.value_date,
        "window": item.window,
        "state": item.state,
        "version": item.version,
        "created_at": item.created_at,
        "party": item.party,
        "netting_set": item.netting_set,
        "cycle_id": item.cycle_id,
        "affirm_until": item.affirm_until,
        "top_up_until": item.top_up_until,
        "release_at": item.release_at,
    }


def to_run(row: Row[Any]) -> Run:
    """Return the run of a row."""
    return Run(
        id=row.id,
        book=row.book,
        value_date=row.value_date,
        window=row.window,
        state=RunState(row.state),
        version=row.version,
        created_at=row.created_at,
        party=row.party,
        netting_set=row.netting_set,
        cycle_id=row.cycle_id,
        affirm_until=row.affirm_until,
        top_up_until=row.top_up_until,
        release_at=row.release_at,
    )
