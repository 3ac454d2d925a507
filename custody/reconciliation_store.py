"""Rows of reconciliation to values and back. Private to this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.errors import UnknownRow
from custody.reconciliation_model import (
    Difference,
    DifferenceState,
    Explanation,
    Item,
    Reason,
    Run,
    RunRow,
)
from custody.reconciliation_tables import difference, reconciliation, reconciliation_item
from kernel.rows import insert_rows, update_rows

PAGE_MAX: Final = 500
ROWS_AT_ONCE: Final = 1_000


async def insert_run(conn: AsyncConnection, run: Run) -> None:
    """Write a run and its items; the same run again (one moment, one block) writes nothing."""
    figures = [
        {
            "wallet": figure.wallet,
            "asset": figure.asset,
            "ledger": str(figure.ledger),
            "chain": None if figure.chain is None else str(figure.chain),
        }
        for figure in run.figures
    ]
    done = await conn.execute(
        upsert(reconciliation)
        .values(
            id=run.id,
            book=run.book,
            chain=run.chain,
            height=run.block.height,
            block_hash=run.block.hash,
            result=run.result,
            addresses=run.addresses,
            figures=figures,
            at=run.at,
        )
        .on_conflict_do_nothing()
    )
    if done.rowcount != 1:
        return
    rows = [_item_row(run.id, number, item) for number, item in enumerate(run.items, start=1)]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        await conn.execute(insert(reconciliation_item), rows[start : start + ROWS_AT_ONCE])


async def get_run(conn: AsyncConnection, run_id: UUID) -> RunRow:
    """Return a run.

    Raises:
        UnknownRow: there is none with that id.
    """
    query = select(reconciliation).where(reconciliation.c.id == run_id)
    row = (await conn.execute(query)).one_or_none()
    if row is None:
        raise UnknownRow(f"there is no reconciliation {run_id}")
    return _to_run(row)


async def list_runs(
    conn: AsyncConnection, *, book: int, chain: str, limit: int = PAGE_MAX
) -> list[RunRow]:
    """Return the runs of a chain, the newest first."""
    query = (
        select(reconciliation)
        .where(reconciliation.c.book == book, reconciliation.c.chain == chain)
        .order_by(reconciliation.c.at.desc(), reconciliation.c.id.desc())
        .limit(min(limit, PAGE_MAX))
    )
    return [_to_run(row) for row in await conn.execute(query)]


async def list_items(conn: AsyncConnection, run_id: UUID) -> list[Item]:
    """Return the items of a run, in its order."""
    query = select(reconciliation_item).where(reconciliation_item.c.run_id == run_id)
    rows = await conn.execute(query.order_by(reconciliation_item.c.number))
    return [_to_item(row) for row in rows]


async def list_differences(
    conn: AsyncConnection,
    *,
    book: int,
    chain: str,
    state: DifferenceState | None = DifferenceState.OPEN,
    lock: bool = False,
) -> list[Difference]:
    """Return differences, the oldest first."""
    query = select(difference).where(difference.c.book == book, difference.c.chain == chain)
    if state is not None:
        query = query.where(difference.c.state == state)
    query = query.order_by(difference.c.opened_at, difference.c.id)
    rows = await conn.execute(query.with_for_update() if lock else query)
    return [_to_difference(row) for row in rows]


async def list_differences_at(conn: AsyncConnection, chain: str, address: str) -> list[Difference]:
    """Return the open differences at an address, their rows locked."""
    query = select(difference).where(
        difference.c.chain == chain,
        difference.c.address == address,
        difference.c.state == DifferenceState.OPEN,
    )
    rows = await conn.execute(query.order_by(difference.c.id).with_for_update())
    return [_to_difference(row) for row in rows]


async def lock_difference(conn: AsyncConnection, difference_id: UUID) -> Difference:
    """Return a difference, its row locked.

    Raises:
        UnknownRow: there is none with that id.
    """
    query = select(difference).where(difference.c.id == difference_id).with_for_update()
    row = (await conn.execute(query)).one_or_none()
    if row is None:
        raise UnknownRow(f"there is no difference {difference_id}")
    return _to_difference(row)


async def insert_differences(conn: AsyncConnection, found: Sequence[Difference]) -> None:
    """Write differences that no run showed before."""
    await insert_rows(conn, difference, [_difference_row(item) for item in found])


async def write_difference(conn: AsyncConnection, item: Difference) -> None:
    """Write what may change of a difference whose row is locked."""
    await write_differences(conn, [item])


async def write_differences(conn: AsyncConnection, items: Sequence[Difference]) -> None:
    """Write what may change of differences whose rows are locked."""
    fixed = {"book", "chain", "wallet", "asset", "address", "opened_at", "opened_height"}
    rows = [
        {name: value for name, value in _difference_row(item).items() if name not in fixed}
        for item in items
    ]
    await update_rows(conn, difference, rows)


def _item_row(run_id: UUID, number: int, item: Item) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "number": number,
        "wallet": item.wallet,
        "asset": item.asset,
        "contract": item.contract,
        "address": item.address,
        "books": item.books,
        "chain_amount": item.chain,
        "explanations": [
            {"reason": str(e.reason), "amount": str(e.amount), "detail": e.detail}
            for e in item.explanations
        ],
    }


def _to_item(row: Row[Any]) -> Item:
    return Item(
        wallet=row.wallet,
        asset=row.asset,
        contract=row.contract,
        address=row.address,
        books=int(row.books),
        chain=None if row.chain_amount is None else int(row.chain_amount),
        explanations=tuple(
            Explanation(Reason(e["reason"]), int(e["amount"]), e["detail"])
            for e in row.explanations
        ),
    )


def _to_run(row: Row[Any]) -> RunRow:
    figures: list[Mapping[str, Any]] = row.figures
    at: datetime = row.at
    return RunRow(
        id=row.id,
        book=row.book,
        chain=row.chain,
        height=row.height,
        block_hash=row.block_hash,
        result=row.result,
        addresses=row.addresses,
        figures=tuple(figures),
        at=at,
    )


_DIFFERENCE: Final = (
    *("id", "book", "chain", "wallet", "asset", "address", "amount", "state", "opened_at"),
    *("opened_height", "first_height", "first_block", "last_height", "last_block", "seen_at"),
    "detail",
)


def _difference_row(item: Difference) -> dict[str, Any]:
    return {name: getattr(item, name) for name in _DIFFERENCE}


def _to_difference(row: Row[Any]) -> Difference:
    values = {name: getattr(row, name) for name in _DIFFERENCE}
    values |= {"amount": int(row.amount), "state": DifferenceState(row.state)}
    return Difference(**values)
