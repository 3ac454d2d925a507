"""Rows of profit and loss: the facts of deals that flows need, and the runs."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Row, Uuid, any_, bindparam, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.money import Asset
from kernel.rows import insert_rows
from marketdata.prices import find_prices
from trading.model import DealPurpose
from trading.pnl.errors import NoPnlRun
from trading.pnl.flows import Dealt
from trading.pnl.model import Cause, Component, Interval, Run, RunRecord, ValuedLine
from trading.pnl.tables import pnl_line, pnl_mark, pnl_run
from trading.tables import deal

RUNS_LISTED_MAX: Final = 500

_DEAL_IDS: Final = bindparam("deal_ids", type_=ARRAY(Uuid))


async def list_dealt(conn: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Dealt]:
    """Return what flows need of those of *ids* that are deals, with the prices of their mids."""
    rows = (
        await conn.execute(
            select(deal.c.id, deal.c.purpose, deal.c.base, deal.c.quote, deal.c.mid_price_id).where(
                deal.c.id == any_(_DEAL_IDS)
            ),
            {_DEAL_IDS.key: list(ids)},
        )
    ).all()
    mids = await find_prices(conn, {row.mid_price_id for row in rows if row.mid_price_id})
    return {
        row.id: Dealt(
            DealPurpose(row.purpose),
            row.base,
            row.quote,
            mids[row.mid_price_id].record.price if row.mid_price_id else None,
        )
        for row in rows
    }


async def list_references(
    conn: AsyncConnection, ids: Collection[UUID]
) -> dict[UUID, tuple[str, str]]:
    """Return client reference and party of those of *ids* that are deals."""
    rows = await conn.execute(
        select(deal.c.id, deal.c.client_ref, deal.c.party).where(deal.c.id == any_(_DEAL_IDS)),
        {_DEAL_IDS.key: list(ids)},
    )
    return {row.id: (row.client_ref, row.party) for row in rows}


async def list_quotes(conn: AsyncConnection, book: int, desk: str, *, limit: int) -> list[str]:
    """Return the codes of what a desk's deals are priced in, *limit* of them at most."""
    rows = await conn.scalars(
        select(deal.c.quote)
        .where(deal.c.book == book, deal.c.desk == desk)
        .group_by(deal.c.quote)
        .order_by(deal.c.quote)
        .limit(limit)
    )
    return list(rows)


async def insert_run(conn: AsyncConnection, run: Run, *, by: str, now: datetime) -> bool:
    """Insert a run with its marks and lines; False: it is on record."""
    interval, result = run.interval, run.result
    values = {
        "id": run.id,
        "book": interval.book,
        "desk": interval.desk,
        "since": interval.since,
        "until": interval.until,
        "after": interval.after,
        "through": interval.through,
        "currency": result.currency.code,
        "currency_scale": result.currency.scale,
        "inputs_hash": run.inputs_hash,
        "lines_hash": run.lines_hash,
        "trading": result.trading,
        "net": result.net,
        "run_by": by,
        "run_at": now,
    }
    statement = insert(pnl_run).values(**values).on_conflict_do_nothing(index_elements=["id"])
    if (await conn.execute(statement)).rowcount == 0:
        return False
    await insert_rows(conn, pnl_mark, _mark_rows(run))
    await insert_rows(conn, pnl_line, _line_rows(run))
    return True


async def get_run(conn: AsyncConnection, run_id: UUID) -> RunRecord:
    """Return a run as it was recorded.

    Raises:
        NoPnlRun: there is none.
    """
    row = (await conn.execute(select(pnl_run).where(pnl_run.c.id == run_id))).one_or_none()
    if row is None:
        raise NoPnlRun(f"no run {run_id} of profit and loss is on record")
    return _record(row)


async def list_runs(conn: AsyncConnection, book: int, desk: str, limit: int) -> list[RunRecord]:
    """Return the runs of a desk, those of the latest intervals first."""
    rows = await conn.execute(
        select(pnl_run)
        .where(pnl_run.c.book == book, pnl_run.c.desk == desk)
        .order_by(pnl_run.c.until.desc(), pnl_run.c.run_at.desc(), pnl_run.c.id.desc())
        .limit(min(limit, RUNS_LISTED_MAX))
    )
    return [_record(row) for row in rows]


async def list_marks(conn: AsyncConnection, run_id: UUID) -> dict[bool, dict[str, UUID]]:
    """Return the price ids of a run's marks by asset: at its end (True) and its start (False)."""
    rows = await conn.execute(select(pnl_mark).where(pnl_mark.c.run_id == run_id))
    found: dict[bool, dict[str, UUID]] = {True: {}, False: {}}
    for row in rows:
        found[row.at_end][row.asset] = row.price_id
    return found


async def list_lines(conn: AsyncConnection, run_id: UUID) -> tuple[ValuedLine, ...]:
    """Return the lines of a run in their order."""
    rows = await conn.execute(
        select(pnl_line).where(pnl_line.c.run_id == run_id).order_by(pnl_line.c.number)
    )
    return tuple(
        ValuedLine(
            Cause(Component(row.component), row.deal_id, row.flow_id, row.base),
            row.asset,
            row.units,
            row.at_end,
            row.value,
        )
        for row in rows
    )


def _mark_rows(run: Run) -> list[dict[str, object]]:
    return [
        {"run_id": run.id, "at_end": at_end, "asset": asset, "price_id": price_id}
        for at_end, marks in ((False, run.start), (True, run.end))
        for asset, price_id in sorted(marks.price_ids.items())
    ]


def _line_rows(run: Run) -> list[dict[str, object]]:
    return [
        {
            "run_id": run.id,
            "number": number,
            "component": str(line.cause.component),
            "deal_id": line.cause.deal,
            "flow_id": line.cause.flow,
            "base": line.cause.base,
            "asset": line.asset,
            "units": line.units,
            "at_end": line.at_end,
            "value": line.value,
        }
        for number, line in enumerate(run.result.lines, start=1)
    ]


def _record(row: Row[Any]) -> RunRecord:
    return RunRecord(
        id=row.id,
        interval=Interval(
            book=row.book,
            desk=row.desk,
            since=row.since,
            until=row.until,
            after=row.after,
            through=row.through,
        ),
        currency=Asset(row.currency, row.currency_scale),
        inputs_hash=row.inputs_hash,
        lines_hash=row.lines_hash,
        trading=row.trading,
        net=row.net,
        run_by=row.run_by,
        run_at=row.run_at,
    )
