"""Rows of venue reconciliation to values and back. Private to this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, Select, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.clock import iso
from kernel.rows import insert_rows, update_rows
from trading.errors import NoVenueBreak
from trading.venue_reconciliation_model import (
    BreakState,
    Outcome,
    ReconciliationRow,
    ReconciliationRun,
    VenueBreak,
    VenueReconciled,
)
from trading.venue_reconciliation_tables import venue_break, venue_reconciliation, venue_window

PAGE_MAX: Final = 500
STANDING_PAGE: Final = 5_000
ACCOUNT_LOCK: Final = ""


@dataclass(frozen=True, slots=True)
class Window:
    """Up to where the trades of a symbol were compared, and where the run before that began."""

    cursor: str
    at: datetime | None
    earlier_cursor: str
    earlier_at: datetime | None


async def lock_account(
    conn: AsyncConnection, book: int, venue: str, account: str, *, now: datetime
) -> None:
    """Let one transaction at a time record what was found of an account.

    The lock is the row of `trading.venue_window` that names no symbol.
    """
    statement = insert(venue_window).values(
        book=book,
        venue=venue,
        account=account,
        symbol=ACCOUNT_LOCK,
        cursor="",
        earlier_cursor="",
        updated_at=now,
    )
    await conn.execute(
        statement.on_conflict_do_update(
            index_elements=["book", "venue", "account", "symbol"], set_={"updated_at": now}
        )
    )


async def began_later(conn: AsyncConnection, run: ReconciliationRun) -> bool:
    """Tell whether a run is on record that began after *run* did: it has seen more."""
    table = venue_reconciliation
    found = await conn.scalar(
        select(table.c.id)
        .where(
            table.c.book == run.book,
            table.c.venue == run.venue,
            table.c.account == run.account,
            table.c.started_at > run.started_at,
        )
        .limit(1)
    )
    return found is not None


async def insert_run(conn: AsyncConnection, run: ReconciliationRun) -> None:
    """Write a run."""
    await conn.execute(
        insert(venue_reconciliation).values(
            id=run.id,
            book=run.book,
            venue=run.venue,
            account=run.account,
            started_at=run.started_at,
            finished_at=run.finished_at,
            outcome=str(run.outcome),
            inputs_hash=run.inputs_hash,
            counts=dict(run.counts),
            balances=[_balance(item) for item in run.balances],
            breaks=[str(break_id) for break_id in run.breaks],
        )
    )


async def list_runs(
    conn: AsyncConnection, venue: str, account: str, *, limit: int = PAGE_MAX
) -> list[ReconciliationRow]:
    """Return the runs of an account, newest first."""
    rows = await conn.execute(
        select(venue_reconciliation)
        .where(venue_reconciliation.c.venue == venue, venue_reconciliation.c.account == account)
        .order_by(venue_reconciliation.c.started_at.desc(), venue_reconciliation.c.id.desc())
        .limit(min(limit, PAGE_MAX))
    )
    return [_run_of(row) for row in rows]


async def standing_breaks(
    conn: AsyncConnection, book: int, venue: str, account: str, *, lock: bool = False
) -> list[VenueBreak]:
    """Return every break of an account that is not closed, oldest first."""
    found: list[VenueBreak] = []
    while True:
        query = select(venue_break).where(
            venue_break.c.book == book,
            venue_break.c.venue == venue,
            venue_break.c.account == account,
            venue_break.c.state != str(BreakState.CLOSED),
        )
        query = _behind(query, found[-1] if found else None).limit(STANDING_PAGE)
        page = (await conn.execute(query.with_for_update() if lock else query)).all()
        found += [break_of(row) for row in page]
        if len(page) < STANDING_PAGE:
            return found


async def list_breaks(
    conn: AsyncConnection,
    venue: str | None,
    account: str | None,
    *,
    states: frozenset[BreakState],
    limit: int = PAGE_MAX,
    after: VenueBreak | None = None,
) -> list[VenueBreak]:
    """Return a page of breaks in one of *states*, oldest first; of one account or of all."""
    query = select(venue_break).where(venue_break.c.state.in_([str(state) for state in states]))
    if venue is not None:
        query = query.where(venue_break.c.venue == venue)
    if account is not None:
        query = query.where(venue_break.c.account == account)
    rows = await conn.execute(_behind(query, after).limit(min(limit, PAGE_MAX)))
    return [break_of(row) for row in rows]


def _behind(query: Select[Any], last: VenueBreak | None) -> Select[Any]:
    place = tuple_(venue_break.c.opened_at, venue_break.c.id)
    if last is not None:
        query = query.where(place > (last.opened_at, last.id))
    return query.order_by(venue_break.c.opened_at, venue_break.c.id)


async def get_break(conn: AsyncConnection, break_id: UUID, *, lock: bool = False) -> VenueBreak:
    """Return a break, locked for this transaction if asked.

    Raises:
        NoVenueBreak: there is none.
    """
    query = select(venue_break).where(venue_break.c.id == break_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NoVenueBreak(f"no break {break_id} is on record")
    return break_of(row)


async def insert_breaks(conn: AsyncConnection, found: Sequence[VenueBreak]) -> None:
    """Write breaks that no run showed before."""
    await insert_rows(conn, venue_break, [_break_row(item) for item in found])


async def write_breaks(conn: AsyncConnection, items: Sequence[VenueBreak]) -> None:
    """Write what may change of breaks whose rows are locked."""
    fixed = {"book", "venue", "account", "kind", "subject", "opened_at", "opened_run"}
    rows = [
        {name: value for name, value in _break_row(item).items() if name not in fixed}
        for item in items
    ]
    await update_rows(conn, venue_break, rows)


async def get_window(
    conn: AsyncConnection, book: int, venue: str, account: str, symbol: str
) -> Window | None:
    """Return up to where trades of a symbol were compared; None: never."""
    row = (
        await conn.execute(
            select(venue_window).where(
                venue_window.c.book == book,
                venue_window.c.venue == venue,
                venue_window.c.account == account,
                venue_window.c.symbol == symbol,
            )
        )
    ).one_or_none()
    if row is None:
        return None
    return Window(row.cursor, row.at, row.earlier_cursor, row.earlier_at)


async def begin_window(
    conn: AsyncConnection,
    book: int,
    venue: str,
    account: str,
    symbol: str,
    *,
    cursor: str,
    now: datetime,
) -> None:
    """Say that trades before *cursor* are in the opening balances; a window that is there stays."""
    await conn.execute(
        insert(venue_window)
        .values(
            book=book,
            venue=venue,
            account=account,
            symbol=symbol,
            cursor=cursor,
            at=None,
            earlier_cursor=cursor,
            earlier_at=None,
            updated_at=now,
        )
        .on_conflict_do_nothing()
    )


async def move_window(
    conn: AsyncConnection,
    book: int,
    venue: str,
    account: str,
    symbol: str,
    window: Window,
    *,
    now: datetime,
) -> None:
    """Say up to where trades were compared."""
    await begin_window(conn, book, venue, account, symbol, cursor=window.cursor, now=now)
    await conn.execute(
        update(venue_window)
        .where(
            venue_window.c.book == book,
            venue_window.c.venue == venue,
            venue_window.c.account == account,
            venue_window.c.symbol == symbol,
        )
        .values(
            cursor=window.cursor,
            at=window.at,
            earlier_cursor=window.earlier_cursor,
            earlier_at=window.earlier_at,
            updated_at=now,
        )
    )


def break_of(row: Row[Any]) -> VenueBreak:
    """Return the value of a break's row."""
    values = {name: getattr(row, name) for name in _BREAK}
    return VenueBreak(**{**values, "state": BreakState(row.state)})


_BREAK: Final = (
    *("id", "book", "venue", "account", "kind", "subject", "ours", "theirs", "state"),
    *("opened_at", "opened_run", "seen_at", "seen_run", "closed_at", "closed_run"),
    *("explanation", "explained_by", "proposed_by", "dismissed_by"),
)


def _break_row(item: VenueBreak) -> dict[str, Any]:
    return {name: getattr(item, name) for name in _BREAK}


def _balance(item: VenueReconciled) -> dict[str, Any]:
    numbers = {"ledger", "venue", "explained", "unposted", "in_transit", "traded_after"}
    numbers |= {"difference"}
    return {
        name: str(value) if name in numbers else iso(value) if name == "taken_at" else value
        for name, value in asdict(item).items()
    }


def _run_of(row: Row[Any]) -> ReconciliationRow:
    return ReconciliationRow(
        id=row.id,
        book=row.book,
        venue=row.venue,
        account=row.account,
        started_at=row.started_at,
        finished_at=row.finished_at,
        outcome=Outcome(row.outcome),
        inputs_hash=row.inputs_hash,
        counts=row.counts,
        balances=tuple(row.balances),
        breaks=tuple(UUID(item) for item in row.breaks),
    )
