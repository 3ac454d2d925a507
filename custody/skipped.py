"""Addresses that a database which was set back may have given out before: skipped, and never handed out.

A restored database has forgotten which addresses it gave to clients and counterparties after the moment,
and would give them out again: what the first client pays would be credited to the second. So with the
restore each branch that others are given addresses of jumps, over `ADDRESSES_SKIPPED` indexes at least,
and behind everything that a database which was set back twice can have forgotten. The first
`ADDRESSES_WATCHED` of them get rows that are nobody's: what arrives there is seen, and unattributed, until
two people say whose address it is (`custody.restore.returns`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from custody import store, tables
from custody.derivation import derive_address
from custody.model import BRANCHES, Address, AddressPurpose
from custody.restore_gate import find_newest_restore
from custody.restore_tables import address_skip
from registry.model import Chain, Wallet, WalletPurpose
from registry.queries import list_chains, list_wallets

ADDRESSES_SKIPPED: Final = 100_000
"""Indexes of a branch that nobody is given after a restore, at least: more than are handed out in lost
hours."""
COUNTED_FROM: Final = datetime(2025, 1, 1, tzinfo=UTC)
"""A jump ends behind the index that is the number of seconds since, too (`_after_jump`)."""
ADDRESSES_WATCHED: Final = 200
"""How many of them, the first ones, are watched before anybody asks for one."""
GIVEN: Final = BRANCHES[AddressPurpose.DEPOSIT]
"""The branch whose addresses others are given, for deposits and for settlement."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Indexes of a branch that one restore skipped, both ends included.

    Attributes:
        written: how many of them have a row, and are watched.
    """

    restore_id: UUID
    wallet: str
    branch: int
    chain: str
    first: int
    last: int
    written: int


def gives_addresses(wallet: Wallet) -> bool:
    """Tell whether others are given addresses of a wallet: clients, or whoever settles."""
    if wallet.token_key:
        return False
    return wallet.purpose is WalletPurpose.DEPOSIT or not wallet.holds_client_money


async def skip_addresses(conn: AsyncConnection, restore_id: UUID, *, now: datetime) -> list[Skip]:
    """Let every branch that others are given addresses of jump; return what is skipped.

    An address that is being handed out meanwhile is waited for: its index is below.
    """
    skips = []
    for chain in await list_chains(conn):
        for wallet in await list_wallets(conn, chain.code):
            if gives_addresses(wallet):
                first = await store.lock_branch(conn, wallet.code, GIVEN)
                skips.append(await _skip(conn, restore_id, wallet, first, now))
    return skips


async def keep_clear(conn: AsyncConnection, wallet: Wallet, branch: int, *, now: datetime) -> None:
    """Let the first address of a wallet jump, too, if the database was ever set back.

    The wallet may have been registered in the lost hours, and registered again since.
    """
    if branch != GIVEN or not gives_addresses(wallet):
        return
    known = await find_newest_restore(conn)
    if known is None or await store.has_branch(conn, wallet.code, branch):
        return
    first = await store.lock_branch(conn, wallet.code, branch)
    if first == 0:
        await _skip(conn, known, wallet, first, now)


async def write_skipped(
    conn: AsyncConnection,
    skip: Skip,
    chain: Chain,
    wallet: Wallet,
    indexes: Collection[int],
    *,
    now: datetime,
) -> list[Address]:
    """Write those of the indexes that have no row yet: from now on they are watched; return them.

    Raises:
        BadKey, DerivationDisagrees: as `custody.derivation.derive_address`.
    """
    await store.lock_branch(conn, skip.wallet, skip.branch)
    known = await store.list_indexes(conn, skip.wallet, skip.branch, skip.first, skip.last)
    new = [
        Address(
            chain=skip.chain,
            address=derive_address(chain, wallet, skip.branch, index),
            wallet=skip.wallet,
            branch=skip.branch,
            index=index,
            purpose=AddressPurpose.SKIPPED,
            party=None,
            reference="",
            assigned_at=now,
        )
        for index in sorted(set(indexes) - known)
    ]
    if not new:
        return []
    await conn.execute(insert(tables.address), [store.address_values(item) for item in new])
    mine = (
        (address_skip.c.restore_id == skip.restore_id)
        & (address_skip.c.wallet == skip.wallet)
        & (address_skip.c.branch == skip.branch)
    )
    written = address_skip.c.written + len(new)
    await conn.execute(update(address_skip).where(mine).values(written=written))
    return new


async def withhold(
    conn: AsyncConnection, skip: Skip, *, since: datetime
) -> Sequence[tuple[Address, str]]:
    """Make nobody's what was handed out after *since* below a skipped range; return it, and whose it was.

    A database that was worked with before it was found out has given these out, perhaps a second time.
    """
    await store.lock_branch(conn, skip.wallet, skip.branch)
    found = [
        item
        for item in await store.list_addresses(conn, skip.chain, wallet=skip.wallet)
        if item.branch == skip.branch and item.index < skip.first and item.assigned_at > since
    ]
    doubtful = [(item, item.party) for item in found if item.party is not None]
    nobodys = {"purpose": AddressPurpose.SKIPPED, "party": "", "reference": "", "chain_asset": None}
    for item, _ in doubtful:
        mine = (tables.address.c.chain == item.chain) & (tables.address.c.address == item.address)
        await conn.execute(update(tables.address).where(mine).values(nobodys))
    return doubtful


async def list_skips(
    conn: AsyncConnection, *, restore_id: UUID | None = None, wallet: str | None = None
) -> list[Skip]:
    """Return what was skipped, by wallet and index; of one restore, or of one wallet, if named."""
    query = select(address_skip)
    if restore_id is not None:
        query = query.where(address_skip.c.restore_id == restore_id)
    if wallet is not None:
        query = query.where(address_skip.c.wallet == wallet)
    ordered = query.order_by(address_skip.c.wallet, address_skip.c.branch, address_skip.c.first)
    return [Skip(**row._mapping) for row in await conn.execute(ordered)]  # noqa: SLF001  its public name


async def count_written(conn: AsyncConnection, chain: str) -> dict[store.Branch, tuple[int, int]]:
    """Return, for each branch of the chain that skipped, the first such index and how many have rows."""
    table, found = address_skip, dict[store.Branch, tuple[int, int]]()
    columns = (table.c.wallet, table.c.branch, table.c.first, table.c.written)
    for row in await conn.execute(select(*columns).where(table.c.chain == chain)):
        first, written = found.get((row.wallet, row.branch), (row.first, 0))
        found[row.wallet, row.branch] = (min(first, row.first), written + row.written)
    return found


def _after_jump(first: int, now: datetime) -> int:
    """Return the first index behind what may have been given out from *first* on. Pure.

    A database that is set back to the same moment again knows nothing of the jump before, nor of what
    was given out behind that. Only time has not gone back: a later jump ends so many indexes further
    on as seconds have passed, and nobody gives out one address a second all the time.
    """
    return max(first, (now - COUNTED_FROM) // timedelta(seconds=1)) + ADDRESSES_SKIPPED


async def _skip(
    conn: AsyncConnection, restore_id: UUID, wallet: Wallet, first: int, now: datetime
) -> Skip:
    """Write a range whose branch is locked, and the branch's next index behind it."""
    last = _after_jump(first, now) - 1
    skip = Skip(restore_id, wallet.code, GIVEN, wallet.chain, first, last, 0)
    await conn.execute(
        insert(address_skip).values(
            restore_id=restore_id,
            wallet=skip.wallet,
            branch=skip.branch,
            chain=skip.chain,
            first=first,
            last=last,
            written=0,
        )
    )
    await store.move_branch(conn, skip.wallet, skip.branch, last + 1)
    return skip
