"""The statements of spends: rows in, frozen values back. Private to this package."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, exists, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.bitcoin.transactions import Outpoint
from custody.bitcoin.coin_tables import coin_lock
from custody.bitcoin.spend_model import (
    Spend,
    SpendAttempt,
    SpendPayout,
    SpendState,
    SpentCoin,
)
from custody.bitcoin.spend_tables import spend, spend_attempt, spend_payout
from custody.errors import UnknownRow
from custody.payout_model import AttemptKind, AttemptState, Payout, PayoutState
from custody.payout_store import to_payout
from custody.payout_tables import payout
from kernel.leases import require_one

_NOT_COLUMNS: Final = frozenset({"anchor", "fence"})
_SPEND: Final = tuple(f.name for f in fields(Spend) if f.name not in _NOT_COLUMNS)
_ATTEMPT: Final = tuple(f.name for f in fields(SpendAttempt))
PAGE_MAX: Final = 500


def to_spend(row: Row[Any]) -> Spend:
    """Return the spend in *row*."""
    values = {name: getattr(row, name) for name in _SPEND}
    words = {"state": SpendState(row.state), "anchor": Outpoint(row.anchor_tx, row.anchor_index)}
    return Spend(**{**values, **words, "fence": row.fence})


def to_attempt(row: Row[Any]) -> SpendAttempt:
    """Return the attempt in *row*."""
    values = {name: getattr(row, name) for name in _ATTEMPT}
    words = {
        "state": AttemptState(row.state),
        "kind": AttemptKind(row.kind),
        "coins": tuple(_to_coin(item) for item in row.coins),
    }
    return SpendAttempt(**{**values, **words})


async def insert_spend(conn: AsyncConnection, new: Spend) -> None:
    """Insert a spend."""
    values = {name: getattr(new, name) for name in _SPEND}
    anchor = {"anchor_tx": new.anchor.tx_id, "anchor_index": new.anchor.index}
    await conn.execute(insert(spend).values(**values, **anchor))


async def insert_attempt(conn: AsyncConnection, new: SpendAttempt) -> None:
    """Insert an attempt."""
    values = {name: getattr(new, name) for name in _ATTEMPT}
    values["coins"] = [_from_coin(item) for item in new.coins]
    await conn.execute(insert(spend_attempt).values(**values))


async def insert_payouts(conn: AsyncConnection, new: Sequence[SpendPayout]) -> None:
    """Write which payouts a spend carries.

    Raises:
        IntegrityError: one of them is in another spend that is live.
    """
    names = [f.name for f in fields(SpendPayout)]
    await conn.execute(
        insert(spend_payout), [{name: getattr(item, name) for name in names} for item in new]
    )


async def update_spend(
    conn: AsyncConnection, spend_id: UUID, *, fence: int | None = None, **values: object
) -> None:
    """Write a spend; with *fence*, only while no other worker has claimed it.

    Raises:
        StaleFence: it was claimed since, or does not exist.
    """
    statement = update(spend).where(spend.c.id == spend_id)
    if fence is not None:
        statement = statement.where(spend.c.fence == fence)
    require_one(await conn.execute(statement.values(**values)), f"spend {spend_id}")


async def update_attempt(conn: AsyncConnection, attempt_id: UUID, **values: object) -> None:
    """Write an attempt, whose spend is locked."""
    statement = update(spend_attempt).where(spend_attempt.c.id == attempt_id).values(**values)
    require_one(await conn.execute(statement), f"attempt {attempt_id}")


async def free_payouts(conn: AsyncConnection, spend_id: UUID) -> None:
    """Let the payouts of a spend go into another one."""
    statement = update(spend_payout).where(spend_payout.c.spend_id == spend_id)
    await conn.execute(statement.values(live=False))


async def place_payouts(conn: AsyncConnection, spend_id: UUID, places: Mapping[UUID, int]) -> None:
    """Write which output of the current attempt pays each payout; none of one that cancels."""
    mine = spend_payout.c.spend_id == spend_id
    if not places:
        await conn.execute(update(spend_payout).where(mine).values(output=None))
    for payout_id, place in places.items():
        statement = update(spend_payout).where(mine, spend_payout.c.payout_id == payout_id)
        await conn.execute(statement.values(output=place))


async def get_spend(conn: AsyncConnection, spend_id: UUID, *, lock: bool = False) -> Spend:
    """Return a spend, its row locked if asked for.

    Raises:
        UnknownRow: there is none with that id.
    """
    statement = select(spend).where(spend.c.id == spend_id)
    row = (await conn.execute(statement.with_for_update() if lock else statement)).one_or_none()
    if row is None:
        raise UnknownRow(f"there is no spend {spend_id}")
    return to_spend(row)


async def lock_spends(conn: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Spend]:
    """Return spends by id, their rows locked in the order of their ids."""
    if not ids:
        return {}
    statement = select(spend).where(spend.c.id.in_(ids)).order_by(spend.c.id).with_for_update()
    return {row.id: to_spend(row) for row in await conn.execute(statement)}


async def list_spends(
    conn: AsyncConnection,
    chain: str,
    *,
    book: int | None = None,
    states: Collection[SpendState] | None = None,
    wallet: str | None = None,
    limit: int = PAGE_MAX,
) -> list[Spend]:
    """Return spends, oldest first."""
    query = select(spend).where(spend.c.chain == chain).order_by(spend.c.created_at, spend.c.id)
    if book is not None:
        query = query.where(spend.c.book == book)
    if states is not None:
        query = query.where(spend.c.state.in_([str(state) for state in states]))
    if wallet is not None:
        query = query.where(spend.c.wallet == wallet)
    return [to_spend(row) for row in await conn.execute(query.limit(min(limit, PAGE_MAX)))]


async def list_attempts(conn: AsyncConnection, spend_id: UUID) -> list[SpendAttempt]:
    """Return the attempts of a spend, the first one first."""
    rows = await conn.execute(
        select(spend_attempt)
        .where(spend_attempt.c.spend_id == spend_id)
        .order_by(spend_attempt.c.number)
    )
    return [to_attempt(row) for row in rows]


async def list_payouts(conn: AsyncConnection, spend_id: UUID) -> list[SpendPayout]:
    """Return what a spend carries, by payout."""
    rows = await conn.execute(
        select(spend_payout)
        .where(spend_payout.c.spend_id == spend_id)
        .order_by(spend_payout.c.payout_id)
    )
    names = [f.name for f in fields(SpendPayout)]
    return [SpendPayout(**{name: getattr(row, name) for name in names}) for row in rows]


async def find_payouts(conn: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Payout]:
    """Return payouts by id; nothing is locked."""
    rows = await conn.execute(select(payout).where(payout.c.id.in_(ids)))
    return {row.id: to_payout(row) for row in rows}


async def find_spends_of(
    conn: AsyncConnection, payout_ids: Collection[UUID]
) -> dict[UUID, list[SpendPayout]]:
    """Return in which spends each payout is or was, the newest last."""
    found: dict[UUID, list[SpendPayout]] = {key: [] for key in payout_ids}
    rows = await conn.execute(
        select(spend_payout)
        .join(spend, spend.c.id == spend_payout.c.spend_id)
        .where(spend_payout.c.payout_id.in_(payout_ids))
        .order_by(spend.c.created_at, spend.c.id)
    )
    names = [f.name for f in fields(SpendPayout)]
    for row in rows:
        found[row.payout_id].append(SpendPayout(**{name: getattr(row, name) for name in names}))
    return found


async def has_signed(conn: AsyncConnection, payout_id: UUID) -> bool:
    """Tell whether the spend that carries a payout has signed bytes."""
    found = await conn.scalar(
        select(spend_attempt.c.id)
        .join(spend_payout, spend_payout.c.spend_id == spend_attempt.c.spend_id)
        .where(spend_payout.c.payout_id == payout_id, spend_payout.c.live)
        .where(spend_attempt.c.raw.is_not(None))
        .limit(1)
    )
    return found is not None


async def find_attempts(
    conn: AsyncConnection, chain: str, tx_ids: Collection[str]
) -> dict[str, SpendAttempt]:
    """Return our attempts among transactions; one that has bytes before one that has not."""
    if not tx_ids:
        return {}
    rows = await conn.execute(
        select(spend_attempt)
        .where(spend_attempt.c.chain == chain, spend_attempt.c.tx_id.in_(tx_ids))
        .order_by(spend_attempt.c.raw.is_not(None), spend_attempt.c.built_at)
    )
    return {row.tx_id: to_attempt(row) for row in rows}


async def find_takers(
    conn: AsyncConnection, chain: str, outpoints: Collection[Outpoint]
) -> dict[Outpoint, UUID]:
    """Return which spend has locked each outpoint."""
    if not outpoints:
        return {}
    table = coin_lock
    keys = sorted((item.tx_id, item.index) for item in outpoints)
    rows = await conn.execute(
        select(table.c.tx_id, table.c.index.label("number"), table.c.spend_id).where(
            table.c.chain == chain, tuple_(table.c.tx_id, table.c.index).in_(keys)
        )
    )
    return {Outpoint(row.tx_id, row.number): row.spend_id for row in rows}


async def find_mined_in(conn: AsyncConnection, chain: str, block: str) -> list[UUID]:
    """Return the spends that a block has."""
    query = select(spend.c.id).where(spend.c.chain == chain, spend.c.mined_block == block)
    return list((await conn.execute(query)).scalars())


async def list_due(
    conn: AsyncConnection, chain: str, book: int, now: datetime, limit: int
) -> list[Payout]:
    """Return the approved payouts that are due, the oldest first."""
    rows = await conn.execute(
        select(payout)
        .where(payout.c.chain == chain, payout.c.book == book)
        .where(payout.c.state == PayoutState.APPROVED, payout.c.run_after <= now)
        .order_by(payout.c.run_after, payout.c.created_at, payout.c.id)
        .limit(limit)
    )
    return [to_payout(row) for row in rows]


async def list_given_up(conn: AsyncConnection, chain: str, wallet: str) -> set[Outpoint]:
    """Return the anchors of a wallet's spends that people gave up, with the payouts in them."""
    kept = exists().where(spend_payout.c.spend_id == spend.c.id, spend_payout.c.live)
    rows = await conn.execute(
        select(spend.c.anchor_tx, spend.c.anchor_index)
        .where(spend.c.chain == chain, spend.c.wallet == wallet)
        .where(spend.c.state == SpendState.DROPPED, kept)
    )
    return {Outpoint(row.anchor_tx, row.anchor_index) for row in rows}


def _from_coin(item: SpentCoin) -> dict[str, Any]:
    return {
        "tx_id": item.outpoint.tx_id,
        "index": item.outpoint.index,
        "amount": str(item.amount),
        "address": item.address,
        "path": item.path,
        "weight": item.weight,
    }


def _to_coin(item: Mapping[str, Any]) -> SpentCoin:
    outpoint = Outpoint(item["tx_id"], item["index"])
    amount, weight = int(item["amount"]), item["weight"]
    return SpentCoin(outpoint, amount, item["address"], item["path"], weight)
