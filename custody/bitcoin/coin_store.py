"""Rows of coins and of their locks to values and back. Private to this package."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    String,
    Text,
    any_,
    cast,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.bitcoin.transactions import Outpoint
from custody import tables
from custody.bitcoin.coin_model import OUTPUT, Coin, CoinLock, CoinState
from custody.bitcoin.coin_tables import coin, coin_lock
from custody.model import AddressPurpose
from kernel.rows import insert_rows, update_rows

_KEY: Final = ("chain", "tx_id", "index")
_CHANGEABLE: Final = (
    *("coinbase", "own", "height", "block_hash"),
    *("state", "spent_by", "spent_height", "spent_block"),
)


async def lock_coins(
    conn: AsyncConnection, chain: str, outpoints: Collection[Outpoint]
) -> dict[Outpoint, Coin]:
    """Return the coins among *outpoints* that are known, locked in one order everywhere."""
    if not outpoints:
        return {}
    query = select(coin).where(coin.c.chain == chain, _of_these(coin.c.tx_id, outpoints))
    found = await _locked(conn, query)
    return {key: found[key] for key in outpoints if key in found}


async def lock_coins_of_block(
    conn: AsyncConnection, chain: str, block_hash: str
) -> dict[Outpoint, Coin]:
    """Return the coins that the block made or spent, locked."""
    here = or_(coin.c.block_hash == block_hash, coin.c.spent_block == block_hash)
    return await _locked(conn, select(coin).where(coin.c.chain == chain, here))


async def insert_coins(conn: AsyncConnection, new: Sequence[Coin]) -> None:
    """Write coins that are seen for the first time."""
    rows = [
        {f.name: getattr(item, f.name) for f in fields(Coin)}
        for item in sorted(new, key=lambda item: item.outpoint)
    ]
    await insert_rows(conn, coin, rows)


async def save_coins(conn: AsyncConnection, changed: Sequence[Coin]) -> None:
    """Write what may change of coins whose rows are locked."""
    rows = [
        {name: getattr(item, name) for name in (*_KEY, *_CHANGEABLE)}
        for item in sorted(changed, key=lambda item: item.outpoint)
    ]
    written = await update_rows(conn, coin, rows, key=_KEY)
    assert written == len(rows), f"{len(rows) - written} coins are gone"


async def list_coins(
    conn: AsyncConnection,
    chain: str,
    *,
    wallet: str | None = None,
    states: Collection[CoinState] = (),
    outpoints: Collection[Outpoint] | None = None,
) -> list[Coin]:
    """Return coins by their outpoints."""
    query = select(coin).where(coin.c.chain == chain)
    if wallet is not None:
        query = query.where(coin.c.wallet == wallet)
    if states:
        query = query.where(coin.c.state.in_([str(state) for state in states]))
    if outpoints is not None:
        query = query.where(_of_these(coin.c.tx_id, outpoints))
    query = query.order_by(coin.c.tx_id, coin.c.index)
    found = [to_coin(row) for row in await conn.execute(query)]
    return [item for item in found if outpoints is None or item.outpoint in outpoints]


async def sum_unspent(conn: AsyncConnection, chain: str) -> dict[tuple[str, str], int]:
    """Return what the unspent coins hold, by wallet and address."""
    query = (
        select(coin.c.wallet, coin.c.address, func.sum(coin.c.amount).label("amount"))
        .where(coin.c.chain == chain, coin.c.state == CoinState.UNSPENT)
        .group_by(coin.c.wallet, coin.c.address)
    )
    return {(row.wallet, row.address): int(row.amount) for row in await conn.execute(query)}


def belongs(
    deposit_states: Collection[str], receipt_states: Collection[str]
) -> ColumnElement[bool]:
    """Return the condition that a coin arrived, and its arrival is in one of these states."""
    position = literal(OUTPUT) + cast(coin.c.index, String)
    return or_(
        *(
            exists().where(
                table.c.chain == coin.c.chain,
                table.c.tx_hash == coin.c.tx_id,
                table.c.position == position,
                table.c.state.in_([str(state) for state in states]),
            )
            for table, states in (
                (tables.deposit, deposit_states),
                (tables.receipt, receipt_states),
            )
        )
    )


async def sum_by_address(
    conn: AsyncConnection, chain: str, *, where: ColumnElement[bool] | None = None
) -> dict[str, int]:
    """Return what the unspent coins of each address hold, in satoshi; of those *where* says."""
    query = (
        select(coin.c.address, func.sum(coin.c.amount).label("amount"))
        .where(coin.c.chain == chain, coin.c.state == CoinState.UNSPENT)
        .group_by(coin.c.address)
    )
    if where is not None:
        query = query.where(where)
    return {row.address: int(row.amount) for row in await conn.execute(query)}


async def insert_locks(
    conn: AsyncConnection, locks: Sequence[CoinLock], *, now: datetime
) -> list[CoinLock]:
    """Write locks of coins whose rows are locked; return all locks that stand there now."""
    rows = [
        {
            "chain": item.chain,
            "tx_id": item.outpoint.tx_id,
            "index": item.outpoint.index,
            "spend_id": item.spend_id,
            "locked_at": now,
        }
        for item in locks
    ]
    await insert_rows(conn, coin_lock, rows, known="ON CONFLICT DO NOTHING")
    return await list_locks(conn, locks[0].chain, outpoints=[item.outpoint for item in locks])


async def list_locks(
    conn: AsyncConnection,
    chain: str,
    *,
    outpoints: Collection[Outpoint] | None = None,
    spend_id: UUID | None = None,
) -> list[CoinLock]:
    """Return locks, by outpoint."""
    table = coin_lock
    query = select(table.c.chain, table.c.tx_id, table.c.index, table.c.spend_id)
    query = query.where(table.c.chain == chain).order_by(table.c.tx_id, table.c.index)
    if outpoints is not None:
        query = query.where(_of_these(table.c.tx_id, outpoints))
    if spend_id is not None:
        query = query.where(table.c.spend_id == spend_id)
    found = [
        CoinLock(row[0], Outpoint(row[1], row[2]), row[3]) for row in await conn.execute(query)
    ]
    return [item for item in found if outpoints is None or item.outpoint in outpoints]


async def delete_locks(
    conn: AsyncConnection, spend_id: UUID, outpoints: Collection[Outpoint] | None
) -> int:
    """Delete the locks of a spend, all or these; return how many there were."""
    query = delete(coin_lock).where(coin_lock.c.spend_id == spend_id)
    if outpoints is not None:
        named = tuple_(coin_lock.c.tx_id, coin_lock.c.index)
        query = query.where(named.in_([(item.tx_id, item.index) for item in outpoints]))
    return (await conn.execute(query)).rowcount


def to_coin(row: Row[Any]) -> Coin:
    """Return the coin of a row that has its columns."""
    values = {f.name: getattr(row, f.name) for f in fields(Coin) if f.name != "index"}
    return Coin(
        **values
        | {
            "index": row._mapping["index"],  # noqa: SLF001  a row is a tuple, which has a method of that name
            "amount": int(row.amount),
            "purpose": AddressPurpose(row.purpose),
            "state": CoinState(row.state),
        }
    )


def _of_these(tx_id: ColumnElement[str], outpoints: Collection[Outpoint]) -> ColumnElement[bool]:
    """Return the condition with one parameter: a full block has more values than a statement may."""
    return tx_id == any_(literal(sorted({item.tx_id for item in outpoints}), ARRAY(Text)))


async def _locked(conn: AsyncConnection, query: Select[Any]) -> dict[Outpoint, Coin]:
    rows = await conn.execute(query.order_by(coin.c.tx_id, coin.c.index).with_for_update())
    return {item.outpoint: item for item in map(to_coin, rows)}
