"""The statements of many payouts at once: one for each table and step, whatever the number of rows.

Values travel as one array for each column, so the text of a statement does not depend on how many
rows it writes and PostgreSQL prepares it once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Integer,
    Table,
    Uuid,
    any_,
    bindparam,
    case,
    column,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.payout_model import Attempt, Nonce, NonceState, Payout
from custody.payout_store import to_attempt, to_payout
from custody.payout_tables import payout, payout_attempt, payout_nonce
from kernel.errors import StaleFence
from kernel.rows import insert_rows, update_rows

_IDS: Final = bindparam("ids", type_=ARRAY(Uuid))
_NUMBERS: Final = bindparam("numbers", type_=ARRAY(Integer))


async def lock_many(conn: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Payout]:
    """Return the payouts by id, their rows locked in the order of their ids."""
    statement = (
        select(payout).where(payout.c.id == any_(_IDS)).order_by(payout.c.id).with_for_update()
    )
    rows = await conn.execute(statement, {"ids": list(ids)})
    return {row.id: to_payout(row) for row in rows}


async def update_payouts(
    conn: AsyncConnection, rows: Sequence[Mapping[str, Any]], *, fences: Mapping[UUID, int]
) -> None:
    """Write payouts, each row with its ``id`` and what changes, under the fences of this worker.

    Raises:
        StaleFence: one of them was claimed since; nothing may be committed.
    """
    fenced = [{**row, "fence": fences[row["id"]]} for row in rows]
    written = 0
    for alike in _alike(fenced):
        written += await update_rows(conn, payout, alike, key=("id", "fence"))
    if written != len(rows):
        raise StaleFence(f"{len(rows) - written} payouts were taken over by another worker")


async def give_back(
    conn: AsyncConnection, given: Sequence[tuple[Payout, str, datetime]], states: Sequence[str]
) -> set[UUID]:
    """End the leases of payouts: why each waits, and until when; return those still this worker's.

    A block may have put one on hold meanwhile: the reason for that stays.
    """
    names = ("id", "fence", "waiting_for", "run_after")
    values = _columns(payout, names)
    statement = (
        update(payout)
        .where(payout.c.id == values.c.id, payout.c.fence == values.c.fence)
        .values(
            waiting_for=case(
                (payout.c.state.in_(states), values.c.waiting_for), else_=payout.c.waiting_for
            ),
            run_after=values.c.run_after,
            lease_holder=None,
            lease_until=None,
        )
        .returning(payout.c.id)
    )
    written = [
        dict(zip(names, (item.id, item.fence, reason, until), strict=True))
        for item, reason, until in given
    ]
    return set((await conn.execute(statement, _arrays(names, written))).scalars())


async def update_attempts(conn: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write attempts, each row with its ``id`` and what changes; their payouts are locked."""
    written = 0
    for alike in _alike(rows):
        written += await update_rows(conn, payout_attempt, alike)
    if written != len(rows):
        raise StaleFence("an attempt is not there")


async def insert_attempts(conn: AsyncConnection, attempts: Sequence[Attempt]) -> None:
    """Insert attempts."""
    names = tuple(Attempt.__dataclass_fields__)
    rows = [{name: getattr(item, name) for name in names} for item in attempts]
    await insert_rows(conn, payout_attempt, rows)


async def list_current(conn: AsyncConnection, payouts: Collection[Payout]) -> dict[UUID, Attempt]:
    """Return the current attempt of each payout that has one, by payout."""
    wanted = (
        func.unnest(_IDS, _NUMBERS)
        .table_valued(column("payout_id", Uuid), column("number", Integer), name="wanted")
        .render_derived()
    )
    rows = await conn.execute(
        select(payout_attempt).join(
            wanted,
            (payout_attempt.c.payout_id == wanted.c.payout_id)
            & (payout_attempt.c.number == wanted.c.number),
        ),
        {"ids": [item.id for item in payouts], "numbers": [item.attempt for item in payouts]},
    )
    return {row.payout_id: to_attempt(row) for row in rows}


async def list_all_attempts(
    conn: AsyncConnection, ids: Collection[UUID]
) -> dict[UUID, list[Attempt]]:
    """Return every attempt of each payout, the first one first."""
    found: dict[UUID, list[Attempt]] = {key: [] for key in ids}
    rows = await conn.execute(
        select(payout_attempt)
        .where(payout_attempt.c.payout_id == any_(_IDS))
        .order_by(payout_attempt.c.payout_id, payout_attempt.c.number),
        {"ids": list(ids)},
    )
    for row in rows:
        found[row.payout_id].append(to_attempt(row))
    return found


async def take_nonces(conn: AsyncConnection, nonces: Sequence[Nonce]) -> None:
    """Take nonces for payouts; their sending addresses are locked.

    Raises:
        StaleFence: one of them is not free.
    """
    if not nonces:
        return
    names = ("chain", "sender", "nonce", "payout_id", "state", "since")
    given = _columns(payout_nonce, names)
    written = pg_insert(payout_nonce).from_select(names, select(*given.c))
    statement = written.on_conflict_do_update(
        index_elements=["chain", "sender", "nonce"],
        set_={name: written.excluded[name] for name in ("payout_id", "state", "since")},
        where=payout_nonce.c.state == NonceState.RELEASED,
    ).returning(payout_nonce.c.nonce)
    values = [{name: getattr(item, name) for name in names} for item in nonces]
    taken = (await conn.execute(statement, _arrays(names, values))).all()
    if len(taken) != len(nonces):
        free = {row.nonce for row in taken}
        kept = next(item for item in nonces if item.nonce not in free)
        raise StaleFence(f"nonce {kept.nonce} of {kept.sender} was taken over by another worker")


async def end_nonces(
    conn: AsyncConnection, attempts: Collection[Attempt], state: NonceState, now: datetime
) -> None:
    """Write what became of the nonces of these attempts; their payouts are locked."""
    keys = {(item.chain, item.sender, item.nonce) for item in attempts}
    rows = [
        {"chain": chain, "sender": sender, "nonce": nonce, "state": state, "since": now}
        for chain, sender, nonce in sorted(keys)
    ]
    await update_rows(conn, payout_nonce, rows, key=("chain", "sender", "nonce"))


def _alike(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return *rows* in groups that write the same columns."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(sorted(row)), []).append(row)
    return list(groups.values())


def _columns(table: Table, names: Sequence[str]) -> Any:
    """Return a row source whose columns are those of *table*, fed by `_arrays`."""
    arrays = [bindparam(f"v_{name}", type_=ARRAY(table.c[name].type)) for name in names]
    columns = [column(name, table.c[name].type) for name in names]
    return func.unnest(*arrays).table_valued(*columns, name="given").render_derived()


def _arrays(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {f"v_{name}": [row[name] for row in rows] for name in names}
